"""Errors in the shape of each AWS service."""

from __future__ import annotations

import json
import uuid
from xml.sax.saxutils import escape

_REST = ("lambda",)
_XML = ("s3", "s3express")
_JSON = ("sqs", "logs", "dynamodb")
# SQS's older names, which clients that were made for its query protocol still look for.
_QUERY_NAMES = {"BatchRequestTooLong": "AWS.SimpleQueueService.BatchRequestTooLong"}


class Refusal(Exception):
    """A request is answered with an error of AWS's: `code`, `message`, HTTP `status`."""

    def __init__(self, code: str, message: str, status: int = 400, **details: str) -> None:
        super().__init__(message)
        self.code, self.message, self.status, self.details = code, message, status, details


def refusal_answer(service: str, refusal: Refusal) -> tuple[dict[str, str], bytes]:
    """Headers and body of the answer."""
    request = str(uuid.uuid4())
    if service in _REST:
        body = json.dumps({"Type": _kind(refusal), "Message": refusal.message, **refusal.details})
        headers = {"x-amzn-ErrorType": refusal.code, "x-amzn-RequestId": request, "Content-Type": "application/json"}
        return headers, body.encode()
    if service in _JSON:
        shape = f"com.amazonaws.{service}#{refusal.code}"
        name = _QUERY_NAMES.get(refusal.code, refusal.code)
        headers = {"x-amzn-RequestId": request, "Content-Type": "application/x-amz-json-1.0"}
        headers["x-amzn-query-error"] = f"{name};{_kind(refusal)}"
        return headers, json.dumps({"__type": shape, "message": refusal.message}).encode()
    return {"x-amz-request-id": request, "Content-Type": "text/xml"}, _xml(service, refusal, request).encode()


def _kind(refusal: Refusal) -> str:
    return "Sender" if refusal.status < 500 else "Receiver"


def _xml(service: str, refusal: Refusal, request: str) -> str:
    code, message = escape(refusal.code), escape(refusal.message)
    if service in _XML:
        return f"<Error><Code>{code}</Code><Message>{message}</Message><RequestId>{request}</RequestId></Error>"
    error = f"<Error><Type>{_kind(refusal)}</Type><Code>{code}</Code><Message>{message}</Message></Error>"
    return f"<ErrorResponse>{error}<RequestId>{request}</RequestId></ErrorResponse>"

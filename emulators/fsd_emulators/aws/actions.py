"""What a request asks of which service: read from its address, headers and body, as AWS does."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

_SCOPE = re.compile(r"Credential=(?P<key>[^/,]+)/\d+/(?P<region>[^/,]+)/(?P<service>[^/,]+)/")
_INVOKE = re.compile(r"/2015-03-31/functions/(?P<function>[^/]+)/invocations")
_LAMBDA = re.compile(r"/20\d\d-\d\d-\d\d/(?P<rest>.+)")
_LAMBDA_ACTIONS = {
    ("POST", "functions"): "CreateFunction",
    ("GET", "functions"): "ListFunctions",
    ("GET", "functions/*"): "GetFunction",
    ("DELETE", "functions/*"): "DeleteFunction",
    ("PUT", "functions/*/code"): "UpdateFunctionCode",
    ("GET", "functions/*/configuration"): "GetFunctionConfiguration",
    ("PUT", "functions/*/configuration"): "UpdateFunctionConfiguration",
    ("PUT", "functions/*/concurrency"): "PutFunctionConcurrency",
    ("GET", "functions/*/concurrency"): "GetFunctionConcurrency",
    ("DELETE", "functions/*/concurrency"): "DeleteFunctionConcurrency",
    ("PUT", "functions/*/event-invoke-config"): "PutFunctionEventInvokeConfig",
    ("POST", "functions/*/event-invoke-config"): "UpdateFunctionEventInvokeConfig",
    ("GET", "functions/*/event-invoke-config"): "GetFunctionEventInvokeConfig",
    ("DELETE", "functions/*/event-invoke-config"): "DeleteFunctionEventInvokeConfig",
    ("GET", "account-settings"): "GetAccountSettings",
    ("GET", "tags/*"): "ListTags",
    ("POST", "tags/*"): "TagResource",
}
_OBJECT_ACTIONS = {"GET": "GetObject", "PUT": "PutObject", "HEAD": "HeadObject", "DELETE": "DeleteObject"}
_BUCKET_ACTIONS = {"PUT": "CreateBucket", "HEAD": "HeadBucket", "DELETE": "DeleteBucket", "GET": "ListObjects"}
# What a bare word in the query makes of an S3 request.
_SUBRESOURCES = (
    "uploads",
    "lifecycle",
    "encryption",
    "policy",
    "publicAccessBlock",
    "tagging",
    "versioning",
    "location",
)


@dataclass
class Action:
    """`parameters` are the body of a JSON service, or the fields of a form; empty for S3."""

    service: str
    name: str
    resource: str = ""
    region: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)


def service_of(headers: Mapping[str, str], path: str) -> tuple[str, str]:
    """The service that a request is for, and the region; by its signature, or its path if it has none."""
    scope = _SCOPE.search(headers.get("Authorization", ""))
    if scope is not None:
        return scope["service"], scope["region"]
    return ("lambda" if _INVOKE.fullmatch(urlsplit(path).path) else "s3"), ""


def needs_body(service: str) -> bool:
    """Whether the body says what is asked; S3's bodies are objects."""
    return service not in ("s3", "s3express")


def classify(service: str, region: str, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Action:
    """The action; ``Unknown`` where nothing tells."""
    if service == "lambda":
        return _lambda(method, path, region, body)
    if not needs_body(service):
        return _s3(method, path, region, headers)
    target = headers.get("X-Amz-Target", "")
    if target:
        return _json(service, target.rpartition(".")[2], region, body)
    fields = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    fields |= dict(parse_qsl(urlsplit(path).query))
    resource = fields.get("TopicArn") or fields.get("StackName") or fields.get("QueueUrl", "")
    return Action(service, fields.get("Action", "Unknown"), resource, region, fields)


def _json(service: str, name: str, region: str, body: bytes) -> Action:
    parameters = _object(body)
    url = parameters.get("QueueUrl")
    resource = url.rpartition("/")[2] if isinstance(url, str) else str(parameters.get("QueueName", ""))
    return Action(service, name, resource, region, parameters)


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _lambda(method: str, path: str, region: str, body: bytes) -> Action:
    plain = urlsplit(path).path
    invoke = _INVOKE.fullmatch(plain)
    if invoke and method == "POST":
        return Action("lambda", "Invoke", function_name(unquote(invoke["function"])), region)
    found = _LAMBDA.fullmatch(plain.rstrip("/"))
    parts = found["rest"].split("/") if found else []
    pattern = "/".join("*" if place == 1 else part for place, part in enumerate(parts[:3]))
    name = _LAMBDA_ACTIONS.get((method, "tags/*" if parts[:1] == ["tags"] else pattern), "Unknown")
    parameters = _object(body)
    resource = parts[1] if len(parts) > 1 else str(parameters.get("FunctionName", ""))
    return Action("lambda", name, function_name(unquote(resource)), region, parameters)


def function_name(given: str) -> str:
    """The name in what Lambda takes for one: a name, an ARN, or an account and a name."""
    return given.partition(":function:")[2].partition(":")[0] if ":function:" in given else given.partition(":")[0]


def _s3(method: str, path: str, region: str, headers: Mapping[str, str]) -> Action:
    split = urlsplit(path)
    bucket, _, key = unquote(split.path.lstrip("/")).partition("/")
    query = dict(parse_qsl(split.query, keep_blank_values=True))
    return Action("s3", _s3_name(method, bucket, key, query, headers), f"{bucket}/{key}" if key else bucket, region)


def _s3_name(method: str, bucket: str, key: str, query: Mapping[str, str], headers: Mapping[str, str]) -> str:
    if not bucket:
        return "ListBuckets"
    if method == "POST":
        return "DeleteObjects" if "delete" in query else _upload(query)
    if "uploadId" in query:
        return {"PUT": "UploadPart", "DELETE": "AbortMultipartUpload"}.get(method, "ListParts")
    special = next((word for word in _SUBRESOURCES if word in query), "")
    if special:
        return method.title() + special[0].upper() + special[1:]
    if key:
        copied = method == "PUT" and "x-amz-copy-source" in headers
        return "CopyObject" if copied else _OBJECT_ACTIONS.get(method, "Unknown")
    if query.get("list-type") == "2":
        return "ListObjectsV2"
    return "CreateSession" if "session" in query else _BUCKET_ACTIONS.get(method, "Unknown")


def _upload(query: Mapping[str, str]) -> str:
    return "CreateMultipartUpload" if "uploads" in query else "CompleteMultipartUpload"

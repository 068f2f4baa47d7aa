"""What the local services answer instead, as Google's do."""

from __future__ import annotations

from typing import Any

_STATUS = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
}


class ApiError(Exception):
    """`status` is the name of a gRPC status code; `details` are added as they are."""

    def __init__(self, status: str, message: str, details: tuple[dict[str, Any], ...] = ()) -> None:
        super().__init__(message)
        self.status, self.message, self.details = status, message, details

    @property
    def code(self) -> int:
        """That of HTTP."""
        return _STATUS[self.status]

    @property
    def content(self) -> dict[str, Any]:
        """The body of the answer."""
        error: dict[str, Any] = {"code": self.code, "status": self.status, "message": self.message}
        return {"error": {**error, "details": list(self.details)} if self.details else error}

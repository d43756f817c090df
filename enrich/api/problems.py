"""Errors as problem documents (RFC 9457): what is wrong in one sentence, with the right status."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from starlette.responses import JSONResponse

from enrich.errors import EnrichError, Halt, InputRefused, RateLimited

MEDIA_TYPE = "application/problem+json"

#: Seconds after which a caller may try again, where nothing says how many.
RETRY_SECONDS = 1


class Problem(BaseModel):
    """The document."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str


class ProblemError(Exception):
    """Raised where a request cannot be answered as it is."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})


class ProblemResponse(JSONResponse):
    media_type = MEDIA_TYPE


def response(status: int, detail: str, headers: Mapping[str, str] | None = None) -> ProblemResponse:
    body = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail)
    return ProblemResponse(body.model_dump(), status, dict(headers or {}))


def status_of(error: EnrichError) -> tuple[int, dict[str, str]]:
    """The status of an expected failure, and when to try again."""
    if isinstance(error, RateLimited):
        return 429, {"Retry-After": str(max(1, round(error.pause)))}
    if isinstance(error, InputRefused):
        return 422, {}
    if isinstance(error, Halt):
        # A key or a setting of this service, which no caller can mend.
        return 502, {}
    return 503, {"Retry-After": str(RETRY_SECONDS)}


def described(description: str) -> dict[str, Any]:
    """A problem as the OpenAPI document tells of it."""
    return {
        "description": description,
        "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema()}},
    }


#: For the OpenAPI document: the problems that any route may answer.
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: described(description)
    for status, description in (
        (400, "The request cannot be read."),
        (401, "No key, or an unknown one."),
        (403, "The name by which the service was asked is not its own."),
        (408, "The body did not arrive in time."),
        (413, "The body is too large."),
        (422, "A value is missing or wrong."),
        (429, "Too many requests, or a budget is used up."),
        (502, "A server behind this one refuses it."),
        (503, "A server behind this one does not answer."),
    )
}

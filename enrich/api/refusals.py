"""What the service does not do: one error, told in the form that the route's callers know.

Routes below `/v1/` are asked by clients of OpenAI's API and answer with its body of an error; all
others answer with a problem document (RFC 9457).
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from enrich.api.outage import StillAway
from enrich.errors import EnrichError, Halt, InputRefused, RateLimited

log = logging.getLogger(__name__)

PROBLEM = "application/problem+json"

#: Seconds after which a caller may try again, where nothing says how many.
RETRY_SECONDS = 1

#: Of an error that nobody foresaw.
FAULT = "a fault of the service: its log tells more"

#: The routes that answer in OpenAI's form.
OPENAI_PREFIX = "/v1/"


class Refusal(Exception):
    """A request that is not served.

    `kind`, `param` and `code` are what OpenAI's clients tell errors apart by: see
    https://platform.openai.com/docs/guides/error-codes.
    """

    def __init__(
        self,
        status: int,
        sentence: str,
        *,
        kind: str | None = None,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.kind = kind or ("invalid_request_error" if status < 500 else "server_error")
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def response(self, path: str) -> Response:
        """The answer. Args: path: of the request."""
        if path.startswith(OPENAI_PREFIX):
            return JSONResponse(self.openai_body(), self.status, self.headers)
        body = Problem(
            title=HTTPStatus(self.status).phrase, status=self.status, detail=self.sentence
        )
        return JSONResponse(body.model_dump(), self.status, self.headers, PROBLEM)

    def openai_body(self) -> dict[str, Any]:
        told = {"type": self.kind, "param": self.param, "code": self.code}
        return {"error": {"message": self.sentence, **told}}


class Problem(BaseModel):
    """A problem document."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str


#: Where servers are, as sentences for operators say it.
_ADDRESSES = re.compile(r" at https?://[^\s,]+(, https?://[^\s,]+)*")


def for_callers(sentence: str) -> str:
    """A sentence for operators as callers may read it: without the addresses of our servers."""
    return _ADDRESSES.sub("", sentence)


#: What a route raises in place of an answer; the last are of layers below the routes.
RAISED = (Refusal, EnrichError, HTTPException, ClientDisconnect)


def answer_to(error: Exception, path: str) -> Response:
    """The answer where one of RAISED was raised. Args: path: of the request."""
    if isinstance(error, ClientDisconnect):
        # Nobody reads it; the log's line has the status.
        error = Refusal(400, "the body was cut off")
    if isinstance(error, HTTPException):
        error = Refusal(error.status_code, str(error.detail), headers=error.headers)
    if isinstance(error, EnrichError):
        error = logged_refusal_of(error)
    assert isinstance(error, Refusal)
    return error.response(path)


def logged_refusal_of(error: EnrichError) -> Refusal:
    """The same as `refusal_of`; the log has the addresses, which callers are not told."""
    log.warning("%s", error)
    return refusal_of(error)


def refusal_of(error: EnrichError) -> Refusal:
    """An expected failure: its status, and when to try again."""
    told = for_callers(str(error))
    if isinstance(error, RateLimited):
        return rate_limited(told, error.pause)
    if isinstance(error, InputRefused):
        return Refusal(422, told)
    if isinstance(error, Halt):
        # A key or a setting of this service, which no caller can mend.
        return Refusal(502, told)
    seconds = error.seconds if isinstance(error, StillAway) else 0.0
    return Refusal(503, told, headers={"Retry-After": str(max(RETRY_SECONDS, math.ceil(seconds)))})


def rate_limited(
    sentence: str, seconds: float, headers: Mapping[str, str] | None = None
) -> Refusal:
    """Args: seconds: until it may be tried again."""
    again = max(1, round(seconds))
    return Refusal(
        429,
        sentence,
        kind="requests",
        code="rate_limit_exceeded",
        headers={
            "Retry-After": str(again),
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": f"{again}s",
            **(headers or {}),
        },
    )


def budget_spent(sentence: str, now: datetime | None = None) -> Refusal:
    """Args: now: aware; the present if None. What was spent counts by days of UTC."""
    moment = (now or datetime.now(UTC)).astimezone(UTC)
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    again = math.ceil((midnight - moment).total_seconds())
    return Refusal(
        429,
        sentence,
        kind="insufficient_quota",
        code="insufficient_quota",
        headers={"Retry-After": str(again)},
    )


def described(description: str) -> dict[str, Any]:
    """A problem as the OpenAPI document tells of it."""
    return {
        "description": description,
        "content": {PROBLEM: {"schema": Problem.model_json_schema()}},
    }


#: For the OpenAPI document: the problems that any route may answer.
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: described(description)
    for status, description in (
        (400, "The request cannot be read."),
        (401, "No key, or an unknown one."),
        (403, "The name by which the service was asked is not its own."),
        (408, "The body did not arrive in time."),
        (413, "The body is too large."),
        (422, "A value is missing or wrong."),
        (429, "Too many requests, or a budget is used up."),
        (500, "A fault of this service."),
        (502, "A server behind this one refuses it."),
        (503, "A server behind this one does not answer."),
    )
}

_OPENAI_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}

#: The same below `/v1/`.
OPENAI_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": told["description"],
        "content": {"application/json": {"schema": _OPENAI_ERROR}},
    }
    for status, told in {**PROBLEMS, 404: described("There is no such model.")}.items()
}

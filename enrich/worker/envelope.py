"""The form of a message in the broker, checked before anything else looks into it.

Whoever can write to Redis can put anything there. What has not this form is dropped by the one who
read it; the texts of the errors name a field and what was expected, and never a value.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Annotated, Any, Literal

import msgspec

#: What reading anything at all may raise.
UNREADABLE = (ValueError, LookupError, TypeError, RecursionError)


class NotOurs(ValueError):
    """A message does not have our form; the text says where, and quotes nothing of it."""


class _DeliveryInfo(msgspec.Struct):
    exchange: str
    routing_key: str


class _Properties(msgspec.Struct):
    delivery_tag: str
    delivery_info: _DeliveryInfo
    #: Any other the transport takes for one that it knows.
    body_encoding: Literal["base64"] | None = None


class _Envelope(msgspec.Struct, rename="kebab"):
    properties: _Properties
    body: str | None = None
    headers: dict[str, Any] | None = None
    content_type: str | None = None
    content_encoding: str | None = None


Seconds = Annotated[float, msgspec.Meta(ge=0)]


class _Headers(msgspec.Struct):
    task: str
    id: str
    retries: Annotated[int, msgspec.Meta(ge=0)] | None = None
    timelimit: tuple[Seconds | None, Seconds | None] | None = None
    eta: str | None = None
    expires: str | None = None


def check_envelope(payload: Any) -> None:
    """What the transport reads: address, tag, body as text. Raises NotOurs."""
    try:
        headers = msgspec.convert(payload, _Envelope).headers
    except msgspec.ValidationError as error:
        raise NotOurs(f"not a message: {error}") from None
    if headers and headers.get("compression"):
        # Ours never are; a few bytes could unpack to any size.
        raise NotOurs("not a message: compressed")


def check_task(headers: Any, body: Any, known: Container[str]) -> None:
    """What the worker reads: a task that it knows, and its arguments. Raises NotOurs."""
    try:
        task = msgspec.convert(headers, _Headers).task
        msgspec.convert(body, tuple[list[Any], dict[str, Any], Any])
    except msgspec.ValidationError as error:
        raise NotOurs(f"not a task: {error}") from None
    if task not in known:
        raise NotOurs("an unknown task")


def why_unreadable(error: Exception) -> str:
    """What may be said of the error: of others' only the kind, since they quote what they read."""
    return str(error) if isinstance(error, NotOurs) else f"unreadable ({type(error).__name__})"

"""What every request has to pass before a route sees it: its size, its time, the name it bears.

And the line that is logged of it: method, route, status, milliseconds and whose key it was; never a
text, a query or a key.
"""

from __future__ import annotations

import asyncio
import logging
import time

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from enrich.api.refusals import FAULT, Refusal

log = logging.getLogger(__name__)

#: Of one body, in bytes: a thousand logs of 8,000 bytes, or 2,048 inputs, fit.
MOST_BODY = 20 * 1024 * 1024
#: A body that has not arrived by then is not waited for.
BODY_SECONDS = 10.0
#: At a time, in one process; what comes beyond is told to come again.
MOST_REQUESTS = 2000


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str] | None) -> None:
        """Args: hosts: names by which it may be asked, without brackets; None for all."""
        self._app = app
        self._hosts = hosts
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status, answered = 500, False

        async def noted(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status, answered = message["status"], True
            await send(message)

        async def refuse(code: int, sentence: str) -> None:
            nonlocal status
            status = code
            again = {"Retry-After": "1"} if code == 503 else {}
            refusal = Refusal(code, sentence, headers={**_CLOSE, **again})
            await refusal.response(scope["path"])(scope, receive, send)

        self._under_way += 1
        try:
            headers = {name: value for name, value in scope["headers"]}
            if self._hosts is not None and not self._may_ask(headers):
                await refuse(403, _OTHER_HOST)
            elif _length(headers) > MOST_BODY:
                await refuse(413, _LARGE)
            elif self._under_way > MOST_REQUESTS:
                await refuse(503, _BUSY)
            else:
                await self._app(scope, _bounded(receive), noted)
        except Exception:
            # Nobody foresaw it: the server logs it, and closes the connection.
            if not answered:
                await refuse(500, FAULT)
            raise
        finally:
            self._under_way -= 1
            route = scope.get("route")
            log.info(
                "%s %s %d %.1f ms %s",
                scope["method"],
                getattr(route, "path", "-"),
                status,
                1000 * (time.perf_counter() - began),
                scope.get("state", {}).get("caller", "-"),
            )

    def _may_ask(self, headers: dict[bytes, bytes]) -> bool:
        """A page in a browser may let its own name point here; the name stays in the request."""
        assert self._hosts is not None
        host, origin = (
            headers.get(name, b"").decode("latin-1").lower() for name in (b"host", b"origin")
        )
        origins = [_name_of(origin.partition("://")[2])] if origin else []
        return self._hosts.issuperset([_name_of(host), *origins])


_CLOSE = {"Connection": "close"}
_LARGE = f"the body is larger than {MOST_BODY // (1024 * 1024)} MB"
_BUSY = "too many requests are under way: ask again in a moment"
_OTHER_HOST = (
    "this service has no keys, so it answers only to localhost and 127.0.0.1: set "
    "ENRICH_API_KEYS_FILE"
)


def _name_of(authority: str) -> str:
    """`localhost:8000` → `localhost`; of IPv6 without the brackets."""
    name, colon, port = authority.rpartition(":")
    return (name if colon and port.isdigit() else authority).strip("[]")


def _length(headers: dict[bytes, bytes]) -> int:
    told = headers.get(b"content-length", b"0")
    return int(told) if told.isdigit() else 0


def _bounded(receive: Receive) -> Receive:
    until = time.monotonic() + BODY_SECONDS
    size = 0
    whole = False

    async def received() -> Message:
        nonlocal size, whole
        if whole:
            return await receive()
        try:
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                message = await receive()
        except TimeoutError:
            raise HTTPException(
                408, f"the body did not arrive within {BODY_SECONDS:.0f} s", _CLOSE
            ) from None
        size += len(message.get("body", b""))
        whole = not message.get("more_body", False)
        if size > MOST_BODY:
            raise HTTPException(413, _LARGE, _CLOSE)
        return message

    return received

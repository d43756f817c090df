"""The way of the routes that are asked thousands of times a second: straight to their function.

FastAPI's way through its layers costs more than half of what a known vector costs. The same
function is a route of it too, so that it is described and that nothing depends on this shortcut.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from enrich.api.refusals import RAISED, answer_to

Endpoint = Callable[[Request], Awaitable[Response]]

log = logging.getLogger(__name__)


class Direct:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, endpoints: Mapping[tuple[str, str], Endpoint]) -> None:
        """Args: endpoints: by method and path."""
        self._app = app
        #: With what names the route in the log's line.
        self._endpoints = {
            (method, path): (endpoint, Route(path, endpoint, methods=[method]))
            for (method, path), endpoint in endpoints.items()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        known = self._endpoints.get((scope.get("method", ""), scope.get("path", "")))
        if known is None:
            await self._app(scope, receive, send)
            return
        endpoint, scope["route"] = known
        try:
            response = await endpoint(Request(scope, receive))
        except RAISED as error:
            response = answer_to(error, scope["path"])
        await response(scope, receive, send)

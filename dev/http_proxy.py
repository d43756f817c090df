"""A small reverse proxy that knows HTTP: it passes requests on, and alters chosen answers.

Stands between a part and its server in tests of what load balancers, captive portals and
overloaded nodes answer. Runs in threads of the process that uses it; for faults below HTTP, such
as a cut or silent connection, there is `tcp_proxy`.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import httpx2


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request as it came in."""

    method: str
    #: With its query.
    path: str
    content_type: str
    body: bytes
    #: By name in lower case.
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Answered:
    """An answer as it goes back."""

    status: int = 200
    content_type: str = "application/json"
    body: bytes = b""
    #: Announce the whole body, send half of it and hang up.
    hang_up: bool = False


Forward = Callable[[Asked], Answered]
#: What becomes of a request: forwards it (or another in its place), or not, and answers.
Alter = Callable[[Asked, Forward], Answered]


def unaltered(asked: Asked, forward: Forward) -> Answered:
    return forward(asked)


def taking_at_most(most: int, path: str, refused: list[int]) -> Alter:
    """Refuses larger bodies to paths that begin so, as web servers do before what they pass on
    (nginx from a megabyte on, unless told otherwise), and notes how many bytes each had."""

    def alter(asked: Asked, forward: Forward) -> Answered:
        if asked.path.startswith(path) and len(asked.body) > most:
            refused.append(len(asked.body))
            page = b"<html><h1>413 Request Entity Too Large</h1></html>"
            return Answered(status=413, content_type="text/html", body=page)
        return forward(asked)

    return alter


class HttpProxy:
    """Forwards 127.0.0.1:`port` to a server; `alter` may be set at any moment."""

    def __init__(self, target_url: str) -> None:
        self.alter: Alter = unaltered
        self._client = httpx2.Client(base_url=target_url, timeout=60)
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._client.close()

    def forward(self, asked: Asked) -> Answered:
        """Ask the server itself; without one, 502 as gateways say it."""
        try:
            answer = self._client.request(
                asked.method,
                asked.path,
                content=asked.body,
                headers={
                    name: value
                    for name, value in (
                        ("content-type", asked.content_type),
                        ("authorization", asked.headers.get("authorization", "")),
                    )
                    if value
                },
            )
        except httpx2.HTTPError:
            return Answered(status=502, content_type="text/html", body=b"<h1>Bad gateway</h1>")
        kind = answer.headers.get("content-type", "")
        return Answered(status=answer.status_code, content_type=kind, body=answer.content)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    block_on_close = False
    proxy: HttpProxy

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that was killed resets its connection.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body leave apart; together with delayed acknowledgements that would cost 40 ms each.
    disable_nagle_algorithm = True
    server: _Server

    def _handle(self) -> None:
        proxy = self.server.proxy
        asked = Asked(
            method=self.command,
            path=self.path,
            content_type=self.headers.get("content-type", ""),
            body=self.rfile.read(int(self.headers.get("content-length", 0))),
            headers={name.lower(): value for name, value in self.headers.items()},
        )
        answered = proxy.alter(asked, proxy.forward)
        body = answered.body
        self.send_response(answered.status)
        self.send_header("content-type", answered.content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        try:
            if self.command != "HEAD":
                self.wfile.write(body[: len(body) // 2] if answered.hang_up else body)
        except OSError:
            # Whoever asked has left, as clients with a time-out do.
            self.close_connection = True
        if answered.hang_up:
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle

    def log_message(self, *_: object) -> None:
        """Say nothing: it would be the busiest writer of a test."""

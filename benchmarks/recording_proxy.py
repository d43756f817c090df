"""Stands before OpenSearch and notes every request and how long its answer took.

For lines whose clock is not the proxy's business: it is a plain threaded server, slower than what
is behind it.
"""

from __future__ import annotations

import http.client
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its answer."""

    #: Seconds of the monotonic clock.
    at: float
    #: From the request's last byte to the answer's last byte.
    seconds: float
    request: str


class RecordingProxy:
    """Forwards 127.0.0.1:`port` to a server on loopback while it is entered."""

    def __init__(self, target_port: int) -> None:
        self.exchanges: list[Exchange] = []
        exchanges = self.exchanges

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Small answers must not wait for more to come.
            disable_nagle_algorithm = True

            def _forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {
                    name: value
                    for name, value in self.headers.items()
                    if name.lower() not in ("host", "connection", "accept-encoding")
                }
                there = http.client.HTTPConnection("127.0.0.1", target_port, timeout=300)
                at = time.monotonic()
                there.request(self.command, self.path, body, headers)
                answer = there.getresponse()
                content = answer.read()
                took = time.monotonic() - at
                exchanges.append(Exchange(at, took, f"{self.command} {self.path.split('?')[0]}"))
                there.close()
                self.send_response(answer.status)
                for name in ("content-type", "warning"):
                    if value := answer.getheader(name):
                        self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _forward

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing: whoever uses the proxy reads `exchanges`."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

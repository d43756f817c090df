"""Small servers on loopback that misbehave in one known way each: refuse, stay silent, reset, cut
answers short, or refuse by HTTP status. They live as long as one capture.
"""

from __future__ import annotations

import json
import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LOOPBACK = "127.0.0.1"

_JSON: dict[str, tuple[int, dict[str, Any]]] = {
    "/v1/rates/today": (200, {"base": "EUR", "rates": {"KRW": "1684.20", "USD": "1.16"}}),
    "/v1/charges": (500, {"error": "internal error"}),
    "/v1/stock": (503, {"error": "no healthy upstream"}),
    "/v1/addresses": (404, {"error": "not found"}),
    "/v1/refunds": (409, {"error": "refund is already open"}),
    "/unauthorized/v1/embeddings": (
        401,
        {
            "error": {
                "message": "Incorrect API key provided.",
                "type": "invalid_request_error",
                "param": None,
                "code": "invalid_api_key",
            }
        },
    ),
    "/limited/v1/embeddings": (
        429,
        {
            "error": {
                "message": "Rate limit reached for text-embedding-3-small on requests per min.",
                "type": "requests",
                "param": None,
                "code": "rate_limit_exceeded",
            }
        },
    ),
    "/quota/v1/embeddings": (
        429,
        {
            "error": {
                "message": "You exceeded your current quota, please check your plan.",
                "type": "insufficient_quota",
                "param": None,
                "code": "insufficient_quota",
            }
        },
    ),
    "/long/v1/embeddings": (
        400,
        {
            "error": {
                "message": "This model's maximum context length is 8192 tokens.",
                "type": "invalid_request_error",
                "param": None,
                "code": None,
            }
        },
    ),
    "/healthy/v1/embeddings": (
        200,
        {
            "object": "list",
            "model": "text-embedding-3-small",
            "data": [{"object": "embedding", "index": 0, "embedding": [0.6, 0.8]}],
            "usage": {"prompt_tokens": 1, "total_tokens": 1},
        },
    ),
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/silent":
            self.server.closing.wait(2)  # type: ignore[attr-defined]
            self.close_connection = True
        elif self.path == "/disconnect":
            self.close_connection = True
        elif self.path == "/garbage":
            self.wfile.write(b"+PONG\r\n")
            self.close_connection = True
        elif self.path == "/short":
            self._answer(200, b'{"items": [', length=4096)
            self.close_connection = True
        elif self.path == "/loop":
            self._answer(302, b"", location="/loop")
        elif self.path == "/html":
            self._answer(200, b"<html><body>Sign in</body></html>")
        else:
            status, body = _JSON.get(self.path, (404, {"error": "not found"}))
            self._answer(status, json.dumps(body).encode())

    do_POST = do_GET
    do_PUT = do_GET

    def _answer(
        self, status: int, body: bytes, *, length: int | None = None, location: str | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) if length is None else length))
        if location:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Its own access log would mix with what is captured."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((LOOPBACK, 0), _Handler)
        self.closing = threading.Event()

    def server_bind(self) -> None:
        # HTTPServer's own also looks up the host's name, which can wait for a resolver.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = LOOPBACK, self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gives up is what these servers are for."""


@contextmanager
def http_server() -> Iterator[int]:
    server = _Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def closed_port() -> Iterator[int]:
    # Bound and not listening: refused by the kernel, and nobody else can take the port meanwhile.
    with socket.socket() as bound:
        bound.bind((LOOPBACK, 0))
        yield int(bound.getsockname()[1])


@contextmanager
def silent_port() -> Iterator[int]:
    with socket.create_server((LOOPBACK, 0), backlog=64) as listening:
        yield int(listening.getsockname()[1])


@contextmanager
def resetting_port() -> Iterator[int]:
    def reset_each(listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection = listening.accept()[0]
                connection.recv(1)
                # Linger of zero: close() sends RST instead of FIN.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()

    with _answering(reset_each) as port:
        yield port


@contextmanager
def tls_port(certificate: Path, *, highest: ssl.TLSVersion | None = None) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    if highest:
        context.maximum_version = highest

    def shake_hands(listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection = listening.accept()[0]
                connection.settimeout(1)
                with suppress(OSError), context.wrap_socket(connection, server_side=True) as secure:
                    secure.recv(1024)
                connection.close()

    with _answering(shake_hands) as port:
        yield port


@contextmanager
def _answering(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    with socket.create_server((LOOPBACK, 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,), daemon=True)
        thread.start()
        try:
            yield int(listening.getsockname()[1])
        finally:
            # close() alone does not wake a thread that waits in accept().
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            thread.join(1)

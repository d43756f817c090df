"""Makes a loopback service reachable at another address of this machine: bytes in, bytes out."""

from __future__ import annotations

import socket
import socketserver
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self


class Forwarder:
    """Forwards `address`:`port` to 127.0.0.1:`target_port` while it is entered, for whoever comes
    over `device` only: Linux would take an address of this machine from any."""

    def __init__(self, address: str, target_port: int, *, device: str) -> None:
        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with socket.create_connection(("127.0.0.1", target_port)) as there:
                    back = threading.Thread(target=_copy, args=(there, self.request), daemon=True)
                    back.start()
                    _copy(self.request, there)
                    back.join()

        self._server = socketserver.ThreadingTCPServer(
            (address, 0), Handler, bind_and_activate=False
        )
        self._server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        self._server.server_bind()
        self._server.server_activate()
        self._server.daemon_threads = True
        # Connections of programs that were killed may still be open.
        self._server.block_on_close = False
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


def _copy(source: socket.socket, sink: socket.socket) -> None:
    # Either side may go away at any time, and that is then the other's end as well.
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)

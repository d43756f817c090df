"""`python -m enrich metrics`: Prometheus metrics over HTTP, for whoever runs no Flower."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer, _SilentHandler

from enrich.cli import screen
from enrich.errors import SettingsError
from enrich.setting_forms import loopback
from enrich.settings import Settings
from enrich.status.metrics import EnrichCollector
from enrich.status.reader import build_reader
from enrich.worker.start import end_if_impossible

#: Seconds after which a caller that sends or reads nothing is given up.
PATIENCE_SECONDS = 30

_Begin = Callable[..., Any]
_App = Callable[[dict[str, Any], _Begin], Iterable[bytes]]


class _Handler(_SilentHandler):
    timeout = PATIENCE_SECONDS


def metrics(settings: Settings, address: str, port: int) -> int:
    """Serve until SIGTERM or SIGINT; the exit status.

    Raises:
        SettingsError: the address cannot be listened on.
    """
    end_if_impossible(settings, parts=False)
    registry = CollectorRegistry()
    registry.register(EnrichCollector(build_reader(settings).read))
    app = routed(make_wsgi_app(registry), local=loopback.is_loopback(address))
    with listening(address, port, app) as server:
        where = f"[{address}]" if ":" in address else address
        screen.line(screen.err(), "ok", f"metrics at http://{where}:{server.server_port}/metrics")
        for number in (signal.SIGTERM, signal.SIGINT):
            # From another thread: `shutdown` waits for the loop that the signal interrupts.
            signal.signal(
                number, lambda *_: threading.Thread(target=server.shutdown, daemon=True).start()
            )
        server.serve_forever()
    return 0


def routed(metrics: _App, *, local: bool) -> _App:
    """The one path that there is.

    Args:
        local: it listens on loopback, where a page of the web must not read it under a name of its
            own: only `localhost` and addresses of loopback are answered.
    """

    def answer(environment: dict[str, Any], begin: _Begin) -> Iterable[bytes]:
        host = str(environment.get("HTTP_HOST", ""))
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if local and not loopback.is_loopback(name.strip("[]") or "localhost"):
            return _plain(begin, "403 Forbidden", "ask for localhost")
        if environment.get("REQUEST_METHOD") not in ("GET", "HEAD"):
            return _plain(begin, "405 Method Not Allowed", "GET /metrics")
        if environment.get("PATH_INFO") != "/metrics":
            return _plain(begin, "404 Not Found", "the metrics are at /metrics")
        return metrics(environment, begin)

    return answer


def _plain(begin: _Begin, status: str, text: str) -> Iterable[bytes]:
    begin(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{text}\n".encode()]


def listening(address: str, port: int, app: _App) -> WSGIServer:
    """A server that has its port.

    Raises:
        SettingsError: the address cannot be listened on.
    """

    class Server(ThreadingWSGIServer):
        address_family = socket.AF_INET6 if ":" in address else socket.AF_INET

        def handle_error(self, request: Any, client_address: Any) -> None:
            # A caller that went away; anything else is a fault of ours, and told by its class.
            error = sys.exc_info()[1]
            if not isinstance(error, OSError):
                screen.line(screen.err(), "bad", f"a scrape failed: {type(error).__name__}")

    try:
        return make_server(address, port, app, Server, _Handler)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingsError(
            f"--address {address} --port {port}: cannot be listened on ({reason})"
        ) from None

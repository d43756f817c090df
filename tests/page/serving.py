"""Our pages within Flower's own, served by this process on a port of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flower import urls
from flower.app import rewrite_handler
from flower.options import default_options
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application

from enrich.flower.mounting import pages, room_of
from enrich.flower.orders import Workers
from enrich.flower.page import Room
from enrich.flower.templating import Templates
from enrich.settings import Settings


class FlowerOptions:
    """Flower's options, some of them changed."""

    def __init__(self, **changed: Any) -> None:
        self._changed = changed

    def __getattr__(self, name: str) -> Any:
        return self._changed[name] if name in self._changed else getattr(default_options, name)


def application_of(room: Room, **options: Any) -> Application:
    """Flower's handlers and templates with ours before them."""
    settings = {**urls.settings, "template_loader": Templates(urls.settings["template_path"])}
    handlers = pages(room) + urls.handlers
    if prefix := options.get("url_prefix"):
        handlers = [rewrite_handler(handler, prefix) for handler in handlers]
        settings["static_url_prefix"] = f"/{prefix}/static/"
    application = Application(handlers, **settings)
    application.options = FlowerOptions(**options)  # type: ignore[attr-defined]
    return application


@contextmanager
def served(settings: Settings, workers: Workers, **options: Any) -> Iterator[str]:
    """The pages with these settings; gives the address. Options are Flower's."""
    started = threading.Event()
    told: dict[str, Any] = {}

    async def serve() -> None:
        server = HTTPServer(application_of(room_of(settings, workers), **options))
        socket, told["port"] = bind_unused_port()
        server.add_socket(socket)
        told["loop"], told["end"] = asyncio.get_running_loop(), asyncio.Event()
        started.set()
        await told["end"].wait()
        server.stop()
        await server.close_all_connections()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert started.wait(30)
        prefix = options.get("url_prefix")
        yield f"http://127.0.0.1:{told['port']}" + (f"/{prefix}" if prefix else "")
    finally:
        told["loop"].call_soon_threadsafe(told["end"].set)
        thread.join()

"""Which names of this Flower a request may bear, where there is no login.

A web page that someone opens may let its own name point to 127.0.0.1 (DNS rebinding) and so read
from the browser what listens on loopback. The name stays in the request's Host; where nobody has to
log in, only those of loopback are answered. Behind a proxy that strips FLOWER_URL_PREFIX, the path
gets it back here, so that both kinds of proxies work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flower.app import Flower
from tornado.httputil import HTTPServerRequest, split_host_and_port
from tornado.web import RequestHandler

from enrich.setting_forms.loopback import is_loopback

REFUSAL = (
    "This Flower has no login, so it answers only to localhost and 127.0.0.1: set "
    "FLOWER_BASIC_AUTH=user:password, or let the proxy before it send Host: localhost.\n"
)


class OtherHost(RequestHandler):
    """Results everything with one sentence."""

    def prepare(self) -> None:
        self.set_status(403)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(REFUSAL)


def may_be_answered(host: str, options: Any) -> bool:
    """Whether a request with this Host may be answered.

    Args:
        options: Flower's: `basic_auth`, `auth` and `address`.
    """
    if options.basic_auth or options.auth:
        return True
    try:
        name, _ = split_host_and_port(host.lower())
    except ValueError:
        return False
    name = name.removeprefix("[").removesuffix("]")
    return is_loopback(name) or name == (options.address or "").lower()


def watch(application: type[Flower] = Flower) -> None:
    """Look at each request of Flower before any page, static file or socket does. Once a process:
    Flower builds its application by itself, from this class."""
    find: Callable[..., Any] = application.find_handler

    def find_handler(self: Flower, request: HTTPServerRequest, **kwargs: Any) -> Any:
        if not may_be_answered(request.host, self.options):
            return self.get_handler_delegate(request, OtherHost)
        prefix = "/" + (self.options.url_prefix or "").strip("/")
        if prefix != "/" and not f"{request.path}/".startswith(f"{prefix}/"):
            request.path = prefix + request.path
        return find(self, request, **kwargs)

    application.find_handler = find_handler

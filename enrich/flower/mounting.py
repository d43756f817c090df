"""Puts our pages into Flower, and decides whether it may open its port as it was told to.

flowerconfig.py calls both.
"""

from __future__ import annotations

import hmac
import sys
from collections.abc import Sequence
from typing import Any

import prometheus_client
from flower import urls, views
from tornado.options import OptionParser
from tornado.web import url

from enrich.flower.environment import api_is_open
from enrich.flower.hosts import watch
from enrich.flower.json_api import ApiPart, ApiRun, ApiRuns
from enrich.flower.latest import Latest
from enrich.flower.orders import Orders, Workers
from enrich.flower.page import (
    EnrichmentJson,
    EnrichmentPage,
    IndicesPage,
    Metrics,
    OrderPage,
    Room,
    RunPage,
    RunsPage,
    Static,
)
from enrich.flower.templating import Templates
from enrich.setting_forms.loopback import is_loopback
from enrich.settings import Settings
from enrich.status.metrics import EnrichCollector
from enrich.status.reader import StatusReader, build_reader
from enrich.wiring import build_ledger, build_store


def mount(settings: Settings, workers: Workers) -> Room:
    """Add the pages below /enrichment, the link to them, and the metrics. Once a process.

    Args:
        workers: to whom the buttons send work.

    Returns: what the pages share.
    """
    reader = build_reader(settings)
    views.hmac = _Utf8
    room = room_of(settings, workers, reader)
    urls.handlers[:0] = pages(room)
    urls.settings["template_loader"] = Templates(urls.settings["template_path"])
    prometheus_client.REGISTRY.register(EnrichCollector(reader.read))
    watch()
    return room


def room_of(settings: Settings, workers: Workers, reader: StatusReader | None = None) -> Room:
    """What the handlers share. `reader`: one of its own if None."""
    reader = reader or build_reader(settings)
    return Room(
        Latest(reader.overview, reader.forget),
        reader.history,
        orders=Orders(settings, build_ledger(settings), build_store(settings), workers),
        shown_settings=settings.redacted(),
        text_fields=settings.log_schema.texts_told,
    )


class _Utf8:
    """In place of the module by which Flower compares logins: that one takes texts of ASCII only,
    and a password beyond it was an error of the server."""

    @staticmethod
    def compare_digest(one: str, other: str) -> bool:
        return hmac.compare_digest(
            one.encode(errors="surrogateescape"), other.encode(errors="surrogateescape")
        )


def pages(room: Room) -> list[Any]:
    """Our handlers, to stand before Flower's, of which the last one takes every path."""
    shared = {"room": room}
    return [
        url(r"/enrichment", EnrichmentPage, shared, name="enrichment"),
        url(r"/enrichment\.json", EnrichmentJson, shared, name="enrichment-json"),
        url(r"/enrichment/runs", RunsPage, shared, name="enrichment-runs"),
        url(r"/enrichment/run/([^/]+)", RunPage, shared, name="enrichment-run"),
        url(r"/enrichment/indices", IndicesPage, shared, name="enrichment-indices"),
        url(r"/enrichment/order/([a-z-]+)", OrderPage, shared, name="enrichment-order"),
        url(r"/enrichment/api/runs", ApiRuns, shared),
        url(r"/enrichment/api/runs/([^/]+)", ApiRun, shared, name="enrichment-api-run"),
        url(r"/enrichment/api/([a-z]*)", ApiPart, shared, name="enrichment-api"),
        url(r"/enrichment/static/(.*)", Static, name="enrichment-static"),
        url(r"/metrics", Metrics),
    ]


def guard(options: OptionParser) -> None:
    """Listen on loopback unless told otherwise, and beyond it only with authentication.

    For the options as they are once everything has been read. Ends the process with status 2 and
    one sentence where they are not permitted.
    """
    if api_is_open():
        _refuse(
            "FLOWER_UNAUTHENTICATED_API: is not permitted, since it lets everyone past the login "
            "and read and send tasks: leave it out"
        )
    # An empty variable means "not set"; Flower takes it for a password that nobody can give.
    options.basic_auth = [pair for pair in options.basic_auth or [] if pair]
    options.address = permitted_address(options.address, options.basic_auth, options.auth)


def permitted_address(address: str, basic_auth: Sequence[str], auth: str) -> str:
    """The address to listen on, "" being loopback; ends the process if it would be open to all.

    Args:
        basic_auth: `user:password` each.
        auth: the pattern of the e-mail addresses that may log in by OAuth.
    """
    if any(":" not in pair or pair.startswith(":") or pair.endswith(":") for pair in basic_auth):
        _refuse("FLOWER_BASIC_AUTH: must be user:password, several separated by commas")
    address = address or "127.0.0.1"
    if not is_loopback(address) and not basic_auth and not auth:
        _refuse(
            f"FLOWER_ADDRESS: {address} can be reached from other machines, and Flower would let "
            "everyone in: set FLOWER_BASIC_AUTH=user:password, or leave FLOWER_ADDRESS out"
        )
    return address


def _refuse(sentence: str) -> None:
    print(f"enrich: {sentence}", file=sys.stderr)
    sys.exit(2)

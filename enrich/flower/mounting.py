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
from enrich.flower.page import EnrichmentJson, EnrichmentPage, Metrics, Templates
from enrich.setting_forms.loopback import is_loopback
from enrich.settings import Settings
from enrich.status.metrics import EnrichCollector
from enrich.status.reader import StatusReader, build_reader


def mount(settings: Settings) -> None:
    """Add /enrichment and /enrichment.json, the link to it, and the metrics. Once a process."""
    reader = build_reader(settings)
    views.hmac = _Utf8
    urls.handlers[:0] = pages(reader)
    urls.settings["template_loader"] = Templates(urls.settings["template_path"])
    prometheus_client.REGISTRY.register(EnrichCollector(reader.read))
    watch()


class _Utf8:
    """In place of the module by which Flower compares logins: that one takes texts of ASCII only,
    and a password beyond it was an error of the server."""

    @staticmethod
    def compare_digest(one: str, other: str) -> bool:
        return hmac.compare_digest(
            one.encode(errors="surrogateescape"), other.encode(errors="surrogateescape")
        )


def pages(reader: StatusReader) -> list[Any]:
    """Our handlers, to stand before Flower's, of which the last one takes every path."""
    return [
        url(r"/enrichment", EnrichmentPage, {"reader": reader}, name="enrichment"),
        url(r"/enrichment\.json", EnrichmentJson, {"reader": reader}, name="enrichment-json"),
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

"""What a kind of failure is, and the list in which every room of this folder enters its own.

A kind is a function that really fails and logs what it caught through the logger it is given. What
it may use (stand-in servers, a folder, the real servers' addresses) comes with the `Site`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Need = Literal["opensearch", "redis"]


@dataclass(frozen=True, kw_only=True)
class Failure:
    #: Name of the kind, e.g. "redis-wrong-type"; a kind may give more than one failure.
    kind: str
    service_name: str
    #: Name of the logger that wrote it.
    logger: str
    #: The log line and the traceback below it, with placeholders such as {port} for what varies.
    message: str


@dataclass(frozen=True, kw_only=True)
class Ordinary:
    #: "INFO" or "WARN".
    level: str
    service_name: str
    logger: str
    #: The log line, with placeholders as in a failure.
    message: str


class LeftOut(Exception):
    """This kind can't be provoked on this system; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Site:
    #: A folder of this capture alone.
    folder: Path
    #: Nothing listens here: connections are refused.
    closed_port: int
    #: Connections are accepted here by the kernel and never answered.
    silent_port: int
    #: Every connection is reset here at the first byte that arrives.
    resetting_port: int
    #: Root of the HTTP server whose answers depend on the path, see stand_ins.py.
    http: str
    http_port: int
    opensearch_url: str | None
    redis_url: str | None
    #: Marks indices and keys written to the real servers, so that they can be removed again.
    mark: str


Provoke = Callable[[logging.Logger, Site], None]


@dataclass(frozen=True, kw_only=True)
class Kind:
    name: str
    service_name: str
    logger: str
    #: The real server without which this kind is left out.
    need: Need | None
    provoke: Provoke


KINDS: dict[str, Kind] = {}


def failure(
    name: str, service_name: str, logger: str, *, need: Need | None = None
) -> Callable[[Provoke], Provoke]:
    """Enter the decorated function in `KINDS`."""

    def enter(provoke: Provoke) -> Provoke:
        assert name not in KINDS, f"two kinds are named {name}"
        KINDS[name] = Kind(
            name=name, service_name=service_name, logger=logger, need=need, provoke=provoke
        )
        return provoke

    return enter


# Values that a service would have read from its data. They are handed through the failing library
# as they stand here and are filled in when the logs are multiplied, so a KeyError names another
# product in every log.
ORDER = "{order}"
CUSTOMER = "{customer}"
SKU = "{sku}"

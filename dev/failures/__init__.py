"""True logs: real failures of real libraries and servers, provoked and caught on this machine.

`capture_all` runs every kind that the rooms of this folder have entered and returns what their
loggers wrote; `capture_ordinary` does the same for INFO and WARN lines. Nothing leaves loopback,
and what varies between machines comes out as placeholders, so two captures give the same texts.
"""

from __future__ import annotations

import logging
import secrets
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from dev.failures import data, network, ordinary, servers, stand_ins, system
from dev.failures.kinds import KINDS, Failure, Kind, LeftOut, Need, Ordinary, Site
from dev.failures.normal import normalise

__all__ = [
    "Captured",
    "Failure",
    "LeftOut",
    "Ordinary",
    "capture_all",
    "capture_ordinary",
]

_ROOMS = (data, network, servers, system)
_LONGEST_KIND_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Captured:
    failures: list[Failure]
    #: Kind to the reason for which it could not be provoked here.
    left_out: dict[str, str]


def capture_all(opensearch_url: str | None, redis_url: str | None) -> Captured:
    """Provoke every kind of failure once. Takes some 5 s.

    The servers are used for a moment and left as they were found.
    """
    failures: list[Failure] = []
    left_out: dict[str, str] = {}
    # The clients log their own warnings too; those are not what is captured here.
    with _site(opensearch_url, redis_url) as site, ordinary.listening("opensearch", "asyncio"):
        missing = {need: servers.missing(need, site) for need in get_args(Need)}
        for kind in KINDS.values():
            try:
                if kind.need and (reason := missing[kind.need]):
                    raise LeftOut(reason)
                failures += _provoke(kind, site)
            except LeftOut as error:
                left_out[kind.name] = str(error)
    return Captured(failures=failures, left_out=left_out)


def capture_ordinary() -> list[Ordinary]:
    """INFO and WARN lines of real libraries at work."""
    with _site(None, None) as site:
        return list(dict.fromkeys(ordinary.library_lines(site)))


def _provoke(kind: Kind, site: Site) -> list[Failure]:
    log = logging.Logger(kind.logger)
    written = ordinary.Written()
    log.addHandler(written)
    stopped: list[Exception] = []

    def run() -> None:
        try:
            kind.provoke(log, site)
        except Exception as error:
            stopped.append(error)

    # A thread of its own: the stack is equally deep wherever the capture is called from, and a kind
    # that hangs on some system (a resolver that waits) costs that kind only.
    thread = threading.Thread(target=run, name=kind.name, daemon=True)
    thread.start()
    thread.join(_LONGEST_KIND_S)
    if thread.is_alive():
        raise LeftOut(f"did not fail within {_LONGEST_KIND_S} s")
    if stopped:
        raise LeftOut(f"failed otherwise than meant: {stopped[0]!r}") from stopped[0]
    if not written.lines:
        raise LeftOut("does not fail on this system")
    return [
        Failure(
            kind=kind.name,
            service_name=kind.service_name,
            logger=kind.logger,
            message=normalise(message, site),
        )
        for _, _, message in written.lines
    ]


@contextmanager
def _site(opensearch_url: str | None, redis_url: str | None) -> Iterator[Site]:
    with (
        tempfile.TemporaryDirectory(prefix="failures-") as folder,
        stand_ins.closed_port() as closed,
        stand_ins.silent_port() as silent,
        stand_ins.resetting_port() as resetting,
        stand_ins.http_server() as http,
    ):
        site = Site(
            folder=Path(folder),
            closed_port=closed,
            silent_port=silent,
            resetting_port=resetting,
            http=f"http://{stand_ins.LOOPBACK}:{http}",
            http_port=http,
            opensearch_url=opensearch_url,
            redis_url=redis_url,
            mark=f"failures-{secrets.token_hex(4)}-",
        )
        try:
            yield site
        finally:
            servers.clean_up(site)

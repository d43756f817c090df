"""Reads the status for Flower's page and metrics, so that watching costs the watched nothing.

Time-outs are short, because someone waits. Counts of OpenSearch are kept for ten seconds and
those of Redis for one, failures included: however many browsers and scrapers ask, and however
dead a server is, it is asked no more often than that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from enrich.ledger import Ledger
from enrich.log_store import LogStore
from enrich.settings import Settings
from enrich.status.report import Status, read_backlog_or_problem, read_status
from enrich.wiring import quick_ledger

BACKLOG_SECONDS = 10.0
LEDGER_SECONDS = 1.0

#: How long Flower waits for a server before it shows the page without it.
OPENSEARCH_TIMEOUT_SECONDS = 5.0
REDIS_TIMEOUT_SECONDS = 2.0

T = TypeVar("T")


class Reading(NamedTuple):
    """A status, and which of the servers gave their part of it."""

    status: Status
    redis_up: bool
    opensearch_up: bool


class _Kept(Generic[T]):
    """The last answer of `ask`, for some seconds."""

    def __init__(self, ask: Callable[[], T], seconds: float, clock: Callable[[], float]) -> None:
        self._ask = ask
        self._seconds = seconds
        self._clock = clock
        self._until = float("-inf")
        self._answer: T | None = None

    def get(self) -> T:
        if self._answer is None or self._clock() >= self._until:
            self._answer = self._ask()
            # Counted from the answer: one that takes long must not be asked for without a pause.
            self._until = self._clock() + self._seconds
        return self._answer


class StatusReader:
    """The status, from any thread; one read at a time."""

    def __init__(
        self,
        ledger: Ledger,
        store: LogStore,
        clock: Callable[[], float] = time.monotonic,
        settings: Settings | None = None,
    ) -> None:
        self._ledger = ledger
        self._settings = settings
        self._lock = threading.Lock()
        self._kept_status = _Kept(self._ask_ledger, LEDGER_SECONDS, clock)
        self._kept_backlog = _Kept(lambda: read_backlog_or_problem(store), BACKLOG_SECONDS, clock)

    def read(self) -> Reading:
        """Read; a server that does not answer is named in `problems`, nothing is raised."""
        with self._lock:
            status = self._kept_status.get()
            backlog, problem = self._kept_backlog.get()
        merged = status.model_copy(
            update={"backlog": backlog, "problems": status.problems + ([problem] * bool(problem))}
        )
        return Reading(merged, redis_up=not status.problems, opensearch_up=backlog is not None)

    def _ask_ledger(self) -> Status:
        return read_status(self._ledger, None, settings=self._settings)


def build_reader(settings: Settings) -> StatusReader:
    """A reader of its own connections, which connect at the first read."""
    seconds = min(OPENSEARCH_TIMEOUT_SECONDS, settings.opensearch_timeout_seconds)
    hurried = settings.model_copy(update={"opensearch_timeout_seconds": seconds})
    return StatusReader(
        quick_ledger(settings, REDIS_TIMEOUT_SECONDS, second_try=True),
        LogStore(hurried),
        settings=settings,
    )

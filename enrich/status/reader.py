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

from enrich.errors import EnrichError
from enrich.history.reader import History, Page, Sums
from enrich.ledger import Ledger
from enrich.log_store import LogStore
from enrich.settings import Settings
from enrich.status.overview import RUNS_SHOWN, Overview, failures_or_problem, read_beside
from enrich.status.quota import Quota
from enrich.status.report import Status, read_backlog_or_problem, read_status
from enrich.wiring import build_history, cache_counter, quick_ledger, quick_quota

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

    def forget(self) -> None:
        self._until = float("-inf")


class StatusReader:
    """The status, from any thread; one read at a time."""

    def __init__(
        self,
        ledger: Ledger,
        store: LogStore,
        clock: Callable[[], float] = time.monotonic,
        settings: Settings | None = None,
        quota: Quota | None = None,
        history: History | None = None,
        cache_entries: Callable[[], int] | None = None,
    ) -> None:
        """
        Args:
            quota: None leaves the quota out.
            history: None leaves out the runs that Redis no longer has.
            cache_entries: counts vectors in the cache; None leaves that out.
        """
        self._ledger = ledger
        self._settings = settings
        self._quota = quota
        self.history = history or History(ledger, None)
        self._lock = threading.Lock()
        self._kept_status = _Kept(self._ask_ledger, LEDGER_SECONDS, clock)
        self._kept_beside = _Kept(self._ask_beside, LEDGER_SECONDS, clock)
        self._kept_runs = _Kept(self._ask_history, BACKLOG_SECONDS, clock)
        self._kept_entries = _Kept(lambda: _entries(cache_entries), BACKLOG_SECONDS, clock)
        self._kept_backlog = _Kept(lambda: read_backlog_or_problem(store), BACKLOG_SECONDS, clock)
        self._kept_failures = _Kept(
            lambda: failures_or_problem(store, ledger), BACKLOG_SECONDS, clock
        )

    def read(self) -> Reading:
        """Read; a server that does not answer is named in `problems`, nothing is raised."""
        with self._lock:
            return self._read()

    def overview(self) -> Overview:
        """What Flower's pages show; a server that does not answer is named in the status."""
        with self._lock:
            reading = self._read()
            failed = reading.status.backlog.failed if reading.status.backlog else 0
            # Asked for only where there are any: most of the time it is one request less.
            failures, problem = self._kept_failures.get() if failed else ([], "")
            beside = self._kept_beside.get() if reading.redis_up else None
        overview = beside or Overview(status=reading.status)
        status = reading.status
        if problem and problem not in status.problems:
            status = status.model_copy(update={"problems": [*status.problems, problem]})
        return overview.model_copy(update={"status": status, "failures": failures})

    def forget(self) -> None:
        """Ask Redis anew at the next read: an operator has just changed something."""
        with self._lock:
            self._kept_status.forget()
            self._kept_beside.forget()
            self._kept_runs.forget()

    def _read(self) -> Reading:
        status = self._kept_status.get()
        backlog, problem = self._kept_backlog.get()
        (entries,) = self._kept_entries.get()
        merged = status.model_copy(
            update={
                "backlog": backlog,
                "cache_entries": entries,
                "problems": status.problems + ([problem] * bool(problem)),
            }
        )
        return Reading(merged, redis_up=not status.problems, opensearch_up=backlog is not None)

    def _ask_ledger(self) -> Status:
        return read_status(
            self._ledger,
            None,
            settings=self._settings,
            history=self.history,
            quota=self._quota,
        )

    def _ask_beside(self) -> Overview | None:
        """None where Redis has gone since it was asked for the status."""
        status = self._kept_status.get()
        try:
            page, sums = self._kept_runs.get()
            return read_beside(status, self._ledger, page.runs, sums)
        except EnrichError:
            return None

    def _ask_history(self) -> tuple[Page, Sums]:
        """Raises EnrichError: Redis does not answer; what OpenSearch lacks is said in both."""
        return self.history.runs(RUNS_SHOWN, busy=True), self.history.sums()


def _entries(count: Callable[[], int] | None) -> tuple[int | None]:
    """How many vectors the cache has; None where that cannot be told."""
    try:
        return (count() if count is not None else None,)
    except EnrichError:
        # The cache is a convenience: that Redis does not answer shows where it is missed.
        return (None,)


def build_reader(settings: Settings) -> StatusReader:
    """A reader of its own connections, which connect at the first read."""
    seconds = min(OPENSEARCH_TIMEOUT_SECONDS, settings.opensearch_timeout_seconds)
    hurried = settings.model_copy(update={"opensearch_timeout_seconds": seconds})
    ledger = quick_ledger(settings, REDIS_TIMEOUT_SECONDS, second_try=True)
    store = LogStore(hurried)
    return StatusReader(
        ledger,
        store,
        settings=settings,
        quota=quick_quota(settings, REDIS_TIMEOUT_SECONDS),
        history=build_history(settings, ledger, store),
        cache_entries=cache_counter(settings, REDIS_TIMEOUT_SECONDS),
    )

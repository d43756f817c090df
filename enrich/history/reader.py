"""Reads runs: the newest from Redis, which knows the last thousand, older ones from OpenSearch.

Every screen asks here. OpenSearch is asked for what Redis does not have alone, and for the same
thing at most once in ten seconds, failures included, however many look. Where it does not answer,
or no history is kept, Redis' part is given with a sentence that says what is missing.
"""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import TypeVar, cast

from pydantic import BaseModel

from enrich.errors import EnrichError, RunClosed, ServerUnavailable
from enrich.history.interfaces import RecordReader
from enrich.ledger import Ledger
from enrich.ledger.history import Lag
from enrich.ledger.records import totals_of
from enrich.models import DaySums, RunRecord, Totals

T = TypeVar("T")

#: For so long an answer of OpenSearch is given again, and so many of them are kept.
KEPT_SECONDS, MOST_KEPT = 10.0, 64

#: Most runs of one page, and names that are given for one that is unknown.
MOST_RUNS, MOST_NAMES = 1000, 3

#: What an id or a number may look like.
_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")

#: Days that sums are told of, besides this month's.
DAYS = 31


class UnknownRun(EnrichError):
    """There is no run of this id or number.

    Attributes:
        nearest: ids of runs that are like it.
    """

    def __init__(self, message: str, nearest: tuple[str, ...]) -> None:
        super().__init__(message, nearest)
        self.nearest = nearest

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Page:
    """Some runs, the newest first."""

    runs: list[RunRecord]
    #: What `runs(before=…)` is given for the next page; "" at the end.
    next: str = ""
    #: What is missing and why, in a sentence; "" where nothing is.
    problem: str = ""


class Sums(BaseModel):
    """What runs did and cost, by day (UTC)."""

    today: DaySums = DaySums()
    #: Since the first of the month.
    month: DaySums = DaySums()
    #: Of this month and the last 31 days, by day as `2026-11-29`; days without any are left out.
    days: dict[str, DaySums] = {}
    #: What is missing and why, in a sentence; "" where nothing is.
    problem: str = ""


class History:
    """Runs of one deployment, from any thread. Redis' errors are raised as EnrichError."""

    def __init__(
        self,
        ledger: Ledger,
        store: RecordReader | None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """
        Args:
            store: None where no history is kept (ENRICH_HISTORY=off).
            clock: seconds, for what is kept.
            now: which day it is.
        """
        self._ledger = ledger
        self._store = store
        self._now = now
        self._answers = _Answers(clock)
        #: Sums of runs that are read from Redis.
        self._own = _Answers(clock)

    @property
    def is_kept(self) -> bool:
        """Whether runs outlive Redis."""
        return self._store is not None

    def runs(self, count: int = 50, *, before: str = "", busy: bool = False) -> Page:
        """The last runs, the active one first.

        Args:
            count: at most MOST_RUNS.
            before: the id of a run: those older than it.
            busy: only those that found logs, are active, or did not end well.

        Raises:
            UnknownRun: there is no run `before`.
        """
        count = max(1, min(count, MOST_RUNS))
        names = self._ledger.records.names()
        older, last = names, None
        if before in names:
            older = names[names.index(before) + 1 :]
        elif before:
            older, last = [], self.run(before)
        # One more than asked for, which tells whether there is a next page.
        found = self._of_redis(older, count + 1, busy=busy)
        problem = ""
        if len(found) <= count and self._store is not None:
            more, problem = self._older(count + 1 - len(found), last, names, busy=busy)
            found += more
        elif before and not older and self._store is None:
            found = []
        runs = found[:count]
        return Page(runs, runs[-1].run_id if len(found) > count else "", problem)

    def run(self, run: str) -> RunRecord:
        """One run, with its skipped indices.

        Args:
            run: its id, or its number, with or without `#`.

        Raises:
            UnknownRun: there is none; the sentence names those that are like it.
        """
        wanted = run.strip()
        number = _number(wanted)
        names = self._ledger.records.names()
        if wanted in names:
            try:
                return self._ledger.records.of(wanted)
            except RunClosed:
                pass
        if number is not None and (found := self._numbered(number, names)):
            return found
        problem, nearest = "", get_close_matches(wanted[:64], names, MOST_NAMES)
        # What cannot be an id is not looked for: it may be a megabyte, or no text at all.
        if self._store is not None and _ID.fullmatch(wanted.removeprefix("#")):
            try:
                if stored := self._stored(wanted, number):
                    return stored
                nearest = list(dict.fromkeys([*nearest, *self._like(wanted)]))[:MOST_NAMES]
            except EnrichError as error:
                problem = f"; older runs could not be looked for: {error}"
        raise UnknownRun(_unknown(wanted, nearest or names[:MOST_NAMES], problem), tuple(nearest))

    def sums(self) -> Sums:
        """What runs did and cost today, this month, and by day. Runs count on the day (UTC) on
        which they began; of cost, all that was spent counts, that of consumers too."""
        now = self._now().astimezone(UTC)
        month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        first = min(month, (now - timedelta(days=DAYS)).replace(hour=0, minute=0, second=0))
        records = self._ledger.records
        days: dict[str, DaySums] = {}
        problem = ""
        # What is not written yet, or was corrected, counts as Redis has it.
        own = records.names()
        if self._store is not None:
            active = self._ledger.runs.active()
            changed = {one.run for one in self._ledger.history.owed()} | {active} - {""}
            try:
                store = self._store
                stored = self._answers.get(
                    ("days", f"{first:%Y-%m-%d}", tuple(sorted(changed))),
                    lambda: store.days(first, without=changed),
                )
                days, own = dict(stored), sorted(changed)
            except EnrichError as error:
                problem = f"sums are of the last {len(own):,} runs alone: {error}"
        since = f"{first:%Y-%m-%d}"
        # A thousand records are not read each time that somebody looks.
        added = self._own.get(tuple(own), lambda: _by_day(records.of_all(own)))
        for day, of_day in added.items():
            if day >= since:
                days[day] = days.get(day, DaySums()) + of_day
        for day, micro in self._ledger.history.spent_lately().items():
            days[day] = days.get(day, DaySums()).spending_at_least(micro / 1e6)
        days = dict(sorted(days.items(), reverse=True))
        of_month = [sums for day, sums in days.items() if day >= f"{month:%Y-%m-%d}"]
        return Sums(
            today=days.get(f"{now:%Y-%m-%d}", DaySums()),
            month=sum(of_month, DaySums()),
            days=days,
            problem=problem,
        )

    def totals(self) -> Totals:
        """What all runs have counted since the first, whatever Redis has lost.

        Raises:
            EnrichError: this Redis has lost it, and it cannot be read now.
        """
        if self._store is None or self._ledger.history.taken_over():
            return self._ledger.records.totals()
        # Nobody has begun a run yet since Redis lost them.
        store = self._store
        before = self._answers.get(("totals",), store.totals)
        counted = self._ledger.history.totals()
        return totals_of(
            {name: before.get(name, 0) + counted.get(name, 0) for name in {*before, *counted}},
            self._ledger.records.under_way(),
        )

    def lag(self) -> Lag:
        """How far the writing is behind; nothing where no history is kept."""
        return Lag() if self._store is None else self._ledger.history.lag()

    def recorded(self) -> int:
        """How many runs can be shown in all.

        Raises EnrichError also where OpenSearch does not answer.
        """
        names = self._ledger.records.names()
        if self._store is None:
            return len(names)
        kept = self._answers.get(("count",), self._store.count)
        active = int(bool(self._ledger.runs.active()))
        return max(len(names), kept + active)

    # -- parts

    def _of_redis(self, names: Sequence[str], count: int, *, busy: bool) -> list[RunRecord]:
        if not busy:
            return self._ledger.records.of_all(names[:count])
        found: list[RunRecord] = []
        for start in range(0, len(names), 100):
            some = self._ledger.records.of_all(names[start : start + 100])
            found += [one for one in some if not one.is_idle]
            if len(found) >= count:
                break
        return found[:count]

    def _older(
        self, count: int, last: RunRecord | None, names: Sequence[str], *, busy: bool
    ) -> tuple[list[RunRecord], str]:
        store = self._store
        assert store is not None
        key = ("page", count, last.run_id if last else "", tuple(names), busy)
        try:
            found = self._answers.get(
                key, lambda: store.page(count, before=last, without=names, busy=busy)
            )
        except EnrichError as error:
            return [], f"only the runs that Redis knows are shown: {error}"
        return list(found), ""

    def _numbered(self, number: int, names: Sequence[str]) -> RunRecord | None:
        records = self._ledger.records.of_all(names)
        return next((one for one in records if one.number == number), None)

    def _stored(self, wanted: str, number: int | None) -> RunRecord | None:
        store = self._store
        assert store is not None
        found = self._answers.get(("run", wanted), lambda: store.of(wanted))
        if found is None and number is not None:
            found = self._answers.get(("number", number), lambda: store.numbered(number))
        return found

    def _like(self, wanted: str) -> list[str]:
        store = self._store
        assert store is not None
        return self._answers.get(("like", wanted), lambda: store.like(wanted, MOST_NAMES))


class _Answers:
    """The last answers, or errors, by what was asked; each asked for by one thread at a time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, tuple[float, object]] = OrderedDict()
        #: Of a server that is away, whatever it was asked for: until when, and the error.
        self._away: tuple[float, ServerUnavailable] | None = None

    def get(self, key: Hashable, ask: Callable[[], T]) -> T:
        with self._lock:
            until, answer = self._kept.get(key, (float("-inf"), None))
            if self._clock() >= until:
                if self._away is not None and self._clock() < self._away[0]:
                    raise self._away[1]
                try:
                    answer = ask()
                except EnrichError as error:
                    answer = error
                    if isinstance(error, ServerUnavailable):
                        self._away = self._clock() + KEPT_SECONDS, error
                self._kept[key] = (self._clock() + KEPT_SECONDS, answer)
                self._kept.move_to_end(key)
                while len(self._kept) > MOST_KEPT:
                    self._kept.popitem(last=False)
        if isinstance(answer, EnrichError):
            raise answer
        return cast(T, answer)


def _by_day(records: Iterable[RunRecord]) -> dict[str, DaySums]:
    days: dict[str, DaySums] = {}
    for record in records:
        if record.started_at is not None:
            day = f"{record.started_at.astimezone(UTC):%Y-%m-%d}"
            days[day] = days.get(day, DaySums()) + DaySums.of(record)
    return days


def _number(wanted: str) -> int | None:
    digits = wanted.removeprefix("#")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 19 else None


def _unknown(wanted: str, nearest: Sequence[str], problem: str) -> str:
    shown = wanted if len(wanted) <= 40 else f"{wanted[:39]}…"
    known = f": the nearest is {', '.join(nearest)}" if nearest else ": none was recorded"
    return f"there is no run {shown!r}{known}{problem}"

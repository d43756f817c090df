"""Following a run to its end, and those that continue it; what came of them as one sum.

Reads the ledger only, which is where the workers count; a follower may come and go as it likes.
It gives up when what it waits for cannot come: no worker is left, or work is paused.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pydantic import Field

from enrich.ledger import Ledger
from enrich.models import COUNTERS, RunRecord

#: Between two looks at the ledger.
LOOK_SECONDS = 0.2

#: Nothing moved for so long: see whether anybody is there who could move it.
QUIET_SECONDS = 15.0

#: A run that only time ended is continued at once; should that not come, it is not waited for.
CONTINUED_SECONDS = 60.0

#: Paused and nothing moved for so long: nothing will.
PAUSED_SECONDS = 2.0

_SUMMED = ("duration_seconds", "estimated_cost_usd", "chunks_open", *COUNTERS)


class RunSum(RunRecord):
    """Runs that continue each other as one record, with all their ids."""

    run_ids: list[str] = Field(default_factory=list)


class Listening(Protocol):
    """Knows whether workers are there."""

    def require(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where the runs that are followed stand."""

    number: int
    #: Logs that are done with; one that is deferred is not.
    settled: int
    #: What will have been settled in the end, as far as known now.
    total: int
    #: Logs done a second lately; 0 before anything was.
    rate: float
    #: Logs left for the next run.
    deferred: int = 0
    #: Whether the total is known, and the rate has been seen for long enough to tell the time left.
    steady: bool = True

    @property
    def seconds_left(self) -> float | None:
        """None while it cannot be told."""
        left = max(0, self.total - self.settled - self.deferred)
        if not left and self.settled:
            return 0.0
        return left / self.rate if self.rate > 0 and self.steady else None


class Pace:
    """How fast a count grows: over the last WINDOW_SECONDS, and from the moment on at which it
    began to grow, so that a slow start tells nothing of the rest."""

    WINDOW_SECONDS = 20.0
    #: Before that, the rate says nothing of what is left.
    STEADY_SECONDS = 5.0

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def see(self, now: float, done: int) -> None:
        """Note the count at a time, in seconds of any clock that only goes forward."""
        if len(self._seen) == 1 and self._seen[0][1] == done:
            self._seen.clear()
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] >= self.WINDOW_SECONDS:
            self._seen.popleft()

    @property
    def seconds(self) -> float:
        """For how long it has grown, as far as is looked back."""
        return self._seen[-1][0] - self._seen[0][0] if self._seen else 0.0

    @property
    def rate(self) -> float:
        """By how much it grew in a second; 0 before it has grown."""
        if self.seconds <= 0:
            return 0.0
        return max(0, self._seen[-1][1] - self._seen[0][1]) / self.seconds

    @property
    def steady(self) -> bool:
        return self.seconds >= self.STEADY_SECONDS


class Paused(Exception):
    """The run stands still because work is paused."""


class Following:
    """Follows runs, one after the other."""

    def __init__(
        self,
        ledger: Ledger,
        workers: Listening,
        backlog: Mapping[str, int] | None,
        show: Callable[[Progress], None],
        *,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            backlog: logs without a vector by index, as counted when the following began; None
                where they were not counted, or only in part: no time left is told then.
        """
        self._ledger = ledger
        self._workers = workers
        self._counted = backlog is not None
        self._backlog = backlog or {}
        self._show = show
        self._sleep = sleep
        self._now = now
        #: As last seen, oldest first.
        self.records: dict[str, RunRecord] = {}

    def follow(self, run: str) -> RunSum:
        """Wait until the run and those that continue it are over.

        Raises:
            NoWorker: nobody is left to go on with it.
            Paused: work is paused.
            RunClosed: Redis lost the run.
        """
        moved = ended = self._now()
        done_before: int | None = None
        pace = Pace()
        last: object = None
        following: str | None = run
        while following is not None:
            record = self._ledger.records.of(following)
            self.records[following] = record
            done = sum(r.done for r in self.records.values())
            if done_before is None:
                done_before = done
            now = self._now()
            pace.see(now, done)
            total = max(self._total(done_before), sum(r.found for r in self.records.values()))
            self._show(
                Progress(
                    number=record.number,
                    settled=done,
                    total=total,
                    rate=pace.rate,
                    deferred=sum(r.deferred for r in self.records.values()),
                    steady=pace.steady and self._counted,
                )
            )
            if record.finished_at is None:
                ended = now
            else:
                successor = self._next(record)
                if successor != following or now - ended > CONTINUED_SECONDS:
                    following = successor if successor != following else None
                    moved = now
                    continue
            # The duration of a running run grows by itself.
            state = record.model_dump(exclude={"duration_seconds", "rate_per_second"})
            if state != last:
                last, moved = state, now
            elif (
                now - moved > PAUSED_SECONDS
                and not record.chunks_open
                and self._ledger.controls.paused()
            ):
                raise Paused
            elif now - moved > QUIET_SECONDS:
                self._workers.require()
                moved = now
            self._sleep(LOOK_SECONDS)
        return sum_of(list(self.records.values()))

    def _next(self, record: RunRecord) -> str | None:
        """The run that continues a finished one; itself while that is awaited; None at the end."""
        if record.state != "finished" or not record.more:
            return None
        if record.stopped_by != "time":
            return None
        later = [r for r in self._ledger.records.last() if r.number > record.number]
        return later[-1].run_id if later else record.run_id

    def _total(self, done_before: int) -> int:
        skipped = {name for record in self.records.values() for name in record.skipped_indices}
        pending = sum(count for name, count in self._backlog.items() if name not in skipped)
        return done_before + pending


def sum_of(records: Sequence[RunRecord]) -> RunSum:
    """One record of several, oldest first: counters added, the end that of the last."""
    first, last = records[0], records[-1]
    fields = first.model_dump(exclude={"rate_per_second"})
    fields |= last.model_dump(include={"state", "more", "stopped_by", "finished_at", "halt_reason"})
    for name in _SUMMED:
        fields[name] = sum(getattr(record, name) for record in records)
    for name in ("duration_seconds", "estimated_cost_usd"):
        fields[name] = round(fields[name], 6)
    for name in ("deferral_reasons", "retry_reasons"):
        added = Counter[str]()
        for record in records:
            added.update(getattr(record, name))
        fields[name] = dict(added.most_common())
    for record in records:
        fields["skipped_indices"] = fields["skipped_indices"] | record.skipped_indices
    return RunSum(**fields, run_ids=[record.run_id for record in records])


def exit_status(record: RunRecord) -> int:
    """0 done; 1 done except for some logs; 3 a server stood in the way."""
    if record.state == "halted":
        return 3
    if record.state == "abandoned":
        return 1
    if record.deferred:
        return 3
    if record.failed or record.skipped_indices or record.settled != record.found:
        return 1
    return 0

"""What was read of each partition, in its order, and how far all of it has an outcome. Pure.

A partition's offset may be committed up to the first message that has none yet, and no further:
whatever follows is delivered again after a crash.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from enrich.ledger.realtime import Partition, Portion
from enrich.realtime.messages import WantedLog


@dataclass(slots=True, eq=False)
class Entry:
    """A wanted log on its way."""

    #: None once it is through, since others of its partition may be waited for.
    log: WantedLog | None
    offset: int
    #: When it was read, by the consumer's clock.
    read_at: float
    #: Name of a count in the ledger, "" while it is open; and why, where that is a reason.
    outcome: str = ""
    reason: str = ""
    #: Seconds from the log's time to its vector, if it was given one.
    latency: float | None = None
    #: Whether its partition was given up meanwhile.
    dropped: bool = False

    def end(self, outcome: str, reason: str = "", latency: float | None = None) -> None:
        self.outcome, self.reason, self.latency = outcome, reason, latency
        self.log = None

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.log.source) if self.log is not None else 0

    @property
    def is_open(self) -> bool:
        return not self.outcome and not self.dropped

    @property
    def first(self) -> int:
        return self.offset

    @property
    def last(self) -> int:
        return self.offset


@dataclass(slots=True, eq=False)
class Others:
    """Messages in a row that are no wanted logs and came to the same end when they were read."""

    first: int
    last: int
    outcome: str
    reason: str = ""


@dataclass(slots=True, eq=False)
class Track:
    """One partition that is assigned to this consumer."""

    partition: Partition
    #: The offset that is read next: the committed one at first, None if there is none.
    next: int | None = None
    #: What was read and is not settled yet.
    pending: deque[Entry | Others] = field(default_factory=deque)
    #: The last of it, while it is messages of other levels.
    others: Others | None = None
    #: What the ledger was found to have counted; see `Portion.expected`.
    counted: int | None = None
    #: Whether that was looked up.
    is_known: bool = False
    #: Up to which offset everything is settled, and up to which that is committed.
    settled: int | None = None
    committed: int | None = None

    def add_other_level(self, offset: int) -> None:
        """A message of another level, as most are."""
        last = self.others
        if last is not None and last.last + 1 == offset:
            last.last = offset
        else:
            self.others = Others(offset, offset, "other_level")
            self.pending.append(self.others)

    def add(self, one: Entry | Others) -> None:
        self.pending.append(one)
        self.others = None

    def through(self) -> list[Entry | Others]:
        """What is through, from the first that is not settled on."""
        done: list[Entry | Others] = []
        for one in self.pending:
            if not one.outcome:
                break
            done.append(one)
        return done

    def settle(self, upto: int) -> None:
        """Forget what lies before an offset."""
        while self.pending and self.pending[0].last < upto:
            self.pending.popleft()
        if not self.pending:
            self.others = None
        self.settled = upto

    def drop(self) -> None:
        """Its partition was given up: nothing of it concerns this consumer any more."""
        for one in self.pending:
            if isinstance(one, Entry):
                one.dropped = True
        self.pending.clear()
        self.others = None

    def has_through(self) -> bool:
        return bool(self.pending and self.pending[0].outcome)


def portion_of(track: Track, done: Sequence[Entry | Others], beyond: int | None) -> Portion:
    """What is through of a partition, without what lies before an offset; not empty."""
    counts: Counter[str] = Counter()
    latencies = []
    for one in done:
        first = one.first if beyond is None else max(one.first, beyond)
        number = one.last + 1 - first
        if number > 0:
            counts[one.outcome] += number
            if one.reason:
                counts[f"{one.outcome}|{one.reason}"] += number
            if isinstance(one, Entry) and one.latency is not None:
                latencies.append(one.latency)
    return Portion(
        partition=track.partition,
        expected=beyond,
        upto=done[-1].last + 1,
        counts=counts,
        latencies=latencies,
    )

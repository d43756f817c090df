"""What the consumers of Kafka count: exactly, though messages are delivered again.

For each partition of a group the ledger keeps a position: messages before it are counted. `settle`
moves it together with the counts, by compare-and-set. Whoever finds another position than expected
counts only its messages from there on. So the sums stay true when a consumer dies between its work
and its commit, when two have one partition for a moment, and when offsets are reset. When Redis is
lost, the counts begin anew, and are as true from there on.

Of a topic that was deleted and made anew, Kafka's own id tells that it is another one.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from enrich.ledger import latency
from enrich.ledger.counters import PAID, as_reason
from enrich.ledger.keyspace import Keyspace, text
from enrich.ledger.realtime_summary import (
    LATENCY,
    OUTCOMES,
    POISON_LENGTH,
    REASONS,
    USAGE,
    WINDOW_MINUTES,
    RealtimeSummary,
    summary_of,
)
from enrich.ledger.spending import today
from enrich.redis_client import translated

#: A position is kept for so long after its partition last had a message: longer than Kafka keeps
#: the messages, as a rule, or the offsets of a group without consumers.
POSITION_DAYS = 90
#: A consumer that died without a word is remembered for so long.
DEAD_SECONDS = 900.0
#: Where a partition was seen last is remembered for so long.
PARTITION_DAYS = 7

_MS_A_DAY = 86_400_000


@dataclass(frozen=True, slots=True)
class Partition:
    """Part of a topic."""

    topic: str
    #: Kafka's UUID of the topic; "" where it is unknown: a topic made anew then counts only beyond
    #: the old one's last offset.
    topic_id: str
    number: int


@dataclass(frozen=True, kw_only=True)
class Portion:
    """Messages of one partition that have an outcome, and come after each other."""

    partition: Partition
    #: What `counted` or `settle` found; None where Redis has no position yet.
    expected: int | None
    #: The offset after the last message.
    upto: int
    #: Messages by the names of OUTCOMES. Why some were left or are poison, as `left|sentence` and
    #: `poison|code`: of the same messages, and counted beside them.
    counts: Mapping[str, int]
    #: Seconds from log time to vector, of those that got one.
    latencies: Sequence[float] = ()

    @property
    def messages(self) -> int:
        return sum(self.counts.get(name, 0) for name in OUTCOMES)


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a portion."""

    counted: bool
    #: Where the partition's position is now; None where Redis has none.
    position: int | None


@dataclass(frozen=True, kw_only=True)
class PartitionState:
    """How far a consumer is in a partition; None what it does not know."""

    topic: str
    number: int
    #: The next message that it reads.
    position: int | None = None
    committed: int | None = None
    #: The end of the partition: the offset that its next message will have.
    end: int | None = None

    @property
    def lag(self) -> int | None:
        """Messages from the committed offset to the end."""
        if self.end is None or self.committed is None:
            return None
        return max(0, self.end - self.committed)


#: A consumer is `waiting` for messages, `working` on a batch, `paused`, or has `ended` though
#: nobody stopped it.
Doing = Literal["waiting", "working", "paused", "ended"]


@dataclass(frozen=True, kw_only=True)
class ConsumerState:
    """A consumer as it describes itself."""

    host: str
    pid: int
    since: datetime
    doing: Doing
    #: Why it is paused or has ended, or what troubles it, in a sentence.
    why: str = ""
    partitions: Sequence[PartitionState] = field(default_factory=tuple)


class Realtime:
    """Counts and states of consumers, by group."""

    def __init__(self, keys: Keyspace) -> None:
        self._keys = keys

    def counted(self, group: str, partitions: Sequence[Partition]) -> list[int | None]:
        """The offset up to which each partition is counted; None where Redis knows none."""
        if not partitions:
            return []
        keys = [self._keys.key(f"realtime:position:{_name(group, one)}") for one in partitions]
        with translated():
            found = self._keys.redis.mget(keys)
        return [None if offset is None else int(offset) for offset in found]

    def settle(self, group: str, portions: Sequence[Portion], *, batches: int = 0) -> list[Settled]:
        """Count each portion whose partition stands where it expects, and move it on.

        Of one that was not counted, what lies before the position it answers is counted already:
        the rest may be settled again, expecting that position.

        Args:
            batches: how many came to an end with this.

        Raises:
            ValueError: a portion counts what there is not, or leads nowhere.
        """
        rows = [_row(group, portion) for portion in portions]
        answers = self._keys.move(
            "settle_messages", group, uuid.uuid4().hex, json.dumps(rows), batches,
            POSITION_DAYS * _MS_A_DAY, WINDOW_MINUTES,
        )  # fmt: skip
        return [
            Settled(True, portion.upto)
            if (told := text(answer)) == "counted"
            else Settled(False, int(told) if told else None)
            for portion, answer in zip(portions, answers, strict=True)
        ]

    def count(
        self,
        group: str,
        *,
        micro_usd: int = 0,
        paid_by: Mapping[str, int] | None = None,
        **amounts: int,
    ) -> None:
        """Add to what a group has used. Money counts into the day as well.

        Args:
            micro_usd: money, in millionths of a dollar.
            paid_by: how much of it each project pays.
            amounts: by the names of USAGE.

        Raises:
            ValueError: there is no such counter.
        """
        if unknown := amounts.keys() - set(USAGE):
            raise ValueError(f"consumers do not count {', '.join(sorted(unknown))}")
        pairs: list[Any] = [part for pair in amounts.items() if pair[1] for part in pair]
        for project, paid in (paid_by or {}).items():
            pairs += [f"{PAID}{project}", paid]
        self._keys.move("count_messages", group, today(), micro_usd, uuid.uuid4().hex, *pairs)

    def report(self, group: str, consumer: str, state: ConsumerState, seconds: float) -> None:
        """Note what a consumer is doing; it counts as alive for so many seconds. One that has ended
        is remembered for a while, so that it is missed.

        Args:
            consumer: its name, unique while it lives, such as `host/pid`.
        """
        note = {
            "host": state.host, "pid": state.pid, "since": state.since.timestamp(),
            "why": as_reason(state.why),
        }  # fmt: skip
        partitions = [
            {
                "name": f"{one.topic}/{one.number}",
                "committed": "-" if one.committed is None else str(one.committed),
                "done": one.lag == 0,
                "note": json.dumps(
                    {
                        "topic": one.topic, "number": one.number, "position": one.position,
                        "committed": one.committed, "end": one.end, "lag": one.lag,
                        "consumer": consumer,
                    }
                ),
            }
            for one in state.partitions
        ]  # fmt: skip
        self._keys.move(
            "note_consumer", group, consumer, json.dumps(note), state.doing, round(seconds * 1000),
            round(DEAD_SECONDS * 1000), json.dumps(partitions), PARTITION_DAYS * _MS_A_DAY,
        )  # fmt: skip

    def leave(self, group: str, consumer: str) -> None:
        """A consumer has ended as it should."""
        with translated():
            self._keys.redis.hdel(self._keys.key(f"realtime:consumers:{group}"), consumer)

    def summary(self) -> list[RealtimeSummary]:
        """What each group has counted and is doing, by name; empty where no consumer ever ran."""
        key = self._keys.key
        with translated():
            groups = sorted(map(text, self._keys.redis.zrange(key("realtime:groups"), 0, -1)))
            if not groups:
                return []
            now = self._keys.now()
            window = int(now // (60 * WINDOW_MINUTES))
            pipe = self._keys.redis.pipeline(transaction=False)
            for group in groups:
                for part in ("totals", "consumers", "partitions", f"window:{window - 1}"):
                    pipe.hgetall(key(f"realtime:{part}:{group}"))
                pipe.hgetall(key(f"realtime:window:{window}:{group}"))
            rows = pipe.execute()
        return [
            summary_of(group, now, *(_texts(raw) for raw in rows[5 * place : 5 * place + 5]))
            for place, group in enumerate(groups)
        ]


def _row(group: str, portion: Portion) -> dict[str, Any]:
    """A portion as the script takes it."""
    counts: Counter[str] = Counter()
    because: Counter[tuple[str, str]] = Counter()
    for name, n in portion.counts.items():
        kind, bar, why = name.partition("|")
        if n < 0 or (kind not in REASONS if bar else name not in OUTCOMES):
            raise ValueError(f"no message is counted as {kind!r}, or {n} times")
        if bar:
            because[kind, as_reason(why) if kind == "left" else why[:POISON_LENGTH]] += n
        else:
            counts[name] += n
    for kind in REASONS:
        explained = sum(n for (of, _), n in because.items() if of == kind)
        if explained > counts[kind]:
            raise ValueError(f"{explained} reasons are given for {counts[kind]} that are {kind}")
    if portion.upto <= (portion.expected or 0) and portion.messages:
        raise ValueError(f"nothing lies between {portion.expected} and {portion.upto}")
    for bucket, n in latency.buckets(portion.latencies).items():
        counts[f"{LATENCY}{bucket}"] = n
    counts["latency_ms"] = round(1000 * sum(max(0.0, each) for each in portion.latencies))
    counts["messages"] = portion.messages
    return {
        "partition": _name(group, portion.partition),
        "expected": "" if portion.expected is None else str(portion.expected),
        "upto": str(portion.upto),
        "counts": {name: n for name, n in counts.items() if n},
        "because": [[kind, why, n, REASONS[kind]] for (kind, why), n in because.items() if n],
    }


def _name(group: str, partition: Partition) -> str:
    # The group last: it alone may hold colons.
    return f"{partition.number}:{partition.topic_id}:{partition.topic}:{group}"


def _texts(raw: Mapping[Any, Any]) -> dict[str, str]:
    return {text(name): text(value) for name, value in raw.items()}

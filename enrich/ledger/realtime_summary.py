"""What a group of consumers has counted and is doing, as screens read it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec
from pydantic import BaseModel, computed_field

from enrich.ledger.latency import Latency, latency

#: What became of a message; each has exactly one.
OUTCOMES = (
    "embedded", "duplicate", "cached", "reused", "already_vectorized", "failed", "left",
    "other_level", "excluded", "poison",
)  # fmt: skip
#: Those that gave a log its vector.
WRITTEN = ("embedded", "duplicate", "cached", "reused")
#: Those that have reasons, and how many different ones are told apart: sentences may name indices,
#: codes are the program's own.
REASONS = {"left": 12, "poison": 30}

#: What consumers use of the API, and what they meet.
USAGE = (
    "api_requests", "api_inputs", "api_tokens", "masked", "rate_limited", "retries", "errors",
    "written_by_others",
)  # fmt: skip

#: What was counted lately stands apart for so long; two such windows are read together.
WINDOW_MINUTES = 10

POISON_LENGTH = 60
LATENCY = "latency|"


class PartitionReport(BaseModel):
    """A partition as a consumer saw it last; None what it did not know."""

    topic: str
    number: int
    position: int | None = None
    committed: int | None = None
    end: int | None = None
    #: Messages from the committed offset to the end.
    lag: int | None = None
    #: Whose it was.
    consumer: str = ""
    seen_at: datetime
    #: When its committed offset or its consumer last changed, or had no reason to: nothing was
    #: left, or it was paused.
    moved_at: datetime
    #: Whether a consumer that is alive has it.
    held: bool = False


class ConsumerReport(BaseModel):
    """A consumer as it described itself last."""

    name: str
    host: str
    pid: int
    since: datetime
    doing: str
    doing_since: datetime
    why: str = ""
    seen_at: datetime
    #: Whether it has spoken lately. One that ended as it should is not there at all.
    alive: bool


class RealtimeSummary(BaseModel):
    """One group."""

    group: str
    read_at: datetime
    #: When the first message was counted; None before that, or since Redis was lost.
    since: datetime | None = None
    #: Messages by outcome; they sum to `messages`.
    outcomes: dict[str, int]
    messages: int = 0
    left_reasons: dict[str, int] = {}
    poison_codes: dict[str, int] = {}
    batches: int = 0
    last_batch_at: datetime | None = None
    usage: dict[str, int]
    estimated_cost_usd: float = 0.0
    #: From log time to vector, since the counts began, and in the last minutes.
    latency: Latency
    recent_latency: Latency
    #: Messages, vectors, and logs that were left to the backfill, of the last minutes; and how many
    #: seconds those are.
    recent_messages: int = 0
    recent_vectors: int = 0
    recent_left: int = 0
    recent_seconds: float = 0.0
    consumers: list[ConsumerReport] = []
    partitions: list[PartitionReport] = []

    @computed_field  # type: ignore[prop-decorator]
    @property
    def vectors(self) -> int:
        return sum(self.outcomes[name] for name in WRITTEN)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def consumers_alive(self) -> int:
        return sum(consumer.alive for consumer in self.consumers)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def lag(self) -> int | None:
        """Messages that wait, as they were seen last; None if no partition's lag is known."""
        known = [one.lag for one in self.current_partitions if one.lag is not None]
        return sum(known) if known else None

    @property
    def current_partitions(self) -> list[PartitionReport]:
        """Those that somebody reads; where nobody is alive, those that were seen last."""
        return [one for one in self.partitions if one.held] or self.partitions


class _Consumer(msgspec.Struct, kw_only=True):
    """A consumer's note as it is stored; fields that a later version adds are ignored."""

    host: str = ""
    pid: int = 0
    since: float = 0.0
    why: str = ""


class _Partition(msgspec.Struct, kw_only=True):
    topic: str
    number: int
    position: int | None = None
    committed: int | None = None
    end: int | None = None
    lag: int | None = None
    consumer: str = ""


def summary_of(
    group: str,
    now: float,
    totals: Mapping[str, str],
    consumers: Mapping[str, str],
    partitions: Mapping[str, str],
    before: Mapping[str, str],
    window: Mapping[str, str],
) -> RealtimeSummary:
    """Read what Redis has of a group.

    Args:
        before, window: what the last window and the present one have counted.
    """
    recent = {name: _number(before, name) + _number(window, name) for name in {*before, *window}}
    told = sorted(
        (_consumer(name, stored, now) for name, stored in consumers.items()),
        key=lambda consumer: consumer.name,
    )
    alive = {consumer.name for consumer in told if consumer.alive}
    last_batch, since = _number(totals, "last_batch_at"), _number(totals, "since")
    width = 60 * WINDOW_MINUTES
    seconds = now % width + (width if before else 0)
    return RealtimeSummary(
        group=group,
        read_at=_time(now),
        since=_time(since / 1000) if since else None,
        outcomes={name: _number(totals, name) for name in OUTCOMES},
        messages=_number(totals, "messages"),
        left_reasons=_reasons(totals, "left"),
        poison_codes=_reasons(totals, "poison"),
        batches=_number(totals, "batches"),
        last_batch_at=_time(last_batch / 1000) if last_batch else None,
        usage={name: _number(totals, name) for name in USAGE},
        estimated_cost_usd=_number(totals, "cost_micro_usd") / 1e6,
        latency=_latency({name: _number(totals, name) for name in totals if _is_latency(name)}),
        recent_latency=_latency(recent),
        recent_messages=recent.get("messages", 0),
        recent_vectors=sum(recent.get(name, 0) for name in WRITTEN),
        recent_left=recent.get("left", 0),
        # Counts that began within it have not been gathering for all of it.
        recent_seconds=round(min(seconds, now - since / 1000) if since else seconds, 1),
        consumers=told,
        partitions=sorted(
            (_partition(stored, alive) for stored in partitions.values()),
            key=lambda one: (one.topic, one.number),
        ),
    )


def _consumer(name: str, stored: str, now: float) -> ConsumerReport:
    seen, until, doing_since, doing, note = stored.split(" ", 4)
    told = msgspec.json.decode(note, type=_Consumer)
    return ConsumerReport(
        name=name,
        host=told.host,
        pid=told.pid,
        since=_time(told.since),
        doing=doing,
        doing_since=_time(int(doing_since) / 1000),
        why=told.why,
        seen_at=_time(int(seen) / 1000),
        alive=int(until) / 1000 > now,
    )


def _partition(stored: str, alive: set[str]) -> PartitionReport:
    seen, moved, _, note = stored.split(" ", 3)
    told = msgspec.json.decode(note, type=_Partition)
    return PartitionReport(
        topic=told.topic,
        number=told.number,
        position=told.position,
        committed=told.committed,
        end=told.end,
        lag=told.lag,
        consumer=told.consumer,
        seen_at=_time(int(seen) / 1000),
        moved_at=_time(int(moved) / 1000),
        held=told.consumer in alive,
    )


def _latency(counted: Mapping[str, int]) -> Latency:
    found = {name.removeprefix(LATENCY): n for name, n in counted.items() if _is_latency(name)}
    return latency(found, counted.get("latency_ms", 0))


def _is_latency(name: str) -> bool:
    return name.startswith("latency")


def _reasons(totals: Mapping[str, str], kind: str) -> dict[str, int]:
    """The most frequent first."""
    found = {
        name.removeprefix(f"{kind}|"): int(count)
        for name, count in totals.items()
        if name.startswith(f"{kind}|")
    }
    return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))


def _number(fields: Mapping[str, str], name: str) -> int:
    value = fields.get(name, "0")
    return int(value)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)

"""The plan: what a backlog will cost, as a value that screens, `--json` and a run's check share.

Each number that rests on something says on what: `measured`, `set` (by an operator), or `assumed`.
docs/plan.md describes each field. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, computed_field

from enrich.planning.disk import Filling
from enrich.planning.speed import ASSUMED_RATE, Duration, Speed, duration_of

Basis = Literal["measured", "set", "assumed"]

#: Where no request was billed yet: of English log text and stack traces 10 bytes make 3 tokens; of
#: hexadecimal and Korean it is up to twice as many.
ASSUMED_TOKENS_PER_BYTE = 0.3
MOST_TOKENS_PER_BYTE = 0.6

#: Less than so many bytes tell too little of the rest.
LEAST_BYTES = 5_000

#: Of OpenAI's Batch API.
BATCH_DISCOUNT = 0.5


class Counted(BaseModel):
    """Logs that wait, and their texts."""

    #: ERROR logs that a run would take.
    logs: int = 0
    indices: int = 0
    #: Of the logs, those without a usable text, which a run marks failed; None where the texts were
    #: counted by OpenSearch.
    unusable: int | None = 0
    distinct_texts: int = 0
    #: Of `distinct_texts`, how far they may be off, as a share (two standard errors); 0: exact.
    error: float = 0.0
    #: `scan` read every log; `cardinality` let OpenSearch count.
    method: Literal["scan", "cardinality"] = "scan"


class Saved(BaseModel):
    """Texts that need not be paid for, each counted once, in this order."""

    #: Logs that share a text with another.
    repeats: int = 0
    #: Of the repeats, those that are the same only after ENRICH_MASK and ENRICH_NORMALIZE; None
    #: where neither is set.
    masking: int | None = None
    #: Distinct texts whose vector is in Redis now.
    cache: int = 0
    #: Distinct texts whose vector is in a log that may lend it.
    reuse: int = 0
    #: Distinct texts that were looked at for what ENRICH_NORMALIZE=all would leave, and what it
    #: would leave of them; 0 where it is set already.
    normalize_looked_at: int = 0
    normalize_left: int = 0


class Tokens(BaseModel):
    """What is sent."""

    texts: int = 0
    bytes: int = 0
    tokens: int = 0
    per_byte: float = ASSUMED_TOKENS_PER_BYTE
    basis: Basis = "assumed"
    #: What it was measured on.
    texts_measured: int = 0
    #: How far `bytes` may be off, as a share (two standard errors); 0 where every text was seen.
    error: float = 0.0
    requests: int = 0


class Cost(BaseModel):
    """US dollars; None where the price of the model is not known."""

    usd: float | None = None
    #: The same through OpenAI's Batch API, at half the price and within 24 hours.
    batch_usd: float | None = None
    #: What it would be if every log were sent.
    usd_without_savings: float | None = None
    price_per_million_tokens: float | None = None


class Time(BaseModel):
    """How long it takes."""

    seconds: float = 0.0
    #: What decides it, a name of `by`; "" where nothing is to be done.
    binding: str = ""
    #: Seconds by each bound.
    by: dict[str, float] = {}
    logs_per_second: float = ASSUMED_RATE
    basis: Basis = "assumed"
    runs_measured: int = 0
    #: 0 where no limit is known.
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    requests_basis: Basis = "assumed"
    tokens_basis: Basis = "assumed"


class NodeFilling(BaseModel):
    """The data node whose disk is the fullest afterwards, in bytes."""

    name: str
    total: int
    used: int
    added: int
    share_before: float
    share_after: float
    high_watermark: str = ""
    #: Whether it is above that afterwards: OpenSearch moves shards away, and a run halts.
    above_high_watermark: bool = False


class Disk(BaseModel):
    """What the vectors take."""

    #: In all copies on all nodes; None where the copies may not be seen.
    bytes: int | None = None
    bytes_per_vector: int = 0
    fullest_node: NodeFilling | None = None
    #: What could not be seen, in a sentence.
    unseen: str = ""


class Plan(BaseModel):
    """All of it, as `plan --json` prints it."""

    version: Literal[1] = 1
    made_at: datetime
    #: What `--index` and `--days` asked for; "" and None for all.
    index: str = ""
    days: float | None = None
    model: str = ""
    counted: Counted = Counted()
    saved: Saved = Saved()
    sent: Tokens = Tokens()
    cost: Cost = Cost()
    time: Time = Time()
    disk: Disk = Disk()
    #: Indices that a run would skip, or of which not all could be counted, and why.
    left_out: dict[str, str] = {}

    @computed_field  # type: ignore[prop-decorator]
    @property
    def assumptions(self) -> list[str]:
        """What was not measured, in sentences."""
        said = []
        if self.sent.texts and self.sent.basis == "assumed":
            most = self.sent.bytes * MOST_TOKENS_PER_BYTE
            said.append(
                f"{ASSUMED_TOKENS_PER_BYTE:g} tokens a byte: nothing was billed yet; of Korean or "
                f"hexadecimal text it may be up to {most:,.0f} tokens in all"
            )
        if self.counted.logs and self.time.basis == "assumed":
            said.append(f"{ASSUMED_RATE:,.0f} logs a second: no run has shown it yet")
        if self.sent.texts and {self.time.requests_basis, self.time.tokens_basis} == {"assumed"}:
            said.append("no limits of the embeddings API are known, so none slows it down")
        if self.counted.logs:
            said.append(
                "the bytes of a vector are those of our template's index; while segments are "
                "merged, the disk needs up to as much again"
            )
        return said


@dataclass(frozen=True, kw_only=True)
class Billed:
    """What answered requests took, as the endpoint said itself."""

    requests: int = 0
    inputs: int = 0
    bytes: int = 0
    tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Paid:
    """Texts that nobody has a vector for."""

    texts: float
    bytes: float
    #: Of the bytes, as a share: two standard errors.
    error: float = 0.0


def error_of(sizes: Sequence[int], share: float, distinct_error: float) -> float:
    """How far the bytes of all texts may be off, by those of some: two standard errors, as a share.

    Args:
        sizes: bytes to be paid for of each text that was seen; 0 for one that is there.
        share: the part of all texts that was seen.
        distinct_error: of the number of all texts.
    """
    seen = len(sizes)
    mean = sum(sizes) / seen if seen else 0.0
    if share >= 1 or not mean:
        return distinct_error
    variance = sum((size - mean) ** 2 for size in sizes) / seen
    return math.hypot(2 * math.sqrt(variance * (1 - share) / seen) / mean, distinct_error)


def tokens_of(paid: Paid, billed: Billed, texts_a_request: int) -> Tokens:
    """What is sent, by what was billed for the same model."""
    measured = billed.bytes >= LEAST_BYTES and billed.tokens > 0
    per_byte = billed.tokens / billed.bytes if measured else ASSUMED_TOKENS_PER_BYTE
    a_request: float = texts_a_request
    if billed.requests and billed.inputs:
        a_request = min(a_request, billed.inputs / billed.requests)
    return Tokens(
        texts=round(paid.texts),
        bytes=round(paid.bytes),
        tokens=round(paid.bytes * per_byte),
        per_byte=per_byte,
        basis="measured" if measured else "assumed",
        texts_measured=billed.inputs if measured else 0,
        error=round(paid.error, 4),
        requests=math.ceil(paid.texts / max(1.0, a_request)),
    )


def cost_of(sent: Tokens, bytes_of_all: float, price: float | None) -> Cost:
    """Args: price: USD by one million tokens; None where it is not known."""
    if price is None:
        return Cost()
    usd = sent.tokens * price / 1e6
    return Cost(
        usd=round(usd, 6),
        batch_usd=round(usd * BATCH_DISCOUNT, 6),
        usd_without_savings=round(bytes_of_all * sent.per_byte * price / 1e6, 6),
        price_per_million_tokens=price,
    )


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What holds a backlog up; 0 where nothing does."""

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    #: Whether an operator set it; otherwise it was learned.
    requests_set: bool = False
    tokens_set: bool = False
    write_pace: int = 0
    usd_per_day: float = 0.0
    logs_per_run: int = 0
    interval_seconds: float = 0.0


def time_of(logs: int, sent: Tokens, cost: Cost, speed: Speed, bounds: Bounds) -> Time:
    duration: Duration = duration_of(
        logs=logs,
        texts=sent.texts,
        tokens=sent.tokens,
        requests=sent.requests,
        speed=speed,
        requests_per_minute=bounds.requests_per_minute,
        tokens_per_minute=bounds.tokens_per_minute,
        write_pace=bounds.write_pace,
        usd=cost.usd or 0.0,
        usd_per_day=bounds.usd_per_day,
        logs_per_run=bounds.logs_per_run,
        interval_seconds=bounds.interval_seconds,
    )
    working = speed.seconds(logs, sent.texts)
    return Time(
        seconds=round(duration.seconds, 3),
        binding=duration.binding,
        by={name: round(seconds, 3) for name, seconds in duration.by.items()},
        logs_per_second=round(logs / working if working else 1 / speed.a_log, 2),
        basis="measured" if speed.runs else "assumed",
        runs_measured=speed.runs,
        requests_per_minute=bounds.requests_per_minute,
        tokens_per_minute=bounds.tokens_per_minute,
        requests_basis=_basis(bounds.requests_per_minute, bounds.requests_set),
        tokens_basis=_basis(bounds.tokens_per_minute, bounds.tokens_set),
    )


def _basis(limit: int, by_hand: bool) -> Basis:
    """What a limit rests on; that there is none is assumed."""
    return "assumed" if not limit else "set" if by_hand else "measured"


def disk_of(
    logs: Mapping[str, int],
    sizes: Mapping[str, float],
    given: Mapping[str, float],
    filling: Filling | None,
    high_watermark: str,
    is_above: Callable[[str, int, int], bool],
) -> Disk:
    """
    Args:
        given: bytes by node.
        is_above: whether a disk of so many bytes with so many available is above a watermark.
    """
    total = sum(logs.values())
    mean = sum(sizes.get(index, 0.0) * n for index, n in logs.items()) / total if total else 0.0
    node = filling and NodeFilling(
        name=filling.name,
        total=filling.total,
        used=filling.used,
        added=filling.added,
        share_before=round(filling.share_before, 4),
        share_after=round(filling.share_after, 4),
        high_watermark=high_watermark,
        above_high_watermark=is_above(
            high_watermark, filling.total, max(0, filling.total - filling.used - filling.added)
        ),
    )
    return Disk(
        bytes=round(sum(given.values())), bytes_per_vector=round(mean), fullest_node=node or None
    )

"""The words of the pipeline as values: reference, outcome, chunk, run record.

Nothing here talks to a server. A chunk is what travels through the broker, so it holds references
and never log text; the run record is the one model behind `status --json`, `run --wait --json`,
Flower's page and the summary.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any

import msgspec
from pydantic import BaseModel, computed_field

#: Bounds of a chunk beside ENRICH_BATCH_SIZE: what one mget and a few bulk bodies carry well.
MAX_CHUNK_DOCUMENTS = 1000
MAX_CHUNK_BYTES = 16 * 1024 * 1024

#: `ai_enrichment_method` of what a run writes, and of what a consumer of messages does.
METHOD = "periodic_scheduler"
REALTIME_METHOD = "realtime_consumer"
#: What `ai_enrichment_run` of the latter begins with.
REALTIME_RUN = "realtime-"

_MONTH = re.compile(r"_\d{4}_\d{2}$")
#: What `reindex` puts into the name of a copy: at its end, or before a rollover's number.
COPY_MARK = "-enrich-knn"
_COPY = re.compile(rf"{COPY_MARK}(?=-\d+$|$)")
#: How OpenSearch names the indices behind a data stream.
_GENERATION = re.compile(r"^\.ds-(.+)-\d{6,}$")


class Outcome(StrEnum):
    """What became of a document that was found; each has exactly one."""

    EMBEDDED = "embedded"
    DUPLICATE = "duplicate"
    CACHED = "cached"
    REUSED = "reused"
    ALREADY_VECTORIZED = "already_vectorized"
    GONE = "gone"
    FAILED = "failed"
    DEFERRED = "deferred"


#: The outcomes that wrote a vector, as `ai_vector_source` stores them.
VECTOR_OUTCOMES = (Outcome.EMBEDDED, Outcome.DUPLICATE, Outcome.CACHED, Outcome.REUSED)


#: OpenSearch's own limits, in bytes: no document has a longer address.
IndexName = Annotated[str, msgspec.Meta(max_length=255)]
DocumentId = Annotated[str, msgspec.Meta(max_length=512)]


class Reference(msgspec.Struct, frozen=True, array_like=True):
    """Where a document is and the version at which it was found without a vector."""

    index: IndexName
    id: DocumentId
    routing: str | None
    seq_no: int
    primary_term: int


class LogLocation(msgspec.Struct, frozen=True, array_like=True):
    """Where a log is."""

    index: IndexName
    id: DocumentId
    routing: str | None


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """What one `embed_and_update` handles, and its form in the broker."""

    #: `{run}:{page}:{k}`, unique for ever.
    id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-z-]{1,64}:[0-9]{1,9}:[0-9]{1,9}\Z")]
    references: Annotated[
        tuple[Reference, ...], msgspec.Meta(min_length=1, max_length=MAX_CHUNK_DOCUMENTS)
    ]
    #: Logs that have vectors of its texts. Messages call them donors.
    reusable: tuple[LogLocation, ...] = msgspec.field(default=(), name="donors")
    #: Indices whose documents are written by `update`, because `index` would not be harmless.
    update_only: tuple[str, ...] = ()

    @property
    def run(self) -> str:
        return self.id.split(":", 1)[0]

    def to_message(self) -> dict[str, Any]:
        """As JSON types, for the broker."""
        message: dict[str, Any] = msgspec.to_builtins(self)
        return message

    @classmethod
    def from_message(cls, message: Any) -> Chunk:
        """Read a message of the broker, which may be anything.

        Raises:
            ValueError: it is not a chunk; the text says where and what was expected, no values.
        """
        try:
            return msgspec.convert(message, cls)
        except msgspec.ValidationError as error:
            raise ValueError(f"not a chunk: {error}") from None


_LEFT = {
    "time": "its time was up; the next run begins at once",
    "cap": "it took as many as ENRICH_MAX_LOGS_PER_RUN allows; the next tick takes more",
    "confirm": "it has spent what it may without another `python -m enrich confirm`; the next tick "
    "plans what is left",
    "budget": "the day's ENRICH_MAX_COST_PER_DAY is used up; it goes on after midnight UTC",
}


@dataclass(frozen=True)
class Counted:
    """Marks a field of `RunRecord` that the ledger counts, in Redis under the field's name."""

    #: The total to which it is added as well; "" for the one of its own name.
    total: str = ""


Count = Annotated[int, Counted()]


class RunRecord(BaseModel):
    """One run, as stored, shown and printed. Counters are documents unless named otherwise.

    A counter is added here alone: the ledger, its Lua, the metrics and the sums of runs that
    continue each other know it from `COUNTERS`.
    """

    run_id: str
    number: int = 0
    trigger: str = "beat"
    state: str = "running"
    #: Whether it left logs for the next run.
    more: bool = False
    #: What ended its search early: `time`, `cap`, `budget`, `confirm`, `halt`; "" if nothing did.
    stopped_by: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    duration_seconds: float = 0.0
    found: Count = 0
    embedded: Count = 0
    duplicate: Count = 0
    cached: Count = 0
    reused: Count = 0
    already_vectorized: Count = 0
    #: Of those, how many were given their vector by runs that this Redis does not know.
    written_by_others: Count = 0
    gone: Count = 0
    failed: Count = 0
    deferred: Count = 0
    vectors_written: Annotated[int, Counted(total="vectors")] = 0
    api_requests: Count = 0
    api_inputs: Count = 0
    api_tokens: Count = 0
    #: Places masked in the texts that were sent and answered, see masking.py.
    masked: Count = 0
    estimated_cost_usd: float = 0.0
    retries: Count = 0
    rate_limited: Count = 0
    #: Milliseconds of the pauses that the API asked for; workers that ask at once meet several.
    paused_ms: Count = 0
    errors: Annotated[int, Counted(total="errors")] = 0
    chunks: Count = 0
    chunks_open: int = 0
    skipped_indices: dict[str, str] = {}
    halt_reason: str = ""
    #: Why documents were deferred, and how many; why work was tried again, and how often.
    deferral_reasons: dict[str, int] = {}
    retry_reasons: dict[str, int] = {}
    #: What it said of the comparison of vector spaces with which it began; "" if there was none.
    comparison: str = ""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def rate_per_second(self) -> float:
        """Vectors a second over the run's duration; 0 before any time has passed."""
        if self.duration_seconds <= 0:
            return 0.0
        return round(self.vectors_written / self.duration_seconds, 2)

    @property
    def left_because(self) -> str:
        """Why it left logs for the next run, and when that takes them; "" if it left none."""
        return _LEFT.get(self.stopped_by, "") if self.more else ""

    @property
    def is_idle(self) -> bool:
        """Whether it ended well and found nothing: no list of what was done needs it."""
        return self.state == "finished" and not self.found

    @property
    def done(self) -> int:
        """Documents that need no other run: settled, and not deferred."""
        return self.settled - self.deferred

    @property
    def settled(self) -> int:
        """Documents whose outcome is known; equal to `found` once the run is over."""
        return sum(int(getattr(self, outcome.value)) for outcome in Outcome)


#: Every counter of a run by its name.
COUNTERS: dict[str, Counted] = {
    name: mark
    for name, declared in RunRecord.model_fields.items()
    for mark in declared.metadata
    if isinstance(mark, Counted)
}


def total_of(counter: str) -> str:
    """Under which name all runs together count this."""
    return COUNTERS[counter].total or counter


@dataclass(frozen=True, kw_only=True)
class Durations:
    """How long something took, of all that ended, for a histogram."""

    #: How many took at most so many seconds, by bound; the last is all of them, under `+Inf`.
    within: Mapping[str, int]
    #: The sum.
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Since the first run; what Redis lost comes back from the history, where one is kept."""

    runs: int = 0
    ticks_skipped: int = 0
    vectors: int = 0
    errors: int = 0
    #: Messages in the broker that enrich did not send.
    messages_dropped: int = 0
    #: Seconds in which runs were active; the denominator of the average rate.
    seconds: float = 0.0
    #: Every counter of all runs together, by its name in `RunRecord`. What is corrected later is
    #: not taken back: these never fall.
    counts: Mapping[str, int] = field(default_factory=dict)
    #: Runs that ended, by state.
    ended: Mapping[str, int] = field(default_factory=dict)
    #: By runs, consumers and the HTTP service together.
    spent_usd: float = 0.0
    run_durations: Durations | None = None
    chunk_durations: Durations | None = None

    @property
    def average_rate(self) -> float:
        return round(self.vectors / self.seconds, 2) if self.seconds > 0 else 0.0


class DaySums(BaseModel, frozen=True):
    """Sums over the runs of some time, such as a day. Counters are documents unless named so."""

    runs: int = 0
    found: int = 0
    vectors_written: int = 0
    api_inputs: int = 0
    api_tokens: int = 0
    duplicate: int = 0
    cached: int = 0
    reused: int = 0
    #: Of the runs alone, and with what consumers and the HTTP service spent, where that is known.
    runs_cost_usd: float = 0.0
    cost_usd: float = 0.0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def not_sent(self) -> int:
        """Documents whose vector cost nothing: their text was in the cache, in a log, or twice in
        one chunk."""
        return self.duplicate + self.cached + self.reused

    @computed_field  # type: ignore[prop-decorator]
    @property
    def saved_usd(self) -> float:
        """What those would have cost, at what a text cost in the same time; 0 where none was
        sent, so that nothing is known of the price."""
        if not self.api_inputs:
            return 0.0
        return round(self.not_sent * self.runs_cost_usd / self.api_inputs, 6)

    def spending_at_least(self, usd: float) -> DaySums:
        """The same with another cost, where that is more."""
        return self.model_copy(update={"cost_usd": max(self.cost_usd, usd)})

    def __add__(self, other: DaySums) -> DaySums:
        return DaySums(**{name: getattr(self, name) + getattr(other, name) for name in _SUMMED})

    @classmethod
    def of(cls, record: RunRecord) -> DaySums:
        """The sums of one run."""
        counted = {name: getattr(record, name) for name in _SUMMED if name in COUNTERS}
        cost = record.estimated_cost_usd
        return cls(runs=1, runs_cost_usd=cost, cost_usd=cost, **counted)


_SUMMED = tuple(DaySums.model_fields)


@dataclass(frozen=True)
class LoneFailure:
    """What was seen of a text that failed by itself, while a harmless one was taken."""

    #: When that was: a run, for instance.
    occasion: str
    #: As `EnrichError.failed_as`.
    way: str


def stream_of(index: str) -> str:
    """The data stream before an index; the index itself where there is none."""
    return _GENERATION.sub(r"\1", index)


@lru_cache(maxsize=10_000)
def project_of(index: str) -> str:
    """The index name without its month: `{project}_{YYYY}_{MM}` → `{project}`. Of an index behind a
    data stream: the stream's, without a month as well. Of a copy that `reindex` made: that of the
    index which it was made of."""
    return _MONTH.sub("", stream_of(_COPY.sub("", index)))


def outcome_line(outcomes: Mapping[str, int]) -> str:
    """The one human line of a chunk or a run: `812 found: 172 embedded, 640 cached, 0 failed`."""
    found = sum(outcomes.values())
    named = {name: n for name, n in outcomes.items() if n or name == Outcome.FAILED}
    named.setdefault(Outcome.FAILED.value, 0)
    order = [outcome.value for outcome in Outcome]
    parts = [f"{named[name]} {name}" for name in sorted(named, key=order.index)]
    return f"{found} found: {', '.join(parts)}"

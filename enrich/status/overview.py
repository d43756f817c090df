"""Everything that Flower's pages show, read at once: the status, and what stands beside it.

Beside the status of every screen there are the last runs, chunks at work, workers, the month's
money, failures by reason and beat's schedule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel

from enrich.errors import EnrichError
from enrich.history.reader import Sums
from enrich.ledger import Ledger
from enrich.log_store import LogStore
from enrich.models import VECTOR_OUTCOMES, Outcome, RunRecord
from enrich.status.report import Status

#: Runs that did something, on the page and in its chart.
RUNS_SHOWN = 50

#: Chunks of the active run that are listed; more are counted.
CHUNKS_SHOWN = 200


class FailureReason(BaseModel):
    """Logs that are marked failed for one reason."""

    code: str
    logs: int
    #: Of each index, the most first.
    by_index: dict[str, int]


class ChunkReport(BaseModel):
    """A chunk that is not settled, see `enrich.ledger.answers.ChunkState`."""

    id: str
    logs: int
    state: str
    owner: str
    seconds: float
    workers_lost: int
    why: str

    @property
    def host(self) -> str:
        return self.owner.rpartition("/")[0]


class WorkerReport(BaseModel):
    """A worker, as it last noted itself."""

    name: str
    host: str
    pid: int
    processes: int
    queues: list[str]
    version: str
    alive: bool
    #: Why it takes no work; "" where it does.
    refuses: str
    since: datetime
    seconds_ago: float
    #: Chunks that are worked on at its host: several workers of one host share them.
    chunks: list[ChunkReport] = []


class Schedule(BaseModel):
    """What beat does."""

    interval_seconds: float = 0.0
    last_tick: datetime | None = None
    #: When the next one is due; None while none has come, or while none is expected.
    next_tick: datetime | None = None
    #: Beats that noted themselves lately: where, and how many seconds ago.
    beats: list[dict[str, Any]] = []


class Overview(BaseModel):
    """All of it."""

    status: Status
    #: The newest runs that did something, RUNS_SHOWN at most.
    runs: list[RunRecord] = []
    failures: list[FailureReason] = []
    chunks: list[ChunkReport] = []
    workers: list[WorkerReport] = []
    #: Today's and this month's money and vectors, see `enrich.history.reader.Sums`.
    sums: Sums = Sums()
    schedule: Schedule = Schedule()


def useful(runs: Sequence[RunRecord], most: int = RUNS_SHOWN) -> list[RunRecord]:
    """The newest runs that found logs, are active or did not end well: an empty one never takes the
    place of another."""
    return [run for run in runs if not run.is_idle][:most]


def read_beside(status: Status, ledger: Ledger, runs: Sequence[RunRecord], sums: Sums) -> Overview:
    """What Redis knows beside the status, with runs and sums of the history.

    Raises EnrichError: Redis does not answer.
    """
    active = status.active_run
    states = ledger.chunks.under_way(active.run_id) if active else []
    chunks = [ChunkReport(**asdict(state)) for state in states]
    merged = merge_runs(status.last_runs, runs)
    return Overview(
        status=status,
        runs=useful(merged),
        chunks=chunks[:CHUNKS_SHOWN],
        workers=workers_of(ledger, chunks),
        sums=sums,
        schedule=_schedule(status, ledger),
    )


def read_workers(ledger: Ledger) -> list[WorkerReport]:
    """Each worker that noted itself, with the chunks of the active run at its host."""
    active = ledger.runs.active()
    states = ledger.chunks.under_way(active) if active else []
    return workers_of(ledger, [ChunkReport(**asdict(state)) for state in states])


def workers_of(ledger: Ledger, chunks: Sequence[ChunkReport]) -> list[WorkerReport]:
    """Args: chunks: those under way."""
    return [
        WorkerReport(
            name=note.name,
            host=note.host,
            pid=note.pid,
            processes=note.processes,
            queues=list(note.queues),
            version=note.version,
            alive=note.alive,
            refuses=note.refuses,
            since=note.since,
            seconds_ago=note.seconds_ago,
            chunks=[c for c in chunks if c.state == "leased" and c.host == note.host],
        )
        for note in ledger.deployment.workers()
    ]


def merge_runs(*several: Sequence[RunRecord]) -> list[RunRecord]:
    """Runs of several sources, each once, newest first; what the first source says counts."""
    by_id: dict[str, RunRecord] = {}
    for runs in several:
        for run in runs:
            by_id.setdefault(run.run_id, run)
    oldest = datetime.fromtimestamp(0, UTC)
    return sorted(by_id.values(), key=lambda r: (r.started_at or oldest, r.number), reverse=True)


def saved_vectors(run: RunRecord) -> int:
    """Vectors that were written and not bought."""
    return sum(int(getattr(run, o.value)) for o in VECTOR_OUTCOMES if o is not Outcome.EMBEDDED)


def read_failures(store: LogStore, ledger: Ledger) -> list[FailureReason]:
    """Logs that are marked failed, by reason, the most first; those that could not be marked are
    recorded in Redis. Raises EnrichError."""
    found = store.stats.failure_reasons().value
    for (index, _), told in ledger.refused.all().items():
        of_code = found.setdefault(str(told["error"]), {})
        of_code[index] = of_code.get(index, 0) + 1
    reasons = [
        FailureReason(
            code=code,
            logs=sum(by_index.values()),
            by_index=dict(sorted(by_index.items(), key=lambda pair: (-pair[1], pair[0]))),
        )
        for code, by_index in found.items()
    ]
    return sorted(reasons, key=lambda reason: (-reason.logs, reason.code))


def failures_or_problem(store: LogStore, ledger: Ledger) -> tuple[list[FailureReason], str]:
    """As `read_failures`, and in a sentence why not."""
    try:
        return read_failures(store, ledger), ""
    except EnrichError as error:
        return [], str(error)


def _schedule(status: Status, ledger: Ledger) -> Schedule:
    next_tick = None
    if status.last_tick is not None and status.interval_seconds:
        next_tick = status.last_tick + timedelta(seconds=status.interval_seconds)
    return Schedule(
        interval_seconds=status.interval_seconds,
        last_tick=status.last_tick,
        next_tick=next_tick,
        beats=[
            {"host": b.host, "pid": b.pid, "seconds_ago": b.seconds_ago, "late": b.late}
            for b in ledger.deployment.beats()
        ],
    )

"""What the pages say of an overview, apart from how they look: templates ask this and no server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property

from enrich.flower import words
from enrich.flower.runs_chart import Chart, chart_of
from enrich.models import Outcome, RunRecord, project_of
from enrich.status.failed_logs import code_told
from enrich.status.health import Health, Word, health_of, told, unsaid
from enrich.status.overview import FailureReason, Overview, saved_vectors
from enrich.status.report import IndexBacklog, Status

#: Rows of the first page; the others have pages of their own.
INDICES_SHOWN = 10
PARTITIONS_SHOWN = 50
CHUNKS_ON_PAGE = 40
SKIPPED_SHOWN = 10
RUNS_ON_PAGE = 15


@dataclass(frozen=True)
class RunRow:
    """A run, and how many that found nothing began between it and the one above."""

    run: RunRecord
    empty_above: int


@dataclass(frozen=True)
class View:
    """An overview as the pages word it. `address` of a run's page by its id."""

    status: Status
    overview: Overview = field(default=None)  # type: ignore[assignment]
    address: Callable[[str], str] = str
    shown_settings: dict[str, str] = field(default_factory=dict)
    #: Where the text of a log is looked for.
    text_fields: str = "`message`"

    partitions_shown = PARTITIONS_SHOWN
    runs_on_page = RUNS_ON_PAGE
    chunks_on_page = CHUNKS_ON_PAGE
    skipped_shown = SKIPPED_SHOWN

    def __post_init__(self) -> None:
        if self.overview is None:
            runs = self.status.last_runs
            object.__setattr__(self, "overview", Overview(status=self.status, runs=runs))

    # -- health

    @cached_property
    def health(self) -> Health:
        return health_of(self.status)

    @property
    def others(self) -> list[tuple[str, str]]:
        """The reasons beside the first: word and sentence."""
        return [
            (reason.word.value, told(reason.sentence, reason.remedy))
            for reason in self.health.reasons[1:]
        ]

    @property
    def unsaid(self) -> list[str]:
        return unsaid(self.status, self.health)

    @property
    def well(self) -> bool:
        return self.health.word in (Word.HEALTHY, Word.WORKING)

    @property
    def word(self) -> str:
        """The state of the runs in one word."""
        if any(problem.startswith("Redis") for problem in self.status.problems):
            return "unknown"
        if self.status.paused:
            return "paused"
        last = self.last
        if last is None:
            return "waiting"
        if last.state == "halted":
            # Also while it still counts as active: its open chunks are being put back.
            return "halted"
        return "idle" if self.status.active_run is None else "running"

    @property
    def sentence(self) -> str:
        """What the word means here, and what would change it."""
        last = self.last
        match self.word:
            case "unknown":
                return "Redis does not answer, so the state of the runs is not known."
            case "paused":
                return "No new work is handed out until `python -m enrich resume`."
            case "waiting":
                return "No run yet: beat's next tick begins the first."
            case "halted" if last is not None:
                return f"Run #{last.number} stopped: {last.halt_reason or 'no reason was given'}"
            case "idle" if last is not None and last.more:
                why = f": {last.left_because}" if last.left_because else ""
                return f"The last run left work for the next one{why}."
            case "idle":
                return "The last run has ended; the next tick looks for new logs."
        return "A run is active."

    # -- runs

    @property
    def last(self) -> RunRecord | None:
        """The active run, or else the last, whatever it did."""
        runs = self.status.last_runs
        return self.status.active_run or (runs[0] if runs else None)

    @property
    def told_run(self) -> RunRecord | None:
        """The run that is shown whole: the active one, or else the last that did something."""
        if self.status.active_run is not None:
            return self.status.active_run
        return self.overview.runs[0] if self.overview.runs else self.last

    @property
    def empty_since(self) -> int:
        """Runs that found nothing since the one that is shown."""
        told_run, last = self.told_run, self.last
        return last.number - told_run.number if told_run and last else 0

    @cached_property
    def rows(self) -> list[RunRow]:
        """The runs of the table."""
        runs = self.overview.runs
        return rows_of(runs, self.last.number + 1 if self.last else 0)

    @cached_property
    def chart(self) -> Chart | None:
        return chart_of(self.overview.runs, self.address)

    @staticmethod
    def outcomes(run: RunRecord) -> list[tuple[str, int]]:
        return [(o.value.replace("_", " "), getattr(run, o.value)) for o in Outcome]

    @staticmethod
    def saved(run: RunRecord) -> int:
        return saved_vectors(run)

    @staticmethod
    def why(run: RunRecord) -> str:
        return run.halt_reason or next(iter(run.deferral_reasons), "") or run.left_because

    # -- logs

    @property
    def logs(self) -> int:
        backlog = self.status.backlog
        return backlog.with_vector + backlog.without_vector + backlog.failed if backlog else 0

    @cached_property
    def all_indices(self) -> list[tuple[str, IndexBacklog]]:
        """The indices with most to do first, then by name."""
        if self.status.backlog is None:
            return []
        rows = self.status.backlog.by_index.items()
        return sorted(rows, key=lambda row: (-row[1].without_vector, -row[1].failed, row[0]))

    @property
    def indices(self) -> list[tuple[str, IndexBacklog]]:
        return self.all_indices[:INDICES_SHOWN]

    @property
    def indices_left_out(self) -> int:
        backlog = self.status.backlog
        return max(0, len(backlog.by_index) - INDICES_SHOWN) if backlog else 0

    @property
    def left_out_pending(self) -> int:
        """Logs without a vector in the indices that are left out."""
        return sum(counts.without_vector for _, counts in self.all_indices[INDICES_SHOWN:])

    @property
    def skipped(self) -> dict[str, str]:
        """Indices that the telling run leaves out, and why."""
        run = self.last
        return run.skipped_indices if run else {}

    def why_failed(self, code: str) -> str:
        return code_told(code, self.text_fields)

    @cached_property
    def failing_groups(self) -> list[tuple[str, int, str]]:
        """The greatest groups of failed logs: reason, logs, and the project that has most."""
        return [(reason.code, reason.logs, _most(reason)) for reason in self.overview.failures]

    # -- times

    @property
    def now(self) -> datetime:
        return self.status.read_at or datetime.now(UTC)

    @property
    def oldest_age(self) -> str:
        backlog = self.status.backlog
        return words.age(backlog.oldest_without_vector, self.now) if backlog else ""

    @property
    def next_tick(self) -> str:
        """When beat's next tick is due, in words; "" where it is not known."""
        due = self.overview.schedule.next_tick
        if due is None:
            return ""
        left = (due - self.now).total_seconds()
        return f"in {words.rough(left)}" if left > 0 else f"{words.rough(-left)} overdue"

    def age(self, time: datetime | str | None) -> str:
        return words.age(time, self.now)

    # -- money

    @property
    def saved_share(self) -> str:
        """Of this month's vectors, how many were not bought, in percent."""
        month = self.overview.sums.month
        return words.percent(month.not_sent, month.vectors_written)

    @property
    def spent_month(self) -> float:
        """USD; at least what was spent today."""
        return max(self.overview.sums.month.cost_usd, self.status.spent_today_usd)

    # -- at work

    @property
    def chunks_by_state(self) -> dict[str, int]:
        """How many open chunks of the active run are at work, wait, or were deferred."""
        found = dict.fromkeys(("leased", "waiting", "deferred"), 0)
        for chunk in self.overview.chunks:
            found[chunk.state] += 1
        return found

    @property
    def workers_alive(self) -> int:
        return sum(worker.alive and not worker.refuses for worker in self.overview.workers)

    @property
    def processes(self) -> int:
        return sum(w.processes for w in self.overview.workers if w.alive and not w.refuses)

    @staticmethod
    def chunk_name(id: str) -> str:
        """`{run}:{page}:{k}` as people say it."""
        _, page, place = id.split(":", 2)
        return f"chunk {int(place) + 1} of page {page}"

    # -- small words, which older names of this class had

    percent = staticmethod(words.percent)
    clock = staticmethod(words.clock)
    usd = staticmethod(words.usd)


def rows_of(runs: Sequence[RunRecord], next_number: int) -> list[RunRow]:
    """The rows of a table of runs, newest first: their numbers tell how many are between.

    Args:
        next_number: of the run above the first row.
    """
    rows = []
    above = next_number
    for run in runs:
        rows.append(RunRow(run, max(0, above - run.number - 1) if run.number else 0))
        above = run.number
    return rows


def _most(reason: FailureReason) -> str:
    index = next(iter(reason.by_index), "")
    return project_of(index)

"""What operators are shown: one status, read from Redis and OpenSearch, for every screen.

The command line, Flower's page, the metrics and the workers' own page print the same model, so
that no two places can disagree. A server that does not answer is named; the rest is still shown.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from datetime import UTC, datetime

from pydantic import BaseModel, computed_field

from enrich.errors import EnrichError
from enrich.history.reader import History
from enrich.ledger import Ledger
from enrich.ledger.deployment import disagreements, place_of
from enrich.ledger.realtime_summary import RealtimeSummary
from enrich.log_store import LogStore
from enrich.log_store.coverage import Gaps
from enrich.log_store.stats import Oldest
from enrich.models import Durations, RunRecord, Totals, project_of
from enrich.settings import Settings
from enrich.status.history import HistoryReport, read_history
from enrich.status.quota import Quota, QuotaReport, read_quota

#: Projects of which it is told what they spent today: their names come from whoever makes indices.
MOST_PROJECTS = 10


class TotalsReport(BaseModel):
    """Since the first run; what Redis lost comes back from the history, where one is kept."""

    runs: int = 0
    ticks_skipped: int = 0
    vectors: int = 0
    errors: int = 0
    #: Messages in the broker that enrich did not send.
    messages_dropped: int = 0
    #: Vectors a second, over the time in which runs were active.
    average_rate: float = 0.0
    #: Every counter of `RunRecord`, of all runs together; what was corrected later is not taken
    #: back, so that none ever falls.
    counts: dict[str, int] = {}
    #: Runs that ended, by state.
    ended: dict[str, int] = {}
    #: What runs, consumers and the HTTP service spent.
    spent_usd: float = 0.0
    #: How long runs took, and chunks from their last lease to their end; None where not known.
    run_durations: Durations | None = None
    chunk_durations: Durations | None = None


class IndexBacklog(BaseModel):
    """ERROR logs of one index; every one of them is in one of the three."""

    with_vector: int = 0
    without_vector: int = 0
    failed: int = 0


class Backlog(IndexBacklog):
    """ERROR logs of all indices."""

    by_index: dict[str, IndexBacklog] = {}
    #: Of those with a vector, how many have one of another model than EMBEDDING_MODEL: `search`
    #: does not find them.
    of_other_models: int = 0
    #: The same by index; indices without any are left out.
    of_other_models_by_index: dict[str, int] = {}
    #: Indices of which a part or all was not counted, and why.
    not_counted: dict[str, str] = {}
    #: Why something was not counted whose index nobody can tell; "" where there is no such thing.
    not_counted_unnamed: str = ""
    #: Remote clusters that were passed over.
    clusters_not_counted: int = 0
    #: Timestamp of the oldest ERROR log without a vector, ISO 8601, by project; those without such
    #: a log, or without its time, are left out.
    oldest_by_project: dict[str, str] = {}
    #: Timestamp of the oldest ERROR log without a vector, ISO 8601; where `whole` is false, there
    #: may be older ones.
    oldest_without_vector: str | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def whole(self) -> bool:
        """False where OpenSearch counted only in part: there are at least these logs."""
        return self.gaps.whole

    @property
    def gaps(self) -> Gaps:
        """What the counts leave out."""
        return Gaps(
            indices=self.not_counted,
            unnamed=self.not_counted_unnamed,
            clusters=self.clusters_not_counted,
        )

    @property
    def problem(self) -> str:
        """What is not counted, in a sentence; "" where all is."""
        if self.whole:
            return ""
        logs = f"{self.with_vector + self.without_vector + self.failed:,}"
        return (
            f"OpenSearch counted the ERROR logs only in part: {self.gaps.at_least(logs)}; "
            f"{self.gaps.sentence()}"
        )


class EndpointLimitsReport(BaseModel):
    """What the embeddings API was found to take lately; 0 where no limit was met."""

    #: Texts in one request.
    inputs: int = 0
    #: UTF-8 bytes of the texts of one request.
    request_bytes: int = 0
    #: UTF-8 bytes of one text; what is longer is sent cut.
    text_bytes: int = 0

    def told(self) -> str:
        """In words, such as "at most 32 texts a request and 1,000 bytes a text"."""
        known = (
            f"{amount:,} {what}"
            for amount, what in (
                (self.inputs, "texts a request"),
                (self.request_bytes, "bytes a request"),
                (self.text_bytes, "bytes a text"),
            )
            if amount
        )
        return "at most " + ", ".join(known)


class Status(BaseModel):
    """All of it, as `status --json` prints it."""

    totals: TotalsReport = TotalsReport()
    #: Whether they are those since the first run; False where Redis lost them and they could not be
    #: read from the history now.
    totals_known: bool = True
    #: What outlives Redis; None where it was not asked for.
    history: HistoryReport | None = None
    active_run: RunRecord | None = None
    last_runs: list[RunRecord] = []
    paused: bool = False
    #: When beat's last tick was handled.
    last_tick: datetime | None = None
    #: When this was read, by Redis' clock, which all times of the ledger have; by this host's while
    #: Redis does not answer. And the settings that judge it: 0 where they are not known.
    read_at: datetime | None = None
    interval_seconds: float = 0.0
    cost_limit_usd: float = 0.0
    #: Seconds in which the active run has begun no chunk; None without one.
    quiet_seconds: float | None = None
    #: Workers that noted lately that they live, and whether any of this deployment ever did within
    #: the last half hour: those of an older version do not.
    workers_alive: int = 0
    workers_note_themselves: bool = False
    #: Workers that live and take no work, and those that ended within the last quarter of an hour
    #: without saying so.
    workers_refusing: int = 0
    workers_lost: int = 0
    #: In sentences: workers whose settings differ, and other deployments on the same indices.
    disagreements: list[str] = []
    neighbours: list[str] = []
    spent_today_usd: float = 0.0
    #: The projects that spent most of it, MOST_PROJECTS at most, the greatest first.
    spent_today_by_project: dict[str, float] = {}
    #: By vector space (model, dimensions and endpoint).
    endpoint_limits: dict[str, EndpointLimitsReport] = {}
    #: What the embeddings API allows and how much is in use; None where it was not asked for.
    quota: QuotaReport | None = None
    #: Groups of consumers of Kafka; empty where none ever ran.
    realtime: list[RealtimeSummary] = []
    #: None when OpenSearch could not be asked.
    backlog: Backlog | None = None
    #: Messages in the broker that no worker has taken yet, by queue.
    queues: dict[str, int] = {}
    #: Vectors in the cache; None where that was not asked for or cannot be told.
    cache_entries: int | None = None
    #: What could not be read, in sentences.
    problems: list[str] = []

    @property
    def redis_unread(self) -> bool:
        """Whether Redis did not give its part."""
        return any(problem.startswith(("Redis", "REDIS")) for problem in self.problems)

    @property
    def seconds_left(self) -> float | None:
        """Until the active run has nothing left at its rate, so without the indices that it skips;
        None if there is no rate yet, or where what is left was counted only in part."""
        if self.active_run is None or self.backlog is None or not self.active_run.rate_per_second:
            return None
        if not self.backlog.whole:
            return None
        skipped = self.active_run.skipped_indices
        pending = sum(
            counts.without_vector
            for name, counts in self.backlog.by_index.items()
            if name not in skipped
        )
        return pending / self.active_run.rate_per_second


def read_status(
    ledger: Ledger,
    store: LogStore | None,
    runs: int = 10,
    settings: Settings | None = None,
    history: History | None = None,
    quota: Quota | None = None,
) -> Status:
    """Read the status. `store` None leaves the backlog out; `settings` tell how to judge it;
    without `history` there is what Redis knows, without `quota` nothing is said of it.

    A server that cannot be reached shows in `problems`; nothing is raised.
    """
    status = Status(read_at=datetime.now(UTC))
    if settings is not None:
        status.interval_seconds = settings.interval_seconds
        status.cost_limit_usd = settings.enrich_max_cost_per_day
    try:
        _read_ledger(status, ledger, runs, settings)
        if history is not None:
            _read_history(status, history, runs)
        if quota is not None:
            status.quota = read_quota(quota)
    except EnrichError as error:
        status.problems.append(str(error))
    if store is not None:
        status.backlog, problem = read_backlog_or_problem(store)
        if problem:
            status.problems.append(problem)
    return status


def read_backlog_or_problem(store: LogStore) -> tuple[Backlog | None, str]:
    """What could be counted, and in a sentence what could not ("" if all was)."""
    try:
        backlog = read_backlog(store)
    except EnrichError as error:
        return None, str(error)
    return backlog, backlog.problem


def read_backlog(store: LogStore) -> Backlog:
    """Count the ERROR logs. Raises EnrichError."""
    counted = store.stats.counts()
    by_index = {name: IndexBacklog(**counts) for name, counts in counted.by_index.items()}
    without = sum(index.without_vector for index in by_index.values())
    gaps = counted.gaps
    oldest = Oldest()
    if without:
        found = store.stats.oldest()
        oldest, gaps = found.value, gaps | found.gaps
    return Backlog(
        with_vector=sum(index.with_vector for index in by_index.values()),
        without_vector=without,
        failed=sum(index.failed for index in by_index.values()),
        by_index=by_index,
        of_other_models=sum(counted.of_other_models.values()),
        of_other_models_by_index=counted.of_other_models,
        not_counted=dict(sorted(gaps.indices.items())),
        not_counted_unnamed=gaps.unnamed,
        clusters_not_counted=gaps.clusters,
        oldest_without_vector=oldest.of_all,
        oldest_by_project=by_project(oldest.by_index),
    )


def by_project(times: Mapping[str, str]) -> dict[str, str]:
    """The first time of each project's indices. Pure."""
    first: dict[str, str] = {}
    for index, time in sorted(times.items()):
        project = project_of(index)
        first[project] = min(time, first.get(project, time))
    return first


def _read_history(status: Status, history: History, runs: int) -> None:
    """In place of what Redis alone knows."""
    page = history.runs(runs)
    status.last_runs = page.runs
    status.history = read_history(history)
    if page.problem:
        status.history.problems.append(page.problem)
    try:
        status.totals = _of_totals(history.totals())
    except EnrichError as error:
        status.totals_known = False
        status.history.problems.append(f"totals are those of this Redis alone: {error}")


def _of_totals(totals: Totals) -> TotalsReport:
    return TotalsReport(
        runs=totals.runs,
        ticks_skipped=totals.ticks_skipped,
        vectors=totals.vectors,
        errors=totals.errors,
        messages_dropped=totals.messages_dropped,
        average_rate=totals.average_rate,
        counts=dict(totals.counts),
        ended=dict(totals.ended),
        spent_usd=totals.spent_usd,
        run_durations=totals.run_durations,
        chunk_durations=totals.chunk_durations,
    )


def _read_ledger(status: Status, ledger: Ledger, runs: int, settings: Settings | None) -> None:
    # The clock of this host may be wrong by an hour, and every tick then late or none ever.
    status.read_at = datetime.fromtimestamp(ledger.now(), UTC)
    status.totals = _of_totals(ledger.records.totals())
    status.last_runs = ledger.records.last(runs)
    active = ledger.runs.active()
    status.active_run = next((run for run in status.last_runs if run.run_id == active), None)
    if status.active_run is not None:
        status.quiet_seconds = ledger.records.quiet_seconds(status.active_run.run_id)
    workers = ledger.deployment.workers()
    status.workers_alive = sum(note.alive and not note.refuses for note in workers)
    status.workers_refusing = sum(note.alive and bool(note.refuses) for note in workers)
    status.workers_lost = sum(not note.alive for note in workers)
    status.workers_note_themselves = ledger.deployment.noted()
    status.disagreements = disagreements(workers)
    if settings is not None:
        place = place_of(settings, socket.gethostname())
        found = ledger.deployment.neighbours(place, settings.enrich_index_pattern)
        status.neighbours = [neighbour.sentence for neighbour in found]
    status.queues = ledger.queues.lengths()
    status.paused = ledger.controls.paused()
    status.last_tick = ledger.controls.last_tick()
    status.spent_today_usd = ledger.spending.today_usd()
    status.spent_today_by_project = ledger.spending.today_by_project(MOST_PROJECTS)
    status.endpoint_limits = {
        space: EndpointLimitsReport(**found) for space, found in ledger.endpoint.limits().items()
    }
    status.realtime = ledger.realtime.summary()

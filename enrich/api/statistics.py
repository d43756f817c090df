"""Statistics of a project's logs: a sample's estimates beside the counts, and counts by hours.

The answers' fields are those of `GET /api/v2-langgraph/statistics/compare` and `/hourly`. The
sample is drawn and made into estimates before the logs are counted, and these are made of it alone.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol
from zoneinfo import ZoneInfo

from pydantic import BaseModel, Field

from enrich.analysis import comparing, sampling
from enrich.analysis.hours import Hour, Period, hours_of
from enrich.analysis.sampling import Estimate, Estimates, Kind
from enrich.api.opinions import NO_LOGS, NOBODY, Commentator, NoOpinion, Opinion, Status
from enrich.errors import EnrichError
from enrich.log_store.level_counts import Counted, Counts, Drawn

#: Bounds of what may be asked.
MOST_HOURS = 168
LEAST_SAMPLE, MOST_SAMPLE = 10, 500

#: Of a part that is sampled by itself.
LEAST_OF_A_STRATUM = 10


class NoLogs(EnrichError):
    """The project has no logs in the period."""


class CountStore(Protocol):
    """What is asked of the log store."""

    def indices_of(self, project: str) -> list[str]: ...
    def sample(
        self, indices: Sequence[str], start: datetime, end: datetime, size: int, seed: int
    ) -> list[Drawn]: ...
    def count(
        self, indices: Sequence[str], hours: Sequence[tuple[datetime, datetime]]
    ) -> Counted: ...


class DbStatistics(BaseModel):
    """The truth, by aggregation."""

    total_logs: int
    error_count: int
    warn_count: int
    info_count: int
    error_rate: float = Field(description="ERROR logs in % of all")
    peak_hour: str = Field(description="The hour with most logs, in ENRICH_TIME_ZONE")
    peak_count: int


class Interval(BaseModel):
    """Limits of an estimate."""

    low: float
    high: float
    kind: Kind = Field(
        description=(
            "exact: counted. interval: 95 % of such intervals hold the truth. upper_limit: none "
            "was seen, and there are at most `high`, with 95 %. lower_limit: all that were seen "
            "are such, and the rate is at least `low`, with 95 %"
        )
    )


class Intervals(BaseModel):
    """The 95 % interval of each estimate."""

    estimated_total_logs: Interval
    estimated_error_count: Interval
    estimated_warn_count: Interval
    estimated_info_count: Interval
    estimated_error_rate: Interval


class ChatStatistics(BaseModel):
    """What a chat model makes of the sample's numbers: beside the estimates, never in their place.

    Without an opinion all but `status` and `note` are null.
    """

    status: Status
    note: str = Field(description="Why there is no opinion, or whose it is")
    model: str | None = None
    estimated_total_logs: int | None = None
    estimated_error_count: int | None = None
    estimated_warn_count: int | None = None
    estimated_info_count: int | None = None
    estimated_error_rate: float | None = None
    overall_accuracy: float | None = Field(
        default=None,
        description="Of these estimates, in %, reckoned as that of the statistical ones",
    )


class AiStatistics(BaseModel):
    """Estimates, from the sample alone."""

    estimated_total_logs: int
    estimated_error_count: int
    estimated_warn_count: int
    estimated_info_count: int
    estimated_error_rate: float = Field(description="ERROR logs in % of all")
    confidence_score: float = Field(
        ge=0, le=100, description="Overall accuracy that estimates of such errors have on average"
    )
    reasoning: str = Field(description="The chat model's words, or else the statistics' own")
    statistical_reasoning: str = Field(description="How the estimates came about")
    chat_model: ChatStatistics
    intervals: Intervals
    method: str = Field(description="sample, or census where every log was read")
    logs_read: int
    seed: int = Field(description="Of the sample: the same draws the same logs again")


class AccuracyMetrics(BaseModel):
    """How near the estimates are to the truth, in %."""

    total_logs_accuracy: float
    error_count_accuracy: float
    warn_count_accuracy: float
    info_count_accuracy: float
    error_rate_accuracy: float
    overall_accuracy: float
    ai_confidence: float


class ComparisonVerdict(BaseModel):
    """What the comparison comes to."""

    grade: str
    grade_english: str
    can_replace_db: bool
    explanation: str
    recommendations: list[str]


class Comparison(BaseModel):
    """The answer to `/statistics/compare`."""

    project_uuid: str
    analysis_period_hours: int
    sample_size: int
    analyzed_at: datetime
    db_statistics: DbStatistics
    ai_statistics: AiStatistics
    accuracy_metrics: AccuracyMetrics
    verdict: ComparisonVerdict


class HourOfLogs(BaseModel):
    """One hour of the clock; the first and the last may be cut by the period."""

    hour: str = Field(description="Its start, with the offset from UTC")
    total: int
    error: int
    warn: int
    info: int


class Hourly(BaseModel):
    """The answer to `/statistics/hourly`."""

    project_uuid: str
    analysis_period_hours: int
    total_logs: int
    error_rate: float
    peak_hour: str
    peak_count: int
    hourly_data: list[HourOfLogs]


def compare(
    store: CountStore,
    zone: ZoneInfo,
    project_uuid: str,
    *,
    time_hours: int = 24,
    sample_size: int = 100,
    seed: int | None = None,
    now: datetime | None = None,
    commentator: Commentator = NOBODY,
) -> Comparison:
    """Estimate a project's logs of the last hours from a sample, count them, and compare.

    Args:
        commentator: is asked what it makes of the estimates, before anything is counted.
        seed: of the sample; one at random if None.
        now: the end of the period; aware. The present if None.

    Raises:
        ValueError: `time_hours` or `sample_size` is out of bounds.
        NoLogs, ProjectUnknown: there is nothing to compare.
        ProjectRefused: `project_uuid` is the id of no project.
        AnswerInPart: a shard did not answer.
        EnrichError: as the log store.
    """
    _require(LEAST_SAMPLE <= sample_size <= MOST_SAMPLE, "sample_size", LEAST_SAMPLE, MOST_SAMPLE)
    _require(1 <= time_hours <= MOST_HOURS, "time_hours", 1, MOST_HOURS)
    moment = now or datetime.now(UTC)
    hours = hours_of(Period.before(moment, time_hours), zone)
    seed = secrets.randbelow(2**31) if seed is None else seed
    indices = store.indices_of(project_uuid)
    estimates = _estimated(store, indices, hours, sample_size, seed)
    opinion = commentator.opinion(estimates) if estimates.read else NO_LOGS
    counted = _counted(store, indices, hours)
    truth = comparing.Truth(
        total=counted.whole.total,
        error=counted.whole.error,
        warn=counted.whole.warn,
        info=counted.whole.info,
    )
    chat = _chat(commentator.model, opinion, truth)
    told = _told(estimates, seed, opinion, chat)
    found = comparing.accuracies(
        truth,
        total=told.estimated_total_logs,
        error=told.estimated_error_count,
        warn=told.estimated_warn_count,
        info=told.estimated_info_count,
        error_rate=estimates.error_rate.value,
    )
    verdict = comparing.verdict_of(truth, estimates, found, asked=sample_size, most=MOST_SAMPLE)
    peak_hour, peak_count = _peak(hours, counted.hours)
    return Comparison(
        project_uuid=project_uuid,
        analysis_period_hours=time_hours,
        sample_size=sample_size,
        analyzed_at=moment.astimezone(zone),
        db_statistics=DbStatistics(
            total_logs=truth.total,
            error_count=truth.error,
            warn_count=truth.warn,
            info_count=truth.info,
            error_rate=_rate(truth.error_rate),
            peak_hour=peak_hour,
            peak_count=peak_count,
        ),
        ai_statistics=told,
        accuracy_metrics=AccuracyMetrics(
            total_logs_accuracy=_rounded(found.total),
            error_count_accuracy=_rounded(found.error),
            warn_count_accuracy=_rounded(found.warn),
            info_count_accuracy=_rounded(found.info),
            error_rate_accuracy=_rounded(found.error_rate),
            overall_accuracy=_rounded(found.overall),
            ai_confidence=told.confidence_score,
        ),
        verdict=ComparisonVerdict(
            grade=verdict.grade,
            grade_english=verdict.grade_english,
            can_replace_db=verdict.can_replace,
            explanation=verdict.explanation,
            recommendations=list(verdict.recommendations),
        ),
    )


def hourly(
    store: CountStore,
    zone: ZoneInfo,
    project_uuid: str,
    *,
    time_hours: int = 24,
    now: datetime | None = None,
) -> Hourly:
    """Count a project's logs of the last hours, by the hour of `zone`, hours without any among
    them.

    Raises:
        As `compare`.
    """
    _require(1 <= time_hours <= MOST_HOURS, "time_hours", 1, MOST_HOURS)
    hours = hours_of(Period.before(now or datetime.now(UTC), time_hours), zone)
    counted = _counted(store, store.indices_of(project_uuid), hours)
    peak_hour, peak_count = _peak(hours, counted.hours)
    return Hourly(
        project_uuid=project_uuid,
        analysis_period_hours=time_hours,
        total_logs=counted.whole.total,
        error_rate=_rate(100 * counted.whole.error / counted.whole.total),
        peak_hour=peak_hour,
        peak_count=peak_count,
        hourly_data=[
            HourOfLogs(hour=hour.label, total=of.total, error=of.error, warn=of.warn, info=of.info)
            for hour, of in zip(hours, counted.hours, strict=True)
        ],
    )


def _estimated(
    store: CountStore, indices: Sequence[str], hours: Sequence[Hour], size: int, seed: int
) -> Estimates:
    start, end = hours[0].period.start, hours[-1].period.end
    estimates = sampling.estimate(store.sample(indices, start, end, size, seed), size)
    if estimates.total.value <= sampling.MOST_LOGS_OF_A_STRATUM:
        return estimates
    of_each = max(LEAST_OF_A_STRATUM, -(-size // len(hours)))
    return sampling.estimate_strata(
        (store.sample(indices, hour.period.start, hour.period.end, of_each, seed), of_each)
        for hour in hours
    )


def _counted(store: CountStore, indices: Sequence[str], hours: Sequence[Hour]) -> Counted:
    counted = store.count(indices, [(hour.period.start, hour.period.end) for hour in hours])
    if not counted.whole.total:
        raise NoLogs(
            "the project has no logs in this period: ask for more hours, and check that its logs "
            "have their time where ENRICH_SCHEMA and ENRICH_TIMESTAMP_FIELD say"
        )
    return counted


def _chat(model: str, opinion: Opinion | NoOpinion, truth: comparing.Truth) -> ChatStatistics:
    if isinstance(opinion, NoOpinion):
        return ChatStatistics(
            status=opinion.status,
            note=f"{opinion.note} The statistical estimates stand alone.",
            model=model or None,
        )
    found = comparing.accuracies(
        truth,
        total=opinion.estimated_total_logs,
        error=opinion.estimated_error_count,
        warn=opinion.estimated_warn_count,
        info=opinion.estimated_info_count,
        error_rate=opinion.error_rate,
    )
    return ChatStatistics(
        status=Status.ANSWERED,
        note=(
            "The chat model was told the sample's estimates and nothing else. Its own are not "
            "those that are graded."
        ),
        model=model,
        estimated_total_logs=opinion.estimated_total_logs,
        estimated_error_count=opinion.estimated_error_count,
        estimated_warn_count=opinion.estimated_warn_count,
        estimated_info_count=opinion.estimated_info_count,
        estimated_error_rate=_rate(opinion.error_rate),
        overall_accuracy=_rounded(found.overall),
    )


def _told(
    estimates: Estimates, seed: int, opinion: Opinion | NoOpinion, chat: ChatStatistics
) -> AiStatistics:
    own_words = comparing.reasoning(estimates)
    return AiStatistics(
        estimated_total_logs=round(estimates.total.value),
        estimated_error_count=round(estimates.error.value),
        estimated_warn_count=round(estimates.warn.value),
        estimated_info_count=round(estimates.info.value),
        estimated_error_rate=_rate(estimates.error_rate.value),
        confidence_score=_rounded(comparing.confidence(estimates)),
        reasoning=opinion.reasoning if isinstance(opinion, Opinion) else own_words,
        statistical_reasoning=own_words,
        chat_model=chat,
        intervals=Intervals(
            estimated_total_logs=_interval(estimates.total),
            estimated_error_count=_interval(estimates.error),
            estimated_warn_count=_interval(estimates.warn),
            estimated_info_count=_interval(estimates.info),
            estimated_error_rate=_interval(estimates.error_rate),
        ),
        method="census" if estimates.census else "sample",
        logs_read=estimates.read,
        seed=seed,
    )


def _interval(estimate: Estimate) -> Interval:
    return Interval(low=_rounded(estimate.low), high=_rounded(estimate.high), kind=estimate.kind)


def _peak(hours: Sequence[Hour], counts: Sequence[Counts]) -> tuple[str, int]:
    """The first of the hours with most logs, and how many."""
    hour, of = max(zip(hours, counts, strict=True), key=lambda each: each[1].total)
    return hour.label, of.total


def _require(holds: bool, name: str, least: int, most: int) -> None:
    if not holds:
        raise ValueError(f"{name} must be {least} to {most}")


def _rate(number: float) -> float:
    # Of ten million logs one is 0.00001 %.
    return round(number, 5)


def _rounded(number: float) -> float:
    return round(number, 2)

"""What the routes of `/api/v2-langgraph/statistics` answer, and how numbers become it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, Field

from enrich.analysis import comparing
from enrich.analysis.comparing import Accuracy, Truth, Verdict
from enrich.analysis.hours import Hour
from enrich.analysis.sampling import Estimate, Estimates, Kind
from enrich.api.opinions import NoOpinion, Opinion, Status
from enrich.api.rounded import Hundredths, Rate
from enrich.log_store.level_counts import Counted, Counts


class DbStatistics(BaseModel):
    """The truth, by aggregation."""

    total_logs: int
    error_count: int
    warn_count: int
    info_count: int
    error_rate: Rate = Field(description="ERROR logs in % of all")
    peak_hour: str = Field(description="The hour with most logs, in ENRICH_TIME_ZONE")
    peak_count: int

    @classmethod
    def of(cls, truth: Truth, hours: Sequence[Hour], counts: Sequence[Counts]) -> DbStatistics:
        """Args: counts: of each hour."""
        hour, count = _peak(hours, counts)
        return cls(
            total_logs=truth.total,
            error_count=truth.error,
            warn_count=truth.warn,
            info_count=truth.info,
            error_rate=truth.error_rate,
            peak_hour=hour,
            peak_count=count,
        )


class Interval(BaseModel):
    """Limits of an estimate."""

    low: Hundredths
    high: Hundredths
    kind: Kind = Field(
        description=(
            "exact: counted. interval: 95 % of such intervals hold the truth. upper_limit: none "
            "was seen, and there are at most `high`, with 95 %. lower_limit: all that were seen "
            "are such, and the rate is at least `low`, with 95 %"
        )
    )

    @classmethod
    def of(cls, estimate: Estimate) -> Interval:
        return cls(low=estimate.low, high=estimate.high, kind=estimate.kind)


class Intervals(BaseModel):
    """The 95 % interval of each estimate."""

    estimated_total_logs: Interval
    estimated_error_count: Interval
    estimated_warn_count: Interval
    estimated_info_count: Interval
    estimated_error_rate: Interval

    @classmethod
    def of(cls, estimates: Estimates) -> Intervals:
        return cls(
            estimated_total_logs=Interval.of(estimates.total),
            estimated_error_count=Interval.of(estimates.error),
            estimated_warn_count=Interval.of(estimates.warn),
            estimated_info_count=Interval.of(estimates.info),
            estimated_error_rate=Interval.of(estimates.error_rate),
        )


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
    estimated_error_rate: Rate | None = None
    overall_accuracy: Hundredths | None = Field(
        default=None,
        description="Of these estimates, in %, reckoned as that of the statistical ones",
    )

    @classmethod
    def of(cls, model: str, opinion: Opinion | NoOpinion, truth: Truth) -> ChatStatistics:
        """Args: model: its name; "" where there is none."""
        if isinstance(opinion, NoOpinion):
            return cls(
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
        return cls(
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
            estimated_error_rate=opinion.error_rate,
            overall_accuracy=found.overall,
        )


class AiStatistics(BaseModel):
    """Estimates, from the sample alone."""

    estimated_total_logs: int
    estimated_error_count: int
    estimated_warn_count: int
    estimated_info_count: int
    estimated_error_rate: Rate = Field(description="ERROR logs in % of all")
    confidence_score: Hundredths = Field(
        ge=0, le=100, description="Overall accuracy that estimates of such errors have on average"
    )
    reasoning: str = Field(description="The chat model's words, or else the statistics' own")
    statistical_reasoning: str = Field(description="How the estimates came about")
    chat_model: ChatStatistics
    intervals: Intervals
    method: str = Field(description="sample, or census where every log was read")
    logs_read: int
    seed: int = Field(description="Of the sample: the same draws the same logs again")

    @classmethod
    def of(
        cls, estimates: Estimates, seed: int, opinion: Opinion | NoOpinion, chat: ChatStatistics
    ) -> AiStatistics:
        own_words = comparing.reasoning(estimates)
        return cls(
            estimated_total_logs=round(estimates.total.value),
            estimated_error_count=round(estimates.error.value),
            estimated_warn_count=round(estimates.warn.value),
            estimated_info_count=round(estimates.info.value),
            estimated_error_rate=estimates.error_rate.value,
            confidence_score=comparing.confidence(estimates),
            reasoning=opinion.reasoning if isinstance(opinion, Opinion) else own_words,
            statistical_reasoning=own_words,
            chat_model=chat,
            intervals=Intervals.of(estimates),
            method="census" if estimates.census else "sample",
            logs_read=estimates.read,
            seed=seed,
        )


class AccuracyMetrics(BaseModel):
    """How near the estimates are to the truth, in %."""

    total_logs_accuracy: Hundredths
    error_count_accuracy: Hundredths
    warn_count_accuracy: Hundredths
    info_count_accuracy: Hundredths
    error_rate_accuracy: Hundredths
    overall_accuracy: Hundredths
    ai_confidence: Hundredths

    @classmethod
    def of(cls, found: Accuracy, confidence: float) -> AccuracyMetrics:
        return cls(
            total_logs_accuracy=found.total,
            error_count_accuracy=found.error,
            warn_count_accuracy=found.warn,
            info_count_accuracy=found.info,
            error_rate_accuracy=found.error_rate,
            overall_accuracy=found.overall,
            ai_confidence=confidence,
        )


class ComparisonVerdict(BaseModel):
    """What the comparison comes to."""

    grade: str
    grade_english: str
    can_replace_db: bool
    explanation: str
    recommendations: list[str]

    @classmethod
    def of(cls, verdict: Verdict) -> ComparisonVerdict:
        return cls(
            grade=verdict.grade,
            grade_english=verdict.grade_english,
            can_replace_db=verdict.can_replace,
            explanation=verdict.explanation,
            recommendations=list(verdict.recommendations),
        )


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
    error_rate: Rate
    peak_hour: str
    peak_count: int
    hourly_data: list[HourOfLogs]

    @classmethod
    def of(
        cls, project_uuid: str, time_hours: int, hours: Sequence[Hour], counted: Counted
    ) -> Hourly:
        peak_hour, peak_count = _peak(hours, counted.hours)
        return cls(
            project_uuid=project_uuid,
            analysis_period_hours=time_hours,
            total_logs=counted.whole.total,
            error_rate=100 * counted.whole.error / counted.whole.total,
            peak_hour=peak_hour,
            peak_count=peak_count,
            hourly_data=[
                HourOfLogs(
                    hour=hour.label, total=of.total, error=of.error, warn=of.warn, info=of.info
                )
                for hour, of in zip(hours, counted.hours, strict=True)
            ],
        )


def _peak(hours: Sequence[Hour], counts: Sequence[Counts]) -> tuple[str, int]:
    """The first of the hours with most logs, and how many."""
    hour, of = max(zip(hours, counts, strict=True), key=lambda each: each[1].total)
    return hour.label, of.total

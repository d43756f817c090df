"""Statistics of a project's logs: a sample's estimates beside the counts, and counts by hours.

The answers of `GET /api/v2-langgraph/statistics/compare` and `/hourly`. The sample is drawn and
made into estimates before the logs are counted, and these are made of it alone.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol
from zoneinfo import ZoneInfo

from enrich.analysis import comparing, sampling
from enrich.analysis.hours import Hour, hours_of
from enrich.analysis.sampling import Estimates
from enrich.api.last_hours import NoLogs, last_hours
from enrich.api.opinions import NO_LOGS, NOBODY, Commentator
from enrich.api.statistics_models import (
    AccuracyMetrics,
    AiStatistics,
    ChatStatistics,
    Comparison,
    ComparisonVerdict,
    DbStatistics,
    Hourly,
)
from enrich.log_store.level_counts import Counted, Drawn

#: Bounds of what may be asked.
LEAST_SAMPLE, MOST_SAMPLE = 10, 500

#: Of an hour that is sampled by itself.
LEAST_OF_AN_HOUR = 10


class CountStore(Protocol):
    """What is asked of the log store."""

    def indices_of(self, project: str) -> list[str]: ...
    def sample(
        self, indices: Sequence[str], start: datetime, end: datetime, size: int, seed: int
    ) -> list[Drawn]: ...
    def count(
        self, indices: Sequence[str], hours: Sequence[tuple[datetime, datetime]]
    ) -> Counted: ...


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
    most_of_a_sample: int = sampling.MOST_LOGS_OF_A_STRATUM,
) -> Comparison:
    """Estimate a project's logs of the last hours from a sample, count them, and compare.

    Args:
        commentator: is asked what it makes of the estimates, before anything is counted.
        seed: of the sample; one at random if None.
        now: the end of the period; aware. The present if None.
        most_of_a_sample: of how many logs one sample is drawn; where the period seems to have more,
            each of its hours is sampled by itself.

    Raises:
        ValueError: `time_hours` or `sample_size` is out of bounds.
        NoLogs, ProjectUnknown: there is nothing to compare.
        ProjectRefused: `project_uuid` is the id of no project.
        AnswerInPart: a shard did not answer.
        EnrichError: as the log store.
    """
    if not LEAST_SAMPLE <= sample_size <= MOST_SAMPLE:
        raise ValueError(f"sample_size must be {LEAST_SAMPLE} to {MOST_SAMPLE}")
    period = last_hours(time_hours, now)
    hours = hours_of(period, zone)
    seed = secrets.randbelow(2**31) if seed is None else seed
    indices = store.indices_of(project_uuid)
    estimates = _estimated(store, indices, hours, sample_size, seed, most_of_a_sample)
    opinion = commentator.opinion(estimates) if estimates.read else NO_LOGS
    counted = _counted(store, indices, hours)
    truth = comparing.Truth(
        total=counted.whole.total,
        error=counted.whole.error,
        warn=counted.whole.warn,
        info=counted.whole.info,
    )
    chat = ChatStatistics.of(commentator.model, opinion, truth)
    told = AiStatistics.of(estimates, seed, opinion, chat)
    found = comparing.accuracies(
        truth,
        total=told.estimated_total_logs,
        error=told.estimated_error_count,
        warn=told.estimated_warn_count,
        info=told.estimated_info_count,
        error_rate=estimates.error_rate.value,
    )
    verdict = comparing.verdict_of(truth, estimates, found, asked=sample_size, most=MOST_SAMPLE)
    return Comparison(
        project_uuid=project_uuid,
        analysis_period_hours=time_hours,
        sample_size=sample_size,
        analyzed_at=period.end.astimezone(zone),
        db_statistics=DbStatistics.of(truth, hours, counted.hours),
        ai_statistics=told,
        accuracy_metrics=AccuracyMetrics.of(found, told.confidence_score),
        verdict=ComparisonVerdict.of(verdict),
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
    hours = hours_of(last_hours(time_hours, now), zone)
    counted = _counted(store, store.indices_of(project_uuid), hours)
    return Hourly.of(project_uuid, time_hours, hours, counted)


def _estimated(
    store: CountStore,
    indices: Sequence[str],
    hours: Sequence[Hour],
    size: int,
    seed: int,
    most_of_a_sample: int,
) -> Estimates:
    start, end = hours[0].period.start, hours[-1].period.end
    estimates = sampling.estimate(store.sample(indices, start, end, size, seed), size)
    if estimates.total.value <= most_of_a_sample:
        return estimates
    of_each = max(LEAST_OF_AN_HOUR, -(-size // len(hours)))
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

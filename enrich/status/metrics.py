"""The status as Prometheus metrics, named enrich_*, beside Flower's own.

What cannot be read is left out, never given as 0: a counter that falls to 0 and comes back looks
like a burst to whoever computes a rate. `enrich_up` tells which server is missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from enrich.models import COUNTERS, Outcome, project_of
from enrich.status import (
    counting_metrics,
    deployment_metrics,
    history_metrics,
    quota_metrics,
    realtime_metrics,
)
from enrich.status.health import CODES, Health, Word, health_of
from enrich.status.never_falling import NeverFalling
from enrich.status.reader import Reading
from enrich.status.report import Backlog, Status

#: Indices of `enrich_index_not_counted`; a lost node may be missing in thousands.
MOST_NOT_COUNTED = 100

#: Projects of which there are metrics, those with most to do first; whoever makes indices names
#: them.
MOST_PROJECTS = 500

STATES = ("with_vector", "without_vector", "failed")


class EnrichCollector(Collector):
    """Reads the status once for each scrape."""

    def __init__(
        self, read: Callable[[], Reading], now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._read = read
        self._now = now
        self._never_falling = NeverFalling()

    def describe(self) -> Iterator[Metric]:
        """Nothing: else the registry would ask the servers while Flower starts."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        return map(self._never_falling.kept, self._collect())

    def _collect(self) -> Iterator[Metric]:
        reading = self._read()
        up = GaugeMetricFamily("enrich_up", "Whether the server answers", labels=["server"])
        up.add_metric(["redis"], reading.redis_up)
        up.add_metric(["opensearch"], reading.opensearch_up)
        yield up
        if reading.redis_up:
            if reading.status.totals_known:
                yield from counting_metrics.of(reading.status)
            yield from _of_ledger(reading.status)
            yield from deployment_metrics.of(reading.status)
            yield from history_metrics.of(reading.status)
            yield from quota_metrics.of(reading.status)
            yield from _of_health(health_of(reading.status))
            yield from realtime_metrics.of(reading.status.realtime)
        if reading.status.backlog is not None:
            yield from _of_coverage(reading.status.backlog)
            # In part, a backlog would fall where nothing was done.
            if reading.status.backlog.whole:
                now = reading.status.read_at or self._now()
                yield from _of_backlog(reading.status, reading.status.backlog, now)


def _of_ledger(status: Status) -> Iterator[Metric]:
    waiting = GaugeMetricFamily(
        "enrich_queue_messages",
        "Messages in the broker that no worker has taken yet",
        labels=["queue"],
    )
    for queue, length in status.queues.items():
        waiting.add_metric([queue], length)
    yield waiting
    if status.cache_entries is not None:
        yield GaugeMetricFamily(
            "enrich_cache_entries", "Vectors in the cache", status.cache_entries
        )
    yield GaugeMetricFamily(
        "enrich_active_run", "Whether a run is active", int(status.active_run is not None)
    )
    yield GaugeMetricFamily("enrich_paused", "Whether an operator paused it", int(status.paused))
    yield GaugeMetricFamily(
        "enrich_spent_today_usd",
        "Estimated cost of the embeddings API since midnight UTC",
        status.spent_today_usd,
    )
    by_project = GaugeMetricFamily(
        "enrich_spent_today_by_project_usd",
        "The same of the ten projects that spent most of it",
        labels=["project"],
    )
    for project, usd in status.spent_today_by_project.items():
        by_project.add_metric([project], usd)
    yield by_project
    if status.last_tick is not None:
        yield GaugeMetricFamily(
            "enrich_last_tick_timestamp_seconds",
            "When beat's last tick was handled",
            status.last_tick.timestamp(),
        )
    if status.last_runs:
        run = status.last_runs[0]
        outcomes = GaugeMetricFamily(
            "enrich_run_outcomes", "Documents of the last run by outcome", labels=["outcome"]
        )
        for outcome in Outcome:
            outcomes.add_metric([outcome.value], getattr(run, outcome.value))
        yield outcomes
        counts = GaugeMetricFamily(
            "enrich_run_counts", "What the last run has counted so far", labels=["counter"]
        )
        for name in COUNTERS:
            counts.add_metric([name], getattr(run, name))
        yield counts
        yield GaugeMetricFamily(
            "enrich_run_halted", "Whether the last run was halted", int(run.state == "halted")
        )


def _of_health(health: Health) -> Iterator[Metric]:
    reasons = GaugeMetricFamily(
        "enrich_health", "Whether this keeps the system from being healthy", labels=["reason"]
    )
    so = {reason.code for reason in health.reasons}
    for code in CODES:
        reasons.add_metric([code], int(code in so))
    yield reasons
    words = GaugeMetricFamily(
        "enrich_health_word", "The health in one word: 1 for the one that holds", labels=["word"]
    )
    for word in Word:
        words.add_metric([word.value], int(word is health.word))
    yield words


def _of_coverage(backlog: Backlog) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "enrich_backlog_whole",
        "Whether all ERROR logs were counted; if not, enrich_backlog_logs is left out",
        int(backlog.whole),
    )
    missing = GaugeMetricFamily(
        "enrich_index_not_counted",
        "1 for each index of which a part or all was not counted",
        labels=["index"],
    )
    for index in list(backlog.not_counted)[:MOST_NOT_COUNTED]:
        missing.add_metric([index], 1)
    yield missing


def _of_backlog(status: Status, backlog: Backlog, now: datetime) -> Iterator[Metric]:
    logs = GaugeMetricFamily(
        "enrich_backlog_logs", "ERROR logs by index and state", labels=["index", "state"]
    )
    for index, counts in backlog.by_index.items():
        for state in STATES:
            logs.add_metric([index, state], getattr(counts, state))
    yield logs
    yield from _of_projects(backlog, now)
    age = _age(backlog.without_vector, backlog.oldest_without_vector, now)
    if age is not None:
        yield GaugeMetricFamily(
            "enrich_oldest_unvectorized_age_seconds",
            "Age of the oldest ERROR log without a vector; 0 if there is none",
            age,
        )
        at_work = status.active_run is not None and not status.paused
        yield GaugeMetricFamily(
            "enrich_working_backlog_age_seconds",
            "The same while a run is at work, else 0: for an autoscaler, which must keep no worker "
            "for logs that no run takes",
            age if at_work else 0.0,
        )


def _of_projects(backlog: Backlog, now: datetime) -> Iterator[Metric]:
    pending: Counter[str] = Counter()
    for index, counts in backlog.by_index.items():
        pending[project_of(index)] += counts.without_vector
    logs = GaugeMetricFamily(
        "enrich_project_pending_logs", "ERROR logs without a vector", labels=["project"]
    )
    ages = GaugeMetricFamily(
        "enrich_project_oldest_unvectorized_age_seconds",
        "Age of the oldest of them; 0 if there is none",
        labels=["project"],
    )
    for project, count in pending.most_common(MOST_PROJECTS):
        logs.add_metric([project], count)
        age = _age(count, backlog.oldest_by_project.get(project), now)
        if age is not None:
            ages.add_metric([project], age)
    yield from (logs, ages)


def _age(pending: int, since: str | None, now: datetime) -> float | None:
    """Seconds; None if logs are pending and none of them has a time."""
    if not pending:
        return 0.0
    if since is None:
        return None
    try:
        oldest = datetime.fromisoformat(since)
    except ValueError:
        # Years beyond 9999, which OpenSearch takes and Python does not.
        return None
    if oldest.tzinfo is None:
        oldest = oldest.replace(tzinfo=UTC)
    # Logs may come from hosts whose clock is ahead.
    return max(0.0, (now - oldest).total_seconds())

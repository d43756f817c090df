"""Who works for the deployment, and settings that alerts are measured by, as Prometheus gauges."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from enrich.status.report import Status


def of(status: Status) -> Iterator[Metric]:
    """The metrics of a status; what is not set or not known is left out."""
    if status.workers_note_themselves:
        workers = GaugeMetricFamily(
            "enrich_workers",
            "Workers: alive, refusing (alive and taking no work), lost (ended without a word "
            "within the last quarter of an hour)",
            labels=["state"],
        )
        workers.add_metric(["alive"], status.workers_alive)
        workers.add_metric(["refusing"], status.workers_refusing)
        workers.add_metric(["lost"], status.workers_lost)
        yield workers
    if status.interval_seconds:
        yield GaugeMetricFamily(
            "enrich_interval_seconds",
            "How often beat ticks (ENRICH_INTERVAL_MINUTES)",
            status.interval_seconds,
        )
    if status.cost_limit_usd:
        yield GaugeMetricFamily(
            "enrich_cost_limit_usd",
            "What a day may cost (ENRICH_MAX_COST_PER_DAY); left out where there is no limit",
            status.cost_limit_usd,
        )

"""How far the history is behind, and what runs cost and saved, as Prometheus gauges."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from enrich.status.report import Status


def of(status: Status) -> Iterator[Metric]:
    """The metrics of a status; none where the history was not asked for."""
    history = status.history
    if history is None:
        return
    yield GaugeMetricFamily(
        "enrich_history_kept", "Whether runs outlive Redis (ENRICH_HISTORY)", int(history.is_kept)
    )
    yield GaugeMetricFamily(
        "enrich_history_lag_runs",
        "Runs that ended and whose record is in Redis alone",
        history.owed,
    )
    yield GaugeMetricFamily(
        "enrich_history_lag_seconds",
        "For how long the first of them has been; 0 without one",
        history.lag_seconds,
    )
    if history.problems:
        # In part, they would fall where nothing was given back.
        return
    yield GaugeMetricFamily(
        "enrich_spent_month_usd",
        "Estimated cost of the embeddings API since the first of the month (UTC)",
        history.month.cost_usd,
    )
    yield GaugeMetricFamily(
        "enrich_saved_today_usd",
        "What vectors that were not paid for would have cost, since midnight UTC",
        history.today.saved_usd,
    )
    yield GaugeMetricFamily(
        "enrich_saved_month_usd",
        "The same since the first of the month (UTC)",
        history.month.saved_usd,
    )

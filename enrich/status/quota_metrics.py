"""What the embeddings API allows a minute and how much of that is in use, as Prometheus gauges."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from enrich.status.report import Status


def of(status: Status) -> Iterator[Metric]:
    """The metrics of a status; a limit that is not known is left out, and so is its use."""
    quota = status.quota
    if quota is None:
        return
    limits = GaugeMetricFamily(
        "enrich_quota_limit_per_minute",
        "What the embeddings API allows a minute, as set or as the provider says",
        labels=["of"],
    )
    used = GaugeMetricFamily(
        "enrich_quota_used_ratio",
        "Which part of that was taken within the last minute, by all callers together",
        labels=["of"],
    )
    for of_what, limit, part in (
        ("requests", quota.requests_per_minute, quota.requests_used),
        ("tokens", quota.tokens_per_minute, quota.tokens_used),
    ):
        if limit:
            limits.add_metric([of_what], limit)
            used.add_metric([of_what], part)
    yield from (limits, used)

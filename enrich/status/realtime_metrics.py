"""What consumers of Kafka count and do, as Prometheus metrics named enrich_realtime_*."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from enrich.ledger.realtime_summary import RealtimeSummary
from enrich.status.realtime import standing_seconds

#: Series of one group's partitions; a cluster may have tens of thousands.
MOST_PARTITIONS = 1000

DOING = ("waiting", "working", "paused")


def of(groups: Sequence[RealtimeSummary]) -> Iterator[Metric]:
    """The metrics of all groups; none where no consumer ever ran."""
    if not groups:
        return
    yield from _counters(groups)
    yield from _consumers(groups)
    yield from _partitions(groups)


def _counters(groups: Sequence[RealtimeSummary]) -> Iterator[Metric]:
    messages = CounterMetricFamily(
        "enrich_realtime_messages",
        "Messages of Kafka by what became of them, each once however often it is delivered",
        labels=["group", "outcome"],
    )
    poison = CounterMetricFamily(
        "enrich_realtime_poison", "Messages that hold no log, by why", labels=["group", "code"]
    )
    batches = CounterMetricFamily(
        "enrich_realtime_batches", "Batches that came to an end", labels=["group"]
    )
    usage = CounterMetricFamily(
        "enrich_realtime_usage",
        "What consumers used of the embeddings API and met there",
        labels=["group", "counter"],
    )
    cost = CounterMetricFamily(
        "enrich_realtime_cost_usd", "Estimated cost of what consumers sent", labels=["group"]
    )
    latency = HistogramMetricFamily(
        "enrich_realtime_log_to_vector_seconds",
        "From a log's own time to its vector",
        labels=["group"],
    )
    for group in groups:
        for outcome, count in group.outcomes.items():
            messages.add_metric([group.group, outcome], count)
        for code, count in group.poison_codes.items():
            poison.add_metric([group.group, code], count)
        batches.add_metric([group.group], group.batches)
        for name, count in group.usage.items():
            usage.add_metric([group.group, name], count)
        cost.add_metric([group.group], group.estimated_cost_usd)
        within = [(bound, float(count)) for bound, count in group.latency.within.items()]
        latency.add_metric(
            [group.group],
            buckets=[*within, ("+Inf", group.latency.logs)],
            sum_value=group.latency.seconds,
        )
    yield from (messages, poison, batches, usage, cost, latency)


def _consumers(groups: Sequence[RealtimeSummary]) -> Iterator[Metric]:
    consumers = GaugeMetricFamily(
        "enrich_realtime_consumers",
        "Consumers that are alive, by what they are doing",
        labels=["group", "doing"],
    )
    last = GaugeMetricFamily(
        "enrich_realtime_last_batch_timestamp_seconds",
        "When the last batch came to an end",
        labels=["group"],
    )
    for group in groups:
        alive = [consumer.doing for consumer in group.consumers if consumer.alive]
        for doing in DOING:
            consumers.add_metric([group.group, doing], alive.count(doing))
        if group.last_batch_at is not None:
            last.add_metric([group.group], group.last_batch_at.timestamp())
    yield from (consumers, last)


def _partitions(groups: Sequence[RealtimeSummary]) -> Iterator[Metric]:
    lag = GaugeMetricFamily(
        "enrich_realtime_lag_messages",
        "Messages from the committed offset to the end, as a consumer saw them last",
        labels=["group", "topic", "partition"],
    )
    standing = GaugeMetricFamily(
        "enrich_realtime_standing_seconds",
        "For how long a partition with messages left has not moved, while its consumer lives and "
        "is not paused",
        labels=["group", "topic", "partition"],
    )
    for group in groups:
        for one in group.current_partitions[:MOST_PARTITIONS]:
            labels = [group.group, one.topic, str(one.number)]
            if one.lag is not None:
                lag.add_metric(labels, one.lag)
            standing.add_metric(labels, standing_seconds(group, one))
    yield from (lag, standing)

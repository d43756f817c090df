"""What all runs have counted since the first, as Prometheus counters and histograms."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from enrich.models import VECTOR_OUTCOMES, Durations, Outcome
from enrich.status.report import Status, TotalsReport

#: Ways in which a run ends.
STATES = ("finished", "halted", "abandoned")

#: Counters of `RunRecord` that have a metric of their own: its name, what it counts.
_COUNTED = (
    ("api_requests", "enrich_api_requests", "Requests to the embeddings API, of runs"),
    ("api_inputs", "enrich_api_inputs", "Texts sent to the embeddings API, of runs"),
    ("api_tokens", "enrich_api_tokens", "Tokens billed by the embeddings API, of runs"),
    ("retries", "enrich_retries", "How often work of runs was tried again"),
    ("rate_limited", "enrich_rate_limited", "How often the embeddings API asked for a pause"),
    ("chunks", "enrich_chunks", "Chunks that runs made"),
    ("masked", "enrich_masked_places", "Places that were masked in texts that were sent"),
)


def of(status: Status) -> Iterator[Metric]:
    """The metrics of a status whose totals are known."""
    totals = status.totals
    yield CounterMetricFamily("enrich_runs", "Runs begun", totals.runs)
    yield CounterMetricFamily("enrich_vectors", "Vectors written", totals.vectors)
    yield CounterMetricFamily("enrich_errors", "Errors met, in all runs", totals.errors)
    yield CounterMetricFamily(
        "enrich_ticks_skipped", "Ticks that began no run", totals.ticks_skipped
    )
    yield CounterMetricFamily(
        "enrich_messages_dropped",
        "Messages in the broker that enrich did not send",
        totals.messages_dropped,
    )
    ended = CounterMetricFamily("enrich_runs_ended", "Runs that ended, by state", labels=["state"])
    for state in {**dict.fromkeys(STATES), **totals.ended}:
        ended.add_metric([state], totals.ended.get(state, 0))
    yield ended
    yield from _of_documents(totals)
    for counter, name, what in _COUNTED:
        yield CounterMetricFamily(name, what, totals.counts.get(counter, 0))
    yield CounterMetricFamily(
        "enrich_paused_seconds",
        "Pauses that the embeddings API asked for; several at once where workers asked at once",
        totals.counts.get("paused_ms", 0) / 1000,
    )
    yield CounterMetricFamily(
        "enrich_cost_usd",
        "Estimated cost of the embeddings API: of runs, consumers and the HTTP service",
        totals.spent_usd,
    )
    if totals.run_durations is not None:
        yield _histogram(
            "enrich_run_duration_seconds",
            "How long runs lasted, until their last chunk was settled",
            totals.run_durations,
        )
    if totals.chunk_durations is not None:
        yield _histogram(
            "enrich_chunk_duration_seconds",
            "How long a worker had a chunk, the last time that it was taken",
            totals.chunk_durations,
        )


def _of_documents(totals: TotalsReport) -> Iterator[Metric]:
    outcomes = CounterMetricFamily(
        "enrich_documents",
        "Documents of all runs by outcome; one that is done later stays counted as deferred, too",
        labels=["outcome"],
    )
    for outcome in Outcome:
        outcomes.add_metric([outcome.value], totals.counts.get(outcome.value, 0))
    yield outcomes
    vectors = sum(totals.counts.get(outcome.value, 0) for outcome in VECTOR_OUTCOMES)
    if vectors:
        yield GaugeMetricFamily(
            "enrich_cache_hit_ratio",
            "Which part of all vectors came from the cache, since the first run",
            totals.counts.get(Outcome.CACHED.value, 0) / vectors,
        )


def _histogram(name: str, what: str, durations: Durations) -> Metric:
    buckets = [(bound, float(count)) for bound, count in durations.within.items()]
    return HistogramMetricFamily(name, what, buckets=buckets, sum_value=durations.seconds)

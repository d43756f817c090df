"""Line 6: 200,000 logs of 5,000 texts are drained while 200 more arrive each second.

One project has three quarters of them, another fifty. Memory and queue are watched, the small
project must be through early, and what arrives meanwhile must not wait for the backlog.
"""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson

from benchmarks.background import Background
from benchmarks.cluster import Cluster
from benchmarks.corpus import Corpus, Log, create_indices, fresh, make_corpus
from benchmarks.product import Product
from benchmarks.rounds import Figure, at_most, percentile, stated
from benchmarks.sampling import Sample, Sampler
from benchmarks.stage import Stage
from enrich.settings import Settings

SIZE = 200_000
_TEXTS = 5_000
_SMALL = 50
_ARRIVING_PER_SECOND = 200
#: Shorter than the default, so that runs follow each other while the backlog lasts.
_INTERVAL_MINUTES = 1.0
_LATENCY_MS = 50.0

_SMALL_INDEX = "small_project_2026_11"
_ARRIVING_INDEX = "arriving_project_2026_11"


def measure(stage: Stage) -> list[Figure]:
    size = stage.options.size or SIZE
    corpus = make_corpus(
        size, distinct_share=min(1.0, _TEXTS / size), place=lambda n: _place(n, size)
    )
    env = {"ENRICH_INTERVAL_MINUTES": str(_INTERVAL_MINUTES)}
    with stage.product(env=env) as product:
        stage.warm(product)
        fresh(stage.cluster, corpus)
        create_indices(stage.cluster, [_ARRIVING_INDEX])
        stage.api.reset(latency_ms=_LATENCY_MS)
        sampler, begun, arrivals = _drain(stage, product, corpus)
    times = _enriched_at(stage.cluster, _SMALL_INDEX)
    drained = max(_enriched_at(stage.cluster, "big_*,middle_*,small_*").values()) - begun
    small = (max(times.values()) - begun) / drained
    return [
        stated("memory", "logs drained", size, note=f"in {drained:.0f} s, {len(arrivals)} arrived"),
        *_of_memory(stage, sampler.samples),
        *_of_queues(sampler),
        at_most(
            "memory", f"a project of {_SMALL} logs is through, of the drain", 100 * small, 5, "%"
        ),
        *_of_arrivals(stage, arrivals),
    ]


def _place(n: int, size: int) -> str:
    if n < _SMALL:
        return _SMALL_INDEX
    return "big_project_2026_11" if n < size * 3 // 4 else "middle_project_2026_11"


def _drain(
    stage: Stage, product: Product, corpus: Corpus
) -> tuple[Sampler, float, dict[str, float]]:
    """Drain while logs arrive; the samples, when it began, and when each new log came."""
    # Nothing arrives yet, and nothing is written.
    written_before = _written(stage.cluster)
    product.begin()
    begun = time.time()
    gauges = {
        "queue": product.queue_depth,
        "redis": product.redis_bytes,
    }
    with (
        Sampler(programs=product.pids(), gauges=gauges, every=1.0) as sampler,
        _Writer(stage.cluster, corpus.logs) as writer,
    ):
        product.until(
            lambda: _written(stage.cluster) - written_before >= len(corpus.logs),
            "the backlog was drained",
            7200,
            1.0,
        )
    # What came last is found by the runs that follow.
    product.until(
        lambda: stage.cluster.with_vector(_ARRIVING_INDEX) >= len(writer.arrived),
        "every log that arrived had its vector",
        4 * 60 * _INTERVAL_MINUTES,
        2.0,
    )
    product.end_beat()
    return sampler, begun, writer.arrived


def _written(cluster: Cluster) -> float:
    """Index operations, without those by which logs arrived and got their vectors."""
    there = cluster("GET", f"/{_ARRIVING_INDEX}/_stats/indexing")
    own = there["_all"]["primaries"]["indexing"]["index_total"]
    return cluster.written() - float(own)


def _of_memory(stage: Stage, samples: list[Sample]) -> list[Figure]:
    """Resident memory of each process in the last tenth, by that in the second: the highest of
    each, because a body of ten megabytes comes and goes with every chunk."""
    tenth = max(1, len(samples) // 10)
    early, late = _highest(samples[tenth : 2 * tenth]), _highest(samples[-tenth:])
    grown = {name: there / early[name] for name, there in late.items() if name in early}
    stage.data["memory"] = {
        "samples": [
            {"at": sample.at, "rss": sample.rss, "gauges": sample.gauges} for sample in samples
        ],
        "grown": grown,
    }
    worst = max(grown, key=lambda name: grown[name])
    return [
        at_most(
            "memory",
            "a process' memory in the last tenth, of that in the second",
            grown[worst],
            1.1,
            note=worst,
        )
    ]


def _highest(samples: list[Sample]) -> dict[str, int]:
    """The most that each process had, by program and pid."""
    highest: dict[str, int] = {}
    for sample in samples:
        for program, processes in sample.rss.items():
            for pid, there in processes.items():
                name = f"{program} {pid}"
                highest[name] = max(there, highest.get(name, 0))
    return highest


def _of_queues(sampler: Sampler) -> list[Figure]:
    most = int(Settings.model_fields["enrich_max_chunks_in_flight"].default)
    return [
        at_most("memory", "Redis, at most", sampler.highest("redis") / 1e6, 100, "MB"),
        at_most("memory", "chunks in the queue, at most", sampler.highest("queue"), most, ""),
    ]


def _of_arrivals(stage: Stage, arrivals: dict[str, float]) -> list[Figure]:
    enriched = _enriched_at(stage.cluster, _ARRIVING_INDEX)
    waits = [enriched[id] - at for id, at in arrivals.items()]
    interval = 60 * _INTERVAL_MINUTES
    return [
        stated("memory", "an arriving log waits, median", percentile(waits, 0.5), "s"),
        at_most("memory", "an arriving log waits, at most", max(waits) / interval, 2, "intervals"),
    ]


def _enriched_at(cluster: Cluster, target: str) -> dict[str, float]:
    """When each log got its vector, as Unix time, by id."""
    times: dict[str, float] = {}
    cluster("POST", f"/{target}/_refresh")
    body: dict[str, Any] = {
        "size": 5000,
        "_source": False,
        "docvalue_fields": [{"field": "ai_enriched_at", "format": "epoch_millis"}],
        "query": {"exists": {"field": "log_vector"}},
        "sort": ["_seq_no", "_index"],
    }
    while True:
        hits = cluster("POST", f"/{target}/_search", body)["hits"]["hits"]
        if not hits:
            return times
        for hit in hits:
            times[hit["_id"]] = float(hit["fields"]["ai_enriched_at"][0]) / 1000
        body["search_after"] = hits[-1]["sort"]


class _Writer(Background):
    """Indexes new logs, 200 a second, into an index of their own."""

    def __init__(self, cluster: Cluster, like: list[Log]) -> None:
        super().__init__()
        self._cluster = cluster
        self._like = like
        #: When each log arrived, as Unix time, by id.
        self.arrived: dict[str, float] = {}

    def work(self) -> None:
        n = 0
        due = time.monotonic()
        while not self.over.is_set():
            self._send(n, _ARRIVING_PER_SECOND)
            n += _ARRIVING_PER_SECOND
            due += 1.0
            self.over.wait(max(0.0, due - time.monotonic()))

    def _send(self, first: int, count: int) -> None:
        rows: list[bytes] = []
        ids = []
        for n in range(first, first + count):
            log = replace(self._like[n % len(self._like)], index=_ARRIVING_INDEX, id=f"new-{n}")
            document = orjson.loads(log.source)
            document["timestamp"] = datetime.now(UTC).isoformat(timespec="milliseconds")
            rows.append(orjson.dumps({"index": {"_index": log.index, "_id": log.id}}))
            rows.append(orjson.dumps(document))
            ids.append(log.id)
        self._cluster.bulk(b"\n".join(rows) + b"\n")
        self.arrived.update(dict.fromkeys(ids, time.time()))

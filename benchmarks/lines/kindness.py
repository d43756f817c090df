"""Line 10: what a drain does to others' searches on the same OpenSearch, at full speed and paced.

Searches come ten a second whether the last one has been answered or not, and each is timed from
when it was due: a server that stalls is not let off by being asked less.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.background import Background
from benchmarks.cluster import Cluster
from benchmarks.corpus import Corpus, fresh, make_corpus
from benchmarks.rounds import Figure, at_most, percentile, stated
from benchmarks.stage import Stage

_SECONDS_AT_REST = 30.0
_LATENCY_MS = 50.0
#: At least so many during drains, in as many drains as it takes.
_SEARCHES = 300
_WORDS = ("timeout", "connection refused", "order", "database", "payment", "disk", "certificate")


def measure(stage: Stage) -> list[Figure]:
    corpus = make_corpus(stage.size(10_000, 20_000))
    rest = _at_rest(stage, corpus)
    full, full_rate = _while_draining(stage, corpus, {})
    waits = {"at rest": rest, "at full speed": full}
    figures = [
        stated("kindness", "p95 of a search at rest", 1000 * percentile(rest, 0.95), "ms"),
        stated(
            "kindness",
            "p95 at full speed, of that at rest",
            percentile(full, 0.95) / percentile(rest, 0.95),
            "×",
            f"at {full_rate:.0f} vectors/s",
        ),
    ]
    pace = stage.options.pace
    paced, paced_rate = _while_draining(stage, corpus, {"ENRICH_WRITE_PACE": pace})
    waits["paced"] = paced
    figures.append(
        at_most(
            "kindness",
            "p95 with ENRICH_WRITE_PACE, of that at rest",
            percentile(paced, 0.95) / percentile(rest, 0.95),
            2,
            note=f"ENRICH_WRITE_PACE={pace}, at {paced_rate:.0f} vectors/s",
        )
    )
    stage.data["kindness"] = waits
    return figures


def _at_rest(stage: Stage, corpus: Corpus) -> list[float]:
    stage.say("kindness: at rest")
    fresh(stage.cluster, corpus)
    with Searches(stage.cluster) as searches:
        # Those that are compared come after hundreds of the same: so shall these.
        time.sleep(_SECONDS_AT_REST)
        searches.waits.clear()
        time.sleep(_SECONDS_AT_REST)
    return searches.waits


def _while_draining(stage: Stage, corpus: Corpus, env: dict[str, str]) -> tuple[list[float], float]:
    """The searches' times during a drain, and the drain's vectors a second."""
    stage.say(f"kindness: draining {env or 'at full speed'}")
    waits: list[float] = []
    seconds = drained = 0.0
    with stage.product(env=env) as product:
        stage.warm(product)
        # A p95 of a few searches would be their slowest.
        while len(waits) < _SEARCHES:
            fresh(stage.cluster, corpus)
            product.forget()
            stage.api.reset(latency_ms=_LATENCY_MS)
            with Searches(stage.cluster) as searches:
                product.begin()
                searches.waits.clear()
                product.follow()
                waits += searches.waits
            product.end_beat()
            seconds += sum(run.duration_seconds for run in product.runs())
            drained += len(corpus.logs)
    return waits, drained / seconds


class Searches(Background):
    """Ten searches a second, as a dashboard sends them, while it is entered."""

    PER_SECOND = 10

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        # Connections of its own: waiting for one of the benchmark's is no search time.
        self._cluster = cluster.another()
        #: Seconds from when each search was due until its answer.
        self.waits: list[float] = []

    def work(self) -> None:
        due, n = time.monotonic(), 0
        asked = []
        with ThreadPoolExecutor(16) as pool:
            while not self.over.is_set():
                asked.append(pool.submit(self._search, due, n))
                due, n = due + 1 / self.PER_SECOND, n + 1
                self.over.wait(max(0.0, due - time.monotonic()))
        self._cluster.close()
        for search in asked:
            # A search that failed has no time, and must not just be left out.
            search.result()

    def _search(self, due: float, n: int) -> None:
        query: dict[str, Any] = {
            "size": 20,
            "query": {"match": {"message": _WORDS[n % len(_WORDS)]}},
            "_source": ["message", "timestamp", "service_name"],
            "sort": [{"timestamp": "desc"}],
            "aggs": {"services": {"terms": {"field": "service_name"}}},
        }
        self._cluster("POST", "/*_*/_search?request_cache=false", query)
        self.waits.append(time.monotonic() - due)

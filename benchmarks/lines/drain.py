"""Line 1: a backlog, 30 % distinct, 50 ms a request, the defaults, everything on.

In turns with both ceilings, the script that is replaced, and the pipelines to which the
documentation of two libraries leads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.ceilings import Way
from benchmarks.corpus import Corpus, make_corpus
from benchmarks.product import Drain, Product
from benchmarks.rounds import (
    Figure,
    alternate,
    at_least,
    median,
    not_measured,
    ratio,
    spread,
    stated,
)
from benchmarks.stage import Stage, peers_there

QUICK = 10_000
FULL = 20_000
LATENCY_MS = 50.0
#: One API call and one update each: a rate shows after a few.
_ONE_BY_ONE = 300

PEERS = ("langchain_like", "llamaindex_like")


def measure(stage: Stage) -> list[Figure]:
    corpus = make_corpus(stage.size(QUICK, FULL))
    rounds = stage.rounds(3, 5)
    with stage.product() as product:
        stage.warm_opensearch(product, corpus)
        results = alternate(_contenders(stage, product, corpus), rounds, stage.say)
    rates = {name: [one["rate"] for one in several] for name, several in results.items()}
    stage.data["drain"] = {
        "logs": len(corpus.logs),
        "distinct": len(corpus.texts),
        "latency_ms": LATENCY_MS,
        "rounds": results,
        "rates": {name: median(values) for name, values in rates.items()},
    }
    return [*_stated(rates, results), *_judged(rates)]


def _contenders(
    stage: Stage, product: Product, corpus: Corpus
) -> dict[str, Callable[[], dict[str, Any]]]:
    def ceiling(way: Way) -> dict[str, Any]:
        rate = stage.ceiling(corpus, way)
        return {"rate": rate, "merges": stage.cluster.merges()}

    contenders: dict[str, Callable[[], dict[str, Any]]] = {
        "index": lambda: ceiling("index"),
        "product": lambda: drained(stage, product, corpus),
        "update": lambda: ceiling("update"),
        "one_by_one": lambda: stage.peer(
            "one_by_one", corpus, str(_ONE_BY_ONE), latency_ms=LATENCY_MS
        ),
    }
    if peers_there():
        for name in PEERS:
            contenders[name] = lambda name=name: stage.peer(  # type: ignore[misc]
                name, corpus, latency_ms=LATENCY_MS
            )
    wanted = stage.options.against
    return {
        name: run
        for name, run in contenders.items()
        if wanted is None or name == "product" or name in wanted
    }


def drained(stage: Stage, product: Product, corpus: Corpus) -> dict[str, Any]:
    """One drain, as the result file keeps it."""
    drain: Drain = stage.drain(product, corpus, latency_ms=LATENCY_MS)
    return drain.to_json()


def _stated(
    rates: dict[str, list[float]], results: dict[str, list[dict[str, Any]]]
) -> list[Figure]:
    figures = []
    for name, values in rates.items():
        note = f"spread {spread(values):.0%}"
        if "api" in results[name][0]:
            api = results[name][-1]["api"]
            note += f"; {api['requests']} requests, {api['inputs']} inputs"
        # A second of CPU or two each: it tells a round that was slow for them from one that was
        # slow for the product.
        merged = [one["merges"] for one in results[name] if one.get("merges")]
        if merged:
            note += f"; OpenSearch merged in {len(merged)} of {len(values)} rounds"
        figures.append(stated("drain", name, median(values), "/s", note))
    if "index" in rates:
        noise = 100 * spread(rates["index"])
        note = "the same work in each round"
        figures.append(stated("drain", "noise: spread of the index ceiling", noise, "%", note))
    if "index" in rates and "one_by_one" in rates:
        # That one waits for the API, however slow the machine is: on a slow one even a ceiling may
        # be less than the multiple that the product is held to.
        multiple = ratio(rates["index"], rates["one_by_one"])
        figures.append(stated("drain", "index, of one_by_one", multiple, "×"))
    return figures


#: What the product's rate must be, in multiples of each contender's.
TARGETS = {
    "index": 0.7,
    "update": 1.2,
    "one_by_one": 150.0,
    "langchain_like": 4.5,
    "llamaindex_like": 4.5,
}


def _judged(rates: dict[str, list[float]]) -> list[Figure]:
    figures = []
    for contender, target in TARGETS.items():
        name = f"product, of {contender}"
        if contender in rates:
            share = ratio(rates["product"], rates[contender])
            figures.append(at_least("drain", name, share, target))
        elif contender in PEERS and not peers_there():
            figures.append(not_measured("drain", name, "`make bench-peers` sets it up"))
        else:
            figures.append(not_measured("drain", name, "left out"))
    return figures

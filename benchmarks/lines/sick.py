"""Line 11: what the logs of healthy indices wait for beside one sick index.

The rate is that of the healthy indices' logs: from the opening of the run until OpenSearch has a
vector of each. What becomes of the sick index meanwhile is not waited for.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.corpus import Corpus, Log, create_indices, fresh, load, make_corpus
from benchmarks.product import Product
from benchmarks.rounds import Figure, alternate, at_least, median, ratio, spread, stated
from benchmarks.stage import Stage
from dev.http_proxy import Alter, Answered, Asked, Forward, HttpProxy, unaltered

SIZE = 4_000
LATENCY_MS = 50.0
OF_ALONE = 0.9

SICK = "sick_2026_11"
#: Has a name of its own: an index of one name has the same engine for as long as a worker lives.
DEAD = "dead_2026_11"
_HEALTHY = ("billing_2026_11", "shop_2026_11", "users_2026_11")
#: Logs of the sick index, for each of the healthy ones.
_SICK_SHARE = 0.25
#: A bulk with a log of an index that is slow takes so much longer.
_SLOW_SECONDS = 3.0
_TIMEOUT_SECONDS = 240.0


def measure(stage: Stage) -> list[Figure]:
    size = stage.options.size or SIZE
    corpus = make_corpus(size, place=lambda n: _HEALTHY[n % len(_HEALTHY)])
    others = make_corpus(int(size * _SICK_SHARE), seed=8, place=lambda _: SICK)
    dead = make_corpus(int(size * _SICK_SHARE), seed=8, place=lambda _: DEAD)
    with (
        HttpProxy(stage.stack.opensearch.url) as proxy,
        stage.product(env={"OPENSEARCH_PORT": str(proxy.port)}, flower=False) as product,
    ):
        stage.warm(product)
        run = partial(_rate, stage, product, proxy, corpus)
        contenders: dict[str, Callable[[], float]] = {
            "alone": run,
            "throttled": partial(run, sick=others.logs, alter=throttling(SICK)),
            "slow": partial(run, sick=others.logs, alter=slowing(SICK, _SLOW_SECONDS)),
            "red": partial(run, red=True),
            "dead engine": partial(run, sick=dead.logs, index=DEAD, engine="faiss"),
        }
        # Nobody counts the first one: Java gets faster meanwhile.
        run()
        rates = alternate(contenders, stage.rounds(2, 5), stage.say)
    stage.data["sick"] = {"logs": size, "sick_logs": len(others.logs), "rates": rates}
    alone, *sick = rates
    return [
        *(
            stated("sick", name, median(values), "/s", f"spread {spread(values):.0%}")
            for name, values in rates.items()
        ),
        *(
            at_least("sick", f"beside one: {name}", ratio(rates[name], rates[alone]), OF_ALONE)
            for name in sick
        ),
    ]


def _rate(
    stage: Stage,
    product: Product,
    proxy: HttpProxy,
    corpus: Corpus,
    *,
    sick: list[Log] | None = None,
    index: str = SICK,
    alter: Alter = unaltered,
    engine: str = "",
    red: bool = False,
) -> float:
    """Logs of the healthy indices a second."""
    proxy.alter = unaltered
    fresh(stage.cluster, corpus)
    if red:
        # No node has this name, so that its shard is nowhere.
        nowhere = {"index.routing.allocation.require._name": "nowhere"}
        create_indices(stage.cluster, [f"{SICK}?wait_for_active_shards=0"], **nowhere)
    elif sick:
        create_indices(stage.cluster, [index], engine=engine)
        load(stage.cluster, sick)
        stage.cluster("POST", f"/{index}/_refresh")
    product.forget()
    stage.api.reset(latency_ms=LATENCY_MS)
    proxy.alter = alter
    product.begin()
    begun = time.monotonic()
    product.until(
        lambda: stage.cluster.with_vector(*_HEALTHY) == len(corpus.logs),
        "the healthy indices have all vectors",
        _TIMEOUT_SECONDS,
        every=0.2,
    )
    seconds = time.monotonic() - begun
    product.end_beat()
    return len(corpus.logs) / seconds


def throttling(index: str) -> Alter:
    """Every write of a vector to the index is answered with 429, as by a full queue of its shard.
    Trial writes pass: an index that refuses them is skipped when a run begins."""
    error = {"type": "opensearch_rejected_execution_exception", "reason": "queue is full"}

    def alter(asked: Asked, forward: Forward) -> Answered:
        if not _writes_to(index, asked):
            return forward(asked)
        # What is refused is not written: it does not reach OpenSearch.
        rows = asked.body.splitlines()
        pairs = list(zip(rows[::2], rows[1::2], strict=True))
        refused = [_named(action, index) for action, _ in pairs]
        kept = [b"\n".join(p) + b"\n" for p, no in zip(pairs, refused, strict=True) if not no]
        answer: dict[str, Any] = {"took": 1, "errors": True, "items": []}
        if kept:
            whole = Asked(
                method=asked.method,
                path=asked.path,
                content_type=asked.content_type,
                body=b"".join(kept),
            )
            answered = forward(whole)
            if answered.status != 200:
                return answered
            answer = json.loads(answered.body)
        passed = iter(answer["items"])
        answer["items"] = [
            {"index": {"status": 429, "error": error}} if no else next(passed) for no in refused
        ]
        return Answered(body=json.dumps(answer).encode())

    return alter


def slowing(index: str, seconds: float) -> Alter:
    """A write of a vector to the index takes so much longer, with all that is in its request."""

    def alter(asked: Asked, forward: Forward) -> Answered:
        if _writes_to(index, asked):
            time.sleep(seconds)
        return forward(asked)

    return alter


def _writes_to(index: str, asked: Asked) -> bool:
    is_bulk = asked.path.partition("?")[0].endswith("/_bulk")
    return is_bulk and _named(asked.body, index) and b'"log_vector"' in asked.body


def _named(row: bytes, index: str) -> bool:
    return f'"{index}"'.encode() in row

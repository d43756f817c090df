"""Line 8: a tick with nothing to do, over five indices and over five hundred."""

from __future__ import annotations

import time

import orjson

from benchmarks.corpus import create_indices, make_corpus
from benchmarks.product import settings_of
from benchmarks.recording_proxy import Exchange, RecordingProxy
from benchmarks.rounds import Figure, at_most, median
from benchmarks.stage import Stage
from enrich.log_store import LogStore

_TICKS = 6
#: A tick every three seconds.
_INTERVAL_MINUTES = 0.05
#: Requests of one tick follow each other more closely than this.
_PAUSE = 0.5
#: Looks at the backlog that nobody counts. An OpenSearch that serves 500 indices has been running
#: for longer than it takes Java to compile a search; one that has just started needs seconds.
_LOOKS = 300


def measure(stage: Stage) -> list[Figure]:
    figures = []
    for count in (5, 500):
        stage.say(f"idle: over {count} indices")
        figures += _over(stage, count)
    stage.cluster.clear()
    return figures


def _over(stage: Stage, count: int) -> list[Figure]:
    _fill(stage, count)
    stage.data.setdefault("idle", {})[f"first of {count}"] = _warm(stage)
    stage.api.reset()
    with RecordingProxy(stage.stack.opensearch.url) as proxy:
        env = {
            "OPENSEARCH_PORT": str(proxy.port),
            "ENRICH_INTERVAL_MINUTES": str(_INTERVAL_MINUTES),
        }
        with stage.product(env=env, flower=False) as product:
            product.begin()
            product.until(
                lambda: product.ledger.records.totals().runs >= _TICKS + 1,
                "some ticks were seen",
                120,
            )
            product.end_beat()
            product.follow(60)
            ran = product.runs()
    # The first tick finds neither connections nor compiled code.
    ticks = grouped(proxy.exchanges, _PAUSE)[1:]
    requests = max(len(tick) for tick in ticks)
    milliseconds = median([1000 * sum(each.seconds for each in tick) for tick in ticks])
    stage.data.setdefault("idle", {})[str(count)] = {
        "runs": len(ran),
        "ticks": [[(e.request, e.seconds) for e in tick] for tick in ticks],
    }
    where = f"{count} indices"
    return [
        at_most("idle", f"OpenSearch requests a tick, {where}", requests, 3, ""),
        at_most("idle", f"OpenSearch's time a tick, {where}", milliseconds, 50, "ms"),
        at_most("idle", f"API requests, {where}", stage.api.counts()["requests"], 0, ""),
    ]


def _warm(stage: Stage) -> list[float]:
    """Milliseconds of each look at the backlog, until Java has compiled what it runs through."""
    store = LogStore(settings_of(stage.stack))
    took = []
    try:
        for _ in range(_LOOKS):
            begun = time.perf_counter()
            store.backlog.count()
            took.append(1000 * (time.perf_counter() - begun))
    finally:
        store.close()
    return took


def grouped(exchanges: list[Exchange], pause: float) -> list[list[Exchange]]:
    """Exchanges that follow each other more closely than `pause` seconds, together."""
    groups: list[list[Exchange]] = []
    for exchange in sorted(exchanges, key=lambda each: each.at):
        if groups and exchange.at - (groups[-1][-1].at + groups[-1][-1].seconds) < pause:
            groups[-1].append(exchange)
        else:
            groups.append([exchange])
    return groups


def _fill(stage: Stage, count: int) -> None:
    """Indices whose logs all have their vector already."""
    stage.cluster.clear()
    names = [f"project_{n:03d}_2026_11" for n in range(count)]
    create_indices(stage.cluster, names)
    corpus = make_corpus(2 * count, place=lambda n: names[n // 2])
    vectors = corpus.encoded()
    rows: list[bytes] = []
    for log in corpus.logs:
        rows.append(orjson.dumps({"index": {"_index": log.index, "_id": log.id}}))
        rows.append(log.source[:-1] + b',"log_vector":' + vectors[log.text] + b"}")
    stage.cluster.bulk(b"\n".join(rows) + b"\n")
    stage.cluster("POST", "/_refresh")
    stage.cluster.rest()

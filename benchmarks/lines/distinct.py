"""Line 2: no two logs alike, 500 ms a request: either OpenSearch or the API's latency binds."""

from __future__ import annotations

from celery import Celery

from benchmarks.corpus import make_corpus
from benchmarks.product import PREFIX, ProductFailed
from benchmarks.rounds import Figure, alternate, at_least, median, stated
from benchmarks.stage import Stage
from enrich.settings import Settings

#: Fewer would show how a run begins and ends rather than what it does between.
SIZE = 20_000
LATENCY_MS = 500.0
OF_CEILING = 0.7


def measure(stage: Stage) -> list[Figure]:
    corpus = make_corpus(stage.options.size or SIZE, distinct_share=1.0)
    with stage.product() as product:
        stage.warm_opensearch(product, corpus)
        slots = processes(stage.stack.redis.url)
        results = alternate(
            {
                "index": lambda: {"rate": stage.ceiling(corpus, "index")},
                "product": lambda: stage.drain(product, corpus, latency_ms=LATENCY_MS).to_json(),
            },
            stage.rounds(3, 5),
            stage.say,
        )
    # Should the product keep more requests in flight than it has processes, it is held to those.
    most = max(slots, *(one["api"]["in_flight_max"] for one in results["product"]))
    allowed = most * batch_size(stage) / (LATENCY_MS / 1000)
    shares = [
        ours["rate"] / min(OF_CEILING * ceiling["rate"], allowed)
        for ours, ceiling in zip(results["product"], results["index"], strict=True)
    ]
    stage.data["distinct"] = {
        "logs": len(corpus.logs),
        "latency_ms": LATENCY_MS,
        "in_flight": most,
        "allowed": allowed,
        "rounds": results,
    }
    return [
        stated("distinct", "product", median([one["rate"] for one in results["product"]]), "/s"),
        stated("distinct", "index", median([one["rate"] for one in results["index"]]), "/s"),
        stated("distinct", f"what {most} requests in flight can bring", allowed, "/s"),
        at_least("distinct", "of the smaller of 0.7 × index and that", median(shares), 0.85),
    ]


def batch_size(stage: Stage) -> int:
    default = Settings.model_fields["enrich_batch_size"].default
    return int(stage.options.env.get("ENRICH_BATCH_SIZE", default))


def processes(redis_url: str) -> int:
    """How many chunks the workers that run now can handle at once, as they say themselves."""
    app = Celery("bench", broker=redis_url, set_as_current=False)
    app.conf.broker_transport_options = {"global_keyprefix": PREFIX + "broker:"}
    try:
        for _ in range(5):
            told = app.control.inspect(timeout=2.0).stats()
            if told:
                return sum(int(one["pool"]["max-concurrency"]) for one in told.values())
    finally:
        app.close()
    raise ProductFailed("no worker answered how many processes it has")

"""Line 3: inputs paid for: over a whole drain, from a full cache, and with few vectors left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from benchmarks.corpus import Corpus, Log, load, make_corpus
from benchmarks.product import Drain, Product
from benchmarks.rounds import Figure, at_most, stated
from benchmarks.stage import Stage
from enrich.models import project_of

#: Logs that share the commonest text.
_SHARED = 1_200
_LEFT = 0.05


def measure(stage: Stage) -> list[Figure]:
    size = stage.size(5_000, 20_000)
    corpus = make_corpus(size, shared=min(_SHARED, size // 2))
    with stage.product() as product:
        first = stage.drain(product, corpus, latency_ms=50)
        stage.say("inputs: the same logs again, without their vectors")
        second = _again_from_cache(stage, product, corpus)
        stage.say("inputs: Redis is emptied, 5 % of the vectors are left")
        third, needed = _again_from_stored(stage, product, corpus)
    stage.data["inputs"] = {
        "logs": size,
        "distinct": len(corpus.texts),
        "first": first.to_json(),
        "from_cache": second.to_json(),
        "from_stored": third.to_json(),
        "needed": needed,
    }
    return [
        stated("inputs", "distinct texts", len(corpus.texts), note=f"{size} logs"),
        at_most("inputs", "inputs by distinct text", first.api["inputs"] / len(corpus.texts), 1.02),
        at_most("inputs", "inputs of a second drain, from cache", second.api["inputs"], 0, ""),
        at_most(
            "inputs",
            "inputs by text without a stored vector, Redis emptied",
            third.api["inputs"] / max(1, needed),
            1.02,
            note=f"{needed} texts have none in some project that needs it",
        ),
    ]


def _again_from_cache(stage: Stage, product: Product, corpus: Corpus) -> Drain:
    load(stage.cluster, corpus.logs)
    stage.cluster("POST", "/_refresh")
    product.forget_all_but_vectors()
    stage.api.reset(latency_ms=50)
    return product.drain(expect=len(corpus.logs))


def _again_from_stored(stage: Stage, product: Product, corpus: Corpus) -> tuple[Drain, int]:
    kept = left_over(corpus.logs, round(len(corpus.logs) * _LEFT))
    removed = [log for log in corpus.logs if log not in kept]
    load(stage.cluster, removed)
    stage.cluster("POST", "/_refresh")
    product.forget()
    stage.api.reset(latency_ms=50)
    # A vector serves its own project only, see ENRICH_REUSE_ACROSS_PROJECTS.
    stored = {(project_of(log.index), log.text) for log in kept}
    owed = {(project_of(log.index), log.text) for log in removed}
    needed = len({text for _, text in owed - stored})
    return product.drain(expect=len(corpus.logs)), needed


def left_over(logs: Sequence[Log], count: int) -> set[Log]:
    """`count` logs to keep their vectors: of the commonest texts, one in each project.

    Taken at random, hardly a text would have a vector in every project that needs it.
    """
    first: dict[tuple[int, str], Log] = {}
    for log in logs:
        first.setdefault((log.text, project_of(log.index)), log)
    common = Counter(log.text for log in logs)
    order = sorted(first, key=lambda key: (-common[key[0]], key))
    return {first[key] for key in order[:count]}

"""Line: plans beside the truth: distinct texts, money, hours and disk, on three kinds of backlog.

A deployment that has run before plans a backlog, and then works on it. What it knows it learned of
other logs: of each kind two drains, whose vectors are forgotten. The first of these still warm a
node that has just been started, which no plan can know.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.corpus import Corpus, fresh, make_corpus
from benchmarks.product import Drain, Product, settings_of
from benchmarks.rounds import Figure, at_most, median, stated
from benchmarks.stage import Stage
from enrich.planning.plan import Plan
from enrich.planning.planner import Planner
from enrich.wiring import build_planner

SIZE, FULL = 4_000, 20_000
LATENCY_MS = 50.0

#: Seeds of the logs that it has learned of.
_OTHERS = (8, 9)

#: What a deployment has learned stays in Redis while vectors and records go.
_LEARNED = (b"usage:", b"speeds", b"totals")

#: How far a plan may be off, as a share of the truth.
DISTINCT, COST, HOURS = 0.05, 0.10, 0.25


@dataclass(frozen=True, kw_only=True)
class Held:
    """A plan, the same counted by OpenSearch, and what came of the backlog."""

    plan: Plan
    counted: Plan
    drain: Drain
    #: That a vector has added to the disk, once segments are merged.
    bytes_a_vector: float


def measure(stage: Stage) -> list[Figure]:
    size = stage.size(SIZE, FULL)
    kinds = corpora(size, seed=7)
    held: dict[str, list[Held]] = {name: [] for name in kinds}
    with stage.product() as product:
        stage.warm(product)
        for seed in _OTHERS:
            for name, corpus in corpora(size, seed).items():
                stage.say(f"plan: a drain of other logs, {name}")
                _drained(stage, product, corpus)
        for _ in range(stage.rounds(1, 3)):
            for name, corpus in kinds.items():
                stage.say(f"plan: {name}")
                held[name].append(_held(stage, product, corpus))
    stage.data["plan"] = {
        name: [
            {
                "plan": one.plan.model_dump(mode="json"),
                "counted": one.counted.counted.model_dump(mode="json"),
                "drain": one.drain.to_json(),
                "bytes_a_vector": one.bytes_a_vector,
            }
            for one in several
        ]
        for name, several in held.items()
    }
    return [
        figure
        for name, several in held.items()
        for figure in _figures(name, len(kinds[name].texts), several)
    ]


def corpora(size: int, seed: int) -> Mapping[str, Corpus]:
    return {
        "built-in": make_corpus(size, seed=seed),
        "one text": make_corpus(size, seed=seed, shared=size),
        "all distinct": make_corpus(size, seed=seed, distinct_share=1.0),
    }


def off(planned: float, truth: float) -> float:
    """How far off a number is, as a share of the truth."""
    return abs(planned - truth) / truth if truth else float(bool(planned))


def _figures(name: str, distinct: int, several: list[Held]) -> list[Figure]:
    texts = [off(one.plan.counted.distinct_texts, distinct) for one in several]
    counted = [off(one.counted.counted.distinct_texts, distinct) for one in several]
    money = [
        off(one.plan.cost.usd or 0.0, sum(run.estimated_cost_usd for run in one.drain.runs))
        for one in several
    ]
    hours = [off(one.plan.time.seconds, one.drain.seconds) for one in several]
    last = several[-1]
    spent = sum(run.estimated_cost_usd for run in last.drain.runs)
    disk = last.plan.disk.bytes_per_vector / max(1.0, last.bytes_a_vector)
    return [
        at_most("plan", f"{name}: texts off", max(texts), DISTINCT, note=f"{distinct} texts"),
        at_most("plan", f"{name}: texts off, counted by OpenSearch", max(counted), DISTINCT),
        at_most(
            "plan",
            f"{name}: money off",
            median(money),
            COST,
            note=f"${last.plan.cost.usd:.6f} planned, ${spent:.6f} paid",
        ),
        at_most(
            "plan",
            f"{name}: time off",
            median(hours),
            HOURS,
            note=f"{last.plan.time.seconds:.1f} s planned, {last.drain.seconds:.1f} s taken",
        ),
        stated(
            "plan",
            f"{name}: disk of a vector, planned by seen",
            disk,
            "×",
            note=f"{last.plan.disk.bytes_per_vector} and {last.bytes_a_vector:.0f} bytes",
        ),
    ]


def _held(stage: Stage, product: Product, corpus: Corpus) -> Held:
    fresh(stage.cluster, corpus)
    product.forget(keep=_LEARNED)
    planner = build_planner(settings_of(stage.stack))
    backlog = planner.backlog()
    plan = planner.plan(backlog)
    counted = Planner(dataclasses.replace(planner.parts, exact_up_to=0)).plan(backlog)
    before = _bytes(stage)
    stage.api.reset(latency_ms=LATENCY_MS)
    drain = product.drain(expect=len(corpus.logs))
    grown = (_bytes(stage) - before) / len(corpus.logs)
    return Held(plan=plan, counted=counted, drain=drain, bytes_a_vector=grown)


def _drained(stage: Stage, product: Product, corpus: Corpus) -> None:
    fresh(stage.cluster, corpus)
    product.forget(keep=_LEARNED)
    stage.api.reset(latency_ms=LATENCY_MS)
    product.drain(expect=len(corpus.logs))


def _bytes(stage: Stage) -> float:
    """Of all indices, once merged, and once what was overwritten has gone: a shard keeps it for
    half a minute, for copies that have to catch up."""
    while True:
        stage.cluster("POST", "/_forcemerge?max_num_segments=1&flush=true")
        stage.cluster("POST", "/_refresh")
        # Of segments: OpenSearch keeps the size of a store for ten seconds before it looks again.
        answer = stage.cluster("GET", "/_segments")
        segments = [
            segment
            for index in answer["indices"].values()
            for copies in index["shards"].values()
            for copy in copies
            for segment in copy["segments"].values()
        ]
        if not any(segment["deleted_docs"] for segment in segments):
            return float(sum(segment["size_in_bytes"] for segment in segments))
        time.sleep(1)

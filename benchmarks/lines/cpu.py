"""Line 7: processor time of all own processes by 1,000 vectors, and what their start costs."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.corpus import make_corpus
from benchmarks.lines.drain import LATENCY_MS, drained
from benchmarks.rounds import Figure, at_most, median, not_measured, stated
from benchmarks.sampling import cpu_seconds, rss_bytes
from benchmarks.stage import Stage, peers_there

_SIZE = 5_000


def measure(stage: Stage) -> list[Figure]:
    figures = _of_start(stage)
    ours, theirs = _of_work(stage)
    programs = sorted({name for one in ours for name in one["cpu"]})
    for name in programs:
        each = median([1000 * one["cpu"].get(name, 0.0) / one["vectors"] for one in ours])
        figures.append(stated("cpu", f"{name} by 1,000 vectors", each, "s"))
    all_of_ours = median([1000 * sum(one["cpu"].values()) / one["vectors"] for one in ours])
    figures.append(stated("cpu", "all programs by 1,000 vectors", all_of_ours, "s"))
    if not theirs:
        why = "`make bench-peers` sets it up"
        return [*figures, not_measured("cpu", "of langchain_like", why)]
    all_of_theirs = median([1000 * one["cpu_seconds"] / one["written"] for one in theirs])
    stage.data["cpu"] = {"by_1000": all_of_ours, "langchain_by_1000": all_of_theirs}
    return [
        *figures,
        stated("cpu", "langchain_like by 1,000 vectors", all_of_theirs, "s", "after its start"),
        at_most("cpu", "of langchain_like", all_of_ours / all_of_theirs, 0.5),
    ]


def _of_work(stage: Stage) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Drains of ours and of LangChain's; those of the line `drain`, if it was measured."""
    if "drain" in stage.data:
        rounds = stage.data["drain"]["rounds"]
        return rounds["product"], rounds.get("langchain_like", [])
    corpus = make_corpus(stage.options.size or _SIZE)
    with stage.product() as product:
        stage.warm(product)
        ours = [drained(stage, product, corpus) for _ in range(stage.rounds(3, 3))]
    theirs = []
    if peers_there():
        theirs = [stage.peer("langchain_like", corpus, latency_ms=LATENCY_MS) for _ in ours]
    return ours, theirs


def _of_start(stage: Stage) -> list[Figure]:
    """What each program has used, in time and memory, once it is up and has nothing to do."""
    figures = []
    stage.cluster.clear()
    with stage.product() as product:
        product.begin()
        product.follow()
        time.sleep(2.0)
        for name, pid in product.pids().items():
            memory = rss_bytes(pid)
            figures += [
                stated("cpu", f"{name}: start", cpu_seconds(pid), "s"),
                stated(
                    "cpu",
                    f"{name}: memory",
                    sum(memory.values()) / 1e6,
                    "MB",
                    f"resident, {len(memory)} processes; pages that they share count in each",
                ),
            ]
        product.end_beat()
    return figures

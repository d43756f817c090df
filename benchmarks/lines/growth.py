"""Line 5, third part: what a vector costs in backlogs of 2,000, 20,000 and 200,000 logs.

Costs may fall as the backlog grows, since what a run costs once is shared by more; they may not
rise. The ceiling is measured at each size as well: what grows there is OpenSearch's own merging.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from benchmarks.ceilings import ceiling
from benchmarks.corpus import Corpus, fresh, make_corpus
from benchmarks.product import settings_of
from benchmarks.rounds import Figure, alternate, at_least, at_most, median, not_measured, stated
from benchmarks.stage import Options, Stage, StageFailed
from enrich.log_store import LogStore, Target
from enrich.scanning import PAGE_DOCUMENTS

LATENCY_MS = 50.0
_READS = 40
_COSTS = ("own CPU", "OpenSearch requests", "Redis operations")


def sizes(options: Options) -> list[int]:
    """From small to large; `--size` names the largest."""
    largest = options.size or (200_000 if options.full else 20_000)
    return [size for size in (2_000, 20_000, 200_000) if size < largest] + [largest]


def measure(stage: Stage) -> list[Figure]:
    with stage.product() as product:
        # Otherwise Java gets faster from size to size, more than the sizes differ.
        stage.warm_opensearch(product, make_corpus(min(20_000, sizes(stage.options)[-1])))
    corpora = {size: make_corpus(size) for size in sizes(stage.options)}
    measured = {size: _at(stage, corpus) for size, corpus in corpora.items()}
    stage.data["growth"] = {str(size): one for size, one in measured.items()}
    first, *later = measured
    figures = []
    for size in measured:
        for name in _COSTS:
            per_thousand = 1000 * measured[size]["costs"][name]
            figures.append(
                stated("growth", f"{name} by 1,000 vectors, {size:,} logs", per_thousand)
            )
        name = f"API inputs by distinct text, {size:,} logs"
        figures.append(at_most("growth", name, measured[size]["inputs"], 1.02))
    for size in later:
        for name in _COSTS:
            grown = measured[size]["costs"][name] / measured[first]["costs"][name]
            figures.append(
                at_most("growth", f"{name} a vector, {size:,} of {first:,}", grown, 1.05)
            )
        kept = measured[size]["of_ceiling"] / measured[first]["of_ceiling"]
        name = f"share of the index ceiling, {size:,} of {first:,}"
        figures.append(at_least("growth", name, kept, 0.9))
    largest = max(corpora)
    return [*figures, *_page_costs(stage, corpora[largest], measured[largest]["pages"])]


def _at(stage: Stage, corpus: Corpus) -> dict[str, Any]:
    size = len(corpus.logs)
    with stage.product() as product:
        stage.warm(product)
        log, begun = product.log_file, 0

        def drained() -> dict[str, Any]:
            nonlocal begun
            begun = log.stat().st_size
            return stage.drain(product, corpus, latency_ms=LATENCY_MS).to_json()

        results = alternate(
            {
                "index": lambda: {"rate": stage.ceiling(corpus, "index")},
                "product": drained,
            },
            _rounds(stage, size),
            lambda told: stage.say(f"growth: {size} logs, {told}"),
        )
        pages = pages_of(log, begun)
    drains = results["product"]
    return {
        "rounds": results,
        "of_ceiling": median(
            [a["rate"] / b["rate"] for a, b in zip(drains, results["index"], strict=True)]
        ),
        "inputs": median([one["api"]["inputs"] / len(corpus.texts) for one in drains]),
        "costs": {
            "own CPU": median([sum(one["cpu"].values()) / one["vectors"] for one in drains]),
            "OpenSearch requests": median(
                [sum(one["opensearch_requests"].values()) / one["vectors"] for one in drains]
            ),
            "Redis operations": median([one["redis_commands"] / one["vectors"] for one in drains]),
        },
        "pages": pages,
    }


def _rounds(stage: Stage, size: int) -> int:
    """A drain of 2,000 logs needs only a quarter of a second of own CPU, counted in hundredths by
    process: it is what the others are measured by, so it is done more often."""
    return stage.rounds(3, 9) if size <= 2_000 else stage.rounds(1, 3)


_PAGE = re.compile(r"scan_page\[[^]]+\] succeeded in ([\d.]+)s: 'page \d+: (\d+) logs")


def pages_of(log: Path, start: int = 0) -> list[tuple[float, int]]:
    """Of each page that the worker's log tells of from there on: seconds, and logs found."""
    with log.open("rb") as file:
        file.seek(start)
        text = file.read().decode(errors="replace")
    return [(float(seconds), int(logs)) for seconds, logs in _PAGE.findall(text) if int(logs)]


def _page_costs(stage: Stage, corpus: Corpus, pages: list[tuple[float, int]]) -> list[Figure]:
    """Finding the oldest page of the largest index, when all the others have their vectors, against
    its newest when none has; with nothing else going on.

    While the drain writes, one page may take five times another, whichever comes first; and what a
    page takes then contains the look for known vectors, of which there are more in the end.
    """
    name = "finding the last page, of the first"
    versions = fresh(stage.cluster, corpus)
    index, _ = Counter(log.index for log in corpus.logs).most_common(1)[0]
    there = [n for n, log in enumerate(corpus.logs) if log.index == index]
    if len(there) < 10 * PAGE_DOCUMENTS:
        return [
            not_measured(
                "growth", name, f"{index} has only {len(there)} logs, of which one page is much"
            )
        ]
    there.sort(key=lambda n: orjson.loads(corpus.logs[n].source)["timestamp"])
    last = set(there[:PAGE_DOCUMENTS])
    others = [n for n in range(len(corpus.logs)) if n not in last]
    store = LogStore(settings_of(stage.stack))
    try:
        first_seconds = _seconds_a_page(store, index)
        ceiling(
            stage.cluster,
            replace(corpus, logs=[corpus.logs[n] for n in others]),
            [versions[n] for n in others],
            "index",
        )
        stage.cluster("POST", "/_refresh")
        stage.cluster.rest()
        last_seconds = _seconds_a_page(store, index)
    finally:
        store.close()
    stage.data["pages"] = {"first": first_seconds, "last": last_seconds}
    return [
        at_most("growth", name, median(last_seconds) / median(first_seconds), 1.1),
        *_while_draining(pages),
    ]


def _seconds_a_page(store: LogStore, index: str) -> list[float]:
    """Of each of some reads of the same page, after some that warm up."""
    seconds = []
    for _ in range(_READS):
        begun = time.perf_counter()
        (page,) = store.finder.page([Target(index, None, PAGE_DOCUMENTS)], frozenset())
        seconds.append(time.perf_counter() - begun)
        if len(page.hits) != PAGE_DOCUMENTS:
            raise StageFailed(f"a page of {index} has {len(page.hits)} logs")
    return seconds[_READS // 2 :]


def _while_draining(pages: list[tuple[float, int]]) -> list[Figure]:
    """Seconds a log in the last fifth of a drain's pages against the first fifth, the first page
    excepted, which looks at the indices as well."""
    pages = pages[1:]
    some = len(pages) // 5
    if some < 2:
        return []
    each = [seconds / logs for seconds, logs in pages]
    grown = median(each[-some:]) / median(each[:some])
    return [stated("growth", "the same among the writes, known vectors looked for", grown, "×")]

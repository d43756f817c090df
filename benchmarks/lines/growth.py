"""Line 5, third part: what a vector costs in backlogs of 2,000, 20,000 and 200,000 logs.

Costs may fall as the backlog grows, since what a run costs once is shared by more; they may not
rise. The ceiling is measured at each size as well: what grows there is OpenSearch's own merging.
The sizes take turns, and each drain stands between two ceilings: a large one takes minutes, in
which a machine's speed may change by a tenth, and more where others use it too.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson

from benchmarks.ceilings import ceiling
from benchmarks.corpus import Corpus, fresh, make_corpus
from benchmarks.product import Product, settings_of
from benchmarks.rounds import (
    Figure,
    alternate,
    at_least,
    at_most,
    median,
    not_measured,
    ratio,
    stated,
)
from benchmarks.stage import Options, Stage, StageFailed
from enrich.log_store import LogStore, Target
from enrich.scanning import PAGE_DOCUMENTS

LATENCY_MS = 50.0
_READS = 40
#: How often a round drains a backlog of so many logs; once if not named.
_DRAINS = {2_000: 6, 20_000: 2}

Cost = Callable[[Mapping[str, Any]], float]
#: What a drain took in all, by what is asked of it.
_COSTS: dict[str, Cost] = {
    "own CPU": lambda drain: sum(drain["cpu"].values()),
    "OpenSearch requests": lambda drain: sum(drain["opensearch_requests"].values()),
    "Redis operations": lambda drain: drain["redis_commands"],
}


def sizes(options: Options) -> list[int]:
    """From small to large; `--size` names the largest."""
    largest = options.size or (200_000 if options.full else 20_000)
    return [size for size in (2_000, 20_000, 200_000) if size < largest] + [largest]


def measure(stage: Stage) -> list[Figure]:
    corpora = {size: make_corpus(size) for size in sizes(stage.options)}
    with stage.product() as product:
        # Otherwise Java gets faster from size to size, more than the sizes differ.
        stage.warm_opensearch(product, make_corpus(min(20_000, max(corpora))))
        told = alternate(
            {str(size): partial(_round, stage, product, corpora[size]) for size in corpora},
            stage.rounds(1, 3),
            lambda which: stage.say(f"growth: {which} logs"),
        )
    rounds = {size: told[str(size)] for size in corpora}
    stage.data["growth"] = {
        str(size): {
            "rounds": {
                way: [one for each in rounds[size] for one in each[way]]
                for way in ("index", "product")
            },
            "pages": rounds[size][-1]["pages"],
        }
        for size in corpora
    }
    first, *later = corpora
    figures = []
    for size in corpora:
        for name, cost in _COSTS.items():
            per_thousand = 1000 * median(_costs(rounds[size], cost))
            figures.append(
                stated("growth", f"{name} by 1,000 vectors, {size:,} logs", per_thousand)
            )
        texts = len(corpora[size].texts)
        inputs = median([one["api"]["inputs"] for each in rounds[size] for one in each["product"]])
        name = f"API inputs by distinct text, {size:,} logs"
        figures.append(at_most("growth", name, inputs / texts, 1.02))
    for size in later:
        for name, cost in _COSTS.items():
            grown = ratio(_costs(rounds[size], cost), _costs(rounds[first], cost))
            figures.append(
                at_most("growth", f"{name} a vector, {size:,} of {first:,}", grown, 1.05)
            )
        kept = ratio(_shares(rounds[size]), _shares(rounds[first]))
        name = f"share of the index ceiling, {size:,} of {first:,}"
        figures.append(at_least("growth", name, kept, 0.9))
    largest = max(corpora)
    pages = rounds[largest][-1]["pages"]
    return [*figures, *_page_costs(stage, corpora[largest], pages)]


def _round(stage: Stage, product: Product, corpus: Corpus) -> dict[str, Any]:
    """Drains of one size, each between two ceilings.

    A small one is over in seconds, with a quarter of a second of own CPU that is counted in
    hundredths by process, and the others are measured by it: so it is done more often.
    """
    size = len(corpus.logs)
    ceilings = [_ceiling(stage, corpus)]
    drains = []
    for _ in range(_DRAINS.get(size, 1)):
        begun = product.log_file.stat().st_size
        drains.append(stage.drain(product, corpus, latency_ms=LATENCY_MS).to_json())
        ceilings.append(_ceiling(stage, corpus))
    return {"index": ceilings, "product": drains, "pages": pages_of(product.log_file, begun)}


def _ceiling(stage: Stage, corpus: Corpus) -> dict[str, float]:
    return {"rate": stage.ceiling(corpus, "index")}


def cost_of(drains: Sequence[Mapping[str, Any]], cost: Cost) -> float:
    """What a vector took over some drains."""
    vectors: int = sum(drain["vectors"] for drain in drains)
    return sum(map(cost, drains)) / vectors


def share_of(ceilings: Sequence[float], drains: Sequence[float]) -> float:
    """Of the ceiling, over drains that each stand between two: of rates, all of one size.

    Times are added up, as within a large drain, so that a slow second weighs the same in both.
    """
    seconds = [1 / rate for rate in ceilings]
    between = [(before + after) / 2 for before, after in pairwise(seconds)]
    return sum(between) / sum(1 / rate for rate in drains)


def _costs(rounds: Sequence[Mapping[str, Any]], cost: Cost) -> list[float]:
    return [cost_of(one["product"], cost) for one in rounds]


def _shares(rounds: Sequence[Mapping[str, Any]]) -> list[float]:
    return [
        share_of([at["rate"] for at in one["index"]], [drain["rate"] for drain in one["product"]])
        for one in rounds
    ]


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

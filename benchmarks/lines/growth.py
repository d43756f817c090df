"""Line 5, third part: what a vector costs in backlogs of 2,000, 20,000 and 200,000 logs.

Costs may fall as the backlog grows, since what a run costs once is shared by more; they may not
rise. The ceiling is measured at each size as well: what grows there is OpenSearch's own merging.
Each larger drain stands between drains of the smallest size, and each drain between two ceilings:
a large one takes minutes, in which a machine's speed may change by a tenth, and more where others
use it too; CPU seconds change with it.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
    stated,
)
from benchmarks.stage import Options, Stage, StageFailed
from enrich.backfill.schedule import ROUND_DOCUMENTS
from enrich.log_store import LogStore, Target

LATENCY_MS = 50.0
_READS = 40
#: Drains of the smallest size before and after each larger one. They are over in seconds, with a
#: quarter of a second of own CPU that is counted in hundredths by process, and the others are
#: measured by them.
_ASIDE = 4
#: How often a round drains a backlog of so many logs; once if not named.
_DRAINS = {20_000: 2}

Cost = Callable[[Mapping[str, Any]], float]
#: What a drain took in all, by what is asked of it.
_COSTS: dict[str, Cost] = {
    "own CPU": lambda drain: sum(drain["cpu"].values()),
    "OpenSearch requests": lambda drain: sum(drain["opensearch_requests"].values()),
    "Redis operations": lambda drain: drain["redis_commands"],
}


def sizes(options: Options) -> list[int]:
    """From small to large; `--size` names the largest, of at least twice the smallest."""
    largest = max(4_000, options.size or (200_000 if options.full else 20_000))
    return [size for size in (2_000, 20_000, 200_000) if size < largest] + [largest]


def measure(stage: Stage) -> list[Figure]:
    corpora = {size: make_corpus(size) for size in sizes(stage.options)}
    first, *later = corpora
    with stage.product() as product:
        # Otherwise Java gets faster from size to size, more than the sizes differ.
        stage.warm_opensearch(product, make_corpus(min(20_000, max(corpora))))
        beside = partial(_beside, stage, product, corpora[first])
        told = alternate(
            {str(size): partial(beside, corpora[size], _DRAINS.get(size, 1)) for size in later},
            stage.rounds(1, 3),
            lambda which: stage.say(f"growth: {which} logs beside {first}"),
        )
    pairs = {size: [pair for visit in told[str(size)] for pair in visit] for size in later}
    series = {first: [small for pair in pairs.values() for small, _ in pair]}
    series |= {size: [large for _, large in pairs[size]] for size in later}
    stage.data["growth"] = {
        str(size): {
            "rounds": {
                "index": [{"rate": rate} for one in series[size] for rate in one.ceilings],
                "product": [drain for one in series[size] for drain in one.drains],
            },
            "pages": series[size][-1].pages,
        }
        for size in corpora
    }
    figures = []
    for size in corpora:
        for name, cost in _COSTS.items():
            per_thousand = 1000 * median([one.cost(cost) for one in series[size]])
            figures.append(
                stated("growth", f"{name} by 1,000 vectors, {size:,} logs", per_thousand)
            )
        texts = len(corpora[size].texts)
        inputs = median([drain["api"]["inputs"] for one in series[size] for drain in one.drains])
        name = f"API inputs by distinct text, {size:,} logs"
        figures.append(at_most("growth", name, inputs / texts, 1.02))
    for size in later:
        for name, cost in _COSTS.items():
            grown = median([large.cost(cost) / small.cost(cost) for small, large in pairs[size]])
            figures.append(
                at_most("growth", f"{name} a vector, {size:,} of {first:,}", grown, 1.05)
            )
        kept = median([large.share / small.share for small, large in pairs[size]])
        name = f"share of the index ceiling, {size:,} of {first:,}"
        figures.append(at_least("growth", name, kept, 0.9))
    largest = max(corpora)
    pages = series[largest][-1].pages
    return [*figures, *_page_costs(stage, corpora[largest], pages)]


@dataclass(frozen=True)
class Series:
    """Drains of one size."""

    drains: Sequence[Mapping[str, Any]]
    #: Rates of the ceilings before and after each drain.
    between: Sequence[tuple[float, float]]
    #: Of the last drain: seconds, and logs found.
    pages: Sequence[tuple[float, int]] = ()

    def __add__(self, other: Series) -> Series:
        drains = [*self.drains, *other.drains]
        return Series(drains, [*self.between, *other.between], other.pages)

    @property
    def ceilings(self) -> list[float]:
        """Each once."""
        rates: list[float] = []
        for before, after in self.between:
            rates += [after] if rates[-1:] == [before] else [before, after]
        return rates

    def cost(self, cost: Cost) -> float:
        """What a vector took, of all."""
        vectors: int = sum(drain["vectors"] for drain in self.drains)
        return sum(map(cost, self.drains)) / vectors

    @property
    def share(self) -> float:
        """Of the ceiling. Times are added up, as within a large drain, so that a slow second weighs
        the same in all sizes."""
        ceilings = sum((1 / before + 1 / after) / 2 for before, after in self.between)
        seconds: float = sum(1 / drain["rate"] for drain in self.drains)
        return ceilings / seconds


def _beside(
    stage: Stage, product: Product, small: Corpus, large: Corpus, times: int
) -> list[tuple[Series, Series]]:
    """Drains of a size, each with those of the smallest size around it."""
    pairs = []
    for _ in range(times):
        before = _series(stage, product, small, _ASIDE)
        one = _series(stage, product, large, 1)
        pairs.append((before + _series(stage, product, small, _ASIDE), one))
    return pairs


def _series(stage: Stage, product: Product, corpus: Corpus, times: int) -> Series:
    ceilings = [stage.ceiling(corpus, "index")]
    drains = []
    for _ in range(times):
        begun = product.log_file.stat().st_size
        drains.append(stage.drain(product, corpus, latency_ms=LATENCY_MS).to_json())
        ceilings.append(stage.ceiling(corpus, "index"))
    return Series(drains, list(pairwise(ceilings)), pages_of(product.log_file, begun))


_PAGE = re.compile(r"scan_page\[[^]]+\] succeeded in ([\d.]+)s: 'page \d+: (\d+) logs")


def pages_of(log: Path, start: int = 0) -> list[tuple[float, int]]:
    """Of each page that the worker's log tells of from there on: seconds, and logs found."""
    with log.open("rb") as file:
        file.seek(start)
        text = file.read().decode(errors="replace")
    return [(float(seconds), int(logs)) for seconds, logs in _PAGE.findall(text) if int(logs)]


def _page_costs(stage: Stage, corpus: Corpus, pages: Sequence[tuple[float, int]]) -> list[Figure]:
    """Finding the oldest page of the largest index, when all the others have their vectors, against
    its newest when none has; with nothing else going on.

    While the drain writes, one page may take five times another, whichever comes first; and what a
    page takes then contains the look for known vectors, of which there are more in the end.
    """
    name = "finding the last page, of the first"
    versions = fresh(stage.cluster, corpus)
    index, _ = Counter(log.index for log in corpus.logs).most_common(1)[0]
    there = [n for n, log in enumerate(corpus.logs) if log.index == index]
    if len(there) < 10 * ROUND_DOCUMENTS:
        return [
            not_measured(
                "growth", name, f"{index} has only {len(there)} logs, of which one page is much"
            )
        ]
    there.sort(key=lambda n: orjson.loads(corpus.logs[n].source)["timestamp"])
    last = set(there[:ROUND_DOCUMENTS])
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
        (page,) = store.finder.page([Target(index, None, ROUND_DOCUMENTS)], frozenset())
        seconds.append(time.perf_counter() - begun)
        if len(page.hits) != ROUND_DOCUMENTS:
            raise StageFailed(f"a page of {index} has {len(page.hits)} logs")
    return seconds[_READS // 2 :]


def _while_draining(pages: Sequence[tuple[float, int]]) -> list[Figure]:
    """Seconds a log in the last fifth of a drain's pages against the first fifth, the first page
    excepted, which looks at the indices as well."""
    pages = pages[1:]
    some = len(pages) // 5
    if some < 2:
        return []
    each = [seconds / logs for seconds, logs in pages]
    grown = median(each[-some:]) / median(each[:some])
    return [stated("growth", "the same among the writes, known vectors looked for", grown, "×")]

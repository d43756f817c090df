"""Line 5, third part: what a vector costs in backlogs of 2,000, 20,000 and 200,000 logs.

Costs may fall as the backlog grows, since what a run costs once is shared by more; they may not
rise. The ceiling is measured at each size as well: what grows there is OpenSearch's own merging.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from benchmarks.corpus import make_corpus
from benchmarks.rounds import Figure, alternate, at_least, at_most, median, not_measured, stated
from benchmarks.stage import Options, Stage

LATENCY_MS = 50.0
_COSTS = ("own CPU", "OpenSearch requests", "Redis operations")


def sizes(options: Options) -> list[int]:
    """From small to large; `--size` names the largest."""
    largest = options.size or (200_000 if options.full else 20_000)
    return [size for size in (2_000, 20_000, 200_000) if size < largest] + [largest]


def measure(stage: Stage) -> list[Figure]:
    with stage.product() as product:
        # Otherwise Java gets faster from size to size, more than the sizes differ.
        stage.warm_opensearch(product, make_corpus(min(20_000, sizes(stage.options)[-1])))
    measured = {size: _at(stage, size) for size in sizes(stage.options)}
    stage.data["growth"] = {str(size): one for size, one in measured.items()}
    first, *later = measured
    figures = []
    for size in measured:
        for name in _COSTS:
            per_thousand = 1000 * measured[size]["costs"][name]
            figures.append(
                stated("growth", f"{name} by 1,000 vectors, {size:,} logs", per_thousand)
            )
    for size in later:
        for name in _COSTS:
            grown = measured[size]["costs"][name] / measured[first]["costs"][name]
            figures.append(
                at_most("growth", f"{name} a vector, {size:,} of {first:,}", grown, 1.05)
            )
        kept = measured[size]["of_ceiling"] / measured[first]["of_ceiling"]
        name = f"share of the index ceiling, {size:,} of {first:,}"
        figures.append(at_least("growth", name, kept, 0.9))
    return [*figures, _last_page(measured[sizes(stage.options)[-1]]["pages"])]


def _at(stage: Stage, size: int) -> dict[str, Any]:
    corpus = make_corpus(size)
    with stage.product() as product:
        stage.warm(product)
        log = product.log_file
        log_start = log.stat().st_size
        results = alternate(
            {
                "index": lambda: {"rate": stage.ceiling(corpus, "index")},
                "product": lambda: stage.drain(product, corpus, latency_ms=LATENCY_MS).to_json(),
            },
            stage.rounds(1, 3) if size <= 20_000 else 1,
            lambda told: stage.say(f"growth: {size} logs, {told}"),
        )
        pages = pages_of(log, log_start)
    drains = results["product"]
    return {
        "rounds": results,
        "of_ceiling": median(
            [a["rate"] / b["rate"] for a, b in zip(drains, results["index"], strict=True)]
        ),
        "costs": {
            "own CPU": median([sum(one["cpu"].values()) / one["vectors"] for one in drains]),
            "OpenSearch requests": median(
                [sum(one["opensearch_requests"].values()) / one["vectors"] for one in drains]
            ),
            "Redis operations": median([one["redis_commands"] / one["vectors"] for one in drains]),
        },
        "pages": pages,
    }


_PAGE = re.compile(r"scan_page\[[^]]+\] succeeded in ([\d.]+)s: 'page \d+: (\d+) logs")


def pages_of(log: Path, start: int = 0) -> list[tuple[float, int]]:
    """Of each page that the worker's log tells of: seconds, and logs found."""
    with log.open("rb") as file:
        file.seek(start)
        text = file.read().decode(errors="replace")
    return [(float(seconds), int(logs)) for seconds, logs in _PAGE.findall(text) if int(logs)]


def _last_page(pages: list[tuple[float, int]]) -> Figure:
    """Seconds a log in the last fifth of the pages against the first fifth, the first page
    excepted, which looks at the indices as well. Pages are read while chunks are written, so that
    one may take thrice another: of ten pages a part, as of a tenth, the median is noise."""
    name = "finding a log on the last pages, of the first"
    pages = pages[1:]
    some = max(2, len(pages) // 5)
    if len(pages) < 2 * some:
        return not_measured("growth", name, f"only {len(pages) + 1} pages were read")
    each = [seconds / logs for seconds, logs in pages]
    return at_most("growth", name, median(each[-some:]) / median(each[:some]), 1.1)

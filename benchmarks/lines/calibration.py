"""How often the 95 % intervals of a sample hold the truth, over populations of all kinds.

No log is made: of N uniform scores the n-th highest has a beta distribution, and of the logs above
it as many are of a level as a hypergeometric number says. What the product is handed are scores of
24 bits, as OpenSearch gives them, and levels. An interval cannot cover 95 % of each population,
since counts are whole numbers; what has a target is the mean over all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from benchmarks.rounds import Figure, at_least, at_most, stated
from benchmarks.stage import Options
from enrich.analysis.comparing import Truth, accuracies
from enrich.analysis.sampling import Estimates, estimate

SIZES = (10**3, 10**4, 10**5, 10**6, 10**7)
SHARES = (0.0, 0.002, 0.01, 0.05, 0.2, 0.5, 0.9, 0.99, 1.0)
SAMPLES = (10, 50, 100, 500)
#: Samples of each population and size of sample.
ROUNDS = 100

#: Of the logs that are no ERROR logs.
WARN_SHARE, INFO_SHARE = 0.25, 0.65

#: Bounds of the mean coverage, in %.
LEAST, MOST = 93.0, 97.0

_STEPS = 2**24
_LEVELS = (frozenset({"error"}), frozenset({"warn"}), frozenset({"info"}), frozenset[str]())


@dataclass(frozen=True)
class Simulated:
    """A log that was drawn."""

    score: float
    levels: frozenset[str]


def truth_of(total: int, share: float) -> Truth:
    """A population of so many logs, of which that share are ERROR logs."""
    error = round(total * share)
    rest = total - error
    return Truth(
        total=total, error=error, warn=round(rest * WARN_SHARE), info=round(rest * INFO_SHARE)
    )


def drawn(generator: np.random.Generator, truth: Truth, size: int) -> list[Simulated]:
    """The `size` logs of the highest scores."""
    distance = generator.beta(size, truth.total - size + 1)
    last = int((1 - distance) * _STEPS) / _STEPS
    counts = (truth.error, truth.warn, truth.info)
    kinds = generator.multivariate_hypergeometric((*counts, truth.total - sum(counts)), size)
    levels = [level for level, count in zip(_LEVELS, kinds, strict=True) for _ in range(count)]
    generator.shuffle(levels)
    step = (1 - last) / (size + 1)
    return [Simulated(last + step * n, level) for n, level in enumerate(levels)]


def simulate(options: Options) -> list[Figure]:
    """Cover `options.rounds` samples of each population."""
    generator = np.random.default_rng(20_261_128)
    held: dict[str, list[bool]] = defaultdict(list)
    overall: dict[int, list[float]] = defaultdict(list)
    total_accuracy: dict[int, list[float]] = defaultdict(list)
    for total in SIZES:
        for share in SHARES:
            truth = truth_of(total, share)
            for size in SAMPLES:
                for _ in range(options.rounds or ROUNDS):
                    found = estimate(drawn(generator, truth, size), size)
                    for number, holds in _holds(found, truth):
                        for row in _rows(number, total, share, size):
                            held[row].append(holds)
                    came = accuracies(
                        truth,
                        total=found.total.value,
                        error=found.error.value,
                        warn=found.warn.value,
                        info=found.info.value,
                        error_rate=found.error_rate.value,
                    )
                    total_accuracy[size].append(came.total)
                    overall[size].append(came.overall)
    mean = 100 * float(np.mean(held.pop("all")))
    return [
        *(
            stated("calibration", row, 100 * float(np.mean(each)), "%", f"{len(each):,} intervals")
            for row, each in held.items()
        ),
        *(
            stated(
                "calibration",
                f"accuracy of {size} logs: of the total",
                float(np.mean(total_accuracy[size])),
                "%",
                f"overall {np.mean(overall[size]):.1f} %; excellent "
                f"{100 * np.mean(np.array(overall[size]) >= 95):.0f} % of the time",
            )
            for size in SAMPLES
        ),
        at_least("calibration", "mean coverage", mean, LEAST, "%"),
        at_most("calibration", "mean coverage, at most", mean, MOST, "%"),
    ]


def _holds(found: Estimates, truth: Truth) -> Iterable[tuple[str, bool]]:
    for number, estimated, true in (
        ("total", found.total, float(truth.total)),
        ("ERROR", found.error, float(truth.error)),
        ("WARN", found.warn, float(truth.warn)),
        ("INFO", found.info, float(truth.info)),
        ("error rate", found.error_rate, truth.error_rate),
    ):
        # A truth of all or none is a whole number, and its limit the same but for the last digit.
        slack = 1e-9 * max(1.0, true)
        yield number, estimated.low - slack <= true <= estimated.high + slack


def _rows(number: str, total: int, share: float, size: int) -> Iterable[str]:
    """The rows of the table that an interval counts in."""
    yield "all"
    yield f"coverage of {total:,} logs"
    yield f"coverage of {number}"
    yield f"coverage by samples of {size}"
    yield f"coverage at {share:.1%} ERROR"

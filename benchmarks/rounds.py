"""Rounds, medians and verdicts: from measurements to figures that can be held to a target.

Contenders take turns within a round, and each round begins with another of them, so that whatever
drifts on a machine strikes all of them alike. Pure but for the calling of the contenders.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

T = TypeVar("T")

Way = Literal[">=", "<="]
Verdict = Literal["reached", "missed", "not measured", ""]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One row of the table."""

    #: The line it belongs to, such as "drain".
    line: str
    name: str
    #: None where it could not be measured; `note` says why.
    value: float | None
    unit: str = ""
    #: Which side of `bound` is good; None for a figure that is only stated.
    way: Way | None = None
    bound: float | None = None
    note: str = ""

    @property
    def verdict(self) -> Verdict:
        if self.value is None:
            return "not measured"
        if self.way is None or self.bound is None:
            return ""
        return "reached" if holds(self.value, self.way, self.bound) else "missed"


def holds(value: float, way: Way, bound: float) -> bool:
    """Whether a value is on the good side of its bound; one that is no number is not."""
    if math.isnan(value):
        return False
    return value >= bound if way == ">=" else value <= bound


def at_least(
    line: str, name: str, value: float, bound: float, unit: str = "×", note: str = ""
) -> Figure:
    return Figure(line=line, name=name, value=value, unit=unit, way=">=", bound=bound, note=note)


def at_most(
    line: str, name: str, value: float, bound: float, unit: str = "×", note: str = ""
) -> Figure:
    return Figure(line=line, name=name, value=value, unit=unit, way="<=", bound=bound, note=note)


def stated(line: str, name: str, value: float, unit: str = "", note: str = "") -> Figure:
    """A figure without a target."""
    return Figure(line=line, name=name, value=value, unit=unit, note=note)


def not_measured(line: str, name: str, why: str) -> Figure:
    return Figure(line=line, name=name, value=None, note=why)


def missed(figures: Sequence[Figure]) -> list[Figure]:
    return [figure for figure in figures if figure.verdict == "missed"]


def alternate(
    contenders: Mapping[str, Callable[[], T]], rounds: int, say: Callable[[str], None]
) -> dict[str, list[T]]:
    """Let every contender run once a round; the results by contender, in the order of rounds."""
    results: dict[str, list[T]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name in turn(list(contenders), number):
            say(f"round {number + 1} of {rounds}: {name}")
            results[name].append(contenders[name]())
    return results


def turn(names: Sequence[str], number: int) -> list[str]:
    """The order of a round: each round begins one further on."""
    start = number % len(names)
    return [*names[start:], *names[:start]]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """The median of the ratios of each round, which is steadier than that of two medians."""
    return median([a / b for a, b in zip(one, other, strict=True)])


def spread(values: Sequence[float]) -> float:
    """The machine's noise: how far apart the same work came out, as a share of its median."""
    return (max(values) - min(values)) / median(values)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed (nearest rank)."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

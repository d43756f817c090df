"""From a random sample to how many logs there are, and of which levels. Pure.

Each log has a random score, uniform from 0 to 1 and independent of what it says. The logs with the
n highest scores are a simple random sample, and the n-th score s tells how many there are, since n
of N scores lie above s only if 1 - s is about n / N: N is estimated by (n - 1) / (1 - s). This is
bottom-k sampling (K. Beyer and others, "On synopses for distinct-value estimation under multiset
operations", SIGMOD 2007, with 1 - score as the hash). Given s, the n - 1 logs above it are a random
sample of all others, so that shares and counts come from these.

The logs that were drawn are all that is known here: no count of a server gets in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from enrich.analysis.intervals import (
    gamma_limits,
    poisson_limits,
    rank_limits,
    share_limits,
    size_limits,
)

ERROR, WARN, INFO = "error", "warn", "info"

#: From this share of all logs on, limits are those of a part and not of a trickle.
LARGE_SHARE = 0.01

#: Scores have 24 bits (RandomScoreFunction of OpenSearch). Above so many logs the n-th highest is
#: within few steps of 1, and each hour should be sampled by itself.
MOST_LOGS_OF_A_STRATUM = 10_000_000


#: A score of 0 leaves nothing unread.
_LEAST_SPREAD = 1e-12


class ScoredLog(Protocol):
    """A log as it was drawn."""

    @property
    def score(self) -> float:
        """At least 0 and below 1."""
        ...

    @property
    def levels(self) -> AbstractSet[str]:
        """Which of `error`, `warn` and `info` it has."""
        ...


class Kind(StrEnum):
    """What the limits of an estimate say."""

    #: All logs were read.
    EXACT = "exact"
    #: 95 % of such intervals hold the truth.
    INTERVAL = "interval"
    #: None was seen: there are at most `high`, with 95 %.
    UPPER_LIMIT = "upper_limit"
    #: All that were seen are such: the share is at least `low`, with 95 %.
    LOWER_LIMIT = "lower_limit"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its limits.

    Attributes:
        relative_error: standard error as a part of the value; infinite where none was seen.
    """

    value: float
    low: float
    high: float
    kind: Kind
    relative_error: float

    @classmethod
    def exact(cls, value: float) -> Estimate:
        return cls(value=value, low=value, high=value, kind=Kind.EXACT, relative_error=0.0)


@dataclass(frozen=True, kw_only=True)
class Estimates:
    """What a sample says of all logs; the rate in %."""

    total: Estimate
    error: Estimate
    warn: Estimate
    info: Estimate
    error_rate: Estimate
    #: Logs that were read.
    read: int
    #: Whether these are all there are, so that nothing is estimated.
    census: bool
    #: Parts that were sampled by themselves.
    strata: int


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """What is kept of one sample: how many of what lie above the n-th score, and that score's
    distance from 1; of a census how many there are, with a distance of 1."""

    read: int
    above: int
    seen: dict[str, int]
    distance: float
    census: bool

    @property
    def total(self) -> float:
        return self.above if self.census else max(self.read, self.above / self.distance)

    @property
    def unseen(self) -> float:
        """Which part of all logs was not read."""
        return 0.0 if self.census else 1.0 - self.distance


def estimate(logs: Iterable[ScoredLog], asked: int) -> Estimates:
    """What the `asked` logs of the highest scores say of all.

    Further logs change nothing. Fewer than were asked for are a census.

    Raises:
        ValueError: a score is not of [0, 1), or fewer than two logs were asked for.
    """
    return _estimates([_drawn(logs, asked)])


def estimate_strata(strata: Iterable[tuple[Iterable[ScoredLog], int]]) -> Estimates:
    """What samples of parts, such as hours, say of all: each as for `estimate`.

    Sums of estimates; their limits are those of the count that has the same relative error.

    Raises:
        ValueError: as `estimate`, or there are no strata.
    """
    drawn = [_drawn(logs, asked) for logs, asked in strata]
    if not drawn:
        raise ValueError("there must be a stratum")
    return _estimates(drawn)


def _drawn(logs: Iterable[ScoredLog], asked: int) -> _Drawn:
    if asked < 2:
        raise ValueError("a sample needs two logs at least")
    # Of equal scores the order is that of the levels, and not that in which they came.
    ordered = sorted(logs, key=lambda log: (-log.score, sorted(log.levels)))[:asked]
    if any(not 0 <= log.score < 1 for log in ordered):
        raise ValueError("a score must be at least 0 and below 1")
    census = len(ordered) < asked
    above = ordered if census else ordered[:-1]
    return _Drawn(
        read=len(ordered),
        above=len(above),
        seen={level: sum(level in log.levels for log in above) for level in (ERROR, WARN, INFO)},
        distance=1.0 if census else 1.0 - ordered[-1].score,
        census=census,
    )


def _estimates(strata: Sequence[_Drawn]) -> Estimates:
    return Estimates(
        total=_total(strata),
        error=_count(strata, ERROR),
        warn=_count(strata, WARN),
        info=_count(strata, INFO),
        error_rate=_rate(strata, ERROR),
        read=sum(one.read for one in strata),
        census=all(one.census for one in strata),
        strata=len(strata),
    )


def _total(strata: Sequence[_Drawn]) -> Estimate:
    value = sum(one.total for one in strata)
    sampled = [one for one in strata if not one.census]
    if not sampled:
        return Estimate.exact(value)
    known = value - sum(one.total for one in sampled)
    variance = sum(one.total**2 * one.unseen / max(1, one.read - 2) for one in sampled)
    if len(sampled) == 1:
        (one,) = sampled
        if one.distance < LARGE_SHARE:
            low, high = (limit / one.distance for limit in gamma_limits(one.read))
        else:
            low, high = rank_limits(one.read, one.distance)
    else:
        low, high = _matched(value - known, variance)
    return Estimate(
        value=value,
        low=known + max(low, sum(one.read for one in sampled)),
        high=known + high,
        kind=Kind.INTERVAL,
        relative_error=_part(math.sqrt(variance), value),
    )


def _count(strata: Sequence[_Drawn], level: str) -> Estimate:
    known = sum(one.seen[level] for one in strata if one.census)
    sampled = [one for one in strata if not one.census]
    if not sampled:
        return Estimate.exact(known)
    seen = sum(one.seen[level] for one in sampled)
    value = sum(one.seen[level] / one.distance for one in sampled)
    variance = sum(one.seen[level] * one.unseen / one.distance**2 for one in sampled)
    if len(sampled) == 1 or not seen:
        # Where none was seen, none of the strata can have more than the one that was read least.
        least = min(sampled, key=lambda one: one.distance)
        if least.distance < LARGE_SHARE:
            low, high = (limit / least.distance for limit in poisson_limits(seen))
        else:
            low, high = size_limits(seen, least.distance)
    else:
        low, high = _matched(value, variance)
    return Estimate(
        value=known + value,
        low=known + max(low, seen),
        high=known + high,
        kind=Kind.INTERVAL if seen or known else Kind.UPPER_LIMIT,
        relative_error=_part(math.sqrt(variance), known + value) if seen else math.inf,
    )


def _rate(strata: Sequence[_Drawn], level: str) -> Estimate:
    """In %."""
    total = sum(one.total for one in strata)
    if all(one.census for one in strata):
        return Estimate.exact(_part(100 * sum(one.seen[level] for one in strata), total))
    share = sum(_part(one.total, total) * _part(one.seen[level], one.above) for one in strata)
    # So many logs of an endless population would say as much.
    spread = sum(
        _part(one.total, total) ** 2 * one.unseen / one.above for one in strata if not one.census
    )
    worth = max(1, round(1 / max(spread, _LEAST_SPREAD)))
    low, high = share_limits(share * worth, worth)
    kind = Kind.INTERVAL
    if share <= 0:
        kind = Kind.UPPER_LIMIT
    elif all(one.seen[level] == one.above for one in strata):
        share, low, high = 1.0, share_limits(worth, worth)[0], 1.0
        kind = Kind.LOWER_LIMIT
    return Estimate(
        value=100 * share,
        low=100 * low,
        high=100 * high,
        kind=kind,
        relative_error=math.sqrt((1 - share) / (share * worth)) if share > 0 else math.inf,
    )


def _matched(value: float, variance: float) -> tuple[float, float]:
    """Limits of a sum: those of a Poisson count, not a whole one, of the same relative error."""
    if not variance:
        return value, value
    count = value**2 / variance
    low, high = poisson_limits(count)
    return value * low / count, value * high / count


def _part(of: float, whole: float) -> float:
    return of / whole if whole else 0.0


#: The estimates that a level has, by its name.
COUNTS: dict[str, Callable[[Estimates], Estimate]] = {
    ERROR: lambda found: found.error,
    WARN: lambda found: found.warn,
    INFO: lambda found: found.info,
}

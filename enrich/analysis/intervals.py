"""Limits of 95 % intervals for counts, shares and sizes of populations. Pure.

Counts and shares are discrete, so that exact limits (Garwood, Clopper–Pearson) cover too much.
Their mid-p forms count half of what was seen itself, and cover 95 % on average. The distributions
are the incomplete gamma and beta functions (DLMF 8.11.4, 8.9.2, 8.17.22); scipy, which has them,
is larger than all that a worker needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

#: What lies below a lower limit, and above an upper one.
TAIL = 0.025

_STEPS = 10_000
_PRECISION = 1e-13
_TINY = 1e-300


def gamma_cdf(shape: float, x: float) -> float:
    """Regularised lower incomplete gamma function P(shape, x); 1 for shape 0.

    For a whole shape: the chance that a Poisson count of mean x is at least `shape`.
    """
    if shape <= 0:
        return 1.0
    if x <= 0:
        return 0.0
    scale = math.exp(shape * math.log(x) - x - math.lgamma(shape))
    if x < shape + 1:
        term = total = 1.0 / shape
        for n in range(1, _STEPS):
            term *= x / (shape + n)
            total += term
            if term < total * _PRECISION:
                break
        return min(1.0, scale * total)
    above = _continued_fraction(
        lambda n: -n * (n - shape), lambda n: x - shape + 2 * n + 1, first=x - shape + 1
    )
    return min(1.0, max(0.0, 1.0 - scale / above))


def beta_cdf(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function I_x(a, b); 1 for a = 0, and 0 for b = 0.

    I_p(k, n - k + 1) is the chance that of n trials of chance p at least k succeed.
    """
    if a <= 0 or x >= 1:
        return 1.0
    if b <= 0 or x <= 0:
        return 0.0
    if x > (a + 1) / (a + b + 2):
        return 1.0 - beta_cdf(b, a, 1 - x)
    scale = math.exp(
        a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    )

    def numerator(n: int) -> float:
        m = n // 2
        if n % 2:
            return -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        return m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))

    fraction = _continued_fraction(numerator, lambda n: 1.0, first=1.0)
    return min(1.0, scale / (a * fraction))


def _continued_fraction(
    numerator: Callable[[int], float], denominator: Callable[[int], float], *, first: float
) -> float:
    """first + n(1) / (d(1) + n(2) / (d(2) + …)), by Lentz's method."""
    value = first or _TINY
    above, below = value, 0.0
    for n in range(1, _STEPS):
        below = denominator(n) + numerator(n) * below or _TINY
        above = denominator(n) + numerator(n) / above or _TINY
        below = 1.0 / below
        change = above * below
        value *= change
        if abs(change - 1.0) < _PRECISION:
            break
    return value


@lru_cache(maxsize=4096)
def poisson_limits(seen: float) -> tuple[float, float]:
    """Means of a Poisson count that go with `seen`: Garwood's limits, mid-p.

    Of 0 the upper one is 3.00, which is also the 95 % limit of one side alone.
    """

    def at_least(mean: float) -> float:
        return (gamma_cdf(seen, mean) + gamma_cdf(seen + 1, mean)) / 2

    least = _root(at_least, TAIL, 0.0) if seen else 0.0
    return least, _root(at_least, 1 - TAIL, seen)


def size_limits(seen: float, share: float) -> tuple[float, float]:
    """Sizes of a set of which each is seen with the chance `share`, where `seen` of it were: by the
    binomial distribution, mid-p. At least `seen`."""

    def at_least(size: float) -> float:
        at = beta_cdf(seen, size - seen + 1, share)
        return (at + beta_cdf(seen + 1, size - seen, share)) / 2

    least = _root(at_least, TAIL, seen) if seen else 0.0
    return least, _root(at_least, 1 - TAIL, seen)


@lru_cache(maxsize=4096)
def gamma_limits(rank: int) -> tuple[float, float]:
    """Limits of (size × distance) for the `rank`-th of many uniform distances: Gamma(rank)."""

    def below(x: float) -> float:
        return gamma_cdf(rank, x)

    return _root(below, TAIL, 0.0), _root(below, 1 - TAIL, float(rank))


def rank_limits(rank: int, distance: float) -> tuple[float, float]:
    """Sizes of a set of uniform numbers of which the `rank`-th smallest is `distance`: by the beta
    distribution of that number. Exact; at least `rank`."""

    def below(size: float) -> float:
        return beta_cdf(rank, size - rank + 1, distance)

    return _root(below, TAIL, float(rank)), _root(below, 1 - TAIL, float(rank))


@lru_cache(maxsize=4096)
def share_limits(seen: float, of: float) -> tuple[float, float]:
    """Shares that go with `seen` of `of`: Clopper–Pearson's limits, mid-p.

    Neither need be a whole number: a sample of much of a small population says as much as a larger
    one of a large population.
    """

    def at_least(share: float) -> float:
        at = beta_cdf(seen, of - seen + 1, share)
        return (at + beta_cdf(seen + 1, of - seen, share)) / 2

    least = _root(at_least, TAIL, 0.0, 1.0) if seen else 0.0
    most = _root(at_least, 1 - TAIL, 0.0, 1.0) if seen < of else 1.0
    return least, most


def _root(
    rising: Callable[[float], float], target: float, low: float, high: float | None = None
) -> float:
    """Where a function that rises has a value: `low` where it is above that there already.

    Args:
        high: where it is above; looked for if None.
    """
    at_low = rising(low) - target
    if at_low >= 0:
        return low
    if high is None:
        high = 2 * low + 1
        while (at_high := rising(high) - target) < 0:
            low, at_low, high = high, at_high, 2 * high
    else:
        at_high = rising(high) - target
    # The Illinois method: a secant whose end that stays counts half the next time.
    side = 0
    for _ in range(200):
        middle = (low * at_high - high * at_low) / (at_high - at_low)
        value = rising(middle) - target
        if value == 0 or high - low <= 1e-10 * high:
            return middle
        if value < 0:
            low, at_low = middle, value
            if side < 0:
                at_high /= 2
            side = -1
        else:
            high, at_high = middle, value
            if side > 0:
                at_low /= 2
            side = 1
        if abs(value) < 1e-10:
            return middle
    return (low + high) / 2

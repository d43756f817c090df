"""How long it took, counted in buckets: what p50 and p99 are read from.

Bounds are fixed, so that counts of many consumers and of many versions can be added. They lie close
together around a batch's time-out, where the promise of real time is kept or broken.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from pydantic import BaseModel

#: Upper bounds, in seconds; what took longer stands under `inf`.
BOUNDS = (
    0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 6.5, 7.0, 8.0, 9.0,
    10.0, 12.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
)  # fmt: skip

_BEYOND = "inf"
_LABELS = (*(f"{bound:g}" for bound in BOUNDS), _BEYOND)


class Latency(BaseModel):
    """Seconds from a log's own time to its vector, of some logs."""

    logs: int = 0
    #: The sum, for a mean and for Prometheus.
    seconds: float = 0.0
    #: None where nothing was counted. Of what took longer than an hour only that is known.
    p50: float | None = None
    p99: float | None = None
    #: How many took at most so many seconds, by bound; those beyond the last are in `logs` alone.
    within: dict[str, int] = {}


def label(seconds: float) -> str:
    """The bucket of a length of time. A log whose clock is ahead took no time."""
    return _LABELS[bisect_left(BOUNDS, seconds)]


def buckets(seconds: Iterable[float]) -> Counter[str]:
    return Counter(map(label, seconds))


def latency(counted: Mapping[str, int], milliseconds: int) -> Latency:
    """Read buckets; labels that are not known are of another version, and left out."""
    counts = [max(0, counted.get(name, 0)) for name in _LABELS]
    within, so_far = {}, 0
    for name, count in zip(_LABELS[:-1], counts[:-1], strict=True):
        so_far += count
        within[name] = so_far
    return Latency(
        logs=sum(counts),
        seconds=milliseconds / 1000,
        p50=quantile(counts, 0.5),
        p99=quantile(counts, 0.99),
        within=within if sum(counts) else {},
    )


def quantile(counts: Sequence[int], share: float) -> float | None:
    """What a share of all took at most: within a bucket, as if they lay evenly.

    Args:
        counts: one more than BOUNDS.
    """
    total = sum(counts)
    if not total:
        return None
    wanted, below = share * total, 0
    for place, count in enumerate(counts[:-1]):
        if count and below + count >= wanted:
            lower = BOUNDS[place - 1] if place else 0.0
            return round(lower + (BOUNDS[place] - lower) * (wanted - below) / count, 3)
        below += count
    return BOUNDS[-1]

"""How long runs and chunks took, counted in buckets in Redis, for the histograms of `/metrics`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from enrich.models import Durations

#: Upper bounds in seconds; whole numbers, so that Lua and Python write them alike. Counts under one
#: of these names are kept for years: bounds may be added and never moved.
RUN_BOUNDS = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200)
CHUNK_BOUNDS = (1, 2, 3, 5, 8, 12, 20, 30, 45, 60, 90, 120, 300, 600)

#: Of lengths of time beyond the last bound.
BEYOND = "inf"


def bucket_of(milliseconds: int, bounds: Sequence[int]) -> str:
    """The bucket of a length of time, as `took` in _common.lua."""
    return next((str(bound) for bound in bounds if milliseconds <= bound * 1000), BEYOND)


def durations(totals: Mapping[str, int], name: str, bounds: Sequence[int]) -> Durations:
    """Read buckets.

    Args:
        totals: Redis' fields and their values.
        name: of the buckets: `run` or `chunk`.
    """
    within, so_far = {}, 0
    for bound in bounds:
        so_far += totals.get(f"{name}|{bound}", 0)
        within[str(bound)] = so_far
    within["+Inf"] = so_far + totals.get(f"{name}|{BEYOND}", 0)
    return Durations(within=within, seconds=totals.get(f"{name}|ms", 0) / 1000)

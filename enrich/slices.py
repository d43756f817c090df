"""Many values in parts that a server takes at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def slices(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """`values` in order, in parts of `size`; the last one may be smaller."""
    for start in range(0, len(values), size):
        yield values[start : start + size]

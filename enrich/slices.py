"""Many values in parts that a server takes at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def slices(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """`values` in order, in parts of `size`; the last one may be smaller."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def bounded(
    values: Iterable[T], size_of: Callable[[T], int], *, size: int, count: int
) -> Iterator[list[T]]:
    """`values` in order, in parts of at most `count` and of `size` in all; a larger one alone."""
    part: list[T] = []
    filled = 0
    for value in values:
        more = size_of(value)
        if part and (len(part) == count or filled + more > size):
            yield part
            part, filled = [], 0
        part.append(value)
        filled += more
    if part:
        yield part

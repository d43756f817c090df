"""Which index the writes of others wait for: a bulk lasts as long as the slowest index in it.

OpenSearch does not say how long it took for each index of a bulk. So the indices of a slow one are
written one by one the next time, and their times are held against each other: where all of them are
slow, OpenSearch is, and none is to blame.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Set
from contextlib import contextmanager

#: A bulk that takes longer is slow, if others do not.
SLOW_SECONDS = 1.0
#: So many times as long as the quickest bulk without it.
SLOWER = 4.0
#: Bulks that are compared with.
REMEMBERED = 16


class SlowIndices:
    """Watches the bulks of one worker process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._suspects: set[str] = set()
        self._last: deque[tuple[frozenset[str], float]] = deque(maxlen=REMEMBERED)

    def to_part(self, indices: Collection[str]) -> Set[str]:
        """Those of the indices that are to be written in requests of their own now."""
        return self._suspects.intersection(indices)

    @contextmanager
    def watch(self, indices: Collection[str], blamed: set[str]) -> Iterator[None]:
        """Time one bulk; an index that the others would wait for is added to `blamed`."""
        begun = self._clock()
        yield
        seconds = self._clock() - begun
        if len(indices) > 1:
            if seconds > SLOW_SECONDS:
                self._suspects.update(indices)
        else:
            self._suspects.difference_update(indices)
            others = [took for of, took in self._last if of.isdisjoint(indices)]
            if seconds > SLOW_SECONDS and others and seconds > SLOWER * min(others):
                blamed.update(indices)
        self._last.append((frozenset(indices), seconds))

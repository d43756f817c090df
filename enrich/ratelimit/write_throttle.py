"""How fast OpenSearch is written to, all workers together: ENRICH_WRITE_PACE.

Searches of others share a small node with us; building the graph of the vectors takes all the
processor that it can get. Held back, and in smaller bodies, writing leaves them their share.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import redis
from more_itertools import sliced

from enrich.ratelimit.gcra import MAX_WAIT_SECONDS, Permits, Priority

T = TypeVar("T")

#: Bodies in a second, at least: a body is not much longer than what others wait for it.
BODIES_PER_SECOND = 10


class WriteThrottle:
    """Permits to write documents."""

    def __init__(
        self,
        connection: redis.Redis,
        prefix: str,
        per_second: int,
        sleep: Callable[[float], None] = time.sleep,
        priority: Priority = Priority.BACKGROUND,
    ) -> None:
        self._per_second = per_second
        # Documents are the second bucket's; the first has no limit.
        keys = [f"{prefix}pace:{name}" for name in ("bodies", "documents")]
        self._permits = Permits(
            connection,
            [*keys, f"{keys[0]}:pause", f"{prefix}pace:priority"],
            "the write throttle",
            burst_seconds=0,
            priority=priority,
            sleep=sleep,
        )

    def batches(self, writes: Sequence[T]) -> Iterator[Sequence[T]]:
        """Cut writes into batches, and give each when its permit is there.

        Raises:
            NoPermit: all of them together would have been waited for longer than ten seconds;
                what was given before stays done.
        """
        if not self._per_second:
            yield writes
            return
        size = max(1, self._per_second // BODIES_PER_SECOND)
        timeout = MAX_WAIT_SECONDS
        for batch in sliced(writes, size):
            timeout -= self._permits.acquire(self._limits, len(batch), timeout)
            yield batch

    def _limits(self) -> tuple[int, int]:
        return 0, 60 * self._per_second

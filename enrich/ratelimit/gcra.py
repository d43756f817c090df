"""Permits that all workers of all hosts share: buckets in Redis that refill evenly.

The generic cell rate algorithm, in one script. No limiter of a well-kept library takes permits
of two buckets at once, or neither, and says how long to wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib.resources import files

import redis

from enrich.errors import RateLimited
from enrich.redis_client import translated

#: A task waits this long in its slot; while permits are short, no other could use the slot better.
MAX_WAIT_SECONDS = 10.0


class Permits:
    """Two buckets and a pause that holds both."""

    def __init__(
        self,
        connection: redis.Redis,
        keys: Sequence[str],
        what: str,
        *,
        burst_seconds: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """
        Args:
            keys: names of the first bucket, of the second, and of the pause.
            what: of which there are permits, as told to people.
            burst_seconds: how much of a limit may be taken at once after a rest.
        """
        self._keys = list(keys)
        self._what = what
        self._burst = int(burst_seconds * 1000)
        self._sleep = sleep
        script = files("enrich.ratelimit").joinpath("gcra.lua").read_text()
        self._take = connection.register_script(script)

    def acquire(
        self, limits: Callable[[], tuple[int, int]], amount: int, timeout: float = MAX_WAIT_SECONDS
    ) -> float:
        """Take one of the first bucket and `amount` of the second; the seconds waited for it.

        Args:
            limits: what each bucket gives in a minute, 0 without a limit; asked before each try.

        Raises:
            RateLimited: no permit within `timeout` seconds; `retry_after` says when.
        """
        waited = 0.0
        while True:
            first, second = limits()
            with translated():
                left = self._take(keys=self._keys, args=[first, second, amount, self._burst]) / 1000
            if left <= 0:
                return waited
            if waited + left > timeout:
                raise RateLimited(f"{self._what} has no permit left", left)
            self._sleep(left)
            waited += left

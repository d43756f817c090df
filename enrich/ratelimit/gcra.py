"""Permits that all workers of all hosts share: buckets in Redis that refill evenly.

The generic cell rate algorithm, in one script. No limiter of a well-kept library takes permits
of two buckets at once, or neither, and says how long to wait.

Callers with priority find room: what they take at once is left to them by all others, and while one
of them waits the others take nothing. They note in Redis what they take; where no such note is,
everybody is alike.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from enum import Enum
from importlib.resources import files

import redis

from enrich.errors import NoPermit
from enrich.redis_client import translated

#: A task waits this long in its slot; while permits are short, no other could use the slot better.
MAX_WAIT_SECONDS = 10.0

#: A caller with priority is reckoned with for so long after it was seen last.
NOTED_SECONDS = 120.0

#: Of the most that callers with priority took at once, half is forgotten after so long.
HALF_LIFE_SECONDS = 600.0

#: What is left to them at least, as a part of what may be taken at once.
LEAST_RESERVE = 1 / 2

#: What the others may take at once at least, in seconds' worth: how long one with priority waits
#: for them where its own take nearly all.
LEAST_ROOM_SECONDS = 0.5

#: How long the others stay away after the time that a caller with priority waits for; it comes a
#: little later than that, and often wants more.
AWAY_SECONDS = 0.2

#: A caller with priority is waited for no longer than this; by then it has come again.
LONGEST_NOTED_WAIT_SECONDS = 30.0

#: What was taken is known for two minutes, and noted for longer than that.
COUNTED_SECONDS = 180


class Priority(Enum):
    """Whose turn it is when permits are short."""

    #: Somebody waits for the answer: live logs, a search.
    REALTIME = "realtime"
    #: Takes what is left: a backlog.
    BACKGROUND = "background"


class Permits:
    """Two buckets and a pause that holds both."""

    def __init__(
        self,
        connection: redis.Redis,
        keys: Sequence[str],
        what: str,
        *,
        burst_seconds: float,
        priority: Priority = Priority.BACKGROUND,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """
        Args:
            keys: names of the first bucket, of the second, of the pause, and of the notes of
                callers with priority; and, where what is taken is to be counted, of the count.
            what: of which there are permits, as told to people.
            burst_seconds: how much of a limit may be taken at once after a rest.
        """
        self._keys = list(keys)
        self._what = what
        self._burst = int(burst_seconds * 1000)
        self._first = priority is Priority.REALTIME
        self._sleep = sleep
        self._redis = connection
        scripts = files("enrich.ratelimit")
        self._take = connection.register_script(scripts.joinpath("gcra.lua").read_text())
        self._note = connection.register_script(scripts.joinpath("priority.lua").read_text())

    def acquire(
        self, limits: Callable[[], tuple[int, int]], amount: int, timeout: float = MAX_WAIT_SECONDS
    ) -> float:
        """Take one of the first bucket and `amount` of the second; the seconds waited for it.

        Args:
            limits: what each bucket gives in a minute, 0 without a limit; asked before each try.

        Raises:
            NoPermit: no permit within `timeout` seconds; `retry_after` says when.
        """
        waited = 0.0
        while True:
            first, second = limits()
            with translated():
                left = self._try(first, second, amount)
            if left <= 0:
                return waited
            if waited + left > timeout:
                raise NoPermit(f"{self._what} has no permit left", left)
            self._sleep(left)
            waited += left

    def announce(self, limits: tuple[int, int]) -> None:
        """Let the others leave room before a caller with priority wants anything."""
        with translated():
            self._noted(*limits, 0, taken=False, left=0)

    def room_seconds(self) -> float:
        """How much of the second bucket's limit one request should take at most, so that those with
        priority find room at once; infinite where there are none, and for these themselves."""
        if self._first:
            return math.inf
        with translated():
            reserve = self._redis.hget(self._keys[3], "second")
        return math.inf if reserve is None else (self._burst - float(reserve)) / 1000

    def _try(self, first: int, second: int, amount: int) -> float:
        args = [first, second, amount, self._burst, int(not self._first), COUNTED_SECONDS]
        left: float = self._take(keys=self._keys, args=args) / 1000
        if self._first and (first or second or left > 0):
            self._noted(first, second, amount, taken=left <= 0, left=left)
        return left

    def _noted(self, first: int, second: int, amount: int, *, taken: bool, left: float) -> None:
        worth = [60_000 / first if first else 0, 60_000 * amount / second if second else 0]
        self._note(
            keys=self._keys[3:4],
            args=[
                *worth,
                int(taken),
                int(1000 * min(left, LONGEST_NOTED_WAIT_SECONDS)),
                LEAST_RESERVE * self._burst,
                max(0, self._burst - 1000 * LEAST_ROOM_SECONDS),
                1000 * HALF_LIFE_SECONDS,
                1000 * AWAY_SECONDS,
                int(1000 * NOTED_SECONDS),
            ],
        )

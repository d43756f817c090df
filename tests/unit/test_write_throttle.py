"""The write throttle: documents a second for all workers, in small batches, bounded waiting.

Every test runs on fakeredis and on a real server. Nothing sleeps: each wait moves the bucket's
time by as much.
"""

from __future__ import annotations

import time

import pytest
import redis

from enrich.errors import RateLimited
from enrich.ratelimit.gcra import MAX_WAIT_SECONDS
from enrich.ratelimit.write_throttle import BODIES_PER_SECOND, WriteThrottle

BUCKET = "enrich:pace:documents"


class Paced:
    """Two workers at one pace, whose waits are recorded."""

    def __init__(self, connection: redis.Redis, per_second: int) -> None:
        self._redis = connection
        self.slept: list[float] = []
        self.one = WriteThrottle(connection, "enrich:", per_second, self._sleep)
        self.other = WriteThrottle(connection, "enrich:", per_second, self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        due = self._redis.get(BUCKET)
        if due:
            self._redis.set(BUCKET, float(due) - seconds * 1000, keepttl=True)


def test_without_a_pace_everything_goes_at_once_and_redis_is_not_asked(
    connection: redis.Redis,
) -> None:
    paced = Paced(connection, 0)
    assert [list(portion) for portion in paced.one.batches(range(1000))] == [list(range(1000))]
    assert not paced.slept
    assert not connection.exists(BUCKET)


def test_portions_are_small_whole_and_in_order(connection: redis.Redis) -> None:
    paced = Paced(connection, 200)
    portions = [list(portion) for portion in paced.one.batches(range(95))]
    assert [n for portion in portions for n in portion] == list(range(95))
    assert max(map(len, portions)) == 200 // BODIES_PER_SECOND


def test_two_workers_share_one_pace(connection: redis.Redis) -> None:
    paced = Paced(connection, 100)
    for _ in zip(paced.one.batches(range(200)), paced.other.batches(range(200)), strict=True):
        pass
    # 400 documents at 100 a second; the last portion is not waited for by anybody.
    assert sum(paced.slept) == pytest.approx(4 - 10 / 100, abs=0.5)


def test_a_slot_is_held_for_ten_seconds_at_most_and_what_was_given_is_done(
    connection: redis.Redis,
) -> None:
    paced = Paced(connection, 10)
    given: list[int] = []
    began = time.monotonic()
    with pytest.raises(RateLimited) as refused:
        for portion in paced.one.batches(range(1000)):
            given += portion
    assert sum(paced.slept) <= MAX_WAIT_SECONDS
    assert len(given) >= 90
    # What the clock went on by itself gives more.
    assert len(given) <= 102 + 10 * (time.monotonic() - began)
    assert refused.value.retry_after is not None and 0 < refused.value.retry_after <= 1


def test_a_pace_of_one_document_still_gets_on(connection: redis.Redis) -> None:
    paced = Paced(connection, 1)
    assert list(paced.one.batches([7])) == [[7]]

"""The API's quota: one for all workers, bounded waiting, pauses that hold everybody.

Every test runs on fakeredis and on a real server. Nothing sleeps: waits are recorded, and time is
moved by taking the buckets back.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from time import monotonic

import fakeredis
import pytest
import redis

from enrich.embedding.client import MAX_RETRY_AFTER_SECONDS
from enrich.errors import RateLimited, ServerUnavailable
from enrich.ratelimit.api_quota import ApiQuota, Limits, QuotaUsage
from enrich.ratelimit.gcra import MAX_WAIT_SECONDS

PREFIXES = (f"t{n}:" for n in itertools.count())


class Refused(Exception):
    """Raised in place of sleeping, where nothing should."""


def never(seconds: float) -> None:
    raise Refused(seconds)


class Time:
    """Sleeping moves the budget's time, by as much, without waiting."""

    def __init__(self, connection: redis.Redis, prefix: str) -> None:
        self.redis = connection
        self.prefix = prefix
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        for bucket in ("requests", "tokens"):
            key = f"{self.prefix}rate:{bucket}"
            due = self.redis.get(key)
            if due:
                self.redis.set(key, float(due) - seconds * 1000, keepttl=True)
        pause = self.redis.pttl(f"{self.prefix}rate:pause")
        if pause > 0:
            self.redis.pexpire(f"{self.prefix}rate:pause", max(1, int(pause - seconds * 1000)))
            while self.redis.exists(f"{self.prefix}rate:pause") and pause <= seconds * 1000 + 5:
                pass


Build = Callable[..., ApiQuota]


@pytest.fixture
def prefix() -> str:
    return next(PREFIXES)


@pytest.fixture
def budget(connection: redis.Redis, prefix: str) -> Build:
    def build(
        requests: int = 0, tokens: int = 0, sleep: Callable[[float], None] = never
    ) -> ApiQuota:
        return ApiQuota(
            connection,
            prefix,
            requests_per_minute=requests,
            tokens_per_minute=tokens,
            sleep=sleep,
        )

    return build


def turns_at_once(budget: ApiQuota, tokens: int, most: int = 100) -> int:
    """Turns that are given without a wait."""
    for taken in range(most):
        try:
            budget.acquire(tokens)
        except (Refused, RateLimited):
            return taken
    return most


def test_without_a_limit_there_is_always_a_turn(budget: Build) -> None:
    assert budget().limits() == (0, 0)
    assert turns_at_once(budget(), tokens=10**9) == 100


@pytest.mark.parametrize(
    ("requests", "tokens", "each", "turns"),
    [
        (60, 0, 1000, 6),
        (50, 0, 0, 5),
        (0, 6000, 100, 6),
        (0, 6000, 600, 1),
        # The dearer of the two decides.
        (60, 6000, 300, 2),
        (10, 6000, 1, 1),
    ],
)
def test_burst_is_a_tenth_of_a_minute_of_the_scarcer(
    budget: Build, requests: int, tokens: int, each: int, turns: int
) -> None:
    # One more where the machine stands still for so long that it has refilled.
    assert turns_at_once(budget(requests, tokens), each) in (turns, turns + 1)


def test_all_workers_share_one_budget(budget: Build) -> None:
    workers = [budget(requests=60) for _ in range(3)]
    assert sum(turns_at_once(worker, 1) for worker in workers) in (6, 7)


def test_request_dearer_than_the_burst_has_its_turn_when_the_bucket_is_full(
    budget: Build,
) -> None:
    worker = budget(tokens=1000)
    worker.acquire(5000)
    # It is paid back before anybody else has a turn.
    with pytest.raises(RateLimited) as limited:
        worker.acquire(1)
    assert limited.value.retry_after is not None
    assert 200 < limited.value.retry_after <= 300


@pytest.mark.parametrize(("billed", "turns"), [(100, 5), (300, 3), (50, 5)])
def test_what_was_billed_beyond_the_estimate_is_charged(
    budget: Build, billed: int, turns: int
) -> None:
    worker = budget(tokens=6000)
    worker.acquire(100)
    worker.correct(100, billed)
    assert turns_at_once(worker, 100) in (turns, turns + 1)


def test_turn_that_is_refused_takes_nothing(
    budget: Build, connection: redis.Redis, prefix: str
) -> None:
    worker = budget(requests=6000, tokens=60)
    worker.acquire(60)
    before = connection.get(f"{prefix}rate:requests")
    for _ in range(20):
        with pytest.raises((RateLimited, Refused)):
            worker.acquire(60)
    assert connection.get(f"{prefix}rate:requests") == before


def test_sustained_rate_is_the_limit(budget: Build, connection: redis.Redis, prefix: str) -> None:
    time = Time(connection, prefix)
    worker = budget(requests=120, sleep=time.sleep)
    began = monotonic()
    for _ in range(12 + 240):
        worker.acquire(10)
    # After the burst of twelve, half a second for each; what a slow machine needs meanwhile has not
    # to be slept.
    assert sum(time.slept) + monotonic() - began > 0.95 * 120
    assert sum(time.slept) < 1.05 * 120
    assert max(time.slept) <= 0.51


def test_wait_is_at_most_ten_seconds_and_then_says_how_long(
    budget: Build, connection: redis.Redis, prefix: str
) -> None:
    time = Time(connection, prefix)
    worker = budget(requests=3, sleep=time.sleep)
    worker.acquire(1)
    with pytest.raises(RateLimited) as limited:
        worker.acquire(1)
    assert time.slept == []
    assert limited.value.retry_after is not None
    assert 10 < limited.value.retry_after <= 20


def test_waits_add_up_to_at_most_ten_seconds(budget: Build) -> None:
    # Others take each turn first: whatever is slept, nothing comes free.
    slept: list[float] = []
    worker = budget(requests=12, sleep=slept.append)
    other = budget(requests=12)
    turns_at_once(other, 1)
    with pytest.raises(RateLimited):
        worker.acquire(1)
    assert slept
    assert sum(slept) <= MAX_WAIT_SECONDS


def test_pause_holds_everybody_and_is_waited_for(
    budget: Build, connection: redis.Redis, prefix: str
) -> None:
    budget().pause(3)
    time = Time(connection, prefix)
    worker = budget(sleep=time.sleep)
    worker.acquire(1)
    assert 0 < sum(time.slept) <= 3


def test_long_pause_is_not_waited_for_in_the_slot(budget: Build) -> None:
    budget().pause(40)
    with pytest.raises(RateLimited) as limited:
        budget(requests=60).acquire(1)
    assert limited.value.retry_after is not None
    assert 30 < limited.value.retry_after <= 40


@pytest.mark.parametrize(("first", "then"), [(40, 20), (20, 40)])
def test_longer_pause_stands(budget: Build, first: float, then: float) -> None:
    worker = budget()
    worker.pause(first)
    worker.pause(then)
    with pytest.raises(RateLimited) as limited:
        worker.acquire(1)
    assert limited.value.retry_after is not None
    assert 30 < limited.value.retry_after <= 40


@pytest.mark.parametrize("seconds", [0.0, -1.0, 0.0001, MAX_RETRY_AFTER_SECONDS])
def test_any_pause_that_a_provider_may_ask_for_is_taken(budget: Build, seconds: float) -> None:
    budget().pause(seconds)


def test_limits_are_learned_by_all_where_none_is_set(budget: Build) -> None:
    budget().learn(Limits(requests=500, tokens=90_000))
    assert budget().limits() == (500, 90_000)
    budget().learn(Limits(requests=600))
    assert budget().limits() == (600, 90_000)
    budget().learn(Limits())
    assert budget().limits() == (600, 90_000)


def test_what_is_set_goes_before_what_is_learned(budget: Build) -> None:
    budget().learn(Limits(requests=500, tokens=90_000))
    assert budget(requests=7).limits() == (7, 90_000)
    assert budget(tokens=8).limits() == (500, 8)
    assert budget(requests=7, tokens=8).limits() == (7, 8)


@pytest.mark.parametrize(
    ("own", "learned"),
    [
        ({"requests": 7, "tokens": 8}, (False, False)),
        ({"requests": 7}, (False, True)),
        ({"tokens": 8}, (True, False)),
        ({}, (True, True)),
    ],
)
def test_it_is_told_of_each_limit_whether_it_was_learned(
    budget: Build, own: dict[str, int], learned: tuple[bool, bool]
) -> None:
    quota = budget(**own)
    # Where none is known, none was learned.
    usage = quota.usage()
    assert (usage.requests_learned, usage.tokens_learned) == (False, False)
    quota.learn(Limits(requests=500, tokens=90_000))
    usage = quota.usage()
    assert (usage.requests_learned, usage.tokens_learned) == learned


def test_learned_limit_binds(budget: Build) -> None:
    budget().learn(Limits(requests=60))
    assert turns_at_once(budget(), 1) in (6, 7)


def test_nothing_is_kept_for_ever(budget: Build, connection: redis.Redis, prefix: str) -> None:
    worker = budget(requests=60, tokens=1000)
    worker.acquire(10)
    worker.pause(5)
    worker.learn(Limits(requests=60))
    keys = connection.keys(f"{prefix}*")
    assert len(keys) == 5
    assert all(connection.pttl(key) > 0 for key in keys)


def test_redis_that_is_away_is_told_in_our_words() -> None:
    server = fakeredis.FakeServer()
    worker = ApiQuota(
        fakeredis.FakeRedis(server=server),
        "enrich:",
        requests_per_minute=0,
        tokens_per_minute=0,
        sleep=never,
    )
    server.connected = False
    calls = (
        lambda: worker.acquire(1),
        lambda: worker.pause(1),
        lambda: worker.learn(Limits(requests=1)),
    )
    for call in calls:
        with pytest.raises(ServerUnavailable, match="Redis cannot be reached"):
            call()


def test_usage_tells_limits_what_is_taken_and_a_pause(budget: Build) -> None:
    usage = budget(60, 6000).usage()
    assert (usage.requests_taken, usage.tokens_taken, usage.paused_seconds) == (0, 0, 0)
    quota = budget(60, 6000)
    quota.acquire(300)
    quota.pause(50)
    usage = quota.usage()
    assert (usage.requests_per_minute, usage.tokens_per_minute) == (60, 6000)
    # A second's worth and three seconds' worth, of the six that may be taken at once.
    assert 0 < usage.requests_taken <= 1 / 6 and 0 < usage.tokens_taken <= 1 / 2
    assert 0 < usage.paused_seconds <= 50
    assert budget().usage().requests_per_minute == 0


def later(connection: redis.Redis, prefix: str, minutes: int) -> None:
    """As if so many whole minutes had gone by."""
    connection.hincrby(f"{prefix}rate:minute", "minute", -minutes)


def within_one_minute(
    connection: redis.Redis, do: Callable[[], list[QuotaUsage]]
) -> list[QuotaUsage]:
    """What was told, none of it in another minute of Redis' clock than the rest."""
    while True:
        connection.flushall()
        began = connection.time()[0] // 60
        told = do()
        if connection.time()[0] // 60 == began:
            return told


def test_usage_tells_what_all_took_within_a_minute(
    budget: Build, connection: redis.Redis, prefix: str
) -> None:
    # So few that nobody waits.
    one, other = budget(100, 10_000), budget(100, 10_000)

    def use() -> list[QuotaUsage]:
        told = [one.usage()]
        one.acquire(200)
        other.acquire(300)
        told.append(one.usage())
        # What was billed counts once that is known.
        one.correct(200, 700)
        told.append(one.usage())
        one.correct(2_000, 0)
        told.append(one.usage())
        one.correct(0, 1_500)
        later(connection, prefix, 1)
        told.append(one.usage())
        other.acquire(100)
        told.append(one.usage())
        later(connection, prefix, 2)
        return [*told, one.usage()]

    used = [(u.requests_used, u.tokens_used) for u in within_one_minute(connection, use)]
    assert used[:4] == [(0, 0), (0.02, 0.05), (0.02, 0.1), (0.02, 0)]
    # Of the minute before, what is not over yet.
    (fading, fading_tokens), (both, both_tokens), over = used[4:]
    assert 0 < fading <= 0.02 and 0 < fading_tokens <= 0.05
    assert 0.01 < both <= 0.03 and 0.01 < both_tokens <= 0.06
    assert over == (0, 0)


def test_without_a_limit_nothing_is_counted(
    budget: Build, connection: redis.Redis, prefix: str
) -> None:
    budget().acquire(10)
    assert not connection.keys(f"{prefix}*")
    budget(requests=50).acquire(10)
    usage = budget(requests=50).usage()
    assert 0 < usage.requests_used <= 0.02 and usage.tokens_used == 0

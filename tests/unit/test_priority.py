"""Live logs go first: callers with priority find room, and a backlog takes what they leave.

Every test runs on fakeredis and on a real server. Time is moved by taking back what is noted in
Redis; what the machine's clock goes on by meanwhile gives permits, and is reckoned in.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from dataclasses import dataclass, field
from time import monotonic

import pytest
import redis

from enrich.embedding.batching import PART_OF_ROOM, REQUEST_SECONDS
from enrich.errors import RateLimited
from enrich.ratelimit import gcra
from enrich.ratelimit.api_quota import BURST_SECONDS, ApiQuota
from enrich.ratelimit.gcra import NOTED_SECONDS, Priority
from enrich.ratelimit.write_throttle import BODIES_PER_SECOND, WriteThrottle
from tasks.retry import MAX_PAUSE_SECONDS

PREFIX = "enrich:"

#: How often the caller with priority comes.
EVERY_SECONDS = 5.0

GREEDY = 4

#: Of what the greedy get, so much may be lost to what stands between them and the last millisecond.
LOST = 0.03


def move_time(connection: redis.Redis, kind: str, seconds: float) -> None:
    """As if so many seconds had gone by: whatever is due is due sooner."""
    keys = ("requests", "tokens") if kind == "rate" else ("documents",)
    for name in keys:
        key = f"{PREFIX}{kind}:{name}"
        due = connection.get(key)
        if due:
            connection.set(key, float(due) - seconds * 1000, keepttl=True)
    notes = f"{PREFIX}{kind}:priority"
    for name in ("first_due", "second_due", "waits", "at"):
        if due := connection.hget(notes, name):
            connection.hset(notes, name, str(float(due) - seconds * 1000))


def quota(connection: redis.Redis, priority: Priority, requests: int, tokens: int) -> ApiQuota:
    return ApiQuota(
        connection,
        PREFIX,
        requests_per_minute=requests,
        tokens_per_minute=tokens,
        priority=priority,
    )


@dataclass
class Drain:
    """Callers who want all that they can get, and one who comes each five seconds."""

    connection: redis.Redis
    requests: int
    tokens: int
    #: Tokens of each request of the caller with priority.
    wants: int
    #: Of the greedy; as many as the quota advises if 0.
    request_tokens: int = 0
    live: Priority = Priority.REALTIME
    #: Who go first and come all at the same time.
    consumers: int = 1
    waits: list[float] = field(default_factory=list)
    #: Requests and tokens of each.
    took: Counter[str] = field(default_factory=Counter)
    longest_told: float = 0.0
    #: What the machine needed meanwhile, in which permits came as well.
    real_seconds: float = 0.0

    def run(self, seconds: float) -> Drain:
        first = quota(self.connection, self.live, self.requests, self.tokens)
        greedy = [
            quota(self.connection, Priority.BACKGROUND, self.requests, self.tokens)
            for _ in range(GREEDY)
        ]
        now = 0.0
        began = monotonic()
        order = itertools.count()
        queue = [(0.0, next(order), n) for n in range(GREEDY)]
        # They come when the backlog has been drained for a while.
        came = {-1 - n: EVERY_SECONDS for n in range(self.consumers)}
        queue += [(at, next(order), who) for who, at in came.items()]
        heapq.heapify(queue)
        while queue[0][0] < seconds:
            at, _, who = heapq.heappop(queue)
            if at > now:
                move_time(self.connection, "rate", at - now)
                now = at
            caller = first if who < 0 else greedy[who]
            amount = self.wants if who < 0 else self.request_tokens or self._advised(caller)
            try:
                caller.acquire(amount, timeout=0.0)
            except RateLimited as limited:
                assert limited.retry_after
                if who >= 0:
                    self.longest_told = max(self.longest_told, limited.retry_after)
                next_try = now + limited.retry_after
            else:
                name = "live" if who < 0 else "backlog"
                self.took.update({f"{name} requests": 1, f"{name} tokens": amount})
                # Its request takes a while, and the next is made then.
                next_try = now + 0.3
                if who < 0:
                    self.waits.append(now - came[who])
                    came[who] = next_try = max(came[who] + EVERY_SECONDS, now)
            heapq.heappush(queue, (next_try, next(order), who))
        self.real_seconds = monotonic() - began
        return self

    def _advised(self, caller: ApiQuota) -> int:
        if not self.tokens:
            return 5_000
        seconds = min(REQUEST_SECONDS, PART_OF_ROOM * caller.room_seconds())
        return int(self.tokens * seconds / 60)


#: Requests and tokens a minute, and tokens of each request that goes first.
QUOTAS = [
    pytest.param(60, 0, 25_000, id="requests"),
    pytest.param(20, 0, 25_000, id="few-requests"),
    pytest.param(0, 1_000_000, 25_000, id="tokens"),
    pytest.param(0, 400_000, 25_000, id="tokens-of-which-it-takes-three-quarters"),
    pytest.param(100, 1_000_000, 25_000, id="both"),
    pytest.param(30, 600_000, 25_000, id="both-small"),
]


@pytest.mark.parametrize(("requests", "tokens", "wants"), QUOTAS)
def test_who_goes_first_does_not_wait_and_the_others_get_the_rest(
    connection: redis.Redis, requests: int, tokens: int, wants: int
) -> None:
    quota(connection, Priority.REALTIME, requests, tokens).announce()
    seconds = 60.0
    drain = Drain(connection, requests, tokens, wants).run(seconds)

    assert len(drain.waits) == 11
    # The first one cannot have been reckoned with, but for what is always left.
    assert max(drain.waits[1:]) <= 0.5

    used = {
        name: (sum(drain.took[f"{who} {name}"] for who in ("live", "backlog")), limit / 60)
        for name, limit in (("requests", requests), ("tokens", tokens))
        if limit
    }
    for taken, per_second in used.values():
        assert taken <= per_second * (seconds + drain.real_seconds + BURST_SECONDS) + wants
    # One of them binds, and is used up.
    assert any(taken >= (1 - LOST) * per_second * seconds for taken, per_second in used.values())


def test_consumers_that_come_together_find_room_together(connection: redis.Redis) -> None:
    drain = Drain(connection, 0, 1_000_000, 15_000, consumers=4).run(60.0)
    assert len(drain.waits) == 4 * 11
    # At first nobody could know how many there are.
    assert max(drain.waits[8:]) <= 0.5


def test_without_priority_one_waits_behind_the_backlog(connection: redis.Redis) -> None:
    # What the test above would see if nobody yielded.
    drain = Drain(connection, 0, 1_000_000, 25_000, live=Priority.BACKGROUND).run(60.0)
    assert max(drain.waits) > 2


@pytest.mark.parametrize(("requests", "tokens"), [(10, 0), (0, 250_000)])
def test_who_takes_all_leaves_nothing_and_no_run_halts_over_it(
    connection: redis.Redis, requests: int, tokens: int
) -> None:
    # 300,000 tokens and 12 requests a minute are wanted first.
    Drain(connection, requests, tokens, 25_000).run(60.0)
    drain = Drain(connection, requests, tokens, 25_000).run(60.0)
    assert len(drain.waits) > 5
    # What the machine's own time gave may be taken, and one request before the first who waits.
    assert drain.took["backlog requests"] <= 1 + drain.real_seconds * requests / 60 or tokens
    assert drain.took["backlog tokens"] <= 10_000 + drain.real_seconds * tokens / 60 or requests
    assert 0 < drain.longest_told < MAX_PAUSE_SECONDS


def test_one_large_request_of_the_backlog_is_waited_for_once_at_most(
    connection: redis.Redis,
) -> None:
    # It has a text that is larger than what is left, and cannot be divided.
    drain = Drain(connection, 0, 600_000, 10_000, request_tokens=100_000).run(120.0)
    assert max(drain.waits) <= 10
    assert drain.took["backlog requests"] >= 5


def test_a_backlog_alone_has_the_whole_burst_and_leaves_no_note(connection: redis.Redis) -> None:
    alone = quota(connection, Priority.BACKGROUND, 60, 0)
    assert alone.room_seconds() == math.inf
    taken = 0
    with pytest.raises(RateLimited):
        while taken < 100:
            alone.acquire(1, timeout=0.0)
            taken += 1
    assert taken in (6, 7)
    assert not connection.exists(f"{PREFIX}rate:priority")


def test_half_of_the_burst_is_left_before_anything_is_wanted(connection: redis.Redis) -> None:
    first = quota(connection, Priority.REALTIME, 60, 6_000)
    first.announce()
    other = quota(connection, Priority.BACKGROUND, 60, 6_000)
    assert other.room_seconds() == BURST_SECONDS / 2
    assert first.room_seconds() == math.inf
    with pytest.raises(RateLimited):
        for _ in range(100):
            other.acquire(50, timeout=0.0)
    for _ in range(3):
        assert first.acquire(50, timeout=0.0) == 0


def test_nothing_is_given_to_others_while_one_waits(
    connection: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However slow the machine is.
    monkeypatch.setattr(gcra, "AWAY_SECONDS", 60)
    first = quota(connection, Priority.REALTIME, 0, 6_000)
    other = quota(connection, Priority.BACKGROUND, 0, 6_000)
    for _ in range(6):
        first.acquire(100, timeout=0.0)
    with pytest.raises(RateLimited) as limited:
        first.acquire(600, timeout=0.0)
    assert limited.value.retry_after is not None
    move_time(connection, "rate", limited.value.retry_after)
    # The bucket is full; but whoever waits for that has it.
    with pytest.raises(RateLimited):
        other.acquire(1, timeout=0.0)
    assert first.acquire(600, timeout=0.0) == 0


def test_after_a_pause_live_logs_come_first(connection: redis.Redis) -> None:
    first = quota(connection, Priority.REALTIME, 0, 0)
    other = quota(connection, Priority.BACKGROUND, 0, 0)
    other.pause(20)
    with pytest.raises(RateLimited):
        first.acquire(1, timeout=0.0)
    connection.delete(f"{PREFIX}rate:pause")
    with pytest.raises(RateLimited):
        other.acquire(1, timeout=0.0)
    assert first.acquire(1, timeout=0.0) == 0
    move_time(connection, "rate", 21)
    assert other.acquire(1, timeout=0.0) == 0


def test_who_is_gone_is_forgotten(connection: redis.Redis) -> None:
    first = quota(connection, Priority.REALTIME, 60, 0)
    first.acquire(1)
    assert 0 < connection.pttl(f"{PREFIX}rate:priority") <= 1000 * NOTED_SECONDS
    connection.delete(f"{PREFIX}rate:priority")
    assert quota(connection, Priority.BACKGROUND, 60, 0).room_seconds() == math.inf


def test_an_exception_is_forgotten_by_halves(connection: redis.Redis) -> None:
    first = quota(connection, Priority.REALTIME, 0, 6_000)
    other = quota(connection, Priority.BACKGROUND, 0, 6_000)
    first.acquire(500)
    assert other.room_seconds() == pytest.approx(1.0, abs=0.1)
    move_time(connection, "rate", 300)
    first.acquire(1)
    assert 1.0 < other.room_seconds() < 3
    move_time(connection, "rate", 3_600)
    first.acquire(1)
    assert other.room_seconds() == BURST_SECONDS / 2


class NotNow(Exception):
    """Raised in place of sleeping."""


def never(seconds: float) -> None:
    raise NotNow


def test_small_bulk_of_live_logs_goes_between_the_large_ones(
    connection: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However slow the machine is.
    monkeypatch.setattr(gcra, "AWAY_SECONDS", 60)
    pace = 100
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        move_time(connection, "pace", seconds)

    first = WriteThrottle(connection, PREFIX, pace, sleep, Priority.REALTIME)
    other = WriteThrottle(connection, PREFIX, pace, never)
    assert len(next(iter(other.batches(range(1000))))) == pace // BODIES_PER_SECOND
    written = 0
    for body in first.batches(range(50)):
        written += len(body)
        if slept:
            # It was seen to wait; whatever others try between its bodies has to wait for the last.
            move_time(connection, "pace", 1 / BODIES_PER_SECOND)
            with pytest.raises((NotNow, RateLimited)):
                next(iter(other.batches(range(1000))))
    assert written == 50
    assert sum(slept) <= 50 / pace
    move_time(connection, "pace", 61)
    assert list(next(iter(other.batches(range(10)))))

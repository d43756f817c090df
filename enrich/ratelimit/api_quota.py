"""One quota of requests and tokens a minute, shared by all workers of all hosts through Redis.

Set by ENRICH_REQUESTS_PER_MINUTE and ENRICH_TOKENS_PER_MINUTE; where those are 0, learned from the
provider's `x-ratelimit-*` headers. A pause that the provider asks for holds everybody. Live logs go
first (`Priority`): a backlog takes what they leave.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import redis

from enrich.ratelimit.gcra import COUNTED_SECONDS, MAX_WAIT_SECONDS, Permits, Priority
from enrich.redis_client import translated

#: What may be taken at once after a rest: a tenth of a minute's worth.
BURST_SECONDS = 6.0

#: A limit that was learned is forgotten after this; the next answer teaches it again.
LEARNED_SECONDS = 3600


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the provider allows, as its `x-ratelimit-*` headers say; None where they do not."""

    requests: int | None = None
    tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class QuotaUsage:
    """The quota as it stands."""

    #: 0 where no limit is known.
    requests_per_minute: int
    tokens_per_minute: int
    #: Whether the limit is what the provider's headers said, and not a setting.
    requests_learned: bool
    tokens_learned: bool
    #: Of what may be taken at once, 0 to 1 and more: from 1 on, callers wait.
    requests_taken: float
    tokens_taken: float
    #: Of what a minute allows, what was taken within the last one: 0 to 1, and somewhat more after
    #: a rest. By all callers together: runs, consumers, the HTTP service.
    requests_used: float
    tokens_used: float
    #: How long the provider asked everybody to wait, from now; 0 if it did not.
    paused_seconds: float


def _taken(until: bytes | None, now: float) -> float:
    """The part of a bucket that is not refilled yet."""
    return max(0.0, float(until or 0) - now) / (BURST_SECONDS * 1000)


def _within_a_minute(counted: dict[bytes, bytes], bucket: str, now: float) -> float:
    """What was taken of a bucket within the last minute: all of this one, and as much of the one
    before as is not over yet, taken evenly.

    Args:
        counted: what gcra.lua noted.
        now: milliseconds.
    """
    minute, over = divmod(now / 60_000, 1)
    this = int(counted.get(bucket.encode(), 0))
    last = int(counted.get(f"last_{bucket}".encode(), 0))
    noted = int(counted.get(b"minute", 0))
    if noted == minute - 1:
        this, last = 0, this
    elif noted != minute:
        return 0.0
    # What was billed may be less than what was taken.
    return max(0.0, this + last * (1 - over))


class ApiQuota:
    """Permits for requests to the embeddings API."""

    def __init__(
        self,
        connection: redis.Redis,
        prefix: str,
        *,
        requests_per_minute: int,
        tokens_per_minute: int,
        priority: Priority = Priority.BACKGROUND,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._redis = connection
        self._requests = requests_per_minute
        self._tokens = tokens_per_minute
        prefix = f"{prefix}rate:"
        self._keys = [prefix + "requests", prefix + "tokens", prefix + "pause"]
        self._learned = prefix + "learned"
        self._counted = prefix + "minute"
        self._permits = Permits(
            connection,
            [*self._keys, prefix + "priority", self._counted],
            "the quota of requests",
            burst_seconds=BURST_SECONDS,
            priority=priority,
            sleep=sleep,
        )

    def acquire(self, tokens: int, timeout: float = MAX_WAIT_SECONDS) -> float:
        """Take a permit for a request of about so many tokens; the seconds that were waited for it.

        Raises:
            NoPermit: no permit within `timeout` seconds; `retry_after` says when.
        """
        return self._permits.acquire(self.limits, tokens, timeout)

    def announce(self) -> None:
        """Let others leave room before a caller with priority wants a permit: within the next two
        minutes, or until it announces itself again."""
        self._permits.announce(self.limits())

    def room_seconds(self) -> float:
        """How many seconds' worth of the limit of tokens a request should take at most; infinite
        while nobody with priority was seen lately, and for these themselves."""
        return self._permits.room_seconds()

    def pause(self, seconds: float) -> None:
        """Hold all workers, as the provider asked; a longer pause is never shortened."""
        wanted = max(1, int(seconds * 1000))
        with translated():
            if self._redis.pttl(self._keys[2]) < wanted:
                self._redis.set(self._keys[2], 1, px=wanted)

    def correct(self, tokens: int, billed: int) -> None:
        """Charge the bucket for what a request was billed beyond (or below) what was asked for."""
        limit = self.limits()[1]
        if limit and billed != tokens:
            with translated():
                pipe = self._redis.pipeline(transaction=False)
                pipe.incrbyfloat(self._keys[1], 60_000 * (billed - tokens) / limit)
                # A bucket that is not there was full, and what it is charged is soon over.
                pipe.pexpire(self._keys[1], 120_000)
                pipe.hincrby(self._counted, "second", billed - tokens)
                pipe.expire(self._counted, COUNTED_SECONDS)
                pipe.execute()

    def limits(self) -> tuple[int, int]:
        """Requests and tokens a minute in force; 0 where none is known."""
        if self._requests and self._tokens:
            return self._requests, self._tokens
        with translated():
            learned = self._redis.hmget(self._learned, "requests", "tokens")
        return self._requests or int(learned[0] or 0), self._tokens or int(learned[1] or 0)

    def usage(self) -> QuotaUsage:
        """What is in force, how much of it is taken, and for how long everybody is held."""
        requests, tokens = self.limits()
        with translated():
            pipe = self._redis.pipeline(transaction=False)
            pipe.mget(self._keys[:2])
            pipe.pttl(self._keys[2])
            pipe.hgetall(self._counted)
            pipe.time()
            (first, second), pause, counted, (seconds, micros) = pipe.execute()
        now = seconds * 1000 + micros / 1000
        return QuotaUsage(
            requests_per_minute=requests,
            tokens_per_minute=tokens,
            requests_learned=bool(requests) and not self._requests,
            tokens_learned=bool(tokens) and not self._tokens,
            requests_taken=_taken(first, now) if requests else 0.0,
            tokens_taken=_taken(second, now) if tokens else 0.0,
            requests_used=_within_a_minute(counted, "first", now) / requests if requests else 0.0,
            tokens_used=_within_a_minute(counted, "second", now) / tokens if tokens else 0.0,
            paused_seconds=max(0, pause) / 1000,
        )

    def learn(self, limits: Limits) -> None:
        """Remember what the provider's headers said."""
        told = {
            name: value
            for name, value in (("requests", limits.requests), ("tokens", limits.tokens))
            if value
        }
        if told:
            with translated():
                self._redis.hset(self._learned, mapping=told)  # type: ignore[arg-type]
                self._redis.expire(self._learned, LEARNED_SECONDS)

"""Each key's own rate of requests, shared by all processes of the service through Redis."""

from __future__ import annotations

import redis

from enrich.api.keys import Key
from enrich.ratelimit.gcra import Permits

#: What a key may send at once after a rest, in seconds' worth of its rate.
BURST_SECONDS = 6.0


class KeyRates:
    """Permits by key."""

    def __init__(self, connection: redis.Redis, prefix: str) -> None:
        self._redis = connection
        self._prefix = prefix
        self._permits: dict[str, Permits] = {}

    def admit(self, key: Key) -> None:
        """Take a permit at once.

        Raises NoPermit: the rate is used up; `retry_after` says for how long.
        """
        permits = self._permits.get(key.name)
        if permits is None:
            base = f"{self._prefix}api:rate:{key.name}"
            permits = Permits(
                self._redis,
                [base, f"{base}:tokens", f"{base}:pause", f"{base}:priority"],
                f"the key {key.name}",
                burst_seconds=BURST_SECONDS,
            )
            self._permits[key.name] = permits
        permits.acquire(lambda: (key.requests_per_minute, 0), 0, timeout=0.0)

"""Which API keys brought vectors lately, told apart by a short digest."""

from __future__ import annotations

import redis

from enrich.redis_client import translated


class WorkingKeys:
    """One entry for each key, with an end in time."""

    def __init__(self, connection: redis.Redis, prefix: str) -> None:
        self._redis = connection
        self._prefix = f"{prefix}key:"

    def note(self, digest: str, seconds: float) -> None:
        """A success speaks for the key that brought it, for so long."""
        with translated():
            self._redis.set(self._prefix + digest, 1, px=int(seconds * 1000))

    def another_works(self, digest: str) -> bool:
        """Whether some worker got vectors lately with a key other than this one."""
        mine = (self._prefix + digest).encode()
        with translated():
            names = self._redis.scan_iter(match=self._prefix + "*", count=1000)
            return any(name != mine for name in names)

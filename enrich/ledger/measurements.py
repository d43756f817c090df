"""What was measured on the way and plans go by: bytes and tokens of texts, and how fast runs were.

Kept beyond the records of runs, of which an idle day pushes out all that did anything.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from enrich.ledger.keyspace import Keyspace, text
from enrich.redis_client import translated

#: Runs whose speed is kept, the newest.
MOST_SPEEDS = 50

#: A run that wrote fewer vectors says nothing of speed.
LEAST_VECTORS = 500


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What answered requests to an endpoint have taken, as it billed them itself."""

    requests: int = 0
    inputs: int = 0
    #: UTF-8 bytes of the texts as they were sent.
    bytes: int = 0
    tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class RunSpeed:
    """What one run wrote and asked for, and in how many seconds."""

    vectors: int
    inputs: int
    seconds: float


class Measurements:
    """Added to by workers, read by plans."""

    def __init__(self, keys: Keyspace) -> None:
        self._keys = keys

    def add_usage(self, space: str, used: Usage) -> None:
        """Add what requests of a vector space have taken."""
        key = self._keys.key(f"usage:{space}")
        with translated():
            pipe = self._keys.redis.pipeline(transaction=True)
            for name, amount in asdict(used).items():
                pipe.hincrby(key, name, amount)
            pipe.execute()

    def usage(self, space: str) -> Usage:
        """All that was added."""
        with translated():
            raw = self._keys.redis.hgetall(self._keys.key(f"usage:{space}"))
        stored = {text(name): int(value) for name, value in raw.items()}
        return Usage(**{name: stored.get(name, 0) for name in asdict(Usage())})

    def add_run(self, number: int, speed: RunSpeed) -> None:
        """Keep how fast a run was that met no trouble."""
        if speed.vectors < LEAST_VECTORS:
            return
        place = str(number % MOST_SPEEDS)
        with translated():
            self._keys.redis.hset(
                self._keys.key("speeds"), place, json.dumps({"run": number, **asdict(speed)})
            )

    def runs(self) -> list[RunSpeed]:
        """Those kept, the newest first."""
        with translated():
            raw = self._keys.redis.hvals(self._keys.key("speeds"))
        stored = sorted((json.loads(text(value)) for value in raw), key=lambda one: -one["run"])
        return [
            RunSpeed(vectors=one["vectors"], inputs=one["inputs"], seconds=one["seconds"])
            for one in stored
        ]

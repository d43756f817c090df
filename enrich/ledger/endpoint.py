"""What was found out about embeddings endpoints: their limits, and whose vectors were compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from enrich.ledger.keyspace import Keyspace, text
from enrich.redis_client import translated

#: What an endpoint was found to take is looked for again after an hour.
LIMITS_KEPT_SECONDS = 3600


class Endpoint:
    """Recorded for all workers, by vector space."""

    def __init__(self, keys: Keyspace) -> None:
        self._keys = keys

    def last(self) -> dict[str, str]:
        """URL, model and dimensions of the endpoint that was compared last; {} if none was."""
        with translated():
            raw = self._keys.redis.hgetall(self._keys.key("endpoint"))
        return {text(name): text(value) for name, value in raw.items()}

    def limits(self) -> dict[str, dict[str, int]]:
        """What endpoints were found to take, by vector space; {} an hour after the last finding."""
        with translated():
            raw = self._keys.redis.hgetall(self._keys.key("endpoint_limits"))
        return {text(space): json.loads(found) for space, found in raw.items()}

    def record_limits(self, space: str, found: Mapping[str, int]) -> None:
        """Record what an endpoint was found to take: names and numbers."""
        key = self._keys.key("endpoint_limits")
        with translated():
            pipe = self._keys.redis.pipeline(transaction=True)
            pipe.hset(key, space, json.dumps(dict(found)))
            pipe.expire(key, LIMITS_KEPT_SECONDS)
            pipe.execute()

    def compared(self, model: str, dimensions: int) -> tuple[str, str] | None:
        """URL and place of the logs for which the vectors of this model were compared last, or
        None."""
        with translated():
            raw = self._keys.redis.hget(self._keys.key("spaces"), json.dumps([model, dimensions]))
        if raw is None:
            return None
        url, where = json.loads(raw)
        return str(url), str(where)

    def record_compared(self, model: str, dimensions: int, url: str, where: str) -> None:
        """The endpoint's vectors of this model may stand beside those that logs have."""
        last: dict[Any, Any] = {"url": url, "model": model, "dimensions": dimensions}
        with translated():
            pipe = self._keys.redis.pipeline(transaction=True)
            pipe.hset(
                self._keys.key("spaces"), json.dumps([model, dimensions]), json.dumps([url, where])
            )
            pipe.hset(self._keys.key("endpoint"), mapping=last)
            pipe.execute()

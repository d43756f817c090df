"""Documents that fail and cannot be marked: recorded here, so that no run takes them again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from enrich.ledger.keyspace import Keyspace, text
from enrich.redis_client import translated

#: Documents recorded; beyond, they are found again by the next run.
REFUSED_KEPT = 10_000


class RefusedDocuments:
    """One entry for each document whose mapping refuses the mark of its failure."""

    def __init__(self, keys: Keyspace) -> None:
        self._redis = keys.redis
        self._key = keys.key("refused")

    def record(self, index: str, id: str, code: str) -> None:
        """Args: code: why the document fails, as it would have been marked."""
        value = json.dumps(
            {"error": code, "since": datetime.now(UTC).isoformat(timespec="seconds")}
        )
        with translated():
            if self._redis.hlen(self._key) < REFUSED_KEPT:
                self._redis.hset(self._key, f"{index}/{id}", value)

    def all(self) -> dict[tuple[str, str], dict[str, str]]:
        """(index, _id) → error and since."""
        with translated():
            raw = self._redis.hgetall(self._key)
        return {
            (index, id): json.loads(value)
            for key, value in raw.items()
            for index, _, id in (text(key).partition("/"),)
        }

    def forget(self, documents: Sequence[tuple[str, str]]) -> None:
        if documents:
            with translated():
                self._redis.hdel(self._key, *(f"{index}/{id}" for index, id in documents))

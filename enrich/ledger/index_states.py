"""Which indices take writes: what one worker found out about an index, kept for all of them.

An index whose engine has died answers no write at all, and OpenSearch keeps the memory of each
write that it never answers, until it refuses those of all other indices too. So one worker tries
one log, while the others put that index off. Losing these keys costs another try.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any

import redis

from enrich.redis_client import translated

#: What was proven holds for a day: a node may be replaced by one that lacks a library.
WORKS_SECONDS = 24 * 3600
#: An index that does not answer is tried again after so long: somebody may have fixed it.
DEAD_SECONDS = 300
#: A try whose worker was lost is given to another one after so long.
TRIAL_SECONDS = 120
#: An index that refused writes for now, or could not be read, comes behind the others for so long.
TROUBLE_SECONDS = 60


class IndexState(Enum):
    """What is known of an index."""

    #: Nothing: an index of Lucene's engine is written to, one of a native engine is tried first.
    UNKNOWN = ""
    WORKS = "works"
    #: A write to it was not answered, while OpenSearch answered something else.
    IN_DOUBT = "doubt"
    DEAD = "dead"


class IndexStates:
    """States of indices, each with an end in time."""

    def __init__(self, connection: redis.Redis, prefix: str) -> None:
        self._redis = connection
        self._prefix = prefix

    def of(self, indices: Sequence[str]) -> dict[str, IndexState]:
        """The state of each index."""
        if not indices:
            return {}
        with translated():
            stored = self._redis.mget([self._key(index) for index in indices])
        known: dict[Any, IndexState] = {state.value.encode(): state for state in IndexState}
        return {
            index: known.get(value, IndexState.UNKNOWN)
            for index, value in zip(indices, stored, strict=True)
        }

    def note(self, index: str, state: IndexState) -> None:
        seconds = DEAD_SECONDS if state is IndexState.DEAD else WORKS_SECONDS
        with translated():
            self._redis.set(self._key(index), state.value, ex=seconds)

    def lease(self, index: str, owner: str) -> bool:
        """Whether `owner` shall try the index; several want to, one does."""
        with translated():
            key = self._key(index, "trial:")
            return bool(self._redis.set(key, owner, nx=True, ex=TRIAL_SECONDS))

    def release(self, index: str) -> None:
        """The try is over."""
        with translated():
            self._redis.delete(self._key(index, "trial:"))

    def tried_now(self, indices: Sequence[str]) -> set[str]:
        """Those of the indices that some worker is trying."""
        return self._with("trial:", indices)

    def note_trouble(self, indices: Iterable[str]) -> None:
        """These refused writes for now, or could not be read."""
        with translated():
            for index in indices:
                self._redis.set(self._key(index, "trouble:"), "1", ex=TROUBLE_SECONDS)

    def in_trouble(self, indices: Sequence[str]) -> set[str]:
        """Those of the indices that were in trouble a short while ago."""
        return self._with("trouble:", indices)

    def _with(self, part: str, indices: Sequence[str]) -> set[str]:
        """Those of the indices that have such a key."""
        if not indices:
            return set()
        with translated():
            stored = self._redis.mget([self._key(index, part) for index in indices])
        return {index for index, value in zip(indices, stored, strict=True) if value}

    def _key(self, index: str, part: str = "") -> str:
        return f"{self._prefix}index:{part}{index}"

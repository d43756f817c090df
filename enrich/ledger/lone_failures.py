"""Texts that failed by themselves in one run, kept in Redis for the next one.

Losing these keys costs another run before a log is marked.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import redis

from enrich.models import LoneFailure
from enrich.redis_client import translated

#: A text that has not failed again within a week is judged from the start.
KEPT_SECONDS = 7 * 24 * 3600


class KeptLoneFailures:
    """Of one vector space, each with an end in time."""

    def __init__(self, connection: redis.Redis, prefix: str, space: str) -> None:
        self._redis = connection
        self._prefix = f"{prefix}lone_failure:{space}:"

    def read(self, fingerprint: str) -> LoneFailure | None:
        with translated():
            stored = self._redis.get(self._prefix + fingerprint)
        if not stored:
            return None
        occasion, way = json.loads(stored)
        return LoneFailure(str(occasion), str(way))

    def note(self, fingerprint: str, failure: LoneFailure) -> None:
        value = json.dumps([failure.occasion, failure.way])
        with translated():
            self._redis.set(self._prefix + fingerprint, value, ex=KEPT_SECONDS)

    def forget(self, fingerprints: Iterable[str]) -> None:
        keys = [self._prefix + fingerprint for fingerprint in fingerprints]
        if keys:
            with translated():
                self._redis.delete(*keys)

"""Known vectors in Redis: by fingerprint, within one vector space, bounded in number and age.

Only vectors that came from the API are kept, never one read from a log: who can write a log must
not be able to plant a vector for others. Beside the vectors stand short claims, so that two
chunks that meet the same new text at once pay for it once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import redis

from enrich.redis_connection import translated
from enrich.settings import Settings

Vector = npt.NDArray[np.float32]


class VectorCache:
    """`vector:{space}:{fingerprint}` → little-endian float32."""

    def __init__(self, connection: redis.Redis, settings: Settings) -> None:
        self._redis = connection
        self._dimensions = settings.embedding_dimensions
        self._ttl = settings.enrich_cache_ttl_seconds
        self._max_entries = settings.enrich_cache_max_entries
        base = f"{settings.enrich_redis_prefix}vector:{space(settings)}:"
        self._vectors = base
        self._claims = f"{base}claim:"
        #: Sorted set of fingerprints by last use, which bounds the number of entries.
        self._uses = f"{base}uses"

    def close(self) -> None:
        self._redis.close()

    def get(self, fingerprints: Sequence[str]) -> dict[str, Vector]:
        """Those that are known. An entry of a wrong length counts as unknown."""
        if not fingerprints or not self._max_entries:
            return {}
        with translated():
            values: list[bytes | None] = self._redis.mget(  # type: ignore[assignment]
                [self._vectors + f for f in fingerprints]
            )
        known: dict[str, Vector] = {}
        for fingerprint, value in zip(fingerprints, values, strict=True):
            if value is not None and len(value) == 4 * self._dimensions:
                vector = np.frombuffer(value, dtype="<f4")
                if np.isfinite(vector).all() and vector.any():
                    known[fingerprint] = vector
        if known:
            self._touch(known)
        return known

    def known(self, fingerprints: Sequence[str]) -> set[str]:
        """Those that are known, without reading their vectors."""
        if not fingerprints or not self._max_entries:
            return set()
        with translated():
            pipe = self._redis.pipeline(transaction=False)
            for fingerprint in fingerprints:
                pipe.exists(self._vectors + fingerprint)
            found = pipe.execute()
        return {f for f, there in zip(fingerprints, found, strict=True) if there}

    def put(self, vectors: Mapping[str, Vector]) -> None:
        """Keep vectors and let the longest unused go beyond ENRICH_CACHE_MAX_ENTRIES."""
        if not vectors or not self._max_entries:
            return
        now = self._now()
        with translated():
            pipe = self._redis.pipeline(transaction=False)
            for fingerprint, vector in vectors.items():
                value = np.asarray(vector, dtype="<f4").tobytes()
                pipe.set(self._vectors + fingerprint, value, ex=self._ttl)
            pipe.zadd(self._uses, dict.fromkeys(vectors, now))
            pipe.zremrangebyscore(self._uses, 0, now - self._ttl)
            pipe.expire(self._uses, self._ttl)
            pipe.zcard(self._uses)
            excess = pipe.execute()[-1] - self._max_entries
            if excess > 0:
                oldest: list[tuple[bytes, float]] = self._redis.zpopmin(  # type: ignore[assignment]
                    self._uses, excess
                )
                self._redis.unlink(*(self._vectors + name.decode() for name, _ in oldest))

    def claim(self, fingerprints: Sequence[str], owner: str, seconds: float) -> set[str]:
        """Announce that `owner` will embed these texts; those that nobody else has announced."""
        if not fingerprints:
            return set()
        with translated():
            pipe = self._redis.pipeline(transaction=False)
            for fingerprint in fingerprints:
                key = self._claims + fingerprint
                pipe.set(key, owner, nx=True, px=max(1, int(seconds * 1000)))
                pipe.get(key)
            answers = pipe.execute()
        mine = owner.encode()
        return {f for f, holder in zip(fingerprints, answers[1::2], strict=True) if holder == mine}

    def unclaim(self, fingerprints: Iterable[str]) -> None:
        keys = [self._claims + fingerprint for fingerprint in fingerprints]
        if keys:
            with translated():
                self._redis.unlink(*keys)

    def _touch(self, fingerprints: Iterable[str]) -> None:
        now = self._now()
        with translated():
            self._redis.zadd(self._uses, dict.fromkeys(fingerprints, now), xx=True)

    def _now(self) -> float:
        # Redis' clock, as for everything: a host that is ahead would drop the others' entries.
        with translated():
            seconds, micros = self._redis.time()
        return float(seconds + micros / 1e6)


def space(settings: Settings) -> str:
    """Name of the vector space: model, dimensions and endpoint, in twelve hex digits."""
    parts = (settings.embedding_model, str(settings.embedding_dimensions), settings.openai_base_url)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]

"""Where vectors that were paid for were written, so that none is paid for twice.

There are more texts than the cache can hold. For each vector that came from the API, a log that has
it is recorded, with a digest: who can write a log can give it any vector, but one that matches the
digest is the API's. So it may serve every project, as the cache does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import numpy as np
import redis
from more_itertools import sliced

from enrich.embedding.cache import NAMES_AT_ONCE, space
from enrich.embedding.endpoint import Purpose
from enrich.models import LogLocation, Reference
from enrich.redis_client import translated
from enrich.settings import Settings
from enrich.vectors import BYTES, Vector

#: Places for each vector that the cache has room for. One takes 170 bytes, a vector 7 kB.
PLACES_PER_ENTRY = 5
#: Without a new one all are forgotten; indices do not live for ever either.
KEPT_SECONDS = 7 * 86400

# Two generations in place of an order by last use, which would cost as much again: the older one
# goes when the newer one has half of what is allowed.

#: KEYS: new, old. ARGV: fingerprints, places each on its line, half of what is allowed, seconds.
_REMEMBER = """
local names, row = {}, {}
for name in string.gmatch(ARGV[1], '[^,]+') do names[#names + 1] = name end
local n = 0
for place in string.gmatch(ARGV[2], '[^\\n]+') do
  n = n + 1
  row[#row + 1] = names[n]
  row[#row + 1] = place
end
redis.call('HSET', KEYS[1], unpack(row))
redis.call('EXPIRE', KEYS[1], ARGV[4])
if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) then
  redis.call('UNLINK', KEYS[2])
  redis.call('RENAME', KEYS[1], KEYS[2])
end
"""

#: KEYS: new, old. ARGV: fingerprints. Results the positions of those that are there, each with its
#: place.
_FIND = """
local names, found = {}, {}
for name in string.gmatch(ARGV[1], '[^,]+') do names[#names + 1] = name end
local new = redis.call('HMGET', KEYS[1], unpack(names))
local old = redis.call('HMGET', KEYS[2], unpack(names))
for i = 1, #names do
  local place = new[i] or old[i]
  if place then
    found[#found + 1] = i
    found[#found + 1] = place
  end
end
return found
"""


class VectorLocation(LogLocation, frozen=True, array_like=True):
    """A log that was given a vector, and what shows that the vector is still that one."""

    digest: str

    @classmethod
    def of(cls, reference: Reference, fingerprint: str, vector: Vector) -> VectorLocation:
        where = (reference.index, reference.id, reference.routing)
        return cls(*where, _digest(fingerprint, vector))

    def vouches_for(self, fingerprint: str, vector: Vector) -> bool:
        """Whether this is the vector that the API gave for this text."""
        return self.digest == _digest(fingerprint, vector)


def _digest(fingerprint: str, vector: Vector) -> str:
    """128 bits in 32 hex digits."""
    # A log may have anything for its fingerprint, half a surrogate pair too.
    digest = hashlib.sha256(fingerprint.encode(errors="surrogatepass"))
    digest.update(np.ascontiguousarray(vector, dtype=BYTES).data)
    return digest.hexdigest()[:32]


class VectorLocations:
    """`written:{space}:new` and `…:old`: hashes of places by fingerprint."""

    def __init__(
        self,
        connection: redis.Redis,
        settings: Settings,
        purpose: Purpose = Purpose.DOCUMENT,
    ) -> None:
        self._redis = connection
        self._settings = settings
        self._purpose = purpose
        self._keys = _keys(settings, purpose)
        self._half = PLACES_PER_ENTRY * settings.enrich_cache_max_entries // 2
        self._remember = connection.register_script(_REMEMBER)
        self._find = connection.register_script(_FIND)

    def remember(self, places: Mapping[str, VectorLocation]) -> None:
        """Keep places by fingerprint; nothing where ENRICH_CACHE_MAX_ENTRIES is 0."""
        if not places or not self._half:
            return
        lines = b"\n".join(map(msgspec.json.encode, places.values()))
        with translated():
            self._remember(
                keys=self._keys, args=[",".join(places), lines, self._half, KEPT_SECONDS]
            )

    def find(self, fingerprints: Sequence[str]) -> dict[str, VectorLocation]:
        """The places of those that are known; what stands there now is for the caller to see."""
        places: dict[str, VectorLocation] = {}
        for some in sliced(fingerprints if self._half else [], NAMES_AT_ONCE):
            with translated():
                found = self._find(keys=self._keys, args=[",".join(some)])
            for position, place in zip(found[::2], found[1::2], strict=True):
                # What cannot be read counts as unknown, as everywhere in the cache.
                with suppress(msgspec.DecodeError):
                    places[some[position - 1]] = msgspec.json.decode(place, type=VectorLocation)
        return places

    def some(self, url: str, size: int) -> list[VectorLocation]:
        """Places of vectors that the endpoint `url` gave, with the present model and width: the
        newest generation first, otherwise in no order."""
        keys = _keys(self._settings.model_copy(update={"openai_base_url": url}), self._purpose)
        places: list[VectorLocation] = []
        for key in keys:
            with translated():
                found: Any = self._redis.hscan(key, 0, count=size)[1]
            for place in found.values():
                with suppress(msgspec.DecodeError):
                    places.append(msgspec.json.decode(place, type=VectorLocation))
        return places[:size]


def _keys(settings: Settings, purpose: Purpose) -> list[str]:
    base = f"{settings.enrich_redis_prefix}written:{space(settings, purpose)}:"
    return [base + "new", base + "old"]

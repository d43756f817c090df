"""Known vectors in Redis: by fingerprint, within one vector space, bounded in number and age.

Only vectors that came from the API are kept; one read from a log only where its digest shows that
it is the API's (locations.py): who can write a log must not be able to plant a vector for
others. Beside the vectors stand short leases, so that two callers that meet the same new text at
once pay for it once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import redis
from more_itertools import sliced

from enrich.embedding.endpoint import Endpoint, Purpose
from enrich.redis_client import translated
from enrich.settings import Settings
from enrich.vectors import BYTES, Vector, is_usable

# Each move on many texts is one script with one argument for all of them, joined by commas: of what
# a worker spends on Redis, most is spent on packing arguments, one by one. Within a script, one
# command for all texts where Redis has one. Time is Redis' clock, as for everything: a host that is
# ahead would drop the others' entries.

#: KEYS: uses, the entries' prefix. ARGV: fingerprints. Results the positions of those that are
#: there; one by one only where some have expired since they were used. They count as used: the
#: chunks that want them are on their way.
_KNOWN = """
local names, used, entries = {}, {}, {}
for name in string.gmatch(ARGV[1], '[^,]+') do names[#names + 1] = name end
for i, use in ipairs(redis.call('ZMSCORE', KEYS[1], unpack(names))) do
  if use then
    used[#used + 1] = i
    entries[#entries + 1] = KEYS[2] .. names[i]
  end
end
if #used == 0 then return used end
local known, uses, t = {}, {}, redis.call('TIME')
local now, all = t[1] + t[2] / 1000000, redis.call('EXISTS', unpack(entries)) == #used
for n, i in ipairs(used) do
  if all or redis.call('EXISTS', entries[n]) == 1 then
    known[#known + 1] = i
    uses[#uses + 1] = now
    uses[#uses + 1] = names[i]
  end
end
if #known > 0 then redis.call('ZADD', KEYS[1], 'XX', unpack(uses)) end
return known
"""

#: KEYS: leases, the entries' prefix. ARGV: fingerprints, owner, milliseconds, length of a whole
#: entry, mark, whose leases may be taken. Results the positions of the leases that are the owner's
#: now; none where the entry has come about. A lease is when it ends, a mark, and whose it is. The
#: mark is `!` where a request with the text was sent.
_LEASE = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local lease = string.format('%.0f %s', now + ARGV[3], ARGV[5] .. ARGV[2])
local names, entries = {}, {}
for name in string.gmatch(ARGV[1], '[^,]+') do
  names[#names + 1] = name
  entries[#entries + 1] = KEYS[2] .. name
end
local leases = redis.call('HMGET', KEYS[1], unpack(names))
local known = redis.call('MGET', unpack(entries))
local mine, fresh = {}, {}
for i, name in ipairs(names) do
  if not (known[i] and #known[i] == tonumber(ARGV[4])) then
    local ends, sent, owner = string.match(leases[i] or '', '^(%d+) (!?)(.*)$')
    local free = not ends or tonumber(ends) <= now
    if owner ~= ARGV[2] and ARGV[6] == 'unsent' and sent == '' then free = true end
    if free or (owner == ARGV[2] and ARGV[5] == '!') then
      fresh[#fresh + 1] = name
      fresh[#fresh + 1] = lease
    end
    if free or owner == ARGV[2] then mine[#mine + 1] = i end
  end
end
if #fresh > 0 then
  redis.call('HSET', KEYS[1], unpack(fresh))
  if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
  end
end
return mine
"""

#: KEYS: leases. ARGV: fingerprints, owner. Gives back those that are still the owner's.
_RELEASE = """
local names, mine = {}, {}
for name in string.gmatch(ARGV[1], '[^,]+') do names[#names + 1] = name end
for i, lease in ipairs(redis.call('HMGET', KEYS[1], unpack(names))) do
  if lease and string.match(lease, '^%d+ !?(.*)$') == ARGV[2] then mine[#mine + 1] = names[i] end
end
if #mine > 0 then redis.call('HDEL', KEYS[1], unpack(mine)) end
"""

#: KEYS: uses. ARGV: fingerprints. Notes that known texts are used now.
_TOUCH = """
local t = redis.call('TIME')
local now = t[1] + t[2] / 1000000
local uses = {}
for name in string.gmatch(ARGV[1], '[^,]+') do
  uses[#uses + 1] = now
  uses[#uses + 1] = name
end
redis.call('ZADD', KEYS[1], 'XX', unpack(uses))
"""

#: KEYS: uses, the entries' prefix. ARGV: fingerprints, their vectors end to end, length of each,
#: seconds to live, most entries. Keeps vectors; the longest unused go.
_PUT = """
local t = redis.call('TIME')
local now = t[1] + t[2] / 1000000
local length, ttl = tonumber(ARGV[3]), tonumber(ARGV[4])
local start, uses = 1, {}
for name in string.gmatch(ARGV[1], '[^,]+') do
  local vector = string.sub(ARGV[2], start, start + length - 1)
  start = start + length
  redis.call('SET', KEYS[2] .. name, vector, 'EX', ttl)
  uses[#uses + 1] = now
  uses[#uses + 1] = name
end
redis.call('ZADD', KEYS[1], unpack(uses))
redis.call('ZREMRANGEBYSCORE', KEYS[1], 0, now - ttl)
redis.call('EXPIRE', KEYS[1], ttl)
local excess = redis.call('ZCARD', KEYS[1]) - tonumber(ARGV[5])
while excess > 0 do
  local gone, entries = redis.call('ZPOPMIN', KEYS[1], math.min(excess, 1000)), {}
  for i = 1, #gone, 2 do entries[#entries + 1] = KEYS[2] .. gone[i] end
  redis.call('UNLINK', unpack(entries))
  excess = excess - 1000
end
"""


#: Names that a script is given at once. Redis' Lua hands some 8,000 values to a command at most,
#: and a name may bring two.
NAMES_AT_ONCE = 2000


class VectorCache:
    """`vector:{space}:{fingerprint}` → little-endian float32."""

    def __init__(
        self,
        connection: redis.Redis,
        settings: Settings,
        purpose: Purpose = Purpose.DOCUMENT,
    ) -> None:
        self._redis = connection
        #: Bytes of a whole entry.
        self._length = 4 * settings.embedding_dimensions
        self._ttl = settings.enrich_cache_ttl_seconds
        self._max_entries = settings.enrich_cache_max_entries
        base = f"{settings.enrich_redis_prefix}vector:{space(settings, purpose)}:"
        self._vectors = base
        #: Hash of fingerprints that somebody is embedding; gone when nobody is.
        self._leases = f"{base}claims"
        #: Sorted set of fingerprints by last use, which bounds the number of entries.
        self._uses = f"{base}uses"
        script = connection.register_script
        self._known, self._lease, self._release = script(_KNOWN), script(_LEASE), script(_RELEASE)
        self._touch, self._put = script(_TOUCH), script(_PUT)

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
            if value is not None and len(value) == self._length:
                vector = np.frombuffer(value, dtype=BYTES)
                if is_usable(vector):
                    known[fingerprint] = vector
        if known:
            with translated():
                self._touch(keys=[self._uses], args=[",".join(known)])
        return known

    def known(self, fingerprints: Sequence[str]) -> set[str]:
        """Those that are known, without reading their vectors."""
        known: set[str] = set()
        for some in sliced(fingerprints if self._max_entries else [], NAMES_AT_ONCE):
            with translated():
                found = self._known(keys=[self._uses, self._vectors], args=[",".join(some)])
            known.update(some[position - 1] for position in found)
        return known

    def entries(self) -> int:
        """How many vectors there are, some of which may just have expired."""
        with translated():
            return int(self._redis.zcard(self._uses))

    def put(self, vectors: Mapping[str, Vector]) -> None:
        """Keep vectors and let the longest unused go beyond ENRICH_CACHE_MAX_ENTRIES."""
        if not vectors or not self._max_entries:
            return
        names = ",".join(vectors)
        numbers = np.stack(list(vectors.values())).astype(BYTES, copy=False).tobytes()
        with translated():
            self._put(
                keys=[self._uses, self._vectors],
                args=[names, numbers, self._length, self._ttl, self._max_entries],
            )

    def lease(
        self, fingerprints: Sequence[str], owner: str, seconds: float, *, unsent: bool = False
    ) -> set[str]:
        """Announce that `owner` will embed these texts.

        Args:
            unsent: take also what others have announced and not sent yet.

        Returns:
            those that nobody else has announced, and that have not become known meanwhile.
        """
        return self._lease_as("", fingerprints, owner, seconds, "unsent" if unsent else "")

    def send(self, fingerprints: Sequence[str], owner: str, seconds: float) -> set[str]:
        """Announce that `owner` sends these texts now, so that nobody else takes them.

        Returns:
            those that it shall send: nobody else has them, and they are not known.
        """
        return self._lease_as("!", fingerprints, owner, seconds, "")

    def _lease_as(
        self, mark: str, fingerprints: Sequence[str], owner: str, seconds: float, over: str
    ) -> set[str]:
        if not fingerprints:
            return set()
        names = ",".join(fingerprints)
        milliseconds = max(1, int(seconds * 1000))
        with translated():
            mine = self._lease(
                keys=[self._leases, self._vectors],
                args=[names, owner, milliseconds, self._length, mark, over],
            )
        return {fingerprints[position - 1] for position in mine}

    def release(self, fingerprints: Iterable[str], owner: str) -> None:
        """Give back what `owner` announced; another's later lease stays."""
        names = ",".join(fingerprints)
        if names:
            with translated():
                self._release(keys=[self._leases], args=[names, owner])


def space(settings: Settings, purpose: Purpose = Purpose.DOCUMENT) -> str:
    """Name of the vector space: model, dimensions, endpoint, and what is done to texts before they
    are sent, in twelve hex digits.

    Queries have another one than documents where they are sent in another way.
    """
    parts = [settings.embedding_model, str(settings.embedding_dimensions), settings.openai_base_url]
    if form := Endpoint.of(settings, purpose).form:
        parts.append(form)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]

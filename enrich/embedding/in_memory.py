"""Forms of the embedding room's parts that live in this process: for tests, and for trying things
without servers. They pass the same tests as the forms in Redis and over HTTP.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np

from enrich.embedding.client import Embedded
from enrich.embedding.locations import VectorLocation
from enrich.errors import EnrichError
from enrich.ratelimit.api_quota import Limits
from enrich.vectors import BYTES, Vector


class InMemoryUsage:
    """Adds up what is counted, and what each payer pays."""

    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()
        self.paid_by: Counter[str] = Counter()

    def count(
        self, *, micro_usd: int = 0, paid_by: Mapping[str, int] | None = None, **amounts: int
    ) -> None:
        self.counted.update(amounts)
        self.counted["micro_usd"] += micro_usd
        self.paid_by.update(paid_by or {})


def vector_of(text: str, dimensions: int) -> Vector:
    """A vector made from the text, so that a wrong one is told from a right one."""
    digest = hashlib.shake_256(text.encode()).digest(dimensions)
    return np.frombuffer(digest, np.uint8).astype(BYTES) + BYTES.type(1)


class InMemoryEmbedder:
    """Embeds without an API; a token is a word."""

    def __init__(
        self,
        dimensions: int,
        trouble: Callable[[Sequence[str]], EnrichError | None] = lambda texts: None,
    ) -> None:
        """Args: trouble: says which requests fail, and how."""
        self.dimensions = dimensions
        self.trouble = trouble
        #: What was asked for, by request; those that failed too.
        self.requests: list[list[str]] = []
        #: Texts for which no usable numbers come.
        self.invalid: set[str] = set()

    def embed(self, texts: Sequence[str]) -> Embedded:
        self.requests.append(list(texts))
        if error := self.trouble(texts):
            raise error
        vectors = [None if t in self.invalid else vector_of(t, self.dimensions) for t in texts]
        return Embedded(vectors=vectors, tokens=sum(len(text.split()) for text in texts))

    def close(self) -> None:
        """There is nothing to be closed."""


class InMemoryCache:
    """Vectors and leases in dictionaries; the longest unused vectors go."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        ttl_seconds: float = math.inf,
        max_entries: float = math.inf,
    ) -> None:
        self._clock = clock
        self._ttl = ttl_seconds
        self._max_entries = max_entries
        self._lock = threading.Lock()
        #: Each with its end; the longest unused first.
        self._vectors: dict[str, tuple[Vector, float]] = {}
        #: When each lease ends, whose it is, and whether its text was sent.
        self._leases: dict[str, tuple[float, str, bool]] = {}

    def close(self) -> None:
        """There is nothing to be closed."""

    def get(self, fingerprints: Sequence[str]) -> dict[str, Vector]:
        with self._lock:
            found = {one: self._vectors[one] for one in fingerprints if self._is_kept(one)}
            for one, entry in found.items():
                del self._vectors[one]
                self._vectors[one] = entry
            return {one: vector for one, (vector, _) in found.items()}

    def known(self, fingerprints: Sequence[str]) -> set[str]:
        return set(self.get(fingerprints))

    def put(self, vectors: Mapping[str, Vector]) -> None:
        with self._lock:
            for one, vector in vectors.items():
                self._vectors.pop(one, None)
                self._vectors[one] = vector, self._clock() + self._ttl
            while len(self._vectors) > self._max_entries:
                del self._vectors[next(iter(self._vectors))]

    def lease(
        self, fingerprints: Sequence[str], owner: str, seconds: float, *, unsent: bool = False
    ) -> set[str]:
        with self._lock:
            now = self._clock()
            mine = set()
            for one in fingerprints:
                ends, held_by, sent = self._leases.get(one, (now, "", False))
                free = ends <= now or (unsent and not sent and held_by != owner)
                if not self._is_kept(one) and (free or held_by == owner):
                    mine.add(one)
                    if free:
                        self._leases[one] = now + seconds, owner, False
            return mine

    def send(self, fingerprints: Sequence[str], owner: str, seconds: float) -> set[str]:
        mine = self.lease(fingerprints, owner, seconds)
        with self._lock:
            ends = self._clock() + seconds
            self._leases |= dict.fromkeys(mine, (ends, owner, True))
        return mine

    def release(self, fingerprints: Iterable[str], owner: str) -> None:
        with self._lock:
            for one in fingerprints:
                if self._leases.get(one, (0, "", False))[1] == owner:
                    del self._leases[one]

    def _is_kept(self, fingerprint: str) -> bool:
        return fingerprint in self._vectors and self._vectors[fingerprint][1] > self._clock()


class InMemoryLocations:
    """Where the vectors of one endpoint were written; the older half goes."""

    def __init__(self, url: str = "", most: float = math.inf) -> None:
        self._url = url
        self._half = most if most == math.inf else most // 2
        self._new: dict[str, VectorLocation] = {}
        self._old: dict[str, VectorLocation] = {}

    def find(self, fingerprints: Sequence[str]) -> dict[str, VectorLocation]:
        known = {**self._old, **self._new}
        return {one: known[one] for one in fingerprints if one in known}

    def remember(self, places: Mapping[str, VectorLocation]) -> None:
        if self._half:
            self._new |= places
        if len(self._new) >= max(1, self._half):
            self._old, self._new = self._new, {}

    def some(self, url: str, size: int) -> list[VectorLocation]:
        places = [*self._new.values(), *self._old.values()] if url == self._url else []
        return places[:size]


class InMemoryQuota:
    """Gives every permit at once."""

    def acquire(self, tokens: int, timeout: float = 0.0) -> float:
        return 0.0

    def pause(self, seconds: float) -> None:
        """Nobody is held."""

    def correct(self, tokens: int, billed: int) -> None:
        """Nothing is charged."""

    def limits(self) -> tuple[int, int]:
        return 0, 0

    def room_seconds(self) -> float:
        return math.inf

    def learn(self, limits: Limits) -> None:
        """Nothing is bounded."""


class InMemorySpending:
    """What each payer has spent today, in US dollars."""

    def __init__(self, spent: Mapping[str, float] | None = None) -> None:
        self.spent = dict(spent or {})

    def today_usd(self) -> float:
        return sum(self.spent.values())

    def over_share(self, payers: Collection[str], most_usd: float) -> set[str]:
        if len(self.spent) < 2:
            return set()
        return {payer for payer in payers if self.spent.get(payer, 0) >= most_usd}


class InMemoryKeys:
    """Which API keys brought vectors; for ever."""

    def __init__(self) -> None:
        self._digests: set[str] = set()

    def note(self, digest: str, seconds: float) -> None:
        self._digests.add(digest)

    def another_works(self, digest: str) -> bool:
        return bool(self._digests - {digest})

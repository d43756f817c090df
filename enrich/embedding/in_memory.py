"""Forms of the embedding room's parts that live in this process: for tests, and for trying things
without servers. They pass the same tests as the forms in Redis and over HTTP.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from enrich.embedding.locations import VectorLocation
from enrich.ratelimit.api_quota import Limits
from enrich.vectors import Vector


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


class InMemoryCache:
    """Vectors and leases in dictionaries; without bounds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._vectors: dict[str, Vector] = {}
        #: When each lease ends, and whose it is.
        self._leases: dict[str, tuple[float, str]] = {}

    def close(self) -> None:
        """There is nothing to be closed."""

    def get(self, fingerprints: Sequence[str]) -> dict[str, Vector]:
        with self._lock:
            return {one: self._vectors[one] for one in fingerprints if one in self._vectors}

    def known(self, fingerprints: Sequence[str]) -> set[str]:
        return self.get(fingerprints).keys() & set(fingerprints)

    def put(self, vectors: Mapping[str, Vector]) -> None:
        with self._lock:
            self._vectors.update(vectors)

    def lease(self, fingerprints: Sequence[str], owner: str, seconds: float) -> set[str]:
        with self._lock:
            now = self._clock()
            mine = set()
            for one in fingerprints:
                ends, held_by = self._leases.get(one, (now, ""))
                if one not in self._vectors and (ends <= now or held_by == owner):
                    mine.add(one)
                    if ends <= now:
                        self._leases[one] = now + seconds, owner
            return mine

    def release(self, fingerprints: Iterable[str], owner: str) -> None:
        with self._lock:
            for one in fingerprints:
                if self._leases.get(one, (0, ""))[1] == owner:
                    del self._leases[one]


class InMemoryLocations:
    """Where vectors were written; without bounds."""

    def __init__(self) -> None:
        self._places: dict[str, VectorLocation] = {}

    def find(self, fingerprints: Sequence[str]) -> dict[str, VectorLocation]:
        return {one: self._places[one] for one in fingerprints if one in self._places}

    def remember(self, places: Mapping[str, VectorLocation]) -> None:
        self._places.update(places)


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

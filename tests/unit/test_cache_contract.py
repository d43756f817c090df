"""What the vector cache and the vector locations promise, in Redis and in memory alike."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import redis

from enrich.embedding.cache import VectorCache
from enrich.embedding.in_memory import InMemoryCache, InMemoryLocations
from enrich.embedding.locations import PLACES_PER_ENTRY, VectorLocation, VectorLocations
from enrich.embedding.resolver import Cache
from enrich.models import Reference
from enrich.settings import Settings, load_settings
from enrich.vectors import Vector

DIMENSIONS = 4
PREFIXES = (f"c{n}:" for n in itertools.count())
Make = Callable[..., Cache]


def settings_with(**values: Any) -> Settings:
    wanted: dict[str, Any] = {
        "_env_file": None,
        "openai_api_key": "k",
        "embedding_dimensions": DIMENSIONS,
        "enrich_redis_prefix": next(PREFIXES),
        **values,
    }
    return load_settings(**wanted)


def vectors_of(*names: str) -> dict[str, Vector]:
    return {
        name: np.frombuffer(name.encode().ljust(DIMENSIONS, b"-")[:DIMENSIONS], np.uint8).astype(
            np.float32
        )
        for name in names
    }


class CacheContract:
    """A subclass gives `make`, which builds an empty cache; keyword arguments are settings."""

    def test_vectors_come_back_as_they_were(self, make: Make) -> None:
        cache = make()
        vectors = vectors_of("aa", "bb")
        cache.put(vectors)
        got = cache.get(["bb", "unknown", "aa"])
        assert got.keys() == {"aa", "bb"}
        for name, vector in vectors.items():
            assert got[name].dtype == np.float32
            assert got[name].tobytes() == vector.tobytes()
        assert cache.known(["bb", "unknown"]) == {"bb"}

    def test_a_page_of_any_size_can_be_asked_about(self, make: Make) -> None:
        cache = make()
        names = [f"{n:04}" for n in range(6000)]
        for start in range(0, 6000, 1000):
            cache.put(vectors_of(*names[start : start + 1000]))
        assert cache.known(["unknown", *names]) == set(names)

    def test_nothing_asked_nothing_done(self, make: Make) -> None:
        cache = make()
        cache.put({})
        cache.release([], "me")
        assert cache.get([]) == {}
        assert cache.known([]) == set()
        assert cache.lease([], "me", 10) == set()

    def test_one_of_many_pays_for_a_text(self, make: Make) -> None:
        cache = make()
        assert cache.lease(["aa", "bb"], "one", 30) == {"aa", "bb"}
        assert cache.lease(["bb", "cc"], "other", 30) == {"cc"}
        # Delivered again, the same chunk goes on.
        assert cache.lease(["aa", "cc"], "one", 30) == {"aa"}
        cache.release(["aa"], "one")
        assert cache.lease(["aa", "bb"], "other", 30) == {"aa"}

    def test_claim_ends_by_itself(self, make: Make) -> None:
        cache = make()
        assert cache.lease(["aa"], "crashed", 0.001) == {"aa"}
        assert cache.lease(["bb"], "another", 30) == {"bb"}
        while not cache.lease(["aa"], "other", 30):
            pass
        assert cache.lease(["aa", "bb"], "third", 30) == set()
        # Given back late: it is another's now.
        cache.release(["aa"], "crashed")
        assert cache.lease(["aa"], "third", 30) == set()

    def test_what_is_announced_may_be_taken_over_and_what_is_sent_may_not(self, make: Make) -> None:
        cache = make()
        assert cache.lease(["aa", "bb", "cc"], "one", 30) == {"aa", "bb", "cc"}
        assert cache.send(["aa"], "one", 30) == {"aa"}
        assert cache.lease(["aa", "bb"], "other", 30) == set()
        assert cache.lease(["aa", "bb"], "other", 30, unsent=True) == {"bb"}
        # Whose it was finds out before it sends.
        assert cache.send(["aa", "bb", "cc"], "one", 30) == {"aa", "cc"}
        cache.release(["aa", "bb", "cc"], "one")
        assert cache.lease(["aa", "bb", "cc"], "third", 30) == {"aa", "cc"}

    def test_what_is_known_or_another_s_is_not_sent(self, make: Make) -> None:
        cache = make()
        cache.put(vectors_of("aa"))
        cache.lease(["bb"], "other", 30)
        assert cache.send(["aa", "bb", "cc"], "one", 30) == {"cc"}
        assert cache.send([], "one", 30) == set()
        # Whoever announces its own once more does not take back that it was sent.
        assert cache.lease(["cc"], "one", 30, unsent=True) == {"cc"}
        assert cache.lease(["cc"], "other", 30, unsent=True) == set()

    def test_claims_are_no_vectors(self, make: Make) -> None:
        cache = make()
        cache.lease(["aa"], "me", 30)
        assert cache.known(["aa"]) == set()
        assert cache.get(["aa"]) == {}

    def test_what_a_page_knows_is_still_there_for_its_chunks(self, make: Make) -> None:
        cache = make(enrich_cache_max_entries=3)
        for name in ("aa", "bb", "cc"):
            cache.put(vectors_of(name))
        assert cache.known(["aa", "unknown"]) == {"aa"}
        cache.put(vectors_of("dd"))
        assert cache.get(["aa", "bb", "cc", "dd"]).keys() == {"aa", "cc", "dd"}

    def test_vector_put_again_is_one_entry(self, make: Make) -> None:
        cache = make(enrich_cache_max_entries=2)
        for _ in range(5):
            cache.put(vectors_of("aa"))
        cache.put(vectors_of("bb"))
        assert cache.known(["aa", "bb"]) == {"aa", "bb"}

    def test_the_longest_unused_goes(self, make: Make) -> None:
        cache = make(enrich_cache_max_entries=3)
        for name in ("aa", "bb", "cc"):
            cache.put(vectors_of(name))
        # Looked up, and thereby used again.
        assert "aa" in cache.get(["aa"])
        cache.put(vectors_of("dd"))
        assert cache.get(["aa", "bb", "cc", "dd"]).keys() == {"aa", "cc", "dd"}

    @pytest.mark.parametrize("at_once", [1, 3, 50])
    def test_no_more_are_kept_than_allowed(self, make: Make, at_once: int) -> None:
        cache = make(enrich_cache_max_entries=10)
        names = [f"{n:03}" for n in range(50)]
        for start in range(0, 50, at_once):
            cache.put(vectors_of(*names[start : start + at_once]))
            assert len(cache.known(names)) <= 10
        assert len(cache.get(names)) == 10

    def test_a_cache_of_no_entries_is_off(self, make: Make) -> None:
        cache = make(enrich_cache_max_entries=0)
        cache.put(vectors_of("aa"))
        assert (cache.get(["aa"]), cache.known(["aa"])) == ({}, set())
        # Who pays is agreed on all the same.
        assert cache.lease(["aa"], "one", 30) == {"aa"}
        assert cache.lease(["aa"], "other", 30) == set()

    def test_what_is_known_is_leased_to_nobody(self, make: Make) -> None:
        cache = make()
        assert cache.lease(["aa", "bb"], "one", 30) == {"aa", "bb"}
        cache.put(vectors_of("aa"))
        assert cache.lease(["aa", "bb"], "one", 30) == {"bb"}

    def test_a_lease_is_given_back_by_its_owner_only(self, make: Make) -> None:
        cache = make()
        cache.lease(["aa"], "one", 30)
        cache.release(["aa", "unknown"], "other")
        assert cache.lease(["aa"], "other", 30) == set()


def random_walk(cache: Cache, seed: int) -> list[Any]:
    """What a cache answers to moves in an order that the seed decides."""
    chance = random.Random(seed)
    told: list[Any] = []
    for _ in range(200):
        some = [f"name{n}" for n in chance.sample(range(7), chance.randint(1, 7))]
        owner = chance.choice(["one", "other"])
        # One name a move: what was used in one moment has no order.
        moves = ["get", "known", "put", "put", "lease", "take", "send", "release"]
        match chance.choice(moves):
            case "get":
                told.append(set(cache.get(some[:1])))
            case "known":
                told.append(cache.known(some[:1]))
            case "put":
                cache.put(vectors_of(some[0]))
            case "lease":
                told.append(cache.lease(some, owner, 60))
            case "take":
                told.append(cache.lease(some, owner, 60, unsent=True))
            case "send":
                told.append(cache.send(some, owner, 60))
            case "release":
                cache.release(some, owner)
    return told


class TestCacheInRedis(CacheContract):
    @pytest.fixture
    def make(self, connection: redis.Redis) -> Make:
        return lambda **values: VectorCache(connection, settings_with(**values))

    @pytest.mark.parametrize("seed", range(5))
    def test_any_moves_are_answered_as_in_memory(self, make: Make, seed: int) -> None:
        small = make(enrich_cache_max_entries=3)
        assert random_walk(small, seed) == random_walk(InMemoryCache(max_entries=3), seed)


class TestCacheInMemory(CacheContract):
    @pytest.fixture
    def make(self) -> Make:
        def make(**values: Any) -> InMemoryCache:
            settings = settings_with(**values)
            return InMemoryCache(max_entries=settings.enrich_cache_max_entries)

        return make

    def test_time_ends_leases_and_vectors(self) -> None:
        now = 100.0
        cache = InMemoryCache(lambda: now, ttl_seconds=60)
        cache.put(vectors_of("aa"))
        assert cache.lease(["bb"], "one", 30) == {"bb"}
        now = 129.9
        assert cache.lease(["bb"], "other", 30) == set()
        # Asked for again by its owner, a lease does not last longer.
        assert cache.lease(["bb"], "one", 30) == {"bb"}
        now = 130.0
        assert cache.lease(["bb"], "other", 30) == {"bb"}
        now = 159.9
        assert cache.known(["aa"]) == {"aa"}
        now = 160.0
        assert (cache.known(["aa"]), cache.get(["aa"])) == (set(), {})
        assert cache.lease(["aa"], "one", 30) == {"aa"}


# -- locations

VECTOR = np.array([0.5, -0.25, 1, 0], np.float32)
URL = "https://api.openai.com/v1"


def places(*names: str) -> dict[str, VectorLocation]:
    return {
        name: VectorLocation.of(Reference("p_2026_01", f"log of {name}", None, 3, 1), name, VECTOR)
        for name in names
    }


class LocationsContract:
    """A subclass gives `make`, which builds empty locations for a cache of so many entries."""

    def test_places_come_back_as_they_were(self, make: Any) -> None:
        written = make(100)
        written.remember(places("aa", "bb"))
        moved = {"aa": VectorLocation.of(Reference("q_2026_01", "1", "r", 1, 1), "aa", VECTOR)}
        written.remember(moved)
        assert written.find(["bb", "unknown", "aa"]) == {**places("bb"), **moved}
        assert written.find([]) == {}
        written.remember({})

    @pytest.mark.parametrize("at_once", [1, 4, 40])
    def test_places_are_bounded_and_the_newest_half_stays(self, make: Any, at_once: int) -> None:
        written = make(2)
        names = [f"{n:03}" for n in range(10 * PLACES_PER_ENTRY)]
        for start in range(0, len(names), at_once):
            written.remember(places(*names[start : start + at_once]))
        kept = written.find(names).keys()
        assert len(kept) < 2 * PLACES_PER_ENTRY + at_once
        assert kept >= set(names[-PLACES_PER_ENTRY:])

    def test_without_a_cache_nothing_is_recorded(self, make: Any) -> None:
        written = make(0)
        written.remember(places("aa"))
        assert written.find(["aa"]) == {}

    def test_some_are_those_of_one_endpoint(self, make: Any) -> None:
        written = make(100)
        written.remember(places(*"abcdef"))
        assert len(written.some(URL, 4)) == 4
        assert {place.id for place in written.some(URL, 50)} == {f"log of {n}" for n in "abcdef"}
        assert written.some("http://another/v1", 50) == []


class TestLocationsInRedis(LocationsContract):
    @pytest.fixture
    def make(self, connection: redis.Redis) -> Any:
        return lambda entries: VectorLocations(
            connection, settings_with(enrich_cache_max_entries=entries, openai_base_url=URL)
        )


class TestLocationsInMemory(LocationsContract):
    @pytest.fixture
    def make(self) -> Any:
        return lambda entries: InMemoryLocations(URL, PLACES_PER_ENTRY * entries)

    def test_without_a_bound_nothing_goes(self) -> None:
        written = InMemoryLocations(URL)
        for name in "abcdef":
            written.remember(places(name))
        assert written.find("abcdef").keys() == set("abcdef")
        assert written._old == {}

"""The vector cache: bounded in number and age, never trusting an entry, claims for one payer.

Every test runs on fakeredis and on a real server.
"""

from __future__ import annotations

from typing import Any

import fakeredis
import numpy as np
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.embedding.cache import VectorCache, space
from enrich.errors import ServerUnavailable
from tests.unit.test_cache_contract import DIMENSIONS, PREFIXES, settings_with, vectors_of


@pytest.fixture
def cache(connection: redis.Redis) -> VectorCache:
    return VectorCache(connection, settings_with())


def vector_keys(connection: redis.Redis, prefix: str) -> list[bytes]:
    return [
        key
        for key in connection.keys(f"{prefix}vector:*")
        if not key.endswith((b":uses", b":claims"))
    ]


@settings(deadline=None, max_examples=30, derandomize=True)
@given(
    st.lists(
        st.floats(width=32, allow_nan=False, allow_infinity=False),
        min_size=DIMENSIONS,
        max_size=DIMENSIONS,
    ).filter(any)
)
def test_any_vector_survives_bit_for_bit(numbers: list[float]) -> None:
    cache = VectorCache(fakeredis.FakeRedis(), settings_with())
    vector = np.array(numbers, np.float32)
    cache.put({"a": vector})
    assert cache.get(["a"])["a"].tobytes() == vector.tobytes()


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x00",
        np.ones(DIMENSIONS, "<f4").tobytes()[:-1],
        np.ones(DIMENSIONS - 1, "<f4").tobytes(),
        np.ones(DIMENSIONS + 1, "<f4").tobytes(),
        np.zeros(DIMENSIONS, "<f4").tobytes(),
        np.array([1, np.nan, 1, 1], "<f4").tobytes(),
        np.array([1, np.inf, 1, 1], "<f4").tobytes(),
    ],
)
def test_entry_that_is_no_vector_counts_as_unknown(
    cache: VectorCache, connection: redis.Redis, value: bytes
) -> None:
    cache.put(vectors_of("good", "spoilt"))
    (key,) = [key for key in connection.keys("*:spoilt") if key.startswith(cache._vectors.encode())]
    connection.set(key, value)
    assert cache.get(["spoilt", "good"]).keys() == {"good"}
    # And a new vector takes its place.
    cache.put(vectors_of("spoilt"))
    assert cache.get(["spoilt"]).keys() == {"spoilt"}


def test_entries_are_bounded_and_the_longest_unused_goes(connection: redis.Redis) -> None:
    wanted = settings_with(enrich_cache_max_entries=3)
    cache = VectorCache(connection, wanted)
    for name in ("aa", "bb", "cc"):
        cache.put(vectors_of(name))
    # Looked up, and thereby used again.
    assert "aa" in cache.get(["aa"])
    cache.put(vectors_of("dd"))
    assert cache.get(["aa", "bb", "cc", "dd"]).keys() == {"aa", "cc", "dd"}
    assert len(vector_keys(connection, wanted.enrich_redis_prefix)) == 3


@pytest.mark.parametrize("at_once", [1, 3, 50])
def test_never_more_entries_than_allowed(connection: redis.Redis, at_once: int) -> None:
    wanted = settings_with(enrich_cache_max_entries=10)
    cache = VectorCache(connection, wanted)
    names = [f"{n:03}" for n in range(50)]
    for start in range(0, 50, at_once):
        cache.put(vectors_of(*names[start : start + at_once]))
        assert len(vector_keys(connection, wanted.enrich_redis_prefix)) <= 10
    assert len(cache.get(names)) == 10


def test_everything_has_a_time_to_live(connection: redis.Redis) -> None:
    wanted = settings_with(enrich_cache_ttl_seconds=77)
    cache = VectorCache(connection, wanted)
    cache.put(vectors_of("aa", "bb"))
    cache.get(["aa"])
    cache.lease(["cc"], "me", 5)
    keys = connection.keys(f"{wanted.enrich_redis_prefix}*")
    assert len(keys) == 4
    assert all(0 < connection.ttl(key) <= 77 for key in keys)


def test_expired_vector_is_unknown(connection: redis.Redis) -> None:
    cache = VectorCache(connection, settings_with())
    cache.put(vectors_of("aa", "bb"))
    connection.pexpire(cache._vectors + "aa", 0)
    assert cache.known(["aa", "bb"]) == {"bb"}
    assert cache.get(["aa", "bb"]).keys() == {"bb"}


def test_cache_of_no_entries_is_off(connection: redis.Redis) -> None:
    wanted = settings_with(enrich_cache_max_entries=0)
    cache = VectorCache(connection, wanted)
    cache.put(vectors_of("aa"))
    assert cache.get(["aa"]) == {}
    assert cache.known(["aa"]) == set()
    assert connection.keys(f"{wanted.enrich_redis_prefix}*") == []


@pytest.mark.parametrize(
    "other",
    [
        {"embedding_model": "another-model"},
        {"embedding_dimensions": DIMENSIONS * 2},
        {"openai_base_url": "http://another/v1"},
    ],
)
def test_another_space_shares_nothing(connection: redis.Redis, other: dict[str, Any]) -> None:
    prefix = next(PREFIXES)
    mine = settings_with(enrich_redis_prefix=prefix)
    theirs = settings_with(enrich_redis_prefix=prefix, **other)
    assert space(mine) != space(theirs)
    VectorCache(connection, mine).put(vectors_of("aa"))
    assert VectorCache(connection, theirs).known(["aa"]) == set()
    assert VectorCache(connection, theirs).lease(["aa"], "me", 30) == {"aa"}


def test_space_is_the_same_for_every_key_and_password() -> None:
    assert space(settings_with(openai_api_key="a")) == space(settings_with(openai_api_key="b"))


def test_redis_that_is_away_is_told_in_our_words() -> None:
    server = fakeredis.FakeServer()
    cache = VectorCache(fakeredis.FakeRedis(server=server), settings_with())
    server.connected = False
    calls = (
        lambda: cache.get(["aa"]),
        lambda: cache.known(["aa"]),
        lambda: cache.put(vectors_of("aa")),
        lambda: cache.lease(["aa"], "me", 30),
        lambda: cache.release(["aa"], "me"),
    )
    for call in calls:
        with pytest.raises(ServerUnavailable, match="Redis cannot be reached"):
            call()

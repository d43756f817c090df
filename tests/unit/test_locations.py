"""Places of paid-for vectors: bounded, of one vector space, and vouching for one vector only.

Every test that asks Redis runs on fakeredis and on a real server.
"""

from __future__ import annotations

import itertools
from typing import Any

import fakeredis
import numpy as np
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.embedding.locations import PLACES_PER_ENTRY, VectorLocation, VectorLocations
from enrich.errors import ServerUnavailable
from enrich.models import Reference
from enrich.settings import Settings, load_settings

PREFIXES = (f"w{n}:" for n in itertools.count())
VECTOR = np.array([0.5, -0.25, 1, 0], np.float32)


def settings_with(**values: Any) -> Settings:
    wanted: dict[str, Any] = {
        "_env_file": None,
        "openai_api_key": "k",
        "enrich_redis_prefix": next(PREFIXES),
        **values,
    }
    return load_settings(**wanted)


def place(name: str, routing: str | None = None) -> VectorLocation:
    return VectorLocation.of(Reference("p_2026_01", f"log of {name}", routing, 3, 1), name, VECTOR)


def places(*names: str) -> dict[str, VectorLocation]:
    return {name: place(name) for name in names}


def test_places_come_back_as_they_were(connection: redis.Redis) -> None:
    written = VectorLocations(connection, settings_with())
    wanted = {"aa": place("aa"), "bb": place("bb", "a \n route, \u20ac")}
    written.remember(wanted)
    assert written.find(["bb", "unknown", "aa"]) == wanted
    moved = {"aa": VectorLocation.of(Reference("q_2026_01", "another", None, 1, 1), "aa", VECTOR)}
    written.remember(moved)
    assert written.find(["aa", "bb"]) == {**wanted, **moved}


def test_a_page_of_any_size_can_be_asked_about(connection: redis.Redis) -> None:
    written = VectorLocations(connection, settings_with())
    wanted = {name: place(name) for name in ("first", "last")}
    written.remember(wanted)
    unknown = [f"{n}" for n in range(9000)]
    assert written.find(["first", *unknown, "last"]) == wanted


def test_nothing_asked_nothing_done(connection: redis.Redis) -> None:
    wanted = settings_with()
    written = VectorLocations(connection, wanted)
    written.remember({})
    assert written.find([]) == {}
    assert written.find(["aa"]) == {}
    assert connection.keys(f"{wanted.enrich_redis_prefix}*") == []


@pytest.mark.parametrize("at_once", [1, 4, 40])
def test_places_are_bounded_and_the_newest_half_stays(
    connection: redis.Redis, at_once: int
) -> None:
    wanted = settings_with(enrich_cache_max_entries=2)
    written = VectorLocations(connection, wanted)
    names = [f"{n:03}" for n in range(10 * PLACES_PER_ENTRY)]
    for start in range(0, len(names), at_once):
        written.remember(places(*names[start : start + at_once]))
        keys = connection.keys(f"{wanted.enrich_redis_prefix}*")
        kept = sum(connection.hlen(key) for key in keys)
        assert kept < 2 * PLACES_PER_ENTRY + at_once
    newest = names[-PLACES_PER_ENTRY:]
    assert written.find(names).keys() >= set(newest)


def test_everything_has_a_time_to_live(connection: redis.Redis) -> None:
    wanted = settings_with(enrich_cache_max_entries=1)
    written = VectorLocations(connection, wanted)
    for n in range(PLACES_PER_ENTRY // 2 + 1):
        written.remember(places(str(n)))
    keys = connection.keys(f"{wanted.enrich_redis_prefix}*")
    assert len(keys) == 2
    assert all(connection.ttl(key) > 0 for key in keys)


def test_without_a_cache_nothing_is_kept_in_mind(connection: redis.Redis) -> None:
    wanted = settings_with(enrich_cache_max_entries=0)
    written = VectorLocations(connection, wanted)
    written.remember(places("aa"))
    assert written.find(["aa"]) == {}
    assert connection.keys(f"{wanted.enrich_redis_prefix}*") == []


@pytest.mark.parametrize(
    "value", [b"", b"x", b"[]", b'["p","i",null]', b'["p","i",7,"d"]', b"\xff"]
)
def test_place_that_cannot_be_read_counts_as_unknown(connection: redis.Redis, value: bytes) -> None:
    wanted = settings_with()
    written = VectorLocations(connection, wanted)
    written.remember(places("good", "spoilt"))
    (key,) = connection.keys(f"{wanted.enrich_redis_prefix}*")
    connection.hset(key, "spoilt", value)
    assert written.find(["good", "spoilt"]) == places("good")


@pytest.mark.parametrize(
    "other",
    [
        {"embedding_model": "another-model"},
        {"embedding_dimensions": 8},
        {"openai_base_url": "http://another/v1"},
    ],
)
def test_another_space_shares_nothing(connection: redis.Redis, other: dict[str, Any]) -> None:
    prefix = next(PREFIXES)
    mine = settings_with(enrich_redis_prefix=prefix)
    theirs = settings_with(enrich_redis_prefix=prefix, **other)
    VectorLocations(connection, mine).remember(places("aa"))
    assert VectorLocations(connection, theirs).find(["aa"]) == {}


def test_redis_that_is_away_is_told_in_our_words() -> None:
    server = fakeredis.FakeServer()
    written = VectorLocations(fakeredis.FakeRedis(server=server), settings_with())
    server.connected = False
    for call in (lambda: written.find(["aa"]), lambda: written.remember(places("aa"))):
        with pytest.raises(ServerUnavailable, match="Redis"):
            call()


@settings(deadline=None, max_examples=80, derandomize=True)
@given(
    numbers=st.lists(
        st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=9
    ),
    text=st.text(st.characters(), max_size=9),
    data=st.data(),
)
def test_a_place_vouches_for_its_text_and_vector_and_no_other(
    numbers: list[float], text: str, data: st.DataObject
) -> None:
    vector = np.array(numbers, np.float32)
    known = VectorLocation.of(Reference("p", "1", None, 1, 1), text, vector)
    assert known.vouches_for(text, vector.copy())
    assert not known.vouches_for(text + "x", vector)
    other = vector.copy()
    position = data.draw(st.integers(0, len(numbers) - 1))
    other[position] = np.nextafter(other[position], np.float32(np.inf))
    assert not known.vouches_for(text, other)


def test_a_fingerprint_that_is_half_a_character_is_compared_all_the_same() -> None:
    assert not place("aa").vouches_for("\ud83d", VECTOR)

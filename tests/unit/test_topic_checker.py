"""The judge of the topic sees each way in which counts, topic and documents can disagree."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

import pytest

from tests.chaos.topic_checker import (
    METHOD,
    Produced,
    Topic,
    TopicChecker,
    TopicTruth,
    run_of,
    understood,
)

GROUP = "a-group"
INDEX = "shop_2026_11"


def _log(n: int, **changes: Any) -> dict[str, Any]:
    return {
        "log_id": str(n),
        "safe_project_uuid": "shop",
        "level": "ERROR",
        "timestamp": "2026-11-30T23:30:00-01:00" if n == 9 else "2026-11-12T09:00:00+00:00",
        "message": f"error {n}",
        **changes,
    }


class _Topic:
    def __init__(self) -> None:
        self.messages: dict[Any, Produced] = {}
        self.lag_ = 0

    def lag(self) -> int:
        return self.lag_

    def add(self, value: bytes | None) -> None:
        self.messages["id", 0, len(self.messages)] = understood(value)


class _Redis:
    def __init__(self, **counts: int) -> None:
        self.counts = counts

    def hgetall(self, name: str) -> dict[bytes, bytes]:
        assert name == f"p:realtime:totals:{GROUP}"
        return {key.encode(): str(n).encode() for key, n in self.counts.items()}


class _Sound:
    """Two logs written by consumers, one of them produced twice; one left and backfilled; one with
    another's vector; one poison; two of another level."""

    def __init__(self) -> None:
        self.topic = _Topic()
        for n in (1, 2, 2, 3, 4):
            self.topic.add(json.dumps(_log(n)).encode())
        for value in (None, b'{"level": "INFO"}', json.dumps(_log(5, level="INFO")).encode()):
            self.topic.add(value)
        self.redis = _Redis(
            embedded=2, cached=1, left=1, already_vectorized=1, poison=1, other_level=2, messages=8
        )
        self.truth = TopicTruth()
        for n in (1, 2, 3):
            self.truth.owe((INDEX, str(n)), _log(n))
        self.truth.owe((INDEX, "4"), _log(4, log_vector=[1.0]))
        ours = {"log_vector": [0.5], "ai_enrichment_run": run_of(GROUP)}
        self.stored: dict[tuple[str, str], dict[str, Any]] = {
            (INDEX, n): {"_version": 2, "_source": {**ours, "ai_enrichment_method": METHOD}}
            for n in ("1", "2")
        }
        by_run = {"log_vector": [0.5], "ai_enrichment_run": "2026"}
        self.stored[INDEX, "3"] = {"_version": 2, "_source": by_run}
        self.stored[INDEX, "4"] = {"_version": 1, "_source": {"log_vector": [1.0]}}

    def broken(self) -> list[str]:
        judge = TopicChecker(cast(Topic, self.topic), GROUP, cast(Any, self.redis), "p:")
        return judge.check(self.truth, self.stored)


def test_what_is_sound_is_sound() -> None:
    assert _Sound().broken() == []


def _count(**changes: int) -> Callable[[_Sound], None]:
    def change(sound: _Sound) -> None:
        sound.redis.counts |= changes

    return change


def _again(sound: _Sound) -> None:
    sound.stored[INDEX, "1"]["_version"] = 3


def _lag(sound: _Sound) -> None:
    sound.topic.lag_ = 4


def _method(sound: _Sound) -> None:
    sound.stored[INDEX, "1"]["_source"]["ai_enrichment_method"] = "backfill"


def _group(sound: _Sound) -> None:
    sound.stored[INDEX, "1"]["_source"]["ai_enrichment_run"] = run_of("another")
    sound.redis.counts |= {"embedded": 1, "already_vectorized": 2}


def _planted(sound: _Sound) -> None:
    sound.truth.owe((INDEX, "8"), _log(8))
    sound.stored[INDEX, "8"] = sound.stored[INDEX, "1"]


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (_count(embedded=3, messages=9), "6 of kind log are counted, the topic has 5"),
        (_count(left=0, messages=7), "4 of kind log are counted, the topic has 5"),
        (_count(poison=2, messages=9), "2 of kind poison are counted"),
        (_count(other_level=1, messages=7), "1 of kind other_level are counted"),
        (_count(messages=7), "7 messages are counted, their ends are"),
        (_count(left=0, excluded=1), "1 logs are excluded"),
        (_count(left=0, embedded=3), "4 written and 0 left"),
        (_count(left=3, cached=0, embedded=1), ""),
        (_count(left=0, cached=0, already_vectorized=3), "3 had a vector already"),
        (_count(left=0, failed=1), "1 failed, and only 0 should"),
        (_count(left=0, gone=1), "1 are gone, and only 0 should be"),
        (_again, "a log was not written once, but 2 times"),
        (_lag, "4 messages are not committed"),
        (_method, "method and run of a vector do not fit"),
        (_group, "a vector of an unknown group"),
        (_planted, "a log that is not in the topic was written by a consumer"),
    ],
)
def test_each_disagreement_is_seen(harm: Callable[[_Sound], None], told: str) -> None:
    sound = _Sound()
    harm(sound)
    broken = sound.broken()
    if told:
        assert any(sentence.startswith(told) for sentence in broken), broken
    else:
        assert broken == []


def test_another_writer_may_put_its_name_on_a_vector_of_ours() -> None:
    sound = _Sound()
    sound.stored[INDEX, "1"]["_source"]["ai_enrichment_method"] = "another"
    sound.truth.theirs[INDEX, "1"] = [0.5]
    assert sound.broken() == []


def test_what_may_have_been_removed_may_be_uncounted_and_nothing_else() -> None:
    sound = _Sound()
    sound.truth.removed = {("id", 0, 3), ("id", 0, 5)}
    _count(left=0, poison=0, messages=6)(sound)
    assert sound.broken() == []
    _count(already_vectorized=0, messages=5)(sound)
    assert sound.broken()[0].startswith("3 of kind log are counted, the topic has 4 to 5")


def test_of_a_lost_redis_the_counts_are_whole_from_a_moment_on() -> None:
    sound = _Sound()
    sound.truth.counts_from = {("id", 0): 4}
    _count(embedded=0, cached=0, left=0, messages=4)(sound)
    assert sound.broken() == []
    _count(other_level=1, messages=3)(sound)
    assert sound.broken() == ["1 of kind other_level are counted, the topic has 2"]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "poison"),
        (b"", "poison"),
        (b"not json", "poison"),
        (b"[]", "poison"),
        (b'{"level": "INFO"}', "other_level"),
        (b'{"level": "ERROR", "message": "no id"}', "poison"),
        (json.dumps(_log(1)).encode(), "log"),
    ],
)
def test_messages_are_told_apart(value: bytes | None, kind: str) -> None:
    assert understood(value).kind == kind


def test_an_index_is_that_of_the_log_s_own_time_in_utc() -> None:
    assert understood(json.dumps(_log(9)).encode()).key == ("shop_2026_12", "9")

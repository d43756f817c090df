"""The kinds of failure that need real servers: they are provoked there, carry the servers' own
words, agree between captures, and leave nothing behind.
"""

from __future__ import annotations

import pytest
import redis
from opensearchpy import OpenSearch

from dev.failures import Captured, capture_all


@pytest.fixture(scope="module")
def captured(opensearch_url: str, redis_url: str) -> Captured:
    return capture_all(opensearch_url, redis_url)


def texts(captured: Captured, kind: str) -> list[str]:
    return [failure.message for failure in captured.failures if failure.kind == kind]


def test_every_kind_is_provoked(captured: Captured) -> None:
    assert captured.left_out == {}
    assert len({failure.kind for failure in captured.failures}) > 110


def test_two_captures_agree(captured: Captured, opensearch_url: str, redis_url: str) -> None:
    assert capture_all(opensearch_url, redis_url) == captured


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("redis-wrong-type", "WRONGTYPE"),
        ("redis-no-script", "NOSCRIPT"),
        ("redis-oom", "OOM"),
        ("redis-read-only", "READONLY"),
        ("redis-busy", "BUSY"),
        ("opensearch-no-index", "index_not_found_exception"),
        ("opensearch-mapping", "mapper_parsing_exception"),
        ("opensearch-conflict", "version_conflict_engine_exception"),
        ("opensearch-parse", "parsing_exception"),
        ("opensearch-bulk", "document(s) failed to index"),
    ],
)
def test_a_server_failure_carries_the_server_s_words(
    captured: Captured, kind: str, words: str
) -> None:
    # redis-py takes the code off some replies and tells it by the exception's name instead.
    shown = {"NOSCRIPT": "NoScriptError", "OOM": "OutOfMemoryError", "READONLY": "ReadOnlyError"}
    assert any(words in text or shown.get(words, words) in text for text in texts(captured, kind))


def test_opensearch_s_own_stack_traces_are_kept(captured: Captured) -> None:
    java = [text for text in texts(captured, "opensearch-mapping") if "\n\tat " in text]

    assert java
    assert "\nCaused by: " in java[0]


def test_nothing_is_left_on_the_servers(
    captured: Captured, opensearch_url: str, redis_url: str
) -> None:
    with OpenSearch([opensearch_url]) as search, redis.Redis.from_url(redis_url) as store:
        assert not [index for index in search.indices.get(index="*") if "failures-" in index]
        assert list(store.scan_iter("failures-*")) == []


def test_a_server_that_does_not_answer_is_named(redis_url: str) -> None:
    captured = capture_all("http://127.0.0.1:9", redis_url)

    assert "does not answer" in captured.left_out["opensearch-mapping"]
    assert "redis-wrong-type" not in captured.left_out

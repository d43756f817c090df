"""What a proxy, or a node in trouble, answers in OpenSearch's place: nothing is taken for what it
is not. The answers of a real OpenSearch, altered on their way by a real proxy."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dev.api_control import ApiControl
from dev.embedding_model import Model
from dev.http_proxy import Answered, Asked, Forward, HttpProxy, taking_at_most, unaltered
from dev.services import Services
from enrich.errors import TransientError
from tests.conftest import Pipeline, Search
from tests.integration.test_cycle import assert_adds_up, assert_right_vectors, logs

INDEX = "a_b_2026_11"
BAD = "bad_2026_11"
Build = Callable[..., Pipeline]
Change = Callable[[Any], Any]


@pytest.fixture
def proxy(clean: Services) -> Iterator[HttpProxy]:
    with HttpProxy(clean.opensearch.url) as proxy:
        yield proxy


@pytest.fixture
def one(pipeline: Build, proxy: HttpProxy, search: Search) -> Pipeline:
    """A pipeline behind the proxy, and a backlog of thirty logs."""
    search.create(INDEX)
    search.index(INDEX, logs(30, 30))
    return pipeline(opensearch_port=proxy.port)


def altered(path: str, change: Change) -> Callable[[Asked, Forward], Answered]:
    """Changes the JSON of answers to requests with such a path."""

    def alter(asked: Asked, forward: Forward) -> Answered:
        answered = forward(asked)
        if not asked.path.partition("?")[0].endswith(path):
            return answered
        return Answered(body=json.dumps(change(json.loads(answered.body))).encode())

    return alter


def nobody_owed(answer: Any, **shards: Any) -> Any:
    answer["aggregations"]["pending"]["buckets"] = []
    answer["_shards"] |= shards
    return answer


PARTIAL: dict[str, Change] = {
    "a shard failed, unnamed": lambda a: nobody_owed(a, total=2, successful=1, failed=1),
    "a shard is silent": lambda a: nobody_owed(a, total=2, successful=1),
    "timed out": lambda a: nobody_owed(a) | {"timed_out": True},
}


@pytest.mark.parametrize("change", PARTIAL.values(), ids=PARTIAL)
def test_a_count_in_part_is_not_an_empty_backlog(
    one: Pipeline, proxy: HttpProxy, search: Search, model: Model, change: Change
) -> None:
    proxy.alter = altered("/_search", change)
    with pytest.raises(TransientError, match="only in part"):
        one.backfill.tick("beat")
    assert one.ledger.runs.active(), "the run stays, to be tried again"

    proxy.alter = unaltered
    one.run("beat")

    (record,) = one.ledger.records.last(2)
    assert_adds_up(record)
    assert record.vectors_written == 30
    assert_right_vectors(search, INDEX, model)


def test_an_index_whose_shard_failed_to_count_is_named(
    one: Pipeline, proxy: HttpProxy, search: Search, model: Model
) -> None:
    search.create(BAD)
    search.index(BAD, logs(3, 3))

    def change(answer: Any) -> Any:
        if "pending" not in answer.get("aggregations", {}):
            return answer
        buckets = answer["aggregations"]["pending"]["buckets"]
        answer["aggregations"]["pending"]["buckets"] = [b for b in buckets if b["key"] != BAD]
        failure = {"shard": 0, "index": BAD, "reason": {"type": "circuit_breaking_exception"}}
        answer["_shards"] |= {"successful": 1, "failed": 1, "failures": [failure]}
        return answer

    proxy.alter = altered("/_search", change)
    record = one.run()
    assert_adds_up(record)
    assert record.vectors_written == 30
    assert "it cannot be searched (circuit_breaking_exception)" in record.skipped_indices[BAD]

    proxy.alter = unaltered
    assert one.run().vectors_written == 3
    assert_right_vectors(search, BAD, model)


@pytest.mark.parametrize(
    "change",
    [
        {"_shards": {"total": 2, "successful": 1, "skipped": 0, "failed": 1}},
        {"_shards": {"total": 2, "successful": 1, "skipped": 0, "failed": 0}},
        {"timed_out": True},
    ],
    ids=["failed", "silent", "timed out"],
)
def test_a_page_in_part_skips_its_index_for_now(
    one: Pipeline, proxy: HttpProxy, search: Search, embeddings: ApiControl, change: dict[str, Any]
) -> None:
    def in_part(answer: Any) -> Any:
        for each in answer["responses"]:
            each |= change
            each["hits"]["hits"] = each["hits"]["hits"][:3]
        return answer

    proxy.alter = altered("/_msearch", in_part)
    record = one.run()
    assert_adds_up(record)
    assert record.found == 0
    assert "not every shard answers" in record.skipped_indices[INDEX]
    assert embeddings.seen["requests"] == 0

    proxy.alter = unaltered
    assert one.run().vectors_written == 30


@pytest.mark.parametrize(
    ("path", "list_"), [("/_msearch", "responses"), ("/_mget", "docs"), ("/_bulk", "items")]
)
def test_answers_of_another_number_are_not_trusted(
    one: Pipeline, proxy: HttpProxy, search: Search, model: Model, path: str, list_: str
) -> None:
    struck: list[int] = []

    def shorter(answer: Any) -> Any:
        if len(struck) < 2:
            struck.append(len(answer[list_]))
            answer[list_] = answer[list_][:-1]
        return answer

    proxy.alter = altered(path, shorter)
    record = one.run()
    assert struck
    assert_adds_up(record)
    assert (record.vectors_written, record.failed) == (30, 0)
    assert_right_vectors(search, INDEX, model)


def test_an_item_refused_for_now_is_written_by_a_retry_and_the_rest_stands(
    one: Pipeline, proxy: HttpProxy, search: Search, embeddings: ApiControl, model: Model
) -> None:
    asked_for: list[int] = []

    def alter(asked: Asked, forward: Forward) -> Answered:
        if not asked.path.startswith("/_bulk"):
            return forward(asked)
        rows = asked.body.splitlines(keepends=True)
        asked_for.append(len(rows) // 2)
        if len(asked_for) > 1:
            return forward(asked)
        kept = Asked(
            method=asked.method,
            path=asked.path,
            content_type=asked.content_type,
            body=b"".join(rows[:-10]),
        )
        answer = json.loads(forward(kept).body)
        error = {"type": "es_rejected_execution_exception", "reason": "the queue is full"}
        answer["items"] += [{"index": {"status": 429, "error": error}} for _ in range(5)]
        return Answered(body=json.dumps({**answer, "errors": True}).encode())

    proxy.alter = alter
    record = one.run()
    assert_adds_up(record)
    assert (record.vectors_written, record.failed, record.retries) == (30, 0, 1)
    assert asked_for == [30, 5], "what was written is not written again"
    assert embeddings.seen["inputs"] == 30
    assert_right_vectors(search, INDEX, model)


def test_a_shard_that_is_away_for_a_moment_defers_nothing(
    one: Pipeline, proxy: HttpProxy, search: Search, embeddings: ApiControl, model: Model
) -> None:
    """As in a rolling restart: the first reading of a chunk meets it."""
    away: list[str] = []

    def alter(asked: Asked, forward: Forward) -> Answered:
        answered = forward(asked)
        if not asked.path.startswith("/_mget") or len(away) == 2:
            return answered
        away.append(asked.path)
        answer = json.loads(answered.body)
        for row in answer["docs"][::2]:
            for name in ("found", "_source", "_seq_no", "_primary_term", "_version"):
                row.pop(name, None)
            row["error"] = {"type": "no_shard_available_action_exception", "reason": "restart"}
        return Answered(body=json.dumps(answer).encode())

    proxy.alter = alter
    record = one.run()
    assert len(away) == 2
    assert_adds_up(record)
    assert (record.vectors_written, record.deferred) == (30, 0)
    assert any("some shard of their index" in sentence for sentence in record.retry_reasons)
    assert embeddings.seen["inputs"] == 30
    assert_right_vectors(search, INDEX, model)


@pytest.mark.parametrize("halted", [False, True])
def test_what_a_lost_answer_wrote_counts_though_it_cannot_be_read_at_once(
    one: Pipeline, proxy: HttpProxy, search: Search, embeddings: ApiControl, *, halted: bool
) -> None:
    """As when a node dies with a bulk at work: what is written is there again before it can be
    read. A closed index cannot be read either."""
    closed: list[str] = []

    def alter(asked: Asked, forward: Forward) -> Answered:
        answered = forward(asked)
        if asked.path.startswith("/_bulk") and not closed:
            search("POST", f"/{INDEX}/_close")
            closed.append(one.ledger.runs.active())
            if halted:
                one.ledger.runs.halt(closed[0], "cancelled", state="abandoned")
            return Answered(status=502, body=b"<html>")
        if asked.path.startswith("/_mget") and b"index_closed_exception" in answered.body:
            search("POST", f"/{INDEX}/_open")
            search("GET", f"/_cluster/health/{INDEX}?wait_for_status=yellow")
        return answered

    proxy.alter = alter
    one.run()
    (run,) = closed
    record = one.ledger.records.of(run)
    assert record.found == record.settled == 30
    assert (record.vectors_written, record.deferred) == (30, 0)
    assert embeddings.seen["inputs"] == 30
    search("POST", f"/{INDEX}/_refresh")
    assert search.count(INDEX, {"term": {"ai_enrichment_run": run}}) == 30


def test_what_can_be_read_counts_though_the_rest_of_its_chunk_stays_away(
    one: Pipeline, proxy: HttpProxy, search: Search
) -> None:
    """The answer is lost, the run ends, and one of the chunk's two indices is never read again."""
    search.create(BAD)
    search.index(BAD, logs(20, 20))
    closed: list[str] = []

    def alter(asked: Asked, forward: Forward) -> Answered:
        answered = forward(asked)
        if not asked.path.startswith("/_bulk") or closed:
            return answered
        search("POST", f"/{BAD}/_close")
        closed.append(one.ledger.runs.active())
        one.ledger.runs.halt(closed[0], "cancelled", state="abandoned")
        return Answered(status=502, body=b"<html>")

    proxy.alter = alter
    one.run()
    record = one.ledger.records.of(closed[0])
    assert record.found == record.settled == 50
    assert (record.vectors_written, record.deferred) == (30, 20)


def test_a_mark_that_cannot_be_written_is_not_tried_again(
    pipeline: Build, search: Search, embeddings: ApiControl, redis_emptied: Callable[[], None]
) -> None:
    mappings = {"dynamic": False, "properties": {"level": {"type": "keyword"}}}
    search.create(BAD, settings={"index.knn": True}, mappings=mappings)
    blank = [{**each, "_id": f"blank-{n}", "message": " "} for n, each in enumerate(logs(2, 2))]
    search.index(BAD, [*logs(3, 3), *blank])
    before = search.sources(BAD)
    # From now on every write of a document with fields that are not mapped is refused.
    search("PUT", f"/{BAD}/_mapping", {"dynamic": "strict"})
    one = pipeline()

    record = one.run()
    assert_adds_up(record)
    assert (record.found, record.failed) == (5, 5)
    assert embeddings.seen["inputs"] == 3
    for _ in range(3):
        assert one.run().found == 0
    assert embeddings.seen["inputs"] == 3

    redis_emptied()
    assert one.run().failed == 5
    assert [one.run().found for _ in range(3)] == [0, 0, 0]
    assert embeddings.seen["inputs"] == 6, "once more, since Redis had forgotten them"
    assert search.sources(BAD) == before


def test_a_bulk_that_a_proxy_finds_too_large_is_halved(
    one: Pipeline, proxy: HttpProxy, search: Search, model: Model
) -> None:
    (large,) = logs(1, 1)
    large |= {"message": "too large by itself", "dump": "x" * 400_000}
    search.index(INDEX, [{**large, "_id": "large"}])
    refused: list[int] = []
    proxy.alter = taking_at_most(200_000, "/_bulk", refused)
    record = one.run()
    assert_adds_up(record)
    assert record.vectors_written == 31
    assert assert_right_vectors(search, INDEX, model) == 31
    assert search.source(INDEX, "large").items() >= large.items()

    refused.clear()
    search.create(BAD)
    search.index(BAD, logs(30, 30))
    assert one.run().vectors_written == 30
    assert refused == [], "what was learnt is kept in mind"


def test_a_proxy_that_takes_no_vector_at_all_marks_no_log_as_failed(
    one: Pipeline, proxy: HttpProxy, search: Search
) -> None:
    proxy.alter = taking_at_most(10_000, "/_bulk", [])
    record = one.run()
    assert_adds_up(record)
    assert (record.deferred, record.failed) == (30, 0)

    proxy.alter = unaltered
    assert one.run().vectors_written == 30

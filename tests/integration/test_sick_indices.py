"""An index that is sick in a way that OpenSearch does not tell costs the others nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from dev.http_proxy import Answered, Asked, Forward, HttpProxy, unaltered
from dev.services import Services
from enrich.errors import IndexInTrouble
from enrich.ledger import IndexState
from enrich.log_store import index_template
from enrich.log_store.engines import Engines
from enrich.models import Chunk
from tests.conftest import DIMENSIONS, Pipeline, Search
from tests.integration.test_cycle import assert_adds_up, logs

SICK, INDEX, OTHER = "sick_2026_11", "a_2026_11", "z_2026_11"
Build = Callable[..., Pipeline]


def with_engine(engine: str) -> dict[str, Any]:
    body: dict[str, Any] = index_template(DIMENSIONS, [SICK])["template"]
    body["mappings"]["properties"]["log_vector"]["method"]["engine"] = engine
    return body


def test_an_index_whose_engine_cannot_run_is_set_aside_after_one_log(
    pipeline: Build, search: Search
) -> None:
    """Faiss without its native library, as on this node: the first refresh kills the shard, and
    nothing that is written to it is answered any more."""
    search.create(SICK, **with_engine("faiss"))
    for index in (INDEX, OTHER):
        search.create(index)
    search.index(INDEX, logs(150, 150))
    search.index(OTHER, logs(150, 150))
    # The witness' refresh would need the engine as soon as there is a vector.
    search.index(SICK, logs(120, 120))
    one = pipeline(opensearch_timeout_seconds=15)

    record = one.run()

    assert_adds_up(record)
    assert "does not answer writes" in record.skipped_indices[SICK]
    assert search.count(INDEX, {"exists": {"field": "log_vector"}}) == 150
    assert search.count(OTHER, {"exists": {"field": "log_vector"}}) == 150
    # One log was written before the engine was needed; no text was bought for the others.
    assert (record.vectors_written, record.deferred) == (301, 119)
    assert record.api_inputs <= 300
    assert record.retries == 0
    # What is held now was held before by no one: nothing of ours is left hanging.
    pressure = search("GET", "/_nodes/stats/indexing_pressure")["nodes"].values()
    held = [node["indexing_pressure"]["memory"]["current"]["all_in_bytes"] for node in pressure]
    assert held == [0], "no write is left hanging, which would count against those of all others"

    # The next run does not try it again so soon, and says why.
    again = one.run()
    assert_adds_up(again)
    assert (again.found, again.skipped_indices) == (0, record.skipped_indices)


def test_an_index_made_anew_under_its_name_is_looked_at_again(
    pipeline: Build, search: Search
) -> None:
    one, now = pipeline(), 0.0
    engines = Engines(one.store.connection, lambda: now)
    for engine, native in (("lucene", False), ("faiss", True)):
        search.create(SICK, **with_engine(engine))
        now += 601
        assert engines.is_native(SICK) is native
        search("DELETE", f"/{SICK}")
        now += 599
        assert engines.is_native(SICK) is native


def test_a_native_engine_that_runs_is_tried_once(
    pipeline: Build, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    search.create(INDEX)
    search.index(INDEX, logs(250, 250))
    one = pipeline()
    monkeypatch.setattr("enrich.log_store.engines.needs_library", lambda answer: True)

    record = one.run()

    assert_adds_up(record)
    assert record.vectors_written == 250
    assert one.ledger.index_states.of([INDEX]) == {INDEX: IndexState.WORKS}
    assert one.ledger.index_states.tried_now([INDEX]) == set()


def refusing(index: str, bodies: list[set[str]]) -> Callable[[Asked, Forward], Answered]:
    """Every bulk item of one index is refused for now; which indices each bulk of vectors held."""

    def alter(asked: Asked, forward: Forward) -> Answered:
        answered = forward(asked)
        if not asked.path.partition("?")[0].endswith("/_bulk"):
            return answered
        rows = [json.loads(row) for row in asked.body.splitlines()]
        named = [next(iter(row.values()))["_index"] for row in rows[::2]]
        # Without a vector it is a trial write.
        if b'"log_vector"' in asked.body:
            bodies.append(set(named))
        answer = json.loads(answered.body)
        error = {"type": "opensearch_rejected_execution_exception", "reason": "queue is full"}
        for item, of_index in zip(answer["items"], named, strict=True):
            if of_index == index:
                item["index"] = {"status": 429, "error": error}
        return Answered(body=json.dumps(answer).encode())

    return alter


def test_what_refuses_writes_for_now_shares_no_request_with_others(
    pipeline: Build, search: Search, clean: Services
) -> None:
    """429 for all items of one index: the others are neither held up in its requests nor behind
    it, once it has shown so."""
    for index in (INDEX, SICK, OTHER):
        search.create(index)
    search.index(SICK, logs(20, 20))
    search.index(INDEX, logs(150, 150))
    search.index(OTHER, logs(150, 150))
    bodies: list[set[str]] = []
    chunks: list[set[str]] = []
    with HttpProxy(clean.opensearch.url) as proxy:
        one = pipeline(opensearch_port=proxy.port)
        one.ledger.index_states.note_trouble([SICK])

        def look(name: str, arguments: Any) -> None:
            if name == "embed_and_update":
                # Only now: an index that refuses writes at a run's start is skipped.
                proxy.alter = refusing(SICK, bodies)
                message = Chunk.from_message(arguments[0])
                chunks.append({reference.index for reference in message.references})

        one.before = look
        record = one.run()

    assert_adds_up(record)
    assert search.count(INDEX, {"exists": {"field": "log_vector"}}) == 150
    assert search.count(OTHER, {"exists": {"field": "log_vector"}}) == 150
    assert {SICK} in chunks
    assert all(SICK not in held for held in chunks[: chunks.index({SICK})])
    assert all(held == {SICK} or SICK not in held for held in (*chunks, *bodies))
    assert one.ledger.index_states.in_trouble([INDEX, SICK, OTHER]) == {SICK}


def test_chunks_that_were_sent_before_write_what_is_in_trouble_behind_the_others(
    pipeline: Build, search: Search, clean: Services
) -> None:
    for index in (INDEX, SICK):
        search.create(index)
        search.index(index, logs(20, 20))
    bodies: list[set[str]] = []
    with HttpProxy(clean.opensearch.url) as proxy:
        one = pipeline(opensearch_port=proxy.port)
        mixed: list[str] = []

        def note(name: str, arguments: Any) -> None:
            if name == "embed_and_update":
                chunk = Chunk.from_message(arguments[0])
                if {reference.index for reference in chunk.references} == {INDEX, SICK}:
                    mixed.append(chunk.id)
                one.ledger.index_states.note_trouble([SICK])
                proxy.alter = refusing("", bodies)

        one.before = note
        record = one.run()

    assert mixed, "or nothing is shown"
    assert_adds_up(record)
    assert (record.vectors_written, record.retries) == (40, 0)
    with_logs = [held for held in bodies if held & {INDEX, SICK}]
    assert {INDEX, SICK} not in with_logs
    assert with_logs.index({INDEX}) < with_logs.index({SICK})


def test_a_chunk_whose_index_refuses_writes_takes_no_slot_from_the_others(
    pipeline: Build, search: Search, clean: Services
) -> None:
    """One chunk may be in flight, and that one has logs of an index that refuses them."""
    for index, count in ((SICK, 20), (INDEX, 60)):
        search.create(index)
        search.index(index, logs(count, count))
    bodies: list[set[str]] = []
    waiting: list[tuple[str, Any]] = []
    with HttpProxy(clean.opensearch.url) as proxy:
        one = pipeline(
            opensearch_port=proxy.port, enrich_max_chunks_in_flight=1, enrich_batch_size=10
        )
        one.find_unvectorized("manual")
        while one.messages:
            name, arguments = one.messages[0]
            if name != "embed_and_update":
                one.deliver()
                continue
            one.messages.popleft()
            proxy.alter = refusing(SICK, bodies)
            try:
                one.backfill.embed_and_update(Chunk.from_message(arguments[0]))
            except IndexInTrouble:
                waiting.append((name, arguments))

        assert search.count(INDEX, {"exists": {"field": "log_vector"}}) == 60
        assert 0 < len(waiting) <= 2, "as many again as the limit, and no more"

        proxy.alter = unaltered
        one.messages.extend(waiting)
        while one.messages:
            one.deliver()
        (record,) = one.ledger.records.last(1)
    assert_adds_up(record)
    assert (record.vectors_written, record.deferred) == (80, 0)


@pytest.mark.parametrize("times", [1, 2])
def test_an_index_whose_search_runs_out_of_time_is_read_behind_the_others(
    pipeline: Build, search: Search, clean: Services, times: int
) -> None:
    """Once: nothing of it is missed. Twice: it is left to the next run."""
    for index, count in ((SICK, 20), (INDEX, 60)):
        search.create(index)
        search.index(index, logs(count, count))
    searches = 0
    chunks: list[set[str]] = []

    def alter(asked: Asked, forward: Forward) -> Answered:
        nonlocal searches
        answered = forward(asked)
        if not asked.path.startswith("/_msearch") or b'"timeout"' not in asked.body:
            return answered
        answer = json.loads(answered.body)
        targets = [json.loads(row)["index"] for row in asked.body.splitlines()[::2]]
        for target, response in zip(targets, answer["responses"], strict=True):
            searches += target == SICK
            # The first is the survey's.
            if target == SICK and 2 <= searches <= times + 1:
                response["timed_out"] = True
                response["hits"]["hits"] = response["hits"]["hits"][:3]
        return Answered(body=json.dumps(answer).encode())

    with HttpProxy(clean.opensearch.url) as proxy:
        one = pipeline(opensearch_port=proxy.port)

        def note(name: str, arguments: Any) -> None:
            if name == "embed_and_update":
                chunk = Chunk.from_message(arguments[0])
                chunks.append({reference.index for reference in chunk.references})

        one.before = note
        proxy.alter = alter
        record = one.run()

    assert_adds_up(record)
    assert searches > times
    if times == 1:
        assert chunks == [{INDEX}, {SICK}]
        assert (record.vectors_written, record.skipped_indices) == (80, {})
    else:
        assert (chunks, record.vectors_written) == ([{INDEX}], 60)
        assert "not every shard answers within" in record.skipped_indices[SICK]

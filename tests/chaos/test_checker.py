"""The judge of the chaos matrix is judged: each promise is broken on purpose, and it says so.

A drained world is sound; then one thing in it is changed behind the product's back. Exactly the
sentences that name this must come.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from dev.embedding_model import Model
from dev.services import Services
from enrich.settings import Settings
from tests.chaos.checker import Findings, Key
from tests.chaos.world import BANK, SHOP, World
from tests.conftest import Pipeline

pytestmark = pytest.mark.apart

Break = Callable[[World], None]


@pytest.fixture
def drained(
    clean: Services, tmp_path: Path, model: Model, settings: Callable[..., Settings]
) -> Iterator[World]:
    with World(clean, tmp_path, "checker", seed=1, model=model, size=40) as world:
        world.api.set(latency_ms=0)
        one = Pipeline(settings(enrich_redis_prefix=world.prefix, enrich_batch_size=10))
        try:
            one.run()
            yield world
        finally:
            one.close()
            world.forget()


def judged(w: World) -> Findings:
    return w.checker.check(w.truth, int(w.api.seen["inputs"]))


# -- ways to break it


def healthy(w: World) -> Key:
    return w.some(1)[0]


def one_that(w: World, field: str, value: Any) -> Key:
    return next(key for key, s in w.truth.sources.items() if s.get(field) == value)


def change(w: World, key: Key, **fields: Any) -> None:
    w.search("POST", f"/{key[0]}/_update/{key[1]}", {"doc": fields, "detect_noop": False})


def remove(w: World, key: Key, *fields: str) -> None:
    source = w.search.source(*key)
    kept = {name: value for name, value in source.items() if name not in fields}
    w.search("PUT", f"/{key[0]}/_doc/{key[1]}", kept)


def record(w: World) -> str:
    (run,) = w.redis.lrange(w.prefix + "runs", 0, -1)
    return f"{w.prefix}run:{run.decode()}"


def a_stray_document(w: World) -> None:
    w.search.index(SHOP, [{"level": "INFO", "_id": "stray"}])


def a_lost_document(w: World) -> None:
    index, id = one_that(w, "level", "INFO")
    w.search("DELETE", f"/{index}/_doc/{id}")


def a_foreign_field(w: World) -> None:
    change(w, healthy(w), price=2.2)


def a_foreign_field_lost(w: World) -> None:
    remove(w, healthy(w), "timestamp")


def a_field_more(w: World) -> None:
    change(w, healthy(w), surprise=1)


def an_info_log_touched(w: World) -> None:
    change(w, one_that(w, "level", "INFO"), level="INFO")


def an_info_log_with_our_mark(w: World) -> None:
    change(w, one_that(w, "level", "INFO"), ai_enrichment_status="failed")


def a_vector_from_before_replaced(w: World) -> None:
    change(w, one_that(w, "by", "sibling"), log_vector=w._vector())


def another_writers_vector_overwritten(w: World) -> None:
    w.truth.theirs[healthy(w)] = w._vector()


def a_healthy_log_marked_failed(w: World) -> None:
    key = healthy(w)
    change(w, key, ai_enrichment_status="failed", ai_enrichment_error="text_refused")
    remove(w, key, "log_vector")


def failed_with_a_vector(w: World) -> None:
    change(w, healthy(w), ai_enrichment_status="failed")


def a_failed_log_not_marked(w: World) -> None:
    key = one_that(w, "message", "  ")
    remove(w, key, "ai_enrichment_status", "ai_enrichment_error")


def an_error_log_without_vector(w: World) -> None:
    remove(w, healthy(w), "log_vector")


def two_vectors_swapped(w: World) -> None:
    one, *others = w.some(20)
    mine = w.search.source(*one)
    other = next(k for k in others if w.search.source(*k)["message"] != mine["message"])
    theirs = w.search.source(*other)
    change(w, one, log_vector=theirs["log_vector"])
    change(w, other, log_vector=mine["log_vector"])


def one_number_of_a_vector(w: World) -> None:
    key = healthy(w)
    vector = w.search.source(*key)["log_vector"]
    change(w, key, log_vector=[vector[0] + 1e-4, *vector[1:]])


def another_fingerprint(w: World) -> None:
    change(w, healthy(w), ai_text_sha256="0" * 64)


def another_status(w: World) -> None:
    change(w, healthy(w), ai_enrichment_status="done")


def a_vector_of_an_unknown_run(w: World) -> None:
    change(w, healthy(w), ai_enrichment_run="nobody")


def an_index_created(w: World) -> None:
    w.search.create("surprise_2026_11")


def a_deleted_index_come_back(w: World) -> None:
    w.truth.gone |= {key for key in w.truth.sources if key[0] == BANK}
    w.search("DELETE", f"/{BANK}")
    w.search.create(BANK)


def a_run_left_open(w: World) -> None:
    w.redis.set(w.prefix + "active_run", "abc")


def a_run_left_running(w: World) -> None:
    w.redis.hset(record(w), "state", "running")


def a_chunk_left_open(w: World) -> None:
    w.redis.hset(record(w) + ":open", "abc:1:0", "{}")


def a_record_without_state(w: World) -> None:
    w.redis.hset(w.prefix + "run:ghost", "errors", 1)


def one_more_found(w: World) -> None:
    w.redis.hincrby(record(w), "found", 1)


def one_more_outcome(w: World) -> None:
    w.redis.hincrby(record(w), "deferred", 1)


def one_more_vector(w: World) -> None:
    w.redis.hincrby(record(w), "vectors_written", 1)


def totals_of_runs(w: World) -> None:
    w.redis.hincrby(w.prefix + "totals", "runs", 1)


def totals_of_vectors(w: World) -> None:
    w.redis.hincrby(w.prefix + "totals", "vectors", -1)


def totals_of_errors(w: World) -> None:
    w.redis.hincrby(w.prefix + "totals", "errors", 1)


def a_text_paid_twice(w: World) -> None:
    # Sixteen texts allow for no input more.
    httpx2.post(
        f"{w.stack.embeddings.url}/v1/embeddings",
        json={"model": "text-embedding-3-large", "input": "x", "dimensions": 1536},
        headers={"Authorization": f"Bearer {w.stack.environment()['OPENAI_API_KEY']}"},
    ).raise_for_status()


NO_VECTOR = "an ERROR log has no vector"
MISCOUNTED = r"run \w+ says \d+ vectors written, OpenSearch has"
OUTCOMES = r"run \w+ found \d+, its outcomes"
NOT_ITS_OWN = "the vector is not that of its own text"
NOT_OWED = "a document that was not owed was written"

BROKEN: dict[Break, list[str]] = {
    a_stray_document: ["a document appeared that nobody wrote"],
    a_lost_document: ["a document is lost"],
    a_foreign_field: ["field price was changed"],
    a_foreign_field_lost: ["field timestamp was changed"],
    a_field_more: ["field surprise was changed"],
    an_info_log_touched: [NOT_OWED],
    an_info_log_with_our_mark: ["field ai_enrichment_status was changed", NOT_OWED],
    a_vector_from_before_replaced: ["field log_vector was changed", NOT_OWED],
    another_writers_vector_overwritten: ["another writer's vector was overwritten"],
    a_healthy_log_marked_failed: ["marked failed as text_refused, expected was None", MISCOUNTED],
    failed_with_a_vector: ["marked failed, with a vector"],
    a_failed_log_not_marked: ["not marked failed as message_empty"],
    an_error_log_without_vector: [NO_VECTOR, MISCOUNTED],
    two_vectors_swapped: [NOT_ITS_OWN, NOT_ITS_OWN],
    one_number_of_a_vector: [NOT_ITS_OWN],
    another_fingerprint: ["the fingerprint is not that of its own text"],
    another_status: ["a vector without the status success"],
    a_vector_of_an_unknown_run: [MISCOUNTED, r"vectors of runs that Redis does not know"],
    an_index_created: ["an index was created: surprise_2026_11"],
    a_deleted_index_come_back: [f"an index was created: {BANK}"],
    a_run_left_open: ["run abc stays open"],
    a_run_left_running: [r"run \w+ is still running"],
    a_chunk_left_open: [r"run \w+ has 1 open chunks"],
    a_record_without_state: ["run ghost is a record without a state"],
    one_more_found: [OUTCOMES],
    one_more_outcome: [OUTCOMES],
    one_more_vector: [
        r"run \w+ wrote \d+ vectors, its outcomes",
        MISCOUNTED,
        "totals say .* vectors",
    ],
    totals_of_runs: ["totals say 2 runs, the runs sum to 1"],
    totals_of_vectors: ["totals say .* vectors"],
    totals_of_errors: ["totals say .* errors"],
    a_text_paid_twice: [r"\d+ inputs were paid for \d+ distinct texts"],
}


def test_a_sound_world_is_found_sound(drained: World) -> None:
    findings = judged(drained)
    assert findings.violations == []
    assert findings.outcomes["failed"] == 4
    assert findings.paid == findings.distinct == 16


@pytest.mark.parametrize("harm", BROKEN, ids=lambda harm: harm.__name__)
def test_each_broken_promise_is_told_and_nothing_else(drained: World, harm: Break) -> None:
    harm(drained)
    told = judged(drained).violations
    assert len(told) == len(BROKEN[harm])
    for sentence, expected in zip(told, BROKEN[harm], strict=True):
        assert re.match(expected, sentence)

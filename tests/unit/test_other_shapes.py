"""A whole backfill over logs of another shape, in this process and without servers."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from enrich.embedding.in_memory import vector_of
from enrich.enrichment.stored_vectors import text_now
from enrich.log_store import Readiness
from enrich.log_store.in_memory import MemoryIndex
from enrich.log_store.stored_vectors import StoredVectors
from enrich.log_store.text_probe import texts_of
from enrich.models import LogLocation
from enrich.schema import PRESETS, schema_of
from enrich.settings import rewrite_of
from enrich.text.extract import fingerprint
from tests.memory_pipeline import DIMENSIONS, MemoryPipeline
from tests.unit.test_schema import LOGS, dotted

INDEX, OTHER = "shop_2026_11", "till_2026_11"
TIME = "2026-11-28T10:00:00Z"


def log_of(name: str, **fields: Any) -> dict[str, Any]:
    return {n: TIME if v == "T" else v for n, v in LOGS[name].items()} | fields


@pytest.mark.parametrize("schema", ["itself", "auto"])
@pytest.mark.parametrize("name", PRESETS)
def test_each_shape_gets_its_vectors(name: str, schema: str) -> None:
    pipeline = MemoryPipeline(enrich_schema=name if schema == "itself" else schema)
    pipeline.put(INDEX, [log_of(name), dotted(log_of(name))])
    assert pipeline.run().embedded == 1
    for source in pipeline.sources(INDEX).values():
        assert source["ai_text_sha256"] == fingerprint("boom")
        assert source["log_vector"] == pytest.approx(vector_of("boom", DIMENSIONS).tolist())


def test_auto_takes_shapes_mixed_in_one_index() -> None:
    pipeline = MemoryPipeline(enrich_schema="auto")
    pipeline.put(INDEX, [log_of(name) for name in LOGS] + [{"level": "info", "message": "fine"}])
    record = pipeline.run()
    assert (record.found, record.embedded, record.duplicate) == (5, 1, 4)
    assert pipeline.run().found == 0


def test_log_that_says_the_same_is_not_paid_for_twice() -> None:
    """A vector that is read from a log is held against the text of its shape."""
    pipeline = MemoryPipeline(enrich_schema="ecs", enrich_cache_max_entries=0)
    trace = {"error": {"type": "X", "stack_trace": "X: no stock\n\tat a.b"}}
    pipeline.put(INDEX, [log_of("ecs", **trace)])
    assert pipeline.run().embedded == 1
    pipeline.cache.__init__()  # type: ignore[misc]
    pipeline.put(INDEX, [log_of("ecs", **trace), log_of("ecs")], name="later")
    record = pipeline.run()
    assert (record.reused, record.embedded) == (1, 1)


def test_change_of_any_part_of_the_text_is_another_text() -> None:
    pipeline = MemoryPipeline(enrich_schema="ecs")
    pipeline.put(INDEX, [log_of("ecs", error={"type": "X"})])

    def change(name: str, arguments: Any) -> None:
        if name == "embed_and_update":
            pipeline.before = lambda *_: None
            index: MemoryIndex = pipeline.store.indices[INDEX]
            answer = index.answer

            def once(write: Any) -> Any:
                index.answer = answer
                pipeline.store.put(INDEX, "log0", log_of("ecs", error={"type": "Y"}))
                return None

            index.answer = once

    pipeline.before = change
    record = pipeline.run()
    assert (record.found, record.deferred, record.embedded) == (1, 1, 0)
    pipeline.store.documents.refresh([INDEX])
    assert pipeline.run().embedded == 1
    (source,) = pipeline.sources(INDEX).values()
    assert source["ai_text_sha256"] == fingerprint("boom\nY")


def test_changed_log_whose_level_stands_in_the_index_alone_is_still_wanted() -> None:
    pipeline = MemoryPipeline(enrich_schema="ecs")
    pipeline.put(INDEX, [log_of("ecs")])

    def change(name: str, arguments: Any) -> None:
        if name == "embed_and_update":
            pipeline.store.put(INDEX, "log0", {"message": "boom", "stored_level": "error"})

    pipeline.before = change
    assert pipeline.run().embedded == 1


def test_changed_log_of_another_level_is_gone() -> None:
    pipeline = MemoryPipeline(enrich_schema="ecs")
    pipeline.put(INDEX, [log_of("ecs")])

    def change(name: str, arguments: Any) -> None:
        if name == "embed_and_update":
            pipeline.store.put(INDEX, "log0", log_of("ecs", log={"level": "info"}))

    pipeline.before = change
    record = pipeline.run()
    assert (record.embedded, record.gone) == (0, 1)


def test_logs_that_differ_in_what_is_normalised_share_one_vector() -> None:
    pipeline = MemoryPipeline(enrich_normalize="numbers,times")
    some = [log_of("loglens", message=f"took {n} ms at 2026-11-28T10:00:0{n}Z") for n in range(9)]
    pipeline.put(INDEX, some)
    record = pipeline.run()
    assert (record.embedded, record.duplicate) == (1, 8)
    for source in pipeline.sources(INDEX).values():
        # The text that is sent is the one of the fingerprint and of the vector.
        assert source["ai_text_sha256"] == fingerprint("took <number> ms at <time>")
        right = vector_of("took <number> ms at <time>", DIMENSIONS)
        assert source["log_vector"] == pytest.approx(right.tolist())
    assert [source["message"] for source in pipeline.sources(INDEX).values()] == [
        one["message"] for one in some
    ]


def test_vector_of_a_text_that_was_not_normalised_is_not_taken_for_one_that_is() -> None:
    pipeline = MemoryPipeline(enrich_normalize="numbers")
    pipeline.put(INDEX, [log_of("loglens", message="took 7 ms")])
    pipeline.run()
    (stored,) = pipeline.store.stored_vectors.read([LogLocation(INDEX, "log0", None)])
    assert stored is not None
    space = pipeline.settings.embedding_model, DIMENSIONS
    assert text_now(stored, space, rewrite_of(pipeline.settings)) == "took <number> ms"
    assert text_now(stored, space, None) == "took 7 ms"


@pytest.mark.parametrize(("normalize", "distinct"), [((), 40), (("numbers",), 2)])
def test_what_normalising_would_save_is_seen_on_a_sample(
    normalize: tuple[str, ...], distinct: int
) -> None:
    pipeline = MemoryPipeline(enrich_normalize=normalize)
    some = [log_of("loglens", message=f"took {n % 20} ms") for n in range(40)]
    some += [log_of("loglens", message=f"item {n % 20} is gone") for n in range(40)]
    some += [log_of("loglens", message=" ")]
    pipeline.put(INDEX, some)
    ready = Readiness(skipped={}, update_only=[], lacking={})
    seen = texts_of(
        pipeline.store.finder, [INDEX], ready, frozenset(), rewrite_of(pipeline.settings)
    )
    assert (seen.looked_at, seen.unusable) == (81, 1)
    assert (seen.distinct, seen.normalised) == (distinct, 2)


class Wire:
    def __init__(self, *sources: dict[str, Any]) -> None:
        self.body = msgspec.json.encode({"docs": [{"_source": source} for source in sources]})

    def request(self, *_: Any) -> str:
        return self.body.decode()


@pytest.mark.parametrize("name", [*PRESETS, "auto"])
@pytest.mark.parametrize("form", ["nested", "dotted", "half a surrogate pair"])
def test_vector_is_read_with_the_text_of_its_log(name: str, form: str) -> None:
    log = log_of("ecs" if name == "auto" else name)
    source = {**(dotted(log) if form == "dotted" else log), "log_vector": [1.0, 0.5]}
    wire = Wire(source)
    if form.startswith("half"):
        wire.body = wire.body.replace(b"boom", rb"boom \ud800")
    read = StoredVectors(wire, 2, schema_of(name, ("ERROR",)))  # type: ignore[arg-type]
    (stored,) = read.read([LogLocation(INDEX, "a", None)])
    assert stored is not None and stored.vector.tolist() == [1.0, 0.5]
    assert stored.message.strip() == ("boom \ud800" if form.startswith("half") else "boom")

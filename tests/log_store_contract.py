"""What a log store promises, as tests that run on OpenSearch and on the form in memory alike.

A subclass gives the fixture `world`: a store with what others do to its logs.
"""

from __future__ import annotations

import json
import random
from typing import Any, Protocol

import numpy as np
import pytest

from enrich.log_store import (
    Addition,
    Arrival,
    Document,
    IndexPage,
    Presence,
    Target,
    Verdict,
    Write,
    encode_vector,
)
from enrich.log_store.coverage import Counted
from enrich.models import LogLocation, Reference
from enrich.settings import Settings

INDEX, OTHER, NEW = "shop_2026_11", "shop_2026_12", "shop_2027_01"
DIMENSIONS = 4
VECTOR = np.array([0.5, -0.25, 1, 0.1], np.float32)
FINGERPRINT = "ab" * 32


class World(Protocol):
    """A store, and what others do to it."""

    settings: Settings
    store: Any

    def create(self, index: str, *, refused_fields: frozenset[str] = frozenset()) -> None: ...
    def put(self, index: str, id: str, source: Any, routing: str | None = None) -> Reference: ...
    def delete(self, index: str, id: str) -> None: ...
    def alias(self, name: str, *indices: str) -> None: ...
    def drop(self, index: str) -> None: ...
    def block_writes(self, index: str) -> None: ...
    def block_reads(self, index: str) -> None: ...
    def close(self, index: str) -> None: ...


def log_at(second: int, message: Any = "out of memory", **fields: Any) -> dict[str, Any]:
    time = f"2026-11-20T10:{second // 60:02}:{second % 60:02}Z"
    return {"timestamp": time, "level": "ERROR", "message": message, **fields}


def success(settings: Settings, **fields: Any) -> Addition:
    """A vector with what is written beside it."""
    marks = {
        "ai_enrichment_status": "success",
        "ai_embedding_model": settings.embedding_model,
        "ai_embedding_dimensions": settings.embedding_dimensions,
        "ai_text_sha256": FINGERPRINT,
        **fields,
    }
    return Addition(marks, encode_vector(VECTOR))


FAILED = Addition({"ai_enrichment_status": "failed", "ai_enrichment_error": "text_refused"})


def page(world: World, index: str, size: int, cursor: Any = None, *unsorted: str) -> IndexPage:
    (read,) = world.store.finder.page([Target(index, cursor, size)], frozenset(unsorted))
    return read


def ids(read: IndexPage) -> list[str]:
    return [hit.reference.id for hit in read.hits]


def read_one(world: World, id: str, index: str = INDEX, routing: str | None = None) -> Document:
    (document,) = world.store.documents.read([Reference(index, id, routing, -1, 0)])
    return document


def write(world: World, document: Document, addition: Addition, *, by_update: bool = False) -> Any:
    one = Write(document=document, addition=addition, by_update=by_update)
    ((verdict, kind),) = world.store.documents.write([one])
    assert (kind == "") is (verdict is Verdict.WRITTEN)
    return verdict


def refresh(world: World) -> None:
    world.store.documents.refresh([INDEX, OTHER])


class LogStoreContract:
    """The tests; each begins with an empty world."""

    @pytest.fixture(autouse=True)
    def index_of_all(self, world: World) -> None:
        world.create(INDEX)

    # -- searching

    def test_pages_bring_each_log_once_the_newest_first(self, world: World) -> None:
        seconds = [5, 3, 9, 1, 7, 4, 8]
        for second in seconds:
            world.put(INDEX, str(second), log_at(second))
        refresh(world)
        found, cursor, pages = [], None, []
        while not (pages and pages[-1].exhausted):
            pages.append(page(world, INDEX, 3, cursor))
            found += ids(pages[-1])
            # As the ledger keeps it.
            cursor = json.loads(json.dumps(pages[-1].cursors[-1])) if pages[-1].hits else cursor
        assert found == [str(second) for second in sorted(seconds, reverse=True)]
        assert [len(each.hits) for each in pages] == [3, 3, 1]
        assert all(len(each.cursors) == len(each.hits) for each in pages)

    def test_a_page_that_is_just_full_is_not_the_last(self, world: World) -> None:
        for second in range(2):
            world.put(INDEX, str(second), log_at(second))
        refresh(world)
        full = page(world, INDEX, 2)
        assert not full.exhausted
        empty = page(world, INDEX, 2, full.cursors[-1])
        assert (empty.hits, empty.exhausted, empty.trouble) == ([], True, "")

    def test_of_logs_of_one_time_the_last_change_is_first(self, world: World) -> None:
        for n in range(4):
            world.put(INDEX, str(n), log_at(1))
        world.put(INDEX, "0", log_at(1))
        refresh(world)
        first = page(world, INDEX, 2)
        assert ids(first) == ["0", "3"]
        assert ids(page(world, INDEX, 9, first.cursors[-1])) == ["2", "1"]

    def test_a_log_without_a_time_is_last(self, world: World) -> None:
        world.put(INDEX, "timeless", {"level": "ERROR", "message": "m"})
        world.put(INDEX, "old", log_at(1))
        world.put(INDEX, "new", log_at(2))
        refresh(world)
        first = page(world, INDEX, 1)
        second = page(world, INDEX, 1, first.cursors[-1])
        third = page(world, INDEX, 5, second.cursors[-1])
        assert [*ids(first), *ids(second), *ids(third)] == ["new", "old", "timeless"]

    def test_an_index_without_times_is_read_by_its_changes(self, world: World) -> None:
        for n, second in enumerate((5, 1, 9)):
            world.put(INDEX, str(n), log_at(second))
        refresh(world)
        first = page(world, INDEX, 1, None, INDEX)
        assert ids(first) == ["2"]
        assert ids(page(world, INDEX, 5, first.cursors[-1], INDEX)) == ["1", "0"]

    def test_only_pending_logs_are_found(self, world: World) -> None:
        world.put(INDEX, "pending", log_at(1))
        world.put(INDEX, "info", {**log_at(2), "level": "INFO"})
        world.put(INDEX, "lower", {**log_at(3), "level": "error"})
        world.put(INDEX, "none", {"timestamp": "2026-11-20T10:00:00Z", "message": "m"})
        world.put(INDEX, "vector", log_at(4, log_vector=[1, 2, 3, 4]))
        world.put(INDEX, "failed", log_at(5, ai_enrichment_status="failed"))
        world.put(INDEX, "success", log_at(6, ai_enrichment_status="success"))
        refresh(world)
        assert ids(page(world, INDEX, 10)) == ["success", "pending"]
        assert world.store.backlog.count().counts == {INDEX: 2}

    def test_a_search_sees_the_last_refresh_and_a_reading_the_present(self, world: World) -> None:
        old = world.put(INDEX, "1", log_at(1, "old"))
        refresh(world)
        world.put(INDEX, "1", log_at(1, "new"))
        world.put(INDEX, "2", log_at(2))
        (hit,) = page(world, INDEX, 10).hits
        assert (hit.message, hit.reference) == ("old", old)
        read = read_one(world, "1")
        assert read.value("message") == "new"
        assert read.reference.seq_no > old.seq_no
        assert read_one(world, "2").presence is Presence.FOUND
        assert world.store.backlog.count().counts == {INDEX: 1}
        refresh(world)
        assert ids(page(world, INDEX, 10)) == ["2", "1"]

    def test_what_arrives_between_pages_is_found_where_it_is_older(self, world: World) -> None:
        for second in (10, 20, 30, 40):
            world.put(INDEX, str(second), log_at(second))
        refresh(world)
        first = page(world, INDEX, 2)
        assert ids(first) == ["40", "30"]
        for second in (15, 35):
            world.put(INDEX, str(second), log_at(second))
        # Enriched meanwhile; changed meanwhile.
        assert write(world, read_one(world, "40"), success(world.settings)) is Verdict.WRITTEN
        world.put(INDEX, "30", log_at(30, "other"))
        refresh(world)
        assert ids(page(world, INDEX, 9, first.cursors[-1])) == ["20", "15", "10"]

    def test_a_message_that_is_no_text_is_none(self, world: World) -> None:
        for n, message in enumerate([None, "text", 7]):
            world.put(INDEX, str(n), log_at(n, message))
        refresh(world)
        assert [hit.message for hit in page(world, INDEX, 9).hits if hit.message] == ["text"]

    def test_the_size_is_that_of_the_source_about(self, world: World) -> None:
        world.put(INDEX, "short", log_at(1, "m"))
        world.put(INDEX, "long", log_at(2, "m", stack="x" * 5000))
        refresh(world)
        long, short = (hit.size for hit in page(world, INDEX, 9).hits)
        assert long - short == 5000

    def test_each_target_has_its_own_page_in_their_order(self, world: World) -> None:
        world.create(OTHER)
        for n in range(3):
            world.put(INDEX, f"i{n}", log_at(n))
            world.put(OTHER, f"o{n}", log_at(n))
        refresh(world)
        targets = [Target(OTHER, None, 1), Target("gone_2026_01", None, 1), Target(INDEX, None, 9)]
        read = world.store.finder.page(targets, frozenset())
        assert [each.index for each in read] == [OTHER, "gone_2026_01", INDEX]
        assert list(map(ids, read)) == [["o2"], [], ["i2", "i1", "i0"]]
        assert [each.exhausted for each in read] == [False, True, True]
        assert world.store.finder.page([], frozenset()) == []

    def test_the_backlog_is_that_of_the_pattern(self, world: World) -> None:
        for name in (OTHER, "audit", "idle_2026_11"):
            world.create(name)
        for name in (INDEX, OTHER, "audit"):
            world.put(name, "1", log_at(1))
            world.store.documents.refresh([name])
        backlog = world.store.backlog.count()
        assert backlog.counts == {INDEX: 1, OTHER: 1}
        assert (backlog.unreadable, backlog.unsorted) == ({}, frozenset())
        assert set(world.store.stats.names()) == {INDEX, OTHER, "idle_2026_11"}

    # -- indices in trouble

    def test_an_index_that_is_gone(self, world: World) -> None:
        world.put(INDEX, "1", log_at(1))
        refresh(world)
        before = read_one(world, "1")
        world.drop(INDEX)
        assert page(world, INDEX, 9) == IndexPage(index=INDEX, exhausted=True)
        assert read_one(world, "1").presence is Presence.GONE
        for by_update in (False, True):
            verdict = write(world, before, success(world.settings), by_update=by_update)
            assert verdict is Verdict.GONE
        world.store.documents.refresh([INDEX])
        assert world.store.backlog.count().counts == {}

    def test_an_index_that_is_closed(self, world: World) -> None:
        world.put(INDEX, "1", log_at(1))
        refresh(world)
        before = read_one(world, "1")
        assert not before.closed
        world.close(INDEX)
        read = read_one(world, "1")
        assert (read.presence, read.closed) == (Presence.UNREADABLE, True)
        assert write(world, before, success(world.settings)) is Verdict.BLOCKED
        assert page(world, INDEX, 9) == IndexPage(index=INDEX, exhausted=True)
        backlog = world.store.backlog.count()
        assert (backlog.counts, backlog.unreadable) == ({}, {})

    def test_an_index_that_takes_no_writes(self, world: World) -> None:
        world.put(INDEX, "1", log_at(1))
        refresh(world)
        world.block_writes(INDEX)
        for by_update in (False, True):
            one = Write(
                document=read_one(world, "1"),
                addition=success(world.settings),
                by_update=by_update,
            )
            blocked = [(Verdict.BLOCKED, "cluster_block_exception")]
            assert world.store.documents.write([one]) == blocked
        assert ids(page(world, INDEX, 9)) == ["1"]

    def test_an_index_that_takes_no_reads_is_no_trouble_of_the_others(self, world: World) -> None:
        world.create(OTHER)
        for name in (INDEX, OTHER):
            world.put(name, "1", log_at(1))
        refresh(world)
        world.block_reads(OTHER)
        backlog = world.store.backlog.count()
        assert backlog.counts == {INDEX: 1}
        assert list(backlog.unreadable) == [OTHER]
        targets = [Target(name, None, 9) for name in (OTHER, INDEX)]
        sick, well = world.store.finder.page(targets, frozenset())
        assert sick.trouble == "it cannot be searched (cluster_block_exception)"
        assert (sick.hits, well.trouble, ids(well)) == ([], "", ["1"])
        read = read_one(world, "1", OTHER)
        assert (read.presence, read.closed) == (Presence.UNREADABLE, False)

    # -- reading and writing

    def test_documents_come_in_the_order_in_which_they_are_asked_for(self, world: World) -> None:
        for n in range(3):
            world.put(INDEX, str(n), log_at(n))
        asked = [Reference(INDEX, id, None, -1, 0) for id in ("2", "gone", "0", "2")]
        read = world.store.documents.read(asked)
        assert [each.reference.id for each in read] == ["2", "gone", "0", "2"]
        assert [each.presence is Presence.GONE for each in read] == [False, True, False, False]
        assert read[1].fields == {} and read[1].raw is None
        assert world.store.documents.read([]) == []

    @pytest.mark.parametrize("by_update", [False, True])
    def test_a_write_adds_its_fields_and_changes_no_other(
        self, world: World, by_update: bool
    ) -> None:
        raw = b'{"level":"ERROR","message":"m \\u20ac", "a":{"b":[1.0,2.50]}}'
        world.put(INDEX, "1", raw)
        before = read_one(world, "1")
        assert before.raw == raw
        assert write(world, before, FAILED, by_update=by_update) is Verdict.WRITTEN
        after = read_one(world, "1")
        assert after.reference.seq_no > before.reference.seq_no
        for name, value in before.fields.items():
            assert json.loads(bytes(after.fields[name])) == json.loads(bytes(value))
        added = {name: after.value(name) for name in after.fields.keys() - before.fields.keys()}
        assert added == dict(FAILED.fields)
        if not by_update:
            assert after.raw is not None and after.raw.startswith(raw[:-1] + b",")

    def test_fields_of_ours_are_replaced(self, world: World) -> None:
        world.put(INDEX, "1", log_at(1))
        assert write(world, read_one(world, "1"), FAILED) is Verdict.WRITTEN
        assert write(world, read_one(world, "1"), success(world.settings)) is Verdict.WRITTEN
        after = read_one(world, "1")
        assert after.value("ai_enrichment_status") == "success"
        assert after.value("ai_enrichment_error") is None
        assert after.value("log_vector") == pytest.approx(VECTOR.tolist())

    @pytest.mark.parametrize("by_update", [False, True])
    def test_a_write_under_an_old_version_is_a_conflict(
        self, world: World, by_update: bool
    ) -> None:
        world.put(INDEX, "1", log_at(1, "old"))
        before = read_one(world, "1")
        world.put(INDEX, "1", log_at(1, "new"))
        verdict = write(world, before, success(world.settings), by_update=by_update)
        assert verdict is Verdict.CONFLICT
        assert read_one(world, "1").value("log_vector") is None

    @pytest.mark.parametrize(
        ("by_update", "wanted"), [(False, Verdict.CONFLICT), (True, Verdict.GONE)]
    )
    def test_a_write_to_a_deleted_log(self, world: World, by_update: bool, wanted: Verdict) -> None:
        world.put(INDEX, "1", log_at(1))
        before = read_one(world, "1")
        world.delete(INDEX, "1")
        verdict = write(world, before, success(world.settings), by_update=by_update)
        assert verdict is wanted
        assert read_one(world, "1").presence is Presence.GONE

    def test_each_write_of_many_has_its_own_answer(self, world: World) -> None:
        for n in range(3):
            world.put(INDEX, str(n), log_at(n))
        asked = [Reference(INDEX, id, None, -1, 0) for id in ("0", "1", "1", "2")]
        documents = world.store.documents.read(asked)
        world.delete(INDEX, "0")
        wanted = success(world.settings)
        answers = world.store.documents.write(
            [Write(document=document, addition=wanted) for document in documents]
        )
        # The second write of one log comes too late, since the first has changed it.
        assert [verdict for verdict, _ in answers] == [
            Verdict.CONFLICT, Verdict.WRITTEN, Verdict.CONFLICT, Verdict.WRITTEN,
        ]  # fmt: skip
        assert world.store.documents.write([]) == []

    @pytest.mark.parametrize("by_update", [False, True])
    def test_a_mapping_refuses_a_vector_and_takes_the_mark(
        self, world: World, by_update: bool
    ) -> None:
        world.create(OTHER, refused_fields=frozenset({"log_vector"}))
        world.put(OTHER, "1", log_at(1))
        before = read_one(world, "1", OTHER)
        verdict = write(world, before, success(world.settings), by_update=by_update)
        assert verdict is Verdict.REFUSED
        assert write(world, before, FAILED, by_update=by_update) is Verdict.WRITTEN

    def test_a_mapping_refuses_the_mark_too(self, world: World) -> None:
        refused = frozenset({"log_vector", "ai_enrichment_status"})
        world.create(OTHER, refused_fields=refused)
        world.put(OTHER, "1", log_at(1))
        assert write(world, read_one(world, "1", OTHER), FAILED) is Verdict.REFUSED
        # The mapping is looked at before the version.
        before = read_one(world, "1", OTHER)
        world.put(OTHER, "1", log_at(2))
        assert write(world, before, FAILED) is Verdict.REFUSED

    def test_a_log_with_routing_is_written_where_it_is(self, world: World) -> None:
        world.put(INDEX, "1", log_at(1), routing="r")
        refresh(world)
        (hit,) = page(world, INDEX, 9).hits
        assert hit.reference.routing == "r"
        document = world.store.documents.read([hit.reference])[0]
        assert document.reference == hit.reference
        assert write(world, document, success(world.settings)) is Verdict.WRITTEN
        assert read_one(world, "1", routing="r").value("ai_enrichment_status") == "success"
        refresh(world)
        assert page(world, INDEX, 9).hits == []

    # -- vectors that are there

    def enriched(self, world: World, index: str, id: str, **fields: Any) -> None:
        world.put(index, id, log_at(1))
        addition = success(world.settings, **fields)
        assert write(world, read_one(world, id, index), addition) is Verdict.WRITTEN

    def test_reusable_vectors_are_of_the_project_the_model_and_the_text(self, world: World) -> None:
        foreign = "other_2026_11"
        world.create(OTHER)
        world.create(foreign)
        self.enriched(world, OTHER, "1")
        self.enriched(world, foreign, "2")
        self.enriched(world, INDEX, "3", ai_embedding_model="another", ai_text_sha256="c" * 64)
        wanted = {"shop": {FINGERPRINT, "c" * 64, "0" * 64}}
        assert world.store.reusable.find(wanted) == {}
        world.store.documents.refresh([INDEX, OTHER, foreign])
        given = {("shop", FINGERPRINT): LogLocation(OTHER, "1", None)}
        assert world.store.reusable.find(wanted) == given
        assert world.store.reusable.find({}) == {}

    def test_stored_vectors_come_in_order_and_none_where_there_is_no_whole_one(
        self, world: World
    ) -> None:
        self.enriched(world, INDEX, "good")
        world.put(INDEX, "without", log_at(1))
        asked = [LogLocation(INDEX, id, None) for id in ("without", "good", "gone")]
        asked.append(LogLocation("gone_2026_01", "good", None))
        read = world.store.stored_vectors.read(asked)
        assert [one is None for one in read] == [True, False, True, True]
        (good,) = (one for one in read if one is not None)
        assert good.vector.dtype == np.float32
        assert good.vector.tobytes() == VECTOR.tobytes()
        told = good.message, good.model, good.dimensions, good.fingerprint
        model = world.settings.embedding_model
        assert told == ("out of memory", model, DIMENSIONS, FINGERPRINT)
        assert world.store.stored_vectors.read([]) == []

    def test_enriched_logs_are_counted_and_sampled(self, world: World) -> None:
        world.create(OTHER)
        self.enriched(world, INDEX, "1")
        self.enriched(world, INDEX, "2")
        self.enriched(world, OTHER, "3")
        self.enriched(world, OTHER, "4", ai_embedding_model="another")
        world.put(OTHER, "5", log_at(1))
        assert world.store.stats.count_of_model() == Counted(0)
        refresh(world)
        assert world.store.stats.count_of_model() == Counted(3)
        sampled = world.store.stats.enriched()
        assert sorted(index for index, _ in sampled) == [INDEX, INDEX, OTHER]
        assert all(one.vector.tobytes() == VECTOR.tobytes() for _, one in sampled)

    def test_a_log_is_found_before_a_refresh_behind_whatever_names_its_index(
        self, world: World
    ) -> None:
        world.create(OTHER)
        world.alias("shop_logs", INDEX, OTHER)
        world.put(INDEX, "a", log_at(1))
        world.put(OTHER, "b", log_at(2))
        world.put(OTHER, "routed", log_at(3), "r1")
        where = world.store.whereabouts
        assert where.behind(INDEX) == (INDEX,)
        assert set(where.behind("shop_logs")) == {INDEX, OTHER}
        assert where.behind("shop_2020_01") == ()
        both = where.behind("shop_logs")
        asked = [(both, "a", None), (both, "none", None), (both, "b", None), (both, "routed", "r1")]
        assert where.holding(asked) == [
            LogLocation(INDEX, "a", None),
            None,
            LogLocation(OTHER, "b", None),
            LogLocation(OTHER, "routed", "r1"),
        ]
        assert where.holding([]) == []

    def test_a_log_is_put_in_once_whatever_is_there(self, world: World) -> None:
        source = b'{"level": "ERROR",\n "message": "out of\\nmemory", "n": 1.50}'
        one = Arrival(place=LogLocation(NEW, "a", None), source=source)
        world.create(NEW, refused_fields=frozenset({"log_vector"}))
        assert world.store.arrivals.create([one]) == [""]
        first = read_one(world, "a", NEW)
        assert first.raw is not None
        assert json.loads(first.raw) == json.loads(source)
        named = Arrival(
            place=LogLocation(NEW, "c", None), source=b'{"_id": "c", "message": "m", "_x": 1}'
        )
        assert world.store.arrivals.create([named]) == [""]
        assert json.loads(read_one(world, "c", NEW).raw or b"") == {"message": "m", "_x": 1}
        again = Arrival(place=one.place, source=b'{"level": "ERROR", "message": "other"}')
        wrong = Arrival(place=LogLocation(NEW, "b", None), source=b'{"log_vector": "x"}')
        assert world.store.arrivals.create([again, wrong]) == ["", "mapper_parsing_exception"]
        assert read_one(world, "a", NEW) == first
        assert read_one(world, "b", NEW).presence is Presence.GONE

    def test_an_index_is_made_once(self, world: World) -> None:
        world.store.arrivals.make_index(NEW)
        world.store.arrivals.make_index(NEW)
        assert world.store.whereabouts.behind(NEW) == (NEW,)
        assert world.store.preflight.inspect([NEW]).skipped == {}

    def test_an_index_that_nothing_speaks_against(self, world: World) -> None:
        world.put(INDEX, "1", log_at(1))
        refresh(world)
        ready = world.store.preflight.inspect([INDEX])
        assert (ready.skipped, ready.update_only, ready.windows) == ({}, [], {})
        assert world.store.wholeness.survey([INDEX], ready, frozenset()) == {}
        assert world.store.wholeness.doubts([read_one(world, "1")]) == {}
        nodes = world.store.preflight.nodes()
        assert (nodes.data, nodes.blocker) == (1, "")
        assert world.store.version().objection == ""
        assert not world.store.engines.is_native(INDEX)
        assert world.store.engines.server_answers()
        assert world.store.engines.proves_itself(INDEX)


def random_walk(world: World, seed: int, steps: int) -> list[Any]:
    """What a store answers to changes, writes and searches in an order that the seed decides."""
    chance = random.Random(seed)
    told: list[Any] = []
    read: list[Document] = []
    cursors: list[Any] = [None]
    world.create(INDEX)
    for step in range(steps):
        id = f"log{chance.randrange(8)}"
        act = chance.choice(["put", "put", "put", "delete", "read", "write", "page", "refresh"])
        if act == "put":
            world.put(INDEX, id, log_at(chance.randrange(30), f"m{step}"))
        elif act == "delete":
            world.delete(INDEX, id)
        elif act == "read":
            asked = [Reference(INDEX, f"log{n}", None, -1, 0) for n in range(8)]
            read = world.store.documents.read(asked)
            told.append([(e.reference, e.presence, json.loads(e.raw or b"{}")) for e in read])
        elif act == "write" and read:
            some = chance.sample(read, 3)
            addition = chance.choice([FAILED, success(world.settings)])
            by_update = chance.random() < 0.3
            writes = [
                Write(document=one, addition=addition, by_update=by_update)
                for one in some
                if one.presence is Presence.FOUND
            ]
            told.append(world.store.documents.write(writes))
        elif act == "page":
            brought = page(world, INDEX, chance.randint(1, 4), chance.choice(cursors))
            cursors += brought.cursors
            told.append(brought)
            told.append(world.store.backlog.count())
        elif act == "refresh":
            refresh(world)
    return told

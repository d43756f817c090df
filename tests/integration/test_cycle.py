"""One cycle on real services: every ERROR log gets the vector of its own text, and nothing else
changes. The witness is OpenSearch asked directly and the embedding model itself."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dev.api_control import ApiControl
from dev.embedding_model import Model
from enrich.log_store.connection import Connection
from enrich.log_store.documents import OUR_FIELDS
from enrich.models import MAX_CHUNK_BYTES, RunRecord
from enrich.ratelimit import write_throttle
from enrich.text.extract import fingerprint
from tests.conftest import PREFIX, Pipeline, Search

INDEX = "a_b_2026_11"
Build = Callable[..., Pipeline]


def logs(count: int, distinct: int, level: str = "ERROR") -> list[dict[str, Any]]:
    return [
        {
            "level": level,
            "message": f"connection refused by host number {n % distinct}",
            "timestamp": f"2026-11-{1 + n % 28:02d}T10:00:00.{n % 1000:03d}Z",
            "n": n,
        }
        for n in range(count)
    ]


def assert_right_vectors(search: Search, index: str, model: Model) -> int:
    """Every ERROR log has exactly the model's vector of its message; how many there were."""
    errors = [s for s in search.sources(index).values() if s["level"] == "ERROR"]
    wanted = model.embed([source["message"] for source in errors])
    stored = np.asarray([source["log_vector"] for source in errors], dtype=np.float32)
    assert np.array_equal(stored, wanted)
    return len(errors)


def assert_adds_up(record: RunRecord) -> None:
    assert record.found == record.settled
    assert record.state == "finished"
    assert record.chunks_open == 0


def test_every_error_log_gets_the_vector_of_its_own_text(
    pipeline: Build, search: Search, embeddings: ApiControl, model: Model
) -> None:
    search.create(INDEX)
    search.index(INDEX, logs(450, 120))
    search.create("other_2026_11")
    search.index("other_2026_11", logs(50, 9))

    record = pipeline().run()

    assert_adds_up(record)
    assert record.found == record.vectors_written == 500
    assert assert_right_vectors(search, INDEX, model) == 450
    assert assert_right_vectors(search, "other_2026_11", model) == 50
    assert record.embedded + record.cached == embeddings.seen["inputs"] + record.cached
    assert embeddings.seen["inputs"] == 120  # one for each distinct text, over both indices
    assert record.api_inputs == 120
    assert record.estimated_cost_usd == pytest.approx(record.api_tokens * 0.13e-6, abs=2e-6)


def test_the_stored_fields_say_how_the_vector_came_about(pipeline: Build, search: Search) -> None:
    search.create(INDEX)
    search.index(INDEX, logs(3, 1))

    record = pipeline().run()

    sources = list(search.sources(INDEX).values())
    assert sorted(source["ai_vector_source"] for source in sources) == [
        "duplicate",
        "duplicate",
        "embedded",
    ]
    for source in sources:
        assert source["ai_enrichment_status"] == "success"
        assert source["ai_enrichment_method"] == "periodic_scheduler"
        assert source["ai_embedding_model"] == "text-embedding-3-large"
        assert source["ai_embedding_dimensions"] == 1536
        assert source["ai_enrichment_run"] == record.run_id
        assert source["ai_enriched_at"].endswith("Z")
        assert len(source["ai_text_sha256"]) == 64


def test_a_second_run_finds_nothing_and_sends_nothing(
    pipeline: Build, search: Search, embeddings: ApiControl
) -> None:
    search.create(INDEX)
    search.index(INDEX, logs(20, 5))
    one = pipeline()
    one.run()
    embeddings.reset()
    before = search.sources(INDEX)

    record = one.run()

    assert_adds_up(record)
    assert (record.found, record.api_requests) == (0, 0)
    assert embeddings.seen["requests"] == 0
    assert search.sources(INDEX) == before


def test_an_idle_run_costs_two_requests(
    pipeline: Build, search: Search, embeddings: ApiControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(30):
        search.create(f"project{n}_2026_11")
    search.index("project7_2026_11", logs(3, 3, level="INFO"))
    asked: list[str] = []
    request = Connection.request

    def counted(self: Connection, method: str, path: str, *rest: Any, **named: Any) -> str:
        asked.append(f"{method} {path}")
        return request(self, method, path, *rest, **named)

    monkeypatch.setattr(Connection, "request", counted)

    assert pipeline().run().found == 0

    assert [line.rpartition("/")[2] for line in asked] == ["_field_caps", "_search"]
    assert embeddings.seen["requests"] == 0


def test_the_same_text_in_another_run_comes_from_the_cache(
    pipeline: Build, search: Search, embeddings: ApiControl, model: Model
) -> None:
    search.create(INDEX)
    search.index(INDEX, logs(10, 5))
    one = pipeline()
    one.run()
    search.create("late_2026_11")
    search.index("late_2026_11", logs(10, 5))

    record = one.run()

    assert (record.cached, record.duplicate, record.embedded) == (5, 5, 0)
    assert embeddings.seen["inputs"] == 5
    assert_right_vectors(search, "late_2026_11", model)


def test_with_redis_emptied_the_vector_comes_from_a_donor_of_the_same_project(
    pipeline: Build, search: Search, embeddings: ApiControl, model: Model, redis_emptied: Any
) -> None:
    search.create("a_b_2026_10")
    search.index("a_b_2026_10", logs(10, 5))
    pipeline().run()
    redis_emptied()
    search.create(INDEX)
    search.index(INDEX, logs(10, 5))
    search.create("stranger_2026_11")
    search.index("stranger_2026_11", logs(2, 2))
    embeddings.reset()

    record = pipeline().run()

    assert_adds_up(record)
    assert record.reused == 5
    # Another project's log is never given a vector that somebody else could have planted.
    assert record.embedded == 2
    assert embeddings.seen["inputs"] == 2 + compared(record)
    assert_right_vectors(search, INDEX, model)
    assert_right_vectors(search, "stranger_2026_11", model)


def test_a_vector_gone_from_the_cache_is_read_where_it_was_written(
    pipeline: Build, search: Search, embeddings: ApiControl, model: Model
) -> None:
    """It is paid for once, whoever has the text next; with routing as without."""
    search.create(INDEX)
    search.index(INDEX, logs(9, 6), routing="somewhere")
    one = pipeline(enrich_cache_max_entries=2)
    one.run()
    assert embeddings.seen["inputs"] == 6
    search.create("stranger_2026_11")
    search.index("stranger_2026_11", logs(12, 6))
    # What is not refreshed cannot be searched, but read.
    one.store.connection.request("PUT", f"/{INDEX}/_settings", {"index.refresh_interval": "-1"})

    record = one.run()

    assert_adds_up(record)
    assert (record.cached, record.reused, record.embedded, record.duplicate) == (2, 4, 0, 6)
    assert embeddings.seen["inputs"] == 6
    assert assert_right_vectors(search, "stranger_2026_11", model) == 12


def test_what_a_worker_finds_by_itself_is_not_searched_for(
    pipeline: Build, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    search.create("a_b_2026_10")
    search.index("a_b_2026_10", logs(4, 4))
    one = pipeline(enrich_cache_max_entries=1)
    one.run()
    search.create(INDEX)
    search.index(INDEX, logs(4, 4))
    asked: list[str] = []
    request = Connection.request

    def noted(self: Connection, method: str, path: str, *rest: Any, **named: Any) -> str:
        asked.append(path)
        return request(self, method, path, *rest, **named)

    monkeypatch.setattr(Connection, "request", noted)

    record = one.run()

    assert (record.cached, record.reused) == (1, 3)
    # One for the page, none for donors; the logs, and those that have the vectors. And one of each
    # for the logs that a write is tried on.
    assert (asked.count("/_msearch"), asked.count("/_mget")) == (1 + 1, 2 + 1)


SPOILT: dict[str, Callable[[int], dict[str, Any] | None]] = {
    "planted": lambda _: {"log_vector": [0.5] * 1536},
    "removed": lambda _: {"log_vector": None},
    # The vector of one text, said to be that of another.
    "moved": lambda n: {
        "message": logs(3, 3)[(n + 1) % 3]["message"],
        "ai_text_sha256": fingerprint(logs(3, 3)[(n + 1) % 3]["message"]),
    },
    "a number": lambda _: {"ai_text_sha256": 7},
    "half a character": lambda _: {"ai_text_sha256": "\ud83d"},
    "deleted": lambda _: None,
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_another_projects_log_gives_nothing_once_it_is_another(
    pipeline: Build, search: Search, embeddings: ApiControl, model: Model, spoilt: str
) -> None:
    search.create(INDEX)
    search.index(INDEX, [dict(log, _id=str(n)) for n, log in enumerate(logs(3, 3))])
    one = pipeline(enrich_cache_max_entries=1)
    one.run()
    embeddings.reset()
    for n in range(3):
        change = SPOILT[spoilt](n)
        if change is None:
            search("DELETE", f"/{INDEX}/_doc/{n}?refresh=true")
        else:
            search("POST", f"/{INDEX}/_update/{n}?refresh=true", {"doc": change})
    search.create("stranger_2026_11")
    search.index("stranger_2026_11", logs(3, 3))

    record = one.run()

    assert_adds_up(record)
    assert_right_vectors(search, "stranger_2026_11", model)
    assert embeddings.seen["inputs"] == 2


def test_reuse_across_projects_is_a_setting(
    pipeline: Build, search: Search, embeddings: ApiControl, redis_emptied: Any
) -> None:
    search.create(INDEX)
    search.index(INDEX, logs(4, 2))
    pipeline().run()
    redis_emptied()
    search.create("stranger_2026_11")
    search.index("stranger_2026_11", logs(2, 2))
    embeddings.reset()

    record = pipeline(enrich_reuse_across_projects=True).run()

    assert (record.reused, record.embedded) == (2, 0)
    assert embeddings.seen["inputs"] == compared(record)


def compared(record: RunRecord) -> int:
    """Texts that a run sent only to compare, since a Redis that was emptied remembers no space."""
    (texts,) = re.findall(r"of (\d+) stored", record.comparison)
    return int(texts)


def test_a_donor_whose_text_was_changed_gives_nothing(
    pipeline: Build, search: Search, model: Model, redis_emptied: Any
) -> None:
    search.create(INDEX)
    donor, _ = search.index(INDEX, logs(2, 2))
    pipeline().run()
    search("POST", f"/{INDEX}/_update/{donor}?refresh=true", {"doc": {"message": "something else"}})
    redis_emptied()
    (late,) = search.index(INDEX, [{**logs(1, 1)[0], "_id": "late"}])

    record = pipeline().run()

    assert (record.reused, record.embedded) == (0, 1)
    wanted = model.embed([logs(1, 1)[0]["message"]])[0]
    assert np.array_equal(np.float32(search.source(INDEX, late)["log_vector"]), wanted)


def test_a_vector_already_there_is_never_overwritten(
    pipeline: Build, search: Search, embeddings: ApiControl
) -> None:
    """The real-time sibling writes between finding and writing, before and during the chunk."""
    search.create(INDEX)
    ids = search.index(INDEX, logs(3, 3))
    mine = [0.5] * 1536
    one = pipeline()

    def sibling(name: str, _: Any) -> None:
        if name == "embed_and_update":
            search("POST", f"/{INDEX}/_update/{ids[0]}", {"doc": {"log_vector": mine}})

    one.before = sibling
    record = one.run()

    assert_adds_up(record)
    assert record.already_vectorized == 1
    assert search.source(INDEX, ids[0])["log_vector"] == mine
    assert embeddings.seen["inputs"] == 2


def test_a_sibling_that_writes_at_the_same_moment_wins(
    pipeline: Build, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    search.create(INDEX)
    ids = search.index(INDEX, logs(3, 3))
    mine = [0.5] * 1536
    one = pipeline()
    read = one.store.documents.read
    documents = one.backfill._store.documents

    def read_then_sibling(references: Any) -> Any:
        found = read(references)
        monkeypatch.setattr(documents, "read", read)
        search("POST", f"/{INDEX}/_update/{ids[0]}", {"doc": {"log_vector": mine}})
        search("POST", f"/{INDEX}/_update/{ids[1]}", {"doc": {"n": 99}})
        return found

    # Not when a write is tried on them, before the first page.
    one.before = lambda name, _: (
        monkeypatch.setattr(documents, "read", read_then_sibling)
        if name == "embed_and_update"
        else None
    )
    record = one.run()

    assert_adds_up(record)
    assert (record.already_vectorized, record.vectors_written) == (1, 2)
    assert search.source(INDEX, ids[0])["log_vector"] == mine
    # A change of another field is kept, and the vector written beside it.
    changed = search.source(INDEX, ids[1])
    assert changed["n"] == 99
    assert len(changed["log_vector"]) == 1536


def test_documents_deleted_or_changed_meanwhile(
    pipeline: Build, search: Search, model: Model
) -> None:
    search.create(INDEX)
    ids = search.index(INDEX, logs(4, 4))
    one = pipeline()

    def meanwhile(name: str, _: Any) -> None:
        if name == "embed_and_update":
            search("DELETE", f"/{INDEX}/_doc/{ids[0]}")
            search("POST", f"/{INDEX}/_update/{ids[1]}", {"doc": {"message": "a new text"}})
            search("POST", f"/{INDEX}/_update/{ids[2]}", {"doc": {"level": "INFO"}})

    one.before = meanwhile
    record = one.run()

    assert_adds_up(record)
    assert (record.gone, record.vectors_written) == (2, 2)
    wanted = model.embed(["a new text"])[0]
    assert np.array_equal(np.float32(search.source(INDEX, ids[1])["log_vector"]), wanted)
    assert "log_vector" not in search.source(INDEX, ids[2])


def test_an_index_deleted_meanwhile_is_not_created_anew(pipeline: Build, search: Search) -> None:
    search.create(INDEX)
    search.index(INDEX, logs(4, 4))
    one = pipeline()
    one.before = lambda name, _: (
        search("DELETE", f"/{INDEX}") if name == "embed_and_update" else None
    )
    record = one.run()

    assert_adds_up(record)
    assert record.gone == 4
    assert search("GET", f"/{INDEX}", ok=False)["status"] == 404


@pytest.mark.parametrize("derived_source", [False, True])
def test_only_error_logs_change_and_only_by_our_fields(
    pipeline: Build, search: Search, derived_source: bool
) -> None:
    """Sources that are hard to hand on, compared byte for byte. With k-NN's derived source, which
    is the default, OpenSearch itself encodes anew what has a vector: the values are the same."""
    known = search.version >= (2, 19)
    if derived_source and not known:
        pytest.skip("this k-NN has no derived source")
    derived = {"index.knn.derived_source.enabled": derived_source} if known else {}
    hard = [
        '{"level": "ERROR",  "message":"big","timestamp":"2026-11-01T00:00:00Z",'
        '"huge":123456789012345678901234567890,"exact":0.10,"long":-9223372036854775808'
        + ("}" if derived_source else ',"tiny":1e-400,"beyond":1e400}'),
        '{"level":"ERROR","message":"유니코드 \\u00e9 é \\ud83d\\ude00 😀","deep":{"a":{"b":[1,'
        'null,{"c":"}"}]}},"null":null,"\\"q\\"":1,"dotted.name":2}',
        '{"message":"escaped \\n \\" \\\\ \\/ \\t","level":"ERROR","list":[],"object":{}}',
        '{\t"level":"ERROR",\r "message":"spaced"\t}',
    ]
    untouched = [
        '{"level":"INFO","message":"not an error","x":1.50}',
        '{"level":"error","message":"another level"}',
        '{"message":"no level"}',
    ]
    search.create(
        INDEX,
        settings={"index.knn": True, **derived},
        mappings={
            "dynamic": False,
            "properties": {"level": {"type": "keyword"}, "message": {"type": "text"}},
        },
    )
    ids = search.index(INDEX, [{"_raw": raw.encode()} for raw in hard + untouched])
    before = {id: search.raw(INDEX, id) for id in ids}
    versions = {id: search("GET", f"/{INDEX}/_doc/{id}")["_version"] for id in ids[len(hard) :]}

    record = pipeline().run()

    assert record.vectors_written == len(hard)
    for id in ids[: len(hard)]:
        after = search.raw(INDEX, id)
        if not derived_source:
            assert after.startswith(before[id].rstrip()[:-1]), "what was there stands first"
        kept = {k: v for k, v in json.loads(after).items() if k not in OUR_FIELDS}
        assert kept == json.loads(before[id])
    for id in ids[len(hard) :]:
        assert search.raw(INDEX, id) == before[id]
        assert search("GET", f"/{INDEX}/_doc/{id}")["_version"] == versions[id]


@pytest.mark.parametrize("dynamic", [True, False, "strict"])
def test_a_source_reads_and_is_found_the_same_under_any_mapping(
    pipeline: Build, search: Search, dynamic: bool | str
) -> None:
    """Names that look alike, and values that the mapping ignored: what was not indexed before is
    not indexed after, and the other way round."""
    search.create(
        INDEX,
        settings={"index.knn": True},
        mappings={
            "dynamic": dynamic,
            "properties": {
                "level": {"type": "keyword"},
                "Level": {"type": "keyword"},
                "message": {"type": "text"},
                "code": {"type": "integer", "ignore_malformed": True},
                "tag": {"type": "keyword", "ignore_above": 5},
                "a": {"properties": {"b": {"type": "integer"}}},
                "log_vector_old": {"type": "float"},
            },
        },
    )
    raw = (
        '{"level":"ERROR","Level":"info","message":"odd","code":"no number","tag":"longer than 5",'
        '"a.b":1,"a":{"b":2},"log_vector_old":[0.1,0.2]}'
    )
    (id,) = search.index(INDEX, [{"_raw": raw.encode()}])
    found_by = [
        {"term": {"_ignored": "code"}},
        {"term": {"a.b": 1}},
        {"term": {"a.b": 2}},
        {"term": {"Level": "info"}},
        {"range": {"log_vector_old": {"gt": 0.15}}},
        {"term": {"tag": "longer than 5"}},
        {"exists": {"field": "code"}},
    ]
    before = [search.count(INDEX, query) for query in found_by]
    assert before == [1, 1, 1, 1, 1, 0, 0]

    record = pipeline().run()

    assert record.vectors_written == 1
    after = json.loads(search.raw(INDEX, id), object_pairs_hook=list)
    kept = [pair for pair in after if pair[0] not in OUR_FIELDS]
    assert sorted(kept, key=str) == sorted(json.loads(raw, object_pairs_hook=list), key=str)
    assert [search.count(INDEX, query) for query in found_by] == before


def test_two_deployments_divide_the_indices(pipeline: Build, search: Search, model: Model) -> None:
    """How a backlog too large for one finder is divided: patterns of its own for each, and a
    prefix of its own for its ledger."""
    projects = ("acme_2026_10", "acme_2026_11", "zeta_2026_10", "zeta_2026_11")
    for index in projects:
        search.create(index)
        search.index(index, logs(30, 10))
    first = pipeline(enrich_index_pattern="acme_*")
    second = pipeline(enrich_index_pattern="zeta_*", enrich_redis_prefix=PREFIX + "second:")

    records = [first.run(), second.run()]

    for record in records:
        assert_adds_up(record)
        assert record.vectors_written == 60
    assert [first.ledger.records.totals().vectors, second.ledger.records.totals().vectors] == [
        60,
        60,
    ]
    for index in projects:
        assert assert_right_vectors(search, index, model) == 30


def append(search: Search, stream: str, documents: list[dict[str, Any]]) -> None:
    rows: list[Any] = []
    for document in documents:
        rows += [{"create": {}}, {**document, "@timestamp": document["timestamp"]}]
    body = "".join(json.dumps(row) + "\n" for row in rows).encode()
    assert not search("POST", f"/{stream}/_bulk?refresh=true", body)["errors"]


def test_a_data_stream_is_one_project_over_all_its_indices(
    pipeline: Build, search: Search, model: Model, stream: str, redis_emptied: Any
) -> None:
    append(search, stream, logs(20, 10))
    assert pipeline().run().found == 0, "the names of its indices begin with a dot"
    one = pipeline(enrich_index_pattern="*_*,-.*,.ds-*_*")
    assert_adds_up(one.run())
    assert assert_right_vectors(search, stream, model) == 20
    search("POST", f"/{stream}/_rollover")
    append(search, stream, logs(20, 10))
    redis_emptied()

    record = one.run()

    assert_adds_up(record)
    assert (record.found, record.reused, record.duplicate, record.embedded) == (20, 10, 10, 0)
    assert assert_right_vectors(search, stream, model) == 40


def test_a_level_is_found_as_its_mapping_has_it(pipeline: Build, search: Search) -> None:
    """As a word, as a word in small letters, and as text with the word beside it."""
    small = {"type": "custom", "filter": ["lowercase"]}
    mappings = {
        "small_2026_11": {"type": "keyword", "normalizer": "small"},
        "text_2026_11": {"type": "text", "fields": {"keyword": {"type": "keyword"}}},
        "constant_2026_11": {"type": "constant_keyword", "value": "ERROR"},
    }
    if search.version < (2, 19):
        del mappings["constant_2026_11"]  # 2.12 does not know this type
    for index, level in mappings.items():
        search.create(
            index,
            settings={"index.knn": True, "analysis": {"normalizer": {"small": small}}},
            mappings={"properties": {"level": level}},
        )
        search.index(index, logs(5, 5))
    record = pipeline().run()
    assert_adds_up(record)
    assert (record.vectors_written, record.skipped_indices) == (5 * len(mappings), {})


def test_what_an_alias_names_is_found_once(pipeline: Build, search: Search, model: Model) -> None:
    for index in (INDEX, "plain"):
        search.create(index)
        search.index(index, logs(5, 5))
        action = {"add": {"index": index, "alias": "all_logs"}}
        search("POST", "/_aliases", {"actions": [action]})
    record = pipeline().run()
    assert_adds_up(record)
    assert record.vectors_written == 10


def test_a_chunk_is_bounded_by_all_that_its_logs_carry(
    pipeline: Build, search: Search, model: Model
) -> None:
    """Short messages, and beside them bodies of a megabyte: a worker holds no more at once than a
    few of them, and neither does OpenSearch when it answers."""
    search.create(INDEX)
    documents = logs(40, 40)
    for document in documents:
        document["request"] = {"parts": [{"body": "x" * 1_000_000}]}
    search.index(INDEX, documents)
    one = pipeline()
    sizes = []
    one.before = lambda name, given: (
        sizes.append(len(given[0]["references"])) if name == "embed_and_update" else None
    )

    assert_adds_up(one.run())

    assert sum(sizes) == 40
    assert max(sizes) * 1_000_000 <= MAX_CHUNK_BYTES
    assert assert_right_vectors(search, INDEX, model) == 40


def test_routing_and_pipelines_are_respected(pipeline: Build, search: Search, model: Model) -> None:
    for name in ("default", "final"):
        search(
            "PUT",
            f"/_ingest/pipeline/{name}",
            {"processors": [{"script": {"source": f"ctx.ran_{name} = (ctx.ran_{name} ?: 0) + 1"}}]},
        )
    body = {"mappings": {"properties": {"level": {"type": "keyword"}}}}
    search.create(
        "piped_2026_11", settings={"index.knn": True, "index.default_pipeline": "default"}, **body
    )
    search.create(
        "final_2026_11", settings={"index.knn": True, "index.final_pipeline": "final"}, **body
    )
    search.create("routed_2026_11", settings={"index.knn": True, "number_of_shards": 3}, **body)
    search.index("piped_2026_11", logs(2, 2))
    search.index("final_2026_11", logs(2, 2))
    routed = search.index("routed_2026_11", logs(2, 2), routing="tenant 7")

    record = pipeline().run()

    assert_adds_up(record)
    assert record.vectors_written == 6
    assert {s["ran_default"] for s in search.sources("piped_2026_11").values()} == {1}
    assert {s["ran_final"] for s in search.sources("final_2026_11").values()} == {1}
    assert len(search.sources("routed_2026_11")) == 2
    for id in routed:
        assert "log_vector" in search.source("routed_2026_11", id, routing="tenant 7")


def test_api_inputs_stay_near_the_distinct_texts(
    pipeline: Build, search: Search, embeddings: ApiControl, model: Model
) -> None:
    search.create(INDEX)
    search.index(INDEX, logs(1500, 210))

    record = pipeline().run()

    assert_adds_up(record)
    assert record.vectors_written == 1500
    assert embeddings.seen["inputs"] <= 1.02 * 210
    assert assert_right_vectors(search, INDEX, model) == 1500


def test_a_pace_too_slow_for_one_delivery_writes_all_in_several_and_counts_each_log_once(
    pipeline: Build,
    search: Search,
    embeddings: ApiControl,
    model: Model,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    search.create(INDEX)
    search.index(INDEX, logs(5, 3))

    # Two can be written while a delivery waits, one a second; each takes OpenSearch some
    # milliseconds, so that a slow machine waits as well.
    monkeypatch.setattr(write_throttle, "MAX_WAIT_SECONDS", 2.0)
    record = pipeline(enrich_write_pace=1).run()

    assert_adds_up(record)
    assert assert_right_vectors(search, INDEX, model) == 5
    assert (record.vectors_written, record.deferred) == (5, 0)
    assert record.retries >= 1
    assert embeddings.seen["inputs"] == 3

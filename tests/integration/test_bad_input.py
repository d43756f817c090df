"""What is wrong with an index, a log or a server is confined to it, named in one sentence, and
nothing is lost. Each case on the real server that it is about."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
import redis

from dev.api_control import ApiControl
from dev.embedding_model import Model
from dev.services import Services, free_ports
from enrich.errors import ServerUnavailable, TransientError
from enrich.log_store import Addition, Document, Presence, Verdict, Write
from enrich.models import Reference
from enrich.status.report import read_backlog
from enrich.text.extract import text_of
from enrich.wiring import build_embedder
from tests.conftest import Pipeline, Search
from tests.integration.test_cycle import assert_adds_up, assert_right_vectors, logs

INDEX = "a_b_2026_11"
BAD = "bad_2026_11"
Build = Callable[..., Pipeline]


# -- indices that cannot be enriched: skipped with their reason, the others are done
# ruff: noqa: E501

KNN = {"index.knn": True}
LEVEL = {"level": {"type": "keyword"}}
UNFIT = {
    "float": ({"settings": KNN, "mappings": {"properties": {**LEVEL, "log_vector": {"type": "float"}}}},
        "log_vector is mapped as float"),
    "dimension": ({"settings": KNN, "mappings": {"properties": {**LEVEL, "log_vector": {
        "type": "knn_vector", "dimension": 8}}}}, "dimension 8, not 1536"),
    "bytes": ({"settings": KNN, "mappings": {"properties": {**LEVEL, "log_vector": {
        "type": "knn_vector", "dimension": 1536, "data_type": "byte",
        "method": {"name": "hnsw", "engine": "lucene", "space_type": "l2"}}}}},
        "data_type byte, not float"),
    "no knn": ({"mappings": {"properties": LEVEL}}, "index.knn is not set"),
    "source excludes": ({"settings": KNN, "mappings": {"_source": {"excludes": ["secret"]},
        "properties": LEVEL}}, "leaves fields out of _source"),
    "source disabled": ({"mappings": {"_source": {"enabled": False}, "properties": LEVEL}},
        "_source disabled"),
    "level text": ({"settings": KNN, "mappings": {"properties": {"level": {"type": "text"}}}},
        "level is mapped as text"),
    "field type": ({"settings": KNN, "mappings": {"properties": {**LEVEL,
        "ai_text_sha256": {"type": "long"}}}}, "ai_text_sha256 is mapped as long"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNFIT)
def test_an_unfit_index_is_skipped_with_its_reason(
    pipeline: Build, search: Search, embeddings: ApiControl, model: Model, case: str
) -> None:
    body, reason = UNFIT[case]
    search.create(BAD, **body)
    ids = search.index(BAD, logs(3, 3))
    search.create(INDEX)
    search.index(INDEX, logs(3, 1))

    record = pipeline().run()

    assert_adds_up(record)
    assert reason in record.skipped_indices[BAD]
    assert record.found == 3
    assert_right_vectors(search, INDEX, model)
    assert embeddings.seen["inputs"] == 1, "no token was spent on the unfit index"
    if case != "source disabled":
        assert all("ai_enriched_at" not in search.source(BAD, id) for id in ids)


def test_levels_that_are_numbers_are_named_and_harm_no_other(
    pipeline: Build, search: Search
) -> None:
    """As some logging libraries have them: to search a number for ERROR is an error."""
    search.create(BAD, settings=KNN, mappings={"properties": {"level": {"type": "long"}}})
    search.index(BAD, [{**log, "level": 50} for log in logs(3, 3)])
    one = pipeline()
    record = one.run()
    assert (record.state, record.found) == ("finished", 0)
    assert "level is mapped as long" in record.skipped_indices[BAD]
    assert one.store.stats.counts().by_index == {}

    search.create(INDEX)
    search.index(INDEX, logs(3, 3))
    assert one.run().vectors_written == 3


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        ("index.blocks.write", "index.blocks.write is set"),
        ("index.blocks.read_only", "index.blocks.read_only is set"),
        ("index.blocks.read_only_allow_delete", "index.blocks.read_only_allow_delete is set"),
        ("index.blocks.read", "index read (api)"),
        ("index.blocks.metadata", "index.blocks.metadata is set"),
    ],
)
def test_a_blocked_index_is_skipped_and_done_later(
    pipeline: Build, search: Search, model: Model, block: str, reason: str
) -> None:
    for index in (BAD, INDEX):
        search.create(index)
        search.index(index, logs(3, 3))
    search("PUT", f"/{BAD}/_settings", {block: True})
    one = pipeline()
    try:
        record = one.run()
        counts = one.store.stats.counts()
        assert one.store.stats.enriched(), "a sample of those that can be read"
    finally:
        search("PUT", f"/{BAD}/_settings", {block: None})
    assert_adds_up(record)
    assert reason in record.skipped_indices[BAD]
    assert record.vectors_written == 3, "the other index is done"
    assert counts.gaps.whole == (BAD in counts.by_index)

    assert one.run().vectors_written == 3
    assert_right_vectors(search, BAD, model)


def test_an_index_blocked_under_way_is_deferred_and_named(pipeline: Build, search: Search) -> None:
    search.create(BAD)
    search.index(BAD, logs(3, 3))
    one = pipeline()
    one.before = lambda name, _: (
        search("PUT", f"/{BAD}/_settings", {"index.blocks.write": True})
        if name == "embed_and_update"
        else None
    )

    record = one.run()

    assert_adds_up(record)
    assert record.deferred == 3
    assert "cluster_block_exception" in record.skipped_indices[BAD]
    search("PUT", f"/{BAD}/_settings", {"index.blocks.write": None})
    one.before = lambda name, _: None
    again = one.run()
    assert (again.vectors_written, again.api_inputs) == (3, 0), "paid for once"


def test_closed_and_red_indices_harm_no_other(
    pipeline: Build, search: Search, model: Model
) -> None:
    search.create("closed_2026_11")
    search.index("closed_2026_11", logs(2, 2))
    search("POST", "/closed_2026_11/_close")
    search(
        "PUT",
        "/red_2026_11?wait_for_active_shards=0",
        {"settings": {**KNN, "index.routing.allocation.require._name": "nobody"}},
    )
    search.create(INDEX)
    search.index(INDEX, logs(3, 3))

    record = pipeline().run()

    assert_adds_up(record)
    assert "red" in record.skipped_indices["red_2026_11"]
    assert_right_vectors(search, INDEX, model)


def test_a_write_for_a_lost_shard_is_given_up_by_the_server_before_us(
    pipeline: Build, search: Search
) -> None:
    # Otherwise it would be done later, in a run that had counted it as not done.
    nowhere = {"settings": {"index.routing.allocation.require._name": "nobody"}}
    search("PUT", f"/{BAD}?wait_for_active_shards=0", nowhere)
    document = Document(
        reference=Reference(BAD, "1", None, 0, 1), presence=Presence.FOUND, fields={}, raw=b"{}"
    )
    write = Write(document=document, addition=Addition({"ai_enrichment_status": "success"}))
    documents = pipeline(opensearch_timeout_seconds=4).store.documents

    assert documents.write([write]) == [(Verdict.OVERLOADED, "unavailable_shards_exception")]


def test_a_strict_mapping_is_completed_first(pipeline: Build, search: Search, model: Model) -> None:
    search.create(
        INDEX,
        settings=KNN,
        mappings={
            "dynamic": "strict",
            "properties": {
                **LEVEL,
                "message": {"type": "text"},
                "timestamp": {"type": "date"},
                "n": {"type": "long"},
            },
        },
    )
    search.index(INDEX, logs(3, 3))
    assert pipeline().run().vectors_written == 3
    assert_right_vectors(search, INDEX, model)


def test_a_disk_above_its_watermark_halts_before_a_token_is_spent(
    pipeline: Build, search: Search, embeddings: ApiControl
) -> None:
    search.create(INDEX)
    search.index(INDEX, logs(3, 3))
    disk = "cluster.routing.allocation.disk."
    marks = {
        disk + "threshold_enabled": True,
        disk + "watermark.low": "0.01%",
        disk + "watermark.high": "0.02%",
        disk + "watermark.flood_stage": "99.99%",
    }
    search("PUT", "/_cluster/settings", {"transient": marks})
    try:
        record = pipeline().run()
    finally:
        search("PUT", "/_cluster/settings", {"transient": dict.fromkeys(marks)})
    assert record.state == "halted"
    assert "watermark" in record.halt_reason
    assert embeddings.seen["requests"] == 0


@pytest.mark.parametrize("type_", ["text", "keyword", "date_nanos", "missing"])
def test_a_timestamp_of_any_kind(pipeline: Build, search: Search, model: Model, type_: str) -> None:
    search.create(INDEX)
    search.index(INDEX, logs(5, 5))
    properties = dict(LEVEL) if type_ == "missing" else {**LEVEL, "timestamp": {"type": type_}}
    search.create(BAD, settings=KNN, mappings={"dynamic": False, "properties": properties})
    documents = logs(250, 250)
    for document in documents:
        if type_ == "missing":
            del document["timestamp"]
    search.index(BAD, documents)

    record = pipeline(enrich_max_chunks_in_flight=1, enrich_batch_size=20).run()

    assert_adds_up(record)
    assert record.vectors_written == 255
    assert_right_vectors(search, BAD, model)


def test_dynamically_mapped_indices_are_found(
    pipeline: Build, search: Search, model: Model
) -> None:
    """Without a template `level` is text with a `.keyword`."""
    search.create(INDEX, settings=KNN)
    search.index(INDEX, logs(3, 3))
    assert pipeline().run().vectors_written == 3
    assert_right_vectors(search, INDEX, model)


# -- logs that cannot be embedded


def test_logs_without_usable_text_fail_once_and_for_all(
    pipeline: Build, search: Search, embeddings: ApiControl
) -> None:
    search.create(INDEX, settings=KNN, mappings={"dynamic": False, "properties": LEVEL})
    base = {"level": "ERROR", "timestamp": "2026-11-01T00:00:00Z"}
    bad = [
        base,
        {**base, "message": ""},
        {**base, "message": " \n\t "},
        {**base, "message": 42},
        {**base, "message": None},
        {**base, "message": {"a": "b"}},
    ]
    ids = search.index(INDEX, [dict(each) for each in bad])
    (good,) = search.index(INDEX, [{**base, "message": "fine", "_id": "good"}])
    one = pipeline()

    record = one.run()

    assert_adds_up(record)
    assert (record.failed, record.embedded, record.errors) == (6, 1, 6)
    codes = [search.source(INDEX, id)["ai_enrichment_error"] for id in ids]
    missing, empty, wrong = "message_missing", "message_empty", "message_not_text"
    assert codes == [missing, empty, empty, wrong, missing, wrong]
    for id, before in zip(ids, bad, strict=True):
        source = search.source(INDEX, id)
        assert source["ai_enrichment_status"] == "failed"
        assert {k: v for k, v in source.items() if not k.startswith("ai_")} == before
    assert len(search.source(INDEX, good)["log_vector"]) == 1536
    assert one.run().found == 0, "they are never taken again"
    assert embeddings.seen["inputs"] == 1


def test_half_surrogates_are_embedded_and_kept(
    pipeline: Build, search: Search, model: Model
) -> None:
    search.create(INDEX)
    raw = (
        '{"level":"ERROR","message":"half a pair \\ud83d here","timestamp":"2026-11-01T00:00:00Z"}'
    )
    (broken,) = search.index(INDEX, [{"_raw": raw.encode(), "_id": "broken"}])
    search.index(INDEX, logs(4, 4))

    record = pipeline().run()

    assert_adds_up(record)
    assert record.vectors_written == 5
    source = search.source(INDEX, broken)
    assert source["message"] == "half a pair \ud83d here"
    wanted = model.embed(["half a pair � here"])[0]
    assert np.array_equal(np.float32(source["log_vector"]), wanted)


@pytest.mark.parametrize("count", [40, pytest.param(200, marks=pytest.mark.apart)])
def test_many_logs_of_five_megabytes(
    count: int,
    pipeline: Build,
    search: Search,
    model: Model,
    embeddings: ApiControl,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Up to a gigabyte of messages in one page of logs passes, and each keeps its head and cause."""
    # The message is not indexed, so that it is the reading which this node has to stand.
    unindexed = {"message": {"type": "text", "index": False}}
    search.create(INDEX, settings=KNN, mappings={"properties": {**LEVEL, **unindexed}})
    head, cause = "java.lang.IllegalStateException: too much\n", "Caused by: disk full\n"
    for start in range(0, count, 2):
        search.index(
            INDEX,
            [
                {
                    "_id": f"big-{n}",
                    "level": "ERROR",
                    "timestamp": "2026-11-01T00:00:00Z",
                    "message": f"{head}{n % 5}\n"
                    + "\tat frame\n" * 480_000
                    + cause
                    + "\tat x\n" * 50,
                }
                for n in range(start, start + 2)
            ],
        )

    one = pipeline()
    record = one.run()
    written = record.vectors_written
    # So small a heap may have to refuse a chunk; what was deferred is found again.
    for _ in range(20):
        if not record.deferred:
            break
        assert_adds_up(record)
        record = one.run()
        written += record.vectors_written

    assert_adds_up(record)
    assert written == count
    assert "refuses inline scripts" not in caplog.text
    assert embeddings.seen["inputs"] == 5, "cut the same way by finder and worker, so five texts"
    source = search.source(INDEX, "big-7")
    text = text_of(source)
    assert text.startswith(head)
    assert "disk full" in text
    assert np.array_equal(np.float32(source["log_vector"]), model.embed([text])[0])


# -- servers that refuse or are not there


def test_no_indices_at_all(pipeline: Build, embeddings: ApiControl) -> None:
    record = pipeline().run()
    assert_adds_up(record)
    assert record.found == 0
    assert embeddings.seen["requests"] == 0


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"openai_api_key": "sk-wrong"}, "refused the key (401): check OPENAI_API_KEY"),
        ({"embedding_model": "no-such-model"}, "does not know model no-such-model (404)"),
        ({"embedding_dimensions": 4000}, "refuses 4000 dimensions"),
    ],
)
def test_an_api_that_refuses_halts_the_run_and_the_next_goes_on_once_mended(
    pipeline: Build,
    search: Search,
    model: Model,
    overrides: dict[str, Any],
    sentence: str,
) -> None:
    search.create(
        INDEX, settings=KNN, mappings={"properties": LEVEL}
    ) if "embedding_dimensions" in overrides else search.create(INDEX)
    search.index(INDEX, logs(300, 300))

    record = pipeline(**overrides).run()

    assert record.state == "halted"
    assert sentence in record.halt_reason
    assert "sk-wrong" not in record.halt_reason
    assert record.found == record.settled == record.deferred
    if "embedding_dimensions" not in overrides:
        mended = pipeline().run()
        assert (mended.state, mended.vectors_written) == ("finished", 300)
        assert_right_vectors(search, INDEX, model)


def test_after_a_halt_the_next_run_probes_with_one_input(
    pipeline: Build, search: Search, embeddings: ApiControl
) -> None:
    search.create(INDEX)
    search.index(INDEX, logs(300, 300))
    wrong = pipeline(openai_api_key="sk-wrong")
    wrong.run()
    embeddings.reset()

    record = wrong.run()

    assert (record.state, record.found, record.api_requests) == ("halted", 0, 1)
    assert embeddings.seen["refused"] == {"401": 1}


def test_a_worker_with_an_old_key_does_not_halt_the_others(pipeline: Build, search: Search) -> None:
    search.create(INDEX)
    search.index(INDEX, logs(3, 3))
    good = pipeline()
    good.run()
    search.index(INDEX, [{**each, "_id": f"late-{n}", "message": f"late {n}"} for n, each in
                         enumerate(logs(3, 3))])  # fmt: skip

    record = pipeline(openai_api_key="sk-old").run()

    assert (record.state, record.deferred) == ("finished", 3)
    assert good.run().vectors_written == 3


def test_k_nn_without_memory_marks_no_log(pipeline: Build, search: Search, model: Model) -> None:
    """k-NN says so as if the document were at fault."""
    search.create(INDEX)
    search.index(INDEX, logs(3, 3))
    switch = "knn.circuit_breaker.triggered"
    one = pipeline()
    # Under way: were it so before, the index would be skipped.
    one.before = lambda name, _: (
        search("PUT", "/_cluster/settings", {"persistent": {switch: True}})
        if name == "embed_and_update"
        else None
    )
    try:
        record = one.run()
    finally:
        search("PUT", "/_cluster/settings", {"persistent": {switch: None}})
    assert (record.failed, record.deferred) == (0, 3)
    assert pipeline().run().vectors_written == 3
    assert_right_vectors(search, INDEX, model)


def test_level_as_text_in_one_index_is_seen_beside_another_with_keyword(
    pipeline: Build, search: Search
) -> None:
    text = {"type": "text", "fields": {"keyword": {"type": "keyword"}}}
    search.create(INDEX, settings=KNN, mappings={"properties": {"level": text}})
    search.create(BAD, settings=KNN, mappings={"properties": {"level": {"type": "text"}}})
    for index in (INDEX, BAD):
        search.index(index, logs(3, 3))
    record = pipeline().run()
    assert record.vectors_written == 3
    assert list(record.skipped_indices) == [BAD]


def test_a_probe_with_an_old_key_does_not_halt_the_others(pipeline: Build, search: Search) -> None:
    search.create(INDEX)
    search.index(INDEX, logs(3, 3))
    good = pipeline(enrich_max_logs_per_run=1)
    good.run()
    good.ledger.runs.halt(good.ledger.runs.open("manual", 600).run, "whatever it was")
    good.ledger.runs.finish(good.ledger.runs.active())
    with pytest.raises(TransientError, match="while another key worked"):
        pipeline(openai_api_key="sk-old").backfill.tick("manual")
    assert good.ledger.records.of(good.ledger.runs.active()).state == "running"


def test_a_log_that_cannot_be_compared_does_not_end_the_check_of_a_new_address(
    pipeline: Build, search: Search, other_space: str
) -> None:
    search.create(INDEX)
    search.index(INDEX, logs(3, 3))
    first = pipeline()
    first.run()
    was = first.ledger.endpoint.last()["url"]
    changed = "/_update_by_query?refresh=true"
    script = {"source": "ctx._source.message += ' (changed)'"}
    search("POST", f"/{INDEX}{changed}", {"script": script})
    search.index(INDEX, [{**logs(1, 1)[0], "_id": "late", "message": "late"}])

    # None can be compared, and there are vectors: nothing is written beside them, however often.
    one = pipeline(openai_base_url=other_space)
    for _ in range(2):
        record = one.run()
        assert record.state == "halted" and record.vectors_written == 0
        assert "cannot be compared with the 3 vectors" in record.halt_reason
        assert one.ledger.endpoint.last()["url"] == was
    # With one that can be compared, that one decides.
    assert first.run().vectors_written == 1
    search.index(INDEX, [{**logs(1, 1)[0], "_id": "later", "message": "later"}])
    assert "gives other vectors" in one.run().halt_reason
    # Without any it is a first run, and its address is the one that later ones are held against.
    search("POST", f"/{INDEX}{changed}", {"script": {"source": "ctx._source.remove('log_vector')"}})
    record = one.run()
    assert (record.state, record.vectors_written) == ("finished", 5)
    assert one.ledger.endpoint.last()["url"] == other_space
    search.index(INDEX, [{**logs(1, 1)[0], "_id": "last", "message": "last"}])
    assert "gives other vectors" in first.run().halt_reason


def test_no_order_of_ends_lets_two_spaces_mix(
    pipeline: Build, search: Search, other_space: str, embeddings: ApiControl
) -> None:
    search.create(INDEX)
    search.index(INDEX, logs(8, 8))
    good = pipeline()
    good.run()
    search.index(INDEX, [{**logs(1, 1)[0], "_id": "late", "message": "late"}])

    # Halted, then cancelled with a wrong key, then with a model of which no log has a vector.
    other = pipeline(openai_base_url=other_space)
    assert other.run().state == "halted"
    embeddings.faults({"kind": "status", "status": 401, "times": 100})
    with pytest.raises(TransientError, match="while another key worked"):
        pipeline(openai_api_key="sk-old").run()
    other.ledger.runs.halt(other.ledger.runs.active(), "", "abandoned")
    other.ledger.runs.finish(other.ledger.runs.active())
    embeddings.reset()
    another = pipeline(openai_base_url=other_space, embedding_model="another")
    another.ledger.runs.halt(another.ledger.runs.open("manual", 600).run, "", "abandoned")
    another.ledger.runs.finish(another.ledger.runs.active())
    search.index(INDEX, [{**logs(1, 1)[0], "_id": "later", "message": "later"}])
    assert another.run().state == "finished", "a model of its own may go beside the other"

    search.index(INDEX, [{**logs(1, 1)[0], "_id": "last", "message": "last"}])
    record = other.run()
    assert record.state == "halted" and "gives other vectors" in record.halt_reason
    assert record.comparison.endswith("gives for their texts now")


def test_another_cluster_or_an_emptied_redis_is_compared_too(
    pipeline: Build, search: Search, other_space: str, redis_emptied: Callable[[], None]
) -> None:
    search.create(INDEX)
    search.index(INDEX, logs(3, 3))
    pipeline().run()
    search.index(INDEX, [{**logs(1, 1)[0], "_id": "late", "message": "late"}])
    redis_emptied()
    assert "gives other vectors" in pipeline(openai_base_url=other_space).run().halt_reason
    record = pipeline().run()
    assert record.vectors_written == 1
    assert record.comparison.startswith("3 of 3 stored vectors are the same from ")


@pytest.mark.parametrize("digests", ["known", "lost"])
def test_a_planted_vector_does_not_halt_a_change_of_address(
    pipeline: Build, search: Search, stack: Services, digests: str
) -> None:
    """Whoever can write a log can give it any vector under our model's name."""
    search.create(INDEX)
    search.index(INDEX, logs(4, 4))
    one = pipeline()
    one.run()
    source = search.source(INDEX, f"{INDEX}-0")
    planted = {**source, "log_vector": [-x for x in source["log_vector"]]}
    # With known digests no number of them counts; without, the majority does.
    count = 30 if digests == "known" else 1
    search.index(INDEX, [{**planted, "_id": f"planted-{n}"} for n in range(count)])
    search.index(INDEX, [{**logs(1, 1)[0], "_id": "late", "message": "late"}])
    if digests == "lost":
        connection = redis.Redis.from_url(stack.environment()["REDIS_URL"])
        for key in connection.scan_iter("*written:*"):
            connection.delete(key)
        connection.close()
    url = stack.environment()["OPENAI_BASE_URL"].replace("127.0.0.1", "localhost")
    record = pipeline(openai_base_url=url).run()
    assert (record.state, record.vectors_written) == ("finished", 1)


def test_vectors_of_other_models_are_counted_and_not_searched(
    pipeline: Build, search: Search
) -> None:
    for index in (INDEX, BAD):
        search.create(index)
        search.index(index, logs(3, 3))
    pipeline(enrich_index_pattern=BAD, embedding_model="text-embedding-3-small").run()
    one = pipeline()
    one.run()
    search("POST", f"/{INDEX},{BAD}/_refresh")
    stats = one.store.stats
    counts = stats.counts()
    assert counts.by_index[BAD]["with_vector"] == 3
    assert counts.of_other_models == {BAD: 3}
    assert stats.other_models([BAD, INDEX]).value == {"text-embedding-3-small": 3}
    backlog = read_backlog(one.store)
    assert (backlog.with_vector, backlog.of_other_models) == (6, 3)
    vector = search.source(INDEX, f"{INDEX}-0")["log_vector"]
    assert {hit["index"] for hit in stats.nearest(vector, 10, None).value} == {INDEX}


def test_another_vector_space_behind_a_new_address_halts(
    pipeline: Build, search: Search, stack: Services, other_space: str
) -> None:
    for index in (INDEX, "c_d_2026_10", "e_f_2026_10"):
        search.create(index)
        search.index(index, logs(3, 3))
    pipeline().run()
    search.index(INDEX, [{**logs(1, 1)[0], "_id": "late", "message": "late"}])

    record = pipeline(openai_base_url=other_space).run()

    assert record.state == "halted"
    assert "gives other vectors for the same text" in record.halt_reason
    same = pipeline(openai_base_url=stack.environment()["OPENAI_BASE_URL"].replace(
        "127.0.0.1", "localhost")).run()  # fmt: skip
    assert same.vectors_written == 1, "the same space at another address goes on"


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (401, "refused the user or password (401): check OPENSEARCH_USER and OPENSEARCH_PASSWORD"),
        (403, "does not allow this to OPENSEARCH_USER (403"),
    ],
)
def test_opensearch_refusing_the_user_halts_with_a_sentence(
    pipeline: Build, refusing_server: Callable[[int], int], status: int, sentence: str
) -> None:
    one = pipeline(opensearch_port=refusing_server(status), opensearch_password="hunter2")
    record = one.run()
    assert record.state == "halted"
    assert sentence in record.halt_reason
    assert "hunter2" not in record.halt_reason


def test_servers_that_are_down_are_named(pipeline: Build) -> None:
    (port,) = free_ports(1)
    no_search = pipeline(opensearch_port=port)
    with pytest.raises(ServerUnavailable, match="check OPENSEARCH_HOST, OPENSEARCH_PORT"):
        no_search.run()
    with pytest.raises(ServerUnavailable, match=r"Redis cannot be reached .*check REDIS_URL"):
        pipeline(redis_url=f"redis://127.0.0.1:{port}/0").run()
    with pytest.raises(ServerUnavailable, match="check OPENAI_BASE_URL"):
        no_api = pipeline(openai_base_url=f"http://127.0.0.1:{port}/v1")
        build_embedder(no_api.settings).embed(["a text"])


def test_a_pattern_that_opensearch_refuses_halts_with_a_sentence(pipeline: Build) -> None:
    one = pipeline(enrich_index_pattern="_not_a_name")
    record = one.run()
    assert record.state == "halted"
    assert "OpenSearch refused a request (400, " in record.halt_reason


def test_an_answer_that_is_not_json_is_not_taken_for_an_empty_backlog(
    pipeline: Build, refusing_server: Callable[[int], int]
) -> None:
    with pytest.raises(Exception, match="not JSON"):
        pipeline(opensearch_port=refusing_server(200)).run()


@pytest.fixture
def refusing_server() -> Iterator[Callable[[int], int]]:
    """Starts a server that answers every request with a status and a page of HTML."""
    servers: list[ThreadingHTTPServer] = []

    def start(status: int) -> int:
        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                body = b"<html>no</html>"
                self.send_response(status)
                self.send_header("content-type", "text/html")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_HEAD = answer

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return int(server.server_address[1])

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def other_space(model: Model) -> Iterator[str]:
    """An endpoint with vectors of its own: the first numbers in reverse."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            vectors = model.embed(body["input"])[:, ::-1]
            data = [{"index": n, "embedding": v.tolist()} for n, v in enumerate(vectors)]
            answer = json.dumps({"data": data, "usage": {"prompt_tokens": 1, "total_tokens": 1}})
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()

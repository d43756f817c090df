"""What is read is what is stored, or it is not written back; what cannot be written is not bought.

On real nodes: one with the security plugin, whose roles hide parts of documents, and one whose
indices have whatever settings stand in the way of a write.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from dev.api_control import ApiControl
from dev.embedding_model import Model
from dev.http_proxy import Answered, Asked, Forward, HttpProxy
from dev.services import Services
from enrich.log_store import index_template
from tests.conftest import DIMENSIONS, ROOT, Pipeline, Search
from tests.integration.test_cycle import assert_adds_up, assert_right_vectors, logs
from tests.secured import SecuredCluster

INDEX = "open_logs_2026_11"
Build = Callable[..., Pipeline]


def detailed(count: int) -> list[dict[str, Any]]:
    """Logs with fields that somebody may want to hide."""
    return [
        {**log, "trace_id": f"trace-{n}", "log_details": {"user": f"u{n}", "ratio": 1.0}}
        for n, log in enumerate(logs(count, count))
    ]


def stored(search: Search, *indices: str) -> dict[str, Any]:
    """Everything that is stored, with the versions."""
    found = {}
    for index in indices:
        search("POST", f"/{index}/_refresh")
        hits = search("GET", f"/{index}/_search?size=1000&seq_no_primary_term=true")["hits"]["hits"]
        found |= {(index, hit["_id"]): (hit["_seq_no"], hit["_source"]) for hit in hits}
    return found


def checked(stack: Services, environment: dict[str, str]) -> str:
    """What `check` says, line by line."""
    return subprocess.run(
        [sys.executable, "-m", "enrich", "check"],
        cwd=stack.folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "COLUMNS": "400", **environment},
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    ).stdout


# -- what OpenSearch hides from our user

HIDDEN: dict[str, dict[str, Any]] = {
    "hidden_logs_2026_11": {"fls": ["~trace_id", "~log_details"]},
    "only_logs_2026_11": {"fls": ["level", "message", "timestamp", "log_vector", "ai_*"]},
    "masked_logs_2026_11": {"masked_fields": ["trace_id"]},
    "partly_logs_2026_11": {"dls": json.dumps({"range": {"n": {"lt": 4}}})},
}


@pytest.mark.apart
def test_what_our_user_does_not_see_is_never_written_away(secured: SecuredCluster) -> None:
    user = secured.user(patterns=["open_*"])
    for index in (INDEX, *HIDDEN):
        secured.search.create(index)
        secured.search.index(index, detailed(8))
    for index, narrowed in HIDDEN.items():
        name = index.partition("_")[0]
        secured.role(name, patterns=[index], **narrowed)
        secured.api("PUT", f"rolesmapping/{name}", {"users": [user.name]})
    before = stored(secured.search, *HIDDEN)
    one = secured.pipeline(user)

    told = checked(secured.stack, secured.environment(user))
    record = one.run()

    assert_adds_up(record)
    assert stored(secured.search, *HIDDEN) == before
    assert record.skipped_indices.keys() == HIDDEN.keys()
    for index, reason in record.skipped_indices.items():
        assert "shows only a part of it to OPENSEARCH_USER" in reason
        assert f"✗ {index}: {reason}" in told
    assert record.vectors_written == 8, "the index that is seen whole is done"
    assert "8 ERROR logs can be given a vector" in told
    assert stored(secured.search, *HIDDEN) == before


def test_fields_that_are_hidden_under_way_are_not_written_away(secured: SecuredCluster) -> None:
    user = secured.user()
    secured.search.create(INDEX)
    secured.search.index(INDEX, detailed(12))
    before = stored(secured.search, INDEX)
    one = secured.pipeline(user)

    def hide(name: str, arguments: Any) -> None:
        if name == "embed_and_update":
            secured.role(user.name, fls=["~trace_id"])

    one.before = hide
    record = one.run()
    assert_adds_up(record)
    assert stored(secured.search, INDEX) == before
    assert (record.deferred, record.vectors_written, record.api_inputs) == (12, 0, 0)
    assert "shows only a part of it" in record.skipped_indices[INDEX]

    one.before = lambda name, arguments: None
    secured.role(user.name)
    assert one.run().vectors_written == 12


# -- what something in between changes


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return value


def whole_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: whole_numbers(v) for k, v in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


ALTERED: dict[str, tuple[Callable[[dict[str, Any]], Any], bool]] = {
    "a field is left out": (lambda s: {k: v for k, v in s.items() if k != "trace_id"}, False),
    "a field is masked": (lambda s: {**s, "trace_id": "***"}, False),
    "a field is added": (lambda s: {**s, "seen_by": "gateway"}, False),
    "no nulls": (without_nulls, False),
    "1.0 becomes 1": (whole_numbers, False),
    "another order": (lambda s: dict(reversed(s.items())), True),
}


@pytest.mark.parametrize("late", [False, True], ids=["from the start", "under way"])
def test_sources_that_are_altered_on_their_way_are_not_written_back(
    pipeline: Build, clean: Services, search: Search, embeddings: ApiControl, late: bool
) -> None:
    """By a proxy, each index in its own way, before the run or under way."""
    names = {f"altered_{n}_2026_11": change for n, change in enumerate(ALTERED.values())}
    for index in names:
        search.create(index)
        search.index(index, [{**log, "nothing": None} for log in detailed(5)])
    before = stored(search, *names)

    def alter(asked: Asked, forward: Forward) -> Answered:
        answered = forward(asked)
        if not asked.path.startswith("/_mget") or (late and not started):
            return answered
        body = json.loads(answered.body)
        for doc in body["docs"]:
            doc["_source"] = names[doc["_index"]][0](doc["_source"])
        return Answered(body=json.dumps(body, ensure_ascii=True).encode())

    started: list[str] = []
    with HttpProxy(clean.opensearch.url) as proxy:
        proxy.alter = alter
        one = pipeline(opensearch_port=proxy.port)
        one.before = lambda name, _: started.append(name) if name == "embed_and_update" else None
        record = one.run()

    assert_adds_up(record)
    spoilt = {index for index, (_, harmless) in names.items() if not harmless}
    assert record.skipped_indices.keys() == spoilt
    assert all("do not arrive as they are stored" in r for r in record.skipped_indices.values())
    assert {k: v for k, v in stored(search, *names).items() if k[0] in spoilt} == {
        k: v for k, v in before.items() if k[0] in spoilt
    }
    assert record.vectors_written == embeddings.seen["inputs"] == 5


# -- what stands in the way of a write

OWN = {"dynamic": False, "properties": {"level": {"type": "keyword"}, "message": {"type": "text"}}}


def test_nothing_is_bought_that_cannot_be_written(
    pipeline: Build, clean: Services, search: Search, embeddings: ApiControl
) -> None:
    template = index_template(DIMENSIONS, ["x"])["template"]
    whole = template["mappings"]
    knn = {"index.knn": True}
    cases: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], str]] = {
        "append": ({"index.append_only.enabled": True}, whole, {}, "index.append_only.enabled"),
        "full": ({"index.mapping.total_fields.limit": 11}, OWN, {}, "total_fields.limit (11)"),
        "deep": (
            {},
            {"properties": {**OWN["properties"], "a": {"properties": {"b": {"properties": {}}}}}},
            {"index.mapping.depth.limit": 2},
            "index.mapping.depth.limit (2)",
        ),
        "copies": (
            {"number_of_replicas": 1},
            whole,
            {"index.write.wait_for_active_shards": 2},
            "index.write.wait_for_active_shards",
        ),
        "scripts": ({}, whole, {"index.max_script_fields": 0}, "index.max_script_fields"),
    }  # fmt: skip
    for name, (settings, mapping, later, _) in cases.items():
        search.create(f"{name}_2026_11", settings={**knn, **settings}, mappings=mapping)
        rows = [row for log in logs(3, 3) for row in ({"create": {}}, log)]
        if name == "append":
            body = "".join(json.dumps(row) + "\n" for row in rows).encode()
            search("POST", f"/{name}_2026_11/_bulk?refresh=true", body)
        else:
            search.index(f"{name}_2026_11", logs(3, 3))
        if later:
            search("PUT", f"/{name}_2026_11/_settings", later)
    indices = [f"{name}_2026_11" for name in cases]
    before = stored(search, *indices)
    one = pipeline()

    told = checked(clean, clean.environment())
    inputs = embeddings.seen["inputs"]
    record = one.run()

    assert_adds_up(record)
    assert (record.found, embeddings.seen["inputs"]) == (0, inputs)
    assert record.skipped_indices.keys() == set(indices)
    for name, (_, _, _, words) in cases.items():
        reason = record.skipped_indices[f"{name}_2026_11"]
        assert words in reason, name
        assert f"✗ {name}_2026_11: {reason}" in told
    assert "0 ERROR logs can be given a vector" in told
    assert stored(search, *indices) == before

    breaker = "knn.circuit_breaker.triggered"
    search.create(INDEX)
    search.index(INDEX, logs(3, 3))
    search("PUT", "/_cluster/settings", {"persistent": {breaker: True}})
    try:
        record = one.run()
    finally:
        search("PUT", "/_cluster/settings", {"persistent": {breaker: None}})
    assert breaker in record.skipped_indices[INDEX]
    assert embeddings.seen["inputs"] == inputs


@pytest.mark.parametrize(
    ("added", "words"),
    [
        ("missing", "pipeline is missing"),
        pytest.param("fails", "fail_processor_exception", marks=pytest.mark.apart),
        ("drops", "pipeline drops logs"),
    ],
)
def test_what_turns_up_under_way_is_named_and_paid_for_once(
    pipeline: Build, search: Search, embeddings: ApiControl, model: Model, added: str, words: str
) -> None:
    """A pipeline that somebody adds while a run writes; no healthy log is marked for it."""
    search("PUT", "/_ingest/pipeline/drops", {"processors": [{"drop": {}}]})
    search("PUT", "/_ingest/pipeline/fails", {"processors": [{"fail": {"message": "no"}}]})
    search.create(INDEX)
    search.index(INDEX, logs(6, 6))
    before = stored(search, INDEX)
    one = pipeline()

    def add(message: str, arguments: Any) -> None:
        if message == "embed_and_update":
            search("PUT", f"/{INDEX}/_settings", {"index.final_pipeline": added})

    one.before = add
    record = one.run()
    assert_adds_up(record)
    assert (record.deferred, record.failed) == (6, 0)
    assert words in record.skipped_indices[INDEX]
    assert stored(search, INDEX) == before

    inputs = embeddings.seen["inputs"]
    again = one.run()
    assert (again.vectors_written, again.skipped_indices) == (6, {})
    assert embeddings.seen["inputs"] == inputs
    assert_right_vectors(search, INDEX, model)


def test_an_alias_with_a_filter_is_no_way_to_an_index(
    pipeline: Build, clean: Services, search: Search
) -> None:
    """What the filter leaves out would be sent and written as well."""
    search.create("hub")
    search.index("hub", logs(9, 9))
    filtered = {"index": "hub", "alias": "shown_logs", "filter": {"range": {"n": {"lt": 4}}}}
    search("POST", "/_aliases", {"actions": [{"add": filtered}]})
    before = stored(search, "hub")
    one = pipeline()

    record = one.run()
    assert "shown_logs, an alias with a filter" in record.skipped_indices["hub"]
    assert f"✗ hub: {record.skipped_indices['hub']}" in checked(clean, clean.environment())
    assert stored(search, "hub") == before

    plain = {"index": "hub", "alias": "all_logs"}
    search("POST", "/_aliases", {"actions": [{"add": plain}]})
    assert one.run().vectors_written == 9


@pytest.mark.apart
def test_what_only_seems_to_stand_in_the_way_does_not(
    pipeline: Build, clean: Services, search: Search, model: Model
) -> None:
    """Small windows, and pipelines that are missing, that fail or that drop."""
    search("PUT", "/_ingest/pipeline/drops", {"processors": [{"drop": {}}]})
    search("PUT", "/_ingest/pipeline/fails", {"processors": [{"fail": {"message": "no"}}]})
    cases: dict[str, dict[str, Any]] = {
        "window": {"index.max_result_window": 20},
        "missing": {"index.final_pipeline": "missing"},
        "fails": {"index.final_pipeline": "fails"},
        "drops": {"index.final_pipeline": "drops"},
        "default": {"index.default_pipeline": "missing"},
        "searched": {"index.search.default_pipeline": "missing"},
        "limit": {"index.mapping.total_fields.limit": 1},
    }
    for name, settings in cases.items():
        search.create(f"{name}_2026_11")
        search.index(f"{name}_2026_11", logs(25, 25))
        search("PUT", f"/{name}_2026_11/_settings", settings)

    one = pipeline()
    told = checked(clean, clean.environment())
    record = one.run()

    assert "✗" not in told.partition("Redis and workers")[2].partition("OpenSearch")[2], told
    assert record.skipped_indices == {}
    assert_adds_up(record)
    assert record.vectors_written == 25 * len(cases)
    search("PUT", "/searched_2026_11/_settings", {"index.search.default_pipeline": None})
    search("PUT", "/window_2026_11/_settings", {"index.max_result_window": None})
    for name in cases:
        assert_right_vectors(search, f"{name}_2026_11", model)


# -- logs without a text


def test_an_index_whose_text_is_elsewhere_is_skipped_and_not_marked(
    pipeline: Build, clean: Services, search: Search
) -> None:
    """As OpenTelemetry's collector has it: `body`, or an object; single logs are still marked."""
    texts: dict[str, Any] = {
        "absent_2026_11": None,
        "object_2026_11": {"text": "connection refused"},
        "list_2026_11": ["connection", "refused"],
    }
    for index, message in texts.items():
        properties = index_template(DIMENSIONS, ["x"])["template"]["mappings"]["properties"]
        if not isinstance(message, list):
            del properties["message"]
        search.create(index, settings={"index.knn": True}, mappings={"properties": properties})
        search.index(
            index,
            [
                {k: v for k, v in {**log, "message": message, "body": "x"}.items() if v is not None}
                for log in logs(40, 40)
            ],
        )
    search.create(INDEX)
    search.index(
        INDEX,
        [*logs(20, 20), *({**log, "message": "", "_id": f"e{log['n']}"} for log in logs(4, 4))],
    )
    before = stored(search, *texts)
    one = pipeline()

    told = checked(clean, clean.environment())
    record = one.run()

    assert_adds_up(record)
    assert record.skipped_indices.keys() == texts.keys()
    for index, reason in record.skipped_indices.items():
        assert "has a text in `message`" in reason
        assert f"✗ {index}: {reason}" in told
    assert stored(search, *texts) == before
    assert "24 ERROR logs can be given a vector" in told
    assert "4 have no usable text in `message`" in told
    assert (record.vectors_written, record.failed) == (20, 4)

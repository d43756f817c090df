"""The preflight's decisions: which index can take vectors without harm, and what it lacks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from enrich.errors import AccessRefused
from enrich.log_store.connection import decode
from enrich.log_store.documents import OUR_FIELDS
from enrich.log_store.mapping import FIELD_TYPES, Mappings, index_mapping, missing_mapping
from enrich.log_store.preflight import (
    Preflight,
    Readiness,
    above_watermark,
    blocker,
    nested_level,
)
from enrich.log_store.refusals import RequestRefused
from enrich.log_store.templates import index_template
from enrich.schema import Schema, schema_of
from enrich.settings import load_settings

KNN = {"index.knn": "true"}
VECTOR = {"type": "knn_vector", "dimension": 4}


def mapped(**fields: Any) -> dict[str, Any]:
    return {"properties": fields}


@pytest.mark.parametrize(
    ("mapping", "settings"),
    [
        ({}, KNN),
        (mapped(), KNN),
        (mapped(message={"type": "text"}), KNN),
        (mapped(log_vector=VECTOR), KNN),
        (mapped(log_vector={"type": "knn_vector", "model_id": "m"}), KNN),
        (mapped(**index_mapping(4)), {"index.knn": True}),
        ({"dynamic": "strict", "properties": {}}, KNN),
        ({"_source": {"enabled": True}}, KNN),
        ({"_source": {"excludes": [], "includes": []}}, KNN),
        ({}, {**KNN, "index.blocks.write": "false", "index.blocks.read_only": "false"}),
        ({}, {**KNN, "index.derived_source.enabled": "false"}),
        ({}, {**KNN, "index.final_pipeline": "p", "index.default_pipeline": "q"}),
        # A limit that was lowered does no harm where no field is added.
        (mapped(**index_mapping(4)), {**KNN, "index.mapping.total_fields.limit": "1"}),
        (mapped(a={"properties": {}}), {**KNN, "index.mapping.depth.limit": "2"}),
        (
            mapped(message={"type": "text", "fields": {"k": {"type": "keyword"}}}),
            {**KNN, "index.mapping.total_fields.limit": "12"},
        ),
        # What dynamic mapping makes of our fields when nobody mapped them.
        (mapped(ai_text_sha256={"type": "text"}, ai_embedding_dimensions={"type": "long"}), KNN),
        (mapped(ai_enriched_at={"type": "date_nanos"}), KNN),
    ],
)
def test_index_that_can_take_vectors(mapping: dict[str, Any], settings: dict[str, Any]) -> None:
    assert blocker(mapping, settings, 4) == ""


@pytest.mark.parametrize(
    ("mapping", "settings", "words"),
    [
        ({"_source": {"enabled": False}}, KNN, "_source disabled"),
        ({"_source": {"enabled": "false"}}, KNN, "_source disabled"),
        ({"_source": {"excludes": ["secret"]}}, KNN, "reindex without _source excludes"),
        ({"_source": {"includes": ["message"]}}, KNN, "reindex without _source excludes"),
        ({"_source": {"excludes": ["log_vector"]}}, KNN, "leaves fields out of _source"),
        ({}, {**KNN, "index.derived_source.enabled": "true"}, "index.derived_source.enabled"),
        ({}, {**KNN, "index.blocks.write": "true"}, "index.blocks.write"),
        ({}, {**KNN, "index.blocks.read_only": "true"}, "index.blocks.read_only"),
        ({}, {**KNN, "index.store.type": "remote_snapshot"}, "searchable snapshot"),
        (
            {},
            {**KNN, "index.blocks.read_only_allow_delete": "true"},
            "index.blocks.read_only_allow_delete",
        ),
        ({}, {**KNN, "index.append_only.enabled": "true"}, "index.append_only.enabled"),
        ({}, {**KNN, "index.max_script_fields": "0"}, "index.max_script_fields is 0"),
        (
            mapped(message={"type": "text", "fields": {"k": {"type": "keyword"}}}),
            {**KNN, "index.mapping.total_fields.limit": "11"},
            "has 2 fields and would need 10 more, which is beyond "
            "index.mapping.total_fields.limit (11)",
        ),
        (
            mapped(a={"properties": {"b": {"type": "nested", "properties": {}}}}),
            {**KNN, "index.mapping.depth.limit": "2"},
            "is 3 levels deep, which is beyond index.mapping.depth.limit (2)",
        ),
        ({}, {}, "index.knn is not set"),
        ({}, {"index.knn": "false"}, "index.knn is not set"),
        (mapped(log_vector=VECTOR), {}, "index.knn is not set"),
        (mapped(log_vector={"type": "float"}), KNN, "mapped as float, not knn_vector"),
        (mapped(log_vector={"type": "dense_vector"}), KNN, "mapped as dense_vector"),
        (mapped(log_vector={"properties": {}}), KNN, "mapped as object"),
        (mapped(log_vector={**VECTOR, "dimension": 3}), KNN, "dimension 3, not 4"),
        (mapped(ai_enriched_at={"type": "long"}), KNN, "ai_enriched_at is mapped as long"),
        (mapped(ai_text_sha256={"properties": {}}), KNN, "ai_text_sha256 is mapped as object"),
        (mapped(ai_embedding_dimensions={"type": "keyword"}), KNN, "ai_embedding_dimensions"),
        (mapped(ai_enrichment_status={"type": "boolean"}), KNN, "ai_enrichment_status"),
    ],
)
def test_blocker_is_named(mapping: dict[str, Any], settings: dict[str, Any], words: str) -> None:
    assert words in blocker(mapping, settings, 4)


@pytest.mark.parametrize("name", sorted(FIELD_TYPES))
def test_each_of_our_fields_is_looked_at(name: str) -> None:
    assert name in blocker(mapped(**{name: {"type": "ip"}}), KNN, 4)
    assert blocker(mapped(**{name: {"type": FIELD_TYPES[name]}}), KNN, 4) == ""


def test_everything_that_is_written_is_mapped() -> None:
    assert set(index_mapping(4)) == OUR_FIELDS


def test_missing_mapping_is_what_is_not_there() -> None:
    whole = index_mapping(4)
    assert missing_mapping({}, 4) == whole
    assert missing_mapping(mapped(), 4) == whole
    assert missing_mapping(mapped(**whole), 4) == {}
    assert missing_mapping(mapped(log_vector={"type": "float"}), 4).keys() == FIELD_TYPES.keys()
    for name in whole:
        others = {other: how for other, how in whole.items() if other != name}
        assert missing_mapping(mapped(**others), 4) == {name: whole[name]}


def test_vector_is_mapped_with_a_method_that_is_searchable() -> None:
    vector = index_mapping(1536)["log_vector"]
    assert (vector["type"], vector["dimension"]) == ("knn_vector", 1536)
    assert vector["method"]["space_type"] == "cosinesimil"


@pytest.mark.parametrize(
    ("watermark", "used_percent", "above"),
    [
        ("90%", 89.9, False),
        ("90%", 90, True),
        ("90%", 100, True),
        ("90.5%", 90.4, False),
        ("90.5%", 90.5, True),
        (" 90% ", 95, True),
        ("0.9", 89.9, False),
        ("0.9", 90, True),
        ("100%", 99.9, False),
    ],
)
def test_share_of_a_disk(watermark: str, used_percent: float, above: bool) -> None:
    total = 1_000_000
    assert above_watermark(watermark, total, round(total * (100 - used_percent) / 100)) is above


@pytest.mark.parametrize(
    ("watermark", "available", "above"),
    [
        ("10gb", 10 * 2**30 + 1, False),
        ("10gb", 10 * 2**30, True),
        ("10GB", 2**30, True),
        ("1.5kb", 1537, False),
        ("1.5kb", 1536, True),
        ("500b", 501, False),
        ("500b", 500, True),
        ("1tb", 2**40 + 1, False),
        ("2mb", 2**21, True),
        ("1pb", 2**50, True),
    ],
)
def test_bytes_that_must_stay_free(watermark: str, available: int, above: bool) -> None:
    assert above_watermark(watermark, 2**60, available) is above


def test_disk_of_unknown_size_is_not_full() -> None:
    assert not above_watermark("90%", 0, 0)


def test_template_gives_new_indices_what_the_preflight_asks_for() -> None:
    template = index_template(4, ["*_*", "-.*", "logs-*", "-skipped_*"])
    assert {"a*_*", "9*_*", "logs-*"} <= {*template["index_patterns"]}
    body = template["template"]
    settings = {name: str(value).lower() for name, value in body["settings"].items()}
    assert blocker(body["mappings"], settings, 4) == ""
    assert missing_mapping(body["mappings"], 4) == {}
    assert body["mappings"]["properties"]["level"] == {"type": "keyword"}
    assert body["mappings"]["properties"]["timestamp"] == {"type": "date"}


# -- putting what is missing


class Cluster:
    """Stands for the connection: an OpenSearch that knows a few indices."""

    def __init__(self, indices: dict[str, tuple[dict[str, Any], dict[str, Any]]]) -> None:
        self.indices = indices
        self.put: dict[str, Any] = {}
        self.refusal: Exception | None = None

    def request(self, method: str, path: str, body: Any = None, params: Any = None) -> str:
        names, kind = path.strip("/").split("/")
        if method == "PUT":
            if self.refusal:
                raise self.refusal
            self.put[names] = body["properties"]
            return "{}"
        field, which = (("mappings", 0), ("settings", 1))[kind == "_settings"]
        known = {name: self.indices[name] for name in names.split(",") if name in self.indices}
        return json.dumps({name: {field: both[which]} for name, both in known.items()})

    def ask(self, type_: Any, method: str, path: str, body: Any = None, params: Any = None) -> Any:
        return decode(self.request(method, path, body, params), type_)


def preflight(cluster: Cluster) -> Preflight:
    settings = load_settings(_env_file=None, openai_api_key="k", embedding_dimensions=4)
    return Preflight(cluster, settings)  # type: ignore[arg-type]


def completed(cluster: Cluster, ready: Readiness) -> Readiness:
    """As a run's survey does it."""
    mappings = Mappings(cluster, 4)  # type: ignore[arg-type]
    return ready.completed(mappings.complete(ready.lacking))


def test_missing_fields_are_put_and_nothing_else() -> None:
    cluster = Cluster(
        {
            "whole": (mapped(**index_mapping(4)), KNN),
            "bare": ({}, KNN),
            "half": (mapped(log_vector=VECTOR), KNN),
            "blocked": ({}, {**KNN, "index.blocks.write": "true"}),
            "piped": (mapped(**index_mapping(4)), {**KNN, "index.final_pipeline": "p"}),
            "unpiped": (mapped(**index_mapping(4)), {**KNN, "index.final_pipeline": "_none"}),
        }
    )
    ready = preflight(cluster).inspect([*cluster.indices, "deleted"])
    assert ready.lacking.keys() == {"bare", "half"}
    assert not cluster.put
    ready = completed(cluster, ready)
    assert cluster.put.keys() == {"bare", "half"}
    assert cluster.put["bare"] == index_mapping(4)
    assert "log_vector" not in cluster.put["half"]
    assert ready.skipped.keys() == {"blocked"}
    assert ready.lacking == {}
    assert ready.update_only == ["piped"]


def test_looking_says_what_is_lacking_and_puts_nothing() -> None:
    cluster = Cluster({"bare": ({}, KNN)})
    ready = preflight(cluster).inspect(["bare"])
    assert cluster.put == {}
    assert ready.lacking == {"bare": sorted(index_mapping(4))}


@pytest.mark.parametrize(
    "refusal",
    [
        RequestRefused("refused", "illegal_argument_exception", 400),
        RequestRefused("refused", "cluster_block_exception", 403),
        AccessRefused("not allowed"),
    ],
)
def test_index_whose_mapping_cannot_be_completed_is_skipped(refusal: Exception) -> None:
    cluster = Cluster({"bare": ({}, KNN), "whole": (mapped(**index_mapping(4)), KNN)})
    cluster.refusal = refusal
    ready = completed(cluster, preflight(cluster).inspect(["bare", "whole"]))
    assert ready.skipped.keys() == {"bare"}
    assert "mapping cannot be completed" in ready.skipped["bare"]
    assert ready.lacking == {}


def test_smaller_windows_and_messages_that_are_no_texts_are_handed_on() -> None:
    text = {"message": {"type": "text"}}
    cluster = Cluster(
        {
            "narrow": (mapped(**text), {**KNN, "index.max_result_window": "100"}),
            "wide": (mapped(**text), {**KNN, "index.max_result_window": "20000"}),
            "keyword": (mapped(message={"type": "keyword"}), KNN),
            "object": (mapped(message={"properties": {"text": {"type": "text"}}}), KNN),
            "flat": (mapped(message={"type": "flat_object"}), KNN),
            "none": (mapped(body={"type": "text"}), KNN),
        }
    )
    ready = preflight(cluster).inspect(list(cluster.indices))
    assert ready.windows == {"narrow": 100}
    assert ready.textless == {"object", "flat", "none"}


def test_hundreds_of_indices_are_all_looked_at() -> None:
    cluster = Cluster({f"i_{n}": ({}, KNN) for n in range(130)})
    assert len(preflight(cluster).inspect(list(cluster.indices)).lacking) == 130


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        (
            {"log": {"type": "nested", "properties": {"level": {}}}},
            "log.level is inside log, which",
        ),
        (
            {"log": {"properties": {"x": {"type": "nested"}, "level": {}}}},
            "",
        ),
        ({"log": {"type": "nested", "include_in_root": True, "properties": {"level": {}}}}, ""),
        # Where one of two levels can be searched, it is.
        ({"log": {"type": "nested", "properties": {"level": {}}}, "level": {}}, ""),
        ({"log": {"type": "nested"}}, ""),
        ({}, ""),
    ],
)
def test_levels_that_no_search_finds(mapping: dict[str, Any], words: str) -> None:
    schema = Schema((schema_of("ecs", ("ERROR",)).first, schema_of("fluent", ("ERROR",)).first))
    why = nested_level({"properties": mapping}, schema)
    assert (words in why) if words else why == ""
    deep = {"a": {"properties": {"b": {"type": "nested", "properties": {"c": {"properties": {}}}}}}}
    assert "inside a.b," in nested_level(
        {"properties": deep}, schema_of("ecs", ("ERROR",), level_field="a.b.c")
    )

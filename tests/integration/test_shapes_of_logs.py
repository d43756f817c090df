"""Logs of other shapes on a real OpenSearch: found, counted, and given the vector of their text.

One index for each way in which the fields of a shape are mapped, and one run over all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from dev.embedding_model import Model
from enrich.cli.check import Check
from enrich.log_store import index_template
from enrich.schema import LOGLENS
from enrich.settings import Settings
from enrich.text.extract import fingerprint
from tests.conftest import DIMENSIONS, Pipeline, Search
from tests.unit.test_schema import LOGS, dotted

Build = Callable[..., Pipeline]

#: How a level and a text may be mapped. A mapping of `None` leaves the field to OpenSearch.
KINDS: dict[str, tuple[dict[str, Any] | None, dict[str, Any] | None]] = {
    "keyword": ({"type": "keyword"}, {"type": "keyword"}),
    "text": ({"type": "text"}, {"type": "text"}),
    "match_only_text": ({"type": "match_only_text"}, {"type": "match_only_text"}),
    "wildcard": ({"type": "wildcard"}, {"type": "wildcard"}),
    "dynamic": (None, None),
    "not_indexed": ({"type": "keyword"}, {"type": "keyword", "index": False, "doc_values": False}),
    "flat_object": ({"type": "flat_object"}, {"type": "text"}),
    "alias": ({"type": "alias", "path": "stored_level"}, {"type": "text"}),
    "derived": (
        {"type": "keyword", "script": {"source": "emit(doc['stored_level'].value)"}},
        {"type": "text"},
    ),
}

TEXT = "no stock for this cart"


def create(search: Search, index: str, name: str, kind: str, fields: tuple[str, str]) -> None:
    """An index of a shape, whose level and text are mapped as the kind says."""
    level_field, text_field = fields
    level, text = KINDS[kind]
    template = index_template(DIMENSIONS, [index])["template"]
    known = template["mappings"]["properties"].items()
    properties = {n: m for n, m in known if n.startswith("ai_") or n == "log_vector"}
    mappings: dict[str, Any] = {"properties": properties}
    if kind == "flat_object":
        properties[level_field.partition(".")[0]] = level
    elif kind == "derived":
        mappings["derived"] = {level_field: level}
    elif level is not None:
        properties[level_field] = level
    if kind in ("alias", "derived"):
        properties["stored_level"] = {"type": "keyword"}
    if text is not None:
        properties[text_field] = text
    properties["@timestamp"] = {"type": "date"}
    search.create(index, settings=template["settings"], mappings=mappings)


def logs_of(name: str, kind: str, level_field: str) -> list[dict[str, Any]]:
    """Three that are wanted, in two texts and two forms, and one that is not."""
    found = []
    for n, (level, text) in enumerate(
        [("error", TEXT), ("Error", TEXT), ("ERROR", f"{TEXT}: {kind}"), ("info", "all is well")]
    ):
        flat = dotted(LOGS[name])
        for field in [f for f in flat if f.endswith(("umber", "imestamp", "time"))]:
            del flat[field]
        flat[next(f for f in ("log", "body", "message") if f in flat)] = text
        flat["@timestamp"] = f"2026-11-28T10:00:0{n}Z"
        flat.pop(level_field)
        field = "stored_level" if kind in ("alias", "derived") else level_field
        found.append(
            {**flat, field: level}
            if n % 2 and kind != "flat_object"
            else {**nested(flat), **nested({field: level})}
        )
    return found


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """The same document with objects in place of the dots."""
    document: dict[str, Any] = {}
    for name, value in flat.items():
        *above, last = name.split(".")
        inside = document
        for part in above:
            inside = inside.setdefault(part, {})
        inside[last] = value
    return document


@pytest.mark.parametrize("name", [n for n in LOGS if n != LOGLENS.first.name])
def test_each_shape_is_found_however_it_is_mapped(
    pipeline: Build, search: Search, model: Model, name: str
) -> None:
    built = pipeline(enrich_schema=name)
    shape = built.settings.log_schema.first
    fields = shape.level_field, shape.text_fields[0]
    kinds = [
        kind
        for kind in KINDS
        # A flat_object has its parts below it, and a derived field no dot in its name.
        if {"flat_object": "." in fields[0], "derived": "." not in fields[0]}.get(kind, True)
    ]
    for kind in kinds:
        index = f"{kind}_2026_11"
        create(search, index, name, kind, fields)
        search.index(index, logs_of(name, kind, fields[0]))
    counts = built.store.backlog.count().counts
    assert counts == {f"{kind}_2026_11": 3 for kind in kinds}
    record = built.run()
    assert (record.found, record.failed, record.deferred) == (3 * len(kinds), 0, 0)
    # One for the text that all have, one for each kind's own.
    assert record.embedded == len(kinds) + 1 - record.cached - record.reused
    for kind in kinds:
        sources = search.sources(f"{kind}_2026_11")
        texts = [TEXT, TEXT, f"{TEXT}: {kind}"]
        for n, text in enumerate(texts):
            source = sources[f"{kind}_2026_11-{n}"]
            assert source["ai_text_sha256"] == fingerprint(text)
            (right,) = model.embed([text])
            assert np.allclose(source["log_vector"], right, atol=1e-6)
        assert "log_vector" not in sources[f"{kind}_2026_11-3"]
    # Nothing is left, and what is told of it agrees.
    assert built.store.backlog.count().counts == {}
    counted = built.store.stats.counts()
    assert {sum(c.values()) for c in counted.by_index.values()} == {3}
    (first, *_) = built.store.stats.nearest(model.embed([TEXT])[0].tolist(), 3, None).value
    assert first["cosine"] == pytest.approx(1, abs=1e-3)
    assert (first["message"], first["service_name"], first["trace_id"]) == (TEXT, "cart", "t1")


def make(search: Search, index: str, logs: list[dict[str, Any]], **properties: Any) -> None:
    """An index that maps these fields and ours, with logs."""
    template = index_template(DIMENSIONS, [index])["template"]
    known = template["mappings"]["properties"].items()
    ours = {n: m for n, m in known if n.startswith("ai_") or n == "log_vector"}
    mapped = {name.replace("__", "."): how for name, how in properties.items()}
    search.create(index, settings=template["settings"], mappings={"properties": ours | mapped})
    if logs:
        search.index(index, logs)


def at(second: int, **fields: Any) -> dict[str, Any]:
    return {"@timestamp": f"2026-11-28T10:00:{second:02}Z", **fields}


KEYWORD, TEXT_FIELD, LONG = {"type": "keyword"}, {"type": "text"}, {"type": "long"}


def test_shapes_that_are_mixed_and_fields_of_two_kinds(
    pipeline: Build, search: Search, model: Model
) -> None:
    """Each trouble stays its index's own, is said in a sentence, and nothing is bought for it."""
    make(
        search, "mixed_2026_11",
        [
            at(1, severity={"text": "Error"}, body="of the collector"),
            at(2, log={"level": "error"}, message="of the agent", error={"type": "E"}),
            at(3, level="ERROR", message="of the application"),
        ],
    )  # fmt: skip
    # `log` is a line here and an object there, `error` a text here and an object there.
    make(search, "lines_2026_11", [at(5, level="error", log="of the container\n")])
    named = {"log.level": "error", "message": "m", "error": "E"}
    make(search, "named_2026_11", [at(6, **named)])
    # No text where it should be: an object, and an alias, which no stored log has.
    objects = [at(n, log={"level": "error"}, message={"text": f"boom {n}"}) for n in range(10)]
    make(search, "objects_2026_11", objects)
    make(
        search, "aliases_2026_11", [at(1, level="ERROR", raw="boom")],
        raw=TEXT_FIELD, message={"type": "alias", "path": "raw"},
    )  # fmt: skip
    # A level that no word can be in.
    make(search, "numbers_2026_11", [at(1, level=17, message="boom")], level=LONG)
    make(search, "flags_2026_11", [at(1, level=True, message="boom")], level={"type": "boolean"})
    search("POST", "/_aliases", {"actions": [
        {"add": {"index": index, "alias": "all_logs"}} for index in ("mixed_2026_11",
         "lines_2026_11", "named_2026_11", "objects_2026_11", "aliases_2026_11",
         "numbers_2026_11", "flags_2026_11")
    ]})  # fmt: skip
    built = pipeline(enrich_schema="auto", enrich_index_pattern="all_logs")
    backlog = built.store.backlog.count()
    assert backlog.unreadable == {
        "numbers_2026_11": "level is mapped as long, which holds no word such as ERROR",
        "flags_2026_11": "level is mapped as boolean, which holds no word such as ERROR",
    }
    record = built.run()
    texts = {
        "mixed_2026_11": ["of the collector", "of the agent\nE", "of the application"],
        "lines_2026_11": ["of the container"],
        "named_2026_11": ["m"],
    }
    bought = sum(map(len, texts.values()))
    assert (record.found, record.embedded, record.failed) == (bought, bought, 0)
    assert record.api_inputs == bought
    assert set(record.skipped_indices) == {"numbers_2026_11", "flags_2026_11", "objects_2026_11",
                                   "aliases_2026_11"}  # fmt: skip
    assert "has a text in `body` or `message` or `log`" in record.skipped_indices["objects_2026_11"]
    assert "set ENRICH_TEXT_FIELDS to that" in record.skipped_indices["objects_2026_11"]
    assert record.skipped_indices["aliases_2026_11"].startswith("message is an alias of raw there")
    for index, right in texts.items():
        sources = search.sources(index)
        for n, text in enumerate(right):
            source = sources[f"{index}-{n}"]
            assert source["ai_text_sha256"] == fingerprint(text), text
            assert np.allclose(source["log_vector"], model.embed([text])[0], atol=1e-6)


def test_numbers_of_levels_are_compared_where_they_are_numbers(
    pipeline: Build, search: Search
) -> None:
    logs = [at(n, lvl=level, event={"text": f"level {level}"}) for n, level in enumerate(
        [9, 16, 17, 24, 100])]  # fmt: skip
    make(search, "longs_2026_11", logs, lvl=LONG)
    make(search, "floats_2026_11", logs, lvl={"type": "half_float"})
    make(search, "words_2026_11", [{**log, "lvl": str(log["lvl"])} for log in logs], lvl=KEYWORD)
    make(search, "flags_2026_11", [{**logs[0], "lvl": True}], lvl={"type": "boolean"})
    make(search, "wild_2026_11", [{**logs[0], "lvl": "17"}], lvl={"type": "wildcard"})
    built = pipeline(
        enrich_level_field="lvl", enrich_levels=">=17", enrich_text_fields="event.text",
        enrich_timestamp_field="@timestamp",
    )  # fmt: skip
    backlog = built.store.backlog.count()
    assert backlog.counts == {"longs_2026_11": 3, "floats_2026_11": 3}
    assert backlog.unreadable == {
        f"{name}_2026_11": f"lvl is mapped as {type_}, which cannot be compared as a number with "
        ">=17"
        for name, type_ in (("words", "keyword"), ("flags", "boolean"), ("wild", "wildcard"))
    }
    record = built.run()
    assert (record.found, record.embedded, record.duplicate + record.cached) == (6, 3, 3)


def test_what_is_inside_nested_objects_is_found_or_said(
    pipeline: Build, settings: Callable[..., Settings], search: Search, model: Model
) -> None:
    def nested_as(**how: Any) -> dict[str, Any]:
        return {"type": "nested", "properties": {"level": KEYWORD, "message": TEXT_FIELD}, **how}

    log = at(1, log={"level": "error"}, message="boom", error={"message": "no stock"})
    others = {"message": TEXT_FIELD, "error": {"properties": {"message": TEXT_FIELD}}}
    make(search, "level_2026_11", [log], **others, log=nested_as())
    make(search, "root_2026_11", [log], **others, log=nested_as(include_in_root=True))
    make(
        search, "text_2026_11",
        [{**log, "message": "", "error": [{"message": "no stock"}, {"message": "twice"}]}],
        message=TEXT_FIELD, error=nested_as(), log={"properties": {"level": KEYWORD}},
    )  # fmt: skip
    built = pipeline(enrich_schema="ecs")
    assert built.store.backlog.count().counts == {"root_2026_11": 1, "text_2026_11": 1}
    screen = StringIO()
    Check(settings(enrich_schema="ecs"), Console(file=screen, width=1000)).all()
    assert (
        "! level_2026_11: log.level is inside log, which is mapped as nested, so that no search "
        "for a level finds it: map log as object, or give it include_in_root" in screen.getvalue()
    )
    record = built.run()
    assert (record.found, record.embedded, record.skipped_indices) == (2, 2, {})
    for name, text in (("root", "boom\nno stock"), ("text", "no stock\ntwice")):
        source = search.source(f"{name}_2026_11", f"{name}_2026_11-0")
        assert source["ai_text_sha256"] == fingerprint(text)
        (found, *_) = built.store.stats.nearest(model.embed([text])[0].tolist(), 1, None).value
        assert found["cosine"] == pytest.approx(1, abs=1e-3)


def test_check_tells_which_shapes_it_sees(
    settings: Callable[..., Settings], search: Search
) -> None:
    make(search, "shop_2026_11", [at(1, severity={"text": "ERROR"}, body="boom")] * 3)
    make(search, "till_2026_11", [at(1, severity={"number": 18}, body="boom")])
    make(search, "odd_2026_11", [at(1, loglevel="ERROR", text="boom")], loglevel=KEYWORD)
    make(search, "empty_2026_11", [])

    def told(**overrides: Any) -> str:
        screen = StringIO()
        Check(settings(**overrides), Console(file=screen, width=1000)).all()
        return screen.getvalue()

    said = told()
    assert (
        "! 2 indices look like OpenTelemetry (severity.text, body): ENRICH_SCHEMA=otel finds 4 "
        "logs (shop_2026_11, till_2026_11)" in said
    )
    assert (
        "! 1 index has no field that is known for a level, so that nothing is found in "
        "odd_2026_11: set ENRICH_LEVEL_FIELD (perhaps loglevel) and ENRICH_TEXT_FIELDS" in said
    )
    # What it advises is so.
    assert "4 ERROR logs can be given a vector" in told(enrich_schema="otel")
    own = told(enrich_level_field="loglevel", enrich_text_fields="text")
    assert "1 ERROR logs can be given a vector" in own
    assert "ENRICH_SCHEMA=auto finds 4 logs more" in own
    # Among logs that are found, in the same and in other indices.
    make(search, "kiosk_2026_11", [
        {"level": "ERROR", "message": "boom"}, {"level": "error", "message": "boom"},
        at(1, log={"level": "error"}, message="boom"),
    ])  # fmt: skip
    said = told()
    assert "ENRICH_SCHEMA=auto finds 4 logs more (shop_2026_11, till_2026_11)" in said
    assert (
        "! 1 index looks like the Elastic Common Schema (log.level, message): ENRICH_SCHEMA=auto "
        "finds 1 log more (kiosk_2026_11)" in said
    )
    assert "! 1 log more has its level spelt error: ENRICH_LEVELS=ERROR,error finds them" in said

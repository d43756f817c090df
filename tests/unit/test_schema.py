"""Where a log has its level, text, time, service and trace, whatever its shape."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from enrich.errors import SettingsError, TextUnusable
from enrich.log_store import index_template
from enrich.log_store.documents import Document, Presence
from enrich.log_store.level_faults import unreadable_levels
from enrich.log_store.queries import FieldCaps, Queries
from enrich.models import Reference
from enrich.schema import LOGLENS, PRESETS, Schema, schema_of
from enrich.schema.shape import MOST_PARTS, joined
from enrich.settings import load_settings
from enrich.text.extract import text_of

ROOT = Path(__file__).parents[2]

ECS = schema_of("ecs", ("ERROR",))
OTEL = schema_of("otel", ("ERROR",))
AUTO = schema_of("auto", ("ERROR",))

#: The same log of each shape, in the form that its shippers mostly write.
LOGS: dict[str, dict[str, Any]] = {
    "loglens": {
        "level": "ERROR", "message": "boom", "timestamp": "T", "service_name": "cart",
        "trace_id": "t1",
    },
    "ecs": {
        "log": {"level": "error"}, "message": "boom", "@timestamp": "T",
        "service": {"name": "cart"}, "trace": {"id": "t1"},
    },
    "otel": {
        "severity": {"text": "Error", "number": 17}, "body": "boom", "@timestamp": "T",
        "resource": {"attributes": {"service": {"name": "cart"}}}, "traceId": "t1",
    },
    "otel-data-prepper": {
        "severityText": "ERROR", "severityNumber": 17, "body": "boom", "time": "T",
        "serviceName": "cart", "traceId": "t1",
    },
    "fluent": {
        "level": "error", "log": "boom\n", "@timestamp": "T",
        "kubernetes": {"container_name": "cart"}, "trace_id": "t1",
    },
}  # fmt: skip


def dotted(source: dict[str, Any], before: str = "") -> dict[str, Any]:
    """The same document with dots in its keys."""
    flat: dict[str, Any] = {}
    for name, value in source.items():
        if isinstance(value, dict):
            flat |= dotted(value, f"{before}{name}.")
        else:
            flat[before + name] = value
    return flat


def test_each_preset_has_a_log_here() -> None:
    assert LOGS.keys() == PRESETS.keys()


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("chosen", ["itself", "auto"])
@pytest.mark.parametrize("form", ["nested", "dotted"])
def test_what_a_log_has_is_found(name: str, chosen: str, form: str) -> None:
    schema = schema_of(name if chosen == "itself" else "auto", ("ERROR",))
    source = LOGS[name] if form == "nested" else dotted(LOGS[name])
    assert schema.of(source).name == name
    assert schema.is_wanted(source) and schema.may_be_wanted(source)
    assert text_of({"message": schema.message(source)}) == "boom"
    assert (schema.time(source), schema.service(source), schema.trace(source)) == (
        "T", "cart", "t1",
    )  # fmt: skip
    assert str(schema.level(source)).upper() == "ERROR"
    # No more of the document is needed for it than these keys.
    some = {n: v for n, v in source.items() if n in schema.message_roots}
    assert schema.message(some) == schema.message(source)
    some = {n: v for n, v in source.items() if n in schema.level_roots}
    assert schema.is_wanted(some)


@pytest.mark.parametrize("name", [n for n in PRESETS if n != "loglens"])
def test_another_shape_is_not_taken_for_it(name: str) -> None:
    assert not LOGLENS.is_wanted(LOGS[name])
    assert not schema_of(name, ("ERROR",)).is_wanted({"severity": "ERROR", "text": "boom"})


@pytest.mark.parametrize(
    ("schema", "source", "wanted"),
    [
        # Any case, but for the shape that was there before there was a choice.
        (ECS, {"log": {"level": "ERROR"}}, True),
        (ECS, {"log": {"level": "Error"}}, True),
        (ECS, {"log": {"level": "error"}}, True),
        (ECS, {"log": {"level": "info"}}, False),
        (LOGLENS, {"level": "error"}, False),
        # Nested, dotted, both, arrays.
        (ECS, {"log.level": "error"}, True),
        (ECS, {"log": {"level": ["info", "error"]}}, True),
        (ECS, {"log": [{"level": "info"}, {"level": "error"}]}, True),
        (ECS, {"log": {"level": []}}, False),
        # Wrong types.
        (ECS, {"log": "a line"}, False),
        (ECS, {"log": {"level": None}}, False),
        (ECS, {"log": {"level": {"name": "error"}}}, False),
        (ECS, {"log": {"level": True}}, False),
        (ECS, {"log": None, "log.level": "error"}, True),
        (LOGLENS, {"level": ["ERROR"]}, True),
        (LOGLENS, {"level": {"a": 1}}, False),
        (LOGLENS, {}, False),
        # By number.
        (OTEL, {"severity": {"number": 17}}, True),
        (OTEL, {"severity": {"number": 20}}, True),
        (OTEL, {"severity": {"number": 16}}, False),
        (OTEL, {"severity": {"number": 21}}, False),
        (OTEL, {"severity": {"number": "18"}}, True),
        (OTEL, {"severity": {"number": 0, "text": "ERROR"}}, True),
        (schema_of("otel", ("ERROR", "FATAL")), {"severity": {"number": 21}}, True),
        (schema_of("otel", (">=17",)), {"severity": {"number": 24}}, True),
        (schema_of("otel", (">=17",)), {"severity": {"number": 16.5}}, False),
        (schema_of("otel", (">=17",)), {"severity": {"text": "ERROR"}}, False),
        (schema_of("otel", (">17",)), {"severity": {"number": 17}}, False),
        (schema_of("loglens", (">=50",), level_field="level"), {"level": 50}, True),
        (schema_of("loglens", (">=50",)), {"level": 60}, True),
        (schema_of("loglens", (">=50",)), {"level": 30}, False),
        (schema_of("loglens", ("50",)), {"level": 50}, True),
        # Several.
        (schema_of("ecs", ("ERROR", "FATAL", "CRITICAL")), {"log.level": "critical"}, True),
        # A field of one's own.
        (schema_of("loglens", ("ERROR",), level_field="lvl"), {"lvl": "error"}, True),
        (schema_of("otel", ("ERROR",), level_field="lvl"), {"severity": {"number": 17}}, False),
    ],
)
def test_level(schema: Schema, source: dict[str, Any], wanted: bool) -> None:
    assert schema.is_wanted(source) is wanted


@pytest.mark.parametrize(
    ("schema", "source", "may_be"),
    [
        # An alias or a derived field stands in the index, not in the document.
        (ECS, {"message": "boom"}, True),
        (ECS, {"log": {"level": "info"}}, False),
        (LOGLENS, {"message": "boom"}, False),
        (AUTO, {"message": "boom"}, True),
    ],
)
def test_level_that_only_the_index_knows(
    schema: Schema, source: dict[str, Any], may_be: bool
) -> None:
    assert schema.may_be_wanted(source) is may_be


TRACE = "java.lang.IllegalStateException: no stock\n\tat shop.Cart.take(Cart.java:7)"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ({"message": "boom"}, "boom"),
        ({"error": {"message": "no stock"}}, "no stock"),
        (
            {"message": "checkout failed", "error": {"type": "X", "stack_trace": "at a"}},
            "checkout failed\nX\nat a",
        ),
        # Each once: a trace mostly begins with its type and its message.
        (
            {
                "message": "checkout failed",
                "error": {
                    "type": "java.lang.IllegalStateException",
                    "message": "no stock",
                    "stack_trace": TRACE,
                },
            },
            f"checkout failed\n{TRACE}",
        ),
        ({"message": f"checkout failed\n{TRACE}", "error.stack_trace": TRACE},
         f"checkout failed\n{TRACE}"),
        ({"message": "no stock", "error": {"message": "no stock"}}, "no stock"),
        # Blank ones, arrays of lines, and what is no text, say nothing.
        ({"message": "  ", "error": {"type": "X"}}, "X"),
        ({"message": ["one", "two"]}, "one\ntwo"),
        ({"message": "boom", "error": "a line"}, "boom"),
        ({"message": "boom", "error": {"type": 7, "message": None}}, "boom"),
        ({"message": {"a": 1}, "error": [{"type": "X"}, {"type": "Y"}]}, "X\nY"),
    ],
)  # fmt: skip
def test_texts_are_joined(source: dict[str, Any], text: str) -> None:
    assert text_of({"message": ECS.message(source)}) == text


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        # A part goes only where the other says it in whole words and numbers.
        (["type 1", "type 14"], "type 1\ntype 14"),
        (["type 14", "type 1"], "type 14\ntype 1"),
        (["waited 1", "waited 1.5 s"], "waited 1\nwaited 1.5 s"),
        (["waited 1.5 s", "5 s"], "waited 1.5 s\n5 s"),
        (["Error", "KeyError"], "Error\nKeyError"),
        (["Error", "my_Error", "Error_2"], "Error\nmy_Error\nError_2"),
        (["Überlauf", "Stapelüberlauf"], "Überlauf\nStapelüberlauf"),
        (["no stock", "no stock, no stockpile"], "no stock, no stockpile"),
        # The first place is within a word, a later one is not.
        (["type 1", "type 14, type 1"], "type 14, type 1"),
        (["1", "waited 1."], "waited 1."),
        (["X", "a.b.X: no stock"], "a.b.X: no stock"),
        (["(a)", "f(a)b"], "f(a)b"),
        (["no stock", "no stock"], "no stock"),
    ],
)
def test_parts_are_held_against_each_other_by_whole_words(parts: list[str], text: str) -> None:
    assert joined(parts) == text


def test_a_document_is_decoded_no_further_than_its_text() -> None:
    fields = {name: msgspec.Raw(b'"%d"' % n) for n, name in enumerate(("message", "error", "log"))}
    fields["x"] = msgspec.Raw(b"no JSON")
    document = Document(
        reference=Reference("a_b", "1", None, 1, 1), presence=Presence.FOUND, fields=fields
    )
    for schema in (LOGLENS, ECS, schema_of("auto", ("ERROR",))):
        assert document.message(schema) == schema.message({"message": "0"}) == "0"
    assert document.message(schema_of("fluent", ("ERROR",))) == "2"


def test_hostile_documents_take_no_more_than_their_length() -> None:
    deep: Any = "boom"
    for _ in range(100_000):
        deep = [deep]
    many = [{"type": f"type {n}"} for n in range(100_000)]
    wide = {"message": "m", "error": many, "log": {"level": [deep, "error"]}}
    assert joined(["a" * 100_000, "aa"]) == "a" * 100_000 + "\naa"
    assert 1 < ECS.message(wide).count("\n") < MOST_PARTS
    assert ECS.is_wanted(wide) and not OTEL.is_wanted({"severity": {"number": deep}})
    assert ECS.is_wanted({"log": [[[{"level": "error"}]]]})
    assert ECS.message({"message": ["line"] * 100_000}).count("\n") == 99_999
    for schema in (ECS, AUTO):
        assert schema.message({"error": deep, "message": "m"}) == "m"
        assert schema.is_wanted({"log": {"level": [["error"]]}}) is True


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ({}, "message_missing"),
        ({"message": None, "error": {}}, "message_missing"),
        ({"message": {"text": "boom"}}, "message_not_text"),
        ({"message": 7}, "message_not_text"),
        ({"message": ["one", 2]}, "message_not_text"),
        ({"message": " \n"}, "message_empty"),
    ],
)
def test_log_without_a_text_says_why(source: dict[str, Any], code: str) -> None:
    with pytest.raises(TextUnusable) as refused:
        text_of({"message": ECS.message(source)})
    assert refused.value.code == code


def test_loglens_takes_a_message_as_it_is() -> None:
    for message in (["one", "two"], {"a": 1}, " boom ", None):
        assert LOGLENS.message({"message": message}) == message


def test_auto_takes_the_shape_whose_level_is_wanted() -> None:
    mixed = {"log": {"level": "info"}, "level": "error", "message": "boom", "error.type": "X"}
    assert AUTO.of(mixed).name == "loglens" and AUTO.message(mixed) == "boom"
    assert AUTO.of({"log": {"level": "error"}, "level": "warn", "message": "m"}).name == "ecs"
    # A text without the level of its shape is better than none.
    assert AUTO.message({"level": "error", "body": "boom"}) == "boom"


def test_fields_of_ones_own_stand_in_place_of_the_presets() -> None:
    settings = load_settings(
        openai_api_key="k", enrich_schema="ecs", enrich_text_fields="event.original, message",
        enrich_service_field="app", enrich_trace_field="span", enrich_timestamp_field="at",
    )  # fmt: skip
    source = {"event.original": "raw", "message": "boom", "app": "cart", "span": "s", "at": "T"}
    schema = settings.log_schema
    assert schema.message(source) == "raw\nboom"
    assert (schema.service(source), schema.trace(source), schema.time(source)) == ("cart", "s", "T")
    assert schema.level_fields == ("log.level",)


# -- how it is asked for


def queries_of(**settings: Any) -> list[dict[str, Any]]:
    one = load_settings(openai_api_key="k", **settings)
    return Queries(one.log_schema, one.enrich_max_age_days).of_level()


def test_by_default_nothing_is_asked_in_another_way_than_before() -> None:
    def match(name: str) -> dict[str, Any]:
        return {"match": {name: {"query": "ERROR", "analyzer": "keyword", "lenient": True}}}

    by_level = {"bool": {"should": [match("level"), match("level.keyword")]}}
    by_time = {"range": {"timestamp": {"gte": "now-48h"}}}
    assert queries_of(enrich_max_age_days=2) == [by_level, by_time]


def test_a_threshold_is_asked_for_under_the_fields_escaped_name() -> None:
    (asked,) = queries_of(enrich_level_field="a-b@c", enrich_levels=">=17")
    assert asked == {
        "bool": {"should": [{"query_string": {"query": r"a\-b@c:>=17", "lenient": True}}]}
    }


def caps_of(**types: str) -> FieldCaps:
    """One index, called `i`, with these fields."""
    fields = {n.replace("__", "."): {type_: {"type": type_}} for n, type_ in types.items()}
    return FieldCaps(indices=["i"], fields=fields)


@pytest.mark.parametrize(
    ("schema", "types", "fault"),
    [
        (LOGLENS, {"level": "keyword"}, ""),
        (LOGLENS, {"level": "text"}, "level is mapped as text without level.keyword, so ERROR"),
        (LOGLENS, {"level": "text", "level__keyword": "keyword"}, ""),
        (LOGLENS, {"level": "long"}, "level is mapped as long, which holds no word such as ERROR"),
        (schema_of("loglens", ("50",)), {"level": "long"}, ""),
        (ECS, {"log__level": "text"}, ""),
        (ECS, {"log__level": "object"}, "log.level is mapped as object, which holds no word"),
        (ECS, {}, ""),
        (OTEL, {"severity__text": "keyword"}, ""),
        (OTEL, {"severity__text": "long", "severity__number": "long"}, ""),
        (OTEL, {"severity__number": "keyword"}, ""),
        (OTEL, {"severity__number": "boolean"}, "severity.number is mapped as boolean"),
        (schema_of("otel", (">=17",)), {"severity__number": "long"}, ""),
        (schema_of("otel", (">=17",)), {"severity__number": "keyword"},
         "severity.number is mapped as keyword, which cannot be compared as a number with >=17"),
        (AUTO, {"level": "long", "log__level": "keyword"}, ""),
        (AUTO, {"level": "long"}, "level is mapped as long"),
    ],
)  # fmt: skip
def test_level_that_cannot_be_searched_is_said(
    schema: Schema, types: dict[str, str], fault: str
) -> None:
    told = unreadable_levels(schema, caps_of(**types))
    assert told.get("i", "").startswith(fault) and bool(told) is bool(fault)


def test_unknown_schema_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(SettingsError, match="auto, ecs, fluent, loglens, otel"):
        load_settings(openai_api_key="k", enrich_schema="elastic")


def test_template_maps_the_fields_of_the_schema() -> None:
    fields = index_template(4, ["*_*"], OTEL)["template"]["mappings"]["properties"]
    assert fields["severity.text"] == {"type": "keyword"}
    assert fields["severity.number"] == {"type": "long"}
    assert fields["body"] == {"type": "text"} and fields["@timestamp"] == {"type": "date"}
    assert fields["log_vector"]["dimension"] == 4 and "level" not in fields
    anything = index_template(4, ["*_*"], AUTO)["template"]["mappings"]["properties"]
    assert all(name.startswith(("ai_", "log_vector")) for name in anything)


# -- docs/shapes.md


ROWS = {
    cells[1].split("`")[1]: cells[2:-1]
    for line in (ROOT / "docs/shapes.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| `") and len(cells := line.split("|")) > 5
}
QUERIES = {
    line.split("`")[1]: json.loads(line.split("`")[3])
    for line in (ROOT / "docs/shapes.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| `") and "terms" in line
}


@pytest.mark.parametrize("name", PRESETS)
def test_docs_name_the_fields_of_each_preset(name: str) -> None:
    shape = schema_of(name, ("ERROR",)).first
    title, *columns = (cell.strip() for cell in ROWS[name])
    named = [re.findall("`([^`]+)`", column) for column in columns]
    assert title.startswith(shape.title)
    assert [tuple(names) for names in named] == [
        shape.level_fields, shape.text_fields, (shape.timestamp_field,), shape.service_fields,
        shape.trace_fields,
    ]  # fmt: skip


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "loglens"])
def test_docs_count_what_a_run_finds(name: str) -> None:
    shape = schema_of(name, ("ERROR",)).first
    by_word = {"terms": {shape.level_field: list(shape.levels.words)}}
    by_number = {"terms": {shape.number_field: list(shape.levels.numbers)}}
    assert QUERIES[name] == [by_word, *([by_number] if shape.number_field else [])]

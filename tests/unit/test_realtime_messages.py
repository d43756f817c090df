"""What a message of the topic is: a wanted log, not ours, or poison; and that none breaks it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.realtime import messages
from enrich.realtime.log_times import LATEST, seconds_of
from enrich.realtime.messages import MAX_MESSAGE_BYTES, MessageReader, Poison, WantedLog
from enrich.schema import LOGLENS, PRESETS, Schema, schema_of

#: 2026-11-28 12:00:00 UTC.
NOON = 1795867200.0
#: Kafka's own time: a month before, so that it shows whose time was taken.
PRODUCED = NOON - 31 * 86_400

GOOD: dict[str, Any] = {
    "level": "ERROR",
    "document_id": "log-1",
    "safe_project_uuid": "shop_1",
    "project_uuid": "shop-1",
    "timestamp": "2026-11-28T12:00:00Z",
    "message": "disk is full",
}
TEXT = json.dumps(GOOD)
QUIET = TEXT.replace("ERROR", "INFO")
LOG = WantedLog(
    index="shop_1_2026_11", id="log-1", routing=None, log_time=NOON, source=TEXT.encode()
)


def reader(schema: Schema = LOGLENS) -> MessageReader:
    return MessageReader(
        schema,
        id_fields=("document_id", "_id", "log_id"),
        project_fields=("safe_project_uuid", "project_uuid"),
    )


READER = reader()

RULES = settings(deadline=None, derandomize=True, max_examples=200)


def read(log: Any, schema: Schema = LOGLENS, *, produced_at: float | None = PRODUCED) -> Any:
    value = log if isinstance(log, bytes | None) else json.dumps(log).encode()
    one = READER if schema is LOGLENS else reader(schema)
    assert not one.skips(value) or one.read(value, produced_at=produced_at) is None
    first = one.read(value, produced_at=produced_at)
    # What it remembers of levels changes nothing, and the quick answer is the same.
    assert one.read(value, produced_at=produced_at) == first
    assert first is None or not one.skips(value)
    return first


def without(*names: str, **changed: Any) -> dict[str, Any]:
    return {name: value for name, value in GOOD.items() if name not in names} | changed


def test_a_wanted_log_is_read_as_it_came() -> None:
    assert read(GOOD) == LOG
    spaced = json.dumps(GOOD, indent=2).encode() + b"\r\n"
    assert read(spaced) == replace(LOG, source=spaced)


# -- the level


@pytest.mark.parametrize("level", ["INFO", "error", "", None, 17, 1.5, True, {}, [], ["INFO"]])
def test_another_level_or_none_is_not_ours(level: Any) -> None:
    assert read(without(level=level)) is None
    assert read(without("level", log_level=level)) is None


def test_a_known_level_is_skipped_without_reading_more() -> None:
    one = reader()
    value = json.dumps(without(level="INFO")).encode()
    assert not one.skips(value) and one.read(value, produced_at=None) is None
    assert one.skips(value) and one.skips(b'{"x": [1, {"level": "ERROR"}], "level": "INFO"}')
    assert not one.skips(json.dumps(GOOD).encode())


def test_a_message_without_a_level_is_not_ours() -> None:
    assert read(without("level")) is None
    assert read({}) is None


@pytest.mark.parametrize(
    "log",
    [
        without("level", log_level="ERROR"),
        without(level=None, log_level="ERROR"),
        without(level="ERROR", log_level="INFO"),
        without(level=["INFO", "ERROR"]),
    ],
)
def test_log_level_is_another_name_of_the_level(log: dict[str, Any]) -> None:
    assert read(log).id == "log-1"


def test_log_level_does_not_overrule_the_level() -> None:
    assert read(without(level="INFO", log_level="ERROR")) is None


def test_log_level_is_no_level_where_the_schema_has_another() -> None:
    log = without("level", log_level="ERROR")
    for schema in (
        schema_of("loglens", ("ERROR",), level_field="severity"), schema_of("ecs", ("ERROR",)),
    ):  # fmt: skip
        assert read(log, schema) is None


def test_escapes_are_read() -> None:
    written = json.dumps(GOOD).replace('"level": "ERROR"', r'"l\u0065vel": "\u0045RROR"').encode()
    assert read(written) == replace(LOG, source=written)


@pytest.mark.parametrize("value", [1, 1.0, 1e0, True, "1", "1.0", "true"])
def test_numbers_that_are_equal_stay_apart(value: Any) -> None:
    # One reader for all: 1, 1.0 and true are the same key of a dict.
    schema = schema_of("loglens", ("1",))
    one = reader(schema)
    for before in (1, True, 1.0, "1", value):
        one.read(json.dumps({"level": before}).encode(), produced_at=PRODUCED)
    log = without(level=value)
    wanted = one.read(json.dumps(log).encode(), produced_at=PRODUCED) is not None
    assert wanted == schema.is_wanted(log)


#: The same log of each shape.
SHAPES: dict[str, dict[str, Any]] = {
    "loglens": {"level": "ERROR", "message": "m", "timestamp": "2026-11-28T12:00:00Z"},
    "ecs": {"log": {"level": "error"}, "message": "m", "@timestamp": "2026-11-28T12:00:00Z"},
    "otel": {
        "severity": {"text": "Error", "number": 17}, "body": "m",
        "@timestamp": "2026-11-28T12:00:00Z",
    },
    "otel-data-prepper": {
        "severityText": "ERROR", "severityNumber": 17, "body": "m", "time": "2026-11-28T12:00:00Z",
    },
    "fluent": {"level": "error", "log": "m\n", "@timestamp": "2026-11-28T12:00:00Z"},
}  # fmt: skip

_QUIET = {
    "level": "INFO", "log": {"level": "info"}, "severity": {"text": "Info", "number": 9},
    "severityText": "INFO", "severityNumber": 9,
}  # fmt: skip

ADDRESS = {"log_id": "log-1", "project_uuid": "Shop-1"}


def dotted(source: dict[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in source.items():
        if isinstance(value, dict):
            flat |= dotted(value, f"{before}{name}.")
        else:
            flat[before + name] = value
    return flat


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("chosen", ["itself", "auto"])
@pytest.mark.parametrize("form", ["nested", "dotted"])
def test_each_shape_is_read(name: str, chosen: str, form: str) -> None:
    schema = schema_of(name if chosen == "itself" else "auto", ("ERROR",))
    wanted = SHAPES[name] | ADDRESS
    quiet = {key: _QUIET.get(key, value) for key, value in wanted.items()}
    if name == "fluent":
        quiet["log"] = "m\n"
    if form == "dotted":
        wanted, quiet = dotted(wanted), dotted(quiet)
    found = read(wanted, schema)
    assert (found.index, found.id, found.log_time) == ("shop_1_2026_11", "log-1", NOON)
    assert read(quiet, schema) is None


def test_fields_of_ones_own_are_read() -> None:
    schema = schema_of(
        "ecs", ("ERROR",), level_field="app.event.severity", timestamp_field="app.at"
    )
    own = MessageReader(schema, id_fields=("app.event.id",), project_fields=("labels.project",))
    event = {"severity": "Error", "id": 7}
    for app in ({"app": {"event": event}}, {"app.event": event}, {"app": dotted({"event": event})}):
        app.setdefault("app.at", 1795867200)
        value = json.dumps(app | {"labels": {"project": "p"}}).encode()
        found = own.read(value, produced_at=None)
        assert isinstance(found, WantedLog)
        assert (found.index, found.id, found.log_time) == ("p_2026_11", "7", NOON)


@pytest.mark.parametrize("level", [17, "17", 17.5, 24, "24.0"])
def test_levels_may_be_numbers(level: Any) -> None:
    schema = schema_of("loglens", (">=17",))
    assert read(without(level=level), schema).id == "log-1"
    assert read(without(level=16.5), schema) is None


# -- id and routing


@pytest.mark.parametrize(
    ("ids", "found"),
    [
        ({"document_id": "a", "_id": "b", "log_id": "c"}, "a"),
        ({"_id": "b", "log_id": "c"}, "b"),
        ({"log_id": "c"}, "c"),
        ({"document_id": "", "log_id": "c"}, "c"),
        ({"document_id": None, "log_id": "c"}, "c"),
        ({"document_id": ["a"], "log_id": "c"}, "c"),
        ({"document_id": True, "log_id": "c"}, "c"),
        ({"log_id": 0}, "0"),
        ({"log_id": 2**70}, str(2**70)),
        ({"log_id": "한" * 170}, "한" * 170),
        ({"log_id": "x" * 512}, "x" * 512),
        ({"log_id": "../a?b=c&d #%2f"}, "../a?b=c&d #%2f"),
        ({}, Poison.ID_MISSING),
        ({"log_id": ""}, Poison.ID_MISSING),
        ({"log_id": None}, Poison.ID_MISSING),
        ({"log_id": 1.5}, Poison.ID_WRONG_TYPE),
        ({"log_id": {"a": 1}}, Poison.ID_WRONG_TYPE),
        ({"log_id": False}, Poison.ID_WRONG_TYPE),
        ({"log_id": "\ud800"}, Poison.ID_WRONG_TYPE),
        ({"log_id": "한" * 171}, Poison.ID_TOO_LONG),
        ({"log_id": 10**600}, Poison.ID_TOO_LONG),
        ({"document_id": "x" * 513, "log_id": "c"}, Poison.ID_TOO_LONG),
    ],
)
def test_the_id(ids: dict[str, Any], found: str | Poison) -> None:
    log = read(without("document_id", **ids))
    assert (log if isinstance(found, Poison) else log.id) == found


@pytest.mark.parametrize(
    ("routing", "found"), [("shard 1", "shard 1"), ("", None), (1, None), ("\ud800", None)]
)
def test_the_routing(routing: Any, found: str | None) -> None:
    assert read(without(_routing=routing)).routing == found


# -- project and month


@pytest.mark.parametrize(
    ("projects", "index"),
    [
        ({"safe_project_uuid": "a_1", "project_uuid": "b-1"}, "a_1_2026_11"),
        ({"project_uuid": "b-1"}, "b_1_2026_11"),
        ({"safe_project_uuid": None, "project_uuid": "b-1"}, "b_1_2026_11"),
        ({"project_uuid": "0F3A-BC"}, "0f3a_bc_2026_11"),
        ({"project_uuid": 42}, "42_2026_11"),
        ({"project_uuid": "eu.shop"}, "eu.shop_2026_11"),
        ({"project_uuid": "상점"}, "상점_2026_11"),
        ({"project_uuid": "x" * 247}, "x" * 247 + "_2026_11"),
        ({"project_uuid": "x" * 248}, Poison.PROJECT_TOO_LONG),
        ({"project_uuid": "한" * 83}, Poison.PROJECT_TOO_LONG),
        ({}, Poison.PROJECT_MISSING),
        ({"project_uuid": ""}, Poison.PROJECT_MISSING),
        # The first that is there counts, whatever it is.
        ({"safe_project_uuid": "", "project_uuid": "b"}, Poison.PROJECT_MISSING),
        ({"safe_project_uuid": "*", "project_uuid": "b"}, Poison.PROJECT_UNSAFE),
        ({"project_uuid": ["b"]}, Poison.PROJECT_WRONG_TYPE),
        ({"project_uuid": {"a": "b"}}, Poison.PROJECT_WRONG_TYPE),
        ({"project_uuid": True}, Poison.PROJECT_WRONG_TYPE),
        ({"project_uuid": 1.5}, Poison.PROJECT_WRONG_TYPE),
    ],
)
def test_the_index(projects: dict[str, Any], index: str | Poison) -> None:
    log = read(without("safe_project_uuid", "project_uuid", **projects))
    assert (log if isinstance(index, Poison) else log.index) == index


@pytest.mark.parametrize(
    "project",
    [
        "*", "shop*", "a,b", "a/b", "../a", ".kibana", "..", ".", "_all", "_", "-a", "+a", "a+b",
        "a b", " a", "a\t", "a\n", "a\x00", "a%2cb", "<a-{now/d}>", "a?b", "a#b", "a:b", "a\\b",
        'a"b', "a|b", "a>b", "a\u2028b", "a\u200bb", "\ud800", "-5", "a&b=c",
    ],
)  # fmt: skip
def test_a_hostile_project_never_names_an_index(project: str) -> None:
    assert read(without(safe_project_uuid=project)) == Poison.PROJECT_UNSAFE


@RULES
@given(st.text(max_size=300))
def test_an_index_name_is_one_that_opensearch_takes(project: str) -> None:
    found = read(without(safe_project_uuid=project))
    if isinstance(found, Poison):
        assert found.value.startswith("project_")
        return
    name = found.index
    assert name == name.lower() and name[0] not in "_-+." and len(name.encode()) <= 255
    assert not set(name) & set('\\/*?"<>| ,#:%')
    # It says no more and no less than the project.
    assert name.removesuffix("_2026_11") == project.replace("-", "_").lower()


@pytest.mark.parametrize(
    ("time", "index"),
    [
        # The month is that of UTC.
        ("2026-12-01T08:59:59+09:00", "shop_1_2026_11"),
        ("2026-12-01T09:00:00+09:00", "shop_1_2026_12"),
        ("2026-11-30T23:30:00-01:00", "shop_1_2026_12"),
        ("2026-12-31T23:59:59.999999999Z", "shop_1_2026_12"),
        ("1970-01-01T00:00:00Z", "shop_1_1970_01"),
    ],
)
def test_the_month_is_that_of_the_log_in_utc(time: str, index: str) -> None:
    assert read(without(timestamp=time)).index == index


# -- times


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (1795867200, NOON),
        (1795867200.25, NOON + 0.25),
        (1795867200250, NOON + 0.25),
        (1795867200250000, NOON + 0.25),
        (1795867200250000000, NOON + 0.25),
        ("1795867200", NOON),
        ("1795867200.25", NOON + 0.25),
        (" 1795867200250 ", NOON + 0.25),
        ("1795867200250000", NOON + 0.25),
        ("1795867200250000000", NOON + 0.25),
        ("2026-11-28T12:00:00Z", NOON),
        ("2026-11-28t12:00:00z", NOON),
        ("2026-11-28T12:00:00.25Z", NOON + 0.25),
        ("2026-11-28T12:00:00.250000000Z", NOON + 0.25),
        ("2026-11-28T12:00:00,250", NOON + 0.25),
        ("2026-11-28T21:00:00+09:00", NOON),
        ("2026-11-28T21:00:00+0900", NOON),
        ("2026-11-28T17:30:00.25+05:30", NOON + 0.25),
        ("2026-11-28T12:00:00", NOON),
        ("2026-11-28 12:00:00", NOON),
        ("2026/11/28 12:00:00", NOON),
        ("2026-11-28T12:00", NOON),
        ("2026-11-28", NOON - 43_200),
        ("20261128", NOON - 43_200),
        ("20261128T120000Z", NOON),
        (["2026-11-28T12:00:00Z"], NOON),
        # The clock of whoever wrote it is an hour ahead.
        (1795867200 + 3600, NOON + 3600),
        (0, 0.0),
    ],
)
def test_times_are_read(written: Any, seconds: float) -> None:
    assert read(without(timestamp=written)).log_time == pytest.approx(seconds, abs=1e-6)
    assert seconds_of(written) == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("9999-12-31T23:59:59Z", Poison.TIME_OUT_OF_RANGE),
        ("9999-12-31T23:59:59-14:00", Poison.TIME_OUT_OF_RANGE),
        ("0001-01-01T00:00:00+14:00", Poison.TIME_OUT_OF_RANGE),
        (253402300799, Poison.TIME_OUT_OF_RANGE),
        (253402300799000, Poison.TIME_OUT_OF_RANGE),
        ("253402300799000000", Poison.TIME_OUT_OF_RANGE),
        (2**64, Poison.TIME_OUT_OF_RANGE),
        ("1969-12-31T23:59:59Z", Poison.TIME_OUT_OF_RANGE),
        (-1, Poison.TIME_OUT_OF_RANGE),
        ("-1795867200", Poison.TIME_OUT_OF_RANGE),
        (LATEST, Poison.TIME_OUT_OF_RANGE),
        (10**400, Poison.TIME_UNREADABLE),
        ("yesterday", Poison.TIME_UNREADABLE),
        ("", Poison.TIME_UNREADABLE),
        ("2026", Poison.TIME_UNREADABLE),
        ("2026-13-01T00:00:00Z", Poison.TIME_UNREADABLE),
        ("nan", Poison.TIME_UNREADABLE),
        ("infinity", Poison.TIME_UNREADABLE),
        ("1" * 5000, Poison.TIME_UNREADABLE),
        (True, Poison.TIME_UNREADABLE),
        ([], Poison.TIME_UNREADABLE),
        ({"$date": 1795867200000}, Poison.TIME_UNREADABLE),
    ],
)
def test_nonsense_is_no_time(written: Any, code: Poison) -> None:
    assert read(without(timestamp=written)) == code


@pytest.mark.parametrize("log", [without("timestamp"), without(timestamp=None)])
def test_kafkas_time_stands_in_for_a_missing_one(log: dict[str, Any]) -> None:
    found = read(log)
    assert (found.index, found.log_time) == ("shop_1_2026_10", PRODUCED)
    assert read(log, produced_at=None) == Poison.TIME_MISSING
    assert read(log, produced_at=-0.001) == Poison.TIME_OUT_OF_RANGE
    assert read(log, produced_at=253402300799.0) == Poison.TIME_OUT_OF_RANGE


@RULES
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=70),
        lambda inner: st.lists(inner, max_size=2),
    )
)
def test_any_value_is_a_time_or_none(value: Any) -> None:
    assert isinstance(seconds_of(value), float | None)


@RULES
@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2099, 12, 31)))
def test_a_time_is_the_same_in_each_form(moment: datetime) -> None:
    moment = moment.replace(microsecond=0, tzinfo=UTC)
    at = moment.timestamp()
    assert seconds_of(moment.isoformat()) == at
    # Of times before 1978 the size of a number cannot tell its unit.
    if moment.year >= 1979:
        whole = int(at)
        for unit in (1, 10**3, 10**6, 10**9):
            assert seconds_of(whole * unit) == pytest.approx(at, abs=1e-3)
            assert seconds_of(str(whole * unit)) == pytest.approx(at, abs=1e-3)


# -- poison


def adding(text: str, more: str) -> bytes:
    """The log with another member, written as it is."""
    return f"{text[:-1]}, {more}}}".encode()


DEEP_ARRAYS = "[" * 5000 + "]" * 5000
DEEP_OBJECTS = '[{"a":' * 5000 + r'"]]}\"]"' + "}]" * 5000


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, Poison.TOMBSTONE),
        (b"", Poison.NOT_JSON),
        (b"\n", Poison.NOT_JSON),
        (b"ERROR disk is full", Poison.NOT_JSON),
        (TEXT[:-1].encode(), Poison.NOT_JSON),
        (TEXT.encode() + b"}", Poison.NOT_JSON),
        (TEXT.encode() * 2, Poison.NOT_JSON),
        (TEXT.replace("disk", "di\nsk").encode(), Poison.NOT_JSON),
        (TEXT.replace('"', "'").encode(), Poison.NOT_JSON),
        (b"\x00\x00\x00\x00\x01\x02Hdisk", Poison.OTHER_ENCODING),
        (b"\x1f\x8b\x08\x00\xff", Poison.OTHER_ENCODING),
        (TEXT.replace("full", "voll überall").encode("latin-1"), Poison.OTHER_ENCODING),
        (TEXT.encode("utf-16"), Poison.OTHER_ENCODING),
        (TEXT.encode("utf-16-le"), Poison.OTHER_ENCODING),
        (TEXT.encode("utf-16-be"), Poison.OTHER_ENCODING),
        (TEXT.encode("utf-32"), Poison.OTHER_ENCODING),
        (TEXT.replace("full", "\ud800").encode(errors="surrogatepass"), Poison.OTHER_ENCODING),
        (TEXT.encode("utf-8-sig"), Poison.BYTE_ORDER_MARK),
        (f"[{TEXT}]".encode(), Poison.NOT_AN_OBJECT),
        (b'"ERROR"', Poison.NOT_AN_OBJECT),
        (b"null", Poison.NOT_AN_OBJECT),
        (b"17", Poison.NOT_AN_OBJECT),
        (adding(TEXT, '"x": NaN'), Poison.NOT_A_NUMBER),
        (adding(TEXT, '"x": [-Infinity]'), Poison.NOT_A_NUMBER),
        (adding(TEXT, '"level": "ERROR"'), Poison.DUPLICATE_KEYS),
        (adding(TEXT, r'"x": [{"a": 1, "\u0061": 1}]'), Poison.DUPLICATE_KEYS),
        (f'{{"x": {DEEP_ARRAYS}, {TEXT[1:]}'.encode(), Poison.TOO_DEEP),
        (adding(TEXT, f'"x": {DEEP_OBJECTS}'), Poison.TOO_DEEP),
        (TEXT.replace("full", "f" * MAX_MESSAGE_BYTES).encode(), Poison.TOO_LARGE),
    ],
    ids=lambda value: value.value if isinstance(value, Poison) else "",
)
def test_poison_has_its_code(value: bytes | None, code: Poison) -> None:
    assert read(value) == code


def test_a_message_of_five_megabytes_is_read() -> None:
    log = without(message="x한" * 1_250_000)
    value = json.dumps(log, ensure_ascii=False).encode()
    assert len(value) > 5_000_000
    assert read(value) == replace(LOG, source=value)


@pytest.mark.parametrize(
    "value",
    [
        QUIET.replace("full", "voll überall").encode("latin-1"),
        QUIET.encode("utf-16"),
        QUIET.encode("utf-8-sig"),
        adding(QUIET, '"x": NaN'),
        adding(QUIET, '"x": 1, "x": 2'),
        QUIET.replace("full", r"\ud800").encode(),
        adding(QUIET, f'"x": {"9" * 5000}'),
        f'{{"x": {DEEP_ARRAYS}, {QUIET[1:]}'.encode(),
        adding(TEXT, f'"x": {DEEP_OBJECTS}, "level": "INFO"'),
        QUIET.replace("full", "f" * MAX_MESSAGE_BYTES).encode(),
        QUIET.replace("log-1", "").replace("shop", "*").replace("2026", "9999").encode(),
    ],
    ids=range(11),
)
def test_another_level_is_never_poison(value: bytes) -> None:
    assert read(value) is None


@pytest.mark.parametrize(
    "extra", [r'"\ud800"', "9" * 5000, "1e999", '{"a": {"a": 1}}', "[" * 200 + "]" * 200, '""']
)
def test_what_opensearch_takes_is_no_poison(extra: str) -> None:
    value = adding(TEXT, f'"x": {extra}')
    assert read(value) == replace(LOG, source=value)


def test_a_fault_of_the_reader_is_a_code_and_says_no_text(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> float:
        raise KeyError("disk is full")

    monkeypatch.setattr(messages, "seconds_of", broken)
    assert read(GOOD) == Poison.UNFORESEEN
    assert "KeyError" in caplog.text and "disk" not in caplog.text


def test_memory_that_is_used_up_is_no_fault_of_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> float:
        raise MemoryError

    monkeypatch.setattr(messages, "seconds_of", full)
    with pytest.raises(MemoryError):
        read(GOOD)


# -- whatever comes

SCHEMAS = [
    LOGLENS,
    *(schema_of(name, ("ERROR", ">=17")) for name in (*PRESETS, "auto")),
    schema_of("otel", ("1", "nan", "inf"), level_field="a.b"),
]

#: Keys that schemas look at, in pieces, so that they meet in each way.
_KEYS = st.sampled_from(
    [
        "level", "log", "log.level", "severity", "severity.text", "text", "number", "a", "b", "a.b",
        "severityText", "severityNumber", "message", "body", "timestamp", "@timestamp", "_id",
        "log_id", "document_id", "project_uuid", "_routing", "x",
    ]
)  # fmt: skip
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=70)
    | st.sampled_from(["ERROR", "error", "INFO", 17, "17", 1, 1.0, "1", 9]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=6,
)  # fmt: skip


@RULES
@given(st.sampled_from(SCHEMAS), st.dictionaries(_KEYS, _VALUES, max_size=8), st.booleans())
def test_the_level_is_what_the_schema_says(
    schema: Schema, log: dict[str, Any], escaped: bool
) -> None:
    value = json.dumps(log, ensure_ascii=escaped).encode(errors="surrogatepass")
    wanted = schema.is_wanted(json.loads(value))
    if schema is LOGLENS and log.get("level") is None:
        wanted = schema.is_wanted({"level": log.get("log_level")})
    assert (read(value, schema) is not None) == wanted


@RULES
@given(st.binary(max_size=200))
def test_any_bytes_are_read(value: bytes) -> None:
    assert isinstance(read(value), WantedLog | Poison | None)


@RULES
@given(st.data())
def test_a_good_message_that_was_damaged_is_read(data: st.DataObject) -> None:
    """A few bytes of a good log, overwritten, cut off or doubled."""
    value = bytearray(data.draw(st.sampled_from([TEXT, QUIET])).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(value)))
        length = data.draw(st.integers(0, 3))
        value[at : at + length] = data.draw(
            st.binary(max_size=3) | st.sampled_from([b'"', b"\\", b"{", b"}", b",", b"NaN", b"1"])
        )
    found = read(bytes(value))
    assert found != Poison.UNFORESEEN
    try:
        log = json.loads(bytes(value))
    except ValueError:
        # Not what it is to others, or not read by this program at all.
        assert found is None or isinstance(found, Poison)
    else:
        assert isinstance(found, Poison) or (found is not None) == LOGLENS.is_wanted(log)

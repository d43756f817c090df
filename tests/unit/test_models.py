"""Models: the chunk as a message of the broker, whatever arrives there; records and their line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.models import (
    MAX_CHUNK_DOCUMENTS,
    VECTOR_OUTCOMES,
    Chunk,
    LogLocation,
    Outcome,
    Reference,
    RunRecord,
    Totals,
    outcome_line,
    project_of,
)

REPEATABLE = settings(deadline=None, max_examples=100, derandomize=True)

NAMES = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)
ROUTINGS = st.none() | NAMES
NUMBERS = st.integers(0, 2**62)
REFERENCES = st.builds(Reference, NAMES, NAMES, ROUTINGS, NUMBERS, NUMBERS)
CHUNKS = st.builds(
    Chunk,
    id=st.from_regex(r"[0-9a-f]{12}:[0-9]{1,4}:[0-9]{1,4}", fullmatch=True),
    references=st.lists(REFERENCES, min_size=1, max_size=5).map(tuple),
    reusable=st.lists(st.builds(LogLocation, NAMES, NAMES, ROUTINGS), max_size=3).map(tuple),
    update_only=st.lists(NAMES, max_size=3).map(tuple),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
FIELDS = st.sampled_from(["id", "references", "donors", "update_only"])

GOOD: dict[str, Any] = {
    "id": "abc:1:0",
    "references": [["p_2026_01", "doc", None, 5, 1]],
    "donors": [["p_2026_01", "other", "r"]],
    "update_only": ["p_2026_01"],
}


@REPEATABLE
@given(CHUNKS)
def test_chunk_survives_the_broker(chunk: Chunk) -> None:
    assert Chunk.from_message(json.loads(json.dumps(chunk.to_message()))) == chunk


def test_run_is_named_in_the_chunks_id() -> None:
    assert Chunk.from_message(GOOD).run == "abc"


def accepted(message: Any) -> bool:
    """Whether a message is a chunk; anything but a chunk or a ValueError fails the test."""
    try:
        chunk = Chunk.from_message(message)
    except ValueError as error:
        assert str(error).startswith("not a chunk: ")
        assert error.__suppress_context__
        return False
    assert isinstance(chunk, Chunk)
    assert 1 <= len(chunk.references) <= MAX_CHUNK_DOCUMENTS
    assert chunk.id.count(":") == 2
    assert chunk.id.isprintable()
    assert Chunk.from_message(chunk.to_message()) == chunk
    return True


@REPEATABLE
@given(JSON)
def test_any_json_is_a_chunk_or_refused(message: Any) -> None:
    accepted(message)


@REPEATABLE
@given(st.dictionaries(FIELDS, JSON))
def test_any_value_of_a_known_field_is_taken_or_refused(changes: dict[str, Any]) -> None:
    accepted({**GOOD, **changes})


@REPEATABLE
@given(st.integers(0, 4), JSON)
def test_any_part_of_a_reference_is_taken_or_refused(place: int, value: Any) -> None:
    reference = [*GOOD["references"][0]]
    reference[place] = value
    accepted({**GOOD, "references": [reference]})


@pytest.mark.parametrize(
    "message",
    [
        None,
        "QQQ",
        [],
        {},
        b"QQQ",
        {**GOOD, "id": "QQQ"},
        {**GOOD, "id": "abc:1"},
        {**GOOD, "id": "abc:1:0:0"},
        {**GOOD, "id": "abc:1:0\n"},
        {**GOOD, "id": "abc:-1:0"},
        {**GOOD, "id": "abc:١:0"},
        {**GOOD, "id": "QQQ\nforged line:1:0"},
        {**GOOD, "id": "a" * 65 + ":1:0"},
        {**GOOD, "id": 5},
        {**GOOD, "references": []},
        {**GOOD, "references": None},
        {**GOOD, "references": "QQQ"},
        {**GOOD, "references": [["QQQ", "doc", None, 5]]},
        {**GOOD, "references": [["i", "doc", None, "QQQ", 1]]},
        {**GOOD, "references": [["i", "doc", None, 5.5, 1]]},
        {**GOOD, "references": [["i", "doc", 7, 5, 1]]},
        {**GOOD, "references": GOOD["references"] * (MAX_CHUNK_DOCUMENTS + 1)},
        {**GOOD, "references": [{"index": "QQQ", "id": "doc"}]},
        {**GOOD, "donors": ["QQQ"]},
        {**GOOD, "update_only": [5]},
        {**GOOD, "update_only": {"QQQ": "QQQ"}},
        {name: value for name, value in GOOD.items() if name != "id"},
        {name: value for name, value in GOOD.items() if name != "references"},
    ],
)
def test_message_that_is_no_chunk_is_refused_without_quoting_it(message: Any) -> None:
    with pytest.raises(ValueError, match=r"^not a chunk: ") as refused:
        Chunk.from_message(message)
    assert "QQQ" not in str(refused.value)


@pytest.mark.parametrize(
    "message",
    [
        GOOD,
        {**GOOD, "from_a_newer_version": {"anything": [1]}},
        {"id": "abc:1:0", "references": GOOD["references"]},
        {**GOOD, "references": [[*GOOD["references"][0], "from a newer version"]]},
        {**GOOD, "references": GOOD["references"] * MAX_CHUNK_DOCUMENTS},
    ],
)
def test_chunk_of_a_neighbouring_version_is_understood(message: Any) -> None:
    assert accepted(message)


def test_chunk_carries_references_and_no_text() -> None:
    assert set(Chunk.from_message(GOOD).to_message()) == {
        "id", "references", "donors", "update_only",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("index", "project"),
    [
        ("3f2a_11_2026_01", "3f2a_11"),
        ("a_b_c_1999_12", "a_b_c"),
        ("logs", "logs"),
        ("logs_2026_1", "logs_2026_1"),
        ("logs_2026_01_old", "logs_2026_01_old"),
        ("x_2025_01_2026_02", "x_2025_01"),
        (".ds-pay_core-000012", "pay_core"),
        (".ds-pay_2026_01-000001", "pay"),
        (".ds-pay_core", ".ds-pay_core"),
    ],
)
def test_project_is_the_index_without_its_month(index: str, project: str) -> None:
    assert project_of(index) == project


@pytest.mark.parametrize(
    ("outcomes", "line"),
    [
        ({}, "0 found: 0 failed"),
        ({"cached": 640, "embedded": 172}, "812 found: 172 embedded, 640 cached, 0 failed"),
        ({"failed": 2, "gone": 1}, "3 found: 1 gone, 2 failed"),
        ({"deferred": 4, "failed": 0, "reused": 0}, "4 found: 0 failed, 4 deferred"),
    ],
)
def test_one_human_line(outcomes: dict[str, int], line: str) -> None:
    assert outcome_line(outcomes) == line


OUTCOMES = st.dictionaries(st.sampled_from([o.value for o in Outcome]), st.integers(0, 10**6))


@REPEATABLE
@given(OUTCOMES)
def test_settled_is_the_sum_of_the_eight_outcomes(outcomes: dict[str, int]) -> None:
    assert RunRecord(run_id="r", **outcomes).settled == sum(outcomes.values())  # type: ignore[arg-type]
    assert outcome_line(outcomes).startswith(f"{sum(outcomes.values())} found: ")


def test_there_are_eight_outcomes_of_which_four_write_a_vector() -> None:
    assert len(Outcome) == 8
    assert set(VECTOR_OUTCOMES) == {"embedded", "duplicate", "cached", "reused"}


def test_rates_of_nothing_are_nought() -> None:
    assert RunRecord(run_id="r").rate_per_second == 0
    assert RunRecord(run_id="r", vectors_written=30, duration_seconds=4).rate_per_second == 7.5
    assert Totals().average_rate == 0
    assert Totals(vectors=30, seconds=4).average_rate == 7.5

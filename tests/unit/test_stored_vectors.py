"""Vectors read from logs: bit for bit, or not at all; one bad log spoils no other."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.errors import TransientError
from enrich.log_store import StoredVector, encode_vector
from enrich.log_store.stored_vectors import StoredVectors
from enrich.models import LogLocation


class Wire:
    """Stands for the connection: answers what it was given, keeps what it was sent."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.sent: list[Any] = []

    def request(self, method: str, path: str, body: Any = None, params: Any = None) -> str:
        self.sent.append((method, path, body))
        return self.answer


def reader(answer: str, dimensions: int = 2) -> StoredVectors:
    return StoredVectors(Wire(answer), dimensions)  # type: ignore[arg-type]


def read(*sources: str, dimensions: int = 2) -> list[StoredVector | None]:
    rows = ",".join(
        f'{{"_index":"p_2026_01","_id":"{n}","_seq_no":7,"found":true,"_source":{source}}}'
        for n, source in enumerate(sources)
    )
    donors = [LogLocation("p_2026_01", str(n), None) for n in range(len(sources))]
    return reader(f'{{"docs":[{rows}]}}', dimensions).read(donors)


def test_what_a_log_tells_of_its_vector() -> None:
    (stored,) = read(
        '{"message":"boom","log_vector":[1,-0.5],"ai_embedding_model":"m","n":[1,{"a":2}],'
        '"ai_embedding_dimensions":2,"ai_text_sha256":"ab"}'
    )
    assert stored is not None
    assert stored.vector.dtype == np.float32
    assert stored.vector.tolist() == [1.0, -0.5]
    told = (stored.message, stored.model, stored.dimensions, stored.fingerprint)
    assert told == ("boom", "m", 2, "ab")


@settings(deadline=None, max_examples=80, derandomize=True)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1).filter(any))
def test_vector_reads_back_the_same_bit_for_bit(numbers: list[float]) -> None:
    vector = np.array(numbers, np.float32)
    (stored,) = read(f'{{"log_vector":{encode_vector(vector).decode()}}}', dimensions=len(numbers))
    assert stored is not None
    assert stored.vector.tobytes() == vector.tobytes()


@pytest.mark.parametrize(
    "source",
    [
        *(
            f'{{"log_vector":{value}}}'
            for value in (
                "null", "[]", "[1]", "[1,2,3]", '"x"', '[1,"x"]', "{}", "[[1,2]]", "[0,0]",
                "[1e39,1]", "[1,null]", "7", '"\\ud83d"',
            )
        ),
        "{}",
        "null",
        "[]",
    ],
)  # fmt: skip
def test_log_without_a_whole_vector_gives_none_and_the_others_theirs(source: str) -> None:
    good = '{"log_vector":[0.5,0.25],"message":"half \\ud83d pair"}'
    one, other, third = read(good, source, good)
    assert one is not None and third is not None
    assert one.vector.tolist() == [0.5, 0.25]
    assert other is None


def test_fingerprint_that_is_no_text_is_none() -> None:
    (stored,) = read('{"log_vector":[1,2],"ai_text_sha256":["ab"]}')
    assert stored is not None
    assert stored.fingerprint == ""


def test_logs_that_are_gone_give_none_in_their_place() -> None:
    answer = (
        '{"docs":[{"_index":"a","_id":"1","found":true,"_source":{"log_vector":[1,2]}},'
        '{"_index":"a","_id":"2","found":false},'
        '{"_index":"b","_id":"3","error":{"type":"index_not_found_exception"}}]}'
    )
    wire = Wire(answer)
    donors = [LogLocation("a", "1", "r"), LogLocation("a", "2", None), LogLocation("b", "3", None)]
    first, *others = StoredVectors(wire, 2).read(donors)  # type: ignore[arg-type]
    assert first is not None
    assert others == [None, None]
    wanted = [
        {"_index": "a", "_id": "1", "routing": "r"},
        {"_index": "a", "_id": "2"},
        {"_index": "b", "_id": "3"},
    ]
    assert wire.sent == [("POST", "/_mget", {"docs": wanted})]


def test_nothing_to_read_asks_nothing() -> None:
    wire = Wire("")
    assert StoredVectors(wire, 2).read([]) == []  # type: ignore[arg-type]
    assert wire.sent == []


@pytest.mark.parametrize(
    "answer",
    ["", "{", "<html>", "[]", "null", '{"docs":5}', '{"docs":[]}', json.dumps({"docs": [{}, {}]})],
)
def test_cut_or_foreign_answer_is_transient(answer: str) -> None:
    with pytest.raises(TransientError):
        reader(answer).read([LogLocation("a", "1", None)])

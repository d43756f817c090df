"""Documents: all but our fields stays byte for byte; bulk answers are judged item by item."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from enrich.errors import TransientError
from enrich.log_store.connection import decode
from enrich.log_store.documents import (
    DROPPED,
    MAPPING_FULL,
    MAX_BODY_BYTES,
    MAX_BODY_DOCUMENTS,
    OUR_FIELDS,
    PIPELINE_MISSING,
    Addition,
    Document,
    Documents,
    Presence,
    Verdict,
    Write,
)
from enrich.log_store.refusals import RequestRefused
from enrich.models import Reference

REFERENCE = Reference("p_2026_01", "doc", None, 7, 2)
ADDED = {"ai_enrichment_status": "success", "ai_text_sha256": "ab"}
VECTOR = b"[0.5,0.25]"


class Wire:
    """Stands for the connection: answers what it was given, keeps what it was sent."""

    write_timeout = "15000ms"

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.sent: list[Any] = []

    def request(self, method: str, path: str, body: Any = None, params: Any = None) -> str:
        self.sent.append(body)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, str) else json.dumps(answer)

    def ask(self, type_: Any, method: str, path: str, body: Any = None, params: Any = None) -> Any:
        return decode(self.request(method, path, body, params), type_)


def on(wire: Wire) -> Documents:
    return Documents(wire)  # type: ignore[arg-type]


def mget(*sources: str) -> str:
    rows = ",".join(
        f'{{"_index":"p_2026_01","_id":"doc","_seq_no":7,"_primary_term":2,"found":true,"_source":{s}}}'
        for s in sources
    )
    return f'{{"docs":[{rows}]}}'


def read(source: str) -> Document:
    (document,) = on(Wire(mget(source))).read([REFERENCE])
    return document


def written(source: str, *, vector: bytes | None = VECTOR, by_update: bool = False) -> list[bytes]:
    """The lines of the bulk body that gives a document of this source its vector."""
    wire = Wire({"errors": False, "items": [{"index": {"status": 200}}]})
    write = Write(document=read(source), addition=Addition(ADDED, vector), by_update=by_update)
    assert on(wire).write([write]) == [(Verdict.WRITTEN, "")]
    body: bytes = wire.sent[0]
    assert body.endswith(b"\n")
    return body[:-1].split(b"\n")


SOURCES = [
    "{}",
    "{ }",
    '{"message":"boom"}',
    '  {"message":"boom"}  ',
    '{"a":1e400,"b":-1E-400,"c":1.0,"d":1.10,"e":0.1e1,"f":-0}',
    '{"big":123456789012345678901234567890,"long":9223372036854775808,"exact":0.1000000000000000055}',
    '{"message":"he said \\"log_vector\\": [1], and left","x":"\\\\"}',
    '{"message":"ends with a brace }","y":{"z":"}"}}',
    '{"my_log_vector":1,"log_vectors":[2],"x":{"log_vector":[3]},"ai_enriched":4}',
    '{"message":"\\ud55c\\uad6d\\uc5b4 한국어 😀 \\u0000 \\/ \u2028"}',
    '{"caf\\u00e9":1,"日本":2,"":3," ":4,"a.b":5}',
    '{"n":null,"t":true,"f":false,"l":[],"o":{},"nested":{"a":[{"b":[1,2,{"c":null}]}]}}',
    '{"level" : "ERROR" ,\t"message" : "x"}',
]
#: Sources that hold fields of ours from before, in any form.
MARKED = [
    '{"log_vector":null}',
    '{"log_vector":null,"message":"boom"}',
    '{"message":"boom","log_vector":null}',
    '{"message":"boom","log_vector":[1,2],"x":1e400}',
    '{"log\\u005fvector":null,"x":123456789012345678901234567890}',
    '{"ai_enrichment_status":"failed","ai_enrichment_error":"x","message":"\\u00e9"}',
    '{"ai_enriched_at":null,"a":{"ai_enriched_at":null,"q":"\\"}"},"ai_text_sha256":["x"]}',
]


def raw_fields(source: bytes | str) -> dict[str, bytes]:
    """Each field as it stands, but for line breaks between values, which a bulk cannot carry."""
    return {
        name: bytes(raw).replace(b"\n", b" ").replace(b"\r", b" ")
        for name, raw in msgspec.json.decode(source, type=dict[str, msgspec.Raw]).items()
    }


def assert_only_ours_changed(before: str, after: bytes) -> None:
    kept = {name: raw for name, raw in raw_fields(before).items() if name not in OUR_FIELDS}
    fields = raw_fields(after)
    assert {n: raw for n, raw in fields.items() if n not in OUR_FIELDS} == kept
    assert list(fields)[: len(kept)] == list(kept)
    assert fields["log_vector"] == VECTOR
    assert {n: json.loads(raw) for n, raw in fields.items() if n in ADDED} == ADDED
    # A doubled key would be refused by OpenSearch.
    pairs: list[tuple[str, Any]] = json.loads(after, object_pairs_hook=list)
    names = [name for name, _ in pairs]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("source", SOURCES)
def test_source_is_written_back_byte_for_byte(source: str) -> None:
    _, body = written(source)
    assert body.startswith(source.strip()[:-1].encode())
    assert_only_ours_changed(source, body)


@pytest.mark.parametrize("source", MARKED)
def test_own_fields_are_replaced_and_others_stay(source: str) -> None:
    assert_only_ours_changed(source, written(source)[1])


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\r", "\t", "\n\n  "])
@pytest.mark.parametrize("source", [*SOURCES, *MARKED])
def test_pretty_printed_source_becomes_one_line_of_the_body(source: str, separator: str) -> None:
    pretty = separator.join(["", "{", source.strip()[1:-1], "}", ""])
    action, body = written(pretty)
    assert json.loads(action)["index"]
    assert_only_ours_changed(pretty, body)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=10,
)
KEYS = st.text(max_size=8) | st.sampled_from([*sorted(OUR_FIELDS), "message", "log_vector "])


@settings(deadline=None, max_examples=80, derandomize=True)
@given(st.dictionaries(KEYS, VALUES, max_size=6), st.booleans(), st.sampled_from([None, 0, 2]))
def test_any_source_is_kept(source: dict[str, Any], ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(source, ensure_ascii=ascii_only, indent=indent)
    assert_only_ours_changed(text, written(text)[1])


def test_address_version_and_pipeline_are_told() -> None:
    document = Document(
        reference=Reference("p_2026_01", 'd"1', "tenant 5", 41, 3),
        presence=Presence.FOUND,
        fields={},
        raw=b"{}",
    )
    wire = Wire({"errors": False, "items": [{"index": {"status": 201}}]})
    on(wire).write([Write(document=document, addition=Addition(ADDED, VECTOR))])
    assert json.loads(wire.sent[0].split(b"\n")[0]) == {
        "index": {
            "_index": "p_2026_01", "_id": 'd"1', "routing": "tenant 5",
            "if_seq_no": 41, "if_primary_term": 3, "pipeline": "_none",
        }
    }  # fmt: skip


def test_half_a_surrogate_pair_costs_only_its_own_document_the_splice() -> None:
    half = '{"message":"half a pair \\ud83d here"}'
    wire = Wire(mget("{}", half), mget("{}"), mget(half))
    whole, broken = on(wire).read([REFERENCE, REFERENCE])
    assert whole.raw is not None
    assert broken.raw is None
    assert broken.value("message") == "half a pair \ud83d here"
    # It is left to OpenSearch, which can merge what cannot be decoded here.
    action, body = written(half)
    assert "update" in json.loads(action)
    assert json.loads(body) == {"doc": {"log_vector": [0.5, 0.25], **ADDED}}


def test_update_sends_our_fields_only_and_no_pipeline() -> None:
    action, body = written('{"message":"boom"}', by_update=True)
    assert json.loads(action) == {
        "update": {"_index": "p_2026_01", "_id": "doc", "if_seq_no": 7, "if_primary_term": 2}
    }
    assert json.loads(body) == {"doc": {"log_vector": [0.5, 0.25], **ADDED}}


def test_mark_without_a_vector_writes_none() -> None:
    _, body = written('{"message":""}', vector=None)
    assert json.loads(body) == {"message": "", **ADDED}


def test_fields_are_decoded_as_they_are() -> None:
    document = read('{"message":"half \\ud83d pair","level":"ERROR","n":null,"deep":{"a":[1]}}')
    assert document.value("message") == "half \ud83d pair"
    assert document.value("level") == "ERROR"
    assert document.value("n") is None
    assert document.value("absent") is None
    assert document.value("deep") == {"a": [1]}


# -- reading


def test_reading_asks_with_routing_and_keeps_the_order() -> None:
    wire = Wire(
        '{"docs":[{"_index":"a","_id":"1","_seq_no":3,"_primary_term":1,"found":true,'
        '"_source":{"message":"x"}},{"_index":"a","_id":"2","found":false},'
        '{"_index":"b","_id":"3","error":{"type":"index_not_found_exception"}},'
        '{"_index":"c","_id":"4","error":{"type":"index_closed_exception"}},'
        '{"_index":"d","_id":"5","error":{"type":"no_shard_available_action_exception"}}]}'
    )
    documents = on(wire).read(
        [
            Reference("a", "1", "r", 2, 1),
            Reference("a", "2", None, 1, 1),
            Reference("b", "3", None, 1, 1),
            Reference("c", "4", None, 1, 1),
            Reference("d", "5", None, 1, 1),
        ]
    )
    assert wire.sent[0]["docs"][:2] == [
        {"_index": "a", "_id": "1", "routing": "r"},
        {"_index": "a", "_id": "2"},
    ]
    assert [document.presence for document in documents] == [
        Presence.FOUND, Presence.GONE, Presence.GONE, Presence.UNREADABLE, Presence.UNREADABLE,
    ]  # fmt: skip
    # The version read just now, not the one it was found at.
    assert documents[0].reference == Reference("a", "1", "r", 3, 1)


def test_a_log_that_may_not_be_read_says_which_right_is_missing() -> None:
    reason = "no permissions for [indices:data/read/mget[shard]] and User [name=secret, roles=[]]"
    error = {"type": "security_exception", "reason": reason}
    wire = Wire(json.dumps({"docs": [{"_index": "a", "_id": "1", "error": error}]}))
    (found,) = on(wire).read([REFERENCE])
    assert found.presence is Presence.UNREADABLE
    assert "(403: indices:data/read/mget[shard]): give OPENSEARCH_USER the role" in found.forbidden
    assert "secret" not in found.forbidden


def test_nothing_to_read_or_write_asks_nothing() -> None:
    assert on(Wire()).read([]) == []
    assert on(Wire()).write([]) == []


@pytest.mark.parametrize("answer", ["", "{", "<html>", "[]", "null", '{"docs":5}', mget("{}")[:-9]])
def test_cut_or_foreign_answer_is_transient(answer: str) -> None:
    with pytest.raises(TransientError):
        on(Wire(answer)).read([REFERENCE])
    write = Write(document=read("{}"), addition=Addition(ADDED, VECTOR))
    with pytest.raises(TransientError):
        on(Wire(answer)).write([write])


# -- judging


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [
        ("version_conflict_engine_exception", Verdict.CONFLICT),
        ("document_missing_exception", Verdict.GONE),
        ("index_not_found_exception", Verdict.GONE),
        ("cluster_block_exception", Verdict.BLOCKED),
        ("index_closed_exception", Verdict.BLOCKED),
        ("security_exception", Verdict.BLOCKED),
        ("es_rejected_execution_exception", Verdict.OVERLOADED),
        ("opensearch_rejected_execution_exception", Verdict.OVERLOADED),
        ("circuit_breaking_exception", Verdict.OVERLOADED),
        ("unavailable_shards_exception", Verdict.OVERLOADED),
        ("node_closed_exception", Verdict.OVERLOADED),
        ("process_cluster_event_timeout_exception", Verdict.OVERLOADED),
        ("mapper_parsing_exception", Verdict.REFUSED),
        ("strict_dynamic_mapping_exception", Verdict.REFUSED),
        ("illegal_argument_exception", Verdict.REFUSED),
        # Never known, never held against the log.
        ("an_exception_of_a_later_version", Verdict.OVERLOADED),
        ("", Verdict.OVERLOADED),
    ],
)
@pytest.mark.parametrize("status", [400, 403, 404, 409, 429, 500, 503])
def test_item_is_judged_by_its_errors_type_and_not_by_status(
    kind: str, verdict: Verdict, status: int
) -> None:
    item = {"index": {"status": status, "error": {"type": kind}}}
    wire = Wire({"errors": True, "items": [item]})
    write = Write(document=read("{}"), addition=Addition(ADDED, VECTOR))
    assert on(wire).write([write]) == [(verdict, kind)]


@pytest.mark.parametrize(
    ("cause", "verdict"),
    [
        ("knn_circuit_breaker_exception", Verdict.OVERLOADED),
        ("illegal_state_exception", Verdict.OVERLOADED),
        ("number_format_exception", Verdict.REFUSED),
        ("illegal_argument_exception", Verdict.REFUSED),
    ],
)
def test_a_parsers_error_for_what_is_no_fault_of_the_document_passes(
    cause: str, verdict: Verdict
) -> None:
    error = {"type": "mapper_parsing_exception", "caused_by": {"type": cause}}
    wire = Wire({"errors": True, "items": [{"index": {"status": 400, "error": error}}]})
    write = Write(document=read("{}"), addition=Addition(ADDED, VECTOR))
    assert on(wire).write([write]) == [(verdict, "mapper_parsing_exception")]


@pytest.mark.parametrize(
    ("kind", "reason", "told"),
    [
        (
            "validation_exception",
            "Operation [INDEX] is not allowed as setting `index.append_only.enabled` is enabled",
            "append_only",
        ),
        ("illegal_argument_exception", "pipeline with id [p] does not exist", PIPELINE_MISSING),
        ("illegal_argument_exception", "Limit of total fields [9] has been exceeded", MAPPING_FULL),
    ],
)
def test_what_is_refused_for_all_of_an_index_is_no_fault_of_the_log(
    kind: str, reason: str, told: str
) -> None:
    error = {"type": kind, "reason": reason}
    wire = Wire({"errors": True, "items": [{"index": {"status": 400, "error": error}}]})
    write = Write(document=read("{}"), addition=Addition(ADDED, VECTOR))
    assert on(wire).write([write]) == [(Verdict.BLOCKED, told)]


def test_a_write_that_a_pipeline_dropped_was_not_written() -> None:
    dropped = {"errors": False, "items": [{"index": {"status": 200, "result": "noop"}}]}
    write = Write(document=read("{}"), addition=Addition(ADDED, VECTOR))
    assert on(Wire(dropped)).write([write]) == [(Verdict.BLOCKED, DROPPED)]
    # An update that finds everything as it should be has nothing to do.
    same = {"errors": False, "items": [{"update": {"status": 200, "result": "noop"}}]}
    write = Write(document=read("{}"), addition=Addition(ADDED, VECTOR), by_update=True)
    assert on(Wire(same)).write([write]) == [(Verdict.WRITTEN, "")]


def test_one_index_of_which_a_part_is_hidden_does_not_block_the_others() -> None:
    hidden = RequestRefused("refused", "security_exception", 500)
    fine = {"errors": False, "items": [{"update": {"status": 200}}]}
    writes = [
        Write(document=read("{}"), addition=Addition(ADDED, VECTOR), by_update=True)
        for _ in range(2)
    ]
    assert on(Wire(hidden, hidden, fine)).write(writes) == [
        (Verdict.BLOCKED, "security_exception"),
        (Verdict.WRITTEN, ""),
    ]


@settings(deadline=None, max_examples=100, derandomize=True)
@given(st.text(max_size=30), st.integers(200, 599))
def test_unknown_trouble_never_marks_a_log(kind: str, status: int) -> None:
    item = {"update": {"status": status, "error": {"type": kind}}}
    write = Write(document=read("{}"), addition=Addition(ADDED, VECTOR))
    ((verdict, _),) = on(Wire({"errors": True, "items": [item]})).write([write])
    assert verdict in (Verdict.OVERLOADED, Verdict.CONFLICT) or kind.endswith("_exception")
    assert verdict is not Verdict.WRITTEN


def test_error_status_without_an_error_is_not_taken_for_written() -> None:
    wire = Wire({"errors": False, "items": [{"index": {"status": 503}}]})
    write = Write(document=read("{}"), addition=Addition(ADDED, VECTOR))
    assert on(wire).write([write]) == [(Verdict.OVERLOADED, "")]


BULK = json.dumps(
    {
        "errors": True,
        "items": [
            {"index": {"status": 200}},
            {"index": {"status": 400, "error": {"type": "mapper_parsing_exception"}}},
        ],
    }
)


@settings(deadline=None, max_examples=300, derandomize=True)
@example('{"errors":false,"items":[{},{}]}')
@given(
    st.text(max_size=60)
    | st.tuples(st.integers(0, len(BULK)), st.integers(0, 9), st.text(max_size=3)).map(
        lambda cut: BULK[: cut[0]] + cut[2] + BULK[cut[0] + cut[1] :]
    )
)
def test_any_bulk_answer_is_judged_item_by_item_or_tried_again(answer: str) -> None:
    writes = [Write(document=read("{}"), addition=Addition(ADDED, VECTOR))] * 2
    try:
        verdicts = on(Wire(answer)).write(writes)
    except TransientError:
        return
    assert len(verdicts) == 2
    # Whatever was changed on the way: only a whole success is taken for one.
    assert verdicts[1][0] is not Verdict.WRITTEN or '"error"' not in answer


@pytest.mark.parametrize("items", [0, 1, 3])
def test_bulk_answer_of_another_length_is_not_trusted(items: int) -> None:
    wire = Wire({"errors": False, "items": [{"index": {"status": 200}}] * items})
    writes = [Write(document=read("{}"), addition=Addition(ADDED, VECTOR))] * 2
    with pytest.raises(TransientError):
        on(wire).write(writes)


def test_block_of_the_whole_request_blocks_each_of_its_documents() -> None:
    wire = Wire(RequestRefused("refused", "cluster_block_exception", 403))
    writes = [Write(document=read("{}"), addition=Addition(ADDED, VECTOR))] * 3
    assert on(wire).write(writes) == [(Verdict.BLOCKED, "cluster_block_exception")] * 3


# -- bodies


class Bulk(Wire):
    """Takes every item and answers as many, in order."""

    def request(self, method: str, path: str, body: Any = None, params: Any = None) -> str:
        self.sent.append(body)
        count = body.count(b"\n") // 2
        items = [{"index": {"status": 200}}] * count
        return orjson.dumps({"errors": False, "items": items}).decode()


def sized(number: int, size: int) -> Write:
    raw = b'{"message":"' + b"x" * size + b'"}'
    document = Document(
        reference=Reference("i_2026_01", str(number), None, number, 1),
        presence=Presence.FOUND,
        fields=msgspec.json.decode(raw, type=dict[str, msgspec.Raw]),
        raw=raw,
    )
    return Write(document=document, addition=Addition(ADDED, VECTOR))


@pytest.mark.parametrize(
    ("sizes", "bodies"),
    [
        ([10] * MAX_BODY_DOCUMENTS, 1),
        ([10] * (MAX_BODY_DOCUMENTS + 1), 2),
        ([MAX_BODY_BYTES // 3] * 4, 2),
        ([MAX_BODY_BYTES * 2], 1),
        ([10, MAX_BODY_BYTES * 2, 10], 3),
    ],
)
def test_bodies_are_bounded_and_in_order(sizes: list[int], bodies: int) -> None:
    wire = Bulk()
    assert len(on(wire).write([sized(n, size) for n, size in enumerate(sizes)])) == len(sizes)
    assert len(wire.sent) == bodies
    ids = []
    for body in wire.sent:
        rows = body.split(b"\n")[:-1:2]
        ids += [json.loads(row)["index"]["_id"] for row in rows]
        assert len(rows) <= MAX_BODY_DOCUMENTS
        assert len(body) <= MAX_BODY_BYTES or len(rows) == 1
    assert ids == [str(number) for number in range(len(sizes))]

"""Whether a write would be whole: what each answer of OpenSearch says for or against it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from enrich.log_store import wholeness
from enrich.log_store.connection import decode
from enrich.log_store.coverage import NO_SHARD, Counted, Gaps
from enrich.log_store.documents import Addition, Document, Presence
from enrich.log_store.pages import Hit, IndexPage
from enrich.log_store.preflight import Readiness
from enrich.log_store.refusals import RequestRefused, RightMissing
from enrich.log_store.wholeness import (
    ALTERED,
    PARTLY_HIDDEN,
    Item,
    Trial,
    Wholeness,
    may_not_write,
    objection,
)
from enrich.models import Reference
from enrich.settings import load_settings

CONFLICT = {"status": 409, "error": {"type": "version_conflict_engine_exception"}}
SAME = {"status": 200, "result": "noop"}
DIFFERS = {
    "status": 400,
    "error": {
        "type": "illegal_argument_exception",
        "caused_by": {
            "type": "script_exception",
            "caused_by": {"type": "unsupported_operation_exception"},
        },
    },
}


def refused(kind: str, status: int = 400, reason: str = "", cause: str = "") -> dict[str, Any]:
    error: dict[str, Any] = {"type": kind, "reason": reason}
    if cause:
        error["caused_by"] = {"type": cause}
    return {"status": status, "error": error}


HIDDEN = refused("security_exception", 500)
MAPPER = refused("mapper_parsing_exception")
APPEND = "Operation [UPDATE] is not allowed as setting `index.append_only.enabled` is enabled"


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (CONFLICT, ""),
        (SAME, ""),
        (refused("document_missing_exception", 404), ""),
        (refused("index_not_found_exception", 404), ""),
        (DIFFERS, ALTERED),
        # Scripts that are not allowed, or that fail, compare nothing.
        (refused("illegal_argument_exception", reason="cannot execute [inline] scripts"), ""),
        (refused("illegal_argument_exception", cause="script_exception"), ""),
        (HIDDEN, PARTLY_HIDDEN),
        (refused("security_exception", 403), may_not_write(())),
        (refused("cluster_block_exception", 429), "takes no writes now"),
        (refused("validation_exception", reason=APPEND), "index.append_only.enabled is set"),
        (refused("unavailable_shards_exception", 503), "wait_for_active_shards"),
        (
            refused("mapper_parsing_exception", cause="knn_circuit_breaker_exception"),
            "knn.circuit_breaker.triggered",
        ),
        (
            refused(
                "illegal_argument_exception",
                reason="Limit of total fields [9] has been exceeded",
            ),
            "Limit of total fields [9] has been exceeded",
        ),
        (refused("index_closed_exception"), "a write would be refused (index_closed_exception)"),
        (refused("an_exception_of_a_later_version"), "would be refused (an_exception_of"),
        ({"status": 503}, "would be refused (503)"),
    ],
)
def test_an_answer_is_read_for_what_it_says_of_the_index(item: Any, words: str) -> None:
    told = objection(decode(json.dumps(item), Item))
    assert words in told if words else told == ""


class Cluster:
    """Results each line of a bulk as its index was told to; keeps the lines."""

    def __init__(self, **answers: Callable[[str, dict[str, Any]], Any]) -> None:
        self.answers = answers
        self.bulks: list[list[Any]] = []

    def ask(self, type_: Any, method: str, path: str, body: Any = None, params: Any = None) -> Any:
        lines = [json.loads(line) for line in body.splitlines()]
        self.bulks.append(lines)
        items = []
        for action, content in zip(lines[::2], lines[1::2], strict=True):
            ((op, where),) = action.items()
            answer = self.answers[where["_index"]](op, {**where, "content": content})
            if isinstance(answer, Exception):
                raise answer
            items.append({op: answer})
        return decode(json.dumps({"items": items}), type_)


def healthy(op: str, line: dict[str, Any]) -> Any:
    return SAME if "script" in line["content"] else CONFLICT


def on(cluster: Cluster) -> Wholeness:
    settings = load_settings(_env_file=None, openai_api_key="k", embedding_dimensions=4)
    return Wholeness(cluster, None, None, None, settings)  # type: ignore[arg-type]


def document(index: str, id: str = "1", raw: bytes | None = b'{"a":\n1.0}') -> Document:
    return Document(
        reference=Reference(index, id, "r", 7, 2),
        presence=Presence.FOUND,
        fields=msgspec.json.decode(raw or b"{}", type=dict[str, msgspec.Raw]),
        raw=raw,
    )


def trial(index: str, id: str = "1", **other: Any) -> Trial:
    return Trial(document=document(index, id), addition=Addition({"ai": 1}, b"[1,0,0,0]"), **other)


def test_no_line_of_a_trial_can_change_a_document() -> None:
    cluster = Cluster(a=healthy, b=healthy)
    assert on(cluster).objections([trial("a"), trial("b", by_update=True)]) == {}
    (lines,) = cluster.bulks
    assert [next(iter(action)) for action in lines[::2]] == ["update", "update", "index"] + [
        "update"
    ] * 2
    for action, content in zip(lines[::2], lines[1::2], strict=True):
        ((op, where),) = action.items()
        assert where["routing"] == "r"
        if "script" in content:
            assert (where["if_seq_no"], where["if_primary_term"]) == (7, 2)
            assert "ctx.op = 'none'" in content["script"]["source"]
            assert content["script"]["params"] == {"source": {"a": 1.0}}
        else:
            assert where["if_seq_no"] == where["if_primary_term"] == 2**62
        if op == "index":
            assert where["pipeline"] == "_none"
            assert content == {"a": 1.0, "log_vector": [1, 0, 0, 0], "ai": 1}


def test_one_document_that_cannot_be_sent_back_is_narrowed_down() -> None:
    def deep(op: str, line: dict[str, Any]) -> Any:
        if "script" in line["content"] or op == "index":
            return RequestRefused("refused", "parsing_exception", 400)
        return CONFLICT

    def hidden(op: str, line: dict[str, Any]) -> Any:
        return RequestRefused("refused", "security_exception", 500)

    cluster = Cluster(a=healthy, b=deep, c=healthy, d=hidden, e=healthy)
    assert on(cluster).objections([trial(i) for i in "abcde"]) == {"d": PARTLY_HIDDEN}


def test_what_is_too_large_for_a_proxy_is_no_objection() -> None:
    def narrow(op: str, line: dict[str, Any]) -> Any:
        return RequestRefused("refused", "", 413) if op == "index" else healthy(op, line)

    assert on(Cluster(a=narrow)).objections([trial("a")]) == {}
    always = Cluster(a=lambda op, line: RequestRefused("refused", "", 413))
    assert on(always).objections([trial("a")]) == {}


def test_no_right_to_write_at_all_is_said_of_each() -> None:
    cluster = Cluster(a=lambda op, line: RightMissing("403"))
    assert on(cluster).objections([trial("a")]) == {"a": may_not_write(())}


def test_one_log_that_the_mapping_refuses_says_nothing_of_its_index() -> None:
    def poisonous(op: str, line: dict[str, Any]) -> Any:
        return MAPPER if op == "index" and line["_id"] != "3" else healthy(op, line)

    cluster = Cluster(a=poisonous)
    whole = on(cluster)
    assert whole.objections([trial("a", "1"), trial("a", "2"), trial("a", "3")]) == {}
    assert whole.objections([trial("a", "1"), trial("a", "2")]) == {}
    told = whole.objections([trial("a", "1"), trial("a", "2"), trial("a", "4")])
    assert "each of 3 logs tried would be refused (mapper_parsing_exception)" in told["a"]
    # Under a strict mapping it may hold for the logs that were tried, and for no other.
    strict = refused("strict_dynamic_mapping_exception")
    whole = on(Cluster(a=lambda op, line: strict if op == "index" else healthy(op, line)))
    assert whole.objections([trial("a", str(n)) for n in range(3)]) == {}


def test_an_overload_is_waited_for_and_then_left_to_the_next_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wholeness.time, "sleep", lambda seconds: None)
    busy = refused("opensearch_rejected_execution_exception", 429)
    answers = [busy, *[CONFLICT] * 5]
    assert on(Cluster(a=lambda op, line: answers.pop(0))).objections([trial("a")]) == {}
    told = on(Cluster(a=lambda op, line: busy, b=healthy)).objections([trial("a"), trial("b")])
    assert told.keys() == {"a"}
    assert "cannot be known now" in told["a"]


def test_what_was_whole_a_moment_ago_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(wholeness.time, "monotonic", lambda: now[0])
    cluster = Cluster(a=healthy, b=lambda op, line: HIDDEN)
    whole = on(cluster)
    read = [document("a", str(n)) for n in range(9)] + [document("b"), document("b", raw=None)]
    assert whole.doubts(read) == {"b": PARTLY_HIDDEN}
    assert whole.doubts(read) == {"b": PARTLY_HIDDEN}
    tried = [{next(iter(a.values()))["_index"] for a in lines[::2]} for lines in cluster.bulks]
    assert tried == [{"a", "b"}, {"b"}]
    now[0] += wholeness.VOUCHED_SECONDS
    whole.doubts(read)
    assert {next(iter(a.values()))["_index"] for a in cluster.bulks[-1][::2]} == {"a", "b"}


def test_nothing_to_try_asks_nothing() -> None:
    cluster = Cluster()
    assert on(cluster).objections([]) == on(cluster).doubts([]) == {}
    assert cluster.bulks == []


# -- before a run


class Shelf:
    """Stands for finder and documents: a few logs of each index."""

    def __init__(self, **hits: list[Hit]) -> None:
        self.hits = hits
        self.read_ids: list[str] = []
        self.vectors: set[str] = set()
        self.unread: dict[str, str] = {}
        self.asked: list[int] = []

    def newest(self, sizes: dict[str, int], unsorted: frozenset[str]) -> list[IndexPage]:
        self.asked += sizes.values()
        return [IndexPage(index=name, hits=self.hits[name][:n]) for name, n in sizes.items()]

    def indices_with_vectors(self, indices: list[str]) -> Counted[set[str]]:
        return Counted(self.vectors.intersection(indices), Gaps(indices=self.unread))

    def read(self, references: list[Reference]) -> list[Document]:
        self.read_ids += [reference.id for reference in references]
        return [document(reference.index, reference.id) for reference in references]


def hits(index: str, count: int, message: str | None = "x", size: int = 10) -> list[Hit]:
    return [
        Hit(reference=Reference(index, f"{n}", None, 7, 2), message=message, size=size)
        for n in range(count)
    ]


def surveyed(shelf: Shelf, cluster: Cluster, **ready: Any) -> dict[str, str]:
    settings = load_settings(_env_file=None, openai_api_key="k", embedding_dimensions=4)
    whole = Wholeness(cluster, shelf, shelf, shelf, settings)  # type: ignore[arg-type]
    found = Readiness(**{"skipped": {}, "update_only": [], "lacking": {}, **ready})
    return whole.survey(list(shelf.hits), found, frozenset())


def test_the_vector_is_tried_on_one_log_and_on_more_only_where_that_is_refused() -> None:
    def poisonous(op: str, line: dict[str, Any]) -> Any:
        return MAPPER if op == "index" and line["_id"] == "0" else healthy(op, line)

    cluster = Cluster(a=healthy, b=poisonous)
    assert surveyed(Shelf(a=hits("a", 9), b=hits("b", 9)), cluster) == {}
    first, second = cluster.bulks
    tried = [next(iter(a.values()))["_index"] for a in first[::2] if "index" in a]
    assert tried == ["a", "b"], "a trial of a vector costs the most"
    assert sum("index" in action for action in second[::2]) == 3
    always = Cluster(a=lambda op, line: MAPPER if op == "index" else healthy(op, line))
    assert "each of 3 logs" in surveyed(Shelf(a=hits("a", 9)), always)["a"]


def test_nothing_is_mapped_by_a_trial_and_no_pipeline_runs() -> None:
    cluster = Cluster(a=healthy, b=healthy)
    shelf = Shelf(a=hits("a", 1), b=hits("b", 1))
    assert surveyed(shelf, cluster, lacking={"a": ["log_vector"]}, update_only=["b"]) == {}
    (lines,) = cluster.bulks
    written = [c for a, c in zip(lines[::2], lines[1::2], strict=True) if "index" in a]
    assert written == [{"a": 1.0}]


def test_a_log_that_is_too_large_is_not_read_for_a_trial() -> None:
    shelf = Shelf(a=hits("a", 3, size=10**9))
    assert surveyed(shelf, Cluster(a=lambda op, line: HIDDEN)) == {"a": PARTLY_HIDDEN}
    assert shelf.read_ids == []


@pytest.mark.parametrize(
    ("count", "message", "textless", "vectors", "skipped"),
    [
        (10, None, False, False, True),
        (10, " \n", False, False, True),
        (10, "x", True, False, False),
        # Too few to tell a wrong field from wrong logs, unless no text can be there.
        (9, None, False, False, False),
        (1, None, True, False, True),
        # Others of this index had a text once.
        (10, None, True, True, False),
    ],
)
def test_the_wrong_field_is_told_from_wrong_logs(
    count: int, message: str | None, textless: bool, vectors: bool, skipped: bool
) -> None:
    shelf = Shelf(a=hits("a", count, message))
    shelf.vectors = {"a"} if vectors else set()
    told = surveyed(shelf, Cluster(a=healthy), textless=frozenset("a" if textless else ""))
    assert bool(told) is skipped
    assert all("has a text in `message`" in reason for reason in told.values())


def test_what_cannot_be_searched_for_vectors_is_not_said_to_have_none() -> None:
    shelf = Shelf(a=hits("a", 10, None))
    shelf.unread = {"a": NO_SHARD}
    assert surveyed(shelf, Cluster(a=healthy)) == {"a": NO_SHARD}


def test_small_windows_are_kept() -> None:
    shelf = Shelf(a=hits("a", 9), b=hits("b", 9))
    surveyed(shelf, Cluster(a=healthy, b=healthy), windows={"a": 2})
    assert shelf.asked == [2, wholeness.LOOKED_AT]


def test_an_index_whose_logs_may_not_be_read_is_refused_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shelf = Shelf(a=hits("a", 2), b=hits("b", 2))
    read = shelf.read

    def partly(references: list[Reference]) -> list[Document]:
        hidden = {"presence": Presence.UNREADABLE, "forbidden": "may not read its logs"}
        return [
            msgspec.structs.replace(each, **(hidden if each.reference.index == "a" else {}))
            for each in read(references)
        ]

    monkeypatch.setattr(shelf, "read", partly)
    assert surveyed(shelf, Cluster(b=healthy)) == {"a": "may not read its logs"}

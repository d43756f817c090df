"""Groups of logs: which texts belong together, what is counted of them, and what is not shown."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from enrich.analysis.grouping import groups_of
from enrich.api.groups import grouped
from enrich.log_store import LogStore
from enrich.log_store.connection import Connection
from enrich.log_store.coverage import Counted, Gaps
from enrich.log_store.frequent_texts import FrequentText, FrequentTexts
from enrich.settings import load_settings
from enrich.text.extract import fingerprint


def at(degrees: float, length: float = 1.0) -> Any:
    angle = np.radians(degrees)
    return np.array([np.cos(angle) * length, np.sin(angle) * length], dtype=np.float32)


@pytest.mark.parametrize(
    ("vectors", "least", "groups"),
    [
        ([], 0.9, []),
        ([at(0)], 0.9, [[0]]),
        ([at(0), at(10), at(90)], 0.9, [[0, 1], [2]]),
        # A length says nothing.
        ([at(0, 5), at(10, 0.1)], 0.9, [[0, 1]]),
        # To the nearest leader, not to the first that is near enough.
        ([at(0), at(40), at(24)], 0.9, [[0], [1, 2]]),
        # No chain: 20° is near both of its neighbours, and these are not near each other.
        ([at(0), at(20), at(40)], 0.9, [[0, 1], [2]]),
        ([at(0), at(0), at(1)], 1.0, [[0, 1], [2]]),
        ([at(0), None, at(0), None], 0.9, [[0, 2], [1], [3]]),
        ([None, at(0), at(0)], 0.5, [[0], [1, 2]]),
        ([at(0), at(180)], 0.5, [[0], [1]]),
        ([at(0), at(59), at(61)], 0.5, [[0, 1], [2]]),
    ],
)
def test_who_belongs_together(vectors: list[Any], least: float, groups: list[list[int]]) -> None:
    assert groups_of(vectors, least) == groups


def text(logs: int, message: str | None, vector: Any, **more: Any) -> FrequentText:
    given = {"indices": ("a_1",), "first_seen": None, "last_seen": None, **more}
    fields = {} if message is None else {"message": message, "service_name": "pay"}
    return FrequentText(
        logs=logs, index="a_1", id=f"of {message}", fields=fields, vector=vector, **given
    )


TEXTS = FrequentTexts(
    texts=[
        text(50, "disk is full", at(0), first_seen="2026-11-02", last_seen="2026-11-03"),
        text(40, "no route to host", at(90), last_seen="2026-11-09"),
        text(30, None, None),
        text(20, "no space left", at(5), indices=("b_1", "a_1"), first_seen="2026-11-01"),
    ],
    other_logs=7,
)


def test_groups_are_counted_from_the_largest_on() -> None:
    found = grouped(Counted(TEXTS), 2, 0.9)

    assert [(g.logs, g.texts, g.message) for g in found.groups] == [
        (70, 2, "disk is full"),
        (40, 1, "no route to host"),
    ]
    first = found.groups[0]
    assert (first.first_seen, first.last_seen) == ("2026-11-01", "2026-11-03")
    assert (first.index, first.id, first.indices) == ("a_1", "of disk is full", ["a_1", "b_1"])
    assert (found.logs_of_other_groups, found.logs_of_rarer_texts) == (30, 7)
    assert sum(g.logs for g in found.groups) + found.logs_of_other_groups == 140


def test_each_text_by_itself_and_what_was_left_out() -> None:
    gaps = Gaps(indices={"c_1": "red"})
    found = grouped(Counted(TEXTS, gaps), 100, 1.0)

    assert [g.logs for g in found.groups] == [50, 40, 30, 20]
    assert found.groups[2].message is None
    assert found.left_out == ["not searched: index c_1 (red)"]


class Node:
    """Answers for OpenSearch: two texts, of which one example has another text than it says."""

    def __init__(self, *, refuses_times: bool = False) -> None:
        self.refuses_times = refuses_times
        self.asked: list[dict[str, Any]] = []

    def request(self, method: str, path: str, body: Any = None, params: Any = None) -> str:
        if path == "/_mget":
            source = {"log_vector": [0.6, 0.8], "message": "x"}
            return json.dumps({"docs": [{"_source": source} for _ in body["docs"]]})
        if path.startswith("/_cluster/"):
            return "{}"
        self.asked.append(body)
        timed = any(name.startswith("min_") for name in body["aggs"]["texts"]["aggs"])
        failed = self.refuses_times and timed
        shards = {"total": 2, "successful": 1 if failed else 2, "failed": int(failed)}
        if failed:
            why = {"type": "illegal_argument_exception", "reason": "no date"}
            shards["failures"] = [{"index": "a_1", "shard": 0, "reason": why}]  # type: ignore[assignment]
        buckets = [
            self._bucket("disk is full", "disk is full", 5),
            self._bucket("no route", "planted", 3),
        ]
        texts = {"buckets": buckets, "sum_other_doc_count": 11}
        return json.dumps({"_shards": shards, "aggregations": {"texts": texts}, "hits": {}})

    def _bucket(self, known: str, message: str, logs: int) -> dict[str, Any]:
        digest = fingerprint(known)
        source = {"message": message, "ai_text_sha256": digest}
        hit = {"_index": "a_1", "_id": known, "_source": source}
        return {
            "key": digest,
            "doc_count": logs,
            "example": {"hits": {"hits": [hit]}},
            "indices": {"buckets": [{"key": "b_1", "doc_count": 1}, {"key": "a_1"}]},
            "min_0": {"value": 1_790_000_000_000.0},
            "max_0": {"value": None},
        }


def most(monkeypatch: pytest.MonkeyPatch, node: Node) -> Counted[FrequentTexts]:
    monkeypatch.setattr(Connection, "request", lambda self, *a, **named: node.request(*a, **named))
    store = LogStore(load_settings(_env_file=None, openai_api_key="k", embedding_dimensions=2))
    try:
        return store.frequent_texts.most("a_*")
    finally:
        store.close()


def test_an_example_with_another_text_than_its_digest_is_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = most(monkeypatch, Node())

    assert found.gaps.whole and found.value.other_logs == 11
    right, planted = found.value.texts
    assert (right.logs, right.indices, right.fields["message"]) == (
        5,
        ("a_1", "b_1"),
        "disk is full",
    )
    assert right.first_seen == "2026-09-21T14:13:20.000Z" and right.last_seen is None
    assert right.vector is not None
    # It is counted, and can neither speak for the others nor draw them into its group.
    assert (planted.logs, planted.fields, planted.vector) == (3, {}, None)


def test_a_time_that_is_no_date_costs_no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(refuses_times=True)
    found = most(monkeypatch, node)

    assert found.gaps.whole and [text.logs for text in found.value.texts] == [5, 3]
    assert len(node.asked) == 2

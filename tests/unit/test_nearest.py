"""What `search` gives: one row a text, with the indices that it stands in."""

from __future__ import annotations

import json
from typing import Any

import pytest

from enrich.log_store import LogStore
from enrich.log_store.connection import Connection
from enrich.settings import load_settings
from enrich.text.extract import fingerprint

DISK, LATE = "disk is full", "it took too long"


def hit(index: str, number: int, message: str, digest: str = "") -> dict[str, Any]:
    source = {"message": message, "ai_text_sha256": digest or fingerprint(message)}
    return {"_index": index, "_id": f"{index}-{number}", "_score": 0.9, "_source": source}


class Node:
    """Answers for OpenSearch: the same hits to each search, and logs by digest and index."""

    def __init__(self) -> None:
        self.hits: list[dict[str, Any]] = []
        self.logs: dict[str, dict[str, int]] = {}
        #: The first number of each log's vector of two; the other makes its length one.
        self.closeness: dict[str, float] = {}

    def request(self, method: str, path: str, body: Any = None, params: Any = None) -> str:
        if path.endswith("/_field_caps"):
            caps = {"knn_vector": {"type": "knn_vector"}}
            indices = sorted({one["_index"] for one in self.hits})
            return json.dumps({"indices": indices, "fields": {"log_vector": caps}})
        if path.startswith("/_cluster/"):
            return "{}"
        if path == "/_mget":
            return json.dumps({"docs": [self._vector(doc["_id"]) for doc in body["docs"]]})
        answer: dict[str, Any] = {"_shards": {"total": 1, "successful": 1}, "hits": {"hits": []}}
        if body["size"]:
            answer["hits"]["hits"] = self.hits
        else:
            asked = body["aggs"]["texts"]["filters"]["filters"]
            digests = {n: one["bool"]["filter"][0]["term"] for n, one in asked.items()}
            buckets = {n: self._buckets(one["ai_text_sha256"]) for n, one in digests.items()}
            answer["aggregations"] = {"texts": {"buckets": buckets}}
        return json.dumps(answer)

    def _vector(self, id: str) -> dict[str, Any]:
        x = self.closeness.get(id, 0.6)
        return {"_source": {"log_vector": [x, (1 - x * x) ** 0.5]}}

    def _buckets(self, digest: str) -> dict[str, Any]:
        rows = [{"key": k, "doc_count": n} for k, n in self.logs.get(digest, {}).items()]
        return {"doc_count": 1, "by_index": {"buckets": rows}}


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    made = Node()
    monkeypatch.setattr(
        Connection, "request", lambda self, *args, **named: made.request(*args, **named)
    )
    return made


def nearest(k: int) -> list[dict[str, Any]]:
    store = LogStore(load_settings(_env_file=None, openai_api_key="k", embedding_dimensions=2))
    try:
        return store.stats.nearest([1.0, 0.0], k, None).value
    finally:
        store.close()


def test_a_text_of_several_indices_is_one_row(node: Node) -> None:
    node.hits = [
        hit("a_1", 1, DISK), hit("b_1", 1, DISK), hit("a_1", 2, f"  {DISK}\n"), hit("b_1", 2, LATE),
    ]  # fmt: skip
    node.closeness = {"b_1-1": 0.8}
    node.logs = {fingerprint(DISK): {"a_1": 40, "b_1": 2, "c_1": 1}}
    rows = nearest(5)
    assert [(row["message"].strip(), row["logs"], row["indices"]) for row in rows] == [
        (DISK, 43, ["a_1", "b_1", "c_1"]),
        (LATE, 1, ["b_1"]),
    ]
    assert [row["message"].strip() for row in nearest(1)] == [DISK]
    assert all("ai_text_sha256" not in row for row in rows)


def test_a_log_with_another_texts_digest_hides_nothing(node: Node) -> None:
    """The digest is only what somebody wrote beside the text."""
    node.hits = [hit("evil_1", 1, "look here", fingerprint(DISK)), hit("a_1", 1, DISK)]
    assert {row["message"] for row in nearest(5)} == {"look here", DISK}

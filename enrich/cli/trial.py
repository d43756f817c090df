"""Would a vector be written? Found out without changing anything.

Existing documents are written to under a version that they cannot have: OpenSearch checks rights
and blocks first and then refuses for the version, so that a version conflict means "allowed".
The body is empty, because OpenSearch extends a mapping before it looks at the version.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from enrich.errors import AccessRefused
from enrich.log_store import LogStore, RequestRefused
from enrich.log_store.connection import ndjson
from enrich.log_store.paths import in_path

#: Indices tried: a role or a block usually concerns all of one pattern.
MAX_INDICES = 20

#: No document ever had this many changes.
_NO_VERSION = {"if_seq_no": 2**62, "if_primary_term": 2**62}

_ROLE = "give OPENSEARCH_USER the role in deploy/opensearch-role.json"


def try_writes(
    store: LogStore, indices: Sequence[str], update_only: Sequence[str]
) -> dict[str, str]:
    """What speaks against writing, by index ("" for nothing); none for one without documents.

    Args:
        update_only: indices with a final pipeline, which an `index` would run.

    Raises:
        ServerUnavailable, TransientError
    """
    rows: list[Any] = []
    tried: list[str] = []
    for hit in _any_document(store, indices[:MAX_INDICES]):
        address = {"_index": hit["_index"], "_id": hit["_id"], **_NO_VERSION}
        if "_routing" in hit:
            address["routing"] = hit["_routing"]
        rows += [{"update": address}, {"doc": {}}]
        tried.append(hit["_index"])
        if hit["_index"] not in update_only:
            rows += [{"index": {**address, "pipeline": "_none"}}, {}]
            tried.append(hit["_index"])
    if not rows:
        return {}
    try:
        answer = store.connection.ask(dict[str, Any], "POST", "/_bulk", ndjson(rows))
    except AccessRefused as error:
        return dict.fromkeys(tried, str(error))
    except RequestRefused as error:
        # A block of the whole cluster refuses the request, not its items.
        return dict.fromkeys(tried, verdict({"error": {"type": error.error_type}}))
    told: dict[str, str] = {}
    for name, item in zip(tried, answer["items"], strict=True):
        (result,) = item.values()
        told[name] = told.get(name) or verdict(result)
    return told


def try_mapping(store: LogStore, indices: Sequence[str]) -> str:
    """What speaks against completing a mapping; putting no field changes none."""
    try:
        for name in indices[:MAX_INDICES]:
            store.connection.request("PUT", f"/{in_path(name)}/_mapping", {"properties": {}})
    except AccessRefused:
        return f"the user may not put mappings (403): {_ROLE}"
    except RequestRefused as error:
        return f"mappings cannot be put ({error.error_type})"
    return ""


def verdict(result: dict[str, Any]) -> str:
    """What an item's answer says against writing; "" for nothing. By the error's type."""
    kind = str(result.get("error", {}).get("type", ""))
    if kind in ("version_conflict_engine_exception", "document_missing_exception"):
        return ""
    if kind == "security_exception":
        return f"the user may not write (403): {_ROLE}"
    if kind == "cluster_block_exception":
        return "it takes no writes now: an index or cluster block is set, or its disk is full"
    return f"a write would be refused ({kind or result.get('status')})"


def _any_document(store: LogStore, indices: Sequence[str]) -> list[dict[str, Any]]:
    """One document of each index that has any: just found, so that its index exists."""
    if not indices:
        return []
    rows: list[Any] = []
    for name in indices:
        rows += [{"index": name, "ignore_unavailable": True}, {"size": 1, "_source": False}]
    answer = store.connection.ask(dict[str, Any], "POST", "/_msearch", ndjson(rows))
    return [hit for found in answer["responses"] for hit in found.get("hits", {}).get("hits", [])]

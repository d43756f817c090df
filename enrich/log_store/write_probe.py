"""Would a vector be written, and what would become of the logs? Found out without a change.

A write is tried as `log_store.wholeness` tries it before a run, here on any document, since an
index without a backlog may have one tomorrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from enrich.log_store import LogStore, Presence, RequestRefused, Trial
from enrich.log_store.connection import ndjson
from enrich.log_store.paths import in_path
from enrich.log_store.queries import NO_PIPELINE
from enrich.log_store.refusals import RightMissing, role_advice
from enrich.models import Reference

#: Indices tried: a role or a block usually concerns all of one pattern.
MAX_INDICES = 20


def try_writes(store: LogStore, indices: Sequence[str]) -> dict[str, str]:
    """What speaks against writing, by index ("" for nothing); none for one without documents.

    Raises:
        ServerUnavailable, TransientError
    """
    read = store.documents.read(_any_document(store, indices[:MAX_INDICES]))
    documents = [document for document in read if document.presence is Presence.FOUND]
    tried = dict.fromkeys((document.reference.index for document in documents), "")
    tried |= {each.reference.index: each.forbidden for each in read if each.forbidden}
    return tried | store.wholeness.objections([Trial(document=each) for each in documents])


def try_mapping(store: LogStore, indices: Sequence[str]) -> str:
    """What speaks against completing a mapping; putting no field changes none."""
    try:
        for name in indices[:MAX_INDICES]:
            store.connection.request("PUT", f"/{in_path(name)}/_mapping", {"properties": {}})
    except RightMissing as error:
        missing = f": {', '.join(error.rights)}" if error.rights else ""
        return f"OPENSEARCH_USER may not put mappings (403{missing}): {role_advice(error.rights)}"
    except RequestRefused as error:
        return f"mappings cannot be put ({error.error_type})"
    return ""


def try_refresh(store: LogStore, indices: Sequence[str]) -> None:
    """Have one index show what was written to it, as a run does at its end.

    Raises:
        RightMissing, TransientError
    """
    for name in indices:
        # A native engine may be one whose library is missing, which a refresh would need.
        if not store.engines.is_native(name):
            store.connection.request("POST", f"/{in_path(name)}/_refresh")
            return


def _any_document(store: LogStore, indices: Sequence[str]) -> list[Reference]:
    """One document of each index that has any: just found, so that its index exists."""
    if not indices:
        return []
    rows: list[Any] = []
    for name in indices:
        rows.append({"index": name, "ignore_unavailable": True})
        rows.append({"size": 1, "_source": False, **NO_PIPELINE})
    answer = store.connection.ask(dict[str, Any], "POST", "/_msearch", ndjson(rows))
    return [
        Reference(hit["_index"], hit["_id"], hit.get("_routing"), 0, 0)
        for found in answer["responses"]
        for hit in found.get("hits", {}).get("hits", [])
    ]

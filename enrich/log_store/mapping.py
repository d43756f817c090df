"""The fields that an index needs for its vectors: what it lacks, what stands in their way, and
putting them, which is done nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from enrich.errors import AccessRefused
from enrich.log_store.connection import Connection
from enrich.log_store.paths import in_path
from enrich.log_store.refusals import RequestRefused

#: How the vector is mapped where it is not mapped yet. Lucene's engine needs no native library.
KNN_METHOD = {"name": "hnsw", "engine": "lucene", "space_type": "cosinesimil"}

#: How our other fields are mapped; anything that searches the same is accepted too.
FIELD_TYPES = {
    "ai_enriched_at": "date",
    "ai_enrichment_status": "keyword",
    "ai_enrichment_method": "keyword",
    "ai_embedding_model": "keyword",
    "ai_embedding_dimensions": "integer",
    "ai_text_sha256": "keyword",
    "ai_vector_source": "keyword",
    "ai_enrichment_run": "keyword",
    "ai_enrichment_error": "keyword",
}

_ACCEPTED = {
    "date": {"date", "date_nanos"},
    "keyword": {"keyword", "text"},
    "integer": {"integer", "long", "short"},
}


class Mappings:
    """Puts fields into mappings."""

    def __init__(self, connection: Connection, dimensions: int) -> None:
        self._connection = connection
        self._wanted = index_mapping(dimensions)

    def complete(self, lacking: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """Put the fields that indices lack; those that do not take them, and why."""
        failed = {}
        for index, names in lacking.items():
            if reason := self._put(index, {name: self._wanted[name] for name in names}):
                failed[index] = reason
        return failed

    def _put(self, index: str, missing: dict[str, Any]) -> str:
        """Put fields; "" or why that failed."""
        try:
            self._connection.request("PUT", f"/{in_path(index)}/_mapping", {"properties": missing})
        except RequestRefused as error:
            return f"its mapping cannot be completed ({error.error_type})"
        except AccessRefused:
            return "its mapping cannot be completed: OPENSEARCH_USER may not put mappings (403)"
        return ""


def index_mapping(dimensions: int) -> dict[str, Any]:
    """The properties that an index of logs needs for its vectors."""
    return {
        "log_vector": {"type": "knn_vector", "dimension": dimensions, "method": {**KNN_METHOD}},
        **{name: {"type": type_} for name, type_ in FIELD_TYPES.items()},
    }


def missing_mapping(mapping: dict[str, Any], dimensions: int) -> dict[str, Any]:
    """Those of our fields that the mapping lacks."""
    there = mapping.get("properties", {})
    return {name: how for name, how in index_mapping(dimensions).items() if name not in there}


def wrong_field(properties: dict[str, Any], dimensions: int) -> str:
    """Which of our fields is mapped otherwise than we need it, or "". Pure."""
    vector = properties.get("log_vector")
    if vector is not None:
        if vector.get("type") != "knn_vector":
            return (
                f"log_vector is mapped as {vector.get('type', 'object')}, not knn_vector: reindex "
                "into an index made from `python -m enrich template`"
            )
        if (data_type := str(vector.get("data_type", "float")).lower()) != "float":
            return (
                f"log_vector is mapped with data_type {data_type}, not float: reindex into an "
                "index made from `python -m enrich template`"
            )
        if vector.get("dimension") not in (None, dimensions):
            return (
                f"log_vector is mapped with dimension {vector['dimension']}, not {dimensions}: "
                "set EMBEDDING_DIMENSIONS to it, or reindex"
            )
    for name, type_ in FIELD_TYPES.items():
        mapped = properties.get(name, {}).get("type", type_ if name not in properties else "object")
        if mapped not in _ACCEPTED[type_]:
            return f"{name} is mapped as {mapped}, not {type_}: reindex it under another mapping"
    return ""


def limit_reached(mapping: dict[str, Any], settings: dict[str, Any], dimensions: int) -> str:
    """Which limit of the mapping stands in the way of our fields, or "". Pure."""
    missing = missing_mapping(mapping, dimensions)
    if not missing:
        return ""
    fields, depth = _extent(mapping.get("properties", {}))
    most = number(settings, "index.mapping.total_fields.limit", 1000)
    if fields + len(missing) > most:
        return (
            f"its mapping has {fields} fields and would need {len(missing)} more, which is beyond "
            f"index.mapping.total_fields.limit ({most}): raise that"
        )
    deepest = number(settings, "index.mapping.depth.limit", 20)
    if depth > deepest:
        return (
            f"its mapping is {depth} levels deep, which is beyond index.mapping.depth.limit "
            f"({deepest}), so that no field can be added: raise that"
        )
    return ""


def _extent(properties: dict[str, Any]) -> tuple[int, int]:
    """How many fields a mapping has, as OpenSearch counts them, and how many levels."""
    fields, deepest = 0, 0
    waiting = [(properties, 1)]
    while waiting:
        some, depth = waiting.pop()
        for how in some.values():
            fields += 1 + len(how.get("fields", {}))
            if "properties" in how or how.get("type") in ("object", "nested"):
                deepest = max(deepest, depth)
                waiting.append((how.get("properties", {}), depth + 1))
    return fields, deepest + 1


def number(settings: dict[str, Any], name: str, default: int) -> int:
    """A setting of an index as a number."""
    try:
        return int(settings[name])
    except (KeyError, TypeError, ValueError):
        return default

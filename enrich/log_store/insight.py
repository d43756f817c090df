"""Looking at the logs for people: counts, failures, samples, and the nearest by meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from enrich.log_store.connection import LENIENT, Connection, RequestRefused
from enrich.log_store.queries import (
    HAS_VECTOR,
    IS_FAILED,
    MAX_INDICES,
    NAMES_IN_URL,
    FieldCaps,
    Queries,
    RawHit,
    SearchAnswer,
    Shards,
    slices,
)
from enrich.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Counts:
    """ERROR logs by index: with_vector, without_vector, failed."""

    by_index: dict[str, dict[str, int]]
    #: False where some shard did not answer: there may be more logs than were counted.
    whole: bool


class _CountsAnswer(msgspec.Struct):
    shards: Shards = msgspec.field(name="_shards")
    aggregations: dict[str, Any] = {}
    timed_out: bool = False


class Insight:
    """Searches whose answers are shown; changes nothing."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._connection = connection
        self._queries = Queries(settings)
        self._expression = settings.index_expression
        self._model = settings.embedding_model
        self._dimensions = settings.embedding_dimensions

    def names(self) -> list[str]:
        """Open indices that a run would search."""
        caps = self._connection.ask(
            FieldCaps,
            "GET",
            f"/{self._expression}/_field_caps",
            params={"fields": "level", **LENIENT},
        )
        return sorted([caps.indices] if isinstance(caps.indices, str) else caps.indices)

    def counts(self) -> Counts:
        """Count the ERROR logs. Exact at any size, where every shard answers."""
        answer = self._connection.ask(
            _CountsAnswer,
            "POST",
            f"/{self._expression}/_search",
            {
                "size": 0,
                "query": {"bool": {"filter": self._queries.of_level()}},
                "aggs": {
                    "by_index": {
                        "terms": {"field": "_index", "size": MAX_INDICES},
                        "aggs": {
                            "with_vector": {"filter": HAS_VECTOR},
                            "failed": {
                                "filter": {
                                    "bool": {"filter": [IS_FAILED], "must_not": [HAS_VECTOR]}
                                }
                            },
                        },
                    }
                },
            },
            {"max_concurrent_shard_requests": 256, **LENIENT},
        )
        by_index: dict[str, dict[str, int]] = {}
        for bucket in answer.aggregations.get("by_index", {}).get("buckets", []):
            with_vector, failed = bucket["with_vector"]["doc_count"], bucket["failed"]["doc_count"]
            by_index[bucket["key"]] = {
                "with_vector": with_vector,
                "without_vector": bucket["doc_count"] - with_vector - failed,
                "failed": failed,
            }
        return Counts(
            by_index=dict(sorted(by_index.items())),
            whole=answer.shards.complete and not answer.timed_out,
        )

    def oldest_owed(self) -> str | None:
        """Timestamp of the oldest ERROR log without a vector, ISO 8601, or None."""
        query = {
            "size": 0,
            "query": self._queries.owed(),
            "aggs": {"oldest": {"min": {"field": "timestamp", "format": "strict_date_time"}}},
        }
        try:
            answer = self._connection.ask(
                dict[str, Any], "POST", f"/{self._expression}/_search", query, LENIENT
            )
        except RequestRefused:
            return None  # no index maps `timestamp` as a date: none is the oldest
        value = answer.get("aggregations", {}).get("oldest", {}).get("value_as_string")
        return str(value) if value else None

    def failures(self, index: str | None, size: int = 1000) -> list[dict[str, Any]]:
        """Documents marked failed, newest first: where, why, since when; never their text."""
        answer = self._connection.ask(
            SearchAnswer,
            "POST",
            f"/{index or self._expression}/_search",
            {
                "size": size,
                "query": {"bool": {"filter": [IS_FAILED], "must_not": [HAS_VECTOR]}},
                "sort": [{"ai_enriched_at": {"order": "desc", "unmapped_type": "date"}}],
                "_source": ["ai_enrichment_error", "ai_enriched_at", "ai_enrichment_run"],
            },
            LENIENT,
        )
        return [
            {
                "index": hit.index,
                "id": hit.id,
                "routing": hit.routing,
                "error": hit.source.get("ai_enrichment_error", ""),
                "since": hit.source.get("ai_enriched_at", ""),
                "run": hit.source.get("ai_enrichment_run", ""),
            }
            for hit in answer.hits.hits
        ]

    def nearest(self, vector: list[float], k: int, index: str | None) -> list[dict[str, Any]]:
        """The k logs nearest to a vector: cosine (−1 … 1), where they are, and their fields.

        The cosine is computed here: OpenSearch's score is another in each space that an index may
        have.
        """
        target = index or self._expression
        caps = self._connection.ask(
            FieldCaps,
            "GET",
            f"/{target}/_field_caps",
            params={"fields": "log_vector", "include_unmapped": "true", **LENIENT},
        )
        searchable = sorted(caps.indices_with("log_vector", ["knn_vector"]))
        if not searchable:
            return []
        knn = {"vector": vector, "k": k}
        nearest: list[dict[str, Any]] = []
        for names in slices(searchable, NAMES_IN_URL):
            answer = self._connection.ask(
                SearchAnswer,
                "POST",
                f"/{','.join(names)}/_search",
                {
                    "size": k,
                    "query": {"knn": {"log_vector": knn}},
                    "_source": [*_SHOWN, "log_vector"],
                },
                LENIENT,
            )
            nearest += [
                {
                    "cosine": round(_cosine(vector, hit), 4),
                    "index": hit.index,
                    "id": hit.id,
                    **{name: hit.source[name] for name in _SHOWN if name in hit.source},
                }
                for hit in answer.hits.hits
            ]
        return sorted(nearest, key=lambda hit: -float(hit["cosine"]))[:k]

    def sample(self, size: int) -> list[str]:
        """Messages of a few logs that are owed, for `check`."""
        answer = self._connection.ask(
            SearchAnswer,
            "POST",
            f"/{self._expression}/_search",
            {"size": size, "query": self._queries.owed(), "_source": ["message"]},
            LENIENT,
        )
        messages = (hit.source.get("message") for hit in answer.hits.hits)
        return [message for message in messages if isinstance(message, str)]

    def stored_texts(self, size: int) -> list[dict[str, Any]]:
        """Documents that we enriched, with their vectors: to see whether the space is the same."""
        query = {"bool": {"filter": self._queries.with_vector_of(self._model, self._dimensions)}}
        try:
            answer = self._connection.ask(
                SearchAnswer,
                "POST",
                f"/{self._expression}/_search",
                {
                    "size": size,
                    "query": query,
                    "_source": ["message", "log_vector", "ai_text_sha256"],
                },
                LENIENT,
            )
        except RequestRefused:
            return []
        return [hit.source for hit in answer.hits.hits]


#: Fields of a log that was searched for.
_SHOWN = ("message", "level", "timestamp", "service_name", "trace_id")


def _cosine(vector: list[float], hit: RawHit) -> float:
    stored = hit.source.get("log_vector")
    if not isinstance(stored, list) or len(stored) != len(vector):
        # Its index keeps vectors out of the source: right at least for the space of our template.
        return 2 * (hit.score or 0.0) - 1
    one, other = np.asarray(vector), np.asarray(stored, dtype=np.float64)
    norms = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / norms if norms else 0.0

"""Looking at the logs for people: counts, failures, samples, and the nearest by meaning."""

from __future__ import annotations

from typing import Any

from enrich.log_store.connection import LENIENT, Connection, RequestRefused
from enrich.log_store.queries import (
    HAS_VECTOR,
    IS_FAILED,
    MAX_INDICES,
    NAMES_IN_URL,
    FieldCaps,
    Queries,
    SearchAnswer,
    slices,
)
from enrich.settings import Settings


class Insight:
    """Searches whose answers are shown; changes nothing."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._connection = connection
        self._queries = Queries(settings)
        self._expression = settings.index_expression
        self._model = settings.embedding_model
        self._dimensions = settings.embedding_dimensions

    def counts(self) -> dict[str, dict[str, int]]:
        """ERROR logs by index: with_vector, without_vector, failed. Exact at any size."""
        answer = self._connection.ask(
            dict[str, Any],
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
        counts: dict[str, dict[str, int]] = {}
        for bucket in answer.get("aggregations", {}).get("by_index", {}).get("buckets", []):
            with_vector, failed = bucket["with_vector"]["doc_count"], bucket["failed"]["doc_count"]
            counts[bucket["key"]] = {
                "with_vector": with_vector,
                "without_vector": bucket["doc_count"] - with_vector - failed,
                "failed": failed,
            }
        return dict(sorted(counts.items()))

    def oldest_owed(self) -> str | None:
        """Timestamp of the oldest ERROR log without a vector, ISO 8601, or None."""
        answer = self._connection.ask(
            dict[str, Any],
            "POST",
            f"/{self._expression}/_search",
            {
                "size": 0,
                "query": self._queries.owed(),
                "aggs": {"oldest": {"min": {"field": "timestamp", "format": "strict_date_time"}}},
            },
            LENIENT,
        )
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
        """The k logs nearest to a vector: cosine (−1 … 1), where they are, and their fields."""
        target = index or self._expression
        caps = self._connection.ask(
            FieldCaps,
            "GET",
            f"/{target}/_field_caps",
            params={"fields": "log_vector", **LENIENT},
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
                    "_source": ["message", "level", "timestamp", "service_name", "trace_id"],
                },
                LENIENT,
            )
            nearest += [
                {
                    "cosine": round(2 * (hit.score or 0.0) - 1, 4),
                    "index": hit.index,
                    "id": hit.id,
                    **hit.source,
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

    def stored_text(self) -> dict[str, Any] | None:
        """One document that we enriched, with its vector: to see whether the space is the same."""
        query = {"bool": {"filter": self._queries.with_vector_of(self._model, self._dimensions)}}
        try:
            answer = self._connection.ask(
                SearchAnswer,
                "POST",
                f"/{self._expression}/_search",
                {"size": 1, "query": query, "_source": ["message", "log_vector", "ai_text_sha256"]},
                LENIENT,
            )
        except RequestRefused:
            return None
        return answer.hits.hits[0].source if answer.hits.hits else None

"""Finding logs that have a vector already: of one of some texts, or any of an index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from more_itertools import sliced

from enrich.log_store.coverage import NO_SHARD, Counted, Gaps, cannot_search
from enrich.log_store.odd_answers import translates_odd_answers
from enrich.log_store.queries import HAS_VECTOR, LENIENT_ROW, NO_PIPELINE, Queries
from enrich.log_store.refusals import error_type
from enrich.log_store.scope import Scope
from enrich.models import LogLocation
from enrich.settings import Settings


@translates_odd_answers
class ReusableVectors:
    """Searches for vectors; reads none of them."""

    def __init__(self, scope: Scope, queries: Queries, settings: Settings) -> None:
        self._scope = scope
        self._queries = queries
        self._model = settings.embedding_model
        self._dimensions = settings.embedding_dimensions
        self._reuse_scope = settings.reuse_scope

    def find(self, wanted: dict[str, set[str]]) -> dict[tuple[str, str], LogLocation]:
        """Documents that already have the vector of one of the texts.

        Args:
            wanted: fingerprints by project; looked for in the same project only,
                unless ENRICH_REUSE_ACROSS_PROJECTS is set; then the project is "".

        Returns:
            such logs by project and fingerprint.
        """
        searches = [
            (f"{project}_*,{project}" if project else self._scope.expression, texts)
            for project, texts in wanted.items()
        ]
        rows: list[Any] = []
        for target, texts in searches:
            for some in sliced(sorted(texts), 1000):
                rows.append({"index": target, **LENIENT_ROW})
                rows.append(self._query(some))
        if not rows:
            return {}
        answers = self._scope.searches(rows)
        # Best effort: a shard that gives none only means that a text is paid for again.
        return {
            (
                self._reuse_scope(hit.index),
                str(hit.fields["ai_text_sha256"][0]),
            ): LogLocation(hit.index, hit.id, hit.routing)
            for answer in answers
            for hit in answer.hits.hits
            if hit.fields.get("ai_text_sha256")
        }

    def _query(self, fingerprints: Sequence[str]) -> dict[str, Any]:
        return {
            "size": len(fingerprints),
            "_source": False,
            "track_total_hits": False,
            "query": {
                "bool": {
                    "filter": [
                        {"terms": {"ai_text_sha256": list(fingerprints)}},
                        *self._queries.with_vector_of(self._model, self._dimensions),
                    ]
                }
            },
            "collapse": {"field": "ai_text_sha256"},
            **NO_PIPELINE,
        }

    def indices_with_vectors(self, indices: Sequence[str]) -> Counted[set[str]]:
        """Those of the indices in which some log has a vector. Of an index in the gaps it is only
        known where one was found."""
        rows: list[Any] = []
        for name in indices:
            query = {"bool": {"filter": [HAS_VECTOR]}}
            rows.append({"index": name, "ignore_unavailable": True})
            rows.append({"size": 1, "_source": False, "query": query, **NO_PIPELINE})
        if not rows:
            return Counted(set())
        answers = dict(zip(indices, self._scope.searches(rows), strict=True))
        unknown = {}
        for name, answer in answers.items():
            if answer.error is not None:
                unknown[name] = cannot_search(error_type(answer.error))
            elif not answer.whole:
                unknown[name] = NO_SHARD
        found = {name for name, answer in answers.items() if answer.hits.hits}
        return Counted(found, Gaps(indices=unknown))

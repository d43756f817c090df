"""The backlog: how many ERROR logs without a vector each index has, and which cannot be counted."""

from __future__ import annotations

from dataclasses import dataclass

from enrich.errors import TransientError
from enrich.log_store.queries import MAX_INDICES, BacklogAnswer, FieldCaps, Queries
from enrich.log_store.scope import Scope
from enrich.log_store.shapes import translates_shapes
from enrich.settings import Settings

#: Types of a field that cannot hold a level's name.
_NO_WORDS = frozenset(
    {"byte", "short", "integer", "long", "unsigned_long", "half_float", "float", "double"}
    | {"scaled_float", "boolean", "date", "date_nanos", "ip", "binary", "object", "nested"}
)


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """Which indices have logs to be enriched."""

    #: ERROR logs without a vector, not marked failed, by index.
    counts: dict[str, int]
    #: Indices that cannot be counted or searched, and why.
    unreadable: dict[str, str]
    #: Indices whose `timestamp` cannot be sorted by; they are read newest change first.
    unsorted: frozenset[str]


@translates_shapes
class BacklogCounter:
    """Counts what is pending; changes nothing."""

    def __init__(self, scope: Scope, settings: Settings) -> None:
        self._scope = scope
        self._queries = Queries(settings)
        self._max_age_days = settings.enrich_max_age_days

    def count(self) -> Backlog:
        """Count what is pending, by index, in two requests however many indices there are.

        Raises:
            TransientError: a part of the indices was not counted, and which cannot be told.
        """
        caps = self._scope.ask(
            FieldCaps,
            "GET",
            "_field_caps",
            params={
                "fields": "level,level.keyword,timestamp",
                # Else a field of one type would seem to be mapped in every index.
                "include_unmapped": "true",
            },
        )
        answer = self._scope.ask(
            BacklogAnswer,
            "POST",
            "_search",
            {
                "size": 0,
                "query": self._queries.pending(),
                "aggs": {"pending": {"terms": {"field": "_index", "size": MAX_INDICES}}},
            },
            {
                "max_concurrent_shard_requests": 256,
                # Beyond 128 shards each would first be asked whether it could match, which costs
                # what the search itself does.
                "pre_filter_shard_size": MAX_INDICES,
                "request_cache": "false",
            },
        )
        left_out = dict(self._scope.left_out)
        gaps = self._scope.gaps(answer)
        if gaps.unnamed:
            # Nobody can say whose logs were not counted; none is no answer.
            raise TransientError("OpenSearch counted the backlog only in part")
        unreadable = {**gaps.indices, **left_out}
        text_only = caps.indices_with("level", ["text", "match_only_text"])
        for index in sorted(text_only - caps.indices_with("level.keyword")):
            unreadable[index] = (
                "level is mapped as text without level.keyword, so ERROR cannot be searched exactly"
            )
        for index, type_ in caps.types_of("level").items():
            if type_ in _NO_WORDS:
                unreadable[index] = f"level is mapped as {type_}, which holds no word such as ERROR"
        unsorted = caps.indices_with("timestamp") - caps.indices_with(
            "timestamp", ["date", "date_nanos"]
        )
        if self._max_age_days:
            dated = caps.indices_with("timestamp", ["date", "date_nanos"])
            # The range would find nothing there, also where the field is not mapped at all.
            for index in sorted(caps.indices_with("level") - dated | unsorted):
                unreadable[index] = (
                    "timestamp is not mapped as a date, so ENRICH_MAX_AGE_DAYS cannot be applied"
                )
        buckets = answer.aggregations["pending"].buckets if answer.aggregations else []
        return Backlog(
            counts={b.key: b.doc_count for b in buckets if b.key not in unreadable},
            unreadable=unreadable,
            unsorted=frozenset(unsorted),
        )

    def red_indices(self) -> list[str]:
        """Our indices of which some shard has no copy that answers."""
        return self._scope.red_indices()

"""The backlog: how many ERROR logs without a vector each index has, and which cannot be counted."""

from __future__ import annotations

from dataclasses import dataclass

from enrich.errors import TransientError
from enrich.log_store.level_faults import unreadable_levels
from enrich.log_store.odd_answers import translates_odd_answers
from enrich.log_store.queries import MAX_INDICES, BacklogAnswer, FieldCaps, Queries
from enrich.log_store.scope import Scope

_DATES = ("date", "date_nanos")


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """Which indices have logs to be enriched."""

    #: ERROR logs without a vector, not marked failed, by index.
    counts: dict[str, int]
    #: Indices that cannot be counted or searched, and why.
    unreadable: dict[str, str]
    #: Indices whose time cannot be sorted by; they are read newest change first.
    unsorted: frozenset[str]


@translates_odd_answers
class BacklogCounter:
    """Counts what is pending; changes nothing."""

    def __init__(self, scope: Scope, queries: Queries) -> None:
        self._scope = scope
        self._queries = queries
        self._schema = queries.schema
        self._fields = [
            name
            for shape in self._schema.shapes
            for field in shape.level_fields
            for name in ((field, f"{field}.keyword") if shape.exact_level else (field,))
        ]
        self._fields += self._schema.timestamp_fields
        self._max_age_days = queries.max_age_days

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
                "fields": ",".join(self._fields),
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
        unreadable |= unreadable_levels(self._schema, caps)
        dated, unsorted = set(), set()
        for name in self._schema.timestamp_fields:
            dates = caps.indices_with(name, _DATES)
            dated |= dates
            unsorted |= caps.indices_with(name) - dates
        if self._max_age_days:
            with_level = set().union(*map(caps.indices_with, self._schema.level_fields))
            times = " or ".join(self._schema.timestamp_fields)
            # The range would find nothing there, also where the field is not mapped at all.
            for index in sorted(with_level - dated | unsorted):
                unreadable[index] = (
                    f"{times} is not mapped as a date, so ENRICH_MAX_AGE_DAYS cannot be applied"
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

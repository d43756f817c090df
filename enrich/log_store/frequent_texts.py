"""The texts that most logs with a vector have: how many logs, where, since when, and an example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from enrich.log_store.coverage import Counted
from enrich.log_store.odd_answers import translates_odd_answers
from enrich.log_store.queries import HAS_VECTOR, Queries, RawHit, Searched, of_other_models
from enrich.log_store.refusals import RequestRefused
from enrich.log_store.scope import Scope
from enrich.log_store.shown_logs import DIGEST, ShownLogs
from enrich.log_store.stats import iso_time
from enrich.log_store.stored_vectors import StoredVectors
from enrich.models import LogLocation
from enrich.settings import Settings
from enrich.vectors import Vector

#: Texts that are looked at; each has an example with its message, and a vector.
MOST_TEXTS = 200

#: Indices that are named for one text.
MOST_INDICES = 100


@dataclass(frozen=True, kw_only=True)
class FrequentText:
    """One text."""

    logs: int
    indices: tuple[str, ...]
    #: ISO 8601 in UTC; None where no log of it has a time.
    first_seen: str | None
    last_seen: str | None
    #: One of its logs, and what is shown of it; nothing where that has another text than its digest
    #: says, as somebody may have written it.
    index: str
    id: str
    fields: Mapping[str, Any]
    #: None where the log cannot be read, or its vector is none.
    vector: Vector | None


@dataclass(frozen=True, kw_only=True)
class FrequentTexts:
    """The most frequent first."""

    texts: Sequence[FrequentText]
    #: Logs of all other texts.
    other_logs: int


class _Value(msgspec.Struct):
    value: float | None = None


class _Name(msgspec.Struct):
    key: str


class _Names(msgspec.Struct):
    buckets: list[_Name] = []


class _Hits(msgspec.Struct):
    hits: list[RawHit] = []


class _Example(msgspec.Struct):
    hits: _Hits


class _Answer(Searched):
    aggregations: dict[str, Any] = msgspec.field(default_factory=dict)


@translates_odd_answers
class FrequentTextSearch:
    """Searches whose answers are shown; changes nothing."""

    def __init__(
        self, scope: Scope, queries: Queries, stored: StoredVectors, settings: Settings
    ) -> None:
        self._scope = scope
        self._stored = stored
        self._shown = ShownLogs(queries.schema, settings)
        self._times = queries.schema.timestamp_fields
        self._query = {
            "bool": {
                "filter": [HAS_VECTOR],
                "must_not": [
                    of_other_models(settings.embedding_model, settings.embedding_dimensions)
                ],
            }
        }

    def most(self, index: str | None) -> Counted[FrequentTexts]:
        """The texts of most logs that have a vector of our model, in all indices or in those that
        `index` names."""
        try:
            counted = self._ask(index, self._times)
        except RequestRefused:
            counted = self._ask(index, ())
        if not counted.gaps.whole and self._times:
            # Perhaps for a time that no index maps as a date: counts matter more.
            without = self._ask(index, ())
            counted = without if without.gaps.whole else counted
        found = counted.value.aggregations.get("texts", {})
        buckets = found.get("buckets", [])
        hits = [msgspec.convert(bucket["example"], _Example).hits.hits[0] for bucket in buckets]
        stored = self._stored.read([LogLocation(hit.index, hit.id, hit.routing) for hit in hits])
        texts = [
            self._text(bucket, hit, one.vector if one else None)
            for bucket, hit, one in zip(buckets, hits, stored, strict=True)
        ]
        others = int(found.get("sum_other_doc_count", 0))
        return Counted(FrequentTexts(texts=texts, other_logs=others), counted.gaps)

    def _ask(self, index: str | None, times: Sequence[str]) -> Counted[_Answer]:
        of_time = {
            f"{name}_{n}": {name: {"field": field}}
            for n, field in enumerate(times)
            for name in ("min", "max")
        }
        body = {
            "size": 0,
            "query": self._query,
            "aggs": {
                "texts": {
                    "terms": {"field": DIGEST, "size": MOST_TEXTS},
                    "aggs": {
                        "example": {
                            "top_hits": {"size": 1, "_source": [*self._shown.fields, DIGEST]}
                        },
                        "indices": {"terms": {"field": "_index", "size": MOST_INDICES}},
                        **of_time,
                    },
                }
            },
        }
        return self._scope.search(_Answer, body, index=index)

    def _text(self, bucket: Mapping[str, Any], hit: RawHit, vector: Vector | None) -> FrequentText:
        names = msgspec.convert(bucket["indices"], _Names)
        is_its_text = self._shown.key(hit) == bucket["key"]
        return FrequentText(
            logs=int(bucket["doc_count"]),
            indices=tuple(sorted(name.key for name in names.buckets)),
            first_seen=self._time(bucket, "min"),
            last_seen=self._time(bucket, "max"),
            index=hit.index,
            id=hit.id,
            fields=self._shown.of(hit.source) if is_its_text else {},
            vector=vector if is_its_text else None,
        )

    def _time(self, bucket: Mapping[str, Any], name: str) -> str | None:
        values = (bucket.get(f"{name}_{n}", {}).get("value") for n in range(len(self._times)))
        told = sorted(filter(None, map(iso_time, values)))
        return told[0 if name == "min" else -1] if told else None

"""A project's ERROR logs by their text, as far as they have a vector: counted by an aggregation,
drawn at random, or found as the nearest to a vector.

All three take the same logs, and tell a log's text by the fingerprint that was written beside its
vector, so that they differ by what they choose and by nothing else. Which kind of error a text
tells of is another room's matter; `messages` gives one message of each text for it.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from more_itertools import chunked

from enrich.log_store.connection import LENIENT, Connection
from enrich.log_store.odd_answers import translates_odd_answers
from enrich.log_store.paths import in_path, parts
from enrich.log_store.project_logs import ProjectLogs, at_random, exact
from enrich.log_store.queries import (
    HAS_VECTOR,
    NO_PIPELINE,
    FieldCaps,
    HitsAnswer,
    Queries,
    RawHit,
    Searched,
    by_level,
    of_other_models,
)
from enrich.log_store.stored_vectors import StoredVectors
from enrich.models import LogLocation

#: Texts that an aggregation lists; logs of others are counted together.
MOST_TEXTS = 5_000

#: Texts of which one search brings a message: these come whole, whatever their size.
_TEXTS_OF_A_SEARCH = 50

#: Logs that are looked at for a vector to start from.
_STARTS = 20

_DIGEST = "ai_text_sha256"


@dataclass(frozen=True, kw_only=True)
class TextCounts:
    """ERROR logs of a period.

    Attributes:
        total: all of them, with a vector or without.
        texts: by the fingerprint of their text, those with a vector.
        without_vector: those that have none, or none with a fingerprint.
        unlisted: those of further texts than are listed.
        count_error: by so many at most a listed count may be too low.
    """

    total: int
    texts: dict[str, int]
    without_vector: int
    unlisted: int
    count_error: int


@dataclass(frozen=True)
class DrawnText:
    """A log of a sample: its score, at least 0 and below 1, its text's fingerprint, and itself."""

    score: float
    text: str
    location: LogLocation


class _Total(msgspec.Struct):
    value: int


class _TotalHits(msgspec.Struct):
    total: _Total


class _Bucket(msgspec.Struct):
    key: str
    doc_count: int


class _Texts(msgspec.Struct):
    buckets: list[_Bucket]
    sum_other_doc_count: int = 0
    #: None where OpenSearch gives no bound.
    doc_count_error_upper_bound: int | None = 0


class _WithVector(msgspec.Struct):
    doc_count: int
    texts: _Texts


class _Aggregated(msgspec.Struct):
    with_vector: _WithVector


class _CountAnswer(Searched):
    hits: _TotalHits
    aggregations: _Aggregated


class _OneHit(msgspec.Struct):
    hits: list[RawHit]


class _One(msgspec.Struct):
    hits: _OneHit


class _TextOfOne(msgspec.Struct):
    key: str
    one: _One


class _TextsOfOnes(msgspec.Struct):
    buckets: list[_TextOfOne]


class _Messages(msgspec.Struct):
    texts: _TextsOfOnes


class _MessagesAnswer(Searched):
    aggregations: _Messages


@translates_odd_answers
class ErrorKinds:
    """Searches of one project's ERROR logs; changes nothing."""

    def __init__(
        self,
        connection: Connection,
        project: ProjectLogs,
        queries: Queries,
        stored: StoredVectors,
        *,
        model: str,
        dimensions: int,
    ) -> None:
        self._connection = connection
        self._project = project
        self._stored = stored
        self._schema = queries.schema
        self._model, self._dimensions = model, dimensions
        wanted = [clause for shape in queries.schema.shapes for clause in by_level(shape)]
        self._errors = {"bool": {"should": wanted, "minimum_should_match": 1}}

    def indices_of(self, project: str) -> list[str]:
        """As `ProjectLogs.indices_of`."""
        return self._project.indices_of(project)

    def count(self, indices: Sequence[str], start: datetime, end: datetime) -> TextCounts:
        """All ERROR logs of a period by their text, by aggregation.

        Raises:
            AnswerInPart: something would be missing.
        """
        body = {
            "size": 0,
            "track_total_hits": True,
            "query": {"bool": {"filter": [self._errors, self._project.within(start, end)]}},
            "aggs": {
                "with_vector": {
                    "filter": {"bool": {"filter": _TOLD}},
                    "aggs": {"texts": {"terms": {"field": _DIGEST, "size": MOST_TEXTS}}},
                }
            },
            **NO_PIPELINE,
        }
        total = told = unlisted = error = 0
        texts: Counter[str] = Counter()
        for answer in self._project.searches(_CountAnswer, indices, body):
            found = answer.aggregations.with_vector
            total += answer.hits.total.value
            told += found.doc_count
            unlisted += found.texts.sum_other_doc_count
            error += found.texts.doc_count_error_upper_bound or 0
            for bucket in found.texts.buckets:
                texts[bucket.key] += bucket.doc_count
        return TextCounts(
            total=total,
            texts=dict(texts),
            without_vector=total - told,
            unlisted=unlisted,
            count_error=error,
        )

    def sample(
        self, indices: Sequence[str], start: datetime, end: datetime, size: int, seed: int
    ) -> list[DrawnText]:
        """The logs with the `size` highest of random scores, the highest first; fewer if there are
        fewer. The same seed gives the same logs as long as these stay.

        Raises:
            AnswerInPart: it is no random sample.
        """
        query = {"bool": {"filter": self._with_vector(start, end)}}
        drawn = [
            DrawnText(
                exact(hit.score or 0.0),
                _text_of(hit),
                LogLocation(hit.index, hit.id, hit.routing),
            )
            for hit in self._hits(indices, size, at_random(query, seed))
        ]
        return heapq.nlargest(size, drawn, key=lambda one: one.score)

    def vector_of(self, logs: Iterable[DrawnText]) -> list[float] | None:
        """The vector of EMBEDDING_MODEL that one of the first logs has; None where none has one."""
        some = [log.location for _, log in zip(range(_STARTS), logs, strict=False)]
        for stored in self._stored.read(some):
            if stored is not None and (stored.model, stored.dimensions) == (
                self._model,
                self._dimensions,
            ):
                return list(map(float, stored.vector))
        return None

    def nearest(
        self, indices: Sequence[str], start: datetime, end: datetime, vector: list[float], k: int
    ) -> list[str]:
        """The texts of the k logs nearest to a vector, the nearest first; of logs whose vector is
        said to be of another model, and of those that k-NN cannot search, none.

        Raises:
            AnswerInPart: a shard does not answer, or an index takes no such search.
        """
        theirs = [of_other_models(self._model, self._dimensions)]
        wanted = {"bool": {"filter": self._with_vector(start, end), "must_not": theirs}}
        query = {"knn": {"log_vector": {"vector": vector, "k": k, "filter": wanted}}}
        searchable = self._searchable(indices)
        found = self._hits(searchable, k, query) if searchable else []
        # Of several requests each brings its own nearest.
        return [_text_of(hit) for hit in heapq.nlargest(k, found, key=lambda hit: hit.score or 0.0)]

    def messages(
        self, indices: Sequence[str], start: datetime, end: datetime, texts: Iterable[str]
    ) -> Iterator[tuple[str, str]]:
        """Texts by their fingerprint, each with the message of one of its logs; those that no log
        has any more are left out.

        Raises:
            AnswerInPart: a shard does not answer.
        """
        # Whole: a script that shortens them has to load the source, and with it the vector.
        one = {"top_hits": {"size": 1, "_source": list(self._schema.message_fields)}}
        for some in chunked(dict.fromkeys(texts), _TEXTS_OF_A_SEARCH):
            only = [*self._with_vector(start, end), {"terms": {_DIGEST: some}}]
            # Not `collapse`, which fails in an index that does not have the field yet.
            each = {"field": _DIGEST, "include": some, "size": len(some)}
            body = {
                "size": 0,
                "query": {"bool": {"filter": only}},
                "aggs": {"texts": {"terms": each, "aggs": {"one": one}}},
                **NO_PIPELINE,
            }
            for answer in self._project.searches(_MessagesAnswer, indices, body):
                for text in answer.aggregations.texts.buckets:
                    (hit,) = text.one.hits.hits
                    message = self._schema.message(hit.source)
                    if isinstance(message, str):
                        yield text.key, message

    def _hits(self, indices: Sequence[str], size: int, query: dict[str, Any]) -> list[RawHit]:
        body = {
            "size": size,
            "track_total_hits": False,
            # Not from the source, which has the vector in it.
            "_source": False,
            "docvalue_fields": [_DIGEST],
            "query": query,
            **NO_PIPELINE,
        }
        return [
            hit
            for answer in self._project.searches(HitsAnswer, indices, body)
            for hit in answer.hits.hits
        ]

    def _searchable(self, indices: Sequence[str]) -> list[str]:
        """Those whose vectors k-NN can search."""
        found: set[str] = set()
        for names in parts(indices):
            params = {**LENIENT, "fields": "log_vector", "include_unmapped": "true"}
            path = f"/{in_path(*names)}/_field_caps"
            caps = self._connection.ask(FieldCaps, "GET", path, params=params)
            found |= caps.indices_with("log_vector", ["knn_vector"])
        return sorted(found & set(indices))

    def _with_vector(self, start: datetime, end: datetime) -> list[dict[str, Any]]:
        return [self._errors, self._project.within(start, end), *_TOLD]


#: Logs with a vector and with what their text is told by.
_TOLD: list[dict[str, Any]] = [HAS_VECTOR, {"exists": {"field": _DIGEST}}]


def _text_of(hit: RawHit) -> str:
    return str(hit.fields[_DIGEST][0]) if hit.fields.get(_DIGEST) else ""

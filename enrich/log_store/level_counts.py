"""How many logs of which levels a project has in a time: a random sample of them, and the count.

Both ask the same of the same indices, so that they differ by chance alone: a log's levels are told
by OpenSearch, by the same queries, in the sample (as the names of those that match) and in the
count.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from enrich.errors import EnrichError, TransientError
from enrich.log_store.connection import LENIENT, Connection
from enrich.log_store.odd_answers import translates_odd_answers
from enrich.log_store.paths import in_path, parts
from enrich.log_store.queries import NO_PIPELINE, Queries, Searched, by_level
from enrich.log_store.refusals import RequestRefused
from enrich.log_store.scope import Scope
from enrich.models import project_of
from enrich.schema import Schema
from enrich.schema.levels import levels_of

S = TypeVar("S", bound=Searched)

#: What counts as a level: words in any case, and OpenTelemetry's numbers where a shape has a field
#: for them.
LEVEL_WORDS = {"error": ("ERROR",), "warn": ("WARN", "WARNING"), "info": ("INFO",)}

#: Bytes in the name of an index.
_MOST_BYTES = 255

#: Of random scores.
_STEPS = 2**24

#: What no name of an index has; OpenSearch refuses these itself.
_NEVER_IN_A_NAME = frozenset('\\/*?"<>| ,#:')


class ProjectRefused(EnrichError):
    """What was given cannot be the name of a project."""


class ProjectUnknown(EnrichError):
    """No index of ENRICH_INDEX_PATTERN belongs to the project."""


class AnswerInPart(TransientError):
    """Not every shard of the project answered: a sample or a count of the rest would be wrong."""


@dataclass(frozen=True)
class Drawn:
    """A log of a sample.

    Attributes:
        score: at least 0 and below 1, uniform and independent of the log.
        levels: which of `LEVEL_WORDS` it has.
    """

    score: float
    levels: frozenset[str]


@dataclass(frozen=True)
class Counts:
    """Logs, and those of each level."""

    total: int
    error: int
    warn: int
    info: int

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.total + other.total,
            self.error + other.error,
            self.warn + other.warn,
            self.info + other.info,
        )


@dataclass(frozen=True)
class Counted:
    """All logs of a time, and those of each of its hours."""

    whole: Counts
    hours: list[Counts]


class _SampleHit(msgspec.Struct):
    score: float = msgspec.field(name="_score")
    matched_queries: list[str] = []


class _SampleHits(msgspec.Struct):
    hits: list[_SampleHit]


class _SampleAnswer(Searched):
    hits: _SampleHits


class _Count(msgspec.Struct):
    doc_count: int


class _Levels(msgspec.Struct):
    buckets: dict[str, _Count]


class _Hour(msgspec.Struct):
    key: str
    doc_count: int
    levels: _Levels


class _Hours(msgspec.Struct):
    buckets: list[_Hour]


class _Total(msgspec.Struct):
    value: int


class _TotalHits(msgspec.Struct):
    total: _Total


class _CountAnswer(Searched):
    hits: _TotalHits
    aggregations: dict[str, Any]


class _Index(msgspec.Struct):
    name: str


class _Resolved(msgspec.Struct):
    indices: list[_Index] = []


@translates_odd_answers
class LevelCounts:
    """Searches of one project's logs; changes nothing."""

    def __init__(self, connection: Connection, scope: Scope, queries: Queries) -> None:
        self._connection = connection
        self._scope = scope
        self._schema = queries.schema
        self._by_level = {
            level: _of_words(queries.schema, words) for level, words in LEVEL_WORDS.items()
        }

    def indices_of(self, project: str) -> list[str]:
        """The open indices of ENRICH_INDEX_PATTERN that belong to a project.

        They are picked from a list of all, so that no part of the name gets into a request. A
        project whose indices are called by its id with `_` for `-`, as shippers do with UUIDs, is
        found by either.

        Raises:
            ProjectRefused, ProjectUnknown
        """
        require_project(project)
        answer = self._connection.ask(
            _Resolved,
            "GET",
            f"/_resolve/index/{in_path(self._scope.expression)}",
            params={"expand_wildcards": "open", "filter_path": "indices.name"},
        )
        names = [index.name for index in answer.indices]
        for name in dict.fromkeys((project, project.replace("-", "_").lower())):
            if found := sorted(index for index in names if project_of(index) == name):
                return found
        raise ProjectUnknown(
            "no index belongs to this project: check project_uuid, and that "
            "ENRICH_INDEX_PATTERN takes its indices in"
        )

    def sample(
        self, indices: Sequence[str], start: datetime, end: datetime, size: int, seed: int
    ) -> list[Drawn]:
        """The logs with the `size` highest of random scores, the highest first; fewer if there are
        fewer. The same seed gives the same logs as long as these stay.

        Every log that matches is read for its score. Not the aggregation `sampler`, which takes
        those of each shard that match best.

        Raises:
            AnswerInPart: it is no random sample.
        """
        body = {
            "size": size,
            "track_total_hits": False,
            "_source": False,
            "query": {
                "function_score": {
                    "query": {
                        "bool": {
                            "filter": [self._within(start, end)],
                            "should": [
                                {"bool": {**query["bool"], "_name": level}}
                                for level, query in self._by_level.items()
                            ],
                        }
                    },
                    "random_score": {"seed": seed, "field": "_seq_no"},
                    "boost_mode": "replace",
                }
            },
            **NO_PIPELINE,
        }
        drawn = [
            Drawn(_exact(hit.score), frozenset(hit.matched_queries) & LEVEL_WORDS.keys())
            for answer in self._searches(_SampleAnswer, indices, body)
            for hit in answer.hits.hits
        ]
        # Of several requests each brings its own highest.
        return heapq.nlargest(size, drawn, key=lambda one: one.score)

    def count(self, indices: Sequence[str], hours: Sequence[tuple[datetime, datetime]]) -> Counted:
        """All logs from the first hour's start until before the last one's end, by aggregation.

        Args:
            hours: in order, without gaps; one at least.

        Raises:
            AnswerInPart: something would be missing.
        """
        levels = {"filters": {"filters": self._by_level}}
        body = {
            "size": 0,
            "track_total_hits": True,
            "query": {"bool": {"filter": [self._within(hours[0][0], hours[-1][1])]}},
            "aggs": {
                "levels": levels,
                **{
                    f"hours_{n}": {
                        "filter": only,
                        "aggs": {
                            "hours": {
                                "date_range": {
                                    "field": name,
                                    "format": "epoch_millis",
                                    "ranges": [
                                        {"key": str(m), "from": _millis(a), "to": _millis(b)}
                                        for m, (a, b) in enumerate(hours)
                                    ],
                                },
                                "aggs": {"levels": levels},
                            }
                        },
                    }
                    for n, (name, only) in enumerate(self._by_time())
                },
            },
            **NO_PIPELINE,
        }
        whole = Counts(0, 0, 0, 0)
        by_hour = [whole] * len(hours)
        for answer in self._searches(_CountAnswer, indices, body):
            of_levels = msgspec.convert(answer.aggregations["levels"], _Levels)
            whole += _counts(answer.hits.total.value, of_levels)
            for n, _ in enumerate(self._by_time()):
                found = msgspec.convert(answer.aggregations[f"hours_{n}"]["hours"], _Hours)
                for hour in found.buckets:
                    by_hour[int(hour.key)] += _counts(hour.doc_count, hour.levels)
        return Counted(whole, by_hour)

    def _searches(self, type_: type[S], indices: Sequence[str], body: dict[str, Any]) -> list[S]:
        """The answers of as many searches as the names need, each whole."""
        answers = []
        for names in parts(indices):
            path = f"/{in_path(*names)}/_search"
            # An index that has gone since its name was read is missed and not passed over.
            params = {**LENIENT, "ignore_unavailable": "false", "request_cache": "false"}
            try:
                answer = self._connection.ask(type_, "POST", path, body, params)
            except RequestRefused as error:
                raise AnswerInPart(
                    "an index of the project cannot be searched now "
                    f"({error.error_type or error.status}), so that nothing can be said of all its "
                    "logs; `python -m enrich check` names such indices"
                ) from None
            if not answer.whole:
                gaps = self._scope.gaps(answer, index=",".join(names))
                raise AnswerInPart(
                    f"nothing can be said of all logs of the project: {gaps.sentence('searched')}; "
                    "ask again when it answers"
                )
            answers.append(answer)
        return answers

    def _within(self, start: datetime, end: datetime) -> dict[str, Any]:
        """Logs whose time, in the first field that they have one in, is in a period."""
        during = {"gte": _millis(start), "lt": _millis(end), "format": "epoch_millis"}
        return {
            "bool": {
                "should": [
                    {"bool": {"filter": [only, {"range": {name: during}}]}}
                    for name, only in self._by_time()
                ],
                "minimum_should_match": 1,
            }
        }

    def _by_time(self) -> list[tuple[str, dict[str, Any]]]:
        """Each field of times, and the logs that have no other before it."""
        names = self._schema.timestamp_fields
        return [
            (
                name,
                {
                    "bool": {
                        "filter": [{"exists": {"field": name}}],
                        "must_not": [{"exists": {"field": other}} for other in names[:n]],
                    }
                },
            )
            for n, name in enumerate(names)
        ]


def require_project(project: str) -> None:
    """Raises ProjectRefused for what no index could be called by."""
    # Its name is not said again: whoever asks may write anything there.
    if not project:
        raise ProjectRefused("project_uuid is empty: give the id that the project's indices have")
    if len(project.encode("utf-8", "surrogatepass")) > _MOST_BYTES:
        raise ProjectRefused(f"project_uuid is longer than {_MOST_BYTES} bytes, and no index is")
    if (
        set(project) & _NEVER_IN_A_NAME
        or not project.isprintable()
        or project.startswith(("-", "_", "+", "."))
    ):
        raise ProjectRefused(
            "project_uuid has characters that the name of no index has: give the id of one "
            "project, without wildcards, commas, blanks and slashes"
        )


def _of_words(schema: Schema, words: Sequence[str]) -> dict[str, Any]:
    """Logs of a level, whatever ENRICH_LEVELS is."""
    clauses = [
        clause
        for shape in schema.shapes
        for clause in by_level(
            replace(
                shape,
                levels=levels_of(words, exact=False, severities=bool(shape.number_field)),
            )
        )
    ]
    return {"bool": {"should": clauses, "minimum_should_match": 1}}


def _counts(total: int, levels: _Levels) -> Counts:
    return Counts(total, *(levels.buckets[level].doc_count for level in LEVEL_WORDS))


def _exact(score: float) -> float:
    """A score as it was drawn, in 24 bits (RandomScoreFunction): its decimals in the answer are
    those that tell it from other numbers of single precision, and no more."""
    return round(score * _STEPS) / _STEPS


def _millis(moment: datetime) -> str:
    return str(round(moment.timestamp() * 1000))

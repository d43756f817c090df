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
from typing import Any

import msgspec

from enrich.log_store.odd_answers import translates_odd_answers
from enrich.log_store.project_logs import ProjectLogs, at_random, exact, millis
from enrich.log_store.queries import NO_PIPELINE, Queries, Searched, by_level
from enrich.schema import Schema
from enrich.schema.levels import levels_of

#: What counts as a level: words in any case, and OpenTelemetry's numbers where a shape has a field
#: for them.
LEVEL_WORDS = {"error": ("ERROR",), "warn": ("WARN", "WARNING"), "info": ("INFO",)}


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


@translates_odd_answers
class LevelCounts:
    """Searches of one project's logs; changes nothing."""

    def __init__(self, project: ProjectLogs, queries: Queries) -> None:
        self._project = project
        self._by_level = {
            level: _of_words(queries.schema, words) for level, words in LEVEL_WORDS.items()
        }

    def indices_of(self, project: str) -> list[str]:
        """As `ProjectLogs.indices_of`."""
        return self._project.indices_of(project)

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
            "query": at_random(
                {
                    "bool": {
                        "filter": [self._project.within(start, end)],
                        "should": [
                            {"bool": {**query["bool"], "_name": level}}
                            for level, query in self._by_level.items()
                        ],
                    }
                },
                seed,
            ),
            **NO_PIPELINE,
        }
        drawn = [
            Drawn(exact(hit.score), frozenset(hit.matched_queries) & LEVEL_WORDS.keys())
            for answer in self._project.searches(_SampleAnswer, indices, body)
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
            "query": {"bool": {"filter": [self._project.within(hours[0][0], hours[-1][1])]}},
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
                                        {"key": str(m), "from": millis(a), "to": millis(b)}
                                        for m, (a, b) in enumerate(hours)
                                    ],
                                },
                                "aggs": {"levels": levels},
                            }
                        },
                    }
                    for n, (name, only) in enumerate(self._project.by_time())
                },
            },
            **NO_PIPELINE,
        }
        whole = Counts(0, 0, 0, 0)
        by_hour = [whole] * len(hours)
        for answer in self._project.searches(_CountAnswer, indices, body):
            of_levels = msgspec.convert(answer.aggregations["levels"], _Levels)
            whole += _counts(answer.hits.total.value, of_levels)
            for n, _ in enumerate(self._project.by_time()):
                found = msgspec.convert(answer.aggregations[f"hours_{n}"]["hours"], _Hours)
                for hour in found.buckets:
                    by_hour[int(hour.key)] += _counts(hour.doc_count, hour.levels)
        return Counted(whole, by_hour)


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

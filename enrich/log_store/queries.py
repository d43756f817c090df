"""What is pending, in OpenSearch's query language, and the shapes of its answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from enrich.schema import Schema, Shape

#: Most indices that one terms aggregation names.
MAX_INDICES = 10_000

MODEL_FIELD = "ai_embedding_model"
HAS_VECTOR = {"exists": {"field": "log_vector"}}
IS_FAILED = {"term": {"ai_enrichment_status": "failed"}}
#: In a search's body: an index may name a pipeline (index.search.default_pipeline) that changes
#: what is found and how it is told, and one that is missing fails a search over all indices. A
#: pipeline of no steps stands in its place: every version knows that.
NO_PIPELINE: dict[str, Any] = {"search_pipeline": {}}
LENIENT_ROW = {"ignore_unavailable": True, "allow_no_indices": True, "expand_wildcards": "open"}


#: What a query string takes for syntax.
_RESERVED = re.compile(r'[-+=&|!(){}\[\]^"~*?:\\/]')


class Queries:
    """The queries that depend on settings."""

    def __init__(self, schema: Schema, max_age_days: float) -> None:
        self.schema = schema
        self.max_age_days = max_age_days

    def of_level(self) -> list[dict[str, Any]]:
        """ERROR logs, not older than ENRICH_MAX_AGE_DAYS; as filters."""
        wanted = [clause for shape in self.schema.shapes for clause in by_level(shape)]
        clauses: list[dict[str, Any]] = [{"bool": {"should": wanted}}]
        if self.max_age_days:
            since = f"now-{self.max_age_days * 24:.0f}h"
            by_time = [{"range": {n: {"gte": since}}} for n in self.schema.timestamp_fields]
            clauses += by_time if len(by_time) == 1 else [{"bool": {"should": by_time}}]
        return clauses

    def pending(self) -> dict[str, Any]:
        """ERROR logs without a vector that are not marked failed."""
        return {
            "bool": {
                "filter": self.of_level(),
                "must_not": [HAS_VECTOR, IS_FAILED],
            }
        }

    def with_vector_of(self, model: str, dimensions: int) -> list[dict[str, Any]]:
        """Logs with a vector of this model; as filters."""
        return [
            {"term": {"ai_embedding_model": model}},
            {"term": {"ai_embedding_dimensions": dimensions}},
            HAS_VECTOR,
        ]


def spelt(names: Sequence[str], words: Sequence[str]) -> list[dict[str, Any]]:
    """Logs that have one of the words in one of the fields, as it is spelt."""
    return [
        {"match": {name: {"query": word, "analyzer": "keyword", "lenient": True}}}
        for name in names
        for word in words
    ]


def by_level(shape: Shape) -> list[dict[str, Any]]:
    """Logs of a wanted level, as clauses of which one has to match."""
    # Untemplated indices map a level to text with a `.keyword` beside it. Only that has it as it is
    # spelt; in the text it is a word in small letters. An unmapped field matches nothing, so that
    # all can be asked for everywhere. `lenient`, because a word is an error where the level is a
    # number.
    names = (shape.level_field, *((f"{shape.level_field}.keyword",) if shape.exact_level else ()))
    clauses = spelt(names, shape.levels.words)
    clauses += [
        {"match": {shape.number_of: {"query": number, "lenient": True}}}
        for number in shape.levels.numbers
    ]
    if shape.levels.at_least is not None:
        # Not `range`, which fails where the field is a boolean or a wildcard.
        name = _RESERVED.sub(r"\\\g<0>", shape.number_of)
        query = f"{name}:>={shape.levels.at_least:g}"
        clauses.append({"query_string": {"query": query, "lenient": True}})
    return clauses


def vector_of_model(model: str, dimensions: int) -> dict[str, Any]:
    """Logs with a vector that is said to be of this model and width, as a query. Where the model's
    name was mapped by itself it is a text with `.keyword` beside it."""
    return {"bool": {"filter": [HAS_VECTOR, *_said_to_be(model, dimensions)]}}


def of_other_models(model: str, dimensions: int) -> dict[str, Any]:
    """Logs with a vector that is said to be of another model or width, as a query."""
    return {
        "bool": {
            "filter": [HAS_VECTOR, {"exists": {"field": MODEL_FIELD}}],
            "must_not": [{"bool": {"filter": _said_to_be(model, dimensions)}}],
        }
    }


def _said_to_be(model: str, dimensions: int) -> list[dict[str, Any]]:
    names = (MODEL_FIELD, f"{MODEL_FIELD}.keyword")
    return [
        {"bool": {"should": [{"term": {name: model}} for name in names]}},
        {"term": {"ai_embedding_dimensions": dimensions}},
    ]


class ShardFailure(msgspec.Struct):
    index: str | None = None
    reason: dict[str, Any] | None = None


class Shards(msgspec.Struct):
    total: int = 0
    successful: int = 0
    skipped: int = 0
    failures: list[ShardFailure] = []

    @property
    def complete(self) -> bool:
        # `skipped` shards are counted in `successful`; an unassigned one shows in neither.
        return self.successful >= self.total and not self.failures

    @property
    def failing_indices(self) -> dict[str, str]:
        """Those of which a shard answered with an error, and its type; unassigned shards are not
        named."""
        return {
            failure.index: str((failure.reason or {}).get("type", "unknown"))
            for failure in self.failures
            if failure.index
        }


class Clusters(msgspec.Struct):
    """Of a search over several clusters; one that `skip_unavailable` lets be away is skipped."""

    skipped: int = 0


class Searched(msgspec.Struct, kw_only=True):
    """What every search answers beside what it found."""

    shards: Shards = msgspec.field(name="_shards")
    clusters: Clusters = msgspec.field(name="_clusters", default_factory=Clusters)
    timed_out: bool = False

    @property
    def whole(self) -> bool:
        return self.shards.complete and not self.timed_out and not self.clusters.skipped


class Bucket(msgspec.Struct):
    key: str
    doc_count: int


class Buckets(msgspec.Struct):
    buckets: list[Bucket] = []


class BacklogAnswer(Searched):
    aggregations: dict[str, Buckets] = {}


class FieldCaps(msgspec.Struct):
    indices: list[str] | str = []
    fields: dict[str, dict[str, dict[str, Any]]] = {}

    def names(self) -> list[str]:
        """All indices of the answer."""
        return [self.indices] if isinstance(self.indices, str) else self.indices

    def indices_with(self, name: str, types: Sequence[str] | None = None) -> set[str]:
        """Indices that map the field (to one of the types)."""
        found: set[str] = set()
        for type_, caps in self.fields.get(name, {}).items():
            if type_ != "unmapped" and (types is None or type_ in types):
                # Without a list of its own, the type holds in every index.
                found.update(caps.get("indices") or self.names())
        return found

    def types_of(self, name: str) -> dict[str, str]:
        """The field's type in each index that maps it."""
        return {
            index: type_
            for type_ in self.fields.get(name, {})
            for index in self.indices_with(name, [type_])
        }


class RawHit(msgspec.Struct):
    index: str = msgspec.field(name="_index")
    id: str = msgspec.field(name="_id")
    seq_no: int = msgspec.field(name="_seq_no", default=0)
    primary_term: int = msgspec.field(name="_primary_term", default=0)
    routing: str | None = msgspec.field(name="_routing", default=None)
    score: float | None = msgspec.field(name="_score", default=None)
    fields: dict[str, list[Any]] = {}
    source: dict[str, Any] = msgspec.field(name="_source", default_factory=dict)
    sort: list[Any] = []


class HitList(msgspec.Struct):
    hits: list[RawHit] = []


class HitsAnswer(Searched):
    hits: HitList


class SearchAnswer(Searched):
    """One of an `_msearch`: an error has no shards."""

    hits: HitList = msgspec.field(default_factory=HitList)
    shards: Shards = msgspec.field(name="_shards", default_factory=Shards)
    error: dict[str, Any] | None = None


class MsearchAnswer(msgspec.Struct):
    responses: list[SearchAnswer]

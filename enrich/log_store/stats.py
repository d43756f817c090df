"""Looking at the logs for people: counts, failures, samples, and the nearest by meaning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec

from enrich.log_store.connection import LENIENT, Connection
from enrich.log_store.coverage import WHOLE, Counted, Gaps
from enrich.log_store.odd_answers import translates_odd_answers
from enrich.log_store.paths import in_path, parts
from enrich.log_store.queries import (
    HAS_VECTOR,
    IS_FAILED,
    MAX_INDICES,
    MODEL_FIELD,
    NO_PIPELINE,
    FieldCaps,
    HitsAnswer,
    Queries,
    RawHit,
    SearchAnswer,
    Searched,
    of_other_models,
    vector_of_model,
)
from enrich.log_store.refusals import RequestRefused
from enrich.log_store.scope import Scope
from enrich.log_store.shown_logs import DIGEST, ShownLogs
from enrich.log_store.stored_vectors import StoredVector, StoredVectors
from enrich.models import LogLocation
from enrich.settings import Settings, without_exclusions
from enrich.vectors import cosine

#: Indices of which vectors are compared, and logs of each.
SAMPLED_INDICES = 30
SAMPLES = 4

#: Why a document is marked failed (`ai_enrichment_error`).
FAILURE_CODES = (
    "message_missing", "message_not_text", "message_empty", "text_refused", "text_too_large",
    "mapping_refused",
)  # fmt: skip

#: Most models that are named.
MAX_MODELS = 10

#: Most indices that are named for one text.
MAX_INDICES_OF_TEXT = 100


@dataclass(frozen=True, kw_only=True)
class Counts:
    """ERROR logs by index: with_vector, without_vector, failed."""

    by_index: dict[str, dict[str, int]]
    #: Of those with a vector, how many have one of another model than EMBEDDING_MODEL, by index;
    #: indices without any are left out.
    of_other_models: dict[str, int] = field(default_factory=dict)
    #: What was not counted, so that there may be more logs than these.
    gaps: Gaps = WHOLE


@dataclass(frozen=True, kw_only=True)
class Oldest:
    """Timestamps of the oldest ERROR logs without a vector, ISO 8601."""

    #: Of all; None where none is known.
    of_all: str | None = None
    #: Of each index that has such a log with a time.
    by_index: dict[str, str] = field(default_factory=dict)


class _CountsAnswer(Searched):
    aggregations: dict[str, Any] = msgspec.field(default_factory=dict)


class _Total(msgspec.Struct):
    value: int


class _Hits(msgspec.Struct):
    total: _Total


class _TotalAnswer(Searched):
    hits: _Hits


@dataclass
class _Text:
    """A text that was found: its key, the nearest log that has it, and logs seen of each index."""

    key: str
    hit: RawHit
    logs: Counter[str] = field(default_factory=Counter)


class _Stream(msgspec.Struct):
    name: str
    backing_indices: list[str]


class _Resolved(msgspec.Struct):
    data_streams: list[_Stream] = []


@translates_odd_answers
class Stats:
    """Searches whose answers are shown; changes nothing."""

    def __init__(
        self,
        connection: Connection,
        scope: Scope,
        queries: Queries,
        stored: StoredVectors,
        settings: Settings,
    ) -> None:
        self._connection = connection
        self._scope = scope
        self._stored = stored
        self._queries = queries
        # No stream begins with a dot; an index that does, such as the security plugin's own, may be
        # forbidden to look at, and would get the whole question refused.
        self._patterns = ",".join([*without_exclusions(settings.enrich_index_pattern), "-.*"])
        self._model = settings.embedding_model
        self._dimensions = settings.embedding_dimensions
        self._logs = ShownLogs(queries.schema, settings)
        self._schema = queries.schema
        #: Any field: what is asked for is which indices there are.
        self._some_field = {"fields": self._schema.level_fields[0]}

    def names(self) -> list[str]:
        """Open indices that a run would search."""
        caps = self._scope.ask(FieldCaps, "GET", "_field_caps", params=self._some_field)
        return sorted(caps.names())

    def streams_left_out(self, searched: Iterable[str]) -> list[str]:
        """Data streams whose name is searched for, but none of the indices behind it, since those
        begin with a dot. `searched` is what `names` gave."""
        answer = self._connection.ask(
            _Resolved,
            "GET",
            f"/_resolve/index/{in_path(self._patterns)}",
            params={"expand_wildcards": "open"},
        )
        known = set(searched)
        return sorted(
            stream.name
            for stream in answer.data_streams
            if known.isdisjoint(stream.backing_indices)
        )

    def counts(self) -> Counts:
        """Count the ERROR logs. Exact at any size, where every shard answers."""
        counted = self._scope.search(
            _CountsAnswer,
            {
                "size": 0,
                "query": {"bool": {"filter": self._queries.of_level()}},
                "aggs": {
                    "by_index": {
                        "terms": {"field": "_index", "size": MAX_INDICES},
                        "aggs": {
                            "with_vector": {"filter": HAS_VECTOR},
                            "of_other_models": {
                                "filter": of_other_models(self._model, self._dimensions)
                            },
                            "failed": {
                                "filter": {
                                    "bool": {"filter": [IS_FAILED], "must_not": [HAS_VECTOR]}
                                }
                            },
                        },
                    }
                },
            },
            {"max_concurrent_shard_requests": 256},
        )
        by_index: dict[str, dict[str, int]] = {}
        of_others: dict[str, int] = {}
        found = counted.value.aggregations.get("by_index", {})
        for bucket in found.get("buckets", []):
            with_vector, failed = bucket["with_vector"]["doc_count"], bucket["failed"]["doc_count"]
            by_index[bucket["key"]] = {
                "with_vector": with_vector,
                "without_vector": bucket["doc_count"] - with_vector - failed,
                "failed": failed,
            }
            if others := bucket["of_other_models"]["doc_count"]:
                of_others[bucket["key"]] = others
        more = int(found.get("sum_other_doc_count", 0))
        beyond = Gaps(unnamed=f"there are more than {MAX_INDICES:,} indices") if more else WHOLE
        return Counts(
            by_index=dict(sorted(by_index.items())),
            of_other_models=dict(sorted(of_others.items())),
            gaps=counted.gaps | beyond,
        )

    def other_models(self, indices: Sequence[str]) -> Counted[dict[str, int]]:
        """Models of which logs of these indices have vectors, but not ours, and how many logs; as
        far as OpenSearch can say."""
        query = of_other_models(self._model, self._dimensions)
        found: Counter[str] = Counter()
        gaps = WHOLE
        for names in parts(indices):
            for name in (MODEL_FIELD, f"{MODEL_FIELD}.keyword"):
                body = {
                    "size": 0,
                    "query": query,
                    "aggs": {"models": {"terms": {"field": name, "size": MAX_MODELS}}},
                    **NO_PIPELINE,
                }
                try:
                    answer = self._connection.ask(
                        _CountsAnswer, "POST", f"/{in_path(*names)}/_search", body, LENIENT
                    )
                except RequestRefused:
                    continue  # a text, which cannot be counted by its words
                gaps |= self._scope.gaps(answer, index=",".join(names))
                for bucket in answer.aggregations.get("models", {}).get("buckets", []):
                    found[str(bucket["key"])] += bucket["doc_count"]
        return Counted(dict(found.most_common()), gaps)

    def oldest_pending(self) -> Counted[str | None]:
        """Timestamp of the oldest ERROR log without a vector, ISO 8601, or None."""
        found = self.oldest()
        return Counted(found.value.of_all, found.gaps)

    def oldest(self) -> Counted[Oldest]:
        """The same, and of each index."""
        oldest_by = {
            "oldest" if n == 0 else f"oldest_{n}": {"min": {"field": name}}
            for n, name in enumerate(self._schema.timestamp_fields)
        }
        by_index = {"terms": {"field": "_index", "size": MAX_INDICES}, "aggs": oldest_by}
        aggregations: dict[str, Any] = {**oldest_by, "by_index": by_index}
        query = {"size": 0, "query": self._queries.pending(), "aggs": aggregations}
        try:
            counted = self._scope.search(_CountsAnswer, query)
        except RequestRefused:
            return Counted(Oldest())  # no index maps the time as a date: none is the oldest

        def first_of(found: dict[str, Any]) -> str | None:
            # Not `value_as_string`: where one of the indices does not map the field, or has a
            # format of its own, that is no date.
            times = [found.get(name, {}).get("value") for name in oldest_by]
            return next(iter(sorted(filter(None, map(iso_time, times)))), None)

        found = counted.value.aggregations
        buckets = found.get("by_index", {}).get("buckets", [])
        told = {bucket["key"]: first_of(bucket) for bucket in buckets}
        oldest = {index: time for index, time in told.items() if time is not None}
        return Counted(Oldest(of_all=first_of(found), by_index=oldest), counted.gaps)

    def failures(self, index: str | None, size: int = 1000) -> Counted[list[dict[str, Any]]]:
        """Documents marked failed, newest first: where, why, since when; never their text."""
        counted = self._scope.search(
            HitsAnswer,
            {
                "size": size,
                "query": {"bool": {"filter": [IS_FAILED], "must_not": [HAS_VECTOR]}},
                "sort": [{"ai_enriched_at": {"order": "desc", "unmapped_type": "date"}}],
                "_source": ["ai_enrichment_error", "ai_enriched_at", "ai_enrichment_run"],
            },
            index=index,
        )
        rows = [
            {
                "index": hit.index,
                "id": hit.id,
                "routing": hit.routing,
                "error": hit.source.get("ai_enrichment_error", ""),
                "since": hit.source.get("ai_enriched_at", ""),
                "run": hit.source.get("ai_enrichment_run", ""),
            }
            for hit in counted.value.hits.hits
        ]
        return Counted(rows, counted.gaps)

    def failure_reasons(self) -> Counted[dict[str, dict[str, int]]]:
        """How many documents are marked failed, by code and index: all of them, and at most
        MAX_INDICES indices. Another's code counts as "other"."""
        codes = {code: {"term": {"ai_enrichment_error": {"value": code}}} for code in FAILURE_CODES}
        counted = self._scope.search(
            _CountsAnswer,
            {
                "size": 0,
                "query": {"bool": {"filter": [IS_FAILED], "must_not": [HAS_VECTOR]}},
                "aggs": {
                    "why": {
                        "filters": {"filters": codes, "other_bucket_key": "other"},
                        "aggs": {"by_index": {"terms": {"field": "_index", "size": MAX_INDICES}}},
                    }
                },
            },
        )
        buckets = counted.value.aggregations.get("why", {}).get("buckets", {})
        found = {
            code: {of["key"]: int(of["doc_count"]) for of in bucket["by_index"]["buckets"]}
            for code, bucket in buckets.items()
            if bucket["doc_count"]
        }
        return Counted(found, counted.gaps)

    def matching(self, index: str) -> list[str]:
        """Indices that an expression names, also those that cannot be searched now."""
        caps = self._scope.ask(
            FieldCaps, "GET", "_field_caps", params=self._some_field, index=index
        )
        return sorted({*caps.names(), *self._scope.absent(index).indices})

    def closed(self, index: str | None) -> list[str]:
        """Closed indices that an expression, or else ENRICH_INDEX_PATTERN, takes in: nothing looks
        at them."""
        return self._scope.closed(index or self._scope.expression)

    def nearest(
        self, vector: list[float], k: int, index: str | None
    ) -> Counted[list[dict[str, Any]]]:
        """The k texts nearest to a vector: cosine (−1 … 1), in how many logs (`logs`) of which
        indices (`indices`, MAX_INDICES_OF_TEXT at most), where the nearest of them is, and its
        fields. Those whose vector is said to be of another model are left out, see `of_others`.

        The cosine is computed here: OpenSearch's score is another in each space that an index may
        have.
        """
        caps = self._scope.ask(
            FieldCaps,
            "GET",
            "_field_caps",
            params={"fields": "log_vector", "include_unmapped": "true"},
            index=index,
        )
        searchable = sorted(caps.indices_with("log_vector", ["knn_vector"]))
        # The answer names no index of which no shard answers.
        gaps = self._scope.absent(index)
        found: list[tuple[float, _Text]] = []
        for names in parts(searchable):
            texts = self._distinct(names, vector, k)
            gaps |= texts.gaps
            stored = self._vectors_of([text.hit for text in texts.value])
            found += [
                (_cosine(vector, text.hit, of_hit), text)
                for text, of_hit in zip(texts.value, stored, strict=True)
            ]
        nearest: dict[str, tuple[float, _Text]] = {}
        for cosine_of_it, text in sorted(found, key=lambda one: -one[0]):
            first = nearest.setdefault(text.key, (cosine_of_it, text))[1]
            if first is not text:
                first.logs.update(text.logs)
        rows = list(nearest.values())[:k]
        counted = self._logs_of(searchable, [text.hit for _, text in rows])
        return Counted(
            [
                _row(cosine_of_it, text.hit, text.logs | logs, self._logs.of(text.hit.source))
                for (cosine_of_it, text), logs in zip(rows, counted.value, strict=True)
            ],
            gaps | counted.gaps,
        )

    def _distinct(self, names: Sequence[str], vector: list[float], k: int) -> Counted[list[_Text]]:
        """The nearest log of each text, up to k."""
        ours = {"bool": {"must_not": [of_other_models(self._model, self._dimensions)]}}
        for size in (min(_MOST_NEAREST, 10 * k), _MOST_NEAREST):
            plain = {"vector": vector, "k": size}
            filtered = {"knn": {"log_vector": {**plain, "filter": ours}}}
            # An engine that filters only what it has found may find less than k.
            after = {"bool": {"must": [{"knn": {"log_vector": plain}}], "filter": [ours]}}
            try:
                answer = self._nearest_of(names, size, filtered)
            except RequestRefused:
                answer = self._nearest_of(names, size, after)
            found: dict[str, _Text] = {}
            for hit in answer.hits.hits:
                key = self._logs.key(hit)
                found.setdefault(key, _Text(key, hit)).logs[hit.index] += 1
            if len(found) >= k or len(answer.hits.hits) < size:
                break
        gaps = self._scope.gaps(answer, index=",".join(names))
        return Counted(list(found.values())[:k], gaps)

    def _logs_of(self, names: Sequence[str], hits: Sequence[RawHit]) -> Counted[list[Counter[str]]]:
        """In how many logs of each index the text of a hit is; none where no digest tells."""
        told = {
            str(n): {"bool": {"filter": [{"term": {DIGEST: str(hit.source[DIGEST])}}, HAS_VECTOR]}}
            for n, hit in enumerate(hits)
            if hit.source.get(DIGEST)
        }
        logs: list[Counter[str]] = [Counter() for _ in hits]
        gaps = WHOLE
        by_index = {"by_index": {"terms": {"field": "_index", "size": MAX_INDICES_OF_TEXT}}}
        for some in parts(names) if told else ():
            answer = self._connection.ask(
                _CountsAnswer,
                "POST",
                f"/{in_path(*some)}/_search",
                {
                    "size": 0,
                    "aggs": {"texts": {"filters": {"filters": told}, "aggs": by_index}},
                    **NO_PIPELINE,
                },
                LENIENT,
            )
            gaps |= self._scope.gaps(answer, index=",".join(some))
            texts = answer.aggregations.get("texts", {}).get("buckets", {})
            for n, bucket in texts.items():
                for of_index in bucket["by_index"]["buckets"]:
                    logs[int(n)][of_index["key"]] += int(of_index["doc_count"])
        return Counted(logs, gaps)

    def _nearest_of(self, names: Sequence[str], k: int, query: dict[str, Any]) -> SearchAnswer:
        return self._connection.ask(
            SearchAnswer,
            "POST",
            f"/{in_path(*names)}/_search",
            {"size": k, "query": query, "_source": [*self._logs.fields, DIGEST], **NO_PIPELINE},
            LENIENT,
        )

    def of_others(self, index: str | None) -> Counted[int]:
        """How many logs have a vector of another model, which `nearest` leaves out."""
        counted = self._scope.search(
            _TotalAnswer,
            {
                "size": 0,
                "track_total_hits": True,
                "query": of_other_models(self._model, self._dimensions),
            },
            index=index,
        )
        return Counted(counted.value.hits.total.value, counted.gaps)

    def sample(self, size: int) -> list[str]:
        """Messages of a few logs that are pending, for `check`."""
        answer = self._scope.ask(
            SearchAnswer,
            "POST",
            "_search",
            {
                "size": size,
                "query": self._queries.pending(),
                "_source": list(self._schema.message_fields),
            },
        )
        messages = (self._schema.message(hit.source) for hit in answer.hits.hits)
        return [message for message in messages if isinstance(message, str)]

    def enriched(self) -> list[tuple[str, StoredVector]]:
        """Some logs with a vector of our model, at random, of as many indices as there are: each
        with its index. To see whether the space is the same."""
        answer = self._scope.ask(
            _CountsAnswer,
            "POST",
            "_search",
            {
                "size": 0,
                "query": {"function_score": {"query": self._of_model(), "random_score": {}}},
                "aggs": {
                    "by_index": {
                        "terms": {"field": "_index", "size": SAMPLED_INDICES},
                        "aggs": {"some": {"top_hits": {"size": SAMPLES, "_source": False}}},
                    }
                },
            },
        )
        buckets = answer.aggregations.get("by_index", {}).get("buckets", [])
        hits = [
            msgspec.convert(hit, RawHit)
            for bucket in buckets
            for hit in bucket["some"]["hits"]["hits"]
        ]
        return [
            (hit.index, stored)
            for hit, stored in zip(hits, self._vectors_of(hits), strict=True)
            if stored is not None
        ]

    def count_of_model(self) -> Counted[int]:
        """How many logs have a vector of our model, whatever their level."""
        counted = self._scope.search(
            _TotalAnswer,
            {"size": 0, "track_total_hits": True, "query": self._of_model()},
            {"request_cache": "false"},
        )
        return Counted(counted.value.hits.total.value, counted.gaps)

    def _of_model(self) -> dict[str, Any]:
        return vector_of_model(self._model, self._dimensions)

    def _vectors_of(self, hits: Sequence[RawHit]) -> list[StoredVector | None]:
        # By their ids: OpenSearch 3.5 may answer a search over several indices that is to bring
        # vectors along with no hit at all, and says nothing of it.
        return self._stored.read([LogLocation(hit.index, hit.id, hit.routing) for hit in hits])


def iso_time(milliseconds: Any) -> str | None:
    """Milliseconds since 1970 as ISO 8601 in UTC; None for what is no time of years 1 to 9999."""
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float):
        return None
    try:
        moment = datetime(1970, 1, 1) + timedelta(milliseconds=milliseconds)
    except (OverflowError, ValueError):
        return None
    return moment.isoformat(timespec="milliseconds") + "Z"


#: Most logs that are looked through for texts that differ.
_MOST_NEAREST = 1000


def _row(
    cosine_of_it: float, hit: RawHit, logs: Counter[str], fields: dict[str, Any]
) -> dict[str, Any]:
    return {
        "cosine": round(cosine_of_it, 4),
        "logs": logs.total(),
        "indices": sorted(logs)[:MAX_INDICES_OF_TEXT],
        "index": hit.index,
        "id": hit.id,
        **fields,
    }


def _cosine(vector: list[float], hit: RawHit, stored: StoredVector | None) -> float:
    if stored is None:
        # Its index keeps vectors out of the source: right at least for the space of our template.
        return 2 * (hit.score or 0.0) - 1
    return cosine(vector, stored.vector)

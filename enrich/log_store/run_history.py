"""Records of runs in an index of their own, `enrich-runs`, where they outlive Redis.

Three kinds of documents: `run`, the record of a run, by its id; `totals`, what all runs together
have counted, one for each deployment; `day`, what a day cost in all, one for each day and
deployment. Written twice they are there once. Totals and days carry their own count as version, so
that an older one never takes the place of a newer.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import msgspec
from more_itertools import constrained_batches
from pydantic import ValidationError

from enrich.errors import EnrichError, TransientError
from enrich.log_store.connection import Connection, ndjson
from enrich.log_store.odd_answers import translates_odd_answers
from enrich.log_store.queries import NO_PIPELINE
from enrich.log_store.refusals import RequestRefused, RightMissing, translated
from enrich.models import COUNTERS, DaySums, RunRecord
from enrich.settings import RUNS_INDEX as INDEX

log = logging.getLogger(__name__)

#: Characters of a sentence, and entries of a mapping, that are kept of a record: reasons and names
#: come from servers and from whoever makes indices.
MOST_CHARACTERS, MOST_ENTRIES = 1000, 1000

#: Bounds of one bulk body and of one search for old records.
MAX_BODY_BYTES, MAX_BODY_DOCUMENTS, FORGOTTEN_AT_ONCE = 5 * 1024 * 1024, 200, 1000

#: Rounds of deleting old records in one go.
FORGETTING_ROUNDS = 50

_NUMBERS = {name: {"type": "long"} for name in COUNTERS}
#: Names in them come from outside: they become no fields.
_OPAQUE = {"type": "object", "enabled": False}

#: How the index is made. Small: one shard, and copies only where there are nodes for them.
CONTENT: dict[str, Any] = {
    "settings": {
        "index.number_of_shards": 1,
        "index.auto_expand_replicas": "0-1",
    },
    "mappings": {
        # What a newer version adds is stored, and searched for by nobody.
        "dynamic": False,
        "properties": {
            "kind": {"type": "keyword"},
            "deployment": {"type": "keyword"},
            "run_id": {"type": "keyword"},
            "number": {"type": "long"},
            "trigger": {"type": "keyword"},
            "state": {"type": "keyword"},
            "started_at": {"type": "date"},
            "finished_at": {"type": "date"},
            "duration_seconds": {"type": "double"},
            "estimated_cost_usd": {"type": "double"},
            "day": {"type": "date", "format": "strict_date"},
            "spent_micro_usd": {"type": "long"},
            **_NUMBERS,
            "skipped_indices": _OPAQUE,
            "deferral_reasons": _OPAQUE,
            "retry_reasons": _OPAQUE,
            "totals": _OPAQUE,
        },
    },
}

#: The same as an index template of the index's name: for whoever deletes the index.
TEMPLATE: dict[str, Any] = {"index_patterns": [INDEX], "priority": 500, "template": CONTENT}

_PATH = f"/{INDEX}"
#: An index that is not there has no records.
_IF_THERE = {"ignore_unavailable": "true", "allow_no_indices": "true"}
_SUMS = ("found", "vectors_written", "api_inputs", "api_tokens", "duplicate", "cached", "reused")


class _Total(msgspec.Struct):
    value: int = 0


class _Hit(msgspec.Struct, kw_only=True):
    id: str = msgspec.field(name="_id")
    source: dict[str, Any] = msgspec.field(name="_source", default_factory=dict)


class _Hits(msgspec.Struct):
    hits: list[_Hit] = []


class _Answer(msgspec.Struct):
    hits: _Hits = msgspec.field(default_factory=_Hits)
    aggregations: dict[str, Any] = {}
    timed_out: bool = False


class _BulkAnswer(msgspec.Struct):
    items: list[dict[str, dict[str, Any]]]


@translates_odd_answers
class RunHistory:
    """The records of one deployment. Every method raises EnrichError."""

    def __init__(self, connection: Connection, deployment: str) -> None:
        """Args: deployment: ENRICH_REDIS_PREFIX: tells deployments of one OpenSearch apart."""
        self._connection = connection
        # A part of ids, which have at most 512 bytes.
        short = len(deployment.encode()) <= 200
        self._deployment = deployment if short else sha256(deployment.encode()).hexdigest()

    # -- writing

    def make(self) -> None:
        """Make the index, and its template where OPENSEARCH_USER may put one; harmless if it is
        there."""
        try:
            self._connection.request("PUT", f"/_index_template/{INDEX}", TEMPLATE)
        except (RightMissing, RequestRefused):
            # Only for an index that somebody deletes; this one is made as it should be anyway.
            log.debug("the template %s was not put", INDEX)
        self.create()

    def create(self) -> None:
        """Make the index alone."""
        try:
            self._connection.request("PUT", _PATH, CONTENT)
        except RequestRefused as error:
            if error.error_type != "resource_already_exists_exception":
                raise

    def is_there(self) -> bool:
        """Whether the index is there."""
        try:
            self._connection.request("POST", f"{_PATH}/_search", {"size": 0})
        except RequestRefused as error:
            if error.status != 404:
                raise
            return False
        return True

    def write(
        self,
        records: Sequence[RunRecord],
        totals: Mapping[str, int],
        days: Mapping[str, int],
    ) -> None:
        """Write records, the totals, and what days cost; all of it, or an error is raised.

        Args:
            totals: by their names in Redis.
            days: micro-dollars by day, as `2026-11-29`.
        """
        if not self.is_there():
            # Else the first write would make it, with whatever mapping it likes.
            self.make()
        items = [self._of_run(record) for record in records]
        items += [self._of_day(day, micro) for day, micro in days.items()]
        if totals:
            items.append(self._of_totals(totals))
        for batch in constrained_batches(
            (ndjson(list(item)) for item in items),
            MAX_BODY_BYTES,
            MAX_BODY_DOCUMENTS,
            strict=False,
        ):
            self._bulk(b"".join(batch))

    def forget(self, before: datetime) -> int:
        """Delete the runs and days of this deployment that are older; how many there were."""
        aged = {
            "bool": {
                "filter": [self._own],
                "should": [
                    {"range": {"started_at": {"lt": _millis(before), "format": "epoch_millis"}}},
                    {"range": {"day": {"lt": f"{before:%Y-%m-%d}"}}},
                ],
                "minimum_should_match": 1,
                "must_not": [{"term": {"kind": "totals"}}],
            }
        }
        gone = 0
        for _ in range(FORGETTING_ROUNDS):
            answer = self._search({"size": FORGOTTEN_AT_ONCE, "query": aged, "_source": False})
            if not answer.hits.hits:
                break
            rows = [{"delete": {"_index": INDEX, "_id": hit.id}} for hit in answer.hits.hits]
            self._bulk(ndjson(rows))
            gone += len(rows)
        return gone

    def try_rights(self) -> None:
        """Do once what writing and forgetting need, without a trace but the index itself.

        Raises RightMissing: names a right.
        """
        # Whether it may be made shows where it is there, too.
        self.create()
        self.is_there()
        nobody = {"_index": INDEX, "_id": "try"}
        never = {"if_seq_no": 2**40, "if_primary_term": 2**40}
        rows = [{"index": nobody | never}, {"kind": "try"}]
        self._bulk(ndjson(rows), conflicts=True)
        self._bulk(ndjson([{"delete": nobody}]), conflicts=True)

    # -- reading

    def page(
        self,
        count: int,
        *,
        before: RunRecord | None = None,
        without: Collection[str] = (),
        busy: bool = False,
    ) -> list[RunRecord]:
        """The last runs, those begun last first, without their skipped indices.

        Args:
            before: only those that were begun before it.
            without: ids that are left out.
            busy: only those that found logs, or did not end well.
        """
        body: dict[str, Any] = {
            "size": count,
            "query": self._runs(without=without, busy=busy),
            "sort": [{"started_at": "desc"}, {"run_id": "desc"}],
            "_source": {"excludes": ["skipped_indices"]},
        }
        if before is not None and before.started_at is not None:
            body["search_after"] = [_millis(before.started_at), before.run_id]
        return list(_records(self._search(body)))

    def of(self, run: str) -> RunRecord | None:
        """The record of a run by its id; None for one that is not there."""
        return next(_records(self._search(self._one({"term": {"run_id": run}}))), None)

    def numbered(self, number: int) -> RunRecord | None:
        """The same by its number; of several, the one begun last."""
        if number >= 2**63:
            return None
        return next(_records(self._search(self._one({"term": {"number": number}}))), None)

    def like(self, run: str, count: int) -> list[str]:
        """Ids of runs that are like this one."""
        near = [
            {"prefix": {"run_id": run}},
            {"fuzzy": {"run_id": {"value": run, "fuzziness": 2, "prefix_length": 0}}},
        ]
        query = self._runs() | {}
        query["bool"] |= {"should": near, "minimum_should_match": 1}
        answer = self._search({"size": count, "query": query, "_source": ["run_id"]})
        return [str(hit.source["run_id"]) for hit in answer.hits.hits]

    def count(self) -> int:
        """How many runs there are."""
        body = {"size": 0, "track_total_hits": True, "query": self._runs()}
        answer = self._connection.ask(
            dict[str, Any], "POST", f"{_PATH}/_search", body | NO_PIPELINE, _IF_THERE
        )
        return int(answer["hits"]["total"]["value"])

    def totals(self) -> dict[str, int]:
        """What all runs together had counted when this was last written; empty if never."""
        query = {"bool": {"filter": [self._own, {"term": {"kind": "totals"}}]}}
        hits = self._search({"size": 1, "query": query}).hits.hits
        counted = hits[0].source["totals"] if hits else {}
        return {str(name): int(count) for name, count in counted.items()}

    def days(self, first: datetime, *, without: Collection[str] = ()) -> dict[str, DaySums]:
        """Sums by day (UTC) of the runs begun since midnight of `first`; days without any are left
        out. Of cost, what is greater: that of its runs, or what all together spent on it."""
        since = f"{first:%Y-%m-%d}"
        sums = {name: {"sum": {"field": name}} for name in (*_SUMS, "estimated_cost_usd")}
        body = {
            "size": 0,
            "aggs": {
                "runs": {
                    "filter": {
                        "bool": {
                            "must": [self._runs(without=without)],
                            "filter": [{"range": {"started_at": {"gte": since}}}],
                        }
                    },
                    "aggs": {
                        "days": {
                            "date_histogram": {
                                "field": "started_at",
                                "calendar_interval": "day",
                                "format": "yyyy-MM-dd",
                                "min_doc_count": 1,
                            },
                            "aggs": sums,
                        }
                    },
                },
                "spent": {
                    "filter": {
                        "bool": {
                            "filter": [
                                self._own,
                                {"term": {"kind": "day"}},
                                {"range": {"day": {"gte": since}}},
                            ]
                        }
                    },
                    "aggs": {
                        "days": {
                            "date_histogram": {
                                "field": "day",
                                "calendar_interval": "day",
                                "format": "yyyy-MM-dd",
                                "min_doc_count": 1,
                            },
                            "aggs": {"spent": {"max": {"field": "spent_micro_usd"}}},
                        }
                    },
                },
            },
        }
        found = self._search(body).aggregations
        if not found:
            return {}
        days = {
            bucket["key_as_string"]: DaySums(
                runs=bucket["doc_count"],
                runs_cost_usd=bucket["estimated_cost_usd"]["value"],
                cost_usd=bucket["estimated_cost_usd"]["value"],
                **{name: int(bucket[name]["value"]) for name in _SUMS},
            )
            for bucket in found["runs"]["days"]["buckets"]
        }
        for bucket in found["spent"]["days"]["buckets"]:
            day = days.setdefault(bucket["key_as_string"], DaySums())
            spent = (bucket["spent"]["value"] or 0) / 1e6
            days[bucket["key_as_string"]] = day.spending_at_least(spent)
        return days

    # -- documents

    @property
    def _own(self) -> dict[str, Any]:
        return {"term": {"deployment": self._deployment}}

    def _runs(self, *, without: Collection[str] = (), busy: bool = False) -> dict[str, Any]:
        filters: list[dict[str, Any]] = [self._own, {"term": {"kind": "run"}}]
        excluded: list[dict[str, Any]] = []
        if without:
            excluded.append({"terms": {"run_id": sorted(without)}})
        if busy:
            excluded.append(
                {"bool": {"filter": [{"term": {"state": "finished"}}, {"term": {"found": 0}}]}}
            )
        return {"bool": {"filter": filters, "must_not": excluded}}

    def _one(self, term: dict[str, Any]) -> dict[str, Any]:
        query = self._runs()
        query["bool"]["filter"].append(term)
        return {"size": 1, "query": query, "sort": [{"started_at": "desc"}]}

    def _of_run(self, record: RunRecord) -> tuple[dict[str, Any], dict[str, Any]]:
        action = {"index": {"_index": INDEX, "_id": record.run_id}}
        return action, self._marked("run") | bounded(record.model_dump(mode="json"))

    def _of_totals(self, totals: Mapping[str, int]) -> tuple[dict[str, Any], dict[str, Any]]:
        where = {"_index": INDEX, "_id": f"totals {self._deployment}"}
        # Each run that begins or ends, and each tick, makes it greater.
        version = {"version": 1 + sum(totals.values()), "version_type": "external_gte"}
        return {"index": where | version}, self._marked("totals") | {"totals": dict(totals)}

    def _of_day(self, day: str, micro_usd: int) -> tuple[dict[str, Any], dict[str, Any]]:
        where = {"_index": INDEX, "_id": f"day {self._deployment} {day}"}
        version = {"version": 1 + micro_usd, "version_type": "external_gte"}
        fields = {"day": day, "spent_micro_usd": micro_usd}
        return {"index": where | version}, self._marked("day") | fields

    def _marked(self, kind: str) -> dict[str, Any]:
        return {"kind": kind, "deployment": self._deployment}

    # -- requests

    def _search(self, body: dict[str, Any]) -> _Answer:
        answer = self._connection.ask(
            _Answer, "POST", f"{_PATH}/_search", body | NO_PIPELINE, _IF_THERE
        )
        return answer

    def _bulk(self, body: bytes, *, conflicts: bool = False) -> None:
        """Args: conflicts: whether a version that is not there is no error."""
        answer = self._connection.ask(
            # Visible at once: who reads it next must not find less than before.
            _BulkAnswer, "POST", "/_bulk", body, {"refresh": "true"},
        )  # fmt: skip
        for row in answer.items:
            for item in row.values():
                if problem := self._problem(item, conflicts=conflicts):
                    raise problem

    def _problem(self, item: Mapping[str, Any], *, conflicts: bool) -> EnrichError | None:
        error = item.get("error")
        if not error:
            return None
        kind = str(error.get("type", ""))
        if kind == "version_conflict_engine_exception":
            # A newer one is there.
            return None
        if kind == "security_exception":
            return translated(403, {"error": error}, self._connection.url)
        if kind == "cluster_block_exception":
            return TransientError(f"OpenSearch takes no writes into {INDEX} now ({kind})")
        return TransientError(f"OpenSearch did not take a document of {INDEX} ({kind})")


def bounded(value: Any) -> Any:
    """What is kept of a record: sentences, names and mappings of bounded length."""
    if isinstance(value, str):
        # Half characters are no UTF-8, and no server takes them.
        text = value.encode(errors="replace").decode()
        return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…"
    if isinstance(value, dict):
        return {bounded(k): bounded(v) for k, v in list(value.items())[:MOST_ENTRIES]}
    return value


def _records(answer: _Answer) -> Iterator[RunRecord]:
    for hit in answer.hits.hits:
        source = {n: v for n, v in hit.source.items() if n not in ("kind", "deployment")}
        try:
            yield RunRecord.model_validate(source)
        except ValidationError:
            # Put there by somebody else. It must not hide the others.
            log.warning("a document of %s is no record of a run, and is left out", INDEX)


def _millis(moment: datetime) -> int:
    return round(moment.astimezone(UTC).timestamp() * 1000)

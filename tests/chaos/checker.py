"""The judge of the chaos matrix: what must hold after every fault, read without the product's code.

It asks OpenSearch over plain HTTP, reads the run records as the Redis hashes they are, and knows
the right vector of every text from the embedding model itself. It imports nothing of the product,
so that an error of the product cannot hide behind the same error in its judge.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2
import numpy as np
import redis

from dev.embedding_model import Model

Key = tuple[str, str]

#: All that may be added to a document; everything else must stay as it was.
ADDED = frozenset(
    {
        "log_vector",
        "ai_enriched_at",
        "ai_enrichment_method",
        "ai_enrichment_run",
        "ai_enrichment_status",
        "ai_enrichment_error",
        "ai_embedding_model",
        "ai_embedding_dimensions",
        "ai_text_sha256",
        "ai_vector_source",
    }
)

OUTCOMES = (
    "embedded",
    "duplicate",
    "cached",
    "reused",
    "already_vectorized",
    "gone",
    "failed",
    "deferred",
)
WRITTEN = OUTCOMES[:4]

#: Begins the name of what consumers of Kafka write in, which is no run of the backfill.
REALTIME = "realtime-"

#: Sentences of one kind that are told; a broken row would otherwise tell hundreds.
TOLD = 3


@dataclass(kw_only=True)
class Truth:
    """What is known about the documents, independently of what the product did."""

    #: Every document as it was before the drain, or as a fault has changed it since.
    sources: dict[Key, dict[str, Any]] = field(default_factory=dict)
    #: Deleted by the fault.
    gone: set[Key] = field(default_factory=set)
    #: Replaced by the fault: what a run had written to them is no longer there to be counted.
    replaced: set[Key] = field(default_factory=set)
    #: Documents that must be marked failed, and the reason that must stand on them.
    failing: dict[Key, str] = field(default_factory=dict)
    #: Documents that OpenSearch refuses to change at all: nothing must be written to them.
    unmarkable: set[Key] = field(default_factory=set)
    #: Vectors that the fault wrote in another writer's name; they must stand.
    theirs: dict[Key, list[float]] = field(default_factory=dict)
    #: Texts that were owed at any time.
    texts: set[str] = field(default_factory=set)
    #: Inputs that may be paid beyond 1.02 × distinct texts, because the fault cut their answers.
    cut_inputs: int = 0
    #: Redis lost its data: runs from before are unknown, rightly.
    redis_lost: bool = False

    def owe(self, key: Key, source: dict[str, Any]) -> None:
        """Take over a document as it is now."""
        self.sources[key] = source
        text = text_of(source)
        if is_owed(source) and text:
            self.texts.add(text)
        if is_owed(source) and not text:
            self.failing[key] = "message_empty"


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What the checker saw: the numbers of the table, and every broken promise as a sentence."""

    violations: list[str]
    documents: int
    outcomes: Counter[str]
    paid: int
    distinct: int


class Checker:
    """Judges one deployment: one OpenSearch, one key prefix of one Redis."""

    def __init__(
        self, opensearch_url: str, redis_url: str, prefix: str, model: Model, **client: Any
    ) -> None:
        """
        Args:
            client: how to log in to OpenSearch, as httpx2 takes it.
        """
        # A node that has just been through a fault, on a machine under load, may take its time.
        self._http = httpx2.Client(base_url=opensearch_url, timeout=120, **client)
        self._redis = redis.Redis.from_url(redis_url, decode_responses=False)
        self._prefix = prefix
        self._model = model

    def close(self) -> None:
        self._http.close()
        self._redis.close()

    def owed(self, truth: Truth) -> int:
        """ERROR logs without a vector that are not marked failed, by OpenSearch's count."""
        # Of these alone: a dead shard elsewhere may never answer.
        self._post(f"/{self._indices(truth)}/_refresh")
        query = {
            "bool": {
                "filter": [{"term": {"level": "ERROR"}}],
                "must_not": [
                    {"exists": {"field": "log_vector"}},
                    {"term": {"ai_enrichment_status": "failed"}},
                    {"ids": {"values": sorted(id for _, id in truth.unmarkable)}},
                ],
            }
        }
        return int(self._post(f"/{self._indices(truth)}/_count", {"query": query})["count"])

    def read(self, indices: Iterable[str]) -> dict[Key, dict[str, Any]]:
        """All documents with their source, each with its `_version` beside it."""
        found: dict[Key, dict[str, Any]] = {}
        for index in indices:
            self._post(f"/{index}/_refresh")
            hits = self._post(
                f"/{index}/_search",
                {"size": 10_000, "version": True, "query": {"match_all": {}}},
            )["hits"]["hits"]
            found |= {(index, hit["_id"]): hit for hit in hits}
        return found

    def check(self, truth: Truth, paid: int) -> Findings:
        """Everything that must hold once the fault is over and the backlog is through."""
        live = {index for index, _ in truth.sources.keys() - truth.gone}
        stored = self.read(sorted(live))
        runs = self._runs()
        broken = self._created(live)
        broken += _shortened(self._documents(truth, stored))
        broken += _shortened(self._records(truth, runs, stored))
        broken += self._money(truth, paid)
        outcomes: Counter[str] = Counter()
        for record in runs.values():
            outcomes.update({name: _int(record, name) for name in OUTCOMES if _int(record, name)})
        documents = sum(1 for source in truth.sources.values() if source.get("level") == "ERROR")
        return Findings(
            violations=broken,
            documents=documents,
            outcomes=outcomes,
            paid=paid,
            distinct=len(truth.texts),
        )

    # -- 1 and 2: the documents

    def _created(self, live: set[str]) -> list[str]:
        answer = self._http.get("/_cat/indices?format=json&h=index&expand_wildcards=all")
        answer.raise_for_status()
        there = {row["index"] for row in answer.json() if not row["index"].startswith(".")}
        return [f"an index was created: {name}" for name in sorted(there - live)]

    def _documents(self, truth: Truth, stored: Mapping[Key, dict[str, Any]]) -> list[str]:
        broken: list[str] = []
        wanted: list[tuple[Key, str]] = []
        for key in stored:
            if key not in truth.sources or key in truth.gone:
                broken.append(f"a document appeared that nobody wrote: {_name(key)}")
        for key, before in truth.sources.items():
            if key in truth.gone:
                continue
            if key not in stored:
                broken.append(f"a document is lost: {_name(key)}")
                continue
            now = stored[key]["_source"]
            for name in sorted(before.keys() | now.keys()):
                owed = is_owed(before) and key not in truth.unmarkable
                ours = name in ADDED and (owed or key in truth.theirs)
                if not ours and not _same(before.get(name), now.get(name)):
                    broken.append(f"field {name} was changed: {_name(key)}")
            if key in truth.theirs:
                if not _same(truth.theirs[key], now.get("log_vector")):
                    broken.append(f"another writer's vector was overwritten: {_name(key)}")
            elif not is_owed(before) or key in truth.unmarkable:
                if key not in truth.replaced and stored[key]["_version"] != 1:
                    broken.append(f"a document that was not owed was written: {_name(key)}")
            elif now.get("ai_enrichment_status") == "failed":
                reason, expected = now.get("ai_enrichment_error"), truth.failing.get(key)
                if reason != expected:
                    broken.append(
                        f"marked failed as {reason}, expected was {expected}: {_name(key)}"
                    )
                if "log_vector" in now:
                    broken.append(f"marked failed, with a vector: {_name(key)}")
            elif key in truth.failing:
                broken.append(f"not marked failed as {truth.failing[key]}: {_name(key)}")
            elif "log_vector" not in now:
                broken.append(f"an ERROR log has no vector: {_name(key)}")
            else:
                wanted.append((key, text_of(now)))
        vectors = self._model.embed([text for _, text in wanted]) if wanted else []
        for (key, text), right in zip(wanted, vectors, strict=True):
            now = stored[key]["_source"]
            if not np.array_equal(np.asarray(now["log_vector"], dtype=np.float32), right):
                broken.append(f"the vector is not that of its own text: {_name(key)}")
            if now.get("ai_text_sha256") != hashlib.sha256(text.encode()).hexdigest():
                broken.append(f"the fingerprint is not that of its own text: {_name(key)}")
            if now.get("ai_enrichment_status") != "success":
                broken.append(f"a vector without the status success: {_name(key)}")
        return broken

    # -- 3 and 4: the records

    def _records(
        self,
        truth: Truth,
        runs: Mapping[str, Mapping[str, str]],
        stored: Mapping[Key, dict[str, Any]],
    ) -> list[str]:
        broken: list[str] = []
        active = self._redis.get(self._prefix + "active_run")
        if active:
            broken.append(f"run {_text(active)} stays open")
        counted: Counter[str] = Counter(
            str(hit["_source"]["ai_enrichment_run"])
            for hit in stored.values()
            if not str(hit["_source"].get("ai_enrichment_run", REALTIME)).startswith(REALTIME)
            and "log_vector" in hit["_source"]
        )
        lost = len(truth.replaced | truth.gone)
        for run, record in runs.items():
            if "state" not in record:
                broken.append(f"run {run} is a record without a state: {sorted(record)}")
                continue
            settled = {name: _int(record, name) for name in OUTCOMES}
            if sum(settled.values()) != _int(record, "found"):
                broken.append(f"run {run} found {_int(record, 'found')}, its outcomes: {settled}")
            written = _int(record, "vectors_written")
            if written != sum(settled[name] for name in WRITTEN):
                broken.append(f"run {run} wrote {written} vectors, its outcomes: {settled}")
            if not counted[run] <= written <= counted[run] + lost:
                broken.append(
                    f"run {run} says {written} vectors written, OpenSearch has {counted[run]}"
                )
            if record["state"] == "running":
                broken.append(f"run {run} is still running")
            if still := self._redis.hlen(f"{self._prefix}run:{run}:open"):
                broken.append(f"run {run} has {still} open chunks")
        if not truth.redis_lost and (unknown := counted.keys() - runs.keys()):
            broken.append(f"vectors of runs that Redis does not know: {sorted(unknown)}")
        totals = self._hash("totals")
        known = [record for record in runs.values() if "state" in record]
        sums = {
            "runs": len(known),
            "vectors": sum(_int(record, "vectors_written") for record in known),
            "errors": sum(_int(record, "errors") for record in known),
        }
        for name, expected in sums.items():
            if _int(totals, name) != expected:
                broken.append(f"totals say {_int(totals, name)} {name}, the runs sum to {expected}")
        return broken

    # -- 5: the bill

    def _money(self, truth: Truth, paid: int) -> list[str]:
        most = 1.02 * len(truth.texts) + truth.cut_inputs
        if paid <= most:
            return []
        return [
            f"{paid} inputs were paid for {len(truth.texts)} distinct texts "
            f"and {truth.cut_inputs} cut off by the fault"
        ]

    # -- reading

    def _runs(self) -> dict[str, dict[str, str]]:
        """Every run hash there is, listed or not."""
        pattern = f"{self._prefix}run:*"
        names = {_text(key)[len(self._prefix) + 4 :] for key in self._redis.scan_iter(pattern)}
        return {
            name: record
            for name in names
            if ":" not in name and (record := self._hash(f"run:{name}"))
        }

    def _hash(self, name: str) -> dict[str, str]:
        raw = self._redis.hgetall(self._prefix + name)
        return {_text(k): _text(v) for k, v in raw.items()}

    def _indices(self, truth: Truth) -> str:
        return ",".join(sorted({index for index, _ in truth.sources.keys() - truth.gone}))

    def _post(self, path: str, body: Any = None) -> Any:
        answer = self._http.post(path, json=body) if body is not None else self._http.post(path)
        answer.raise_for_status()
        return answer.json()


def is_owed(source: Mapping[str, Any]) -> bool:
    """Whether a document as it was before is one that must get a vector."""
    return source.get("level") == "ERROR" and "log_vector" not in source


def text_of(source: Mapping[str, Any]) -> str:
    """The text that is embedded; the matrix uses none that is long enough to be cut."""
    return str(source.get("message", "")).strip()


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other) > 100:
        # OpenSearch keeps a vector as float32, and gives it back so.
        return bool(
            np.array_equal(np.asarray(one, dtype=np.float32), np.asarray(other, dtype=np.float32))
        )
    return bool(one == other)


def _shortened(sentences: list[str]) -> list[str]:
    kinds: Counter[str] = Counter()
    told = []
    for sentence in sentences:
        kind = sentence.partition(": ")[0]
        kinds[kind] += 1
        if kinds[kind] <= TOLD:
            told.append(sentence)
    told += [f"{kind}: {n} in all" for kind, n in kinds.items() if n > TOLD]
    return told


def _name(key: Key) -> str:
    return f"{key[0]}/{key[1]}"


def _int(record: Mapping[str, str], name: str) -> int:
    return int(record.get(name, 0))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)

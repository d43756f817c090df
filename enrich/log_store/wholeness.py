"""Whether a document would be written back whole, and taken: tried on a few logs of each index.

Before a text is bought, and again before what was read is written. Nothing is changed by it:

- a partial `update` under a version that no document has. A conflict means that it may be written.
  Where OpenSearch's security plugin hides a part from our user, it refuses every `update`.
- the source as it was read is sent back in a script that compares it with the stored one and never
  writes. It differs where anything between us and the stored document leaves out or changes a part:
  a proxy, a filter, another plugin.
- the very write of a vector, under a version that no document has: the mapping, the index's limits
  and k-NN have their say before the version has.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import msgspec
import numpy as np
from more_itertools import constrained_batches, sliced

from enrich.errors import TransientError
from enrich.log_store.connection import Connection
from enrich.log_store.documents import (
    Addition,
    Document,
    Documents,
    Presence,
    Write,
    address,
    encode_vector,
    encode_write,
)
from enrich.log_store.odd_answers import translates_odd_answers
from enrich.log_store.pages import Finder, Hit
from enrich.log_store.paths import in_path
from enrich.log_store.preflight import APPEND_ONLY, Readiness
from enrich.log_store.refusals import RequestRefused, RightMissing, rights_in, role_advice
from enrich.log_store.reusable import ReusableVectors
from enrich.models import METHOD, Outcome, Reference
from enrich.settings import Settings
from enrich.vectors import BYTES

log = logging.getLogger(__name__)

#: Newest logs of each index that are looked at, and how many of them a write is tried on.
LOOKED_AT = 10
TRIED = 3

#: Indices looked at in one request: their messages come along.
_ABREAST = 40

#: Characters of a source beyond which it is not sent back to be compared.
_MOST_COMPARED = 512 * 1024

#: Bytes of one bulk of trials.
_BODY_BYTES = 4 * 1024 * 1024

#: Seconds for which a process does not try again what was right: rights change under way as well.
VOUCHED_SECONDS = 10.0

#: Where our fields are not mapped yet.
_NOTHING = Addition({})

#: No document ever had this many changes.
_NO_VERSION = {"if_seq_no": 2**62, "if_primary_term": 2**62}

#: Never writes. The longer comparison is for sources that came in another form than JSON, of whose
#: numbers only the class is another once they are JSON.
_COMPARE = """
boolean same(def a, def b) {
  if (a == null || b == null) { return a == b; }
  if (a instanceof Map && b instanceof Map) {
    if (a.size() != b.size()) { return false; }
    for (def e : a.entrySet()) {
      if (!b.containsKey(e.getKey()) || !same(e.getValue(), b.get(e.getKey()))) { return false; }
    }
    return true;
  }
  if (a instanceof List && b instanceof List) {
    if (a.size() != b.size()) { return false; }
    for (int i = 0; i < a.size(); i++) { if (!same(a.get(i), b.get(i))) { return false; } }
    return true;
  }
  if (a instanceof Number && b instanceof Number) { return a.toString().equals(b.toString()); }
  return a.equals(b);
}
if (ctx._source.equals(params.source) || same(ctx._source, params.source)) { ctx.op = 'none'; }
else { throw new UnsupportedOperationException(); }
"""
_DIFFERS = "unsupported_operation_exception"

#: Trouble that passes by itself; tried so often before the index is left to the next run.
_PASSING = frozenset(
    {
        "es_rejected_execution_exception",
        "opensearch_rejected_execution_exception",
        "rejected_execution_exception",
        "circuit_breaking_exception",
    }
)
_ATTEMPTS = 3
_PAUSE_SECONDS = 0.5

#: What speaks against the one document and not against its index.
_STRICT = "strict_dynamic_mapping_exception"
_OF_THE_DOCUMENT = frozenset(
    {
        _STRICT,
        "mapper_parsing_exception",
        "illegal_argument_exception",
        "document_parsing_exception",
        "parsing_exception",
    }
)

_MAY_NOT_WRITE = "OPENSEARCH_USER may not write to it (403"
PARTLY_HIDDEN = (
    "OpenSearch shows only a part of it to OPENSEARCH_USER (field-level security, masked fields or "
    "document-level security), so that a log could not be written back whole: use a role without "
    "fls, masked_fields and dls for it"
)
ALTERED = (
    "its logs do not arrive as they are stored, so that they could not be written back whole: look "
    "for a proxy or a plugin before OpenSearch that leaves out or changes parts of answers"
)
NO_TEXT = (
    "none of its newest {} ERROR logs has a text in {}, and no log of it has a vector: its "
    "text seems to be in another field; {}"
)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A document that a write is tried on."""

    document: Document
    #: What would be added to it; None where no whole write is tried.
    addition: Addition | None = None
    #: Whether its index is written by `update`, because `index` would run a pipeline.
    by_update: bool = False


#: What does not pass until somebody changes it.
_LASTING = (_MAY_NOT_WRITE, PARTLY_HIDDEN, ALTERED, APPEND_ONLY)


class Item(msgspec.Struct):
    """OpenSearch's answer to one line of a bulk."""

    status: int = 0
    result: str = ""
    error: dict[str, Any] | None = None

    @property
    def kind(self) -> str:
        return str((self.error or {}).get("type", ""))

    @property
    def causes(self) -> list[str]:
        """The types of all errors behind it, itself the first."""
        found = []
        error: Any = self.error
        while isinstance(error, dict):
            found.append(str(error.get("type", "")))
            error = error.get("caused_by")
        return found


class _Answer(msgspec.Struct):
    items: list[dict[str, Item]]


@translates_odd_answers
class Wholeness:
    """Tries writes without carrying one out."""

    def __init__(
        self,
        connection: Connection,
        finder: Finder,
        reusable: ReusableVectors,
        documents: Documents,
        settings: Settings,
    ) -> None:
        self._connection = connection
        self._schema = settings.log_schema
        self._finder = finder
        self._reusable = reusable
        self._documents = documents
        vector = np.zeros(settings.embedding_dimensions, dtype=BYTES)
        vector[0] = 1
        self._addition = Addition(
            {
                "ai_enriched_at": "2026-01-01T00:00:00.000Z",
                "ai_enrichment_method": METHOD,
                "ai_enrichment_run": "trial",
                "ai_enrichment_status": "success",
                "ai_embedding_model": settings.embedding_model,
                "ai_embedding_dimensions": settings.embedding_dimensions,
                "ai_text_sha256": "0" * 64,
                "ai_vector_source": Outcome.EMBEDDED.value,
            },
            encode_vector(vector),
        )
        #: Until when an index needs no further trial in this process, in monotonic seconds.
        self._vouched: dict[str, float] = {}

    def survey(
        self, indices: Sequence[str], ready: Readiness, unsorted: frozenset[str]
    ) -> dict[str, str]:
        """Why indices should not be enriched, of those that owe logs; tried on their newest ones.

        Args:
            ready: what the preflight found of them.
            unsorted: those that have to be read by their order of change.

        Raises:
            TransientError, AccessRefused
        """
        refused: dict[str, str] = {}
        for names in sliced(indices, _ABREAST):
            sizes = {name: min(LOOKED_AT, ready.windows.get(name, LOOKED_AT)) for name in names}
            pages = self._finder.newest(sizes, unsorted)
            refused |= self._without_text({page.index: page.hits for page in pages}, ready)
            fit = {page.index: page.hits for page in pages if page.index not in refused}
            trials, unread = self._trials(fit, ready)
            refused |= unread | self._refusing(trials)
        return refused

    def _without_text(self, hits: dict[str, list[Hit]], ready: Readiness) -> dict[str, str]:
        """Indices of which no log that was looked at has a text, by which it is the wrong field and
        not a wrong log."""
        suspects = {
            index: len(found)
            for index, found in hits.items()
            if found
            and not any((hit.message or "").strip() for hit in found)
            and (index in ready.textless or len(found) >= LOOKED_AT)
        }
        known = self._reusable.indices_with_vectors(list(suspects))
        return {
            index: known.gaps.indices.get(index) or self._no_text(looked_at)
            for index, looked_at in suspects.items()
            if index not in known.value
        }

    def _no_text(self, looked_at: int) -> str:
        advice = (
            "have it written to `message`, for instance by an ingest pipeline"
            if self._schema.is_plain
            else "set ENRICH_TEXT_FIELDS to that"
        )
        return NO_TEXT.format(looked_at, self._schema.texts_told, advice)

    def _trials(
        self, found: dict[str, list[Hit]], ready: Readiness
    ) -> tuple[list[Trial], dict[str, str]]:
        """The smallest logs of each index, and why indices may not be read; what is too large is
        not read for it."""
        trials: list[Trial] = []
        references: list[Reference] = []
        for hits in found.values():
            smallest = sorted(hits, key=lambda hit: hit.size)[:TRIED]
            fitting = [hit.reference for hit in smallest if hit.size <= _MOST_COMPARED]
            references += fitting
            if smallest and not fitting:
                trials.append(Trial(document=_unread(smallest[0].reference)))
        documents = self._documents.read(references)
        trials += [
            Trial(
                document=document,
                # Where fields are still to be mapped, they would be mapped by guess.
                addition=_NOTHING if document.reference.index in ready.lacking else self._addition,
                by_update=document.reference.index in ready.update_only,
            )
            for document in documents
            if document.presence is Presence.FOUND
        ]
        return trials, {
            each.reference.index: each.forbidden for each in documents if each.forbidden
        }

    def _refusing(self, trials: Sequence[Trial]) -> dict[str, str]:
        """As `objections`; the vector is tried on one log of each index, and on the others only
        where that one is refused for itself."""
        first: dict[str, Trial] = {}
        for trial in trials:
            first.setdefault(trial.document.reference.index, trial)
        cheap = [
            trial
            if trial is first[trial.document.reference.index]
            else replace(trial, addition=None)
            for trial in trials
        ]
        told = self._told(cheap)
        doubtful = {i for i, each in told.items() if not _OF_THE_DOCUMENT.isdisjoint(each)}
        if doubtful:
            told |= self._told([t for t in trials if t.document.reference.index in doubtful])
        return _verdicts(told)

    def doubts(self, documents: Iterable[Document]) -> dict[str, str]:
        """Why documents that were just read should not be written back, by index.

        What passes, such as a block, is left to the write itself. What was right a moment ago is
        not tried again, see VOUCHED_SECONDS.
        """
        now = time.monotonic()
        unproven: defaultdict[str, list[Document]] = defaultdict(list)
        for document in documents:
            index = document.reference.index
            if self._vouched.get(index, 0) <= now:
                unproven[index].append(document)
        trials = [Trial(document=min(some, key=_telling)) for some in unproven.values()]
        found = self.objections(trials)
        if len(self._vouched) > 10_000:
            self._vouched.clear()
        self._vouched |= dict.fromkeys(unproven.keys() - found.keys(), now + VOUCHED_SECONDS)
        return {index: reason for index, reason in found.items() if reason.startswith(_LASTING)}

    def objections(self, trials: Sequence[Trial]) -> dict[str, str]:
        """What speaks against writing, by index; an index without objections is not named."""
        return _verdicts(self._told(trials))

    def _told(self, trials: Sequence[Trial]) -> dict[str, list[str]]:
        """The objections against each document, by index."""
        told: defaultdict[str, list[str]] = defaultdict(list)
        for attempt in range(1, _ATTEMPTS + 1):
            told.clear()
            for some in constrained_batches(
                trials, _BODY_BYTES, _ABREAST * TRIED, get_len=_size, strict=False
            ):
                for trial, said in zip(some, self._tried(some), strict=True):
                    told[trial.document.reference.index].append(said)
            busy = {i for i, objections in told.items() if not _PASSING.isdisjoint(objections)}
            if not busy or attempt == _ATTEMPTS:
                break
            time.sleep(_PAUSE_SECONDS * attempt)
        return dict(told)

    def _tried(self, trials: Sequence[Trial]) -> list[str]:
        """The objection against each, "" for none."""
        rows = [_rows(trial) for trial in trials]
        try:
            answer = self._connection.ask(
                _Answer,
                "POST",
                # Each line names its index; that of the path tells a trial from a write.
                f"/{in_path(trials[0].document.reference.index)}/_bulk",
                b"\n".join(chain.from_iterable(rows)) + b"\n",
                {"timeout": "2s"},
            )
        except RightMissing as error:
            return [may_not_write(error.rights)] * len(trials)
        except RequestRefused as error:
            # One that cannot be parsed is enough for all to be refused.
            if len(trials) > 1:
                middle = len(trials) // 2
                return [*self._tried(trials[:middle]), *self._tried(trials[middle:])]
            (only,) = trials
            if error.error_type in _OF_THE_DOCUMENT or error.status == 413:
                # Of a document that cannot be sent back, the rights are still of interest.
                bare = _unread(only.document.reference)
                return [""] if only.document.raw is None else self._tried([Trial(document=bare)])
            return [objection(Item(status=error.status, error={"type": error.error_type}))]
        items = [next(iter(item.values())) for item in answer.items]
        if len(items) != sum(len(each) // 2 for each in rows):
            raise TransientError("OpenSearch's bulk answer has another number of items")
        objections = []
        for each in rows:
            count = len(each) // 2
            mine, items = items[:count], items[count:]
            objections.append(next(filter(None, map(objection, mine)), ""))
        return objections


def objection(item: Item) -> str:
    """What the answer to one trial says against writing: a sentence, the type of an error that
    passes or is the document's own, or "" for nothing. By the errors' types, and by the status only
    where OpenSearch has one type for two things. Pure."""
    kind = item.kind
    if item.error is None:
        if item.result == "noop" or item.status < 300:
            return ""
        return f"a write would be refused ({item.status})"
    if kind in ("version_conflict_engine_exception", "document_missing_exception"):
        return ""
    if kind == "index_not_found_exception":
        return ""
    if _DIFFERS in item.causes:
        return ALTERED
    if "script_exception" in item.causes or _scripts_are_off(item):
        # Not to be compared there; the other trials stand.
        return ""
    if kind == "security_exception" and item.status == 403:
        return may_not_write(rights_in(item.error))
    return refusal(kind, item.status, str(item.error.get("reason", "")), item.causes)


def may_not_write(rights: Sequence[str]) -> str:
    """The sentence about an index for which rights are missing."""
    missing = f": {', '.join(rights)}" if rights else ""
    return f"{_MAY_NOT_WRITE}{missing}): {role_advice(rights)}"


def refusal(kind: str, status: int, reason: str, causes: Sequence[str]) -> str:
    """A sentence for what OpenSearch refuses for all documents of an index; else the type."""
    if kind == "security_exception":
        return may_not_write(()) if status == 403 else PARTLY_HIDDEN
    if kind == "cluster_block_exception":
        return "it takes no writes now: an index or cluster block is set, or its disk is full"
    if kind == "validation_exception" and "append_only" in reason:
        return APPEND_ONLY
    if kind == "unavailable_shards_exception":
        return (
            "fewer copies of its shards are active than a write waits for "
            "(index.write.wait_for_active_shards), or a shard is not there"
        )
    if "knn_circuit_breaker_exception" in causes:
        return (
            "k-NN takes no vectors now, its circuit breaker is triggered "
            "(knn.circuit_breaker.triggered): give it more memory, or close indices with vectors"
        )
    if reason.startswith("Limit of ") and reason.endswith(" has been exceeded"):
        return f"its mapping is full ({reason[:80]}): raise index.mapping.total_fields.limit or so"
    if kind in _PASSING or kind in _OF_THE_DOCUMENT:
        return kind
    return f"a write would be refused ({kind or status})"


def _verdicts(told: dict[str, list[str]]) -> dict[str, str]:
    verdicts = {index: _of_index(objections) for index, objections in told.items()}
    return {index: reason for index, reason in verdicts.items() if reason}


def _of_index(objections: Sequence[str]) -> str:
    """What the objections against some documents say about their index."""
    sentences = [each for each in objections if " " in each]
    if sentences:
        return sentences[0]
    busy = [each for each in objections if each in _PASSING]
    if busy:
        return f"whether it takes writes cannot be known now ({busy[0]}); the next run asks again"
    if len(objections) >= TRIED and all(objections) and _STRICT not in objections:
        return f"each of {len(objections)} logs tried would be refused ({objections[0]})"
    return ""


def _unread(reference: Reference) -> Document:
    return Document(reference=reference, presence=Presence.FOUND, fields={})


def _scripts_are_off(item: Item) -> bool:
    return "cannot execute" in str((item.error or {}).get("reason", ""))


def _rows(trial: Trial) -> list[bytes]:
    """Pairs of lines of a bulk."""
    document = trial.document
    where = address(document.reference)
    rows = [
        msgspec.json.encode({"update": {**where, **_NO_VERSION}}),
        b'{"doc":{}}',
    ]
    if document.raw is None or len(document.raw) > _MOST_COMPARED:
        return rows
    version = {
        "if_seq_no": document.reference.seq_no,
        "if_primary_term": document.reference.primary_term,
    }
    source = document.raw.replace(b"\n", b" ").replace(b"\r", b" ")
    script = msgspec.json.encode(_COMPARE)
    rows += [
        msgspec.json.encode({"update": {**where, **version}}),
        b'{"script":{"source":' + script + b',"params":{"source":' + source + b"}}}",
    ]
    if trial.by_update or trial.addition is None:
        return rows
    if not trial.addition.fields:
        action = {"index": {**where, **_NO_VERSION, "pipeline": "_none"}}
        return [*rows, msgspec.json.encode(action), source]
    impossible = msgspec.structs.replace(
        document,
        reference=msgspec.structs.replace(
            document.reference,
            seq_no=_NO_VERSION["if_seq_no"],
            primary_term=_NO_VERSION["if_primary_term"],
        ),
    )
    written = b"".join(encode_write(Write(document=impossible, addition=trial.addition)))
    return [*rows, *written.rstrip(b"\n").split(b"\n")]


def _length(document: Document) -> int:
    return len(document.raw or b"")


def _telling(document: Document) -> tuple[bool, int]:
    """Those that can be sent back first, the smallest of them before."""
    return (document.raw is None, _length(document))


def _size(trial: Trial) -> int:
    return 2 * _length(trial.document) + len(_COMPARE)

"""Reading whole documents and writing vectors into them, so that nothing else changes.

A document is written as its source was read, byte for byte, with our fields spliced in, under the
version that was read. Where a plain `index` would not be harmless, a partial `update` is used.
Every item of a bulk answer is judged by its error's type.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from itertools import chain
from typing import Annotated, Any

import msgspec
import orjson
from more_itertools import constrained_batches, sliced

from enrich.errors import TransientError
from enrich.log_store.connection import Connection, loads_leniently
from enrich.log_store.paths import in_path, parts
from enrich.log_store.refusals import RequestRefused, rights_in, role_advice
from enrich.models import LogLocation, Reference
from enrich.schema import Schema
from enrich.vectors import Vector

log = logging.getLogger(__name__)

#: Our fields; whatever a source already has of them is replaced.
OUR_FIELDS = frozenset(
    {
        "log_vector",
        "ai_enriched_at",
        "ai_enrichment_status",
        "ai_enrichment_method",
        "ai_embedding_model",
        "ai_embedding_dimensions",
        "ai_text_sha256",
        "ai_vector_source",
        "ai_enrichment_run",
        "ai_enrichment_error",
    }
)

#: Bounds of one bulk body: fewer requests gain nothing beyond, and memory on both sides is spared.
MAX_BODY_DOCUMENTS = 500
MAX_BODY_BYTES = 10 * 1024 * 1024


#: Stands for a field's value that is there and is nothing that could be read; of no JSON type.
UNREADABLE_VALUE = object()


class Presence(Enum):
    """What an mget said of a document."""

    FOUND = "found"
    GONE = "gone"
    #: The index cannot be read now (closed, a shard missing).
    UNREADABLE = "unreadable"


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A document as read just now."""

    #: At the version that was read; equal to the finder's if nothing changed.
    reference: Reference
    presence: Presence
    #: The source's top-level fields, each as raw JSON.
    fields: dict[str, msgspec.Raw]
    #: The source as stored, or None if it cannot be spliced and has to be written by `update`.
    raw: bytes | None = None
    #: Why its source can never be read, in snake case; "" if it was.
    failure: str = ""
    #: Of one that is unreadable: whether its index is closed, which only an operator changes.
    closed: bool = False
    #: Why OPENSEARCH_USER may not read it, in a sentence; "" if that is not the reason.
    forbidden: str = ""

    def value(self, name: str) -> Any:
        """A field decoded, None if absent, UNREADABLE_VALUE if it is more than can be read."""
        raw = self.fields.get(name)
        if raw is None:
            return None
        try:
            return msgspec.json.decode(raw)
        except (msgspec.DecodeError, RecursionError):
            pass
        try:
            return loads_leniently(bytes(raw))
        except (ValueError, RecursionError):
            return UNREADABLE_VALUE

    def message(self, schema: Schema) -> Any:
        """Its text before any cut, as `Schema.message` has it."""
        if field := schema.plain_field:
            return self.value(field)
        return schema.message(self.only(schema.message_roots))

    def only(self, names: Iterable[str]) -> dict[str, Any]:
        """Those of the top-level fields that it has, decoded."""
        return {name: self.value(name) for name in names if name in self.fields}


class Verdict(Enum):
    """What became of one item of a bulk."""

    WRITTEN = "written"
    #: Somebody changed the document since it was read.
    CONFLICT = "conflict"
    #: Deleted, or its index is.
    GONE = "gone"
    #: The index takes no writes now: blocked, closed, at flood stage.
    BLOCKED = "blocked"
    #: OpenSearch is overloaded; the same write may succeed later.
    OVERLOADED = "overloaded"
    #: The mapping refuses it, for ever.
    REFUSED = "refused"


@dataclass(frozen=True)
class Addition:
    """What is added to documents, encoded once for all that share it."""

    fields: Mapping[str, Any]
    #: `log_vector` as JSON; None writes no vector.
    vector: bytes | None = None

    @cached_property
    def encoded(self) -> tuple[bytes, ...]:
        """Its members as JSON, without the braces around them, in pieces: only who puts a body
        together copies the vector."""
        members = orjson.dumps(self.fields)[1:-1]
        return (members,) if self.vector is None else (b'"log_vector":', self.vector, b",", members)


class Write(msgspec.Struct, frozen=True, kw_only=True):
    """One document with what is to be added to it."""

    document: Document
    addition: Addition
    by_update: bool = False


class _Got(msgspec.Struct):
    index: str = msgspec.field(name="_index")
    id: str = msgspec.field(name="_id")
    found: bool = False
    seq_no: int = msgspec.field(name="_seq_no", default=-1)
    primary_term: int = msgspec.field(name="_primary_term", default=0)
    source: msgspec.Raw = msgspec.field(name="_source", default=msgspec.Raw(b"{}"))
    error: dict[str, Any] | None = None


class _Mget(msgspec.Struct):
    docs: list[_Got]


class _Item(msgspec.Struct):
    status: int
    result: str = ""
    error: dict[str, Any] | None = None


class _Bulk(msgspec.Struct):
    errors: bool
    items: list[Annotated[dict[str, _Item], msgspec.Meta(min_length=1)]]


class Documents:
    """Reads and writes documents by reference."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        #: Of one bulk; less where something before OpenSearch takes less.
        self._body_bytes = MAX_BODY_BYTES
        self._bulk_params = {
            "filter_path": "errors,items.*.status,items.*.result,items.*.error.type,"
            "items.*.error.reason,items.*.error.caused_by.type",
            "timeout": connection.write_timeout,
        }

    def read(self, references: Sequence[Reference]) -> list[Document]:
        """Whole documents, in the order of the references; a missing one says so."""
        if not references:
            return []
        wanted = {"docs": [address(reference) for reference in references]}
        body = self._connection.request("POST", "/_mget", wanted)
        try:
            got = msgspec.json.decode(body, type=_Mget).docs
            if len(got) != len(references):
                raise TransientError("OpenSearch's answer has another number of documents")
            return [_document(r, g) for r, g in zip(references, got, strict=True)]
        except (msgspec.DecodeError, RecursionError):
            # Half a surrogate pair somewhere, or a source nested too deep: valid for OpenSearch,
            # not for the decoder. Narrowed down to its document.
            if len(references) > 1:
                middle = len(references) // 2
                return [*self.read(references[:middle]), *self.read(references[middle:])]
        try:
            return [_spelt_anew(references[0], body)]
        except RecursionError:
            return [self._unread(references[0], "source_too_deep")]

    def present(self, places: Sequence[LogLocation]) -> list[bool]:
        """Whether there is a document at each address, seen by a refresh or not."""
        if not places:
            return []
        wanted = {"docs": [{**address(place), "_source": False} for place in places]}
        got = self._connection.ask(_Mget, "POST", "/_mget", wanted).docs
        if len(got) != len(places):
            raise TransientError("OpenSearch's answer has another number of documents")
        return [one.found and one.error is None for one in got]

    def create(self, rows: Sequence[bytes]) -> list[str]:
        """Create documents that are not there, from the lines of a bulk; for each "" if it is there
        now, else the type of its error."""
        answer = self._connection.ask(
            _Bulk, "POST", "/_bulk", b"\n".join(rows) + b"\n", self._bulk_params
        )
        if 2 * len(answer.items) != len(rows):
            raise TransientError("OpenSearch's bulk answer has another number of items")
        items = [item for each in answer.items for item in each.values()]
        return [
            "" if item.status in (200, 201, 409) else str((item.error or {}).get("type", "unknown"))
            for item in items
        ]

    def _unread(self, reference: Reference, failure: str) -> Document:
        """A document whose source cannot be read: where it is, at which version, and why not."""
        wanted = {"docs": [{**address(reference), "_source": False}]}
        got = self._connection.ask(_Mget, "POST", "/_mget", wanted).docs
        if len(got) != 1:
            raise TransientError("OpenSearch's answer has another number of documents")
        return msgspec.structs.replace(_place(reference, got[0]), failure=failure)

    def write(self, writes: Sequence[Write]) -> list[tuple[Verdict, str]]:
        """Write all; for each its verdict and the error's type ("" when written).

        Raises:
            ServerUnavailable, TransientError, AccessRefused, RequestRefused: a whole request
                failed; documents of earlier requests may have been written, which a new reading
                shows.
        """
        verdicts: list[tuple[Verdict, str]] = []
        for body, count in _bodies(writes, self._body_bytes):
            verdicts += self._write(body, writes[len(verdicts) : len(verdicts) + count])
        return verdicts

    def _write(self, body: bytes, writes: Sequence[Write]) -> list[tuple[Verdict, str]]:
        try:
            answer = self._connection.ask(_Bulk, "POST", "/_bulk", body, self._bulk_params)
        except RequestRefused as error:
            if error.status == 413 and (smaller := self._smaller(writes, len(body))):
                return self.write(smaller)
            if error.error_type == "security_exception" and len(writes) > 1:
                # One index of which a part is hidden is enough for all to be refused.
                middle = len(writes) // 2
                return [*self.write(writes[:middle]), *self.write(writes[middle:])]
            if error.error_type in ("cluster_block_exception", "security_exception"):
                return [(Verdict.BLOCKED, error.error_type)] * len(writes)
            raise
        if len(answer.items) != len(writes):
            raise TransientError("OpenSearch's bulk answer has another number of items")
        return [_judge(*next(iter(item.items()))) for item in answer.items]

    def _smaller(self, writes: Sequence[Write], size: int) -> Sequence[Write]:
        """What to send in place of a body that was too large; nothing if that cannot be smaller."""
        if len(writes) > 1:
            self._body_bytes = min(self._body_bytes, size // 2)
            log.warning(
                "a bulk of %d bytes is too large for OpenSearch or the proxy before it (413): "
                "bulks have %d at most from now on",
                size,
                self._body_bytes,
            )
            return writes
        (only,) = writes
        if only.by_update or only.document.raw is None:
            return ()
        # Without the source that is there already, but at half the speed.
        return (msgspec.structs.replace(only, by_update=True),)

    def unmark(self, references: Sequence[LogLocation]) -> int:
        """Take the failure marks off documents; how many were changed."""
        changed = 0
        script = {"script": {"source": _UNMARK, "lang": "painless"}}
        for some in sliced(references, 1000):
            rows: list[bytes] = []
            for reference in some:
                rows.append(orjson.dumps({"update": address(reference)}))
                rows.append(orjson.dumps(script))
            answer = self._connection.ask(
                _Bulk, "POST", "/_bulk", b"\n".join(rows) + b"\n", {"refresh": "true"}
            )
            changed += sum(
                _judge("update", i["update"])[0] is Verdict.WRITTEN for i in answer.items
            )
        return changed

    def refresh(self, indices: Sequence[str]) -> None:
        """Make what was written visible to searches. Best effort for indices that are gone."""
        for names in parts(indices):
            path = f"/{in_path(*names)}/_refresh"
            self._connection.request("POST", path, params={"ignore_unavailable": "true"})


_UNMARK = (
    "for (name in ['ai_enrichment_status', 'ai_enrichment_error', 'ai_enriched_at',"
    " 'ai_enrichment_method', 'ai_enrichment_run']) { ctx._source.remove(name) }"
)


def encode_vector(vector: Vector) -> bytes:
    """A vector as JSON, each float32 in its shortest form that reads back the same."""
    return orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY)


def _document(reference: Reference, got: _Got) -> Document:
    """Raises msgspec.DecodeError or RecursionError for a source that cannot be spliced."""
    document = _place(reference, got)
    if document.presence is not Presence.FOUND:
        return document
    raw = bytes(got.source)
    fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    return msgspec.structs.replace(document, fields=fields, raw=raw)


def _place(reference: Reference, got: _Got) -> Document:
    """Where a document is and at which version, without its source."""
    where = (reference.index, reference.id, reference.routing)
    if got.found and got.error is None:
        read = Reference(*where, got.seq_no, got.primary_term)
        return Document(reference=read, presence=Presence.FOUND, fields={})
    error = got.error or {"type": "index_not_found_exception"}
    gone = error.get("type") == "index_not_found_exception"
    forbidden = ""
    if error.get("type") == "security_exception":
        rights = rights_in(error)
        missing = f": {', '.join(rights)}" if rights else ""
        forbidden = (
            f"OPENSEARCH_USER may not read its logs by their ids (403{missing}): "
            f"{role_advice(rights)}"
        )
    return Document(
        reference=Reference(*where, -1, 0),
        presence=Presence.GONE if gone else Presence.UNREADABLE,
        fields={},
        closed=error.get("type") == "index_closed_exception",
        forbidden=forbidden,
    )


def _spelt_anew(reference: Reference, body: str) -> Document:
    """The one document of an answer that only the standard library reads, which is therefore
    written by `update`.

    Raises:
        RecursionError: it is nested too deep for that as well.
    """
    try:
        row = loads_leniently(body)["docs"][0]
        source = row.pop("_source", {})
        fields = {name: msgspec.Raw(_ascii_json(value)) for name, value in source.items()}
        got = msgspec.convert(row, _Got)
    except (ValueError, LookupError, TypeError, AttributeError, msgspec.ValidationError):
        raise TransientError("OpenSearch's answer was cut short or has another shape") from None
    return msgspec.structs.replace(_place(reference, got), fields=fields)


def _ascii_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def address(reference: Reference | LogLocation) -> dict[str, Any]:
    """Where a document is, in OpenSearch's words."""
    where: dict[str, Any] = {"_index": reference.index, "_id": reference.id}
    if reference.routing:
        where["routing"] = reference.routing
    return where


def encode_write(write: Write) -> tuple[bytes, ...]:
    """Action line and body line of one bulk item, in pieces: a vector is copied into the body only,
    not into each line before."""
    document = write.document
    action = address(document.reference)
    action["if_seq_no"] = document.reference.seq_no
    action["if_primary_term"] = document.reference.primary_term
    added = write.addition.encoded
    if write.by_update or document.raw is None:
        return orjson.dumps({"update": action}), b'\n{"doc":{', *added, b"}}\n"
    # A default pipeline has run when the log came in; it must not run again.
    action["pipeline"] = "_none"
    source = _without_ours(document, document.raw)
    return orjson.dumps({"index": action}), b"\n", source, *added, b"}\n"


def _without_ours(document: Document, raw: bytes) -> bytes:
    """The source as it was read, without our fields, ready for more: `{"a":1,` or `{`."""
    if OUR_FIELDS.isdisjoint(document.fields) and b"\n" not in raw:
        return raw.rstrip()[:-1] + (b"," if document.fields else b"")
    # Rebuilt from the raw values of the other fields, without line breaks between them.
    kept = [
        orjson.dumps(name) + b":" + bytes(value).replace(b"\n", b" ").replace(b"\r", b" ") + b","
        for name, value in document.fields.items()
        if name not in OUR_FIELDS
    ]
    return b"{" + b"".join(kept)


def _bodies(writes: Sequence[Write], most: int) -> Iterator[tuple[bytes, int]]:
    """Bodies of at most so many bytes, or of one document, and how many each has."""
    for rows in constrained_batches(
        map(encode_write, writes), most, MAX_BODY_DOCUMENTS, get_len=_length, strict=False
    ):
        yield b"".join(chain.from_iterable(rows)), len(rows)


def _length(row: tuple[bytes, ...]) -> int:
    return sum(map(len, row))


#: `security_exception`: OPENSEARCH_USER may read this index and not write to it.
_BLOCKED = {"cluster_block_exception", "index_closed_exception", "security_exception"}
#: What k-NN wraps in a parser's exception although it is no fault of the document: its memory is
#: full, or it is switched off.
_PASSING_CAUSES = {
    "knn_circuit_breaker_exception",
    "circuit_breaking_exception",
    "illegal_state_exception",
}
_REFUSED = {
    "mapper_parsing_exception",
    "strict_dynamic_mapping_exception",
    "illegal_argument_exception",
    "document_parsing_exception",
    "parsing_exception",
}


#: What passes by itself or with the load: waited for, and no reason to leave an index alone.
PASSING = frozenset(
    {
        "",
        "es_rejected_execution_exception",
        "opensearch_rejected_execution_exception",
        "rejected_execution_exception",
        "circuit_breaking_exception",
        "unavailable_shards_exception",
        "no_shard_available_action_exception",
        "shard_not_found_exception",
        "illegal_index_shard_state_exception",
        "index_shard_closed_exception",
        "index_shard_recovering_exception",
        "index_shard_not_started_exception",
        "already_closed_exception",
        "node_closed_exception",
        "node_disconnected_exception",
        "node_not_connected_exception",
        "process_cluster_event_timeout_exception",
        "receive_timeout_transport_exception",
        "timeout_exception",
        "mapper_parsing_exception",
        "document_parsing_exception",
        "parsing_exception",
        "illegal_argument_exception",
    }
)

#: Stand in an error's type's place where OpenSearch has one type for much.
DROPPED = "dropped_by_pipeline"
PIPELINE_MISSING = "pipeline_missing"
MAPPING_FULL = "mapping_full"


def _of_the_index(kind: str, reason: str) -> str:
    """What an error says that is no fault of the document but holds for all of its index, or "".
    A reason may quote the document: it is looked at and goes no further."""
    if kind == "validation_exception" and "index.append_only.enabled" in reason:
        return "append_only"
    if kind != "illegal_argument_exception":
        return ""
    if reason.startswith("pipeline with id ["):
        return PIPELINE_MISSING
    if reason.startswith("Limit of ") and reason.endswith(" has been exceeded"):
        return MAPPING_FULL
    return ""


def _judge(action: str, item: _Item) -> tuple[Verdict, str]:
    """By the error's type, never by status: a flood-stage block says 429, a write block 403."""
    if item.error is None:
        if action == "index" and item.result == "noop":
            return Verdict.BLOCKED, DROPPED
        return (Verdict.WRITTEN, "") if item.status < 300 else (Verdict.OVERLOADED, "")
    kind = str(item.error.get("type", ""))
    if kind == "version_conflict_engine_exception":
        # On a deleted document, or in a recreated index, the version is "not found" as well.
        return Verdict.CONFLICT, kind
    if kind in ("document_missing_exception", "index_not_found_exception"):
        return Verdict.GONE, kind
    if kind in _BLOCKED:
        return Verdict.BLOCKED, kind
    if of_the_index := _of_the_index(kind, str(item.error.get("reason", ""))):
        return Verdict.BLOCKED, of_the_index
    cause = item.error.get("caused_by") or {}
    if kind in _REFUSED and cause.get("type") not in _PASSING_CAUSES:
        return Verdict.REFUSED, kind
    # Anything unknown is taken to pass: a healthy log must never be marked for it.
    return Verdict.OVERLOADED, kind

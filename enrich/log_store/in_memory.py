"""A log store in memory, for tests and for trying things without servers.

It keeps what `LogStore` promises on OpenSearch; `tests/log_store_contract.py` holds both to it. A
search sees an index as its last refresh left it, a read by reference sees it as it is, and a write
under another version than the present one is a conflict. Each index has one shard. What goes wrong
with an index is set on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import orjson

from enrich.log_store.arrivals import Arrival, without_metadata
from enrich.log_store.backlog import Backlog
from enrich.log_store.coverage import Counted
from enrich.log_store.documents import Document, Presence, Verdict, Write, encode_write
from enrich.log_store.interfaces import (
    ArrivalStore,
    DocumentStore,
    EngineProbe,
    EnrichedSample,
    IndexInspector,
    LiveStore,
    Locator,
    MappingWriter,
    PageReader,
    PendingCounter,
    ReusableFinder,
    VectorReader,
    WholenessCheck,
)
from enrich.log_store.pages import Hit, IndexPage, Target
from enrich.log_store.paths import holds
from enrich.log_store.preflight import Nodes, Readiness
from enrich.log_store.refusals import NoAnswerInTime
from enrich.log_store.stored_vectors import StoredVector
from enrich.log_store.version import Version
from enrich.models import LogLocation, Reference
from enrich.settings import Settings
from enrich.vectors import BYTES, Vector, is_usable

#: In the sort's place where a log has no time: behind all that have one.
_NO_TIME = -(2**63)

#: What a bulk says of one item.
ItemAnswer = tuple[Verdict, str]

OVERLOADED: ItemAnswer = (Verdict.OVERLOADED, "rejected_execution_exception")
BLOCKED: ItemAnswer = (Verdict.BLOCKED, "cluster_block_exception")


@dataclass(frozen=True, kw_only=True)
class StoredLog:
    """A document at one version."""

    id: str
    raw: bytes
    routing: str | None
    seq_no: int
    source: dict[str, Any]


@dataclass(kw_only=True)
class MemoryIndex:
    """An index, and what is wrong with it."""

    logs: dict[str, StoredLog] = field(default_factory=dict)
    #: As the last refresh left them: what searches see.
    visible: dict[str, StoredLog] = field(default_factory=dict)
    changes: int = 0
    #: Why its logs cannot be read now, as a type of OpenSearch's errors; "" if they can.
    unreadable: str = ""
    closed: bool = False
    #: Whether its searches run out of time.
    slow: bool = False
    #: Whether a write is never answered, nor carried out.
    silent: bool = False
    #: Fields that its mapping refuses.
    refused_fields: frozenset[str] = frozenset()
    #: Asked before each write; an answer stands in its place.
    answer: Callable[[Write], ItemAnswer | None] = lambda write: None
    #: Whether its engine needs a native library.
    native: bool = False
    #: Whether its time can be sorted by.
    sortable: bool = True
    #: Hits that it gives at once.
    window: int = 10_000
    #: Whether it has a final pipeline.
    update_only: bool = False
    #: Why the preflight leaves it out, and why a document of it would not be written back whole.
    unfit: str = ""
    not_whole: str = ""

    def put(self, id: str, raw: bytes, routing: str | None = None) -> StoredLog:
        source = orjson.loads(raw)
        stored = StoredLog(id=id, raw=raw, routing=routing, seq_no=self.changes, source=source)
        self.logs[id] = stored
        self.changes += 1
        return stored

    def refresh(self) -> None:
        self.visible = dict(self.logs)


class InMemoryLogStore:
    """Logs in a dict of indices."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self.schema = settings.log_schema
        self.clock = clock
        self.indices: dict[str, MemoryIndex] = {}
        #: OpenSearch's data nodes, and why no vector should be written anywhere.
        self.seen_nodes = Nodes(data=1, blocker="")
        self.backlog = _Backlog(self)
        self.finder = _Finder(self)
        self.reusable = _Reusable(self)
        self.documents = _Documents(self)
        self.stored_vectors = _StoredVectors(self)
        self.engines = _Engines(self)
        self.preflight = _Preflight(self)
        self.mappings = _Mappings()
        self.wholeness = _Wholeness(self)
        self.stats = _Stats(self)
        self.whereabouts = _Whereabouts(self)
        self.arrivals = _Arrivals(self)
        #: Indices behind names that are none, the newest first.
        self.aliases: dict[str, tuple[str, ...]] = {}

    def version(self) -> Version:
        return Version("opensearch", "3.5.0")

    def close(self) -> None:
        """There is nothing to close."""

    # -- what others do to the logs

    def create(self, index: str, **how: Any) -> MemoryIndex:
        """Create an index; keyword arguments are fields of `MemoryIndex`."""
        self.indices[index] = MemoryIndex(**how)
        return self.indices[index]

    def put(
        self, index: str, id: str, source: Mapping[str, Any] | bytes, routing: str | None = None
    ) -> Reference:
        """Write a log, as the application does that it comes from; where it is now."""
        raw = source if isinstance(source, bytes) else orjson.dumps(source)
        stored = self.indices[index].put(id, raw, routing)
        return Reference(index, id, routing, stored.seq_no, 1)

    def delete(self, index: str, id: str) -> None:
        self.indices[index].logs.pop(id, None)
        # OpenSearch counts the deletion of what is not there as well.
        self.indices[index].changes += 1

    # -- what the rooms share

    def searched(self) -> dict[str, MemoryIndex]:
        """The open indices that ENRICH_INDEX_PATTERN takes in."""
        patterns = self.settings.index_expression.split(",")
        wanted = [p for p in patterns if not p.startswith("-")]
        left_out = [p[1:] for p in patterns if p.startswith("-")]
        return {
            name: index
            for name, index in sorted(self.indices.items())
            if not index.closed
            and any(holds(pattern, name) for pattern in wanted)
            and not any(holds(pattern, name) for pattern in left_out)
        }

    def milliseconds(self, log: StoredLog) -> int:
        """Of its time."""
        told = self.schema.time(log.source)
        return _NO_TIME if told is None else round(datetime.fromisoformat(told).timestamp() * 1000)

    def pending(self, index: MemoryIndex) -> list[StoredLog]:
        """What a search finds of the logs to be enriched, in no order."""
        days = self.settings.enrich_max_age_days
        since = (self.clock() - days * 86400) * 1000 if days else _NO_TIME
        return [
            log
            for log in index.visible.values()
            if self.schema.is_wanted(log.source)
            and log.source.get("log_vector") is None
            and log.source.get("ai_enrichment_status") != "failed"
            and self.milliseconds(log) >= since
        ]

    def stored_vector(self, log: StoredLog) -> StoredVector | None:
        numbers = log.source.get("log_vector")
        if not isinstance(numbers, list) or len(numbers) != self.settings.embedding_dimensions:
            return None
        vector: Vector = np.array(numbers, dtype=BYTES)
        if not is_usable(vector):
            return None
        known = log.source.get("ai_text_sha256")
        return StoredVector(
            vector=vector,
            message=self.schema.message(log.source),
            model=log.source.get("ai_embedding_model"),
            dimensions=log.source.get("ai_embedding_dimensions"),
            fingerprint=known if isinstance(known, str) else "",
        )

    def is_of_model(self, log: StoredLog) -> bool:
        """Whether it has a vector that is said to be of our model."""
        said = log.source.get("ai_embedding_model"), log.source.get("ai_embedding_dimensions")
        ours = self.settings.embedding_model, self.settings.embedding_dimensions
        return log.source.get("log_vector") is not None and said == ours


@dataclass(frozen=True)
class _Room:
    store: InMemoryLogStore


class _Backlog(_Room, PendingCounter):
    def count(self) -> Backlog:
        searched = self.store.searched()
        unreadable = {
            name: f"it cannot be searched: {index.unreadable}"
            for name, index in searched.items()
            if index.unreadable
        }
        counts = {name: len(self.store.pending(index)) for name, index in searched.items()}
        return Backlog(
            counts={n: count for n, count in counts.items() if count and n not in unreadable},
            unreadable=unreadable,
            unsorted=frozenset(n for n, index in searched.items() if not index.sortable),
        )


class _Finder(_Room, PageReader):
    def page(self, targets: Sequence[Target], unsorted: frozenset[str]) -> list[IndexPage]:
        return [self._page(target, target.index in unsorted) for target in targets]

    def _page(self, target: Target, unsorted: bool) -> IndexPage:
        index = self.store.indices.get(target.index)
        if index is None or index.closed:
            return IndexPage(index=target.index, exhausted=True)
        if index.slow:
            return IndexPage(index=target.index, trouble="it answers too late", late=True)
        if index.unreadable:
            trouble = f"it cannot be searched ({index.unreadable})"
            return IndexPage(index=target.index, trouble=trouble)
        rows: list[tuple[list[Any], StoredLog]] = sorted(
            ([*([] if unsorted else [self.store.milliseconds(log)]), log.seq_no, log.id], log)
            for log in self.store.pending(index)
        )
        if target.cursor is not None:
            # The log that the cursor stands behind is passed over, also where it is older now.
            rows = [
                row for row in rows if row[0] < target.cursor and row[1].id != target.cursor[-1]
            ]
        rows = rows[::-1][: target.size]
        return IndexPage(
            index=target.index,
            hits=[self._hit(target.index, log) for _, log in rows],
            cursors=[cursor for cursor, _ in rows],
            exhausted=len(rows) < target.size,
        )

    def _hit(self, index: str, log: StoredLog) -> Hit:
        message = self.store.schema.message(log.source)
        return Hit(
            reference=Reference(index, log.id, log.routing, log.seq_no, 1),
            message=message if isinstance(message, str) else None,
            size=sum(len(str(value)) for value in log.source.values() if value is not None),
        )


class _Reusable(_Room, ReusableFinder):
    def find(self, wanted: dict[str, set[str]]) -> dict[tuple[str, str], LogLocation]:
        found: dict[tuple[str, str], LogLocation] = {}
        for name, index in self.store.searched().items():
            scope = self.store.settings.reuse_scope(name)
            for log in index.visible.values() if not index.unreadable else ():
                text = log.source.get("ai_text_sha256")
                if text in wanted.get(scope, ()) and self.store.is_of_model(log):
                    found[scope, str(text)] = LogLocation(name, log.id, log.routing)
        return found


class _Documents(_Room, DocumentStore):
    def read(self, references: Sequence[Reference]) -> list[Document]:
        return [self._read(reference) for reference in references]

    def _read(self, reference: Reference) -> Document:
        index = self.store.indices.get(reference.index)
        where = reference.index, reference.id, reference.routing
        log = index.logs.get(reference.id) if index else None
        away = index is not None and bool(index.closed or index.unreadable)
        if log is None or away:
            return Document(
                reference=Reference(*where, -1, 0),
                presence=Presence.UNREADABLE if away else Presence.GONE,
                fields={},
                closed=index is not None and index.closed,
            )
        return Document(
            reference=Reference(*where, log.seq_no, 1),
            presence=Presence.FOUND,
            fields=msgspec.json.decode(log.raw, type=dict[str, msgspec.Raw]),
            raw=log.raw,
        )

    def write(self, writes: Sequence[Write]) -> list[ItemAnswer]:
        """As that of OpenSearch. Raises NoAnswerInTime where an index is silent; what was to be
        written to others is written."""
        answers = [self._write(write) for write in writes]
        if None in answers:
            raise NoAnswerInTime("an index in memory does not answer")
        return [answer for answer in answers if answer is not None]

    def _write(self, write: Write) -> ItemAnswer | None:
        reference = write.document.reference
        index = self.store.indices.get(reference.index)
        if index is None:
            return Verdict.GONE, "index_not_found_exception"
        if index.silent:
            return None
        if index.closed:
            return Verdict.BLOCKED, "index_closed_exception"
        if (answer := index.answer(write)) is not None:
            return answer
        action, body = b"".join(encode_write(write)).split(b"\n", 1)
        by_update = b'"update"' in action[:10]
        log = index.logs.get(reference.id)
        refused = Verdict.REFUSED, "mapper_parsing_exception"
        sent = orjson.loads(body)
        refuses = not index.refused_fields.isdisjoint(sent["doc"] if by_update else sent)
        if refuses and not by_update:
            return refused
        if by_update and log is None:
            return Verdict.GONE, "document_missing_exception"
        if log is None or (reference.seq_no, reference.primary_term) != (log.seq_no, 1):
            return Verdict.CONFLICT, "version_conflict_engine_exception"
        if refuses:
            return refused
        after = {**log.source, **sent["doc"]} if by_update else sent
        # An update that changes nothing is none.
        if not by_update or after != log.source:
            raw = orjson.dumps(after) if by_update else body.rstrip(b"\n")
            index.put(reference.id, raw, log.routing)
        return Verdict.WRITTEN, ""

    def refresh(self, indices: Sequence[str]) -> None:
        for name in indices:
            if (index := self.store.indices.get(name)) and not index.silent:
                index.refresh()


class _StoredVectors(_Room, VectorReader):
    def read(self, places: Sequence[LogLocation]) -> list[StoredVector | None]:
        found: list[StoredVector | None] = []
        for place in places:
            index = self.store.indices.get(place.index)
            log = index.logs.get(place.id) if index else None
            away = index is None or index.closed or index.unreadable
            found.append(None if log is None or away else self.store.stored_vector(log))
        return found


class _Whereabouts(_Room, Locator):
    def behind(self, name: str) -> tuple[str, ...]:
        return (name,) if name in self.store.indices else self.store.aliases.get(name, ())

    def holding(
        self, logs: Sequence[tuple[Sequence[str], str, str | None]]
    ) -> list[LogLocation | None]:
        return [
            next(
                (
                    LogLocation(index, id_, routing)
                    for index in indices
                    if id_ in self.store.indices[index].logs
                ),
                None,
            )
            for indices, id_, routing in logs
        ]


class _Arrivals(_Room, ArrivalStore):
    def make_index(self, name: str) -> None:
        if name not in self.store.indices:
            self.store.create(name)

    def create(self, arrivals: Sequence[Arrival]) -> list[str]:
        told = []
        for arrival in arrivals:
            index = self.store.indices[arrival.place.index]
            source = orjson.loads(arrival.source)
            refused = bool(index.refused_fields & source.keys())
            if not refused and arrival.place.id not in index.logs:
                raw = without_metadata(arrival.source)
                index.put(arrival.place.id, raw, arrival.place.routing)
            told.append("mapper_parsing_exception" if refused else "")
        return told


class _Engines(_Room, EngineProbe):
    def is_native(self, index: str) -> bool:
        return index in self.store.indices and self.store.indices[index].native

    def proves_itself(self, index: str) -> bool:
        self.store.documents.refresh([index])
        return not (index in self.store.indices and self.store.indices[index].silent)

    def server_answers(self) -> bool:
        return True


class _Preflight(_Room, IndexInspector):
    def inspect(self, indices: Sequence[str]) -> Readiness:
        known = {name: self.store.indices[name] for name in indices if name in self.store.indices}
        return Readiness(
            skipped={name: index.unfit for name, index in known.items() if index.unfit},
            update_only=sorted(name for name, index in known.items() if index.update_only),
            lacking={},
            windows={n: index.window for n, index in known.items() if index.window < 10_000},
        )

    def nodes(self) -> Nodes:
        return self.store.seen_nodes


class _Mappings(MappingWriter):
    def complete(self, lacking: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """Nothing is mapped here."""
        return {}


class _Wholeness(_Room, WholenessCheck):
    def survey(
        self, indices: Sequence[str], ready: Readiness, unsorted: frozenset[str]
    ) -> dict[str, str]:
        return self._told(indices)

    def doubts(self, documents: Iterable[Document]) -> dict[str, str]:
        return self._told({document.reference.index for document in documents})

    def _told(self, names: Iterable[str]) -> dict[str, str]:
        known = {name: self.store.indices[name] for name in names if name in self.store.indices}
        return {name: index.not_whole for name, index in known.items() if index.not_whole}


class _Stats(_Room, EnrichedSample):
    def names(self) -> list[str]:
        return list(self.store.searched())

    def enriched(self) -> list[tuple[str, StoredVector]]:
        found = [(name, self.store.stored_vector(log)) for name, log in self._of_model()]
        return [(name, stored) for name, stored in found if stored is not None]

    def count_of_model(self) -> Counted[int]:
        return Counted(len(self._of_model()))

    def _of_model(self) -> list[tuple[str, StoredLog]]:
        return [
            (name, log)
            for name, index in self.store.searched().items()
            if not index.unreadable
            for log in index.visible.values()
            if self.store.is_of_model(log)
        ]


if TYPE_CHECKING:

    def _keeps_what_is_asked_for(store: InMemoryLogStore) -> LiveStore:
        return store

"""What a run asks of a log store: small interfaces, which OpenSearch and the form in memory keep.

Who works on a run names these and not OpenSearch, so that its decisions can be tested in
milliseconds. `tests/log_store_contract.py` says what the methods promise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from enrich.log_store.arrivals import Arrival
from enrich.log_store.backlog import Backlog
from enrich.log_store.coverage import Counted
from enrich.log_store.documents import Document, Verdict, Write
from enrich.log_store.pages import IndexPage, Target
from enrich.log_store.preflight import Nodes, Readiness
from enrich.log_store.stored_vectors import StoredVector
from enrich.log_store.version import Version
from enrich.models import LogLocation, Reference


class PageReader(Protocol):
    """Searches pages of one index each."""

    def page(self, targets: Sequence[Target], unsorted: frozenset[str]) -> list[IndexPage]: ...


class PendingCounter(Protocol):
    """Counts what is pending."""

    def count(self) -> Backlog: ...


class ReusableFinder(Protocol):
    """Finds logs that have a vector to be reused."""

    def find(self, wanted: dict[str, set[str]]) -> dict[tuple[str, str], LogLocation]: ...


class DocumentStore(Protocol):
    """Reads and writes documents by reference."""

    def read(self, references: Sequence[Reference]) -> list[Document]: ...
    def write(self, writes: Sequence[Write]) -> list[tuple[Verdict, str]]: ...
    def refresh(self, indices: Sequence[str]) -> None: ...


class VectorReader(Protocol):
    """Reads the vectors of logs by reference."""

    def read(self, places: Sequence[LogLocation]) -> list[StoredVector | None]: ...


class EngineProbe(Protocol):
    """Tells whether an index answers writes."""

    def is_native(self, index: str) -> bool: ...
    def proves_itself(self, index: str) -> bool: ...
    def server_answers(self) -> bool: ...


class IndexInspector(Protocol):
    """Tells which indices may be written."""

    def inspect(self, indices: Sequence[str]) -> Readiness: ...
    def nodes(self) -> Nodes: ...


class MappingWriter(Protocol):
    """Puts the fields that indices lack."""

    def complete(self, lacking: Mapping[str, Sequence[str]]) -> dict[str, str]: ...


class WholenessCheck(Protocol):
    """Tells whether documents would be written back whole."""

    def survey(
        self, indices: Sequence[str], ready: Readiness, unsorted: frozenset[str]
    ) -> dict[str, str]: ...
    def doubts(self, documents: Iterable[Document]) -> dict[str, str]: ...


class EnrichedSample(Protocol):
    """Counts and samples logs that have a vector."""

    def names(self) -> list[str]: ...
    def enriched(self) -> list[tuple[str, StoredVector]]: ...
    def count_of_model(self) -> Counted[int]: ...


class RunStore(Protocol):
    """All of them together: the log store of a run."""

    @property
    def backlog(self) -> PendingCounter: ...
    @property
    def finder(self) -> PageReader: ...
    @property
    def reusable(self) -> ReusableFinder: ...
    @property
    def documents(self) -> DocumentStore: ...
    @property
    def stored_vectors(self) -> VectorReader: ...
    @property
    def engines(self) -> EngineProbe: ...
    @property
    def preflight(self) -> IndexInspector: ...
    @property
    def mappings(self) -> MappingWriter: ...
    @property
    def wholeness(self) -> WholenessCheck: ...
    @property
    def stats(self) -> EnrichedSample: ...
    def version(self) -> Version: ...
    def close(self) -> None: ...


class Locator(Protocol):
    """Tells where logs are that no search has found."""

    def behind(self, name: str) -> tuple[str, ...]: ...
    def holding(
        self, logs: Sequence[tuple[Sequence[str], str, str | None]]
    ) -> list[LogLocation | None]: ...


class ArrivalStore(Protocol):
    """Puts logs in."""

    def make_index(self, name: str) -> None: ...
    def create(self, arrivals: Sequence[Arrival]) -> list[str]: ...


class LiveStore(RunStore, Protocol):
    """What a consumer of messages asks of a log store besides."""

    @property
    def whereabouts(self) -> Locator: ...
    @property
    def arrivals(self) -> ArrivalStore: ...

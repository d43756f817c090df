"""What the history asks of the store of records; OpenSearch and the form in memory keep it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from enrich.models import DaySums, RunRecord


class RecordReader(Protocol):
    """Reads records; see `enrich.log_store.run_history.RunHistory`. Raises EnrichError."""

    def page(
        self,
        count: int,
        *,
        before: RunRecord | None = None,
        without: Collection[str] = (),
        busy: bool = False,
    ) -> list[RunRecord]: ...
    def of(self, run: str) -> RunRecord | None: ...
    def numbered(self, number: int) -> RunRecord | None: ...
    def like(self, run: str, count: int) -> list[str]: ...
    def count(self) -> int: ...
    def totals(self) -> dict[str, int]: ...
    def days(self, first: datetime, *, without: Collection[str] = ()) -> dict[str, DaySums]: ...


class RecordStore(RecordReader, Protocol):
    """Writes records, too."""

    def write(
        self,
        records: Sequence[RunRecord],
        totals: Mapping[str, int],
        days: Mapping[str, int],
    ) -> None: ...
    def forget(self, before: datetime) -> int: ...

"""What work on a chunk leaves behind for those who do the rest of the same work: a run, or a
consumer of messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from enrich.embedding.budget import Usage
from enrich.enrichment.run_usage import RunUsage
from enrich.ledger import Ledger
from enrich.models import METHOD, REALTIME_RUN


class Journal(Protocol):
    """What enricher and writer note, by the name of the work (`Chunk.run`)."""

    #: `ai_enrichment_method` of what is written.
    method: str

    def skip(self, run: str, index: str, why: str) -> None:
        """An index is bought nothing more, because of what a sentence says."""
        ...

    def skipped(self, run: str) -> Mapping[str, str]:
        """Those indices, each with its sentence."""
        ...

    def out_of_budget(self, run: str) -> None:
        """The whole of the day's budget is used up."""
        ...

    def note_alone(self, chunk: str, owner: str, fingerprint: str) -> None:
        """The text that is handled alone, before it is; "" before it is read."""
        ...

    def note_writers(self, run: str, logs: Mapping[str, int]) -> None:
        """Logs had a vector already: how many, by the run that wrote it."""
        ...

    def usage(self, run: str) -> Usage:
        """Takes what is used of the API."""
        ...


class RunJournal:
    """The journal of runs, which is the ledger."""

    method = METHOD

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def skip(self, run: str, index: str, why: str) -> None:
        self._ledger.runs.skip(run, index, why)

    def skipped(self, run: str) -> Mapping[str, str]:
        return self._ledger.runs.skipped(run)

    def out_of_budget(self, run: str) -> None:
        self._ledger.runs.out_of_budget(run)

    def note_alone(self, chunk: str, owner: str, fingerprint: str) -> None:
        self._ledger.chunks.note_alone(chunk, owner, fingerprint)

    def note_writers(self, run: str, logs: Mapping[str, int]) -> None:
        runs = [run for run in logs if not run.startswith(REALTIME_RUN)]
        if strangers := self._ledger.runs.unknown(runs):
            count = sum(logs[stranger] for stranger in strangers)
            self._ledger.counters.add(run, written_by_others=count)

    def usage(self, run: str) -> RunUsage:
        return RunUsage(self._ledger, run)

"""The straight line of a run: tick → page → chunk → outcomes → end.

Decides what happens next and says it to a `Publisher`; knows nothing of Celery. Every move may be
delivered twice, late or never: the ledger admits each once, and the next tick picks up what was
lost. Errors are raised as they are; the tasks turn them into retries.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from enrich import tracing
from enrich.backfill.chunk import Chunks
from enrich.backfill.page import Scanner
from enrich.backfill.progress import Progress
from enrich.backfill.publisher import Publisher
from enrich.backfill.summary import log_summary
from enrich.backfill.survey import Survey
from enrich.embedding.resolver import Resolver
from enrich.enrichment.comparing import Locations
from enrich.enrichment.enricher import Enricher
from enrich.enrichment.journal import RunJournal
from enrich.enrichment.slow_indices import SlowIndices
from enrich.enrichment.write_trials import WriteTrials
from enrich.errors import Halt, NotHere, RunClosed, TransientError
from enrich.history.recorder import Recorder
from enrich.ledger import Ledger
from enrich.ledger.deployment import Configuration
from enrich.ledger.measurements import RunSpeed
from enrich.ledger.owners import this_process
from enrich.log_context import bound
from enrich.log_store import RequestRefused
from enrich.log_store.interfaces import RunStore
from enrich.models import Chunk, Outcome, RunRecord, outcome_line
from enrich.planning.confirming import Confirming
from enrich.planning.planner import Planner
from enrich.ratelimit.write_throttle import WriteThrottle
from enrich.settings import Settings

log = logging.getLogger(__name__)

#: Only one worker reads a page; should it die, another may after this many seconds.
PAGE_LEASE_SECONDS = 30


class Closable(Protocol):
    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a backfill works with; built once per process, after the fork."""

    settings: Settings
    store: RunStore
    resolver: Resolver
    locations: Locations
    ledger: Ledger
    throttle: WriteThrottle
    publisher: Publisher
    #: What is closed at the end: clients of servers.
    connections: Sequence[Closable]
    #: Writes records of runs where they outlive Redis; None where none are kept.
    recorder: Recorder | None = None
    #: Plans backlogs where ENRICH_CONFIRM_ABOVE_USD asks for it; None elsewhere.
    planner: Planner | None = None


class Backfill:
    """The four moves, each called by the task of its name."""

    def __init__(self, parts: Parts) -> None:
        self._settings = parts.settings
        self._store = parts.store
        self._ledger = parts.ledger
        self._publisher = parts.publisher
        self._configuration = Configuration.of(parts.settings)
        self._connections = parts.connections
        self._recorder = parts.recorder
        trials = WriteTrials(parts.store.engines, parts.ledger.index_states, this_process())
        self._progress = Progress(
            parts.ledger,
            parts.publisher,
            configuration=self._configuration,
            max_chunks_in_flight=parts.settings.enrich_max_chunks_in_flight,
        )
        self._chunks = Chunks(
            parts.ledger,
            Enricher(
                parts.settings,
                parts.store,
                parts.resolver,
                parts.ledger,
                parts.throttle,
                trials,
                SlowIndices(),
                RunJournal(parts.ledger),
            ),
            self._progress,
            configuration=self._configuration,
            hard_limit=parts.settings.enrich_hard_time_limit_seconds,
        )
        self._scanner = Scanner(
            parts.settings,
            parts.store,
            parts.ledger,
            parts.resolver,
            Survey(parts.settings, parts.store, parts.locations, parts.ledger, parts.resolver),
            parts.publisher,
            confirming=None
            if parts.planner is None
            else Confirming(
                parts.planner,
                parts.ledger,
                parts.settings.enrich_confirm_above_usd,
                parts.settings.enrich_soft_time_limit_seconds / 2,
            ),
        )

    def close(self) -> None:
        """Close the connections to all servers."""
        for connection in self._connections:
            connection.close()

    # -- tick

    def tick(self, trigger: str) -> str:
        """Begin a run and read its first page; or, with a run active, recover what stands still."""
        active = self._ledger.runs.active()
        if active:
            with bound(active):
                self.recover(active)
        if reason := self._ledger.deployment.odd(self._configuration):
            raise NotHere(f"a tick is left to the other workers: {reason}")
        if self._recorder is not None and not active:
            self._recorder.take_over()
        opened = self._ledger.runs.open(trigger, self._settings.interval_seconds)
        if opened.verdict != "opened":
            return _SKIPPED[opened.verdict].format(opened.run)
        with bound(opened.run):
            return self.scan(opened.run, 1)

    def recover(self, run: str) -> None:
        """Defer chunks past their deadline and publish whatever the run waits for."""
        expired, state = self._ledger.chunks.expire(
            run, self._settings.enrich_chunk_deadline_seconds
        )
        if expired:
            log.warning("%d chunks passed their deadline and were deferred", expired)
        if state.known:
            wanted = self._ledger.runs.configured(run)
            others = state.running and wanted.differing(self._configuration)
            if others and not self._ledger.deployment.served(wanted):
                self._progress.abandon(run, wanted)
            else:
                self._progress.advance(run, state)
        else:
            # Its record was lost while its name stayed.
            self._ledger.runs.finish(run)

    # -- page

    def scan(self, run: str, page: int) -> str:
        """Read one page of pending logs and publish its chunks."""
        try:
            state = self._ledger.runs.state(run)
        except RunClosed:
            return f"run {run} is over"
        if state.running:
            wanted = self._ledger.runs.configure(run, self._configuration)
            if wanted.differing(self._configuration):
                return self._progress.leave(run, wanted)
        if state.running and state.page == page + 1:
            # Delivered again: some of its messages may never have been sent.
            for message in self._ledger.pages.outbox(run):
                self._publisher.embed_and_update(message)
            self._ledger.pages.sent(run, page)
        if not state.running or state.scan_done:
            self._progress.advance(run, state)
            return f"run {run} is not scanning"
        if state.page != page:
            return f"page {page} was read before"
        if self._ledger.controls.paused():
            return "paused"
        free = self._progress.free_slots(run, state)
        if not free:
            return "no room for more chunks"
        if self._progress.reader(run, page) or not self._ledger.pages.lease(
            run, page, this_process(), PAGE_LEASE_SECONDS
        ):
            return f"page {page} is being read"
        try:
            line = self._scanner.read_page(run, page, free)
        except (Halt, RequestRefused) as error:
            self._progress.halt(run, str(error))
            return f"halted: {error}"
        except TransientError as error:
            self._ledger.counters.add_retry(run, str(error))
            raise
        finally:
            self._ledger.pages.release(run, page)
        self._progress.advance(run, self._ledger.runs.state(run))
        return line

    # -- chunk

    def embed_and_update(self, chunk: Chunk) -> str:
        """As `Chunks.embed_and_update`."""
        return self._chunks.embed_and_update(chunk)

    def give_up(self, chunk: Chunk, why: str) -> str:
        """As `Chunks.give_up`."""
        return self._chunks.give_up(chunk, why)

    # -- end

    def halt(self, run: str, reason: str) -> None:
        """As `Progress.halt`."""
        self._progress.halt(run, reason)

    def finish(self, run: str) -> str:
        """Close a run that is through, say what it did, and go on where only time ended it."""
        # One that is skipped may not answer, and the others would be waited for in vain.
        indices = sorted(
            set(self._ledger.pages.indices(run)).difference(self._ledger.runs.skipped(run))
        )
        try:
            if indices and self._ledger.runs.state(run).over:
                self._store.documents.refresh(indices)
        except RunClosed:
            pass
        except (TransientError, Halt, RequestRefused) as error:
            # The refresh only makes vectors visible sooner; OpenSearch does it by itself later.
            log.warning("indices were not refreshed: %s", error)
        verdict = self._ledger.runs.finish(run)
        if verdict != "finished":
            return f"run {run} is {verdict}"
        record = self._ledger.records.of(run)
        self._measure(record)
        log_summary(record, self._ledger, self._settings)
        tracing.ended(
            run,
            record.started_at,
            record.finished_at,
            well=record.state == "finished",
            state=record.state,
            **{name: getattr(record, name) for name in ("found", "failed", "deferred")},
            vectors=record.vectors_written,
            cost_usd=record.estimated_cost_usd,
        )
        if record.state == "finished" and record.more and record.stopped_by == "time":
            self._publisher.find_unvectorized("continued")
        # The last of all: nothing waits for it.
        if self._recorder is not None:
            self._recorder.catch_up()
        outcomes = {outcome.value: getattr(record, outcome.value) for outcome in Outcome}
        return f"cycle #{record.number} {record.state}: {outcome_line(outcomes)}"

    def _measure(self, record: RunRecord) -> None:
        """Keep how fast a run was that nothing held up."""
        held_up = record.deferred or record.rate_limited or record.retries
        if record.state == "finished" and not held_up:
            self._ledger.measurements.add_run(
                record.number,
                RunSpeed(
                    vectors=record.vectors_written,
                    inputs=record.api_inputs,
                    seconds=record.duration_seconds,
                ),
            )


_SKIPPED = {
    "active": "skipped: run {} is active",
    "paused": "skipped: paused",
    "too_soon": "skipped: the last run began less than half an interval ago",
}

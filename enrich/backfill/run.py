"""The straight line of a run: tick → page → chunk → outcomes → end.

Decides what happens next and says it to a `Publisher`; knows nothing of Celery. Every move may be
delivered twice, late or never: the ledger admits each once, and the next tick picks up what was
lost. Errors are raised as they are; the tasks turn them into retries.
"""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from enrich.backfill.page import Scanner
from enrich.embedding.locations import VectorLocations
from enrich.embedding.resolver import Resolver
from enrich.enrichment.enricher import MAX_LOSSES, Enricher
from enrich.enrichment.outcomes import IN_DOUBT, Tally
from enrich.enrichment.write_trials import WriteTrials
from enrich.errors import Halt, NotHere, NotYet, RunClosed, TransientError
from enrich.ledger import Ledger, Standing
from enrich.ledger.deployment import Configuration
from enrich.log_store import LogStore, RequestRefused
from enrich.models import Chunk, Outcome, RunRecord, outcome_line
from enrich.ratelimit.write_throttle import WriteThrottle
from enrich.settings import Settings
from enrich.status.health import health_of
from enrich.status.report import read_status

log = logging.getLogger(__name__)

#: Only one worker reads a page; should it die, another may after this many seconds.
PAGE_CLAIM_SECONDS = 30

#: Longest pause that open work waits for; asked for a longer one, the run halts.
MAX_PAUSE_SECONDS = 60.0


#: Reasons in a line of the log; the run record has more.
REASONS_SHOWN = 3

#: Why a chunk is deferred that no worker has survived.
WORKERS_LOST = "workers were lost with it again and again: is a log too large for them?"


class Publisher(Protocol):
    """Sends the next moves to the workers."""

    def find_unvectorized(self, trigger: str) -> None: ...
    def scan_page(self, run: str, page: int) -> None: ...
    def embed_and_update(self, message: dict[str, Any]) -> None: ...
    def finish_run(self, run: str) -> None: ...


class Closable(Protocol):
    def close(self) -> None: ...


class ChunkBusy(NotYet):
    """Another delivery of this chunk is at work; `seconds` until its lease ends."""

    def __init__(self, seconds: float) -> None:
        super().__init__(str(self), seconds)
        # By which it is built anew in another process.
        self.args = (seconds,)

    def __str__(self) -> str:
        return "another delivery of this chunk is at work"


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a backfill works with; built once per process, after the fork."""

    settings: Settings
    store: LogStore
    resolver: Resolver
    locations: VectorLocations
    ledger: Ledger
    throttle: WriteThrottle
    publisher: Publisher
    #: What is closed at the end: clients of servers.
    connections: Sequence[Closable]


class Backfill:
    """The four moves, each called by the task of its name."""

    def __init__(self, parts: Parts) -> None:
        self._settings = parts.settings
        self._store = parts.store
        self._ledger = parts.ledger
        self._publisher = parts.publisher
        self._configuration = Configuration.of(parts.settings)
        self._connections = parts.connections
        trials = WriteTrials(parts.store.engines, parts.ledger.index_states, _claimant())
        self._work = Enricher(
            parts.settings, parts.store, parts.resolver, parts.ledger, parts.throttle, trials
        )
        self._scanner = Scanner(
            parts.settings,
            parts.store,
            parts.locations,
            parts.ledger,
            parts.resolver,
            parts.publisher,
        )

    def close(self) -> None:
        """Close the connections to all servers."""
        for connection in self._connections:
            connection.close()

    # -- tick

    def tick(self, trigger: str) -> str:
        """Begin a run and read its first page; or, with a run active, mend what stands still."""
        active = self._ledger.active_run()
        if active:
            self.mend(active)
        if reason := self._ledger.deployment.odd(self._configuration):
            raise NotHere(f"a tick is left to the other workers: {reason}")
        opened = self._ledger.open(trigger, self._settings.interval_seconds)
        if opened.verdict != "opened":
            return _SKIPPED[opened.verdict].format(opened.run)
        return self.scan(opened.run, 1)

    def mend(self, run: str) -> None:
        """Defer chunks past their deadline and publish whatever the run waits for."""
        expired, standing = self._ledger.expire(run, self._settings.enrich_chunk_deadline_seconds)
        if expired:
            log.warning(
                "%d chunks passed their deadline and were deferred", expired, extra={"run": run}
            )
        if standing.state:
            wanted = self._ledger.configured(run)
            others = standing.state == "running" and wanted.differing(self._configuration)
            if others and not self._ledger.deployment.served(wanted):
                self._abandon(run, wanted)
            else:
                self._advance(run, standing)
        else:
            # Its record was lost while its name stayed.
            self._ledger.finish(run)

    def _advance(self, run: str, standing: Standing) -> None:
        """Publish the next move, if one is due. Doubles are harmless, but not free: who reads a
        page looks for the next move when it is read."""
        if standing.over:
            self._publisher.finish_run(run)
        elif (
            not standing.scan_done and self._room(standing) and not self._reader(run, standing.page)
        ):
            self._publisher.scan_page(run, standing.page)

    def _room(self, standing: Standing) -> int:
        """Chunks that may be added; 0 below half of the limit, so that pages stay large."""
        most = self._settings.enrich_max_chunks_in_flight
        room = most - standing.open_chunks
        return room if room >= max(1, most // 2) else 0

    # -- what only a worker with the run's settings may do

    def _leave(self, run: str, wanted: Configuration) -> str:
        """Leave a run's work to those with its settings, or end it if nobody has them any more.

        Raises:
            NotHere: somebody has.
        """
        if self._ledger.deployment.served(wanted):
            names = ", ".join(wanted.differing(self._configuration))
            raise NotHere(
                f"work of run {run} is left to the other workers: {names} of this one differ from "
                "the run's"
            )
        return self._abandon(run, wanted)

    def _abandon(self, run: str, wanted: Configuration) -> str:
        changed = ", ".join(
            f"{name} {wanted.values[name]} → {self._configuration.values[name]}"
            for name in wanted.differing(self._configuration)
        )
        reason = f"no worker with the settings of its beginning is left ({changed})"
        if self._ledger.halt(run, reason, state="abandoned"):
            log.warning("run ended: %s; the next takes its logs", reason, extra={"run": run})
        self._publisher.finish_run(run)
        return f"run {run} was ended: {reason}"

    # -- page

    def scan(self, run: str, page: int) -> str:
        """Read one page of logs that are owed and publish its chunks."""
        try:
            standing = self._ledger.standing(run)
        except RunClosed:
            return f"run {run} is over"
        if standing.state == "running":
            wanted = self._ledger.configure(run, self._configuration)
            if wanted.differing(self._configuration):
                return self._leave(run, wanted)
        if standing.state == "running" and standing.page == page + 1:
            # Delivered again: some of its messages may never have been sent.
            for message in self._ledger.outbox(run):
                self._publisher.embed_and_update(message)
            self._ledger.sent(run, page)
        if standing.state != "running" or standing.scan_done:
            self._advance(run, standing)
            return f"run {run} is not scanning"
        if standing.page != page:
            return f"page {page} was read before"
        if self._ledger.paused():
            return "paused"
        room = self._room(standing)
        if not room:
            return "no room for more chunks"
        if self._reader(run, page) or not self._ledger.claim_page(
            run, page, _claimant(), PAGE_CLAIM_SECONDS
        ):
            return f"page {page} is being read"
        try:
            line = self._scanner.read_page(run, page, room)
        except (Halt, RequestRefused) as error:
            self.halt(run, str(error))
            return f"halted: {error}"
        except TransientError as error:
            self._ledger.count_retry(run, str(error))
            raise
        finally:
            self._ledger.release_page(run, page)
        self._advance(run, self._ledger.standing(run))
        return line

    def _reader(self, run: str, page: int) -> str:
        """Who is reading this page, or "". A claim whose holder is dead is given back; should two
        come to read the page thereby, the ledger registers it once."""
        holder = self._ledger.page_holder(run, page)
        if not _is_dead(holder):
            return holder
        self._ledger.release_page(run, page)
        return ""

    # -- chunk

    def embed_and_update(self, chunk: Chunk) -> str:
        """Work on one delivery of a chunk and settle it.

        Raises:
            ChunkBusy: another delivery is at it; look again when its claim has ended.
            NotHere: other workers have the run's settings; nothing was claimed.
            TransientError: to be tried again; the claim was given back.
        """
        claimant = _claimant()
        hard = self._settings.enrich_hard_time_limit_seconds
        mine = self._configuration
        claim = self._ledger.begin(chunk.id, claimant, hard, configuration=mine)
        if claim.verdict == "busy" and _is_dead(claim.holder):
            claim = self._ledger.begin(
                chunk.id, claimant, hard, dead=claim.holder, configuration=mine
            )
        if claim.verdict == "other":
            return self._leave(chunk.run, self._ledger.configure(chunk.run, mine))
        if claim.verdict == "closed":
            return self._closed(chunk, hard)
        if claim.verdict == "busy":
            raise ChunkBusy(claim.value / 1000)
        if claim.value > MAX_LOSSES:
            return self._put_off(chunk, claim.value)
        try:
            tally = self._work.work(chunk, claim)
        except Halt as error:
            self.halt(chunk.run, str(error))
            return self._settle(chunk, self._accounted(chunk, str(error)))
        except TransientError as error:
            self._ledger.count_retry(chunk.run, str(error))
            self._ledger.release(chunk.id, claimant)
            raise
        except RequestRefused as error:
            return self._defer(chunk, str(error))
        return self._settle(chunk, tally)

    def _closed(self, chunk: Chunk, hard: float) -> str:
        """A delivery after the end: what a lost worker wrote before it could settle counts now."""
        line = f"chunk {chunk.id} was settled before"
        if not self._ledger.unaccounted(chunk.id, hard):
            return line
        try:
            tally = self._work.account(chunk)
        except (Halt, RequestRefused):
            return line
        if tally.unreadable:
            raise TransientError(IN_DOUBT)
        return f"{line}; counted now: {self._settle(chunk, tally)}"

    def give_up(self, chunk: Chunk, why: str) -> str:
        """Settle a chunk that cannot be finished: what was written counts, the rest is deferred."""
        hard = self._settings.enrich_hard_time_limit_seconds
        claim = self._ledger.begin(chunk.id, _claimant(), hard, dead=_claimant())
        if claim.verdict == "closed" and self._ledger.unaccounted(chunk.id, hard):
            # Nobody tries again: what cannot be read even now stays deferred.
            return self._settle(chunk, self._accounted(chunk, why))
        if claim.verdict != "go":
            # Another delivery is at it, and will settle it.
            return f"chunk {chunk.id} is {claim.verdict}"
        return self._defer(chunk, why)

    def _put_off(self, chunk: Chunk, losses: int) -> str:
        """Settle a chunk unread: each delivery of it has ended its worker."""
        log.error(
            "chunk %s is deferred: %d workers were lost with it; is a log too large for them?",
            chunk.id, losses, extra={"run": chunk.run},
        )  # fmt: skip
        tally = _all_deferred(chunk, WORKERS_LOST)
        tally.errors += 1
        return self._settle(chunk, tally)

    def _defer(self, chunk: Chunk, why: str) -> str:
        log.warning("chunk %s is deferred: %s", chunk.id, why, extra={"run": chunk.run})
        tally = self._accounted(chunk, why)
        tally.errors += 1
        return self._settle(chunk, tally)

    def _accounted(self, chunk: Chunk, why: str) -> Tally:
        try:
            tally = self._work.account(chunk)
        except (TransientError, Halt, RequestRefused):
            return _all_deferred(chunk, why)
        tally.explain(why)
        return tally

    def _settle(self, chunk: Chunk, tally: Tally) -> str:
        line = outcome_line(tally.outcomes)
        verdict, standing = self._ledger.settle(
            chunk.id, tally.outcomes, tally.errors, tally.reasons
        )
        log.debug("chunk %s %s: %s", chunk.id, verdict, line, extra={"run": chunk.run})
        if standing.state:
            self._advance(chunk.run, standing)
        return line

    def halt(self, run: str, reason: str) -> None:
        """End a run that cannot go on; its open work is deferred."""
        if self._ledger.halt(run, reason):
            log.error("run halted: %s", reason, extra={"run": run})
        self._publisher.finish_run(run)

    def active_run(self) -> str:
        return self._ledger.active_run()

    # -- end

    def finish(self, run: str) -> str:
        """Close a run that is through, say what it did, and go on where only time ended it."""
        # One that is skipped may not answer, and the others would be waited for in vain.
        indices = sorted(set(self._ledger.indices(run)).difference(self._ledger.skipped(run)))
        try:
            if indices and self._ledger.standing(run).over:
                self._store.documents.refresh(indices)
        except RunClosed:
            pass
        except (TransientError, Halt, RequestRefused) as error:
            # The refresh only makes vectors visible sooner; OpenSearch does it by itself later.
            log.warning("indices were not refreshed: %s", error, extra={"run": run})
        verdict = self._ledger.finish(run)
        if verdict != "finished":
            return f"run {run} is {verdict}"
        record = self._ledger.record(run)
        self._say_summary(record)
        if record.state == "finished" and record.more and record.stopped_by == "time":
            self._publisher.find_unvectorized("continued")
        outcomes = {outcome.value: getattr(record, outcome.value) for outcome in Outcome}
        return f"cycle #{record.number} {record.state}: {outcome_line(outcomes)}"

    def _say_summary(self, record: RunRecord) -> None:
        extra = {"run": record.run_id}
        say = log.info
        say(
            "Cycle #%d step 2/3: embeddings generated: %d (%d by the API, %d from cache, "
            "%d reused, %d duplicates), none for %d (%d failed, %d deferred, %d had one already, "
            "%d gone); %d texts sent to the API in %d requests",
            record.number, record.embedded + record.cached + record.reused + record.duplicate,
            record.embedded, record.cached, record.reused, record.duplicate,
            record.failed + record.deferred + record.already_vectorized + record.gone,
            record.failed, record.deferred, record.already_vectorized, record.gone,
            record.api_inputs, record.api_requests, extra=extra,
        )  # fmt: skip
        say(
            "Cycle #%d step 3/3: documents updated: %d success, %d failed, %d deferred%s; "
            "%d retries%s",
            record.number, record.vectors_written, record.failed, record.deferred,
            _counted(record.deferral_reasons), record.retries, _counted(record.retry_reasons),
            extra=extra,
        )  # fmt: skip
        if record.written_by_others:
            log.warning(
                "Cycle #%d: %d logs were given a vector meanwhile by runs that this Redis does not "
                "know: does another deployment (another ENRICH_REDIS_PREFIX or REDIS_URL) enrich "
                "the same indices? Each pays for every text",
                record.number, record.written_by_others, extra=extra,
            )  # fmt: skip
        totals = self._ledger.totals()
        if record.settled != record.found:
            log.error(
                "Cycle #%d does not add up: %d found, %d accounted for",
                record.number, record.found, record.settled, extra=extra,
            )  # fmt: skip
        say(
            "Cycle #%d %s: duration %.1f s, vectors this cycle %d (%.1f/s), total vectors %d, "
            "average rate %.1f/s, total errors %d, cost $%.4f, next run %s%s",
            record.number, record.state, record.duration_seconds, record.vectors_written,
            record.rate_per_second, totals.vectors, totals.average_rate, totals.errors,
            record.estimated_cost_usd, self.next_run(record),
            f", halted: {record.halt_reason}" if record.halt_reason else "", extra=extra,
        )  # fmt: skip
        health = health_of(read_status(self._ledger, None, settings=self._settings))
        log.log(
            logging.INFO if health.well else logging.WARNING, "health: %s", health.line, extra=extra
        )

    def next_run(self, record: RunRecord) -> str:
        """When the next tick after a run's start is due, as told to people."""
        if record.more and record.stopped_by == "time":
            return "now (more is waiting)"
        if record.more and record.stopped_by == "budget":
            return "after midnight UTC (ENRICH_MAX_COST_PER_DAY is used up)"
        assert record.started_at is not None
        # Beat ticks at its interval whatever a run lasts; ticks that a run was in the way of are
        # over.
        now, interval = self._ledger.now(), self._settings.interval_seconds
        began = (self._ledger.last_tick() or record.started_at).timestamp()
        due = began + interval * max(1, math.ceil((now - began) / interval))
        return datetime.fromtimestamp(due, UTC).strftime("%H:%M:%S UTC")


_SKIPPED = {
    "active": "skipped: run {} is active",
    "paused": "skipped: paused",
    "too_soon": "skipped: the last run began less than half an interval ago",
}


def _counted(reasons: Mapping[str, int]) -> str:
    """Reasons with their counts in brackets, the most frequent first, not all of them."""
    told = [f"{count}: {sentence}" for sentence, count in reasons.items()]
    if len(told) > REASONS_SHOWN:
        told[REASONS_SHOWN:] = [f"and {len(told) - REASONS_SHOWN} other reasons"]
    return f" ({'; '.join(told)})" if told else ""


def _all_deferred(chunk: Chunk, why: str) -> Tally:
    """What became of a chunk of which nothing can be read."""
    tally = Tally()
    tally.defer(why, len(chunk.references))
    return tally


def _claimant() -> str:
    return f"{socket.gethostname()}/{os.getpid()}"


def _is_dead(holder: str) -> bool:
    """Whether the holder of a claim was a process of this host that is no more."""
    host, _, pid = holder.rpartition("/")
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, ValueError):
        return False
    return False

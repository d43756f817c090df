"""One delivery of a chunk: lease, work, settle. Whatever happens, each log is accounted once."""

from __future__ import annotations

import logging

from enrich.backfill.progress import Progress
from enrich.enrichment.enricher import MAX_WORKERS_LOST, Enricher
from enrich.enrichment.outcomes import IN_DOUBT, Tally
from enrich.errors import Halt, IndexBeingTried, IndexInTrouble, NotYet, TransientError
from enrich.ledger import Ledger
from enrich.ledger.deployment import Configuration
from enrich.ledger.owners import is_dead, this_process
from enrich.log_store import RequestRefused
from enrich.models import Chunk, outcome_line

log = logging.getLogger(__name__)

#: Why a chunk is deferred that no worker has survived.
WORKERS_LOST = "workers were lost with it again and again: is a log too large for them?"


class ChunkBusy(NotYet):
    """Another delivery of this chunk is at work; `seconds` until its lease ends."""

    def __init__(self, seconds: float) -> None:
        super().__init__(str(self), seconds)
        # With these it is built again in another process.
        self.args = (seconds,)

    def __str__(self) -> str:
        return "another delivery of this chunk is at work"


class Chunks:
    """Works on deliveries of chunks; one for each worker process."""

    def __init__(
        self,
        ledger: Ledger,
        enricher: Enricher,
        progress: Progress,
        *,
        configuration: Configuration,
        hard_limit: float,
    ) -> None:
        """
        Args:
            hard_limit: seconds after which Celery kills a worker at a task.
        """
        self._ledger = ledger
        self._enricher = enricher
        self._progress = progress
        self._configuration = configuration
        self._hard_limit = hard_limit

    def embed_and_update(self, chunk: Chunk) -> str:
        """Work on one delivery of a chunk and settle it.

        Raises:
            ChunkBusy: another delivery is at it; look again when its lease has ended.
            NotHere: other workers have the run's settings; no lease was taken.
            TransientError: to be tried again; the lease was given back.
        """
        owner = this_process()
        hard = self._hard_limit
        mine = self._configuration
        lease = self._ledger.chunks.begin(chunk.id, owner, hard, configuration=mine)
        if lease.verdict == "busy" and is_dead(lease.owner):
            lease = self._ledger.chunks.begin(
                chunk.id, owner, hard, dead=lease.owner, configuration=mine
            )
        if lease.verdict == "other":
            return self._progress.leave(chunk.run, self._ledger.runs.configure(chunk.run, mine))
        if lease.verdict == "closed":
            return self._closed(chunk, hard)
        if lease.verdict == "busy":
            raise ChunkBusy(lease.seconds_left)
        if lease.workers_lost > MAX_WORKERS_LOST:
            return self._defer_unread(chunk, lease.workers_lost)
        try:
            tally = self._enricher.work(chunk, lease)
        except Halt as error:
            self._progress.halt(chunk.run, str(error))
            return self._settle(chunk, self._accounted(chunk, str(error)))
        except TransientError as error:
            self._ledger.counters.add_retry(chunk.run, str(error))
            self._ledger.chunks.release(chunk.id, owner)
            if isinstance(error, IndexInTrouble | IndexBeingTried):
                # No other chunk may end before this one: the next page is due now.
                self._ledger.chunks.set_aside(chunk.id)
                self._progress.advance(chunk.run, self._ledger.runs.state(chunk.run))
            raise
        except RequestRefused as error:
            return self._defer(chunk, str(error))
        return self._settle(chunk, tally)

    def _closed(self, chunk: Chunk, hard: float) -> str:
        """A delivery after the end: what a lost worker wrote before it could settle counts now."""
        line = f"chunk {chunk.id} was settled before"
        if not self._ledger.chunks.unaccounted(chunk.id, hard):
            return line
        try:
            tally = self._enricher.account(chunk)
        except (Halt, RequestRefused):
            return line
        if tally.unreadable:
            raise TransientError(IN_DOUBT)
        return f"{line}; counted now: {self._settle(chunk, tally)}"

    def give_up(self, chunk: Chunk, why: str) -> str:
        """Settle a chunk that cannot be finished: what was written counts, the rest is deferred."""
        hard = self._hard_limit
        lease = self._ledger.chunks.begin(chunk.id, this_process(), hard, dead=this_process())
        if lease.verdict == "closed" and self._ledger.chunks.unaccounted(chunk.id, hard):
            # Nobody tries again: what cannot be read even now stays deferred.
            return self._settle(chunk, self._accounted(chunk, why))
        if lease.verdict != "go":
            # Another delivery is at it, and will settle it.
            return f"chunk {chunk.id} is {lease.verdict}"
        return self._defer(chunk, why)

    def _defer_unread(self, chunk: Chunk, workers_lost: int) -> str:
        """Settle a chunk unread: each delivery of it has ended its worker."""
        log.error(
            "chunk %s is deferred: %d workers were lost with it; is a log too large for them?",
            chunk.id, workers_lost,
        )  # fmt: skip
        tally = _all_deferred(chunk, WORKERS_LOST)
        tally.errors += 1
        return self._settle(chunk, tally)

    def _defer(self, chunk: Chunk, why: str) -> str:
        log.warning("chunk %s is deferred: %s", chunk.id, why)
        tally = self._accounted(chunk, why)
        tally.errors += 1
        return self._settle(chunk, tally)

    def _accounted(self, chunk: Chunk, why: str) -> Tally:
        try:
            tally = self._enricher.account(chunk)
        except (TransientError, Halt, RequestRefused):
            return _all_deferred(chunk, why)
        tally.explain(why)
        return tally

    def _settle(self, chunk: Chunk, tally: Tally) -> str:
        line = outcome_line(tally.outcomes)
        verdict, state = self._ledger.chunks.settle(
            chunk.id, tally.outcomes, tally.errors, tally.reasons
        )
        log.debug("chunk %s %s: %s", chunk.id, verdict, line)
        if state.known:
            self._progress.advance(chunk.run, state)
        return line


def _all_deferred(chunk: Chunk, why: str) -> Tally:
    """What became of a chunk of which nothing can be read."""
    tally = Tally()
    tally.defer(why, *chunk.references)
    return tally

"""What a run waits for next, and how one is ended: for every move that may end a wait."""

from __future__ import annotations

import logging

from enrich.backfill.publisher import Publisher
from enrich.errors import NotHere
from enrich.ledger import Ledger, RunState
from enrich.ledger.deployment import Configuration
from enrich.ledger.owners import is_dead

log = logging.getLogger(__name__)


class Progress:
    """Publishes the next move of runs; one for each worker process."""

    def __init__(
        self,
        ledger: Ledger,
        publisher: Publisher,
        *,
        configuration: Configuration,
        max_chunks_in_flight: int,
    ) -> None:
        self._ledger = ledger
        self._publisher = publisher
        self._configuration = configuration
        self._max_chunks = max_chunks_in_flight

    def advance(self, run: str, state: RunState) -> None:
        """Publish the next move, if one is due. Doubles are harmless, but not free: who reads a
        page looks for the next move when it is read."""
        if state.over:
            self._publisher.finish_run(run)
        elif (
            not state.scan_done and self.free_slots(run, state) and not self.reader(run, state.page)
        ):
            self._publisher.scan_page(run, state.page)

    def free_slots(self, run: str, state: RunState) -> int:
        """Chunks that may be added; 0 below half of the limit, so that pages stay large.

        Those that wait for an index in trouble take no slot from the others, up to the same limit.
        """
        most = self._max_chunks
        enough = max(1, most // 2)
        free = most - state.open_chunks
        if free < enough:
            free += min(most, self._ledger.chunks.aside(run))
        return free if free >= enough else 0

    def reader(self, run: str, page: int) -> str:
        """Who is reading this page, or "". A lease whose owner is dead is given back; should two
        come to read the page thereby, the ledger registers it once."""
        owner = self._ledger.pages.owner(run, page)
        if not is_dead(owner):
            return owner
        self._ledger.pages.release(run, page)
        return ""

    def halt(self, run: str, reason: str) -> None:
        """End a run that cannot go on; its open work is deferred."""
        if self._ledger.runs.halt(run, reason):
            log.error("run halted: %s", reason)
        self._publisher.finish_run(run)

    # -- what only a worker with the run's settings may do

    def leave(self, run: str, wanted: Configuration) -> str:
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
        return self.abandon(run, wanted)

    def abandon(self, run: str, wanted: Configuration) -> str:
        changed = ", ".join(
            f"{name} {wanted.values[name]} → {self._configuration.values[name]}"
            for name in wanted.differing(self._configuration)
        )
        reason = f"no worker with the settings of its beginning is left ({changed})"
        if self._ledger.runs.halt(run, reason, state="abandoned"):
            log.warning("run ended: %s; the next takes its logs", reason)
        self._publisher.finish_run(run)
        return f"run {run} was ended: {reason}"

"""What a run looks at before a token is spent: which indices it may enrich, and whether the
endpoint's vectors may stand beside those that are there."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from enrich.embedding.budget import share_used_up
from enrich.embedding.resolver import Resolver
from enrich.enrichment.comparing import Comparing, Locations
from enrich.enrichment.index_check import check_indices, halt_if_unfit
from enrich.enrichment.run_usage import RunUsage
from enrich.errors import Halt, InputRefused
from enrich.ledger import Ledger, Scan
from enrich.log_store.interfaces import RunStore
from enrich.models import project_of
from enrich.settings import Settings

log = logging.getLogger(__name__)


class Survey:
    """Surveys for runs; one for each worker process."""

    def __init__(
        self,
        settings: Settings,
        store: RunStore,
        locations: Locations,
        ledger: Ledger,
        resolver: Resolver,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._resolver = resolver
        self._comparing = Comparing(settings, store, locations, ledger, resolver)

    def of(self, run: str) -> Scan:
        """Say which indices the run reads, and skip the others with a reason.

        Raises:
            Halt: no index may be written to.
            TransientError: to be asked again.
        """
        backlog = self._store.backlog.count()
        for index, reason in backlog.unreadable.items():
            self._ledger.runs.skip(run, index, reason)
        if not backlog.counts:
            return Scan(pending=[], update_only=[], unsorted=[])
        nodes = halt_if_unfit(self._store)
        self._ledger.spending.saw({project_of(index) for index in backlog.counts})
        left = self.leave_spent_shares(run, backlog.counts)
        # The smallest backlog first: it is done soon, and the others have their turn anyway.
        indices = sorted(
            backlog.counts.keys() - left, key=lambda index: (backlog.counts[index], index)
        )
        checked = check_indices(self._store, self._ledger.index_states, indices, backlog.unsorted)
        self._skip(run, checked.skipped)
        pending, ready = checked.fit, checked.ready
        return Scan(
            pending=[(index, None) for index in pending],
            update_only=ready.update_only,
            unsorted=sorted(backlog.unsorted.intersection(pending)),
            nodes=nodes,
            left={index: backlog.counts[index] for index in pending},
            windows={index: ready.windows[index] for index in pending if index in ready.windows},
        )

    def leave_spent_shares(self, run: str, indices: Iterable[str]) -> dict[str, str]:
        """Skip the indices of projects that may spend no more today; each with the reason."""
        projects = {index: project_of(index) for index in indices}
        spent = self._resolver.budget.over_share(set(projects.values()))
        left = {
            index: share_used_up(project) for index, project in projects.items() if project in spent
        }
        self._skip(run, left)
        return left

    def _skip(self, run: str, reasons: Mapping[str, str]) -> None:
        """Leave indices out of the rest of the run, and log why."""
        for index, reason in reasons.items():
            log.warning("index %s is skipped: %s", index, reason)
            self._ledger.runs.skip(run, index, reason)

    def check_endpoint(self, run: str) -> None:
        """See that the endpoint's vectors may stand beside those that are there; and, after a
        halt, that it works at all, with one input."""
        self._comparing.look(run)
        runs = self._ledger.records.last(2)
        if len(runs) > 1 and runs[1].state == "halted" and runs[1].run_id != run:
            try:
                self._resolver.probe(RunUsage(self._ledger, run), occasion=run)
            except InputRefused as error:
                raise Halt(f"{error}: check EMBEDDING_MODEL and OPENAI_BASE_URL") from None

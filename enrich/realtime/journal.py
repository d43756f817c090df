"""What a consumer notes of its work: `enrich.enrichment.journal.Journal` without a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from enrich.ledger import Ledger
from enrich.models import REALTIME_METHOD

#: For so long an index that refused writes is bought nothing; then it is tried again.
SKIP_SECONDS = 600.0


class ConsumerUsage:
    """`enrich.embedding.budget.Usage` of a group of consumers."""

    def __init__(self, ledger: Ledger, group: str) -> None:
        self._ledger = ledger
        self._group = group

    def count(
        self, *, micro_usd: int = 0, paid_by: Mapping[str, int] | None = None, **amounts: int
    ) -> None:
        self._ledger.realtime.count(self._group, micro_usd=micro_usd, paid_by=paid_by, **amounts)


class ConsumerJournal:
    """One for each consumer; what it skips, it skips by itself."""

    method = REALTIME_METHOD

    def __init__(
        self, ledger: Ledger, group: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._usage = ConsumerUsage(ledger, group)
        self._clock = clock
        self._skipped: dict[str, tuple[str, float]] = {}

    def skip(self, run: str, index: str, why: str) -> None:
        self._skipped[index] = why, self._clock() + SKIP_SECONDS

    def skipped(self, run: str) -> Mapping[str, str]:
        now = self._clock()
        self._skipped = {
            i: (why, until) for i, (why, until) in self._skipped.items() if until > now
        }
        return {index: why for index, (why, _) in self._skipped.items()}

    def out_of_budget(self, run: str) -> None:
        """Each log says so by itself."""

    def note_alone(self, chunk: str, owner: str, fingerprint: str) -> None:
        """A batch is gathered anew after its consumer died, and is no chunk that could say so."""

    def note_writers(self, run: str, logs: Mapping[str, int]) -> None:
        """That others wrote a vector is no surprise here: the backfill is at it as well."""

    def usage(self, run: str) -> ConsumerUsage:
        return self._usage

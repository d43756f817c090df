"""What a run uses of the API is counted in its record."""

from __future__ import annotations

from collections.abc import Mapping

from enrich.ledger import Ledger


class RunUsage:
    """`enrich.embedding.budget.Usage` of one run."""

    def __init__(self, ledger: Ledger, run: str) -> None:
        self._ledger = ledger
        self._run = run

    def count(
        self, *, micro_usd: int = 0, paid_by: Mapping[str, int] | None = None, **amounts: int
    ) -> None:
        self._ledger.counters.add(self._run, micro_usd=micro_usd, paid_by=paid_by, **amounts)

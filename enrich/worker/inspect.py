"""Puts the run counters on every worker's page in Flower (and into `celery inspect stats`).

Asked in the worker's main process while it waits for messages, so it has to be quick, and whatever
happens it must answer: a Redis that is slow gives one sentence in place of the counters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import bootsteps

from enrich.errors import EnrichError
from enrich.models import Outcome, RunRecord, Totals, outcome_line

if TYPE_CHECKING:
    from enrich.ledger import Ledger

#: Four commands must fit into the second that Flower waits for a worker's answer.
TIMEOUT_SECONDS = 0.2


class EnrichmentInfo(bootsteps.StartStopStep):  # type: ignore[misc]
    """Nothing to start or stop, but only such steps are asked for their part of `stats`."""

    def info(self, parent: Any) -> dict[str, str]:
        # Here and not above: enrich.worker.app imports this module.
        from enrich.wiring import quick_ledger
        from enrich.worker.app import settings

        # A connection of this call's own: a kept one would be inherited by the pool's forks.
        ledger = quick_ledger(settings, TIMEOUT_SECONDS)
        try:
            return counters(ledger)
        finally:
            ledger.close()


def counters(ledger: Ledger) -> dict[str, str]:
    """Totals and last run in words; nothing is raised for trouble with Redis."""
    try:
        totals, runs = ledger.records.totals(), ledger.records.last(1)
    except EnrichError as error:
        return {"enrichment": str(error)}
    return {
        "enrichment totals": _totals_line(totals),
        "enrichment last run": _run_line(runs[0]) if runs else "none yet",
    }


def _totals_line(totals: Totals) -> str:
    return (
        f"{totals.runs:,} runs, {totals.vectors:,} vectors, {totals.errors:,} errors, "
        f"{totals.ticks_skipped:,} ticks skipped, {totals.messages_dropped:,} messages dropped, "
        f"{totals.average_rate:,g} vectors a second"
    )


def _run_line(run: RunRecord) -> str:
    line = outcome_line({outcome.value: getattr(run, outcome.value) for outcome in Outcome})
    reason = f" ({run.halt_reason})" if run.halt_reason else ""
    rest = f", {run.found - run.settled} more under way" if run.found > run.settled else ""
    return f"#{run.number} {run.state}{reason}: {line}{rest}"

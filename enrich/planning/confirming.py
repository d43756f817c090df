"""A run is held to ENRICH_CONFIRM_ABOVE_USD: a backlog that costs more waits for somebody's word.

Before a run reads its first page its backlog is planned. Where that is more than the setting, and
more than what is left of the sum that was confirmed, the run halts and says the sum and the
command. A plan may be wrong: a run that has spent what it was let go on with reads no further page,
and the next one plans what is left.
"""

from __future__ import annotations

from enrich.errors import Halt
from enrich.ledger import Ledger
from enrich.planning.plan import Plan
from enrich.planning.planner import Backlog, Planner

COMMAND = "`python -m enrich confirm`"

#: Of a plan, what may be spent once it is confirmed: logs go on arriving, and no plan is exact.
MARGIN = 1.1


def refusal(plan: Plan, above_usd: float, confirmed_usd: float) -> str:
    """Why a backlog is not begun, in a sentence; "" where it may be. Pure."""
    usd = plan.cost.usd or 0.0
    if usd <= max(above_usd, confirmed_usd):
        return ""
    left = f", and ${confirmed_usd:,.2f} of what was confirmed are left" if confirmed_usd else ""
    return (
        f"this backlog would cost about {dollars(usd)} ({plan.counted.logs:,} logs, "
        f"{plan.sent.texts:,} texts), more than ENRICH_CONFIRM_ABOVE_USD "
        f"({dollars(above_usd)}){left}: {COMMAND} lets it begin"
    )


def dollars(amount: float) -> str:
    return f"${amount:,.2f}" if amount >= 1 else f"${amount:.4f}"


class Confirming:
    """Asked by a run before its first page, and before each other."""

    def __init__(self, planner: Planner, ledger: Ledger, above_usd: float) -> None:
        self._planner = planner
        self._ledger = ledger
        self._above_usd = above_usd

    def check(self, run: str, backlog: Backlog) -> None:
        """See that the run may begin on a backlog, and note how much it may spend.

        Raises:
            Halt: nobody has confirmed what it would cost.
            TransientError: it cannot be planned now.
        """
        confirmed = self._ledger.confirmed.left_usd()
        if backlog.logs:
            plan = self._planner.plan(backlog)
            if sentence := refusal(plan, self._above_usd, confirmed):
                raise Halt(sentence)
        self._ledger.confirmed.permit(run, max(self._above_usd, confirmed))

    def used_up(self, run: str) -> bool:
        """Whether the run has spent what it was let go on with."""
        permitted = self._ledger.confirmed.permitted_usd(run)
        spent = self._ledger.records.of(run).estimated_cost_usd
        return permitted is not None and spent >= permitted

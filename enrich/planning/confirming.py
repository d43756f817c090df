"""A run is held to ENRICH_CONFIRM_ABOVE_USD: a backlog that costs more waits for somebody's word.

Before a run reads its first page its backlog is planned. Where that is more than the setting, and
more than what is left of the sum that was confirmed, the run halts and says the sum and the
command. A plan may be wrong: a run that has spent what it was let go on with reads no further page,
and the next one plans what is left.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from enrich.errors import Halt
from enrich.ledger import Ledger
from enrich.log_store.refusals import NoAnswerInTime
from enrich.planning.parts import Backlog
from enrich.planning.plan import Plan
from enrich.planning.planner import Planner

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


class _TooLong(Exception):
    """A plan takes longer than a task may."""


class Confirming:
    """Asked by a run before its first page, and before each other."""

    def __init__(
        self,
        planner: Planner,
        ledger: Ledger,
        above_usd: float,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args: seconds: that planning may take, since a task has an end."""
        self._planner = planner
        self._ledger = ledger
        self._above_usd = above_usd
        self._seconds = seconds
        self._clock = clock

    def check(self, run: str, backlog: Backlog) -> None:
        """See that the run may begin on a backlog, and note how much it may spend.

        Raises:
            Halt: nobody has confirmed what it would cost.
            TransientError: it cannot be planned now.
        """
        confirmed = self._ledger.confirmed.left_usd()
        if backlog.logs:
            plan = self._planned(backlog)
            if plan is None and not confirmed:
                raise Halt(
                    f"what this backlog of {backlog.logs:,} logs would cost cannot be counted "
                    f"within {self._seconds:.0f} s, and ENRICH_CONFIRM_ABOVE_USD is set: {COMMAND} "
                    "takes the time that it needs, and lets it begin"
                )
            if plan and (sentence := refusal(plan, self._above_usd, confirmed)):
                raise Halt(sentence)
        self._ledger.confirmed.permit(run, max(self._above_usd, confirmed))

    def _planned(self, backlog: Backlog) -> Plan | None:
        """None where that takes too long: what was confirmed bounds the run then."""
        end = self._clock() + self._seconds

        def look_at_clock(what: str, done: int, total: int) -> None:
            if self._clock() > end:
                raise _TooLong

        try:
            return self._planner.plan(backlog, look_at_clock)
        except (NoAnswerInTime, _TooLong):
            return None

    def used_up(self, run: str) -> bool:
        """Whether the run has spent what it was let go on with."""
        permitted = self._ledger.confirmed.permitted_usd(run)
        spent = self._ledger.records.of(run).estimated_cost_usd
        return permitted is not None and spent >= permitted

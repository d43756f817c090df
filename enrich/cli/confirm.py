"""`confirm`: lets runs spend what the backlog costs, where ENRICH_CONFIRM_ABOVE_USD asks for it."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console

from enrich import wiring
from enrich.cli import screen
from enrich.cli.plan import print_plan, telling
from enrich.cli.screen import dollars
from enrich.ledger.confirmed import KEPT_SECONDS
from enrich.planning.confirming import MARGIN
from enrich.settings import Settings

DAYS = KEPT_SECONDS // 86_400


def confirm(
    settings: Settings,
    console: Console,
    up_to: float | None,
    confirmed: Callable[[str], bool],
) -> int | None:
    """Show the sum, ask, and let runs spend it. None where runs may begin; else the exit status.

    Args:
        up_to: the sum in USD; None takes that of the plan, and a tenth more.
    """
    above = settings.enrich_confirm_above_usd
    if not above:
        screen.line(
            console, "ok", "ENRICH_CONFIRM_ABOVE_USD is not set: no backlog waits for a word"
        )
        return None
    ledger = wiring.build_ledger(settings)
    if up_to is None:
        planner = wiring.build_planner(settings)
        backlog = planner.backlog()
        with telling(screen.err()) as tell:
            made = planner.plan(backlog, tell)
        left = ledger.confirmed.left_usd()
        print_plan(console, made, settings, left)
        usd = made.cost.usd or 0.0
        if usd <= max(above, left):
            screen.line(console, "ok", "nothing has to be confirmed: a run begins by itself")
            return None
        # Up to the next cent.
        up_to = -(-usd * MARGIN // 0.01) * 0.01 if usd >= 1 else round(usd * MARGIN, 4)
    if not confirmed(f"Let runs spend up to {dollars(up_to)} within {DAYS} days?"):
        screen.line(console, "warn", "nothing was confirmed")
        return 1
    ledger.confirmed.allow(up_to)
    screen.line(
        console,
        "ok",
        f"runs may spend up to {dollars(up_to)} within {DAYS} days; the next tick begins, or "
        "`python -m enrich run` does now",
    )
    return None

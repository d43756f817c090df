"""How a run ends when no task can work on it: no run stays `running` without a reason.

The ledger is all that is needed, so this works where the parts of a backfill cannot be built, and
after an error that nobody foresaw. Of such an error only its class and the place in our code are
told: its text may quote a log.
"""

from __future__ import annotations

import logging
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import enrich
from enrich import wiring
from enrich.errors import EnrichError

if TYPE_CHECKING:
    from enrich.ledger import Ledger
    from enrich.settings import Settings
from enrich.log_context import bound

log = logging.getLogger(__name__)

_CHECKOUT = Path(enrich.__file__).parents[1]


def reason_of(error: BaseException) -> str:
    """One sentence about an error, fit for an operator and a log."""
    if isinstance(error, EnrichError) and str(error):
        return str(error)
    return (
        f"an error that was not foreseen ({type(error).__name__}{_place_of(error)}): look at this "
        "version's known errors, and report it"
    )


def end_run(ledger: Ledger, run: str, reason: str) -> None:
    """Halt the run and close it, so that the next tick may begin another."""
    if ledger.runs.halt(run, reason):
        with bound(run):
            log.error("run halted: %s", reason)
    ledger.runs.finish(run)


def end_before_it_begins(ledger: Ledger, trigger: str, interval: float, reason: str) -> str:
    """Note a run that could not begin as a halted one, so that people see why; the active run,
    where there is one, halts. The run that was ended, or ""."""
    run = ledger.runs.active()
    if not run:
        opened = ledger.runs.open(trigger, interval)
        if opened.verdict != "opened":
            return ""
        run = opened.run
    end_run(ledger, run, reason)
    return run


def record_runs(settings: Settings, ledger: Ledger) -> None:
    """Write records of runs that ended into the history, where none of its workers does. Nothing is
    raised: what cannot be written stays owed, and the next run that ends writes it."""
    if not settings.enrich_history:
        return
    try:
        store = wiring.build_store(settings)
    except Exception as error:
        # What kept the run from its parts may keep this from OpenSearch. The run has ended.
        log.error("records of runs stay in Redis for now: %s", reason_of(error))
        return
    try:
        wiring.build_recorder(settings, ledger, store).catch_up()
    finally:
        store.close()


def _place_of(error: BaseException) -> str:
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(_CHECKOUT / "enrich") or path.is_relative_to(_CHECKOUT / "tasks"):
            return f" at {path.relative_to(_CHECKOUT).as_posix()}:{frame.lineno}"
    return ""

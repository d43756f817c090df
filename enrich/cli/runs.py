"""Runs from the terminal: begin one, follow it, let it go on, end it.

A run is opened here, in the ledger, and worked on by the workers; nothing of it depends on the
terminal staying open.
"""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console

from enrich import wiring
from enrich.cli import screen
from enrich.cli.progress import print_summary, progress
from enrich.cli.run_follower import Following, Paused, exit_status, sum_of
from enrich.errors import EnrichError
from enrich.ledger import Ledger
from enrich.settings import Settings
from enrich.status.report import read_backlog
from enrich.worker.last_resort import record_runs
from enrich.worker.remote import NoWorker, Workers

PAUSED = "enrichment is paused: `python -m enrich resume` lets it go on"


def begin(settings: Settings, *, wait: bool, as_json: bool) -> int:
    """Open a run, or find the one that is active; follow it if `wait`. The exit status."""
    said = screen.err() if as_json else screen.out()
    ledger = wiring.build_ledger(settings)
    active = ledger.runs.active()
    workers = Workers()
    workers.require()
    if not active and ledger.controls.paused():
        screen.line(screen.err(), "bad", PAUSED)
        return 2
    backlog = _backlog(settings) if wait else None
    if not active:
        opened = ledger.runs.open("manual", settings.interval_seconds)
        if opened.verdict == "paused":
            screen.line(screen.err(), "bad", PAUSED)
            return 2
        active = opened.run
        if opened.verdict == "opened":
            workers.scan_page(active, 1)
            screen.line(said, "ok", f"run #{opened.number} ({active}) has begun")
        else:
            _say_active(said, ledger, active)
    else:
        _say_active(said, ledger, active)
    if wait:
        return _follow(ledger, workers, active, backlog, as_json=as_json)
    if as_json:
        screen.print_json(sum_of([ledger.records.of(active)]).model_dump(mode="json"))
    else:
        screen.facts(said, "`python -m enrich status` shows how far it is")
    return 0


def resume(settings: Settings) -> int:
    """Let work go on: new runs, and the active one if it stands still."""
    said = screen.out()
    ledger = wiring.build_ledger(settings)
    was_paused = ledger.controls.paused()
    ledger.controls.resume()
    screen.line(said, "ok", "enrichment goes on" if was_paused else "enrichment was not paused")
    active = ledger.runs.active()
    if active:
        workers = Workers()
        # The tick's own check: publishes whatever the run waits for; doubles are harmless.
        wiring.build_backfill(settings, workers).recover(active)
        _say_active(said, ledger, active)
        workers.require()
    return 0


def cancel(settings: Settings) -> int:
    """End the active run; what it had still to do is deferred."""
    said = screen.out()
    ledger = wiring.build_ledger(settings)
    active = ledger.runs.active()
    if not active:
        screen.line(said, "ok", "no run is active")
        return 0
    if not ledger.runs.halt(active, "cancelled", state="abandoned"):
        screen.line(said, "ok", f"run {active} is ending already")
        return 0
    workers = Workers()
    try:
        workers.require()
        workers.finish_run(active)
    except NoWorker:
        # Nobody else would close it, and no other run could begin.
        ledger.runs.finish(active)
        record_runs(settings, ledger)
    record = ledger.records.of(active)
    screen.line(
        said,
        "ok",
        f"run #{record.number} ({active}) was cancelled: {record.settled - record.deferred:,} of "
        f"{record.found:,} logs were done, {record.deferred:,} are left for the next run",
    )
    return 0


def _say_active(console: Console, ledger: Ledger, run: str) -> None:
    record = ledger.records.of(run)
    screen.line(
        console,
        "ok",
        f"run #{record.number} ({run}) is active: {record.done:,} of {record.found:,} logs "
        "found so far are done",
    )


def _backlog(settings: Settings) -> dict[str, int] | None:
    # Only for the bar: a run can be followed without it, and says itself what ails OpenSearch.
    try:
        backlog = read_backlog(wiring.build_store(settings))
    except EnrichError:
        return None
    if not backlog.whole:
        return None
    return {name: index.without_vector for name, index in backlog.by_index.items()}


# -- following


def _follow(
    ledger: Ledger, workers: Workers, run: str, backlog: Mapping[str, int] | None, *, as_json: bool
) -> int:
    complaint = ""
    status = 0
    with progress(screen.err() if as_json else screen.out()) as show:
        following = Following(ledger, workers, backlog, show)
        try:
            total = following.follow(run)
        except Paused:
            complaint, status = PAUSED, 1
        except NoWorker as error:
            complaint, status = f"{error}; the run goes on when one is there", 3
    if complaint:
        screen.line(screen.err(), "bad", complaint)
        total = sum_of(list(following.records.values()))
    if as_json:
        screen.print_json(total.model_dump(mode="json"))
    else:
        print_summary(screen.out(), total)
    return status or exit_status(total)

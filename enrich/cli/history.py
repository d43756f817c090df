"""`runs` and `runs show`: every run that was recorded, as one list."""

from __future__ import annotations

from rich.console import Console

from enrich import wiring
from enrich.cli import screen
from enrich.cli.screen import plural
from enrich.errors import TransientError
from enrich.history.reader import History, Page, UnknownRun
from enrich.models import Outcome, RunRecord
from enrich.settings import Settings

#: Outcomes, and what a person calls them.
_OUTCOMES = (
    (Outcome.EMBEDDED, "sent to the API"),
    (Outcome.CACHED, "from the cache"),
    (Outcome.REUSED, "from other logs"),
    (Outcome.DUPLICATE, "twice in one chunk"),
    (Outcome.ALREADY_VECTORIZED, "had one already"),
    (Outcome.GONE, "deleted meanwhile"),
    (Outcome.FAILED, "failed"),
    (Outcome.DEFERRED, "deferred to a later run"),
)


def show_runs(settings: Settings, count: int, before: str, *, busy: bool, as_json: bool) -> int:
    """Print the last runs; the exit status.

    Args:
        before: the id or number of a run: those older than it; "" for the newest.
        busy: leave out runs that ended well and found nothing.
    """
    history = _history(settings)
    try:
        if before:
            before = history.run(before).run_id
        page = history.runs(count, before=before, busy=busy)
    except UnknownRun as error:
        return _unknown(error)
    problems = [page.problem] if page.problem else []
    if lag := history.lag().problem:
        problems.append(f"records of runs could not be written into enrich-runs: {lag}")
    recorded = None if page.problem else _recorded(history)
    if as_json:
        runs = [run.model_dump(mode="json") for run in page.runs]
        screen.print_json(
            {"runs": runs, "next": page.next, "recorded": recorded, "problems": problems}
        )
    else:
        _print(screen.out(), page, recorded, busy=busy)
    for problem in problems:
        screen.line(screen.err(), "bad", problem)
    return 3 if page.problem else 0


def show_run(settings: Settings, run: str, *, as_json: bool) -> int:
    """Print one run, by its id or number; the exit status."""
    try:
        record = _history(settings).run(run)
    except UnknownRun as error:
        return _unknown(error)
    if as_json:
        screen.print_json(record.model_dump(mode="json"))
    else:
        _print_run(screen.out(), record)
    return 0


def _recorded(history: History) -> int | None:
    """How many runs there are; None where OpenSearch has just gone."""
    try:
        return history.recorded()
    except TransientError:
        return None


def _history(settings: Settings) -> History:
    ledger = wiring.build_ledger(settings)
    return wiring.build_history(settings, ledger, wiring.build_store(settings))


def _unknown(error: UnknownRun) -> int:
    screen.line(screen.err(), "bad", f"{error}; `python -m enrich runs` lists them")
    return 2


def _print(console: Console, page: Page, recorded: int | None, *, busy: bool) -> None:
    if not page.runs:
        screen.facts(console, "no run that found anything" if busy else "no run yet")
        return
    columns = ("#", "run", "started (UTC)", "state", "found", "vectors", "failed", "deferred",
               "took", "cost")  # fmt: skip
    rows = [
        (
            run.number, run.run_id, screen.clock(run.started_at), run.state, run.found,
            run.vectors_written, run.failed, run.deferred, screen.span(run.duration_seconds),
            screen.dollars(run.estimated_cost_usd),
        )
        for run in page.runs
    ]  # fmt: skip
    table = screen.fitted(
        console, columns, rows,
        numbers=("#", "found", "vectors", "failed", "deferred", "took", "cost"),
        drops=("run", "took", "cost", "failed", "found", "started (UTC)"),
    )  # fmt: skip
    for row, run in zip(table.rows, page.runs, strict=True):
        row.style = "" if run.state in ("finished", "running") else "yellow"
    screen.put(console, table)
    if recorded is not None:
        screen.facts(console, f"{plural(recorded, 'run')} recorded in all")
    more = f"; older ones: `runs --before {page.next}`" if page.next else ""
    screen.facts(console, f"`runs show {page.runs[0].number}` shows one{more}")


def _print_run(console: Console, run: RunRecord) -> None:
    screen.heading(console, f"Run #{run.number} ({run.run_id}), {run.state}")
    ended = f", ended {screen.clock(run.finished_at)}" if run.finished_at else ""
    screen.facts(
        console,
        f"begun {screen.clock(run.started_at)}{ended} (UTC), by {run.trigger}; took "
        f"{screen.span(run.duration_seconds)}",
        f"{plural(run.found, 'log')} found in {plural(run.chunks, 'chunk')}, "
        f"{plural(run.vectors_written, 'vector')} written, {run.rate_per_second:,.1f}/s",
    )
    if run.chunks_open:
        screen.facts(console, f"{plural(run.chunks_open, 'chunk')} open")
    rows = [
        (outcome.value, getattr(run, outcome.value), told)
        for outcome, told in _OUTCOMES
        if getattr(run, outcome.value)
    ]
    if rows:
        table = screen.table("outcome", "logs", "", numbers=("logs",))
        for row in rows:
            table.add_row(*screen.cells(*row))
        screen.put(console, table)
    if run.api_requests:
        screen.facts(
            console,
            f"{plural(run.api_inputs, 'text')} in {plural(run.api_requests, 'request')}, "
            f"{plural(run.api_tokens, 'token')}, {screen.dollars(run.estimated_cost_usd)}",
        )
    if run.rate_limited:
        screen.facts(
            console,
            f"the API asked {plural(run.rate_limited, 'time')} for a pause, "
            f"{screen.span(run.paused_ms / 1000)} in all",
        )
    if run.halt_reason:
        screen.line(console, "warn", f"{run.state}: {run.halt_reason}")
    if run.left_because:
        screen.line(console, "warn", f"it left logs: {run.left_because}")
    if run.comparison:
        screen.facts(console, run.comparison)
    screen.reasons(console, "it", run)
    screen.skipped(console, run.skipped_indices)
    console.print()

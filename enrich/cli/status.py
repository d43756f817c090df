"""`status`: the one report, for people or as JSON.

Shows whatever could be read; what could not is named, and makes the exit status 3.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import UTC, datetime

from rich.console import Console
from rich.text import Text

from enrich import wiring
from enrich.cli import realtime_section, screen
from enrich.cli.screen import plural
from enrich.models import RunRecord
from enrich.settings import Settings
from enrich.status.health import Health, Word, health_of, problems_of, told, unsaid
from enrich.status.health import as_json as health_as_json
from enrich.status.history import HistoryReport
from enrich.status.quota import QuotaReport
from enrich.status.report import Backlog, Status, read_status

#: Indices and runs shown; `--json` has all indices.
MAX_INDICES = 20
MAX_RUNS = 8

#: Between two looks; `status` asks OpenSearch for counts over all indices.
WATCH_SECONDS = 5.0


def show(settings: Settings, *, as_json: bool) -> int:
    """Read and print the status. The exit status."""
    return _show(settings, _reader(settings), screen.out(), as_json=as_json)


def watch(settings: Settings, *, as_json: bool, wait: Callable[[float], None] = time.sleep) -> int:
    """Again and again until Ctrl-C; the exit status of the last one.

    On a terminal it fills the screen; elsewhere one report follows the other, with `as_json` a
    line each.
    """
    read, console, last = _reader(settings), screen.out(), 0
    with suppress(KeyboardInterrupt), ExitStack() as exits:
        page = None
        if console.is_terminal and not as_json:
            page = exits.enter_context(console.screen(hide_cursor=True))
        while True:
            if page is None:
                last = _show(settings, read, console, as_json=as_json, in_a_line=True)
            else:
                with console.capture() as captured:
                    last = _show(settings, read, console, as_json=False)
                page.update(Text.from_ansi(captured.get()))
            wait(WATCH_SECONDS)
    return last


def _reader(settings: Settings) -> Callable[[], Status]:
    ledger, store = wiring.build_ledger(settings), wiring.build_store(settings)
    history = wiring.build_history(settings, ledger, store)
    quota = wiring.quota_of(settings)
    return lambda: read_status(ledger, store, settings=settings, history=history, quota=quota)


def _show(
    settings: Settings,
    read: Callable[[], Status],
    console: Console,
    *,
    as_json: bool,
    in_a_line: bool = False,
) -> int:
    status = read()
    health = health_of(status)
    if as_json:
        screen.print_json(health_as_json(status), in_a_line=in_a_line)
    else:
        print_health(console, health)
        _print(console, status, settings)
    problems = problems_of(status) if as_json else status.problems
    if not as_json and console.is_terminal:
        # The reasons above say the rest already.
        problems = unsaid(status, health)
    for problem in problems:
        screen.line(screen.err(), "bad", problem)
    return 3 if status.problems else health.exit_status


def print_health(console: Console, health: Health) -> None:
    """The word with its sentence, then what else is so."""
    screen.line(console, _mark(health.word), health.line)
    for reason in health.reasons:
        sentence = told(reason.sentence, reason.remedy)
        if sentence != told(health.sentence, health.remedy):
            screen.line(console, _mark(reason.word), f"{reason.word.value}: {sentence}")


def _mark(word: Word) -> str:
    if word in (Word.HEALTHY, Word.WORKING):
        return "ok"
    return "warn" if word in (Word.PAUSED, Word.LATE) else "bad"


def _print(console: Console, status: Status, settings: Settings) -> None:
    totals = status.totals
    # Told apart from an empty Redis: without one there would be nothing but zeros to show.
    if not any(problem.startswith("Redis") for problem in status.problems):
        screen.heading(console, "Totals")
        screen.facts(
            console,
            f"{totals.vectors:,} vectors in {plural(totals.runs, 'run')}, "
            f"{totals.average_rate:,.1f}/s on average",
            f"{plural(totals.errors, 'error')}, {plural(totals.ticks_skipped, 'skipped tick')}, "
            f"{screen.dollars(status.spent_today_usd)} spent today (UTC)",
        )
        if status.history is not None:
            _print_history(console, status.history)
        if status.spent_today_by_project:
            spent = (
                f"{name} {screen.dollars(usd)}"
                for name, usd in status.spent_today_by_project.items()
            )
            screen.facts(console, f"spent most today: {', '.join(spent)}")
        if totals.messages_dropped:
            dropped = plural(totals.messages_dropped, "message")
            screen.line(console, "warn", f"dropped from the broker, not sent by enrich: {dropped}")
        _print_tick(console, status, settings.interval_seconds)
        if status.paused:
            screen.line(console, "warn", "paused: `python -m enrich resume` lets it go on")
        for limits in status.endpoint_limits.values():
            screen.facts(console, f"the embeddings API takes {limits.told()}, as was found lately")
        if status.quota is not None:
            _print_quota(console, status.quota)
        _print_active(console, status)
        for group in status.realtime:
            realtime_section.show(console, group)
    if status.backlog is not None:
        _print_backlog(console, status.backlog)
    if status.last_runs:
        _print_runs(console, status.last_runs[:MAX_RUNS])
    console.print()


def _print_history(console: Console, history: HistoryReport) -> None:
    month = history.month
    if month.cost_usd or month.saved_usd:
        screen.facts(
            console,
            f"{screen.dollars(month.cost_usd)} this month; cache and reuse saved about "
            f"{screen.dollars(month.saved_usd)}, {screen.dollars(history.today.saved_usd)} of it "
            "today",
        )
    for problem in history.problems:
        screen.line(console, "warn", problem)
    if history.owed and not history.problems and history.is_kept:
        screen.facts(
            console,
            f"{plural(history.owed, 'run')} not yet in enrich-runs, for "
            f"{screen.span(history.lag_seconds)}: the next run that ends writes them",
        )


def _print_quota(console: Console, quota: QuotaReport) -> None:
    if used := quota.told():
        screen.facts(console, f"in use of the API's quota a minute: {used}")
    if quota.paused_seconds:
        screen.line(
            console,
            "warn",
            f"the embeddings API asked for a pause: {screen.span(quota.paused_seconds)} left",
        )


def _print_tick(console: Console, status: Status, interval: float) -> None:
    if status.last_tick is None:
        screen.line(
            console, "warn", "no tick yet: `celery -A enrich beat` starts a run every interval"
        )
        return
    read_at = status.read_at or datetime.now(UTC)
    ago = max(0.0, (read_at - status.last_tick).total_seconds())
    if ago > 2 * interval:
        screen.line(
            console,
            "warn",
            f"the last tick was {screen.span(ago)} ago, two intervals or more: does "
            "`celery -A enrich beat` run, and a worker?",
        )
    else:
        screen.facts(console, f"last tick {screen.span(ago)} ago")


def _print_active(console: Console, status: Status) -> None:
    screen.heading(console, "Active run")
    run = status.active_run
    if run is None:
        screen.facts(console, "none")
        return
    left = f", {screen.span(status.seconds_left)} left" if status.seconds_left else ""
    screen.facts(
        console,
        f"#{run.number} ({run.run_id}, {run.trigger}), for {screen.span(run.duration_seconds)}: "
        f"{run.done:,} of {run.found:,} logs found so far are done"
        + (f", {run.deferred:,} deferred" if run.deferred else ""),
        f"{run.rate_per_second:,.1f} vectors/s{left}; {plural(run.chunks_open, 'chunk')} open",
    )


def _print_backlog(console: Console, backlog: Backlog) -> None:
    screen.heading(console, "ERROR logs")
    if not backlog.by_index:
        screen.facts(console, "none" if backlog.whole else "none was counted")
        _print_gaps(console, backlog)
        return
    order = sorted(
        backlog.by_index.items(), key=lambda row: (-row[1].without_vector, -row[1].failed, row[0])
    )
    rows: list[tuple[object, ...]] = [
        (name, counts.with_vector, counts.without_vector, counts.failed)
        for name, counts in order[:MAX_INDICES]
    ]
    if len(order) > 1:
        total = (backlog.with_vector, backlog.without_vector, backlog.failed)
        rows.append((f"all {len(order)}" if backlog.whole else f"{len(order)} counted", *total))
    table = screen.fitted(
        console, ("index", "with vector", "without", "failed"), rows,
        numbers=("with vector", "without", "failed"), drops=("with vector", "failed"),
        shortens="index",
    )  # fmt: skip
    if len(order) > 1:
        table.rows[-2].end_section = True
        table.rows[-1].style = "bold"
    screen.put(console, table)
    if len(order) > MAX_INDICES:
        screen.facts(console, f"{len(order) - MAX_INDICES} more indices: --json names them")
    if backlog.of_other_models:
        screen.facts(
            console,
            f"{backlog.gaps.at_least(plural(backlog.of_other_models, 'log'))} of those with a "
            "vector have one of another "
            "model: search does not find them; `python -m enrich check` names it",
        )
    if backlog.oldest_without_vector:
        counted = "" if backlog.whole else ", of those counted"
        screen.facts(console, f"oldest without a vector{counted}: {backlog.oldest_without_vector}")
    _print_gaps(console, backlog)


def _print_gaps(console: Console, backlog: Backlog) -> None:
    if not backlog.whole:
        logs = backlog.with_vector + backlog.without_vector + backlog.failed
        number = backlog.gaps.at_least(plural(logs, "ERROR log"))
        screen.line(console, "warn", f"{number}; {backlog.gaps.sentence()}")


def _print_runs(console: Console, runs: list[RunRecord]) -> None:
    screen.heading(console, "Last runs (times in UTC)")
    numbers = ("#", "found", "vectors", "failed", "deferred", "took")
    rows = [
        (
            run.number, screen.clock(run.started_at), run.trigger, run.state, run.found,
            run.vectors_written, run.failed, run.deferred, screen.span(run.duration_seconds),
        )
        for run in runs
    ]  # fmt: skip
    table = screen.fitted(
        console,
        ("#", "started", "trigger", "state", "found", "vectors", "failed", "deferred", "took"),
        rows, numbers=numbers, drops=("trigger", "took", "started", "failed", "found", "state"),
    )  # fmt: skip
    for row, run in zip(table.rows, runs, strict=True):
        row.style = "" if run.state in ("finished", "running") else "yellow"
    screen.put(console, table)
    for run in runs:
        if run.halt_reason:
            screen.line(console, "warn", f"#{run.number} {run.state}: {run.halt_reason}")
    newest = runs[0]
    screen.reasons(console, f"#{newest.number}", newest)
    if newest.state == "finished" and newest.left_because:
        screen.line(console, "warn", f"#{newest.number} left logs: {newest.left_because}")
    # Those of older runs would be the same again, or are fixed.
    screen.skipped(console, newest.skipped_indices)

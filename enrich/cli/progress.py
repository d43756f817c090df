"""How a run looks: a bar while it works, a summary when it is over.

Without a terminal the bar becomes a line every few seconds, fit for a log.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table

from enrich.cli import screen
from enrich.cli.run_follower import Progress, RunSum
from enrich.models import Outcome

#: Between two lines where there is no terminal.
LINE_SECONDS = 5.0

_MEANING = {
    Outcome.EMBEDDED: "text sent to the embeddings API",
    Outcome.DUPLICATE: "same text as another log of the same chunk",
    Outcome.CACHED: "vector from Redis",
    Outcome.REUSED: "vector from another log in OpenSearch",
    Outcome.ALREADY_VECTORIZED: "someone else was first",
    Outcome.GONE: "deleted meanwhile",
    Outcome.FAILED: "see `python -m enrich failures`",
    Outcome.DEFERRED: "left as they were; the next run finds them again",
}


@contextmanager
def progress(console: Console) -> Iterator[Callable[[Progress], None]]:
    """Gives a function that shows where the run stands."""
    if console.is_terminal:
        with Bar(
            TextColumn("run #{task.fields[number]}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}", markup=False),
            console=console,
        ) as bar:
            task = bar.add_task("", total=None, number="", pace="", visible=False)

            def draw(now: Progress) -> None:
                bar.update(
                    task,
                    completed=now.settled,
                    # Without a total the bar swings to and fro: nothing is known yet.
                    total=now.total or None,
                    number=now.number,
                    pace=_pace(now),
                    visible=True,
                )

            yield draw
        return

    told = (0, 0)
    quiet_until = time.monotonic() + LINE_SECONDS

    def write(now: Progress) -> None:
        nonlocal told, quiet_until
        if (now.settled, now.deferred) != told and time.monotonic() >= quiet_until:
            told = now.settled, now.deferred
            quiet_until = time.monotonic() + LINE_SECONDS
            screen.facts(
                console, f"run #{now.number}: {now.settled:,} of {now.total:,} logs, {_pace(now)}"
            )

    yield write


def _pace(now: Progress) -> str:
    deferred = f", {now.deferred:,} deferred" if now.deferred else ""
    if not now.rate:
        return (
            f"waiting for logs{deferred}"
            if now.settled
            else f"waiting for the first logs{deferred}"
        )
    left = f", {screen.span(now.seconds_left)} left" if now.seconds_left else ""
    return f"{now.rate:,.0f}/s{left}{deferred}"


def print_summary(console: Console, record: RunSum) -> None:
    """What a run, or several that continue each other, did."""
    name = f"run #{record.number}"
    if len(record.run_ids) > 1:
        name += f" and {len(record.run_ids) - 1} that continue it"
    well = record.state == "finished" and not (record.failed or record.deferred)
    mark = "bad" if record.state == "halted" else "ok" if well else "warn"
    state = "still running" if record.state == "running" else record.state
    reason = f": {record.halt_reason}" if record.state == "halted" else ""
    screen.line(
        console, mark, f"{name} {state} after {screen.span(record.duration_seconds)}{reason}"
    )

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(justify="right", min_width=10)
    grid.add_column(no_wrap=True)
    grid.add_column(style="dim", overflow="fold")
    grid.add_row(*screen.cells(record.found, "found", ""))
    for outcome, meaning in _MEANING.items():
        count = int(getattr(record, outcome.value))
        if count or outcome is Outcome.FAILED:
            said = meaning if count else ""
            grid.add_row(*screen.cells(count, outcome.value.replace("_", " "), said))
    console.print(grid)
    if record.settled != record.found and record.state != "running":
        screen.line(
            console, "bad", f"this does not add up: {record.settled:,} of {record.found:,} known"
        )
    screen.facts(
        console,
        f"{record.vectors_written:,} vectors written, {record.rate_per_second:,.1f}/s; "
        f"API: {record.api_requests:,} requests, {record.api_inputs:,} texts, "
        f"{record.api_tokens:,} tokens, {screen.dollars(record.estimated_cost_usd)}",
    )
    screen.reasons(console, "it", record)
    screen.skipped(console, record.skipped_indices)
    if record.state == "finished" and record.left_because:
        screen.line(console, "warn", f"more logs are waiting: {record.left_because}")

"""Documents that were marked failed: which and why, and putting them back in line.

What is marked, and how a mark is taken off, says enrich/status/failed_logs.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from rich.console import Console

from enrich import wiring
from enrich.cli import screen
from enrich.log_store import LogStore
from enrich.log_store.coverage import MOST_NAMED, Counted, Gaps
from enrich.log_store.refusals import RightMissing
from enrich.settings import Settings
from enrich.status.failed_logs import MAX_LISTED, code_told, failed_logs, put_back

#: Listed on the screen; `--json` lists up to MAX_LISTED.
MAX_SHOWN = 30


def show(settings: Settings, index: str | None, *, as_json: bool) -> int:
    """List documents marked failed. The exit status."""
    store = wiring.build_store(settings)
    counted = failed_logs(store, wiring.build_ledger(settings), index)
    found, gaps = counted.value, counted.gaps
    if not found and gaps.whole and _no_such(store, index):
        return 2
    status = _say_gaps(gaps)
    if as_json:
        screen.print_json(found)
        return status
    console = screen.out()
    if not found:
        _say_none(console, gaps)
        return status
    screen.heading(console, f"{_number(counted)} logs cannot be embedded as they are")
    why = screen.table("logs", "why", "", numbers=("logs",), wraps=("",))
    fields = settings.log_schema.texts_told.replace("`", "")
    for code, count in Counter(str(row["error"]) for row in found).most_common():
        why.add_row(*screen.cells(count, code, code_told(code, fields)))
    screen.put(console, why)
    console.print()
    table = screen.table("index", "_id", "why", "since", wraps=("index", "_id", "why"))
    for row in found[:MAX_SHOWN]:
        since = str(row["since"])[:19].replace("T", " ")
        table.add_row(*screen.cells(row["index"], row["id"], row["error"], since))
    screen.put(console, table)
    if len(found) > MAX_SHOWN:
        screen.facts(console, f"the newest {MAX_SHOWN}; --json lists all")
    screen.facts(console, "`python -m enrich retry-failed` puts them back in line")
    return status


def retry(settings: Settings, index: str | None, *, confirmed: Callable[[str], bool]) -> int:
    """Take the marks off, so that the next run finds the documents again. The exit status."""
    console = screen.out()
    store, ledger = wiring.build_store(settings), wiring.build_ledger(settings)
    counted = failed_logs(store, ledger, index)
    found, gaps = counted.value, counted.gaps
    if not found and gaps.whole and _no_such(store, index):
        return 2
    status = _say_gaps(gaps)
    if not found:
        _say_none(console, gaps)
        return status
    if not confirmed(f"Put {_number(counted)} logs back in line?"):
        return status
    done = put_back(store, ledger, index)
    screen.line(
        console,
        "ok",
        f"{done.logs:,} logs are back in line: the next run tries them again",
    )
    for name in done.stuck:
        screen.line(
            screen.err(),
            "bad",
            f"{name}: some marks could not be taken off; does the index take writes?",
        )
    return max(status, 1 if done.stuck else 0)


def _say_gaps(gaps: Gaps) -> int:
    """Say what was not searched; what that means for the exit status."""
    if gaps.whole:
        return 0
    screen.line(screen.err(), "bad", gaps.sentence())
    return 3


def _say_none(console: Console, gaps: Gaps) -> None:
    if gaps.whole:
        screen.line(console, "ok", "no log is marked failed")
    else:
        screen.line(console, "warn", "no log that was counted is marked failed")


def _number(counted: Counted[list[dict[str, Any]]]) -> str:
    number = f"{len(counted.value):,}"
    if len(counted.value) >= MAX_LISTED:
        return f"at least {number}"
    return counted.gaps.at_least(number)


def _no_such(store: LogStore, index: str | None) -> bool:
    """Whether there is no index of these names, which is then said."""
    if not index or store.stats.matching(index):
        return False
    screen.line(screen.err(), "bad", no_such(store, index))
    return True


def no_such(store: LogStore, index: str) -> str:
    """The sentence for an `--index` that names nothing that can be searched."""
    try:
        closed = store.stats.closed(index)
    except RightMissing:
        closed = []
    if not closed:
        return f"no index matches {index}"
    return f"no open index matches {index}: {', '.join(closed[:MOST_NAMED])} is closed"

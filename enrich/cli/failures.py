"""Documents that were marked failed: which and why, and putting them back in line.

A mark lives on the document; where it could not be written, the ledger records the document.
Both are one list here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any

from rich.console import Console

from enrich import wiring
from enrich.cli import screen
from enrich.ledger import Ledger
from enrich.log_store import LogStore
from enrich.log_store.coverage import MOST_NAMED, Counted, Gaps
from enrich.log_store.refusals import RightMissing
from enrich.models import LogLocation
from enrich.settings import Settings

#: Listed on the screen; `--json` lists up to MAX_LISTED, which is what one search can give.
MAX_SHOWN = 30
MAX_LISTED = 10_000

#: Marks taken off in one round.
ROUND = 1000

#: With the fields of the text in place of `{}`.
_CODES = {
    "message_missing": "there is no {} field",
    "message_not_text": "{} is not a string",
    "message_empty": "{} is empty or blank",
    "text_refused": "the embeddings API refuses this text",
    "text_too_large": "the embeddings API finds this text too large",
}


def show(settings: Settings, index: str | None, *, as_json: bool) -> int:
    """List documents marked failed. The exit status."""
    store = wiring.build_store(settings)
    counted = _failures(store, wiring.build_ledger(settings), index)
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
        why.add_row(*screen.cells(count, code, _CODES.get(code, "").format(fields)))
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
    counted = _failures(store, ledger, index)
    found, gaps = counted.value, counted.gaps
    if not found and gaps.whole and _no_such(store, index):
        return 2
    status = _say_gaps(gaps)
    if not found:
        _say_none(console, gaps)
        return status
    if not confirmed(f"Put {_number(counted)} logs back in line?"):
        return status
    forgotten = _refused_of(ledger, index)
    ledger.refused.forget([(row["index"], row["id"]) for row in forgotten])
    changed, stuck = _unmark(store, index)
    screen.line(
        console,
        "ok",
        f"{changed + len(forgotten):,} logs are back in line: the next run tries them again",
    )
    for name in sorted(stuck):
        screen.line(
            screen.err(),
            "bad",
            f"{name}: some marks could not be taken off; does the index take writes?",
        )
    return max(status, 1 if stuck else 0)


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


def _unmark(store: LogStore, index: str | None) -> tuple[int, set[str]]:
    """Take off marks, index by index, so that one which takes no writes does not stop the rest."""
    changed = 0
    done: set[str] = set()
    stuck: set[str] = set()
    while True:
        names = {row["index"] for row in store.stats.failures(index, MAX_LISTED).value} - done
        if not names:
            return changed, stuck
        for name in names:
            done.add(name)
            while rows := store.stats.failures(name, ROUND).value:
                taken_off = store.documents.unmark(
                    [LogLocation(row["index"], row["id"], row["routing"]) for row in rows]
                )
                changed += taken_off
                if taken_off < len(rows):
                    stuck.add(name)
                if not taken_off:
                    break


def _failures(store: LogStore, ledger: Ledger, index: str | None) -> Counted[list[dict[str, Any]]]:
    """Newest first."""
    marked = store.stats.failures(index, MAX_LISTED)
    rows = [*marked.value, *_refused_of(ledger, index)]
    return Counted(sorted(rows, key=lambda row: str(row["since"]), reverse=True), marked.gaps)


def _refused_of(ledger: Ledger, index: str | None) -> list[dict[str, Any]]:
    return [
        {"index": name, "id": id, "routing": None, **told, "run": ""}
        for (name, id), told in ledger.refused.all().items()
        if matches(name, index)
    ]


def matches(name: str, expression: str | None) -> bool:
    """Whether an index is one of those that an `--index` names."""
    parts: Iterable[str] = (expression or "*").split(",")
    return any(fnmatchcase(name, part.strip()) for part in parts)

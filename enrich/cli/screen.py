"""Writing to the terminal: two consoles, and words made safe for them.

Names and texts in logs are other people's data: they may hold escape sequences or markup. All of
them pass `clean`, and the consoles read no markup at all. Without a terminal nothing is coloured.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from enrich.models import RunRecord
from enrich.status.durations import span as span
from enrich.worker.plain_text import clean as clean
from enrich.worker.plain_text import one_line as one_line

#: Columns where there is no terminal: wide, because what is cut there cannot be widened.
WIDTH_WITHOUT_TERMINAL = 160

#: Skipped indices that are named.
MAX_SKIPPED = 10

_MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "bad": ("✗", "bold red")}


def out() -> Console:
    """Where answers go."""
    return _console(stderr=False)


def err() -> Console:
    """Where progress and complaints go, so that an answer can be piped."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    wide = None if stream.isatty() or "COLUMNS" in os.environ else WIDTH_WITHOUT_TERMINAL
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, width=wide)


def first_line(text: object) -> str:
    """The first line of a text that is not blank, cleaned."""
    lines = (line.strip() for line in str(text).splitlines())
    return clean(next((line for line in lines if line), "")).replace("\t", " ")


def line(console: Console, mark: str, text: str) -> None:
    """One marked line; what does not fit goes on below its own text."""
    sign, style = _MARKS[mark]
    _hang(console, Text(f"  {sign} ", style=style), one_line(text))


def facts(console: Console, *texts: str) -> None:
    """Lines without a mark."""
    for text in texts:
        _hang(console, Text("  "), one_line(text))


def _hang(console: Console, lead: Text, text: str) -> None:
    if not console.is_terminal:
        # Whole, so that it can be searched for.
        console.print(lead + text, soft_wrap=True)
        return
    for part in Text(text).wrap(console, max(20, console.width - len(lead))):
        part.rstrip()
        console.print(lead + part)
        lead = Text(" " * len(lead))


def skipped(console: Console, indices: Mapping[str, str]) -> None:
    """Which indices were left out and why, by name; not so many that they bury the rest."""
    for index, why in sorted(indices.items())[:MAX_SKIPPED]:
        line(console, "warn", f"{index} was skipped: {why}")
    if len(indices) > MAX_SKIPPED:
        rest = len(indices) - MAX_SKIPPED
        line(console, "warn", f"{rest:,} more indices were skipped: --json names them")


def reasons(console: Console, name: str, run: RunRecord) -> None:
    """Why logs of a run were deferred and its work was tried again, and how often."""
    for sentence, count in run.deferral_reasons.items():
        line(console, "warn", f"{name} deferred {plural(count, 'log')}: {sentence}")
    for sentence, count in run.retry_reasons.items():
        line(console, "warn", f"{name} was held up {plural(count, 'time')}: {sentence}")


def heading(console: Console, text: str) -> None:
    console.print()
    console.print(Text(one_line(text), style="bold"))


def table(*columns: str, numbers: tuple[str, ...] = (), wraps: tuple[str, ...] = ()) -> Table:
    """An empty table: `numbers` are set to the right, `wraps` may go on in the next line."""
    made = Table(
        box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False, header_style="bold"
    )
    for column in columns:
        made.add_column(
            column,
            justify="right" if column in numbers else "left",
            no_wrap=column not in wraps,
            overflow="fold" if column in wraps else "ellipsis",
        )
    return made


def short(name: str, width: int) -> str:
    """A name of at most so many columns, without its middle: both ends tell names apart."""
    if cell_len(name) <= width:
        return name
    if width < 3:
        return _first(name, width)
    head = (width - 1) // 2
    return _first(name, head) + "…" + _first(name[::-1], width - 1 - head)[::-1]


def _first(name: str, width: int) -> str:
    """As many of the first characters as so many columns hold."""
    taken = 0
    for place, character in enumerate(name):
        taken += cell_len(character)
        if taken > width:
            return name[:place]
    return name


def fitted(
    console: Console,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    numbers: Sequence[str] = (),
    drops: Sequence[str] = (),
    shortens: str = "",
    least: int = 12,
) -> Table:
    """A table that fits the screen: columns in `drops` go, the first named first, until `shortens`
    has `least` characters; that one is then shortened in its middle. No number is ever cut.

    Row values are as for `cells`.
    """
    shown = [[str(cell) for cell in cells(*row)] for row in rows]
    kept = list(range(len(columns)))

    def width_of(n: int) -> int:
        return max([cell_len(columns[n]), *(cell_len(row[n]) for row in shown)])

    room = console.width - 2
    for name in (*drops, None):
        fixed = sum(width_of(n) + 2 for n in kept if columns[n] != shortens)
        wide = max((width_of(n) for n in kept if columns[n] == shortens), default=0)
        left = room - fixed
        if name is None or left >= (min(wide, least) if shortens else 0):
            break
        kept = [n for n in kept if columns[n] != name]
    made = table(*(columns[n] for n in kept), numbers=tuple(numbers))
    for row in shown:
        made.add_row(
            *(Text(short(row[n], max(1, left)) if columns[n] == shortens else row[n]) for n in kept)
        )
    return made


def put(console: Console, made: Table) -> None:
    """Print a table, indented as everything else."""
    console.print(Padding(made, (0, 0, 0, 2), expand=False))


def cells(*values: object) -> list[Text]:
    """A row: numbers with separators, everything else cleaned."""
    return [Text(f"{v:,}" if isinstance(v, int) else one_line(v)) for v in values]


def print_json(value: Any, *, in_a_line: bool = False) -> None:
    """One JSON document, ASCII only: safe on any terminal and in any pipe."""
    sys.stdout.write(json.dumps(value, indent=None if in_a_line else 2) + "\n")
    sys.stdout.flush()


def clock(moment: datetime | None) -> str:
    """A moment in UTC, without the year that nobody asks for."""
    return "" if moment is None else f"{moment.astimezone(UTC):%m-%d %H:%M:%S}"


def dollars(amount: float) -> str:
    return f"${amount:,.2f}" if amount >= 1 or amount == 0 else f"${amount:.4f}"


#: Names of one kind that a line holds.
MAX_NAMED = 5


def few(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are. Pure."""
    more = f" and {len(names) - MAX_NAMED:,} more" if len(names) > MAX_NAMED else ""
    return f"{', '.join(names[:MAX_NAMED])}{more}"


def plural(count: int, noun: str) -> str:
    """A count and its noun: "1 index", "2,000 logs"."""
    many = {"index": "indices", "process": "processes", "batch": "batches"}.get(noun, f"{noun}s")
    return f"{count:,} {noun if count == 1 else many}"

"""`make chaos`: runs the matrix of faults row by row, or at random for a while, and prints a table.

    python -m tests.chaos.run [--only NAME] [--seed N] [--soak SECONDS]

A soak plays single rows, and two faults in one drain, at random moments.
Exit status 1 if a row fails or, outside a soak, a fault came too late to meet anything. The seed
is printed, and repeats a soak's choice of rows. A row that needs what is not here is left out, says
so, and is no failure.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dev.embedding_model import Model
from dev.services import Services
from tests.chaos.checker import Findings
from tests.chaos.matrix import ROWS, Row
from tests.chaos.world import BATCH, LeftOut, TooLate, World


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a row came to."""

    row: Row
    findings: Findings
    #: From the end of the harm until nothing was owed.
    recovery: float
    seconds: float
    #: Why the fault met nothing; empty if it did.
    too_late: str
    #: Why the row was not played; empty if it was.
    left_out: str = ""

    @property
    def verdict(self) -> str:
        if self.left_out:
            return "left out"
        if self.findings.violations:
            return "BROKEN"
        return "too late" if self.too_late else "holds"


def play(row: Row, stack: Services, folder: Path, seed: int, model: Model) -> Result:
    """Do a row's harm to a drain, let it recover, and judge."""
    begun = time.monotonic()
    with row.world(stack, folder, row.name, seed, model) as world:
        stuck = too_late = ""
        try:
            row.harm(world)
        except TooLate as error:
            too_late = str(error)
        except LeftOut as error:
            return _not_played(row, str(error))
        except AssertionError as error:
            # The row is judged all the same, and the next ones are played.
            stuck = str(error)
        healed = time.monotonic()
        findings = world.settle()
        recovery = time.monotonic() - healed
        if stuck:
            findings.violations.insert(0, stuck)
        if left := world.api.seen["strikes_left"]:
            too_late = f"the fault came too late: {left} answers were still to be spoilt"
    return Result(
        row=row,
        findings=findings,
        recovery=recovery,
        seconds=time.monotonic() - begun,
        too_late=too_late,
    )


def _not_played(row: Row, why: str) -> Result:
    nothing = Findings(violations=[], documents=0, outcomes=Counter(), paid=0, distinct=0)
    return Result(row=row, findings=nothing, recovery=0, seconds=0, too_late="", left_out=why)


COLOURS = {"holds": "green", "BROKEN": "red", "too late": "yellow", "left out": "yellow"}


def table_of(results: list[Result]) -> Table:
    table = Table(title="chaos")
    for name in ("row", "fault", "documents", "outcomes", "paid/distinct", "recovery", "verdict"):
        table.add_column(name, overflow="fold")
    for result in results:
        findings = result.findings
        table.add_row(
            result.row.name,
            result.row.told,
            str(findings.documents),
            " ".join(f"{n} {name}" for name, n in findings.outcomes.items()),
            f"{findings.paid}/{findings.distinct}",
            f"{result.recovery:.0f} s",
            f"[{COLOURS[result.verdict]}]{result.verdict}[/]",
        )
    return table


#: Rows that may strike a drain which another has struck before, by any moment of it: they need no
#: message that waits, and are not undone by what the other did. Of the first, the API's come first,
#: since their fault is set before the drain begins.
FIRST = (
    *("api-500-html", "api-429-seconds", "api-reset", "api-shuffled-index", "api-cut-json"),
    *("child-killed", "worker-killed", "worker-terminated", "beat-restarted", "two-beats"),
)
SECOND = (
    *("redis-cut", "redis-hangs", "redis-killed", "redis-flushed", "cache-truncated"),
    *("opensearch-cut", "opensearch-hangs", "opensearch-killed", "index-closed"),
    *("index-read-only", "logs-changed", "sibling-writes", "message-twice", "messages-all-lost"),
)


def two_at_once(source: random.Random) -> Row:
    """Two faults in one drain, each at a random moment."""
    one, two = ROWS[source.choice(FIRST)], ROWS[source.choice(SECOND)]
    moment, pause = source.randint(1, 12) * BATCH, source.uniform(0, 3)

    def harm(world: World) -> None:
        world.moment = moment
        one.harm(world)
        time.sleep(pause)
        two.harm(world)

    told = f"{one.told}; and {pause:.1f} s later: {two.told}"
    return Row(name=f"{one.name}+{two.name}", group="two", told=told, harm=harm)


def chosen(options: argparse.Namespace) -> list[Row]:
    wanted = [n.strip() for only in options.only or () for n in only.split(",")]
    return [row for row in ROWS.values() if not wanted or row.name in wanted or row.group in wanted]


def at_random(rows: list[Row], seconds: float, source: random.Random) -> Iterator[Row]:
    """Rows for so long, and two faults at once."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        yield source.choice([source.choice(rows), two_at_once(source)])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.run", description=__doc__)
    parser.add_argument("--only", action="append", help="rows or groups, separated by commas")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--soak", type=float, default=0, help="seconds of rows at random")
    parser.add_argument("--keep", action="store_true", help="keep the logs, and say where")
    parser.add_argument("--list", action="store_true", help="name the rows and end")
    options = parser.parse_args(argv)
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    if options.list:
        for row in ROWS.values():
            console.print(f"{row.name:24} {row.group:12} {row.told}")
        return 0
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    console.print(f"seed {seed}")
    source = random.Random(seed)
    results: list[Result] = []
    model = Model()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    rows = chosen(options)
    played: Iterable[Row] = at_random(rows, options.soak, source) if options.soak else rows
    stack = Services(
        folder / "stack",
        kafka=any(row.world.kafka for row in rows),
        opensearch_settings={"action.auto_create_index": "false"},
    )
    try:
        with stack:
            for nth, row in enumerate(played):
                result = play(
                    row, stack, folder / f"{nth}-{row.name}", source.randrange(10**9), model
                )
                results.append(result)
                console.print(f"{row.name}: {result.verdict} ({result.seconds:.0f} s)")
                told = [*result.findings.violations, result.too_late, result.left_out]
                for sentence in filter(None, told):
                    console.print(f"    {sentence}", markup=False)
    finally:
        if results:
            console.print(table_of(results))
        if options.keep:
            console.print(f"logs: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    if not results:
        console.print("no such row; see --list")
        return 2
    # A soak's moments are at random: some come when all is done.
    sound = {"holds", "left out", *(["too late"] if options.soak else [])}
    return 0 if all(result.verdict in sound for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())

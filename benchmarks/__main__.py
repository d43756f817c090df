"""`python -m benchmarks [LINE …]`: measure, print one table, write a plot and a JSON.

Without lines those that take minutes, with `--full` all of them. Exit status 0 if every target
that was measured was reached, 1 if one was missed, 2 if something is missing that a measurement
needs, 130 if cut off.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import httpx2
import psutil  # type: ignore[import-untyped]
import redis
from rich.console import Console

from benchmarks.cluster import Cluster, ClusterRefused
from benchmarks.lines import LINES
from benchmarks.plot import svg_of
from benchmarks.product import ProductFailed, clean_environment
from benchmarks.report import results_of, table_of, write_json, write_text
from benchmarks.rounds import Figure, missed
from benchmarks.stage import HEAP, Options, Stage, StageFailed, check_room
from dev.api_control import ApiControl
from dev.service import ServiceFailed
from dev.services import CHECKOUT, Services
from enrich.errors import EnrichError

FOLDER = CHECKOUT / ".dev" / "bench"
RESULTS = CHECKOUT / ".dev" / "bench-results"

_TROUBLES = (
    ServiceFailed,
    ClusterRefused,
    ProductFailed,
    StageFailed,
    EnrichError,
    redis.RedisError,
    httpx2.HTTPError,
    psutil.Error,
)


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    options = Options(
        full=arguments.full,
        size=arguments.size,
        rounds=arguments.rounds,
        env=dict(arguments.set),
        concurrency=arguments.concurrency,
        pace=arguments.pace,
        against=arguments.against and frozenset(arguments.against.split(",")),
    )
    names = chosen(arguments.lines + arguments.only, full=arguments.full)
    clean_environment()
    figures: list[Figure] = []
    try:
        check_room(CHECKOUT / ".dev", max(LINES[name].logs(options) for name in names))
        data = _measure(names, options, figures, console)
    except _TROUBLES as error:
        _show(console, figures)
        console.print(f"bench: {error}", markup=False, soft_wrap=True)
        console.print("bench: no result file was written")
        return 2
    except KeyboardInterrupt:
        _show(console, figures)
        console.print("bench: cut off; no result file was written, and no process is left behind")
        return 130
    _show(console, figures)
    write_json(arguments.out / "bench.json", results_of(figures, data, vars(arguments)))
    rates = data.get("drain", {}).get("rates", {})
    write_text(arguments.out / "bench.svg", svg_of(rates, figures))
    console.print(f"bench: {_told(arguments.out)}/bench.json and bench.svg", soft_wrap=True)
    failed = missed(figures)
    for figure in failed:
        console.print(f"bench: missed: {figure.line}: {figure.name}", markup=False, soft_wrap=True)
    return 1 if failed else 0


def _measure(
    names: list[str], options: Options, figures: list[Figure], console: Console
) -> dict[str, Any]:
    """Measure the lines one after the other, adding to `figures`; the data for the JSON."""
    begun = time.monotonic()

    def say(told: str) -> None:
        console.print(f"[{time.monotonic() - begun:5.0f} s] {told}", markup=False, soft_wrap=True)

    for name in names:
        if simulate := LINES[name].simulate:
            say(f"{name}: {LINES[name].title}")
            figures += simulate(options)
    names = [name for name in names if LINES[name].simulate is None]
    if not names:
        return {}
    settings = {"action.auto_create_index": "false", "cluster.max_shards_per_node": "2000"}
    with Services(
        FOLDER,
        kafka=any(LINES[name].kafka for name in names),
        say=say,
        heap=HEAP,
        opensearch_settings=settings,
        fresh=True,
    ) as stack:
        # Away from the checkout's `.env`, which is for other servers.
        os.chdir(FOLDER)
        stage = Stage(
            options=options,
            stack=stack,
            cluster=Cluster(stack.opensearch.url, stack.opensearch.pid),
            api=ApiControl(stack.embeddings.url, stack.control_key),
            folder=FOLDER,
            say=say,
        )
        for name in names:
            say(f"{name}: {LINES[name].title}")
            figures += LINES[name].measure(stage)
        return stage.data


def chosen(wanted: list[str], *, full: bool) -> list[str]:
    """Names of lines in the table's order: those that are wanted, or those of a kind of run."""
    names = {name for each in wanted for name in each.split(",")}
    return [
        name for name, line in LINES.items() if (name in names if names else line.quick or full)
    ]


def _show(console: Console, figures: list[Figure]) -> None:
    if figures:
        console.print(table_of(figures))


def _told(path: Path) -> Path:
    return path.relative_to(CHECKOUT) if path.is_relative_to(CHECKOUT) else path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("lines", nargs="*", type=_names, help=", ".join(LINES))
    parser.add_argument(
        "--only", action="append", type=_names, default=[], help="the same, separated by commas"
    )
    parser.add_argument("--full", action="store_true", help="all lines, at full size")
    parser.add_argument("--size", type=_positive, help="logs, instead of each line's own number")
    parser.add_argument("--rounds", type=_positive, help="alternating rounds")
    parser.add_argument(
        "--against",
        metavar="NAMES",
        help="contenders of the line drain beside the product, such as index,update",
    )
    parser.add_argument("--concurrency", type=_positive, help="processes of a worker")
    parser.add_argument(
        "--set",
        type=_pair,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a variable for the product; may be repeated",
    )
    parser.add_argument("--pace", default="200", help="ENRICH_WRITE_PACE of the line kindness")
    parser.add_argument(
        "--out",
        type=_path,
        default=RESULTS,
        help="folder of the result files",
    )
    return parser


def _path(text: str) -> Path:
    return Path(text).absolute()


def _names(text: str) -> str:
    for name in text.split(","):
        if name not in LINES:
            raise argparse.ArgumentTypeError(f"{name!r} is no line; there are {', '.join(LINES)}")
    return text


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


if __name__ == "__main__":
    sys.exit(main())

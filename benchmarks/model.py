"""Planning past this machine: vectors a second, dollars and hours for 10^6 to 10^10 logs.

    python -m benchmarks.model [--results FILE] [--distinct 0.3] [--nodes 3] [--workers 4] …

A chunk waits for the API, then for its turn to be written. Worker processes are the customers of
that closed network, the API's latency and the chunk's own overhead their thinking time, OpenSearch
the one queue; mean value analysis (Reiser and Lavenberg, 1980) gives its throughput, which bends
where latency stops binding and writing begins to. What the provider's quota and the finder allow
are bounds above it. With the results of a benchmark the model is calibrated on three of its points
and held to within 15 % at the others; exit status 1 if it is not.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.rounds import median
from enrich.models import MAX_CHUNK_DOCUMENTS
from enrich.settings import PRICE_PER_MILLION_TOKENS

TOLERANCE = 0.15
_MILLION = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What was measured of one OpenSearch node and one finder."""

    #: Vectors a second that the product writes into one node when nothing else binds, of a
    #: backlog of which `measured_distinct` is distinct.
    writes_per_second: float = 2_500.0
    measured_distinct: float = 0.3
    #: Of that, what remains when no two logs are alike.
    all_distinct_factor: float = 1.0
    #: Of one chunk, beside the API's latency and the write.
    overhead_seconds: float = 0.1
    #: Logs a second that one finder reads, groups and publishes.
    finds_per_second: float = 20_000.0
    #: What writing loses with each tenfold of the logs in a shard beyond `measured_shard`.
    slowing_by_tenfold: float = 0.1
    measured_shard: float = 20_000.0

    def writing(self, distinct: float, shard: float) -> float:
        """Vectors a second into one node, of such a backlog and shards of so many logs."""
        span = 1.0 - self.measured_distinct
        towards = (distinct - self.measured_distinct) / span if span else 0.0
        factor = 1.0 + (self.all_distinct_factor - 1.0) * min(1.0, max(0.0, towards))
        tenfolds = max(0.0, math.log10(shard / self.measured_shard))
        return float(self.writes_per_second * factor * (1.0 - self.slowing_by_tenfold) ** tenfolds)


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What is planned."""

    distinct: float = 0.3
    #: Of one request to the API, seconds.
    latency: float = 0.3
    #: 0: no limit.
    requests_per_minute: float = 0.0
    tokens_per_minute: float = 0.0
    tokens_per_text: float = 500.0
    dollars_per_million_tokens: float = PRICE_PER_MILLION_TOKENS["text-embedding-3-large"]
    batch: int = 256
    workers: int = 1
    processes: int = 8
    nodes: int = 1
    #: Deployments among which index patterns are divided, each with a finder of its own.
    finders: int = 1
    #: Logs in one shard when the drain is over.
    shard: float = 1_000_000.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What comes of it."""

    vectors_per_second: float
    #: Which bound it is: "requests", "tokens", "latency", "OpenSearch" or "finder".
    binding: str

    def hours(self, logs: float) -> float:
        return logs / self.vectors_per_second / 3600

    @staticmethod
    def dollars(logs: float, setup: Setup) -> float:
        """Each distinct text is paid for once."""
        tokens = logs * setup.distinct * setup.tokens_per_text
        return tokens / _MILLION * setup.dollars_per_million_tokens


def plan(setup: Setup, machine: Machine) -> Plan:
    """The rate at which a large backlog is drained, and what binds it."""
    bounds = {
        "requests": setup.requests_per_minute / 60 * setup.batch / setup.distinct,
        "tokens": setup.tokens_per_minute / 60 / setup.tokens_per_text / setup.distinct,
        "finder": machine.finds_per_second * setup.finders,
    }
    bounds = {name: bound for name, bound in bounds.items() if bound}
    writing = machine.writing(setup.distinct, setup.shard) * setup.nodes
    thinking = setup.latency + machine.overhead_seconds
    logs = logs_of_chunk(setup)
    customers = setup.workers * setup.processes
    flow = logs * throughput(customers, thinking, logs / writing)
    name = "latency" if customers * logs / thinking < writing else "OpenSearch"
    bounds[name] = flow
    binding = min(bounds, key=lambda each: bounds[each])
    return Plan(vectors_per_second=bounds[binding], binding=binding)


def logs_of_chunk(setup: Setup) -> float:
    """A chunk ends at its distinct texts or at its logs, whichever comes first."""
    return min(MAX_CHUNK_DOCUMENTS, setup.batch / setup.distinct)


def throughput(customers: int, thinking: float, service: float) -> float:
    """Of a closed network of one delay and one queue, by mean value analysis; a second."""
    waiting, rate = 0.0, 0.0
    for number in range(1, customers + 1):
        response = service * (1 + waiting)
        rate = number / (thinking + response)
        waiting = rate * response
    return rate


# -- held to what was measured


@dataclass(frozen=True, kw_only=True)
class Point:
    """A measured rate beside the predicted one."""

    name: str
    measured: float
    predicted: float

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1


class ResultsIncomplete(RuntimeError):
    """The result file lacks lines that the model needs; the text says which."""


def calibrated(data: Mapping[str, Any]) -> tuple[Machine, float]:
    """The machine behind a benchmark's data, and the tokens of one text.

    Three points are used up: the line `drain` gives the writing rate, one process of `scale` a
    chunk's overhead, the pages of `growth` the finder. Of `distinct` only the ceilings and the
    processor time of our programs are, not the rate.
    """
    lacking = [line for line in ("drain", "distinct", "scale", "growth") if line not in data]
    if lacking:
        raise ResultsIncomplete(
            f"the results hold no {', '.join(lacking)}: measure them first with "
            f"`python -m benchmarks {' '.join(['drain', 'distinct', 'scale', 'growth'])}`"
        )
    drain, distinct = data["drain"], data["distinct"]
    api = drain["rounds"]["product"][0]["api"]
    tokens = api["tokens"] / api["inputs"]
    share = drain["distinct"] / drain["logs"]
    machine = Machine(
        measured_distinct=share,
        all_distinct_factor=_all_distinct_factor(drain, distinct),
        finds_per_second=_finds(data["growth"]),
        slowing_by_tenfold=_slowing(data["growth"]),
        measured_shard=float(drain["logs"]),
    )
    one = float(data["scale"]["rates"]["1"])
    # Each depends on the other a little; a few turns settle both.
    for _ in range(20):
        setup = _setup_of_drain(data, tokens)
        machine = replace(machine, writes_per_second=_writing_for(setup, machine, drain))
        writing = machine.writing(1.0, machine.measured_shard)
        batch = data["scale"]["batch"]
        busy = batch / one - data["scale"]["latency_ms"] / 1000
        machine = replace(machine, overhead_seconds=max(0.0, busy - batch / writing))
    return machine, tokens


def points(data: Mapping[str, Any]) -> list[Point]:
    """Every measured rate that calibration did not use, with the model's."""
    machine, tokens = calibrated(data)
    found = []
    distinct = data["distinct"]
    setup = Setup(
        distinct=1.0,
        latency=distinct["latency_ms"] / 1000,
        processes=distinct["in_flight"],
        tokens_per_text=tokens,
        shard=machine.measured_shard,
    )
    rate = median([one["rate"] for one in distinct["rounds"]["product"]])
    found.append(_point("distinct", rate, setup, machine))
    scale = data["scale"]
    for processes, rate in scale["rates"].items():
        if processes != "1":
            latency = scale["latency_ms"] / 1000
            setup = replace(setup, latency=latency, batch=scale["batch"], processes=int(processes))
            found.append(_point(f"scale, {processes} processes", float(rate), setup, machine))
    for size, one in data["growth"].items():
        # Smaller ones are over before they have begun.
        if int(size) >= 20_000:
            setup = replace(_setup_of_drain(data, tokens), shard=float(size))
            rate = median([each["rate"] for each in one["rounds"]["product"]])
            found.append(_point(f"growth, {int(size):,} logs", rate, setup, machine))
    return found


def _point(name: str, measured: float, setup: Setup, machine: Machine) -> Point:
    return Point(name=name, measured=measured, predicted=plan(setup, machine).vectors_per_second)


def _setup_of_drain(data: Mapping[str, Any], tokens: float) -> Setup:
    drain = data["drain"]
    return Setup(
        distinct=drain["distinct"] / drain["logs"],
        latency=drain["latency_ms"] / 1000,
        processes=data["distinct"]["in_flight"],
        tokens_per_text=tokens,
        shard=float(drain["logs"]),
    )


def _writing_for(setup: Setup, machine: Machine, drain: Mapping[str, Any]) -> float:
    """The writing rate with which the model gives the measured drain, by bisection."""
    wanted = float(drain["rates"]["product"])
    low, high = wanted / 2, wanted * 100
    for _ in range(60):
        middle = (low + high) / 2
        guess = plan(setup, replace(machine, writes_per_second=middle)).vectors_per_second
        low, high = (middle, high) if guess < wanted else (low, middle)
    return low


def _all_distinct_factor(drain: Mapping[str, Any], distinct: Mapping[str, Any]) -> float:
    """Of the writing rate, what remains when no two logs are alike.

    OpenSearch may take longer for a vector, as the ceilings show; and a new text costs more of our
    own processors' time than a known one, which OpenSearch has less where they share a machine.
    """
    ceiling = median([one["rate"] for one in distinct["rounds"]["index"]])
    slower = float(drain["rates"]["index"]) / ceiling
    known, new = drain["rounds"]["product"], distinct["rounds"]["product"]
    all_of_it = _own_seconds(known) + median(
        [one["opensearch_cpu"] / one["vectors"] for one in known]
    )
    return 1.0 / (slower + (_own_seconds(new) - _own_seconds(known)) / all_of_it)


def _own_seconds(drains: Sequence[Mapping[str, Any]]) -> float:
    """Processor time of our programs by vector."""
    return median([sum(one["cpu"].values()) / one["vectors"] for one in drains])


def _finds(growth: Mapping[str, Any]) -> float:
    """Logs a second over all pages of the largest backlog."""
    pages = growth[max(growth, key=int)]["pages"]
    seconds = sum(page[0] for page in pages)
    return sum(page[1] for page in pages) / seconds if seconds else Machine.finds_per_second


def _slowing(growth: Mapping[str, Any]) -> float:
    """What the ceiling loses by tenfold of the logs, from 20,000 on; 0 where that is not known."""
    sizes = sorted(int(size) for size in growth if int(size) >= 20_000)
    if len(sizes) < 2:
        return 0.0
    first, last = (
        median([one["rate"] for one in growth[str(size)]["rounds"]["index"]])
        for size in (sizes[0], sizes[-1])
    )
    tenfolds = math.log10(sizes[-1] / sizes[0])
    return min(0.9, max(0.0, 1.0 - float((last / first) ** (1 / tenfolds))))


# -- the program


def main(argv: list[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    machine, tokens, checked = Machine(), options.tokens, []
    if options.results:
        try:
            data = json.loads(options.results.read_text())["data"]
            machine, measured_tokens = calibrated(data)
            checked = points(data)
        except OSError as error:
            print(f"model: {options.results} cannot be read ({error.strerror})", file=sys.stderr)
            return 2
        except (ValueError, KeyError):
            print(f"model: {options.results} is not a benchmark's result file", file=sys.stderr)
            return 2
        except ResultsIncomplete as error:
            print(f"model: {error}", file=sys.stderr)
            return 2
        tokens = tokens or measured_tokens
    setup = Setup(
        distinct=options.distinct,
        latency=options.latency,
        requests_per_minute=options.rpm,
        tokens_per_minute=options.tpm,
        tokens_per_text=tokens or Setup.tokens_per_text,
        dollars_per_million_tokens=options.price,
        batch=options.batch,
        workers=options.workers,
        processes=options.processes,
        nodes=options.nodes,
        finders=options.finders,
        shard=options.shard,
    )
    console.print(_table(setup, machine))
    if checked:
        console.print(_checks(checked))
    return int(any(abs(point.error) > TOLERANCE for point in checked))


def _table(setup: Setup, machine: Machine) -> Table:
    planned = plan(setup, machine)
    table = Table(
        title=f"{planned.vectors_per_second:,.0f} vectors a second; {planned.binding} binds"
    )
    for name in ("logs", "hours", "days", "dollars"):
        table.add_column(name, justify="right")
    for power in range(6, 11):
        logs = 10.0**power
        hours = planned.hours(logs)
        dollars = planned.dollars(logs, setup)
        table.add_row(f"10^{power}", f"{hours:,.1f}", f"{hours / 24:,.1f}", f"{dollars:,.0f}")
    return table


def _checks(checked: Sequence[Point]) -> Table:
    table = Table(title="held to what was measured")
    for name in ("point", "measured", "model", "error"):
        table.add_column(name, justify="left" if name == "point" else "right")
    for point in checked:
        colour = "green" if abs(point.error) <= TOLERANCE else "red"
        table.add_row(
            point.name,
            f"{point.measured:,.0f}/s",
            f"{point.predicted:,.0f}/s",
            f"[{colour}]{point.error:+.0%}[/]",
        )
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.model", description=__doc__)
    add = parser.add_argument
    add("--results", type=Path, help="a bench.json to be calibrated on, and held to")
    add("--distinct", type=_share, default=Setup.distinct, help="share of distinct texts")
    add("--latency", type=_not_negative, default=Setup.latency, help="seconds of a request")
    add("--rpm", type=_not_negative, default=0.0, help="requests a minute; 0: no limit")
    add("--tpm", type=_not_negative, default=0.0, help="tokens a minute; 0: no limit")
    add("--tokens", type=_not_negative, default=0.0, help="tokens of one text")
    add("--price", type=_not_negative, default=Setup.dollars_per_million_tokens)
    add("--batch", type=_count, default=Setup.batch, help="ENRICH_BATCH_SIZE")
    add("--workers", type=_count, default=Setup.workers)
    add("--processes", type=_count, default=Setup.processes, help="of each worker")
    add("--nodes", type=_count, default=Setup.nodes, help="OpenSearch nodes")
    add("--finders", type=_count, default=Setup.finders, help="deployments that share the indices")
    add("--shard", type=_count, default=Setup.shard, help="logs of one shard at the end")
    return parser


def _share(text: str) -> float:
    value = _not_negative(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} does not lie above 0 and up to 1")
    return value


def _not_negative(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 on")
    return value


def _count(text: str) -> int:
    value = _not_negative(text)
    if value < 1 or value != int(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(value)


if __name__ == "__main__":
    sys.exit(main())

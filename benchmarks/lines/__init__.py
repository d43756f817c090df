"""The lines of the table, each in its own room: what is measured, and against which target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.lines import (
    calibration,
    consumer,
    cpu,
    distinct,
    drain,
    growth,
    hosts,
    idle,
    inputs,
    kindness,
    memory,
    page,
    plan,
    quota,
    realtime,
    scale,
    service,
    sick,
    start,
    statistics,
)
from benchmarks.rounds import Figure
from benchmarks.stage import Options, Stage


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of measurements."""

    title: str
    measure: Callable[[Stage], list[Figure]] = lambda stage: []
    #: In place of it for what needs no server.
    simulate: Callable[[Options], list[Figure]] | None = None
    #: Whether `make bench` has it, or only `make bench-full`.
    quick: bool = False
    #: Whether it needs Kafka.
    kafka: bool = False
    #: The most logs that are there at once, by default.
    logs: Callable[[Options], int] = lambda options: options.size or 5_000


LINES: Mapping[str, Line] = {
    "drain": Line(
        title="a backlog's way to empty, beside what users would otherwise run",
        measure=drain.measure,
        quick=True,
        logs=lambda options: options.size or (drain.FULL if options.full else drain.QUICK),
    ),
    "distinct": Line(
        title="no two logs alike, and a slow API",
        measure=distinct.measure,
        quick=True,
        logs=lambda options: options.size or distinct.SIZE,
    ),
    "inputs": Line(title="what is paid for", measure=inputs.measure, quick=True),
    "cpu": Line(title="what the client's machine pays", measure=cpu.measure, quick=True),
    "idle": Line(title="a tick with nothing to do", measure=idle.measure, quick=True),
    "start": Line(title="from the command to ready", measure=start.measure, quick=True),
    "quota": Line(title="an enforced quota", measure=quota.measure),
    "scale": Line(title="more processes", measure=scale.measure),
    "hosts": Line(title="two hosts", measure=hosts.measure),
    "growth": Line(
        title="larger backlogs",
        measure=growth.measure,
        logs=lambda options: growth.sizes(options)[-1],
    ),
    "kindness": Line(title="others on the same OpenSearch", measure=kindness.measure),
    "sick": Line(
        title="one sick index beside healthy ones",
        measure=sick.measure,
        logs=lambda options: 2 * (options.size or sick.SIZE),
    ),
    "memory": Line(
        title="a large backlog while logs keep arriving",
        measure=memory.measure,
        logs=lambda options: options.size or memory.SIZE,
    ),
    "plan": Line(
        title="plans beside the truth",
        measure=plan.measure,
        logs=lambda options: options.size or (plan.FULL if options.full else plan.SIZE),
    ),
    "page": Line(title="Flower's pages with 10,000 runs and 500 indices", measure=page.measure),
    "service": Line(
        title="the HTTP service beside the endpoint itself",
        measure=service.measure,
    ),
    "statistics": Line(
        title="the service's statistics beside the requests that they are made of",
        measure=statistics.measure,
        logs=lambda options: 0,
    ),
    "calibration": Line(
        title="how often the intervals of simulated samples hold the truth",
        simulate=calibration.simulate,
        logs=lambda options: 0,
    ),
    "realtime": Line(
        title="live logs beside a backlog, under a quota that binds",
        measure=realtime.measure,
        kafka=True,
        logs=lambda options: options.size or realtime.SIZE,
    ),
    "consumer": Line(
        title="the consumer of Kafka, beside a bare loop and a plain script",
        measure=consumer.measure,
        kafka=True,
        logs=lambda options: 50_000,
    ),
}

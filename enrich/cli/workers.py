"""`workers`: who works, since when, with how many processes, and at what."""

from __future__ import annotations

from enrich import wiring
from enrich.cli import screen
from enrich.cli.screen import plural
from enrich.settings import Settings
from enrich.status.overview import WorkerReport, read_workers


def show(settings: Settings, *, as_json: bool) -> int:
    """The exit status: 1 if nobody works.

    Raises EnrichError: Redis does not answer.
    """
    workers = read_workers(wiring.build_ledger(settings))
    at_work = any(worker.alive and not worker.refuses for worker in workers)
    if as_json:
        screen.print_json([worker.model_dump(mode="json") for worker in workers])
        return 0 if at_work else 1
    console = screen.out()
    if workers:
        rows = [
            (
                worker.name, _doing(worker), worker.processes, ", ".join(worker.queues),
                screen.clock(worker.since), worker.version,
            )
            for worker in workers
        ]  # fmt: skip
        screen.put(
            console,
            screen.fitted(
                console, ("worker", "doing", "processes", "queues", "since", "version"), rows,
                numbers=("processes",), drops=("version", "since", "queues"), shortens="worker",
            ),
        )  # fmt: skip
    for worker in workers:
        if worker.refuses:
            screen.line(console, "bad", f"{worker.name}: {worker.refuses}")
    if not at_work:
        screen.line(screen.err(), "bad", "no worker is alive: `celery -A enrich worker` starts one")
    return 0 if at_work else 1


def _doing(worker: WorkerReport) -> str:
    if not worker.alive:
        return f"silent for {screen.span(worker.seconds_ago)}"
    if worker.refuses:
        return "takes no work"
    if not worker.chunks:
        return "waits for work"
    logs = sum(chunk.logs for chunk in worker.chunks)
    return f"{plural(len(worker.chunks), 'chunk')}, {plural(logs, 'log')}"

"""Line 9: from the command to a worker that is ready, and to a status that is printed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.product import ProductFailed
from benchmarks.rounds import Figure, alternate, at_most, median, stated
from benchmarks.stage import Stage, StageFailed
from dev.services import CHECKOUT
from enrich.worker.capacity import default_processes

_PATIENCE = 120.0

_EMPTY_APP = """
from celery import Celery
app = Celery("empty", broker={url!r})
app.conf.worker_concurrency = {processes}
app.conf.broker_transport_options = {{"global_keyprefix": "empty:"}}
"""


def measure(stage: Stage) -> list[Figure]:
    folder = stage.folder / "start"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "empty_app.py").write_text(
        _EMPTY_APP.format(url=stage.stack.redis.url, processes=default_processes())
    )
    stage.cluster.clear()
    python = sys.executable
    ours = [python, "-m", "celery", "-A", "enrich", "worker"]
    empty = [python, "-m", "celery", "-A", "empty_app", "worker", "--loglevel", "INFO"]
    status = [python, "-m", "enrich", "status"]
    imports = [python, "-c", "import opensearchpy, redis"]
    seconds = alternate(
        {
            "worker": lambda: _until_ready(stage, folder, ours),
            "empty worker": lambda: _until_ready(stage, folder, empty),
            "status": lambda: _until_done(stage, folder, status),
            "imports": lambda: _until_done(stage, folder, imports),
        },
        max(3, stage.rounds(5, 9)),
        lambda _: None,
    )
    middle = {name: median(values) for name, values in seconds.items()}
    stage.data["start"] = seconds
    return [
        *(stated("start", name, value, "s") for name, value in middle.items()),
        at_most(
            "start",
            "worker, of an empty Celery app",
            middle["worker"] / middle["empty worker"],
            1.5,
        ),
        at_most(
            "start", "status, beyond its imports", middle["status"] - middle["imports"], 0.5, "s"
        ),
    ]


def _environment(stage: Stage) -> dict[str, str]:
    return {
        "PYTHONPATH": str(CHECKOUT),
        "ENRICH_LOG_FILE": "none",
        **stage.options.env,
    }


def _until_ready(stage: Stage, folder: Path, argv: list[str]) -> float:
    # A name, and so a log, of its own each time.
    name = f"start-{argv[4]}-{time.monotonic_ns()}"
    begun = time.perf_counter()
    service = stage.stack.spawn(name, argv, env=_environment(stage), cwd=folder)
    try:
        while True:
            if b" ready." in service.log.read_bytes():
                return time.perf_counter() - begun
            if not service.running:
                raise ProductFailed(f"a worker ended by itself; see {service.log}")
            if time.perf_counter() - begun > _PATIENCE:
                raise ProductFailed(f"a worker is not ready after {_PATIENCE:.0f} s")
            time.sleep(0.005)
    finally:
        service.kill()


def _until_done(stage: Stage, folder: Path, argv: list[str]) -> float:
    begun = time.perf_counter()
    done = subprocess.run(
        argv,
        cwd=folder,
        env={**os.environ, **stage.stack.environment(), **_environment(stage)},
        capture_output=True,
        text=True,
        check=False,
    )
    took = time.perf_counter() - begun
    if done.returncode:
        raise StageFailed(f"`{' '.join(argv[1:])}` ended with status {done.returncode}")
    return took

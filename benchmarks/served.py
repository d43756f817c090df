"""The HTTP service as a process beside the servers of the benchmarks."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2

from benchmarks.stage import Stage, StageFailed
from dev.service import Service
from dev.services import CHECKOUT, free_ports


@contextmanager
def served(stage: Stage) -> Iterator[str]:
    """Its URL, once it is ready."""
    (port,) = free_ports(1)
    service = stage.stack.spawn(
        "service",
        [sys.executable, "-m", "enrich", "serve"],
        env={
            "PYTHONPATH": str(CHECKOUT),
            "ENRICH_LOG_FILE": "none",
            "ENRICH_API_PORT": str(port),
            **stage.options.env,
        },
    )
    try:
        until_ready(service, f"http://127.0.0.1:{port}/readyz")
        yield f"http://127.0.0.1:{port}"
    finally:
        service.stop()


def until_ready(process: Service, url: str) -> None:
    """Raises StageFailed: it ended, or does not answer with 200 within three minutes."""
    for _ in range(1800):
        if not process.running:
            raise StageFailed(f"{url} is not answered: its process has ended")
        try:
            if httpx2.get(url, timeout=2).status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.1)
    raise StageFailed(f"{url} does not answer after three minutes")

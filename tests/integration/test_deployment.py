"""One deployment has one model: what real workers note of themselves, and what the odd one does."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dev.service import Service
from dev.services import Services
from enrich.assembly import build_ledger
from enrich.ledger import Ledger
from tests.conftest import start_worker, wait_for

#: A deployment of its own: a worker that other tests keep running must not take its messages.
PREFIX = "deployment:"


@pytest.fixture
def ledger(settings: Callable[..., Any]) -> Iterator[Ledger]:
    one = build_ledger(settings(enrich_redis_prefix=PREFIX))
    for key in one._redis.scan_iter(PREFIX + "*"):
        one._redis.delete(key)
    yield one
    one.close()


@pytest.fixture
def spawned(clean: Services) -> Iterator[Callable[..., Service]]:
    """Starts a worker of this deployment; keyword arguments are its environment."""
    started: list[Service] = []

    def start(name: str, **env: str) -> Service:
        env = {"ENRICH_REDIS_PREFIX": PREFIX, **env}
        started.append(start_worker(clean, f"deployment-{name}", **env))
        return started[-1]

    yield start
    for service in started:
        service.stop()


def test_workers_live_in_redis_while_they_live(
    ledger: Ledger, spawned: Callable[..., Service]
) -> None:
    service = spawned("one")
    (note,) = ledger.deployment.workers()
    assert note.alive and note.name.startswith("deployment-one@") and note.pid == service.pid
    assert (note.processes, note.queues) == (2, ("enrich.scan", "enrich.embed"))
    assert note.configuration.values["EMBEDDING_MODEL"] and not note.refuses
    os.kill(service.pid, signal.SIGTERM)
    wait_for(lambda: not service.running)
    assert ledger.deployment.workers() == []

"""One deployment has one model: what real workers note of themselves, and what the odd one does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from dev.service import Service
from dev.services import Services
from enrich.ledger import Ledger
from enrich.ledger.deployment import disagreements
from enrich.models import RunRecord
from enrich.wiring import build_ledger
from tests.conftest import ROOT, Pipeline, Search, start_worker, wait_for
from tests.integration.test_cycle import logs

INDEX = "a_b_2026_11"

#: A deployment of its own: a worker that other tests keep running must not take its messages.
PREFIX = "deployment:"


@pytest.fixture
def ledger(settings: Callable[..., Any], redis_url: str) -> Iterator[Ledger]:
    with redis.Redis.from_url(redis_url) as connection:
        for key in connection.scan_iter(PREFIX + "*"):
            connection.delete(key)
    one = build_ledger(settings(enrich_redis_prefix=PREFIX))
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


@pytest.mark.apart
def test_two_models_of_one_deployment_never_share_a_run(
    ledger: Ledger, spawned: Callable[..., Service], search: Search, stack: Services
) -> None:
    """The first worker's model is the deployment's; the other takes no work until it is alone."""
    search.create(INDEX)
    search.index(INDEX, logs(250, 250))
    first = spawned("first")
    odd = spawned("odd", EMBEDDING_MODEL="text-embedding-3-small")
    sentence = "this worker takes no work: EMBEDDING_MODEL is text-embedding-3-small here and "
    assert sentence in odd.log.read_text()
    workers = ledger.deployment.workers()
    assert [bool(note.refuses) for note in workers] == [False, True]
    (told,) = disagreements(workers)
    assert told.startswith("2 workers disagree on EMBEDDING_MODEL: deployment-first@")

    done = enrich_run(stack)
    assert done.returncode == 0, done.stderr
    assert models(search) == {"text-embedding-3-large": 250}

    # A deliberate change: the old worker goes, the new one takes what comes.
    os.kill(first.pid, signal.SIGTERM)
    wait_for(lambda: not first.running)
    wait_for(lambda: "takes work now" in odd.log.read_text(), odd)
    search.index(INDEX, [{**logs(1, 1)[0], "_id": "late", "message": "late"}])
    done = enrich_run(stack)
    assert done.returncode == 0, done.stderr
    assert models(search) == {"text-embedding-3-large": 250, "text-embedding-3-small": 1}


def models(search: Search) -> dict[str, int]:
    """How many logs have a vector of which model."""
    sources = search.sources(INDEX).values()
    return dict(Counter(s["ai_embedding_model"] for s in sources if "log_vector" in s))


def enrich_run(stack: Services) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **stack.environment(), "PYTHONPATH": str(ROOT)}
    env |= {"ENRICH_REDIS_PREFIX": PREFIX, "ENRICH_LOG_FILE": "none"}
    return subprocess.run(
        [sys.executable, "-m", "enrich", "run", "--wait", "--json"],
        cwd=stack.folder, env=env, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_logs_that_a_deployment_on_another_redis_wrote_meanwhile_are_counted_and_said(
    pipeline: Callable[..., Pipeline], search: Search, caplog: pytest.LogCaptureFixture
) -> None:
    search.create(INDEX)
    search.index(INDEX, logs(150, 150))
    # Nothing but the indices is common to both: the other's keys have another prefix.
    one, other = pipeline(), pipeline(enrich_redis_prefix="pipeline:other:")
    others: list[RunRecord] = []

    def run_the_other(name: str, arguments: Any) -> None:
        if name == "embed_and_update" and not others:
            others.append(other.run())

    one.before = run_the_other
    caplog.set_level("WARNING")
    record = one.run()
    assert others[0].vectors_written == 150 and others[0].written_by_others == 0
    assert (record.already_vectorized, record.written_by_others, record.api_inputs) == (150, 150, 0)
    (told,) = (line for line in caplog.messages if "another ENRICH_REDIS_PREFIX" in line)
    assert "150 logs were given a vector meanwhile by runs that this Redis does not know" in told

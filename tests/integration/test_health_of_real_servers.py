"""No green lamp over a dead system: states of real servers, as `status` tells them first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from dev.services import free_ports
from enrich.errors import TransientError
from tests.conftest import ROOT, Pipeline, Search

INDEX = "a_b_2026_11"


def some_logs(count: int) -> list[dict[str, Any]]:
    return [
        {"level": "ERROR", "message": f"disk {n} is gone", "timestamp": "2026-11-20T10:00:00Z"}
        for n in range(count)
    ]


def status(prefix: str) -> tuple[int, str, dict[str, Any]]:
    """Exit status and first line of `status`, and what it gives as JSON."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "enrich", "status", *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT), "ENRICH_REDIS_PREFIX": prefix},
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    shown, told = call(), call("--json")
    assert "Traceback" not in shown.stderr + told.stderr
    assert shown.returncode == told.returncode
    return shown.returncode, shown.stdout.lstrip("\n").splitlines()[0], json.loads(told.stdout)


def test_the_embeddings_api_is_dead(pipeline: Callable[..., Pipeline], search: Search) -> None:
    search.create(INDEX)
    search.index(INDEX, some_logs(30))
    (port,) = free_ports(1)
    line = pipeline(openai_base_url=f"http://127.0.0.1:{port}/v1", enrich_redis_prefix="dead:")
    record = line.run("beat")
    assert record.deferred == 30 == sum(record.deferral_reasons.values())
    assert any("embeddings API" in why for why in record.retry_reasons)

    code, first, told = status("dead:")
    # No worker lives in this test either; which of the two comes first is not what is asked.
    assert code == 3 and ("Halted" in first or "Degraded" in first)
    (deferred,) = (r for r in told["health"]["reasons"] if r["code"] == "deferred")
    assert "deferred 30 of 30 logs: the embeddings API" in deferred["sentence"]
    assert any("deferred 30 of 30 logs" in problem for problem in told["problems"])
    assert told["last_runs"][0]["deferral_reasons"] == record.deferral_reasons


def test_an_api_that_is_dead_before_the_first_page_is_told(
    pipeline: Callable[..., Pipeline], search: Search
) -> None:
    search.create(INDEX)
    search.index(INDEX, some_logs(5))
    assert pipeline(enrich_redis_prefix="moved:").run().vectors_written == 5
    search.index(INDEX, [{**log, "_id": f"later-{n}"} for n, log in enumerate(some_logs(5))])

    (port,) = free_ports(1)
    moved = pipeline(openai_base_url=f"http://127.0.0.1:{port}/v1", enrich_redis_prefix="moved:")
    # It compares vectors of the new address with stored ones, and gets none.
    with pytest.raises(TransientError):
        moved.backfill.tick("manual")
    code, first, told = status("moved:")
    assert code != 0
    record = told["active_run"]
    assert record["retries"] == 1 and "embeddings API" in next(iter(record["retry_reasons"]))
    assert any(
        "has written nothing yet and tries again" in problem for problem in told["problems"]
    ), first


def test_no_worker_is_alive(settings: Any, search: Search) -> None:
    search.create(INDEX)
    search.index(INDEX, some_logs(50))
    code, first, told = status("lonely:")
    assert code == 3
    assert "Halted: no worker is alive, and 50 logs wait" in first
    assert "celery -A enrich worker" in first
    assert told["health"]["word"] == "Halted" and told["problems"]


def test_the_only_index_is_skipped(pipeline: Callable[..., Pipeline], search: Search) -> None:
    search.create(
        INDEX,
        mappings={"properties": {"level": {"type": "keyword"}, "log_vector": {"type": "float"}}},
        settings={"index.knn": True},
    )
    search.index(INDEX, some_logs(7))
    record = pipeline(enrich_redis_prefix="skipped:").run("beat")
    assert record.skipped_indices.keys() == {INDEX}

    code, first, told = status("skipped:")
    assert code == 1
    assert f"Degraded: one index with 7 logs, all that wait, is skipped: {INDEX}: " in first
    assert record.skipped_indices[INDEX][:20] in first
    assert told["health"]["reasons"][0]["code"] == "skipped" and told["problems"]

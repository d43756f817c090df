"""Flower's pages with 10,000 runs recorded and 500 indices: how long an answer takes, and how often
OpenSearch is asked while many look."""

from __future__ import annotations

import base64
import json
import sys
import time
from datetime import UTC, datetime, timedelta
from statistics import median

import httpx2

from benchmarks.rounds import Figure, at_most, percentile, stated
from benchmarks.stage import Stage, StageFailed
from dev.services import CHECKOUT, free_ports
from enrich.log_store import LogStore
from enrich.models import RunRecord
from enrich.settings import load_settings
from enrich.wiring import build_ledger

#: Records, indices, and for how long is looked, without a pause: several times as long as an answer
#: of OpenSearch is used.
_RUNS, _INDICES, _SECONDS = 10_000, 500, 30.0

#: What an operator waits for at most.
_BOUND_MS = 200.0

_PATHS = (
    "/enrichment", "/enrichment/runs", "/enrichment/indices", "/enrichment/indices?page=5",
    "/enrichment/api/backlog", "/enrichment/api/status", "/enrichment.json",
)  # fmt: skip


def measure(stage: Stage) -> list[Figure]:
    stage.cluster.clear()
    _fill(stage)
    (port,) = free_ports(1)
    flower = stage.stack.spawn(
        "flower",
        [sys.executable, "-m", "celery", "-A", "enrich", "flower", f"--port={port}"],
        env={"PYTHONPATH": str(CHECKOUT), "ENRICH_LOG_FILE": "none", **stage.options.env},
    )
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            _until_ready(client)
            asked, began = _asked(stage), time.monotonic()
            times: dict[str, list[float]] = {path: [] for path in _PATHS}
            while (seconds := time.monotonic() - began) < _SECONDS:
                for path in _PATHS:
                    times[path].append(_milliseconds(client, path))
            asked = _asked(stage) - asked
            return [
                *(
                    at_most(
                        "page",
                        f"{path}, 95 of 100 answers",
                        percentile(some, 0.95),
                        _BOUND_MS,
                        "ms",
                        note=f"median {median(some):.0f} ms",
                    )
                    for path, some in times.items()
                ),
                stated(
                    "page",
                    "requests to OpenSearch in ten seconds of looking all the time",
                    10 * asked / seconds,
                    note=f"{sum(map(len, times.values()))} answers in {seconds:.0f} s",
                ),
            ]
    finally:
        flower.stop()


def _fill(stage: Stage) -> None:
    """Indices with a few logs each, and records of runs, as an installation has after ten weeks."""
    stage.say(f"page: {_INDICES} indices and {_RUNS:,} runs")
    servers = {name.lower(): value for name, value in stage.stack.environment().items()}
    settings = load_settings(**servers)
    store = LogStore(settings)
    ledger = build_ledger(settings)
    try:
        now = datetime.now(UTC)
        index = {"settings": {"number_of_shards": 1, "number_of_replicas": 0, "index.knn": True}}
        for n in range(_INDICES):
            stage.cluster("PUT", f"/project{n:03}_2026_11", index)
        rows = [
            line
            for n in range(_INDICES)
            for k in range(1 + n % 5)
            for line in (
                {"index": {"_index": f"project{n:03}_2026_11", "_id": str(k)}},
                {"level": "ERROR", "message": f"error {k}", "timestamp": now.isoformat()},
            )
        ]
        stage.cluster.bulk(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
        stage.cluster("POST", "/_refresh")
        store.history.make()
        for first in range(0, _RUNS, 1000):
            store.history.write([_record(n, now) for n in range(first, first + 1000)], {}, {})
        for _ in range(50):
            run = ledger.runs.open("beat", 0).run
            ledger.runs.halt(run, "the benchmark ends it")
            ledger.runs.finish(run)
    finally:
        store.close()
        ledger.close()


def _record(n: int, now: datetime) -> RunRecord:
    began = now - timedelta(minutes=10 * (_RUNS - n) + 60)
    return RunRecord(
        run_id=base64.b32encode(n.to_bytes(5)).decode().lower(),
        number=n + 1,
        state="finished",
        started_at=began,
        finished_at=began + timedelta(seconds=9),
        duration_seconds=9.0,
        found=n % 3 and 1000,
        embedded=n % 3 and 400,
        cached=n % 3 and 600,
        vectors_written=n % 3 and 1000,
        api_inputs=n % 3 and 400,
        api_tokens=n % 3 and 40_000,
        estimated_cost_usd=n % 3 and 0.0052,
    )


def _milliseconds(client: httpx2.Client, path: str) -> float:
    began = time.perf_counter()
    answer = client.get(path)
    taken = 1000 * (time.perf_counter() - began)
    if answer.status_code != 200:
        raise StageFailed(f"{path} answers {answer.status_code}")
    return taken


def _asked(stage: Stage) -> int:
    """Requests that OpenSearch has answered, without those asked from here."""
    return sum(stage.cluster.requests().values())


def _until_ready(client: httpx2.Client) -> None:
    for _ in range(600):
        try:
            if client.get("/healthcheck").status_code == 200:
                client.get("/enrichment")
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.1)
    raise StageFailed("Flower did not come up within a minute")

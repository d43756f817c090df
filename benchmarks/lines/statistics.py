"""The service's statistics beside the requests to OpenSearch that an answer is made of."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch
from zoneinfo import ZoneInfo

import httpx2
import orjson

from benchmarks.product import settings_of
from benchmarks.rounds import Figure, alternate, at_most, median, stated
from benchmarks.served import served
from benchmarks.stage import Stage, StageFailed
from enrich.api import statistics
from enrich.log_store import LogStore
from enrich.wiring import build_store

#: Logs of the project within a day.
QUICK, FULL = 20_000, 1_000_000
_AT_ONCE = 5_000
_PROJECT = "3f2a9c1e-77d0-4b8e-9d51-0c6a1f2b3e4d"
_ZONE = ZoneInfo("Asia/Seoul")

Request = tuple[tuple[Any, ...], dict[str, Any]]


def measure(stage: Stage) -> list[Figure]:
    size = stage.size(QUICK, FULL)
    _fill(stage, size)
    store = build_store(settings_of(stage.stack))
    counts = store.level_counts
    calls: dict[str, Callable[[], object]] = {
        "compare": lambda: statistics.compare(counts, _ZONE, _PROJECT),
        "hourly": lambda: statistics.hourly(counts, _ZONE, _PROJECT),
    }
    figures = []
    try:
        with served(stage) as url, httpx2.Client(base_url=url, timeout=60) as http:
            for name, call in calls.items():
                requests = _sent(store, call)
                path = f"/api/v2-langgraph/statistics/{name}?project_uuid={_PROJECT}"
                ways: dict[str, Callable[[], float]] = {
                    "service": lambda path=path: _answered(http, path),  # type: ignore[misc]
                    "bare": lambda requests=requests: _again(store, requests),  # type: ignore[misc]
                }
                seconds = alternate(ways, stage.rounds(15, 50), lambda told: None)
                stage.data[f"statistics {name}"] = seconds
                ours, bare = median(seconds["service"]), median(seconds["bare"])
                figures += [
                    stated("statistics", f"{name} of {size:,} logs", 1000 * ours, "ms"),
                    at_most("statistics", f"{name}, of its requests alone", ours / bare, 1.5),
                ]
    finally:
        store.close()
    return figures


def _fill(stage: Stage, size: int) -> None:
    now = datetime.now(UTC)
    index = f"{_PROJECT.replace('-', '_')}_{now:%Y_%m}"
    stage.cluster.clear()
    fields = {"level": {"type": "keyword"}, "timestamp": {"type": "date"}}
    stage.cluster("PUT", f"/{index}", {"mappings": {"properties": fields}})
    for start in range(0, size, _AT_ONCE):
        lines: list[dict[str, Any]] = []
        for n in range(start, min(size, start + _AT_ONCE)):
            moment = now - timedelta(seconds=5 + n % 80_000)
            lines.append({"index": {"_index": index}})
            lines.append({"level": ("ERROR", "WARN", "INFO", "INFO")[n % 4],
                          "message": f"log {n}", "timestamp": moment.isoformat()})  # fmt: skip
        stage.cluster.bulk(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    stage.cluster("POST", f"/{index}/_refresh")


def _sent(store: LogStore, call: Callable[[], object]) -> list[Request]:
    """What is asked of OpenSearch for one answer."""
    sent: list[Request] = []
    send = store.connection.request

    def noted(*request: Any, **more: Any) -> str:
        sent.append((request, more))
        return send(*request, **more)

    with patch.object(store.connection, "request", noted):
        call()
    return sent


def _answered(http: httpx2.Client, path: str) -> float:
    began = time.perf_counter()
    answer = http.get(path)
    if answer.status_code != 200:
        raise StageFailed(f"{path} answered {answer.status_code}")
    return time.perf_counter() - began


def _again(store: LogStore, requests: list[Request]) -> float:
    began = time.perf_counter()
    for request, more in requests:
        store.connection.request(*request, **more)
    return time.perf_counter() - began

"""Runs that outlive Redis, on a real OpenSearch and Valkey: one story, told by the index itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dev.services import Services, free_ports
from enrich import wiring
from enrich.history.reader import History, UnknownRun
from enrich.log_store.run_history import CONTENT, INDEX
from enrich.models import RunRecord
from enrich.settings import Settings
from tests.conftest import PREFIX, ROOT, Pipeline, Search, wait_for
from tests.run_history_contract import keeps_its_promises

LOGS = "shop_2026_11"
HOSTILE = "<script>alert('x')</script>\x1b[31m\u202e" + "x" * 2000


def records(search: Search) -> dict[str, dict[str, Any]]:
    """Documents of runs, by id."""
    found = search("POST", f"/{INDEX}/_search", {"size": 100, "query": {"term": {"kind": "run"}}})
    return {hit["_id"]: hit["_source"] for hit in found["hits"]["hits"]}


def history_of(settings: Settings) -> History:
    """As a screen reads it that was just opened."""
    ledger = wiring.build_ledger(settings)
    return wiring.build_history(settings, ledger, wiring.build_store(settings))


def some_logs(count: int, name: str) -> list[dict[str, Any]]:
    return [{"level": "ERROR", "message": f"{name} {n}"} for n in range(count)]


def test_runs_outlive_redis(
    clean: Services,
    search: Search,
    settings: Callable[..., Settings],
    pipeline: Callable[..., Pipeline],
    redis_emptied: Callable[[], None],
    enrich: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    kept = {"enrich_history": True, "enrich_redis_prefix": PREFIX}
    config = settings(**kept)
    search.create(LOGS)
    search.index(LOGS, some_logs(3, "disk"))
    one = pipeline(**kept)
    first = one.run()
    assert first.vectors_written == 3
    # By whoever closed it, as it is in Redis, and found by no run.
    assert list(records(search)) == [first.run_id]
    assert RunRecord.model_validate(records(search)[first.run_id]) == first
    mapped = search("GET", f"/{INDEX}/_mapping")[INDEX]["mappings"]
    assert str(mapped["dynamic"]) == "false"
    assert mapped["properties"].keys() == CONTENT["mappings"]["properties"].keys()
    assert INDEX in search("GET", f"/_index_template/{INDEX}")["index_templates"][0]["name"]
    assert one.run().found == 0 and len(records(search)) == 2

    # Written twice it is there once; a write that is lost is caught up by the next run's end.
    two = one.ledger.runs.open("manual", 600).run
    one.ledger.runs.skip(two, "a.b_index", HOSTILE)
    one.ledger.runs.halt(two, HOSTILE)
    search("PUT", f"/{INDEX}/_settings", {"index.blocks.write": True})
    one.backfill.finish(two)
    assert two not in records(search)
    lag = one.ledger.history.lag()
    assert lag.runs == 1 and "cluster_block_exception" in lag.problem
    search("PUT", f"/{INDEX}/_settings", {"index.blocks.write": None})
    search.index(LOGS, some_logs(2, "node"))
    one.run()
    assert len(records(search)) == 4 and one.ledger.history.lag().runs == 0
    stored = records(search)[two]
    assert stored["state"] == "halted" and len(stored["halt_reason"]) == 1000
    assert stored["skipped_indices"].keys() == {"a.b_index"}

    # Redis loses everything, and nobody who looks misses anything.
    before = history_of(config).totals()
    redis_emptied()
    history = history_of(config)
    assert history.totals() == before and before.vectors == 5
    assert [run.number for run in history.runs().runs] == [4, 3, 2, 1]
    assert [run.number for run in history.runs(busy=True).runs] == [4, 3, 1]
    page = history.runs(2)
    assert [run.number for run in history.runs(2, before=page.next).runs] == [2, 1]
    assert history.run(first.run_id) == first and history.run("#1") == first
    assert history.run("3").skipped_indices.keys() == {"a.b_index"}
    with pytest.raises(UnknownRun) as unknown:
        history.run(first.run_id[:-1])
    assert first.run_id in unknown.value.nearest
    for wrong in ("99", "\x1b[31m", "*", "a OR b", "\ud800", "x" * 1_000_000):
        with pytest.raises(UnknownRun):
            history.run(wrong)
    sums = history.sums()
    assert (sums.today.runs, sums.today.vectors_written, sums.problem) == (4, 5, "")
    assert sums.month.cost_usd == pytest.approx(before.spent_usd) and before.spent_usd > 0
    search.index(LOGS, some_logs(1, "rack"))
    assert pipeline(**kept).run().number == 5, "numbers go on"
    after = history_of(config).totals()
    assert (after.vectors, after.runs) == (6, 5)
    assert after.run_durations is not None and after.run_durations.within["+Inf"] == 5

    # What is older than ENRICH_HISTORY_DAYS goes; totals stay.
    store = wiring.build_store(config)
    old = datetime.now(UTC) - timedelta(days=91)
    aged = [first.model_copy(update={"run_id": f"old{n}", "started_at": old}) for n in range(3)]
    store.history.write(aged, {}, {f"{old:%Y-%m-%d}": 5})
    # Of another deployment, and of somebody else.
    other = wiring.build_store(settings(enrich_redis_prefix="other:"))
    other.history.write([first.model_copy(update={"run_id": "theirs", "started_at": old})], {}, {})
    search.index(INDEX, [{"kind": "run", "deployment": PREFIX, "skipped_indices": "no record"}])
    assert store.history.count() == 5 + 3 + 1
    assert store.history.forget(datetime.now(UTC) - timedelta(days=90)) == 4
    assert store.history.forget(datetime.now(UTC) - timedelta(days=90)) == 0
    assert set(records(search)) >= {first.run_id, "theirs"} and "old1" not in records(search)
    assert [run.number for run in history_of(config).runs().runs] == [5, 4, 3, 2, 1]
    assert store.history.totals()["vectors"] == 6
    store.close()
    other.close()
    third = wiring.build_store(settings(enrich_redis_prefix="third:"))
    keeps_its_promises(third.history)
    third.close()

    # In the terminal; its other forms are tested without servers.
    environment = {"ENRICH_HISTORY": "on", "ENRICH_REDIS_PREFIX": PREFIX, "COLUMNS": "80"}
    redis_emptied()
    shown = enrich("runs", "show", first.run_id, "--json", **environment)
    assert RunRecord.model_validate(json.loads(shown.stdout)) == first

    # For Prometheus, without Flower: no counter falls, also not where Redis is emptied in between.
    (port,) = free_ports(1)
    service = clean.spawn(
        "metrics",
        [sys.executable, "-m", "enrich", "metrics", f"--port={port}"],
        env={"PYTHONPATH": str(ROOT), "ENRICH_LOG_FILE": "none", **environment},
    )
    try:
        wait_for(lambda: "/metrics" in service.log.read_text(), service)
        scraped = scrape(port)
        assert scraped["enrich_vectors_total", ""] == 6
        assert scraped["enrich_runs_ended_total", "halted"] == 1
        assert scraped["enrich_run_duration_seconds_count", ""] == 5
        assert scraped["enrich_up", "redis"] == scraped["enrich_history_kept", ""] == 1
        search.index(LOGS, some_logs(1, "last"))
        pipeline(**kept).run()
        redis_emptied()
        assert scrape(port)["enrich_vectors_total", ""] >= 6
        assert httpx2.get(f"http://127.0.0.1:{port}/other").status_code == 404
        rebound = httpx2.get(f"http://127.0.0.1:{port}/metrics", headers={"Host": "evil.example"})
        assert rebound.status_code == 403
    finally:
        service.stop()


def scrape(port: int) -> dict[tuple[str, str], float]:
    answer = httpx2.get(f"http://127.0.0.1:{port}/metrics", timeout=30)
    assert answer.status_code == 200
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }

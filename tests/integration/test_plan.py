"""Plans on real servers, held against what OpenSearch has and what workers then pay."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from dev.api_control import ApiControl
from dev.services import Services
from enrich.planning.plan import Plan
from enrich.planning.planner import Planner
from enrich.wiring import build_planner
from tests.conftest import start_worker

#: Emptied before each test, and no other worker's.
PREFIX = "enrich:plans:"
OLD, NEW = "shop_2026_10", "shop_2026_11"
TRACE = "\n".join(f"\tat com.example.Service.call(Service.java:{n})" for n in range(900))


def logs(count: int, distinct: int, name: str) -> list[dict[str, Any]]:
    """A third of the texts are longer than any ignore_above, and all of these end alike."""
    return [
        {
            "level": "ERROR",
            "message": f"{name} number {n % distinct} failed" + TRACE * (n % distinct % 3 == 0),
            "timestamp": f"2026-11-01T00:{n // 60 % 60:02}:{n % 60:02}Z",
        }
        for n in range(count)
    ]


def counted(planner: Planner) -> Plan:
    """As for a backlog that is too large to be read."""
    by_opensearch = Planner(dataclasses.replace(planner.parts, exact_up_to=0))
    return by_opensearch.plan(by_opensearch.backlog())


@pytest.mark.apart
def test_a_plan_is_held_and_a_sum_waits_for_a_word(
    stack: Services, search: Any, embeddings: ApiControl, enrich: Any, settings: Any
) -> None:
    search.create(OLD)
    search.create(NEW)
    search.index(OLD, [*logs(300, 60, "order"), {"level": "ERROR", "message": " "}])
    search.index(NEW, [*logs(200, 90, "order"), *logs(100, 50, "payment")])
    env = {"ENRICH_REDIS_PREFIX": PREFIX, "ENRICH_CONFIRM_ABOVE_USD": "0.001"}

    told = enrich("plan", "--json", **env)
    assert told.returncode == 0 and told.stderr == ""
    plan = Plan.model_validate_json(told.stdout)
    assert (plan.counted.logs, plan.counted.unusable, plan.counted.distinct_texts) == (601, 1, 140)
    assert (plan.counted.method, plan.counted.error, plan.sent.texts) == ("scan", 0, 140)
    assert plan.disk.fullest_node is not None and plan.disk.bytes == 601 * 6_494
    assert plan.cost.usd is not None and plan.cost.usd > 0.001

    # OpenSearch counts what `.keyword` leaves out, and texts that differ in their ends alone.
    planner = build_planner(settings(enrich_redis_prefix=PREFIX))
    about = counted(planner)
    assert about.counted.method == "cardinality" and about.counted.error < 0.01
    # The blank log counts as a text, since OpenSearch does not judge it.
    assert about.counted.distinct_texts == pytest.approx(140, abs=1)
    assert about.sent.bytes == pytest.approx(plan.sent.bytes, rel=0.02)
    # So it does where the text may be in any of several fields.
    several = counted(build_planner(settings(enrich_redis_prefix=PREFIX, enrich_schema="auto")))
    assert several.counted.distinct_texts == pytest.approx(140, abs=1)
    assert several.sent.bytes == pytest.approx(plan.sent.bytes, rel=0.02)
    # Masked texts are read, however many logs there are.
    masked = counted(build_planner(settings(enrich_redis_prefix=PREFIX, enrich_normalize="all")))
    assert (masked.counted.method, masked.counted.distinct_texts) == ("scan", 4)
    assert masked.saved.masking == 136

    worker = start_worker(stack, "plans", **env)
    try:
        halted = enrich("run", "--wait", "--json", **env)
        assert halted.returncode == 3
        record = json.loads(halted.stdout)
        assert (record["state"], record["found"], record["api_requests"]) == ("halted", 0, 0)
        assert "`python -m enrich confirm` lets it begin" in record["halt_reason"]
        assert embeddings.counts()["inputs"] == 0

        confirmed = enrich("confirm", "--yes", **env)
        assert confirmed.returncode == 0 and "runs may spend up to $" in confirmed.stdout
        allowed = planner.parts.ledger.confirmed.left_usd()
        assert allowed == pytest.approx(1.1 * plan.cost.usd, rel=0.01)
        # So much that the run is not stopped between its pages.
        assert enrich("confirm", "--up-to", "1", "--yes", **env).returncode == 0
        allowed = 1.0
        done = enrich("run", "--wait", "--json", **env)
        record = json.loads(done.stdout)
        assert (record["state"], record["vectors_written"], record["failed"]) == (
            "finished", 600, 1,
        )  # fmt: skip
        # One more: after a halt the endpoint is tried with a harmless text.
        assert embeddings.counts()["inputs"] == record["api_inputs"] == plan.sent.texts + 1
        left = planner.parts.ledger.confirmed.left_usd()
        assert left == pytest.approx(max(0, allowed - record["estimated_cost_usd"]), abs=2e-6)
        assert planner.plan(planner.backlog()).counted.logs == 0
    finally:
        worker.stop()

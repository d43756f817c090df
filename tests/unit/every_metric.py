"""A scrape of a deployment in which everything has happened: what rules and dashboard may name."""

from __future__ import annotations

from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from enrich.ledger.realtime_summary import RealtimeSummary
from enrich.models import Durations, RunRecord
from enrich.status.history import HistoryReport
from enrich.status.metrics import EnrichCollector
from enrich.status.quota import QuotaReport
from enrich.status.reader import Reading
from enrich.status.report import Backlog, IndexBacklog, Status, TotalsReport
from tests.unit.test_realtime_screens import Scene, counted


def backfill() -> Status:
    """Without consumers of Kafka."""
    durations = Durations(within={"10": 0, "+Inf": 1}, seconds=12)
    return Status(
        totals=TotalsReport(
            counts={"embedded": 1}, run_durations=durations, chunk_durations=durations
        ),
        last_runs=[RunRecord(run_id="r")],
        last_tick=datetime.now(UTC),
        interval_seconds=600,
        cost_limit_usd=10,
        workers_note_themselves=True,
        spent_today_by_project={"a": 0.5},
        history=HistoryReport(),
        quota=QuotaReport(requests_per_minute=60, tokens_per_minute=6000),
        queues={"enrich": 3},
        cache_entries=1,
        backlog=Backlog(
            without_vector=1,
            by_index={"a_2026_11": IndexBacklog(without_vector=1)},
            oldest_without_vector="2026-11-29T12:00:00Z",
            oldest_by_project={"a": "2026-11-29T12:00:00Z"},
        ),
    )


def consumers() -> list[RealtimeSummary]:
    """A group of two, one of them paused."""
    scene = Scene()
    counted(scene.ledger)
    scene.report((0, 100, 125)).report((1, 4, 6), name="host/2", doing="paused", why="x")
    return scene.groups


def scrape(status: Status) -> dict[str, list[dict[str, str]]]:
    """Metric → labels of each of its samples."""
    registry = CollectorRegistry()
    registry.register(EnrichCollector(lambda: Reading(status, True, True)))
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


def every_metric() -> dict[str, list[dict[str, str]]]:
    """Of backfill and consumers together, and of a backlog that was counted in part."""
    in_part = Status(backlog=Backlog(not_counted={"a_2026_11": "its shard is away"}))
    whole = backfill().model_copy(update={"realtime": consumers()})
    return {**scrape(in_part), **scrape(whole)}

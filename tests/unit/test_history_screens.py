"""Runs in the terminal and as metrics: readable, whatever is in them, and never falling."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from wsgiref.util import setup_testing_defaults

import fakeredis
import jsonschema
import pytest
from prometheus_client import CollectorRegistry, generate_latest, make_wsgi_app
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner, Result

from enrich import redis_client, wiring
from enrich.cli import app, json_forms
from enrich.cli.metrics import listening, routed
from enrich.errors import AccessRefused, ServerUnavailable, SettingsError
from enrich.history.in_memory import InMemoryRunHistory
from enrich.ledger import Ledger
from enrich.models import DaySums, Durations, RunRecord
from enrich.settings import Settings, load_settings
from enrich.status.history import HistoryReport
from enrich.status.metrics import EnrichCollector
from enrich.status.reader import Reading
from enrich.status.report import Backlog, IndexBacklog, Status, TotalsReport, by_project

SCHEMAS = json_forms.schemas()
NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
HOSTILE = "<b>\x1b[31m\u202e\n" + "y" * 500


class Store:
    """As much of the log store as these commands ask for."""

    def __init__(self) -> None:
        self.history = InMemoryRunHistory()


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Store:
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("COLUMNS", "80")
    server = fakeredis.FakeServer()
    monkeypatch.setattr(redis_client, "connect", lambda url: fakeredis.FakeRedis(server=server))
    made = Store()
    monkeypatch.setattr(wiring, "build_store", lambda settings: made)
    return made


def call(*arguments: str) -> Result:
    told = CliRunner().invoke(app, arguments)
    if "--json" in arguments and told.stdout:
        form = "runs show" if arguments[1] == "show" else "runs"
        jsonschema.validate(json.loads(told.stdout), SCHEMAS[form])
    return told


def recorded(count: int, **fields: Any) -> dict[str, RunRecord]:
    """Runs of ten minutes each, the last one now."""
    return {
        f"{n:012x}": RunRecord(
            run_id=f"{n:012x}",
            number=n,
            state="finished",
            started_at=NOW - timedelta(minutes=10 * (count - n)),
            duration_seconds=61,
            found=1_234_567 if n % 10 == 0 else 0,
            **fields,
        )
        for n in range(1, count + 1)
    }


def test_ten_thousand_runs_are_read_at_80_columns(store: Store) -> None:
    store.history.records = recorded(10_000, vectors_written=1_234_567, estimated_cost_usd=1234.5)
    told = call("runs")
    assert told.exit_code == 0
    lines = told.stdout.splitlines()
    assert max(map(len, lines)) <= 80 and len(lines) < 30
    assert "10000" in told.stdout.replace(",", "") and "1,234,567" in told.stdout
    assert "runs --before 00000000" in told.stdout and "10,000 runs recorded" in told.stdout
    older = json.loads(call("runs", "--before", "100", "-n", "3", "--json").stdout)
    assert [run["number"] for run in older["runs"]] == [99, 98, 97]
    assert (older["next"], older["recorded"]) == (f"{97:012x}", 10_000)
    busy = json.loads(call("runs", "--busy", "-n", "3", "--json").stdout)
    assert [run["number"] for run in busy["runs"]] == [10_000, 9_990, 9_980]
    assert call("runs", "show", "5000").exit_code == 0


def test_one_run_is_shown_with_all_that_it_did(store: Store) -> None:
    store.history.records = recorded(
        1, embedded=3, failed=2, api_requests=1, api_inputs=3, rate_limited=2, paused_ms=61_000,
        halt_reason=HOSTILE, skipped_indices={f"{HOSTILE}{n}": HOSTILE for n in range(500)},
        deferral_reasons={HOSTILE: 4},
    )  # fmt: skip
    told = call("runs", "show", "#1")
    assert told.exit_code == 0
    assert "\x1b" not in told.stdout and "\u202e" not in told.stdout
    assert "sent to the API" in told.stdout and "2 times for a pause, 1 min" in told.stdout
    assert "490 more indices were skipped" in told.stdout
    as_json = call("runs", "show", "1", "--json")
    assert RunRecord.model_validate_json(as_json.stdout) == store.history.records[f"{1:012x}"]
    assert as_json.stdout.isascii()


@pytest.mark.parametrize(
    "wrong", ["nothing", HOSTILE, "-1x", "x" * 100_000, "99999999999999999999"]
)
def test_an_unknown_run_is_one_line(store: Store, wrong: str) -> None:
    store.history.records = recorded(3)
    for arguments in (["runs", "show", "--", wrong], ["runs", f"--before={wrong}"]):
        told = call(*arguments)
        assert told.exit_code == 2
        assert told.stderr.count("\n") == 1 and len(told.stderr) < 300
        assert "\x1b" not in told.stderr and "python -m enrich runs" in told.stderr


def test_the_nearest_run_is_named(store: Store) -> None:
    store.history.records = recorded(3)
    assert f"{2:012x}" in call("runs", "show", "0000000000022").stderr


def test_no_run_and_no_right(store: Store) -> None:
    assert "no run yet" in call("runs").stdout
    store.history.failure = AccessRefused("OpenSearch does not allow this to OPENSEARCH_USER (403)")
    told = call("runs")
    assert told.exit_code == 3 and told.stderr.count("OPENSEARCH_USER") == 1
    assert json.loads(call("runs", "--json").stdout)["problems"]


def test_off_asks_nothing_of_opensearch(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENRICH_HISTORY", "off")
    ledger: Ledger = wiring.build_ledger(load_settings())
    run = ledger.runs.open("manual", 600).run
    store.history.failure = ServerUnavailable("must not be asked")
    assert json.loads(call("runs", "--json").stdout)["runs"][0]["run_id"] == run
    assert call("runs", "show", run).exit_code == 0
    assert call("runs", "show", "x").exit_code == 2
    assert store.history.asked == 0


# -- metrics


class Scraped:
    """A collector whose status is set by hand."""

    def __init__(self) -> None:
        self.status = Status()
        registry = CollectorRegistry()
        registry.register(
            EnrichCollector(lambda: Reading(self.status, True, True), now=lambda: NOW)
        )
        self.registry = registry

    def __call__(self) -> dict[tuple[str, str], float]:
        return {
            (sample.name, ",".join(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(generate_latest(self.registry).decode())
            for sample in family.samples
        }

    def count(self, vectors: int, *, known: bool = True) -> float | None:
        took = Durations(within={"1": vectors, "+Inf": vectors}, seconds=vectors)
        self.status = Status(
            totals=TotalsReport(vectors=vectors, counts={"deferred": vectors}, run_durations=took),
            totals_known=known,
        )
        found = self()
        assert found.get(("enrich_run_duration_seconds_count", "")) == found.get(
            ("enrich_vectors_total", "")
        )
        return found.get(("enrich_vectors_total", ""))


def test_no_counter_falls() -> None:
    scraped = Scraped()
    assert [scraped.count(n) for n in (5, 90, 100)] == [5, 90, 100]
    # Emptied, and not known while the history does not answer: left out, not 0.
    assert scraped.count(0, known=False) is None
    # What the history had is ten less; the next is counted at once.
    assert [scraped.count(n) for n in (90, 91)] == [100, 101]
    # Without a history it begins again.
    assert [scraped.count(n) for n in (0, 7, 7)] == [101, 108, 108]
    assert scraped()["enrich_documents_total", "deferred"] == 108


def test_what_is_counted_has_a_metric() -> None:
    scraped = Scraped()
    counts = {
        "embedded": 6, "cached": 2, "deferred": 1, "api_requests": 3, "api_inputs": 7,
        "api_tokens": 70, "retries": 4, "rate_limited": 5, "paused_ms": 2500, "chunks": 8,
    }  # fmt: skip
    took = Durations(within={"1": 1, "60": 3, "+Inf": 4}, seconds=99.5)
    scraped.status = Status(
        totals=TotalsReport(
            ended={"finished": 3, "halted": 1}, counts=counts, spent_usd=1.5,
            run_durations=took, chunk_durations=took,
        ),
        history=HistoryReport(
            is_kept=True, owed=2, lag_seconds=30,
            month=DaySums(runs=1, api_inputs=10, cached=5, runs_cost_usd=2, cost_usd=3),
        ),
        queues={"enrich.scan": 1, "enrich.embed": 9},
        cache_entries=12,
        backlog=Backlog(
            by_index={
                "a_2026_10": IndexBacklog(without_vector=2),
                "a_2026_11": IndexBacklog(without_vector=3),
                HOSTILE: IndexBacklog(without_vector=1),
                "b_2026_11": IndexBacklog(with_vector=1),
            },
            oldest_by_project=by_project(
                {"a_2026_10": "2026-11-29T11:59:00Z", "a_2026_11": "2026-11-29T11:00:00Z"}
            ),
        ),
    )  # fmt: skip
    expected = {
        ("enrich_runs_ended_total", "finished"): 3, ("enrich_runs_ended_total", "halted"): 1,
        ("enrich_runs_ended_total", "abandoned"): 0,
        ("enrich_documents_total", "embedded"): 6, ("enrich_documents_total", "gone"): 0,
        ("enrich_api_requests_total", ""): 3, ("enrich_api_inputs_total", ""): 7,
        ("enrich_api_tokens_total", ""): 70, ("enrich_retries_total", ""): 4,
        ("enrich_rate_limited_total", ""): 5, ("enrich_paused_seconds_total", ""): 2.5,
        ("enrich_chunks_total", ""): 8, ("enrich_cost_usd_total", ""): 1.5,
        ("enrich_cache_hit_ratio", ""): 0.25, ("enrich_cache_entries", ""): 12,
        ("enrich_run_duration_seconds_bucket", "60"): 3,
        ("enrich_run_duration_seconds_count", ""): 4,
        ("enrich_chunk_duration_seconds_sum", ""): 99.5,
        ("enrich_history_kept", ""): 1, ("enrich_history_lag_runs", ""): 2,
        ("enrich_history_lag_seconds", ""): 30, ("enrich_spent_month_usd", ""): 3,
        ("enrich_saved_month_usd", ""): 1,
        ("enrich_queue_messages", "enrich.embed"): 9,
        ("enrich_project_pending_logs", "a"): 5, ("enrich_project_pending_logs", "b"): 0,
        ("enrich_project_oldest_unvectorized_age_seconds", "a"): 3600,
        ("enrich_project_oldest_unvectorized_age_seconds", "b"): 0,
    }  # fmt: skip
    found = scraped()
    assert {key: found.get(key) for key in expected} == expected
    assert ("enrich_project_oldest_unvectorized_age_seconds", HOSTILE) not in found
    # In part, a sum would fall.
    assert scraped.status.history is not None
    scraped.status.history.problems = ["enrich-runs cannot be read"]
    assert ("enrich_spent_month_usd", "") not in scraped()


@pytest.mark.parametrize(
    ("local", "environment", "status"),
    [
        (True, {"HTTP_HOST": "localhost:9464"}, 200),
        (True, {"HTTP_HOST": "127.0.0.1"}, 200),
        (True, {"HTTP_HOST": "[::1]:9464"}, 200),
        (True, {"HTTP_HOST": ""}, 200),
        (True, {"HTTP_HOST": "evil.example:9464"}, 403),
        (True, {"HTTP_HOST": "127.0.0.1.evil.example"}, 403),
        (False, {"HTTP_HOST": "metrics.example"}, 200),
        (False, {"REQUEST_METHOD": "POST"}, 405),
        (False, {"PATH_INFO": "/"}, 404),
        (False, {"PATH_INFO": "/favicon.ico"}, 404),
        (False, {"PATH_INFO": "/metrics/\x00<script>"}, 404),
    ],
)
def test_the_one_path_of_metrics(local: bool, environment: dict[str, str], status: int) -> None:
    asked: dict[str, Any] = {"PATH_INFO": "/metrics", **environment}
    setup_testing_defaults(asked)
    begun: list[str] = []
    answer = routed(make_wsgi_app(Scraped().registry), local=local)
    body = b"".join(answer(asked, lambda status, headers: begun.append(status)))
    assert begun[0].startswith(str(status))
    assert (b"enrich_up" in body) is (status == 200) and b"<script>" not in body


@pytest.mark.parametrize("address", ["127.0.0.1", "203.0.113.1", "no such host", "\x1b[31m"])
def test_an_address_that_cannot_be_had_is_one_sentence(address: str) -> None:
    app = make_wsgi_app(Scraped().registry)
    refused = pytest.raises(SettingsError, match=r"--address .* --port .* cannot be listened on")
    with listening("127.0.0.1", 0, app) as first, refused:
        listening(address, first.server_port, app)

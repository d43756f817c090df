"""Flower's page, metrics, port rules and the workers' own page: without servers.

The page is rendered by Flower's real handlers and templates; Redis is a fake one, OpenSearch a stub
that counts how often it is asked.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fakeredis
import pytest
from flower import urls
from flower.app import rewrite_handler
from flower.options import default_options
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.options import OptionParser
from tornado.testing import bind_unused_port
from tornado.web import Application

from enrich.errors import ServerUnavailable
from enrich.flower.environment import api_is_open, prepare_environment
from enrich.flower.hosts import may_be_answered, watch
from enrich.flower.latest import Latest
from enrich.flower.mounting import guard, pages, permitted_address
from enrich.flower.page import Room
from enrich.flower.templating import Templates
from enrich.flower.view import INDICES_SHOWN, View
from enrich.history.reader import History
from enrich.ledger import Ledger, Scan
from enrich.ledger.in_memory import in_memory_ledger
from enrich.log_store.coverage import NO_SHARD, WHOLE, Counted, Gaps
from enrich.log_store.stats import Counts, Oldest
from enrich.models import COUNTERS, RunRecord
from enrich.setting_forms.loopback import is_loopback
from enrich.status.history import HistoryReport
from enrich.status.metrics import EnrichCollector
from enrich.status.overview import Overview, useful
from enrich.status.quota import QuotaReport
from enrich.status.reader import BACKLOG_SECONDS, LEDGER_SECONDS, Reading, StatusReader
from enrich.status.report import Backlog, IndexBacklog, Status, TotalsReport
from enrich.worker.inspect import counters
from enrich.worker.installation import top_level

HOSTILE = "<script>alert(1)</script>\"'&{{ 1 + 1 }}"
ESCAPED = "&lt;script&gt;alert(1)&lt;/script&gt;"
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


class Store:
    """As much of the log store as the status asks for; it may be down."""

    def __init__(self) -> None:
        self.stats = self
        self.asked = 0
        self.down = False
        self.gaps = WHOLE
        self.by_index = {"a_b_2026_11": {"with_vector": 5, "without_vector": 2, "failed": 1}}

    def counts(self) -> Counts:
        self.asked += 1
        if self.down:
            raise ServerUnavailable("OpenSearch cannot be reached")
        return Counts(by_index=self.by_index, gaps=self.gaps)

    def oldest(self) -> Counted[Oldest]:
        return Counted(Oldest(of_all="2026-11-22T11:59:00.000Z"))


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
def ledger(server: fakeredis.FakeServer) -> Iterator[Ledger]:
    connection = fakeredis.FakeRedis(server=server)
    yield Ledger(connection, "test:")
    server.connected = True
    connection.close()


def one_run(ledger: Ledger, **outcomes: int) -> str:
    """A finished run of one chunk."""
    run = ledger.runs.open("beat", 600).run
    scan = Scan(pending=[], update_only=[], unsorted=[])
    chunk = f"{run}:1:0"
    chunks = {chunk: sum(outcomes.values())}
    assert ledger.pages.register(run, 1, scan=scan, scan_done=True, chunks=chunks) == "registered"
    assert ledger.chunks.begin(chunk, "host/1", 120).verdict == "go"
    assert ledger.chunks.settle(chunk, outcomes)[0] == "settled"
    assert ledger.runs.finish(run) == "finished"
    return run


# -- the environment


def test_flower_finds_its_variables_in_dotenv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text(
        "FLOWER_PORT=7777\nFLOWER_ADDRESS=0.0.0.0\nFLOWER_BASIC_AUTH=\nOPENAI_API_KEY=x\n"
    )
    monkeypatch.chdir(tmp_path)
    environment = {"FLOWER_ADDRESS": "127.0.0.1", "FLOWER_READ_ONLY": "", "FLOWER_PORT": ""}
    config = top_level() / "flowerconfig.py"
    prepare_environment(config, environment)
    assert environment == {
        "FLOWER_ADDRESS": "127.0.0.1",
        "FLOWER_PORT": "7777",
        "FLOWER_CONF": str(config),
    }
    assert config.is_file()


# -- where it listens


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True),
        ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("192.168.0.7", False),
        ("flower.example", False), ("", False), ("localhost.example", False),
    ],
)  # fmt: skip
def test_is_loopback(address: str, loopback: bool) -> None:
    assert is_loopback(address) is loopback


@pytest.mark.parametrize(
    ("address", "basic_auth", "auth", "listens_on"),
    [
        ("", [], "", "127.0.0.1"),
        ("localhost", [], "", "localhost"),
        ("", ["u:p"], "", "127.0.0.1"),
        ("0.0.0.0", ["u:p"], "", "0.0.0.0"),
        ("10.0.0.1", [], ".*@example.org", "10.0.0.1"),
    ],
)
def test_permitted(address: str, basic_auth: list[str], auth: str, listens_on: str) -> None:
    assert permitted_address(address, basic_auth, auth) == listens_on


@pytest.mark.parametrize(
    ("address", "basic_auth", "named"),
    [
        ("0.0.0.0", [], "FLOWER_ADDRESS: 0.0.0.0"),
        ("::", [], "FLOWER_ADDRESS: ::"),
        ("flower.example", [], "FLOWER_ADDRESS"),
        ("", ["user"], "FLOWER_BASIC_AUTH"),
        ("", ["user:"], "FLOWER_BASIC_AUTH"),
        ("", [":secret-word"], "FLOWER_BASIC_AUTH"),
    ],
)
def test_refused(
    address: str, basic_auth: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        permitted_address(address, basic_auth, "")
    assert end.value.code == 2
    told = capsys.readouterr().err
    assert named in told and told.count("\n") == 1 and "secret-word" not in told


@pytest.mark.parametrize("arguments", [["--address="], [], ["--basic_auth="]])
def test_the_guard_sees_the_options_as_they_end_up(arguments: list[str]) -> None:
    options = OptionParser()
    options.define("address", default="", type=str)
    options.define("auth", default="", type=str)
    options.define("basic_auth", default=None, type=str, multiple=True)
    options.add_parse_callback(lambda: guard(options))
    options.parse_command_line(["flower", *arguments])
    assert options.address == "127.0.0.1"
    assert options.basic_auth == []


@pytest.mark.parametrize("value", ["true", "1", "YES", "on", "whatever"])
def test_an_api_without_login_is_refused(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLOWER_UNAUTHENTICATED_API", value)
    with pytest.raises(SystemExit) as end:
        guard(OptionParser())
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("enrich: FLOWER_UNAUTHENTICATED_API: ")
    assert not api_is_open({"FLOWER_UNAUTHENTICATED_API": "false"}) and not api_is_open({})


@pytest.mark.parametrize(
    ("host", "answered"),
    [
        ("127.0.0.1:5555", True), ("localhost:5555", True), ("LOCALHOST", True),
        ("[::1]:5555", True), ("[::1]", True), ("127.9.9.9", True),
        ("evil.example", False), ("evil.example:5555", False), ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False), ("evil.example#localhost", False), ("", False),
        ("10.0.0.1", False), ("0.0.0.0", False), ("[::]", False), ("2130706433", False),
    ],
)  # fmt: skip
def test_without_a_login_only_loopback_names_are_answered(host: str, answered: bool) -> None:
    assert may_be_answered(host, FlowerOptions(address="127.0.0.1")) is answered
    assert may_be_answered(host, FlowerOptions(basic_auth=["a:b"]))
    assert may_be_answered(host, FlowerOptions(auth=".*@example.org"))


PATHS = ("/enrichment", "/enrichment.json", "/metrics", "/workers", "/tasks", "/api/workers", "/",
         "/static/css/flower.css", "/healthcheck", "/nowhere")  # fmt: skip


@pytest.mark.parametrize("prefix", ["", "flower"])
def test_another_host_gets_nothing_and_a_stripped_prefix_comes_back(prefix: str) -> None:
    class Watched(Application):
        options = FlowerOptions(url_prefix=prefix)

    watch(Watched)  # type: ignore[arg-type]
    settings = {**urls.settings, "template_loader": Templates(urls.settings["template_path"])}
    handlers = pages(room_of(Status())) + urls.handlers
    if prefix:
        handlers = [rewrite_handler(handler, prefix) for handler in handlers]
        settings["static_url_prefix"] = f"/{prefix}/static/"
    application = Watched(handlers, **settings)
    for path in PATHS:
        answer = fetch(application, path, {"Host": "evil.example"})
        assert answer.code == 403 and b"FLOWER_BASIC_AUTH" in answer.body
    for path in {"/enrichment", f"/{prefix}/enrichment".replace("//", "/")}:
        answer = fetch(application, path, {"Host": "localhost"})
        assert answer.code == 200 and f'href="{"/" + prefix if prefix else ""}/enrichment"' in (
            answer.body.decode()
        )


# -- reading


def test_servers_are_asked_no_more_often_than_needed(ledger: Ledger) -> None:
    store, time = Store(), [0.0]
    reader = StatusReader(ledger, store, clock=lambda: time[0])  # type: ignore[arg-type]
    one_run(ledger, embedded=3)
    assert reader.read().status.totals.vectors == 3

    ledger.controls.pause()
    assert not reader.read().status.paused
    time[0] = LEDGER_SECONDS
    assert reader.read().status.paused
    assert store.asked == 1

    time[0] = BACKLOG_SECONDS
    store.down = True
    reading = reader.read()
    assert (reading.redis_up, reading.opensearch_up) == (True, False)
    assert reading.status.backlog is None
    assert reading.status.problems == ["OpenSearch cannot be reached"]
    # A failure is kept as well: a server in trouble is not asked by every browser.
    reader.read()
    assert store.asked == 2
    # What was kept is not changed by what was added for one answer.
    assert reader.read().status.problems == ["OpenSearch cannot be reached"]


def test_counts_in_part_are_shown_as_such_and_are_no_metric(ledger: Ledger) -> None:
    store = Store()
    store.gaps = Gaps(indices={"a_2026_01": NO_SHARD})
    reading = StatusReader(ledger, store).read()  # type: ignore[arg-type]
    assert reading.opensearch_up and reading.status.backlog is not None
    assert "only in part" in reading.status.problems[0]
    samples = scrape(reading.status)
    assert not [name for name, _ in samples if name == "enrich_backlog_logs"]
    assert samples["enrich_backlog_whole", ""] == 0
    assert samples["enrich_index_not_counted", "a_2026_01"] == 1
    assert samples["enrich_health", "counted_in_part"] == 1


def test_redis_down_leaves_the_backlog(server: fakeredis.FakeServer, ledger: Ledger) -> None:
    server.connected = False
    reading = StatusReader(ledger, Store()).read()  # type: ignore[arg-type]
    assert (reading.redis_up, reading.opensearch_up) == (False, True)
    assert reading.status.backlog is not None
    assert "Redis cannot be reached" in reading.status.problems[0]
    assert View(reading.status).word == "unknown"


# -- metrics


def scrape(status: Status, *, redis_up: bool = True) -> dict[tuple[str, str], float]:
    """(name, labels) → value, through the text format and a parser of it."""
    registry = CollectorRegistry()
    reading = Reading(status, redis_up, status.backlog is not None)
    registry.register(EnrichCollector(lambda: reading, now=lambda: NOW))
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def test_metrics() -> None:
    status = Status(
        totals=TotalsReport(runs=2, ticks_skipped=3, vectors=40, errors=5, messages_dropped=6),
        last_runs=[RunRecord(run_id="r", state="halted", embedded=7, deferred=1)],
        last_tick=NOW,
        spent_today_usd=0.25,
        spent_today_by_project={HOSTILE: 0.2, "b": 0.05},
        backlog=Backlog(
            with_vector=5,
            without_vector=2,
            failed=1,
            by_index={
                "a_2026_11": IndexBacklog(with_vector=5, without_vector=2, failed=1),
                HOSTILE: IndexBacklog(failed=9),
            },
            oldest_without_vector="2026-11-22T11:59:00.000Z",
        ),
    )
    samples = scrape(status)
    expected = {
        ("enrich_runs_total", ""): 2, ("enrich_vectors_total", ""): 40,
        ("enrich_errors_total", ""): 5, ("enrich_ticks_skipped_total", ""): 3,
        ("enrich_messages_dropped_total", ""): 6,
        ("enrich_active_run", ""): 0, ("enrich_paused", ""): 0, ("enrich_run_halted", ""): 1,
        ("enrich_run_outcomes", "embedded"): 7, ("enrich_run_outcomes", "deferred"): 1,
        ("enrich_run_outcomes", "gone"): 0, ("enrich_spent_today_usd", ""): 0.25,
        **{("enrich_run_counts", name): getattr(status.last_runs[0], name) for name in COUNTERS},
        ("enrich_spent_today_by_project_usd", HOSTILE): 0.2,
        ("enrich_spent_today_by_project_usd", "b"): 0.05,
        ("enrich_last_tick_timestamp_seconds", ""): NOW.timestamp(),
        ("enrich_backlog_logs", "a_2026_11,with_vector"): 5,
        ("enrich_backlog_logs", "a_2026_11,without_vector"): 2,
        ("enrich_backlog_logs", f"{HOSTILE},failed"): 9,
        ("enrich_oldest_unvectorized_age_seconds", ""): 60,
        ("enrich_up", "redis"): 1, ("enrich_up", "opensearch"): 1, ("enrich_backlog_whole", ""): 1,
    }  # fmt: skip
    assert {key: samples.get(key) for key in expected} == expected


def test_what_is_not_known_is_not_given_as_zero() -> None:
    assert scrape(Status(), redis_up=False) == {
        ("enrich_up", "redis"): 0,
        ("enrich_up", "opensearch"): 0,
    }


@pytest.mark.parametrize(
    ("without", "oldest", "age"),
    [
        (0, None, 0.0),
        (1, None, None),
        (1, "2026-11-22T11:00:00.000Z", 3600.0),
        (1, "2026-11-22T11:00:00", 3600.0),
        (1, "2026-11-23T11:00:00.000Z", 0.0),
        (1, "+12026-11-23T11:00:00.000Z", None),
    ],
)
def test_age_of_the_oldest(without: int, oldest: str | None, age: float | None) -> None:
    backlog = Backlog(without_vector=without, oldest_without_vector=oldest)
    samples = scrape(Status(backlog=backlog))
    assert samples.get(("enrich_oldest_unvectorized_age_seconds", "")) == age


# -- the page


def run(number: int = 1, **fields: Any) -> RunRecord:
    fields.setdefault("state", "finished")
    return RunRecord(run_id=f"r{number}", number=number, started_at=NOW, **fields)


@pytest.mark.parametrize(
    ("status", "word", "says"),
    [
        (Status(), "waiting", "No run yet"),
        (Status(problems=["Redis is full"], paused=True), "unknown", "Redis"),
        (Status(problems=["OpenSearch is gone"], last_runs=[run()]), "idle", "next tick"),
        (Status(paused=True, active_run=run(state="running")), "paused", "resume"),
        (Status(active_run=run(state="running"), last_runs=[run()]), "running", "active"),
        (Status(last_runs=[run(state="halted", halt_reason="no quota")]), "halted", "no quota"),
        (Status(last_runs=[run(state="halted")]), "halted", "no reason"),
        (Status(active_run=run(state="halted", halt_reason="401")), "halted", "stopped: 401"),
        (Status(last_runs=[run(more=True)]), "idle", "left work"),
        (Status(last_runs=[run(more=True, stopped_by="budget")]), "idle", "ENRICH_MAX_COST"),
        (Status(last_runs=[run(), run(state="halted")]), "idle", "next tick"),
    ],
)
def test_the_state_in_words(status: Status, word: str, says: str) -> None:
    view = View(status)
    assert view.word == word
    assert says in view.sentence


def test_indices_with_most_to_do_come_first_and_not_too_many() -> None:
    by_index = {f"i{n:04}": IndexBacklog(without_vector=n % 7, failed=n % 3) for n in range(250)}
    view = View(Status(backlog=Backlog(by_index=by_index)))
    keys = [(-counts.without_vector, -counts.failed, name) for name, counts in view.indices]
    assert keys == sorted(keys) and len(keys) == INDICES_SHOWN
    assert view.indices_left_out == 250 - INDICES_SHOWN


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [(0, 0, "0"), (1, 3, "33.3"), (99_999, 100_000, "99.9"), (5, 5, "100")],
)
def test_percent(part: int, whole: int, shown: str) -> None:
    assert View.percent(part, whole) == shown


def test_clock_and_money() -> None:
    assert View.clock("2026-11-22T11:00:00.000+09:00") == "2026-11-22 02:00:00"
    assert View.clock(None) == "–"
    assert View.clock("year 12000") == "year 12000"
    assert (View.usd(0), View.usd(0.00031), View.usd(1234.5)) == ("$0.0000", "$0.0003", "$1,234.50")


def room_of(status: Status, **parts: Any) -> Room:
    """What the handlers share, where one status is all that is ever read."""
    overview = Overview(status=status, runs=useful(status.last_runs), **parts)

    history = History(in_memory_ledger(), None)
    return Room(Latest(lambda: overview, lambda: None), history)


class FlowerOptions:
    """Flower's options, some of them changed."""

    def __init__(self, **changed: Any) -> None:
        self._changed = changed

    def __getattr__(self, name: str) -> Any:
        return self._changed[name] if name in self._changed else getattr(default_options, name)


def get(status: Status, path: str, **options: Any) -> HTTPResponse:
    """One request to our pages within Flower's own."""
    settings = {**urls.settings, "template_loader": Templates(urls.settings["template_path"])}
    application = Application(pages(room_of(status)) + urls.handlers, **settings)
    application.options = FlowerOptions(**options)  # type: ignore[attr-defined]
    return fetch(application, path)


def fetch(
    application: Application, path: str, headers: dict[str, str] | None = None, **more: Any
) -> HTTPResponse:
    """One request; a redirect is an answer."""

    async def ask() -> HTTPResponse:
        server = HTTPServer(application)
        socket, port = bind_unused_port()
        server.add_socket(socket)
        client = AsyncHTTPClient(force_instance=True)
        try:
            return await client.fetch(
                f"http://127.0.0.1:{port}{path}",
                raise_error=False,
                headers=headers,
                follow_redirects=False,
                **more,
            )
        finally:
            client.close()
            server.stop()
            await server.close_all_connections()

    return asyncio.run(ask())


def test_page_shows_every_part() -> None:
    active = run(
        7, state="running", found=1200, embedded=800, cached=34, vectors_written=834,
        duration_seconds=10.0, chunks=12, chunks_open=4, api_tokens=4567,
        skipped_indices={"a_float_2026_11": "log_vector is mapped as float"},
    )  # fmt: skip
    halted = run(6, state="halted", halt_reason="quota exhausted", found=10, deferred=10)
    status = Status(
        totals=TotalsReport(runs=7, ticks_skipped=2, vectors=98_765, errors=4, average_rate=123.5),
        active_run=active,
        last_runs=[active, halted],
        last_tick=NOW,
        quota=QuotaReport(requests_per_minute=3_000, requests_used=0.47, paused_seconds=9.5),
        backlog=Backlog(
            with_vector=98_765,
            without_vector=834,
            failed=3,
            by_index={"a_b_2026_11": IndexBacklog(with_vector=98_765, without_vector=834)},
        ),
    )
    answer = get(status, "/enrichment")
    page = answer.body.decode()
    assert answer.code == 200
    # For who has no JavaScript; whoever has it gets what changed.
    assert '<noscript><meta http-equiv="refresh" content="10"></noscript>' in page
    assert "Refresh" not in answer.headers
    for shown in (
        "98,765", "834", "123.5", "Active run #7", "1,200", "4 <small>of 12", "4,567", "10 s",
        "3,000", "47 % used within the last minute", "no limit is known", "9.5 s</strong> left",
        "a_float_2026_11", "log_vector is mapped as float", "quota exhausted", "2026-11-22 12:00",
        "Already vectorized", "a_b_2026_11",
    ):  # fmt: skip
        assert shown in page, shown


def test_each_limit_says_whose_word_it_is() -> None:
    quota = QuotaReport(requests_per_minute=3_000, tokens_per_minute=1_000_000, tokens_learned=True)
    page = get(Status(quota=quota), "/enrichment").body.decode()
    assert "3,000 <small>as set</small>" in page
    assert "1,000,000 <small>as the provider says</small>" in page


def test_page_of_nothing() -> None:
    page = get(Status(problems=["OpenSearch cannot be reached"]), "/enrichment").body.decode()
    assert "No run yet" in page
    assert "OpenSearch cannot be reached" in page
    assert "Not known while OpenSearch does not answer" in page


def test_names_and_reasons_are_text_and_never_markup() -> None:
    hostile = run(state="halted", halt_reason=HOSTILE, skipped_indices={HOSTILE: HOSTILE})
    status = Status(
        last_runs=[hostile],
        problems=[HOSTILE],
        history=HistoryReport(owed=1, lag_seconds=9999, unwritten=HOSTILE, problems=[HOSTILE]),
        backlog=Backlog(by_index={HOSTILE: IndexBacklog(without_vector=1)}, without_vector=1),
    )
    page = get(status, "/enrichment").body.decode()
    assert "<script>alert" not in page
    # In the health: problem, halt reason, skipped index and its reason, why the history is behind;
    # then halt reason twice, the history's problem, skipped index and its reason, index of the
    # backlog and of its bar.
    assert page.count(ESCAPED) == 12
    assert page.count("{{ 1 + 1 }}") == 12


def test_json_is_the_status() -> None:
    status = Status(last_runs=[run(halt_reason=HOSTILE)], spent_today_usd=1.5)
    answer = get(status, "/enrichment.json")
    assert answer.headers["Content-Type"].startswith("application/json")
    assert Status.model_validate(json.loads(answer.body)) == status


@pytest.mark.parametrize("path", ["/enrichment", "/enrichment.json", "/metrics", "/workers"])
def test_who_may_see_flower_may_see_the_page_and_nobody_else(path: str) -> None:
    assert get(Status(), path, basic_auth=["user:word"]).code == 401


def test_refresh_can_be_turned_off() -> None:
    answer = get(Status(), "/enrichment", auto_refresh=False)
    assert "Refresh" not in answer.headers
    assert "http-equiv" not in answer.body.decode() and "enrichment.js?" not in answer.body.decode()


def test_the_link_is_in_flowers_navigation() -> None:
    page = get(Status(), "/broker-that-is-not-there").body.decode()
    assert 'href="/enrichment"' in page and page.count("nav-link") >= 4


def test_a_navigation_of_another_make_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "navbar.html").write_text("<nav></nav>")
    assert Templates(str(tmp_path)).load("navbar.html").generate() == b"<nav></nav>"


# -- the worker's own page


def test_counters_of_the_workers_page(server: fakeredis.FakeServer, ledger: Ledger) -> None:
    assert counters(ledger)["enrichment last run"] == "none yet"
    one_run(ledger, embedded=1000, cached=234, failed=1)
    told = counters(ledger)
    assert told["enrichment totals"].startswith("1 runs, 1,234 vectors, ")
    assert told["enrichment last run"] == (
        "#1 finished: 1235 found: 1000 embedded, 234 cached, 1 failed"
    )
    server.connected = False
    assert "Redis cannot be reached" in counters(ledger)["enrichment"]

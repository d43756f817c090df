"""The command line without servers: exit statuses, sentences, shapes of JSON, what is escaped."""

from __future__ import annotations

import json
import os
import re
import socket
import string
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import fakeredis
import jsonschema
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from enrich import redis_client, wiring
from enrich.cli import app, json_forms, runs, screen
from enrich.cli.check import Check
from enrich.cli.checks.redis_and_workers import look_at_deployment, memory_lines
from enrich.cli.run_follower import Following, Pace, Paused, Progress, exit_status, sum_of
from enrich.cli.screen import MAX_SKIPPED
from enrich.cli.status import _print_backlog, _print_runs, watch
from enrich.errors import AccessRefused, EnrichError, ServerUnavailable
from enrich.history.in_memory import InMemoryRunHistory
from enrich.ledger import Ledger, Scan, deployment
from enrich.ledger.deployment import Configuration, Deployment, WorkerNote
from enrich.log_store.connection import decode
from enrich.log_store.coverage import NO_SHARD, WHOLE, Counted, Gaps
from enrich.log_store.stats import Counts, Oldest
from enrich.log_store.wholeness import Item, objection
from enrich.models import RunRecord
from enrich.settings import Settings, load_settings
from enrich.status.failed_logs import matches
from enrich.status.report import Backlog, IndexBacklog, Status
from enrich.worker.remote import NoWorker

IN_PART = Gaps(indices={"a_2026_01": NO_SHARD})
MISSING = "not counted: index a_2026_01 (not every shard answers (red index))"
SCHEMAS = json_forms.schemas()
NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
ROOT = Path(__file__).parent.parent.parent


class Store:
    """Stands in for the log store: what it has failed, and whether it answers."""

    def __init__(self) -> None:
        self.down = False
        self.gaps = WHOLE
        self.failed: list[dict[str, Any]] = []
        self.by_index = {"p_2026_11": {"with_vector": 3, "without_vector": 2, "failed": 1}}
        self.stats = self
        self.documents = self
        self.history = InMemoryRunHistory()

    def close(self) -> None:
        pass

    def _answer(self) -> None:
        if self.down:
            raise ServerUnavailable("OpenSearch cannot be reached: check OPENSEARCH_HOST")

    def counts(self) -> Counts:
        self._answer()
        return Counts(by_index=self.by_index, gaps=self.gaps)

    def oldest(self) -> Counted[Oldest]:
        return Counted(Oldest(of_all="2026-11-01T00:00:00.000Z"))

    def failures(self, index: str | None, size: int) -> Counted[list[dict[str, Any]]]:
        self._answer()
        rows = [row for row in self.failed if matches(row["index"], index)][:size]
        return Counted(rows, self.gaps)

    def matching(self, index: str) -> list[str]:
        return [name for name in self.by_index if matches(name, index)]

    def closed(self, index: str) -> list[str]:
        return []

    def unmark(self, references: list[Any]) -> int:
        assert len(references) <= 1000
        gone = {r.id for r in references if r.index != "blocked_2026_11"}
        before = len(self.failed)
        self.failed = [row for row in self.failed if row["id"] not in gone]
        return before - len(self.failed)

    def nearest(self, vector: list[float], k: int, index: str | None) -> list[dict[str, Any]]:
        raise AssertionError("nothing was to be searched")


class Workers:
    """Stands in for the broker: who listens, and what was published."""

    present = True
    sent: list[tuple[Any, ...]] = []  # noqa: RUF012

    def require(self) -> None:
        if not Workers.present:
            raise NoWorker("no worker answers: start one")

    def scan_page(self, run: str, page: int) -> None:
        Workers.sent.append(("scan_page", run, page))

    def finish_run(self, run: str) -> None:
        Workers.sent.append(("finish_run", run))


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.upper() in {field.upper() for field in Settings.model_fields}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    made = Store()
    monkeypatch.setattr(wiring, "build_store", lambda settings: made)
    return made


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    server = fakeredis.FakeServer()
    monkeypatch.setattr(redis_client, "connect", lambda url: fakeredis.FakeRedis(server=server))
    Workers.present = True
    Workers.sent = []
    monkeypatch.setattr(runs, "Workers", Workers)
    yield wiring.build_ledger(load_settings())


def call(*arguments: str, input: str | None = None) -> Result:
    result = CliRunner().invoke(app, arguments, input=input)
    told = json_told(arguments, result.stdout)
    if told is not None:
        jsonschema.validate(told, SCHEMAS[command_of(arguments)])
    return result


def command_of(arguments: Sequence[str]) -> str:
    return "runs show" if arguments[:2] == ("runs", "show") else arguments[0]


def json_told(arguments: Sequence[str], stdout: str) -> Any:
    """What a command that was asked for JSON printed; None if it printed none."""
    return json.loads(stdout) if "--json" in arguments and stdout else None


# -- bad use and settings


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"OPENAI_API_KEY": ""}, "OPENAI_API_KEY is not set"),
        ({"OPENSEARCH_PORT": "x"}, "OPENSEARCH_PORT"),
        ({"REDIS_URL": "http://x"}, "REDIS_URL: must be a URL that starts with redis://"),
        ({"ENRICH_MAX_COST_PER_DAY": "1", "EMBEDDING_MODEL": "own"}, "ENRICH_PRICE_PER_MILLION"),
    ],
)
@pytest.mark.parametrize("command", ["status", "run", "check", "pause", "failures", "template"])
def test_wrong_settings_end_with_2_and_name_the_variable(
    command: str, variables: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    result = call(command)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["search"],
        ["search", "words", "--k", "0"],
        ["failures", "--index", "a b"],
        ["failures", "--index", "../_cluster"],
        ["failures", "--index", "_all"],
        ["template", "--apply", "--name", "a/b"],
    ],
)
def test_bad_use_ends_with_2(arguments: list[str]) -> None:
    assert call(*arguments).exit_code == 2


def test_help_tells_exit_statuses_examples_and_the_version() -> None:
    told = " ".join(call("--help").stdout.split())
    assert "Exit status: 0 done" in told and "3 a server cannot be reached" in told
    for command in ("check", "run", "status", "failures", "retry-failed", "search", "template"):
        assert f"Example: python -m enrich {command}" in call(command, "--help").stdout
    assert call("--version").stdout.startswith("enrich ") and call("--version").exit_code == 0


def test_search_takes_words_without_quotes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        import_module("enrich.cli.search"),
        "show",
        lambda s, words, *_, **__: asked.append(words) or 0,
    )
    assert call("search", "payment", "declined", "-k", "3").exit_code == 0
    assert asked == ["payment declined"]


def test_search_for_nothing_ends_with_2(store: Store) -> None:
    result = call("search", "  ")
    assert result.exit_code == 2
    assert "the words are empty" in result.stderr


@pytest.mark.usefixtures("ledger")
def test_nobody_to_ask_ends_with_2(store: Store) -> None:
    store.failed = [_failed("p_2026_11", "1")]
    result = call("retry-failed")
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert store.failed


def test_screens_without_work_load_neither_celery_nor_openai() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from enrich.cli import app;"
        "CliRunner().invoke(app, ['status']); assert 'enrich.ledger' in sys.modules;"
        "print(sorted({'celery', 'kombu', 'openai', 'flower'} & set(sys.modules)))"
    )
    # Port 1 refuses at once.
    servers = {"OPENSEARCH_PORT": "1", "REDIS_URL": "redis://127.0.0.1:1/0"}
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **servers, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == "[]"


# -- status


def test_status_json_is_the_report(store: Store, ledger: Ledger) -> None:
    run = ledger.runs.open("manual", 600).run
    result = call("status", "--json")
    assert result.exit_code == 0
    status = Status.model_validate_json(result.stdout)
    assert status.active_run is not None and status.active_run.run_id == run
    assert status.backlog is not None and status.backlog.without_vector == 2
    assert status.totals.runs == 1
    assert {"totals", "last_runs", "active_run", "backlog", "paused"} <= json.loads(
        result.stdout
    ).keys()


@pytest.mark.usefixtures("store")
def test_status_tells_of_dropped_messages(ledger: Ledger) -> None:
    assert "not sent by enrich" not in call("status").stdout
    ledger.counters.add_rejected_message()
    assert "dropped from the broker, not sent by enrich: 1 message" in call("status").stdout
    ledger.counters.add_rejected_message()
    assert "not sent by enrich: 2 messages" in call("status").stdout
    assert json.loads(call("status", "--json").stdout)["totals"]["messages_dropped"] == 2


def test_status_is_looked_at_again_until_it_is_stopped(
    store: Store,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    looks = []

    def wait(seconds: float) -> None:
        looks.append(seconds)
        ledger.controls.pause()
        if len(looks) == 2:
            raise KeyboardInterrupt

    assert watch(load_settings(), as_json=True, wait=wait) == 3
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["paused"] for line in lines] == [False, True]


def test_workers_are_told_with_what_they_do(store: Store, ledger: Ledger) -> None:
    nobody = call("workers", "--json")
    assert (nobody.exit_code, json.loads(nobody.stdout)) == (1, [])
    assert "`celery -A enrich worker` starts one" in call("workers").stderr
    note = replace(_note("celery"), name="celery@host\x1b[2J", processes=8)
    ledger.deployment.note_worker(note)
    told = call("workers")
    assert told.exit_code == 0
    assert "waits for work" in told.stdout and "8" in told.stdout and "\x1b" not in told.stdout
    (one,) = json.loads(call("workers", "--json").stdout)
    assert (one["pid"], one["alive"], one["chunks"]) == (7, True, [])


def test_status_has_a_section_for_consumers_where_there_are_any(ledger: Ledger) -> None:
    assert "Real time" not in call("status").stdout
    ledger.realtime.count("group-1", errors=1)
    assert "Real time: consumers of group group-1" in call("status").stdout
    assert json.loads(call("status", "--json").stdout)["realtime"][0]["group"] == "group-1"


def test_status_shows_redis_when_opensearch_is_down(store: Store, ledger: Ledger) -> None:
    store.down = True
    ledger.runs.open("beat", 600)
    result = call("status")
    assert result.exit_code == 3
    assert "OpenSearch cannot be reached" in result.stderr
    assert "#1" in result.stdout and "ERROR logs" not in result.stdout
    as_json = call("status", "--json")
    assert as_json.exit_code == 3
    assert json.loads(as_json.stdout)["backlog"] is None


def test_status_shows_opensearch_when_redis_is_down(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    result = call("status")
    assert result.exit_code == 3
    assert "Redis cannot be reached" in result.stderr
    assert "p_2026_11" in result.stdout and "Totals" not in result.stdout


@pytest.mark.usefixtures("ledger")
def test_status_without_a_terminal_is_plain(store: Store) -> None:
    store.by_index["\x1b[31mevil[bold]_2026_11"] = {
        "with_vector": 0,
        "without_vector": 0,
        "failed": 0,
    }
    result = call("status")
    assert "\x1b" not in result.stdout
    assert "evil[bold]_2026_11" in result.stdout


@pytest.mark.usefixtures("store")
def test_status_tells_who_uses_up_the_day(ledger: Ledger) -> None:
    ledger.counters.add(
        "r", micro_usd=3_000_000, paid_by={"pay": 2_000_000, "\x1b[31mevil": 1_000_000}
    )
    shown = call("status").stdout
    assert "$3.00 spent today" in shown
    assert "spent most today: pay $2.00, evil $1.00" in shown
    told = json.loads(call("status", "--json").stdout)
    assert list(told["spent_today_by_project"].values()) == [2.0, 1.0]


def test_status_tells_of_counts_in_part(store: Store, ledger: Ledger) -> None:
    store.gaps = IN_PART
    result = call("status")
    assert result.exit_code == 3
    assert "only in part" in result.stderr and "p_2026_11" in result.stdout
    assert f"only in part: at least 6; {MISSING}" in result.stderr
    assert f"Degraded: OpenSearch counted the ERROR logs only in part: at least 6; {MISSING}" in (
        result.stdout
    )
    assert f"at least 6 ERROR logs; {MISSING}" in result.stdout
    assert "without a vector, of those counted: 2026-11-01" in result.stdout

    told = json.loads(call("status", "--json").stdout)
    assert told["backlog"]["whole"] is False
    assert told["backlog"]["not_counted"] == {"a_2026_01": "not every shard answers (red index)"}
    assert any(MISSING in problem for problem in told["problems"])


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize("marked", [0, 2])
def test_failures_tells_of_counts_in_part(store: Store, marked: int) -> None:
    store.gaps = IN_PART
    store.failed = [_failed("p_2026_11", str(n)) for n in range(marked)]
    result = call("failures")
    assert (result.exit_code, MISSING in result.stderr) == (3, True)
    said = f"at least {marked} logs cannot be" if marked else "no log that was counted is marked"
    assert said in result.stdout

    result = call("failures", "--json")
    assert (result.exit_code, MISSING in result.stderr) == (3, True)
    assert len(json.loads(result.stdout)) == marked

    result = call("retry-failed", "--yes")
    assert (result.exit_code, MISSING in result.stderr) == (3, True)
    assert "no log is marked failed" not in result.stdout


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("stopped_by", "says"),
    [("budget", "goes on after midnight UTC"), ("cap", "the next tick takes more"), ("", "")],
)
def test_status_tells_why_the_last_run_left_logs(
    ledger: Ledger, stopped_by: str, says: str
) -> None:
    run = _with_open_chunk(ledger, stopped_by=stopped_by)
    assert "left logs" not in call("status").stdout
    ledger.chunks.begin(f"{run}:1:0", "host/1", 120)
    ledger.chunks.settle(f"{run}:1:0", {"embedded": 7})
    ledger.runs.finish(run)
    shown = call("status").stdout
    assert ("#1 left logs" in shown) is bool(says) and says in shown
    assert json.loads(call("status", "--json").stdout)["last_runs"][0]["stopped_by"] == stopped_by


@pytest.mark.usefixtures("store")
def test_status_names_a_few_skipped_indices_of_the_newest_run(ledger: Ledger) -> None:
    for index in ("older_2026_10", "newer_2026_11"):
        run = ledger.runs.open("manual", 600).run
        for n in range(MAX_SKIPPED + 5):
            ledger.runs.skip(run, f"{index}_{n:02}", "index.knn is not set")
        ledger.runs.halt(run, "")
        ledger.runs.finish(run)
    shown = call("status").stdout
    assert shown.count("index.knn is not set") == MAX_SKIPPED
    assert "older_2026_10" not in shown and "5 more indices were skipped" in shown


def test_time_left_is_of_what_the_run_does_not_skip() -> None:
    left = Status(
        active_run=RunRecord(
            run_id="a", duration_seconds=1, vectors_written=100, skipped_indices={"b": "red"}
        ),
        backlog=Backlog(
            without_vector=1_000_500,
            by_index={
                "a": IndexBacklog(without_vector=500),
                "b": IndexBacklog(without_vector=1_000_000),
            },
        ),
    ).seconds_left
    assert left == 5


# -- run, pause, resume, cancel


@pytest.mark.usefixtures("store")
def test_run_opens_and_publishes(ledger: Ledger) -> None:
    result = call("run", "--json")
    assert result.exit_code == 0
    run = ledger.runs.active()
    record = json.loads(result.stdout)
    assert record["run_ids"] == [run]
    assert record["trigger"] == "manual"
    assert Workers.sent == [("scan_page", run, 1)]


@pytest.mark.usefixtures("store")
def test_run_without_a_worker_ends_with_3_and_opens_nothing(ledger: Ledger) -> None:
    Workers.present = False
    result = call("run")
    assert result.exit_code == 3
    assert "no worker answers" in result.stderr
    assert ledger.runs.active() == ""
    assert ledger.records.totals().runs == 0


@pytest.mark.usefixtures("store")
def test_run_says_that_one_is_active(ledger: Ledger) -> None:
    run = ledger.runs.open("beat", 600).run
    result = call("run")
    assert result.exit_code == 0
    assert f"run #1 ({run}) is active" in result.stdout
    assert Workers.sent == []


@pytest.mark.usefixtures("store")
def test_run_while_paused_ends_with_2(ledger: Ledger) -> None:
    assert call("pause").exit_code == 0
    result = call("run")
    assert result.exit_code == 2
    assert "resume" in result.stderr
    assert ledger.runs.active() == ""


def test_resume_starts_a_run_that_stands_still(ledger: Ledger) -> None:
    run = ledger.runs.open("manual", 600).run
    ledger.controls.pause()
    result = call("resume")
    assert result.exit_code == 0, result.output
    assert not ledger.controls.paused()
    assert Workers.sent == [("scan_page", run, 1)]


def test_cancel_defers_what_is_open(ledger: Ledger) -> None:
    run = _with_open_chunk(ledger)
    result = call("cancel")
    assert result.exit_code == 0
    assert "0 of 7 logs were done, 7 are left" in result.stdout
    assert Workers.sent == [("finish_run", run)]
    record = ledger.records.of(run)
    assert (record.state, record.halt_reason, record.deferred) == ("abandoned", "cancelled", 7)


def test_cancel_without_a_worker_closes_the_run_itself(store: Store, ledger: Ledger) -> None:
    run = _with_open_chunk(ledger)
    Workers.present = False
    assert call("cancel").exit_code == 0
    assert ledger.runs.active() == ""
    assert store.history.records[run].state == "abandoned"
    assert "no run is active" in call("cancel").stdout


# -- failures


def test_failures_as_json(store: Store, ledger: Ledger) -> None:
    store.failed = [_failed("p_2026_11", "1"), _failed("q_2026_11", "2")]
    ledger.refused.record("p_2026_11", "3", "mapping_refuses")
    rows = json.loads(call("failures", "--json").stdout)
    assert {row["id"] for row in rows} == {"1", "2", "3"}
    assert all(row.keys() == {"index", "id", "routing", "error", "since", "run"} for row in rows)
    rows = json.loads(call("failures", "--json", "--index", "p_*").stdout)
    assert {row["id"] for row in rows} == {"1", "3"}


@pytest.mark.usefixtures("ledger")
def test_failures_on_the_screen(store: Store) -> None:
    assert "no log is marked failed" in call("failures").stdout
    store.failed = [_failed("p_2026_11", f"doc\x1b]0;x\x07{n}") for n in range(40)]
    result = call("failures")
    assert result.exit_code == 0
    assert "40 logs cannot be embedded" in result.stdout
    assert "message is empty or blank" in result.stdout
    assert "doc39" not in result.stdout and "--json lists all" in result.stdout
    assert "\x1b" not in result.stdout and "doc7" in result.stdout


def test_retry_takes_off_more_than_one_round(store: Store, ledger: Ledger) -> None:
    store.failed = [_failed(f"p{n % 2}_2026_11", str(n)) for n in range(4300)]
    ledger.refused.record("p_2026_11", "x", "mapping_refuses")
    result = call("retry-failed", "--yes")
    assert result.exit_code == 0
    assert "4,301 logs are back in line" in result.stdout
    assert store.failed == [] and ledger.refused.all() == {}


def test_retry_of_one_index_leaves_the_others(store: Store, ledger: Ledger) -> None:
    store.failed = [_failed("p_2026_11", "1"), _failed("q_2026_11", "2")]
    ledger.refused.record("q_2026_11", "3", "mapping_refuses")
    assert "1 logs are back" in call("retry-failed", "-y", "--index", "p_2026_11").stdout
    assert [row["id"] for row in store.failed] == ["2"]
    assert len(ledger.refused.all()) == 1


@pytest.mark.usefixtures("ledger")
def test_retry_names_an_index_that_takes_no_writes(store: Store) -> None:
    store.failed = [_failed("blocked_2026_11", "1"), _failed("q_2026_11", "2")]
    result = call("retry-failed", "--yes")
    assert result.exit_code == 1
    assert "blocked_2026_11" in result.stderr
    assert "1 logs are back" in result.stdout


# -- template


def test_template_is_json_on_stdout() -> None:
    template = json.loads(call("template").stdout)
    properties = template["template"]["mappings"]["properties"]
    assert properties["log_vector"]["dimension"] == 1536
    patterns = template["index_patterns"]
    assert [f"{initial}*_*" for initial in string.ascii_lowercase + string.digits] == patterns


# -- following


class Quiet:
    def require(self) -> None:
        return


def _following(
    ledger: Ledger, act: list[Any], workers: Any = None
) -> tuple[Following, list[Progress]]:
    """A follower whose sleeps are the world's moves, one after the other, a second each."""
    shown: list[Progress] = []
    clock = [0.0]

    def sleep(_: float) -> None:
        clock[0] += 1
        if act:
            act.pop(0)()

    following = Following(
        ledger, workers or Quiet(), {"p_2026_11": 7}, shown.append, sleep=sleep,
        now=lambda: clock[0],
    )  # fmt: skip
    return following, shown


def test_following_sums_runs_that_continue_each_other(ledger: Ledger) -> None:
    first = _with_open_chunk(ledger, stopped_by="time")
    second: list[str] = []

    def go_on() -> None:
        second.append(_with_open_chunk(ledger, trigger="continued"))

    following, shown = _following(
        ledger,
        [
            lambda: ledger.chunks.settle(f"{first}:1:0", {"embedded": 5, "failed": 2}),
            lambda: ledger.runs.finish(first),
            lambda: None,
            go_on,
            lambda: ledger.chunks.settle(f"{second[0]}:1:0", {"cached": 7}),
            lambda: ledger.runs.finish(second[0]),
        ],
    )
    total = following.follow(first)
    assert total.run_ids == [first, second[0]]
    assert (total.found, total.embedded, total.cached, total.failed) == (14, 5, 7, 2)
    assert (total.vectors_written, total.state, total.more) == (12, "finished", False)
    assert total.number == 1 and total.trigger == "manual"
    assert exit_status(total) == 1
    assert (shown[-1].settled, shown[-1].total) == (14, 14)
    assert shown[1].rate == 7 and shown[1].seconds_left == 0


def test_deferred_logs_are_no_progress(ledger: Ledger) -> None:
    run = _with_open_chunk(ledger)
    chunk = f"{run}:1:0"
    following, shown = _following(
        ledger,
        [
            lambda: None,
            lambda: ledger.chunks.settle(
                chunk, {"embedded": 1, "deferred": 6}, 0, {"no answer": 6}
            ),
            lambda: ledger.runs.finish(run),
        ],
    )
    total = following.follow(run)
    last = shown[-1]
    assert (last.settled, last.deferred, last.total) == (1, 6, 7)
    assert last.rate <= 1 and last.seconds_left == 0
    assert total.deferral_reasons == {"no answer": 6} and exit_status(total) == 3


def test_the_time_left_is_not_of_the_slow_start() -> None:
    pace = Pace()
    # Twenty seconds of nothing, ten logs in ten seconds, then a hundred a second.
    counts = [0] * 20 + list(range(1, 11)) + [10 + 100 * n for n in range(1, 31)]
    rates = []
    for second, done in enumerate(counts):
        pace.see(float(second), done)
        rates.append(pace.rate)
    assert rates[19] == 0 and rates[25] == 1
    assert rates[-1] == 100
    assert not Pace().steady and pace.steady
    unsteady = Progress(number=1, settled=1, total=2771, rate=1, steady=False)
    assert unsteady.seconds_left is None


def test_reasons_of_runs_that_continue_each_other_are_added() -> None:
    one = RunRecord(run_id="a", deferral_reasons={"x": 1}, retry_reasons={"y": 2})
    two = RunRecord(run_id="b", deferral_reasons={"x": 3, "z": 1})
    total = sum_of([one, two])
    assert total.deferral_reasons == {"x": 4, "z": 1} and total.retry_reasons == {"y": 2}


def test_following_ends_where_a_cap_ended_the_run(ledger: Ledger) -> None:
    run = _with_open_chunk(ledger, stopped_by="cap")
    ledger.chunks.settle(f"{run}:1:0", {"embedded": 7})
    ledger.runs.finish(run)
    following, _ = _following(ledger, [])
    total = following.follow(run)
    assert total.more and exit_status(total) == 0


def test_following_gives_up_without_workers(ledger: Ledger) -> None:
    class Gone:
        def require(self) -> None:
            raise NoWorker("no worker answers")

    run = _with_open_chunk(ledger)
    following, _ = _following(ledger, [], Gone())
    with pytest.raises(NoWorker):
        following.follow(run)
    assert following.records[run].found == 7


def test_following_gives_up_when_paused(ledger: Ledger) -> None:
    run = ledger.runs.open("manual", 600).run
    following, _ = _following(ledger, [ledger.controls.pause])
    with pytest.raises(Paused):
        following.follow(run)


def test_following_does_not_wait_for_ever_for_what_continues(ledger: Ledger) -> None:
    run = _with_open_chunk(ledger, stopped_by="time")
    ledger.chunks.settle(f"{run}:1:0", {"embedded": 7})
    ledger.runs.finish(run)
    following, _ = _following(ledger, [])
    assert following.follow(run).run_ids == [run]


def test_following_a_run_that_redis_lost(ledger: Ledger) -> None:
    following, _ = _following(ledger, [])
    with pytest.raises(EnrichError, match="unknown to Redis"):
        following.follow("nonesuch")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, 0),
        ({"found": 2, "embedded": 2}, 0),
        ({"found": 2, "gone": 1, "already_vectorized": 1}, 0),
        ({"found": 2, "embedded": 1, "failed": 1}, 1),
        ({"skipped_indices": {"a_b": "read-only"}}, 1),
        ({"found": 2, "embedded": 1}, 1),
        ({"found": 2, "deferred": 2}, 3),
        ({"found": 2, "failed": 1, "deferred": 1}, 3),
        ({"state": "halted"}, 3),
        ({"state": "abandoned", "found": 1, "deferred": 1}, 1),
    ],
)
def test_exit_status_of_a_run(fields: dict[str, Any], status: int) -> None:
    assert exit_status(RunRecord(**{"run_id": "a", "state": "finished", **fields})) == status


def test_every_counter_is_summed() -> None:
    kept = {"number"}
    numbers = [
        name
        for name, field in RunRecord.model_fields.items()
        if field.annotation in (int, float) and name not in kept
    ]
    one = RunRecord(run_id="a", **dict.fromkeys(numbers, 1))
    total = sum_of([one, one.model_copy(update={"run_id": "b"})])
    assert {name: getattr(total, name) for name in numbers} == dict.fromkeys(numbers, 2)


# -- check


@pytest.mark.parametrize(
    ("info", "mark", "word"),
    [
        ({"maxmemory_policy": "noeviction", "maxmemory": 0}, "ok", "noeviction"),
        ({"maxmemory_policy": "volatile-lru", "maxmemory": 2**30}, "ok", "volatile-lru"),
        ({"maxmemory_policy": "allkeys-lru", "maxmemory": 2**30}, "warn", "CACHE_URL"),
        ({"maxmemory_policy": "noeviction", "maxmemory": 2**20}, "warn", "raise it"),
        ({}, "warn", "cannot be seen"),
    ],
)
def test_memory_policy(info: dict[str, Any], mark: str, word: str) -> None:
    ((told, text),) = memory_lines(info, load_settings())
    assert told == mark
    assert word in text


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("version_conflict_engine_exception", ""),
        ("security_exception", "role"),
        ("cluster_block_exception", "no writes"),
        ("es_rejected_execution_exception", "es_rejected_execution_exception"),
    ],
)
def test_verdict_of_a_write_that_was_tried(kind: str, word: str) -> None:
    told = objection(decode(json.dumps({"status": 409, "error": {"type": kind}}), Item))
    assert word in told if word else told == ""


# -- the screen


def test_clean_leaves_nothing_that_a_terminal_obeys() -> None:
    evil = "a\x1b[31mb\x1b]0;title\x07c\x9bd\re\u202ef\x08\ud800g"
    cleaned = screen.clean(evil)
    assert cleaned.replace("�", "") == "abcdefg"
    assert screen.first_line("\n \r\n  first 오류\nsecond") == "first 오류"


@pytest.mark.parametrize("width", [80, 120])
def test_long_sentences_hang_below_their_own_text(width: int) -> None:
    console = Console(width=width, force_terminal=True, no_color=True, color_system=None)
    with console.capture() as captured:
        screen.line(console, "bad", "some words " * 30)
    first, *rest = captured.get().rstrip("\n").split("\n")
    assert first.startswith("  ✗ some") and all(line.startswith("    ") for line in rest)
    assert all(len(line) <= width for line in [first, *rest])


@pytest.mark.parametrize("width", [160, 80, 60, 40])
def test_numbers_are_never_cut_however_narrow_the_screen(width: int) -> None:
    console = Console(width=width, force_terminal=True, no_color=True, color_system=None)
    runs = [
        RunRecord(
            run_id="a", number=n, state="abandoned", found=12_345_678, vectors_written=9_876_543,
            failed=1_234, deferred=2_345_678, started_at=NOW, duration_seconds=7_261,
        )
        for n in (99_998, 99_999)
    ]  # fmt: skip
    counts = IndexBacklog(with_vector=1_234_567, without_vector=7_654_321, failed=45_678)
    name = "a-project-whose-name-is-long-" * 4 + "_2026_11"
    backlog = Backlog(
        by_index={name: counts, "b_2026_11": counts}, with_vector=2_469_134,
        without_vector=15_308_642, failed=91_356,
    )  # fmt: skip
    with console.capture() as captured:
        _print_backlog(console, backlog)
        _print_runs(console, runs)
    shown = captured.get()
    lines = shown.splitlines()
    assert all(len(line) <= width for line in lines)
    assert "15,308,642" in shown and "7,654,321" in shown and "9,876,543" in shown
    assert "2,345,678" in shown and "_2026_11" in shown
    # A number stands whole or not at all.
    whole = {"1,234,567", "7,654,321", "45,678", "2,469,134", "15,308,642", "91,356", "12,345,678",
             "9,876,543", "1,234", "2,345,678", "99,998", "99,999"}  # fmt: skip
    assert set(re.findall(r"[0-9]+(?:,[0-9]+)+", shown)) <= whole
    assert "," + "…" not in shown


@pytest.mark.parametrize(
    ("name", "width", "said"),
    [
        ("abcdefgh", 8, "abcdefgh"),
        ("abcdefgh", 5, "ab…gh"),
        ("abcdefgh", 4, "a…gh"),
        ("상품명의 문자", 7, "상…자"),
        ("상품명", 2, "상"),
    ],
)
def test_names_are_shortened_in_the_middle(name: str, width: int, said: str) -> None:
    assert screen.short(name, width) == said


@pytest.mark.usefixtures("store", "ledger")
def test_status_tells_how_much_of_the_quota_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "quota" not in call("status").stdout, "no limit is known"
    monkeypatch.setenv("ENRICH_TOKENS_PER_MINUTE", "1000")
    quota = wiring.quota_of(load_settings())
    quota.acquire(1_000)
    quota.pause(50)
    told = " ".join(call("status").stdout.split())
    assert "in use of the API's quota a minute: " in told and "% of 1,000 tokens" in told
    assert "! the embeddings API asked for a pause: " in told
    as_json = json.loads(call("status", "--json").stdout)["quota"]
    assert as_json["tokens_per_minute"] == 1_000 and 0 < as_json["tokens_used"] <= 1


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize("command", [["failures"], ["failures", "--json"], ["retry-failed", "-y"]])
def test_an_index_that_is_not_there_is_said(command: list[str], store: Store) -> None:
    result = call(*command, "--index", "nope")
    assert result.exit_code == 2
    assert "no index matches nope" in result.stderr and not result.stdout
    assert call(*command, "--index", "p_*").exit_code == 0


@pytest.mark.usefixtures("ledger")
def test_hostile_ids_make_no_lines_and_hide_nothing(store: Store) -> None:
    for n, evil in enumerate(
        ("a\nfake row", "b\u200fc\u200ed\u200be", "f\x1b]0;never ended", "g\rh")
    ):
        store.failed.append({**_failed("p_2026_11", evil), "error": f"code\n{n}\u200f"})
    shown = call("failures").stdout
    assert "\nfake row" not in shown and "fake row" in shown and "never ended" in shown
    assert not set("\u200f\u200e\u200b\x1b\r") & set(shown)


def test_check_goes_on_after_an_error_that_nobody_thought_of(
    monkeypatch: pytest.MonkeyPatch, ledger: Ledger
) -> None:
    def odd(*_: Any) -> None:
        raise TypeError("secret words")

    looked: list[str] = []
    for name in ("_look_at_redis", "_look_at_embeddings", "_look_at_writing"):
        monkeypatch.setattr(Check, name, lambda self, name=name: looked.append(name))
    monkeypatch.setattr(Check, "_look_at_opensearch", odd)
    result = call("check")
    assert result.exit_code == 3 and len(looked) == 3
    assert "TypeError" in result.stdout and "secret" not in result.output
    last = result.stdout.strip().splitlines()[-1]
    assert "Not ready: 1 thing to change, see ✗ above: " in last
    monkeypatch.setattr(Check, "_look_at_opensearch", lambda self: None)
    result = call("check")
    assert result.exit_code == 0 and "ENRICH_MAX_COST_PER_DAY" in result.stdout
    assert "Ready; 1 warning, see ! above" in result.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (9.4, "9.4 s"), (59.6, "1 min 0 s"), (3720, "1 h 2 min"), (90000, "1 d 1 h")],
)
def test_spans(seconds: float, said: str) -> None:
    assert screen.span(seconds) == said


def _failed(index: str, id: str) -> dict[str, Any]:
    since = datetime(2026, 11, 1, tzinfo=UTC).isoformat()
    told = {"error": "message_empty", "since": since, "run": "r"}
    return {"index": index, "id": id, "routing": None, **told}


def _with_open_chunk(ledger: Ledger, trigger: str = "manual", stopped_by: str = "") -> str:
    """A run that found seven logs in one chunk and searches no further."""
    run = ledger.runs.open(trigger, 600).run
    ledger.pages.register(
        run, 1, scan=Scan(pending=[], update_only=[], unsorted=[]), scan_done=True,
        chunks={f"{run}:1:0": 7}, more=bool(stopped_by), stopped_by=stopped_by,
    )  # fmt: skip
    return run


# -- what check says of the deployment


@pytest.fixture
def deployment_alone(monkeypatch: pytest.MonkeyPatch, ledger: Ledger) -> Deployment:
    """The notes in Redis, of which `check` tells and of nothing else."""
    for name in ("_look_at_opensearch", "_look_at_embeddings", "_look_at_writing"):
        monkeypatch.setattr(Check, name, lambda self: None)
    monkeypatch.setattr(
        Check,
        "_look_at_redis",
        lambda self: look_at_deployment(self._settings, ledger, self._findings),
    )
    monkeypatch.setenv("ENRICH_MAX_COST_PER_DAY", "5")
    return ledger.deployment


def _note(token: str, **variables: str) -> WorkerNote:
    configuration = dict(Configuration.of(load_settings()).values) | variables
    return WorkerNote(
        token=token, name=f"{token}@host", host="host", pid=7, processes=2, queues=("enrich.scan",),
        version="1", configuration=Configuration(configuration), refuses="", since=NOW, seen=NOW,
        seconds_ago=0,
    )  # fmt: skip


def test_check_has_nothing_to_say_where_all_agree(deployment_alone: Deployment) -> None:
    deployment_alone.note_worker(_note("a"))
    deployment_alone.note_worker(_note("b"))
    deployment_alone.note_deployment("https://elsewhere:9200", ["*_*"])
    result = call("check")
    assert result.exit_code == 0
    assert "✗" not in result.stdout and result.stdout.strip().endswith("Ready: a run would work")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EMBEDDING_MODEL", "another-model"),
        ("EMBEDDING_DIMENSIONS", "256"),
        ("OPENAI_BASE_URL", "https://elsewhere/v1"),
        ("ENRICH_MASK", "all"),
    ],
)
def test_check_names_a_setting_that_the_workers_have_otherwise(
    deployment_alone: Deployment, name: str, value: str
) -> None:
    deployment_alone.note_worker(_note("a", **{name: value}))
    result = call("check")
    assert result.exit_code == 1
    assert f"✗ {name} of this command differ from a@host's" in result.stdout
    # Two that differ from each other are what has to be mended first.
    deployment_alone.note_worker(_note("b"))
    result = call("check")
    assert result.exit_code == 1 and "of this command differ" not in result.stdout
    told = " ".join(result.stdout.split())
    assert f"✗ 2 workers disagree on {name}: a@host has {value}, b@host has " in told
    assert "give all the same settings and restart those that differ" in told


def test_check_speaks_of_no_worker_that_fell_silent(
    deployment_alone: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment_alone.note_worker(_note("a", EMBEDDING_MODEL="another-model"))
    monkeypatch.setattr(deployment, "ALIVE_SECONDS", -1.0)
    assert call("check").exit_code == 0


def test_check_warns_of_another_prefix_on_the_same_indices(deployment_alone: Deployment) -> None:
    settings = load_settings()
    other = wiring.build_ledger(load_settings(enrich_redis_prefix="other:"))
    place = deployment.place_of(settings, socket.gethostname())
    other.deployment.note_deployment(place, ["shop_*"])
    result = call("check")
    told = " ".join(result.stdout.split())
    assert result.exit_code == 0 and "Ready; 1 warning, see ! above" in told
    assert "! the deployment with ENRICH_REDIS_PREFIX=other: enriches the same OpenSearch" in told
    # Once they divide the indices, nothing is said.
    other.deployment.note_deployment(place, ["-*"])
    assert "ENRICH_REDIS_PREFIX=other:" not in call("check").stdout


def test_check_warns_where_other_deployments_cannot_be_seen(
    deployment_alone: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise AccessRefused("no right")

    monkeypatch.setattr(Deployment, "neighbours", refused)
    result = call("check")
    assert result.exit_code == 0
    assert "other deployments on this Redis cannot be seen" in result.stdout

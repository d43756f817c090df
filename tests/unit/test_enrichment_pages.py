"""The pages below /enrichment: words, chart, what is shown first, buttons, JSON; without servers.

tests/integration/test_page_in_browser.py looks at them in a browser, with real servers behind them.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import unicodedata
import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.httpclient import HTTPResponse

from enrich.errors import EnrichError, ServerUnavailable
from enrich.flower import words
from enrich.flower.latest import Latest
from enrich.flower.orders import Orders
from enrich.flower.page import MOST_NOTICES, Room
from enrich.flower.runs_chart import STACKED, chart_of
from enrich.flower.tasks_page import task_words
from enrich.flower.view import View, rows_of
from enrich.history.reader import History, Sums
from enrich.ledger import Ledger, Scan
from enrich.ledger.in_memory import in_memory_ledger
from enrich.log_store.coverage import Counted
from enrich.models import DaySums, RunRecord
from enrich.settings import Settings, load_settings
from enrich.status.overview import ChunkReport, FailureReason, Overview, useful
from enrich.status.report import Backlog, IndexBacklog, Status
from tests.page.playing import AtWork
from tests.page.serving import application_of
from tests.unit.test_flower_page import fetch

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SAME_SITE = {"Sec-Fetch-Site": "same-origin"}


def run(number: int, **fields: Any) -> RunRecord:
    began = NOW - timedelta(minutes=10 * (100 - number))
    return RunRecord(
        run_id=f"r{number}", number=number, **{"state": "finished", "started_at": began, **fields}
    )


# -- words


@given(st.text())
def test_whatever_others_write_is_one_line_that_moves_and_hides_nothing(text: str) -> None:
    shown = words.plain(text)
    assert len(shown) <= words.SENTENCE_LENGTH
    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co")]
    assert "<" not in words.marked(text).replace("<code>", "").replace("</code>", "")


def test_marks_are_written_out_and_code_is_marked() -> None:
    assert words.plain("a\x1b[2Jb\u202egnp") == "a\\x1b[2Jb\\u202egnp"
    assert words.marked("try `a<b` now") == "try <code>a&lt;b</code> now"
    assert words.marked("one ` alone") == "one ` alone"
    assert words.name("x" * 1_000_000) == "x" * (words.NAME_LENGTH - 1) + "…"


@pytest.mark.parametrize(
    ("amount", "told"),
    [(0, "$0.00"), (0.00001, "< $0.0001"), (0.0312, "$0.0312"), (4.5, "$4.50"), (1234, "$1,234")],
)
def test_money_is_short_and_never_rounded_to_nothing(amount: float, told: str) -> None:
    assert words.money(amount) == told


def test_lengths_of_time_without_what_says_nothing() -> None:
    assert [words.rough(s) for s in (4.4, 59, 600, 7200, 7260)] == [
        "4 s", "59 s", "10 min", "2 h", "2 h 1 min",
    ]  # fmt: skip
    assert words.age("2026-11-22T11:00:00", NOW) == "1 h"
    assert words.age("year 12000", NOW) == ""
    assert words.age(NOW + timedelta(hours=1), NOW) == "0 s"


# -- which runs are shown


def test_an_empty_run_takes_no_place_and_is_counted_between_the_others() -> None:
    runs = [run(9), run(8), run(7, found=3), run(6), run(5, state="halted"), run(4, found=1)]
    shown = useful(runs)
    assert [each.number for each in shown] == [7, 5, 4]
    assert [row.empty_above for row in rows_of(shown, 10)] == [2, 1, 0]
    view = View(Status(last_runs=runs), Overview(status=Status(last_runs=runs), runs=shown))
    assert view.told_run is shown[0] and view.empty_since == 2


def test_an_active_run_stands_above_all_others() -> None:
    active = run(9, state="running", found=5)
    status = Status(active_run=active, last_runs=[active, run(8, found=2)])
    view = View(status, Overview(status=status, runs=[active, run(8, found=2)]))
    assert view.told_run is active and view.empty_since == 0


# -- the chart


def test_outcomes_are_stacked_to_the_height_of_what_a_run_settled() -> None:
    runs = [
        run(2, found=1000, embedded=400, cached=500, failed=100, vectors_written=900,
            duration_seconds=9),
        run(1, found=500, embedded=500, vectors_written=500, duration_seconds=10),
    ]  # fmt: skip
    chart = chart_of(runs, lambda id: f"/run/{id}")
    assert chart is not None and (chart.most_logs, chart.most_rate) == (1000, 100)
    assert [outcome.value for outcome in chart.outcomes] == ["embedded", "cached", "failed"]
    drawing = ElementTree.fromstring(chart.svg)
    older, newer = drawing.findall("a")
    assert (older.get("href"), newer.get("href")) == ("/run/r1", "/run/r2")
    bars = [bar for bar in newer.findall("rect") if bar.get("class") != "hit"]
    assert [float(bar.get("height", 0)) for bar in bars] == [80, 100, 20]
    # From the bottom to the top, without a gap.
    assert [float(bar.get("y", 0)) for bar in bars] == [120, 20, 0]
    line = drawing.find("polyline")
    assert line is not None and line.get("points", "").endswith(",1.0")
    title = newer.findtext("title") or ""
    assert "Run #2, finished: 400 embedded, 500 cached, 100 failed; 100.0 vectors/s" in title
    assert drawing.get("aria-hidden") == "true"


@given(st.lists(st.integers(0, 10**9), min_size=8, max_size=8), st.integers(1, 50))
def test_no_bar_leaves_the_drawing(counts: list[int], number: int) -> None:
    outcomes = {o.value: n for o, n in zip(STACKED, counts, strict=True)}
    runs = [run(n, found=sum(counts), **outcomes) for n in range(number, 0, -1)]
    chart = chart_of(runs, str)
    assert chart is not None
    for bar in ElementTree.fromstring(chart.svg).iter("rect"):
        top, height = float(bar.get("y", 0)), float(bar.get("height", 0))
        assert top >= -0.2 and top + height <= 200.2 and height >= 0


def test_without_a_run_there_is_no_chart() -> None:
    assert chart_of([], str) is None


# -- what is read behind the pages


def test_a_page_gets_what_was_read_last_while_the_next_is_read() -> None:
    one, two = Overview(status=Status()), Overview(status=Status(paused=True))
    gate = threading.Event()
    answers = iter([one])

    def read() -> Overview:
        for answer in answers:
            return answer
        assert gate.wait(30)
        return two

    async def look() -> list[Overview]:
        latest = Latest(read, lambda: None)
        first = await latest.get()
        meanwhile = await latest.get()
        gate.set()
        return [first, meanwhile, await latest.fresh(), await latest.anew()]

    first, meanwhile, fresh, anew = asyncio.run(look())
    assert first is one and meanwhile is one and fresh is two and anew is two


def test_ten_pages_that_are_opened_at_once_share_one_reading() -> None:
    overview, gate = Overview(status=Status()), threading.Event()
    readings = []

    def read() -> Overview:
        readings.append(1)
        assert gate.wait(30)
        return overview

    async def look() -> list[Overview]:
        latest = Latest(read, lambda: None)
        pages = [asyncio.ensure_future(latest.get()) for _ in range(10)]
        # All of them wait before the first is answered.
        await asyncio.sleep(0)
        gate.set()
        return await asyncio.gather(*pages)

    assert asyncio.run(look()) == [overview] * 10
    assert len(readings) == 1


# -- requests


class Stats:
    """As much of the log store as a retry needs."""

    def __init__(self) -> None:
        self.stats = self.documents = self
        self.rows = [{"index": "a_2026_11", "id": str(n), "routing": None, "since": "",
                      "error": "text_refused"} for n in range(3)]  # fmt: skip

    def failures(self, index: str | None, size: int) -> Counted[list[dict[str, Any]]]:
        return Counted(self.rows[:size])

    def unmark(self, places: Any) -> int:
        self.rows = self.rows[len(places) :]
        return len(places)


class Scene:
    """Handlers over a ledger in memory."""

    def __init__(self, overview: Overview | None = None, **options: Any) -> None:
        self.ledger = in_memory_ledger()
        self.store, self.workers = Stats(), AtWork()
        self.settings: Settings = load_settings(_env_file=None, openai_api_key="sk-secret")
        status = Status(backlog=Backlog(without_vector=5, failed=3), last_runs=[run(3, found=4)])
        self.overview = overview or Overview(status=status, runs=status.last_runs)
        self.room = Room(
            Latest(lambda: self.overview, lambda: None),
            History(self.ledger, None),
            orders=Orders(self.settings, self.ledger, self.store, self.workers),  # type: ignore[arg-type]
            shown_settings=self.settings.redacted(),
        )
        self.options = {"read_only": False, **options}

    def get(self, path: str) -> HTTPResponse:
        return fetch(application_of(self.room, **self.options), path)

    def post(
        self, path: str, headers: dict[str, str] | None = None, token: str = "t0ken"
    ) -> HTTPResponse:
        sent = {"Cookie": "_xsrf=t0ken", **SAME_SITE, **(headers or {})}
        body = f"_xsrf={token}" if token else ""
        return fetch(
            application_of(self.room, **self.options), path, sent, method="POST", body=body
        )


def test_buttons_are_there_only_where_flower_is_not_read_only() -> None:
    assert 'href="/enrichment/order/run"' in Scene().get("/enrichment").body.decode()
    for path in ("run", "pause", "resume", "retry-failed"):
        closed = Scene(read_only=True)
        assert f"order/{path}" not in closed.get("/enrichment").body.decode()
        assert closed.get(f"/enrichment/order/{path}").code == 403
        answer = closed.post(f"/enrichment/order/{path}")
        assert answer.code == 403 and b"FLOWER_READ_ONLY=false" in answer.body
        assert not closed.ledger.controls.paused() and not closed.ledger.runs.active()
    assert Scene().get("/enrichment/order/shutdown").code == 404


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ({}, ""),
        ({}, "wrong"),
        ({"Sec-Fetch-Site": "cross-site"}, "t0ken"),
        ({"Sec-Fetch-Site": "same-site"}, "t0ken"),
        ({"Sec-Fetch-Site": "", "Origin": "https://evil.example"}, "t0ken"),
        ({"Cookie": ""}, "t0ken"),
    ],
)
@pytest.mark.parametrize("login", [{}, {"basic_auth": ["ada:word"]}])
def test_no_other_page_can_press_a_button(
    headers: dict[str, str], token: str, login: dict[str, Any]
) -> None:
    scene = Scene(**login)
    known = {"Authorization": "Basic YWRhOndvcmQ="} if login else {}
    assert scene.post("/enrichment/order/pause", {**known, **headers}, token).code == 403
    assert not scene.ledger.controls.paused()
    assert scene.post("/enrichment/order/pause", known).code == 303
    assert scene.ledger.controls.paused()


def test_a_button_says_beforehand_what_it_does_and_afterwards_what_it_did() -> None:
    scene = Scene()
    asked = scene.get("/enrichment/order/run")
    assert b"5 logs without a vector wait" in asked.body and not scene.ledger.runs.active()
    done = scene.post("/enrichment/order/run")
    active = scene.ledger.runs.active()
    assert done.code == 303 and scene.workers.sent == [("scan_page", (active, 1))]
    assert b"Run #1 has begun." in scene.get(done.headers["Location"]).body
    again = scene.get(scene.post("/enrichment/order/run").headers["Location"])
    assert b"Run #1 was active already" in again.body
    scene.post("/enrichment/order/pause")
    scene.ledger.runs.halt(active, "cancelled", state="abandoned")
    scene.ledger.runs.finish(active)
    refused = scene.post("/enrichment/order/run")
    assert refused.code == 409 and b"resume it first" in refused.body
    assert b"has begun" not in scene.get("/enrichment?done=guessed").body
    scene.post("/enrichment/order/resume")
    assert not scene.ledger.controls.paused()


def test_failed_logs_are_put_back_in_line() -> None:
    scene = Scene()
    scene.ledger.refused.record("b_2026_11", "x", "mapping_refused")
    scene.overview.failures = [FailureReason(code="text_refused", logs=3, by_index={"a_2026": 3})]
    assert b"3 of them: text_refused" in scene.get("/enrichment/order/retry-failed").body
    told = scene.get(scene.post("/enrichment/order/retry-failed").headers["Location"]).body
    assert b"4 logs are back in line" in told
    assert scene.store.rows == [] and scene.ledger.refused.all() == {}


def test_where_no_worker_is_alive_nothing_is_begun() -> None:
    scene = Scene()

    def nobody() -> None:
        raise ServerUnavailable("no worker answers: start one with `celery -A enrich worker`")

    scene.workers.require = nobody  # type: ignore[method-assign]
    answer = scene.post("/enrichment/order/run")
    assert answer.code == 409 and b"<code>celery -A enrich worker</code>" in answer.body
    assert not scene.ledger.runs.active()


def test_notices_do_not_pile_up() -> None:
    room = Scene().room
    tokens = [room.note(f"done {n}") for n in range(MOST_NOTICES + 5)]
    assert len(room.notices) == MOST_NOTICES and room.notices[tokens[-1]].startswith("done")


def open_run(ledger: Ledger, chunks: int) -> str:
    opened = ledger.runs.open("manual", 600).run
    scan = Scan(pending=[], update_only=[], unsorted=[])
    ledger.pages.register(
        opened, 1, scan=scan, scan_done=True, chunks={f"{opened}:1:{n}": 9 for n in range(chunks)}
    )
    return opened


def test_a_run_has_a_page_of_its_own_with_its_whole_record() -> None:
    scene = Scene()
    id = open_run(scene.ledger, 2)
    scene.ledger.runs.skip(id, "a_float_2026_11", "log_vector is mapped as <float>")
    for name in (id, "1"):
        page = scene.get(f"/enrichment/run/{name}").body.decode()
        for shown in (*RunRecord.model_fields, "a_float_2026_11", "mapped as &lt;float&gt;"):
            assert shown in page, shown
    told = json.loads(scene.get(f"/enrichment/api/runs/{id}").body)
    assert told["found"] == 18 and told["chunks_under_way"] == []


@pytest.mark.parametrize("id", ["nobody", "%3Cscript%3E", "a" * 2000, "%E2%80%AEgnp", "%00", "'"])
def test_an_unknown_run_is_404_in_words(id: str) -> None:
    answer = Scene().get(f"/enrichment/run/{id}")
    assert answer.code == 404 and b"there is no run" in answer.body
    assert b"<script>" not in answer.body.replace(b"<script src", b"")
    told = Scene().get(f"/enrichment/api/runs/{id}")
    assert told.code == 404 and "there is no run" in json.loads(told.body)["error"]


def test_indices_come_by_pages_with_most_to_do_first_and_by_a_part_of_their_name() -> None:
    by_index = {
        f"i{n:03}_2026": IndexBacklog(without_vector=n, with_vector=500 - n) for n in range(500)
    }
    status = Status(backlog=Backlog(by_index=by_index, without_vector=1, with_vector=1))
    scene = Scene(Overview(status=status))

    def names(path: str) -> list[str]:
        return re.findall(r"<bdi>(i\d{3}_2026)</bdi>", scene.get(path).body.decode())

    assert names("/enrichment/indices") == [f"i{n:03}_2026" for n in range(499, 449, -1)]
    assert names("/enrichment/indices?page=10")[-1] == "i000_2026"
    assert names("/enrichment/indices?page=99") == names("/enrichment/indices?page=10")
    assert names("/enrichment/indices?q=I12") == [f"i{n}_2026" for n in range(129, 119, -1)]
    assert names("/enrichment/indices?q=%22%3E%3Cb&page=x") == []
    assert len(names("/enrichment")) == 10
    rows = json.loads(scene.get("/enrichment/api/backlog").body)["indices"]
    assert len(rows) == 500 and rows[0]["coverage_percent"] == 0.2


def test_each_part_is_there_as_json_and_no_secret_in_any() -> None:
    scene = Scene()
    parts = json.loads(scene.get("/enrichment/api/").body)
    assert len(parts) == 11
    for name, path in parts.items():
        answer = scene.get(path)
        assert answer.code == 200, name
        assert answer.headers["Content-Type"].startswith("application/json")
        assert b"sk-secret" not in answer.body
    missing = scene.get("/enrichment/api/nothing")
    assert missing.code == 404 and "lists them" in json.loads(missing.body)["error"]
    assert scene.get("/enrichment/api/runs?before=nobody").code == 404
    assert Scene(basic_auth=["ada:word"]).get("/enrichment/api/status").code == 401


def test_a_server_that_is_away_is_said_and_the_page_is_up() -> None:
    scene = Scene()

    def away(*_: Any, **__: Any) -> Any:
        raise EnrichError("Redis cannot be reached")

    scene.room.history = type("Away", (), {"runs": away, "run": away})()  # type: ignore[assignment]
    page = scene.get("/enrichment/runs")
    assert page.code == 200 and b"Redis cannot be reached" in page.body
    assert scene.get("/enrichment/run/r1").code == 503
    assert scene.get("/enrichment/api/runs").code == 503


def test_what_redis_would_know_is_not_told_as_nothing() -> None:
    scene = Scene(Overview(status=Status(problems=["Redis cannot be reached"])))
    page = scene.get("/enrichment").body.decode()
    assert page.count("Not known while Redis does not answer") == 3
    assert "No worker has noted itself" not in page and "no limit is known" not in page
    for part in ("workers", "quota", "money", "schedule", "realtime"):
        assert json.loads(scene.get(f"/enrichment/api/{part}").body) is None


def test_pages_load_nothing_from_elsewhere_and_stand_in_nobodys_frame() -> None:
    answer = Scene().get("/enrichment")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    page = answer.body.decode()
    assert not re.search(r'(src|href)="(https?:)?//(?!flower\.readthedocs|github\.com)', page)
    assert "<style" not in page and "style=" not in page
    assert not re.search(r"<script(?! src)", page)
    for asset in re.findall(r'(?:src|href)="(/enrichment/static/[^"]+)"', page):
        got = Scene().get(asset)
        assert got.code == 200 and got.body
    assert Scene().get("/enrichment/static/../page.py").code in (403, 404)


def test_what_was_saved_and_the_month_are_told() -> None:
    month = DaySums(vectors_written=100, duplicate=30, cached=20, api_inputs=50, cost_usd=2.5,
                    runs_cost_usd=2.0)  # fmt: skip
    scene = Scene()
    scene.overview.sums = Sums(month=month)
    page = scene.get("/enrichment").body.decode()
    assert "$2.50" in page and "saved $2.00" in page and "50 % of vectors" in page


# -- Flower's own page of tasks


@pytest.mark.parametrize(
    ("name", "args", "told"),
    [
        ("enrich.embed_and_update", "('r3:1:0',)", "chunk 1 of page 1, run #3, 256 logs"),
        ("enrich.embed_and_update", "('r3:2:4',)", "chunk 5 of page 2, run #3"),
        ("enrich.embed_and_update", "('old:2:4',)", "chunk 5 of page 2, run old"),
        ("enrich.scan_page", "('r3', 2)", "page 2 of run #3"),
        ("enrich.finish_run", "('r3',)", "the end of run #3"),
        ("enrich.find_unvectorized", "('beat',)", "a tick by beat"),
        ("enrich.embed_and_update", "(<b>,)", "(<b>,)"),
        ("other", "('r3:1:0',)", "('r3:1:0',)"),
    ],
)
def test_tasks_read_well(name: str, args: str, told: str) -> None:
    class Task:
        result = "'12 found: 12 embedded, 0 failed'"

    task: Any = Task()
    task.name, task.args = name, args
    status = Status(last_runs=[run(3)])
    chunk = ChunkReport(id="r3:1:0", logs=256, state="leased", owner="", seconds=0,
                        workers_lost=0, why="")  # fmt: skip
    overview = Overview(status=status, chunks=[chunk])
    shown = task_words(lambda: overview)(task)
    assert (shown.args, shown.result) == (told, "12 found: 12 embedded, 0 failed")

"""The benchmarks' own arithmetic: verdicts, medians, table, result files, plot and model.

What they measure is real and slow; here is only what must be right before any of it is believed.
"""

from __future__ import annotations

import json
import math
import os
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import benchmarks.cluster
from benchmarks import __main__ as program
from benchmarks import model, stage
from benchmarks.cluster import _WHILE_BUSY, Cluster, ClusterRefused
from benchmarks.corpus import Log, make_corpus
from benchmarks.lines import LINES, realtime
from benchmarks.lines.growth import Series, pages_of, sizes
from benchmarks.lines.idle import grouped
from benchmarks.lines.inputs import left_over
from benchmarks.lines.quota import TOKENS_PER_MINUTE, Look, used_share
from benchmarks.plot import Bar, Panel, draw, svg_of
from benchmarks.recording_proxy import Exchange
from benchmarks.report import results_of, table_of, told, write_json, write_text
from benchmarks.rounds import (
    Figure,
    Way,
    alternate,
    at_least,
    at_most,
    holds,
    median,
    missed,
    not_measured,
    percentile,
    ratio,
    spread,
    stated,
    turn,
)
from benchmarks.stage import Options, StageFailed, check_room
from benchmarks.topic import mixed
from dev.http_proxy import Answered, Asked, Forward, HttpProxy
from dev.service import ServiceFailed

REPEATABLE = settings(deadline=None, max_examples=100, derandomize=True)


# -- topics


def test_error_logs_lie_evenly_among_others() -> None:
    corpus = make_corpus(20, distinct_share=0.5)
    messages = list(mixed(corpus, 2_000))
    errors = [n for n, one in enumerate(messages) if json.loads(one)["level"] == "ERROR"]
    assert len(messages) == 2_000 and errors == list(range(0, 2_000, 100))
    found = [json.loads(messages[n]) for n in errors]
    assert [one["document_id"] for one in found] == [log.id for log in corpus.logs]
    for one, log in zip(found, corpus.logs, strict=True):
        assert log.index.startswith(f"{one['safe_project_uuid']}_20")


# -- rounds


@pytest.mark.parametrize(
    ("value", "way", "bound", "good"),
    [
        (0.7, ">=", 0.7, True),
        (0.699, ">=", 0.7, False),
        (1.02, "<=", 1.02, True),
        (1.021, "<=", 1.02, False),
        (0.0, "<=", 0.0, True),
        (math.nan, ">=", 0.7, False),
        (math.nan, "<=", 0.7, False),
    ],
)
def test_a_target_is_reached_up_to_its_bound(
    value: float, way: Way, bound: float, good: bool
) -> None:
    assert holds(value, way, bound) is good


def test_verdicts() -> None:
    figures = [
        at_least("a", "far", 2.0, 1.0),
        at_least("a", "short", 0.5, 1.0),
        at_most("a", "over", 2.0, 1.0),
        stated("a", "only told", 5.0),
        not_measured("a", "left out", "no root"),
    ]
    verdicts = [figure.verdict for figure in figures]
    assert verdicts == ["reached", "missed", "missed", "", "not measured"]
    assert [figure.name for figure in missed(figures)] == ["short", "over"]


def test_each_round_begins_with_another_contender() -> None:
    order: list[str] = []
    contenders = {name: lambda name=name: order.append(name) or name for name in "abc"}
    results = alternate(contenders, 4, lambda _: None)
    assert "".join(order) == "abcbcacababc"
    assert results == {name: [name] * 4 for name in "abc"}


@REPEATABLE
@given(st.integers(1, 9), st.integers(0, 50))
def test_a_turn_leaves_nobody_out(count: int, number: int) -> None:
    names = [str(n) for n in range(count)]
    assert sorted(turn(names, number)) == sorted(names)


def test_medians_ratios_and_noise() -> None:
    assert median([3.0, 1.0, 2.0]) == 2.0
    # Round by round: the slow second round strikes both and does not count.
    assert ratio([10.0, 2.0, 12.0], [5.0, 1.0, 4.0]) == 2.0
    assert spread([9.0, 10.0, 12.0]) == pytest.approx(0.3)
    assert percentile([float(n) for n in range(1, 101)], 0.95) == 95.0
    assert math.isnan(percentile([], 0.95))


# -- report

FIGURES = [
    at_least("drain", "product, of index", 0.71, 0.7),
    at_most("idle", "requests <a tick> & more", 4, 3, ""),
    stated("drain", "index", 3212.4, "/s"),
    not_measured("hosts", "two hosts", "network namespaces need root"),
]


def test_the_table_names_value_target_and_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    Console(width=140).print(table_of(FIGURES))
    text = capsys.readouterr().out
    for words in ("0.71 ×", "≥ 0.7 ×", "reached", "missed", "3,212 /s", "not measured", "root"):
        assert words in text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(None, "s", "—"), (0.0, "", "0"), (1500.0, "", "1,500"), (0.1234, "s", "0.123 s")],
)
def test_numbers_are_told_briefly(value: float | None, unit: str, text: str) -> None:
    assert told(value, unit) == text


def test_a_result_file_holds_what_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "new" / "bench.json"
    write_json(path, results_of(FIGURES, {"drain": {"logs": 5}}, {"size": 5, "out": tmp_path}))
    content = json.loads(path.read_text())
    assert content["data"] == {"drain": {"logs": 5}}
    assert [figure["verdict"] for figure in content["figures"]] == [
        "reached", "missed", "", "not measured",
    ]  # fmt: skip
    assert content["machine"]["cores"] and content["options"]["out"] == str(tmp_path)


def test_a_result_file_that_cannot_be_finished_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "bench.svg"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "new" * 100_000 + "\ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# -- plot


def test_the_plot_is_well_formed_and_shows_every_target() -> None:
    svg = svg_of({"product": 2500.0, "langchain <like>": 500.0}, FIGURES)
    root = ElementTree.fromstring(svg)
    texts = ["".join(element.itertext()) for element in root.iter() if element.text]
    assert "langchain <like>" in texts and "2,500 /s" in texts
    assert any("requests <a tick> & more" in text for text in texts)
    bars = [element for element in root.iter() if element.tag.endswith("rect")]
    assert len(bars) == 4


def test_a_plot_of_nothing_is_a_plot() -> None:
    ElementTree.fromstring(svg_of({}, []))


@REPEATABLE
@given(st.lists(st.floats(0, 1e12), max_size=6))
def test_no_bar_leaves_the_plot(values: list[float]) -> None:
    bars = [Bar(label=str(n), value=value) for n, value in enumerate(values)]
    root = ElementTree.fromstring(draw([Panel(title="t", bars=bars)]))
    for element in root.iter():
        if element.tag.endswith("rect"):
            right = float(element.attrib["x"]) + float(element.attrib["width"])
            assert right <= float(root.attrib["width"])


# -- lines


def test_exchanges_of_one_tick_go_together() -> None:
    exchanges = [Exchange(at, 0.1, "GET /") for at in (10.0, 10.2, 13.0, 13.3, 16.0)]
    assert [len(tick) for tick in grouped(exchanges[::-1], 0.5)] == [2, 2, 1]


def test_the_quota_is_counted_from_answer_to_answer() -> None:
    # What was saved up is gone after 10 s; then 50,000 tokens come every 3 s, which is all of a
    # million a minute, in 50 looks each.
    looks = [Look(0.0, 1, TOKENS_PER_MINUTE // 2, 0), Look(10.0, 20, TOKENS_PER_MINUTE, 0)]
    for tenth in range(900):
        answers = tenth // 30
        tokens = TOKENS_PER_MINUTE + 50_000 * answers
        looks.append(Look(10.1 + tenth / 10, 20 + answers, tokens, 0))
    assert used_share(looks) == pytest.approx(1.0, abs=0.001)
    half = [Look(2 * look.at, look.requests, look.tokens, 0) for look in looks]
    assert used_share(half) == pytest.approx(0.5, abs=0.001)
    assert used_share(looks[:3]) == 0.0


def test_pages_are_read_from_the_workers_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "x\nINFO celery.app.trace run=- Task enrich.scan_page[a1-b2] succeeded in 0.25s: "
        "'page 1: 500 logs in 6 chunks'\n"
        "Task enrich.scan_page[c3] succeeded in 0.1s: 'nothing more to find'\n"
        "Task enrich.embed_and_update[c3] succeeded in 0.1s: 'page 1: 500 logs'\n"
    )
    assert pages_of(log) == [(0.25, 500)]
    assert pages_of(log, log.stat().st_size) == []


def test_what_is_left_over_covers_the_commonest_texts_in_each_project() -> None:
    texts = [(0, "a"), (0, "a"), (0, "b"), (1, "a"), (1, "a"), (2, "b")]
    logs = [Log(f"{project}_x_2026_11", str(n), b"{}", t) for n, (t, project) in enumerate(texts)]
    assert left_over(logs, 2) == {logs[0], logs[2]}
    assert left_over(logs, 3) == {logs[0], logs[2], logs[3]}


def test_growth_ends_at_the_size_that_was_asked_for() -> None:
    assert sizes(Options()) == [2_000, 20_000]
    assert sizes(Options(full=True)) == [2_000, 20_000, 200_000]
    assert sizes(Options(size=5_000)) == [2_000, 5_000]
    assert sizes(Options(size=1_000)) == [2_000, 4_000]


def test_growth_weighs_a_slow_second_the_same_in_small_drains_as_in_a_large_one() -> None:
    # Of a machine that halves its speed while the ceiling keeps twice the product's.
    slowing = 1 / (0.5 / 50 + 0.5 / 25)
    small = Series(
        [{"rate": 50, "cpu": 1.0, "vectors": 10}, {"rate": slowing, "cpu": 5.0, "vectors": 20}],
        [(100, 100), (100, 50)],
    ) + Series([{"rate": 25, "cpu": 0.0, "vectors": 10}], [(50, 50)])
    assert small.share == pytest.approx(0.5)
    assert small.cost(lambda drain: drain["cpu"]) == pytest.approx(6.0 / 40)
    assert Series([{"rate": slowing}], [(100, 50)]).share == pytest.approx(0.5)
    assert Series([], [(100, 90), (90, 80), (70, 60)]).ceilings == [100, 90, 80, 70, 60]


# -- model


def test_throughput_is_bounded_by_thinking_and_by_service() -> None:
    assert model.throughput(1, 2.0, 0.5) == pytest.approx(0.4)
    assert model.throughput(4, 100.0, 0.001) == pytest.approx(0.04, rel=0.001)
    assert model.throughput(500, 1.0, 0.1) == pytest.approx(10.0, rel=0.001)


@REPEATABLE
@given(
    st.integers(1, 200), st.floats(0.01, 10, allow_nan=False), st.floats(0.001, 1, allow_nan=False)
)
def test_throughput_exceeds_no_bound_and_grows_with_processes(
    customers: int, thinking: float, service: float
) -> None:
    rate = model.throughput(customers, thinking, service)
    assert rate <= min(customers / (thinking + service), 1 / service) * (1 + 1e-9)
    assert model.throughput(customers + 1, thinking, service) >= rate * (1 - 1e-9)


@pytest.mark.parametrize(
    ("changes", "binding"),
    [
        ({"tokens_per_minute": 1e6}, "tokens"),
        ({"requests_per_minute": 60}, "requests"),
        ({"latency": 60.0}, "latency"),
        ({"latency": 0.0, "processes": 64}, "OpenSearch"),
        ({"latency": 0.0, "processes": 640, "nodes": 100}, "finder"),
    ],
)
def test_the_plan_names_what_binds(changes: dict[str, Any], binding: str) -> None:
    planned = model.plan(model.Setup(**changes), model.Machine())
    assert planned.binding == binding


def test_each_distinct_text_is_paid_for_once() -> None:
    setup = model.Setup(distinct=0.1, tokens_per_text=500, dollars_per_million_tokens=0.13)
    assert model.Plan.dollars(1e8, setup) == pytest.approx(1e7 * 500 / 1e6 * 0.13)
    planned = model.plan(model.Setup(tokens_per_minute=1e6, tokens_per_text=500), model.Machine())
    assert planned.vectors_per_second == pytest.approx(1e6 / 60 / 500 / 0.3)
    assert planned.hours(1e6) == pytest.approx(1e6 / planned.vectors_per_second / 3600)


def measured(machine: model.Machine, tokens: float = 500.0) -> dict[str, Any]:
    """What a benchmark would measure on a machine that obeys the model."""

    def rate(**changes: Any) -> float:
        setup = model.Setup(**{"distinct": 0.3, "shard": 20_000.0, **changes})
        return model.plan(setup, machine).vectors_per_second

    def ours(rate: float, own: float = 0.2) -> dict[str, Any]:
        api = {"tokens": tokens * 10, "inputs": 10}
        cpu = {"worker": own, "flower": 0.1}
        return {"rate": rate, "api": api, "vectors": 1_000, "cpu": cpu, "opensearch_cpu": 0.7}

    alone = {"distinct": 1.0, "processes": 1, "latency": 2.0}
    return {
        "drain": {
            "logs": 20_000,
            "distinct": 6_000,
            "latency_ms": 50,
            "rounds": {"product": [ours(rate(latency=0.05))]},
            "rates": {"product": rate(latency=0.05), "index": 4_000.0},
        },
        "distinct": {
            "latency_ms": 500,
            "in_flight": 8,
            "rounds": {
                # Of 1 / 0.8: a tenth because OpenSearch takes longer, the rest is our own.
                "index": [{"rate": 4_000.0 / 1.1}],
                "product": [ours(rate(distinct=1.0, latency=0.5), own=0.2 + 0.15)],
            },
        },
        "scale": {
            "latency_ms": 2_000,
            "batch": 100,
            "rates": {
                str(n): rate(**{**alone, "batch": 100, "processes": n}) for n in (1, 2, 4, 8)
            },
        },
        "growth": {
            str(size): {
                "pages": [(size / machine.finds_per_second, size)],
                "rounds": {
                    "index": [{"rate": 4_000.0}],
                    "product": [ours(rate(latency=0.05, shard=float(size)))],
                },
            }
            for size in (2_000, 20_000)
        },
    }


MACHINE = model.Machine(
    writes_per_second=1_234.0,
    all_distinct_factor=0.8,
    overhead_seconds=0.21,
    finds_per_second=9_000.0,
    slowing_by_tenfold=0.0,
)


def test_calibration_finds_the_machine_behind_its_measurements() -> None:
    found, tokens = model.calibrated(measured(MACHINE))
    assert tokens == 500
    assert found.writes_per_second == pytest.approx(1_234, rel=0.01)
    assert found.overhead_seconds == pytest.approx(0.21, abs=0.01)
    assert found.finds_per_second == pytest.approx(9_000)
    assert all(abs(point.error) < 0.01 for point in model.points(measured(MACHINE)))


def test_the_model_fails_when_a_measurement_is_further_off_than_it_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bench.json"
    data = measured(MACHINE)
    write_json(path, {"data": data})
    assert model.main(["--results", str(path)]) == 0
    data["scale"]["rates"]["8"] *= 1.5
    write_json(path, {"data": data})
    assert model.main(["--results", str(path)]) == 1
    assert "scale, 8 processes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot be read"),
        ("not JSON", "is not a benchmark's result file"),
        ('{"figures": []}', "is not a benchmark's result file"),
        ('{"data": {"drain": {}}}', "hold no distinct, scale, growth"),
    ],
)
def test_results_that_the_model_cannot_use(
    content: str | None, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bench.json"
    if content is not None:
        path.write_text(content)
    assert model.main(["--results", str(path)]) == 2
    assert sentence in capsys.readouterr().err


def test_shares_of_a_quota_are_those_of_the_middle_of_a_drain() -> None:
    # Nothing is taken in the first ten seconds, and nothing in the last ten.
    taken = [0] * 10 + [1_000 * n for n in range(80)] + [79_000] * 10
    looks = [
        realtime.Look(at=float(second), tokens=tokens, live=tokens // 4)
        for second, tokens in enumerate(taken)
    ]
    used, of_live = realtime.shares(looks, 60_000)
    assert used == pytest.approx(1.0)
    assert of_live == pytest.approx(0.25)
    assert realtime.shares(looks[:5], 60_000) == (0.0, 0.0)


# -- the program


def test_minutes_have_some_lines_and_hours_have_all() -> None:
    quick = program.chosen([], full=False)
    assert quick == ["drain", "distinct", "inputs", "cpu", "idle", "start"]
    assert program.chosen([], full=True) == list(LINES)
    assert program.chosen(["scale,drain"], full=False) == ["drain", "scale"]


def test_each_line_is_explained() -> None:
    page = (Path(__file__).parents[2] / "docs" / "performance.md").read_text(encoding="utf-8")
    _, _, table = page.partition("\n### The lines\n")
    rows = re.findall(r"^\| `(\w+)` \|.*\| (yes\b[^|]*)?\|$", table.partition("\n## ")[0], re.M)
    assert sorted(name for name, _ in rows) == sorted(LINES)
    assert {name for name, yes in rows if yes} == {n for n, line in LINES.items() if line.quick}


@pytest.mark.parametrize(
    "words", [["nonsense"], ["--only", "drain,nonsense"], ["--size", "0"], ["--set", "NAME"]]
)
def test_bad_use_is_told(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        program.main(words)
    assert words[-1].split(",")[-1] in capsys.readouterr().err


def test_too_little_room_is_told_with_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StageFailed, match=r"free and .* GB are needed .*--size"):
        check_room(tmp_path, 10**12)
    monkeypatch.setattr(stage, "_DISK_PER_LOG", 0)
    with pytest.raises(StageFailed, match=r"of memory are free .*--size"):
        check_room(tmp_path, 10**12)


def test_a_server_that_is_not_there_is_told_in_a_sentence() -> None:
    cluster = Cluster("http://127.0.0.1:1", os.getpid())
    with pytest.raises(ClusterRefused, match="does not answer any more"):
        cluster("GET", "/")


def test_a_body_that_finds_a_busy_node_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = Answered(status=429, body=b'{"error":{"type":"circuit_breaking_exception"}}')
    taken = Answered(body=b'{"errors":false}')
    answers = [busy, busy, taken]
    sent: list[bytes] = []

    def answer(asked: Asked, _: Forward) -> Answered:
        sent.append(asked.body)
        return answers.pop(0)

    with HttpProxy("http://127.0.0.1:1") as node:
        node.alter = answer
        cluster = Cluster(f"http://127.0.0.1:{node.port}", os.getpid())
        assert cluster.bulk(b"body") == {"errors": False}
        assert sent == [b"body"] * 3
        cluster.close()
        answers.append(busy)
        monkeypatch.setattr(benchmarks.cluster, "_WHILE_BUSY", _WHILE_BUSY.new(status=0))
        cluster = cluster.another()
        with pytest.raises(ClusterRefused, match=r"429 to POST .*circuit_breaking_exception"):
            cluster.bulk(b"body")
        answers[:] = [Answered(status=400, body=b"{}")]
        with pytest.raises(ClusterRefused, match="answered 400"):
            cluster.bulk(b"body")
        assert answers == []
        cluster.close()


@pytest.mark.parametrize(
    ("trouble", "status", "sentence"),
    [
        (ServiceFailed("opensearch did not start: no room"), 2, "opensearch did not start"),
        (KeyboardInterrupt(), 130, "cut off; no result file was written"),
    ],
)
def test_a_run_that_breaks_off_leaves_no_result_file(
    trouble: BaseException,
    status: int,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def measure(_: Any, __: Any, figures: list[Figure], ___: Any) -> Any:
        figures.append(FIGURES[0])
        raise trouble

    monkeypatch.setattr(program, "_measure", measure)
    monkeypatch.setattr(program, "clean_environment", lambda: None)
    monkeypatch.setattr(program, "check_room", lambda folder, logs: None)
    assert program.main(["drain", "--out", str(tmp_path / "out")]) == status
    told_all = capsys.readouterr().out
    assert sentence in told_all and "product, of index" in told_all
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("value", "status"), [(0.71, 0), (0.69, 1)])
def test_a_missed_target_makes_the_exit_status(
    value: float,
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def measure(_: Any, __: Any, figures: list[Figure], ___: Any) -> Any:
        figures.append(at_least("drain", "product, of index", value, 0.7))
        return {"drain": {"rates": {"product": 1.0}}}

    monkeypatch.setattr(program, "_measure", measure)
    monkeypatch.setattr(program, "clean_environment", lambda: None)
    monkeypatch.setattr(program, "check_room", lambda folder, logs: None)
    assert program.main(["drain", "--out", str(tmp_path)]) == status
    assert ("missed: drain" in capsys.readouterr().out) is bool(status)
    assert json.loads((tmp_path / "bench.json").read_text())["data"]
    ElementTree.fromstring((tmp_path / "bench.svg").read_text())

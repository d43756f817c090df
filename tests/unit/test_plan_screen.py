"""`plan` and `confirm` on the terminal: what they say, how it fits, and what they answer to bad
input."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

from enrich import wiring
from enrich.cli import app
from enrich.cli.check import Check
from enrich.cli.checks.embeddings import PHRASES
from enrich.cli.plan import print_plan, telling
from enrich.errors import ServerUnavailable
from enrich.planning.plan import Plan
from enrich.settings import Settings
from tests.memory_pipeline import MemoryPipeline, logs

HOSTILE = "shop_\x1b[31m\u202e2026_11"


@pytest.fixture
def one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MemoryPipeline:
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    made = MemoryPipeline()
    stats = SimpleNamespace(
        matching=lambda index: [n for n in made.store.indices if n.startswith(index.strip("*"))],
        closed=lambda index: [],
    )
    monkeypatch.setattr(wiring, "build_planner", lambda settings, days=None: made.planner)
    monkeypatch.setattr(wiring, "build_ledger", lambda settings: made.ledger)
    monkeypatch.setattr(wiring, "build_store", lambda settings: SimpleNamespace(stats=stats))
    return made


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_the_sum_stands_first_and_says_what_is_assumed(one: MemoryPipeline) -> None:
    one.put("shop_2026_11", logs(1_000, 200))
    told = call("plan")
    assert told.exit_code == 0
    first = told.stdout.strip().splitlines()[0]
    assert first.startswith("1,000 logs, 200 texts to be paid for, about $0.000")
    for part in (
        "exact: every log was read", "0.3 a byte, assumed", "500 logs a second, assumed",
        "at half the price, within 24 hours", "assumed: no limits of the embeddings API",
        "ENRICH_NORMALIZE=all would leave 1 of 200 distinct texts",
    ):  # fmt: skip
        assert part in told.stdout, part
    assert "\x1b" not in told.stdout and "sk-secret" not in told.output


def test_json_has_every_field_that_the_docs_name(one: MemoryPipeline) -> None:
    one.fill(shop_2026_11=10)
    told = call("plan", "--index", "shop_*", "--days", "30", "--json")
    assert told.exit_code == 0 and told.stderr == ""
    plan = json.loads(told.stdout)
    assert (plan["version"], plan["index"], plan["days"]) == (1, "shop_*", 30)
    page = (Path(__file__).parents[2] / "docs" / "plan.md").read_text()
    rows = page[page.index("## `--json`") :]
    named = [
        *plan,
        *(name for part in plan.values() if isinstance(part, dict) for name in part),
    ]
    for name in named:
        assert any(form in rows for form in (f"`{name}`", f".{name}`", f"`{name}.")), name


def test_an_index_that_is_not_there_and_bad_names_end_with_2(one: MemoryPipeline) -> None:
    one.fill(shop_2026_11=10)
    told = call("plan", "--index", "nope_*")
    assert told.exit_code == 2 and "no index matches nope_*" in told.stderr
    for words in (
        ["--index", "../_cluster"], ["--index", "_all"], ["--index", ""], ["--index", "a b"],
        ["--days", "0"], ["--days", "-1"], ["--days", "nan"], ["--days", "x"], ["--what"],
    ):  # fmt: skip
        told = call("plan", *words)
        assert told.exit_code == 2, words
        assert told.stdout == "" and "Traceback" not in told.output


def test_where_nothing_waits_a_run_costs_nothing(one: MemoryPipeline) -> None:
    told = call("plan")
    assert told.exit_code == 0 and "nothing waits in *_*,-.*: a run would cost nothing" in (
        told.stdout
    )
    assert json.loads(call("plan", "--json").stdout)["cost"]["usd"] == 0
    one.put("shop_2026_11", logs(10, 5))
    one.run()
    told = call("plan", "--index", "shop_*")
    assert told.exit_code == 0 and "nothing waits in shop_*" in told.stdout


def test_indices_that_a_run_skips_are_named_harmlessly(one: MemoryPipeline) -> None:
    one.fill(shop_2026_11=10)
    one.put(HOSTILE, logs(10, 5))
    one.store.indices[HOSTILE].unfit = "index.knn is not set\n\x1b[2J"
    told = call("plan")
    assert told.exit_code == 0 and "was skipped: index.knn is not set" in told.stdout
    assert "\x1b" not in told.stdout and "\u202e" not in told.stdout


@pytest.mark.parametrize("server", ["OpenSearch", "Redis"])
def test_a_server_that_is_away_is_one_sentence_and_3(
    server: str, one: MemoryPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    one.fill(shop_2026_11=10)

    def refuse(*arguments: Any) -> Any:
        raise ServerUnavailable(f"{server} cannot be reached")

    if server == "Redis":
        monkeypatch.setattr(one.planner.parts.cache, "known", refuse)
    else:
        monkeypatch.setattr(one.store.backlog, "count", refuse)
    for words in (["plan"], ["plan", "--json"]):
        told = call(*words)
        assert told.exit_code == 3 and told.stdout == ""
        assert told.stderr.strip() == f"✗ {server} cannot be reached"


def test_without_a_price_money_is_a_question(
    one: MemoryPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = MemoryPipeline(embedding_model="own")
    monkeypatch.setattr(wiring, "build_planner", lambda settings, days=None: other.planner)
    other.fill(shop_2026_11=10)
    assert "set ENRICH_PRICE_PER_MILLION_TOKENS" in call("plan").stdout
    assert json.loads(call("plan", "--json").stdout)["cost"]["usd"] is None


@pytest.mark.parametrize("width", [80, 60])
def test_it_fits_the_screen(one: MemoryPipeline, width: int) -> None:
    one.put("shop_2026_11", logs(2_000, 1_000))
    made = one.planner.plan(one.planner.backlog())
    screen = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=True,
        color_system=None,
        legacy_windows=False,
    )
    print_plan(screen, made, one.settings)
    lines = screen.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= width
    assert any("1,000" in line and "texts to be paid for" in line for line in lines)


def test_a_scan_says_how_far_it_is_after_two_seconds_and_then_every_five() -> None:
    out = io.StringIO()
    moments = iter([0.0, 1.0, 5.5, 6.0, 11.0])
    with telling(Console(file=out, width=80), clock=lambda: next(moments)) as tell:
        for done in (10, 20, 30, 40):
            tell("logs read", done * 1_000, 50_000)
    assert out.getvalue().splitlines() == [
        "  logs read: 20,000 of 50,000, 5.5 s",
        "  logs read: 40,000 of 50,000, 11 s",
    ]


# -- confirm


def test_confirm_shows_the_sum_and_lets_runs_spend_it(
    one: MemoryPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "ENRICH_CONFIRM_ABOVE_USD is not set" in call("confirm").stdout
    monkeypatch.setenv("ENRICH_CONFIRM_ABOVE_USD", "0.0001")
    one.put("shop_2026_11", logs(1_000, 500))
    # Nobody is there to be asked.
    told = call("confirm")
    assert told.exit_code == 2 and one.ledger.confirmed.left_usd() == 0
    told = call("confirm", "--yes")
    assert told.exit_code == 0 and "500 texts to be paid for" in told.stdout
    usd = one.planner.plan(one.planner.backlog()).cost.usd or 0
    assert one.ledger.confirmed.left_usd() == pytest.approx(1.1 * usd, abs=1e-4)
    assert "a run begins by itself" in call("confirm", "--yes").stdout
    assert call("confirm", "--up-to", "7.5", "--yes").exit_code == 0
    assert one.ledger.confirmed.left_usd() == 7.5
    assert call("confirm", "--up-to", "-1").exit_code == 2


def test_help_has_an_example() -> None:
    for command in ("plan", "confirm"):
        assert f"Example: python -m enrich {command}" in call(command, "--help").stdout


def test_check_tells_the_same_sum_and_what_waits_for_a_word(
    one: MemoryPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_look_at_redis", "_look_at_writing"):
        monkeypatch.setattr(Check, name, lambda self: None)

    def seen(check: Check) -> None:
        check._seen.pending = one.planner.backlog().logs

    monkeypatch.setattr(Check, "_look_at_opensearch", seen)
    monkeypatch.setattr(wiring, "build_embedder", lambda settings: one.embedder)
    sample = SimpleNamespace(sample=lambda count: ["connection refused"])
    monkeypatch.setattr(wiring, "build_store", lambda settings: SimpleNamespace(stats=sample))

    nothing = " ".join(call("check").stdout.split())
    assert "the backlog:" not in nothing, "nothing waits"
    one.put("shop_2026_11", logs(1_000, 200))
    planned = " ".join(call("plan").stdout.split()).partition(" logs that wait")[0]
    assert planned.startswith("1,000 logs, 200 texts to be paid for, about $")
    told = " ".join(call("check").stdout.split())
    assert f"the backlog: {planned}; `python -m enrich plan` says what that rests on" in told
    assert "ENRICH_CONFIRM_ABOVE_USD" not in told

    monkeypatch.setenv("ENRICH_CONFIRM_ABOVE_USD", "0.0001")
    told = " ".join(call("check").stdout.split())
    assert "more than ENRICH_CONFIRM_ABOVE_USD ($0.0001): no run begins" in told
    one.ledger.confirmed.allow(5.0)
    last = call("check")
    assert last.exit_code == 0 and "no run begins" not in last.stdout
    # Nothing of the backlog was bought for it: the sample's text and phrases, one at a time.
    assert {text for request in one.embedder.requests for text in request} == {
        "connection refused", *PHRASES,
    }  # fmt: skip


def test_a_plan_survives_json() -> None:
    one = MemoryPipeline()
    one.fill(shop_2026_11=10)
    made = one.planner.plan(one.planner.backlog())
    assert Plan.model_validate_json(made.model_dump_json()) == made

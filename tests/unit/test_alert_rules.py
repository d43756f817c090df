"""The alert rules: that they parse, name only what a scrape has, and that each is tested. Where
promtool is installed, its own tests of them run."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from enrich.cli import app
from enrich.status import realtime
from enrich.status.health import CODES
from tests.unit.every_metric import every_metric

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"
FILES = sorted(FOLDER.glob("*-rules.yml"))

#: A metric in an expression, with what it selects by.
METRIC = re.compile(r"\b(enrich_\w+)(?:\{([^}]*)\})?")
SELECTOR = re.compile(r'(\w+)=~?"([^"]*)"')

#: Reasons of the health that nobody is woken for, and those that have an alert by a number.
QUIET = {"paused", "cap"}
BY_NUMBERS = {
    "redis_unreachable", "opensearch_unreachable", "no_tick", "late_tick", "behind", "budget",
    "history_behind",
    *realtime.CODES,
}  # fmt: skip


def cases_of(rules: Path) -> Path:
    return rules.with_name(f"{rules.stem}-test.yml")


def rules(files: list[Path] = FILES) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for file in files:
        (group,) = yaml.safe_load(file.read_text())["groups"]
        found += group["rules"]
    return found


@pytest.fixture(scope="module")
def scraped() -> dict[str, list[dict[str, str]]]:
    """Metric → labels of each of its samples, where everything has happened."""
    return every_metric()


def test_the_rules_are_those_of_backfill_and_consumers() -> None:
    assert [file.name for file in FILES] == ["enrich-consumer-rules.yml", "enrich-rules.yml"]
    assert {file.name for file in FOLDER.glob("*-test.yml")} == {
        cases_of(file).name for file in FILES
    }


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_each_rule_names_what_a_scrape_has(
    rule: dict[str, Any], scraped: dict[str, list[dict[str, str]]]
) -> None:
    named = METRIC.findall(rule["expr"])
    assert named
    for metric, selectors in named:
        assert metric in scraped
        for label, values in SELECTOR.findall(selectors):
            for value in values.split("|"):
                assert value in {labels.get(label) for labels in scraped[metric]}, (metric, value)
    told = " ".join(rule["annotations"].values())
    for metric, _ in METRIC.findall(told):
        assert metric in scraped
    grouped = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", rule["expr"]))))
    assert set(re.findall(r"\$labels\.(\w+)", told)) <= grouped, "labels that are aggregated away"
    assert rule["for"] and rule["labels"]["severity"] in ("warning", "critical")


@pytest.mark.parametrize(
    "rule", rules([FOLDER / "enrich-rules.yml"]), ids=lambda rule: rule["alert"]
)
def test_each_alert_of_the_backfill_names_the_command_that_mends_it(rule: dict[str, Any]) -> None:
    commands = re.findall(
        r"`(python -m|celery -A) enrich ([a-z-]+)`", rule["annotations"]["description"]
    )
    assert commands
    known = {
        "python -m": set(get_command(app).commands),  # type: ignore[attr-defined]
        "celery -A": {"worker", "beat", "flower"},
    }
    for program, command in commands:
        assert command in known[program]


def test_the_page_of_metrics_has_each_alert_of_the_backfill_and_its_severity() -> None:
    page = (FOLDER.parents[1] / "docs" / "metrics.md").read_text()
    shown = dict(re.findall(r"^\| `(Enrich\w+)` \| (\w+) \|", page, re.MULTILINE))
    assert shown == {
        rule["alert"]: rule["labels"]["severity"] for rule in rules([FOLDER / "enrich-rules.yml"])
    }


def test_each_reason_of_the_health_has_an_alert_or_is_quiet() -> None:
    selected = {
        value
        for rule in rules()
        for metric, selectors in METRIC.findall(rule["expr"])
        if metric == "enrich_health"
        for label, values in SELECTOR.findall(selectors)
        for value in values.split("|")
    }
    assert selected | QUIET | BY_NUMBERS == set(CODES)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_alert_is_tested_firing_and_not_firing(file: Path) -> None:
    fires: dict[str, set[bool]] = {}
    for case in yaml.safe_load(cases_of(file).read_text())["tests"]:
        for expected in case["alert_rule_test"]:
            fires.setdefault(expected["alertname"], set()).add(bool(expected["exp_alerts"]))
    assert fires == {rule["alert"]: {True, False} for rule in rules([file])}


@pytest.mark.skipif(not shutil.which("promtool"), reason="Prometheus' promtool is not installed")
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_promtool_agrees(file: Path) -> None:
    done = subprocess.run(
        ["promtool", "test", "rules", str(cases_of(file))],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr

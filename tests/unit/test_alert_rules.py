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
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from enrich.status.metrics import EnrichCollector
from enrich.status.reader import Reading
from enrich.status.report import Status
from tests.unit.test_realtime_screens import Scene, counted

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "enrich-consumer-rules.yml"
TESTS = RULES.with_name("enrich-consumer-rules-test.yml")

#: A metric in an expression, with what it selects by.
METRIC = re.compile(r"\b(enrich_\w+)(?:\{([^}]*)\})?")
SELECTOR = re.compile(r'(\w+)=~?"([^"]*)"')


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


@pytest.fixture(scope="module")
def scraped() -> dict[str, list[dict[str, str]]]:
    """Metric → labels of each of its samples, of a group in which everything has happened."""
    scene = Scene()
    counted(scene.ledger)
    scene.report((0, 100, 125)).report((1, 4, 6), name="host/2", doing="paused", why="x")
    reading = Reading(Status(realtime=scene.groups), True, False)
    registry = CollectorRegistry()
    registry.register(EnrichCollector(lambda: reading))
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


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


def test_each_alert_is_tested_firing_and_not_firing() -> None:
    fires: dict[str, set[bool]] = {}
    for case in yaml.safe_load(TESTS.read_text())["tests"]:
        for expected in case["alert_rule_test"]:
            fires.setdefault(expected["alertname"], set()).add(bool(expected["exp_alerts"]))
    assert fires == {rule["alert"]: {True, False} for rule in rules()}


@pytest.mark.skipif(not shutil.which("promtool"), reason="Prometheus' promtool is not installed")
def test_promtool_agrees() -> None:
    done = subprocess.run(
        ["promtool", "test", "rules", str(TESTS)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr

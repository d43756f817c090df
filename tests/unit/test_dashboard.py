"""The dashboard for Grafana: that it is what its description makes, names only what a scrape has,
and parses. Where promtool is installed, it parses the expressions."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.dashboard import COLOURS, ROWS, page
from enrich.status.reasons import Word
from tests.unit.every_metric import every_metric
from tests.unit.test_alert_rules import METRIC, SELECTOR

KEPT = Path(__file__).parents[2] / "deploy" / "grafana" / "dashboards" / "enrich.json"
MADE: dict[str, Any] = json.loads(KEPT.read_text())
PANELS = [panel for panel in MADE["panels"] if panel["type"] != "row"]

#: Metrics that no panel shows, and why not.
UNSHOWN = {
    "enrich_runs_total",  # what ended is shown
    "enrich_run_outcomes", "enrich_run_counts", "enrich_run_halted",  # of the last run alone
    "enrich_working_backlog_age_seconds",  # for an autoscaler
    "enrich_backlog_whole", "enrich_history_kept", "enrich_history_lag_runs",
    "enrich_interval_seconds",
    "enrich_realtime_usage_total",
}  # fmt: skip


def targets() -> list[tuple[str, dict[str, Any]]]:
    return [(panel["title"], target) for panel in PANELS for target in panel["targets"]]


def test_it_is_what_its_description_makes() -> None:
    assert KEPT.read_text() == page(), "of another version: make dashboard writes it"


def test_health_comes_first_and_then_what_operators_ask() -> None:
    assert [panel["title"] for panel in MADE["panels"] if panel["type"] == "row"] == [
        "Health", "Backlog and age", "Rate and outcomes", "Money", "Quota and pauses",
        "Embeddings API and cache", "Workers and queues", "Consumer of Kafka",
    ]  # fmt: skip
    assert len(PANELS) == sum(map(len, ROWS.values()))
    assert len({panel["id"] for panel in MADE["panels"]}) == len(MADE["panels"])


def test_every_word_of_the_health_has_a_colour() -> None:
    assert set(COLOURS) == set(Word)
    (health,) = [panel for panel in PANELS if panel["title"] == "Health"]
    overridden = {each["matcher"]["options"] for each in health["fieldConfig"]["overrides"]}
    assert overridden == {word.value for word in Word}


def test_no_panel_lies_on_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in MADE["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_expression_names_what_a_scrape_has() -> None:
    scraped = every_metric()
    shown = set()
    for title, target in targets():
        named = METRIC.findall(target["expr"])
        assert named, title
        for metric, selectors in named:
            shown.add(metric)
            assert metric in scraped, (title, metric)
            for label, values in SELECTOR.findall(selectors):
                if label != "job":
                    known = {labels.get(label) for labels in scraped[metric]}
                    assert set(values.split("|")) <= known, (title, metric, values)
            assert 'job="$job"' in selectors, (title, metric)
        grouped = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", target["expr"]))))
        legend = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        assert legend <= grouped, (title, "labels that are aggregated away")
        for label in legend:
            assert any(label in labels for metric, _ in named for labels in scraped[metric]), title
    histograms = {re.sub(r"_(bucket|count|sum)$", "", name) for name in scraped}
    plain = {re.sub(r"_bucket$", "", name) for name in shown}
    assert histograms - plain == UNSHOWN, "metrics that nobody can see"


@pytest.mark.skipif(not shutil.which("promtool"), reason="Prometheus' promtool is not installed")
def test_every_expression_parses(tmp_path: Path) -> None:
    rules = [
        {"record": f"shown:{n}", "expr": target["expr"].replace("$__rate_interval", "5m")}
        for n, (_, target) in enumerate(targets())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", str(file)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout

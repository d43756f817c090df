"""docs/realtime.md names each setting, outcome, code and metric of the consumer, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from enrich.ledger.realtime_summary import OUTCOMES
from enrich.realtime.messages import Poison
from enrich.setting_forms.kafka import KafkaSettings
from enrich.status import realtime
from tests.unit.test_alert_rules import scraped as scraped

PAGE = (Path(__file__).parents[2] / "docs" / "realtime.md").read_text()


def table(after: str) -> list[list[str]]:
    """The cells of the first table after some words."""
    rows = PAGE[PAGE.index(after) :].split("\n|", 1)[1].split("\n\n")[0]
    return [[cell.strip() for cell in row.strip("| ").split("|")] for row in rows.split("\n")]


def quoted(cells: list[str]) -> list[str]:
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def test_each_setting_and_its_default() -> None:
    rows = table("## Settings")
    shown = {name: row[1] for row in rows for name in quoted(row[:1])}
    assert set(shown) == {name.upper() for name in KafkaSettings.model_fields}
    for name, field in KafkaSettings.model_fields.items():
        default = field.default
        if isinstance(default, tuple):
            default = ",".join(default)
        if isinstance(default, str | int | float) and default != "":
            assert shown[name.upper()] == f"{default}", name


def test_each_outcome() -> None:
    assert sorted(quoted([row[0] for row in table("Each message ends in exactly one")])) == sorted(
        OUTCOMES
    )


def test_each_code_of_poison() -> None:
    shown = quoted([row[0] for row in table("**Poison** is counted")])
    assert sorted(shown) == sorted([*Poison, "document_refused"])


def test_each_reason_of_the_health() -> None:
    shown = quoted([row[0] for row in table("The health knows five")])
    assert sorted(shown) == sorted(realtime.CODES)


def test_each_metric(scraped: dict[str, list[dict[str, str]]]) -> None:
    shown = {name.partition("{")[0] for row in table("Metrics, from") for name in quoted(row[:1])}
    exposed = {
        re.sub(r"_(bucket|count|sum)$", "", name) for name in scraped if "_realtime_" in name
    }
    assert shown == exposed

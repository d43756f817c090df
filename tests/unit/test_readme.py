"""What the README and docs/ show is there: commands, options, files, settings, tests."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.main import get_command

from dev import settings_page
from enrich.cli import app, json_forms
from enrich.log_store.documents import OUR_FIELDS
from enrich.settings import Settings
from enrich.status.health import CODES
from enrich.status.metrics import EnrichCollector
from enrich.status.reader import Reading
from tests.unit.every_metric import backfill

ROOT = Path(__file__).parent.parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "deploy" / "README.md",
]
README = PAGES[0].read_text()

#: Variables of other programs that our pages speak of.
FOREIGN = {
    "OPENSEARCH_INITIAL_ADMIN_PASSWORD",
    "REDIS_PASSWORD",
}


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    shown = set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE))
    assert {"demo", "test"} <= shown
    for target in shown:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_commands_and_their_options_exist() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    table = README[README.index("## The command line") : README.index("## Seeing progress")]
    rows = re.findall(r"^\| (`(?!python).*?) \|", table, re.MULTILINE)
    shown = {word for row in rows for word in re.findall(r"`([a-z-]+)", row)}
    assert shown == set(commands)
    for row in rows:
        name = re.match(r"`([a-z-]+)", row)
        assert name is not None
        known = {option for p in commands[name[1]].params for option in p.opts}
        assert set(re.findall(r"--[a-z-]+|-k\b", row)) <= known, row


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_settings_and_tests_exist(page: Path) -> None:
    text = page.read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in link:
            assert (page.parent / link).exists(), link
    known = {name.upper() for name in Settings.model_fields} | FOREIGN
    for name in re.findall(
        r"\b(?:ENRICH|OPENSEARCH|OPENAI|EMBEDDING|REDIS|CACHE)_[A-Z_]+[A-Z]\b", text
    ):
        assert name in known, name
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    for name in re.findall(r"`(test_[a-z_]+)`", text):
        assert f"def {name}(" in tests, name
    for path in re.findall(r"`((?:tests|enrich|tasks|docs|deploy|dev)/[\w/.-]+)`", text):
        assert (ROOT / path).exists(), path


def test_the_table_of_metrics_has_each_metric_and_no_other() -> None:
    scraped = EnrichCollector(lambda: Reading(backfill(), True, True)).collect()
    names = {f"{m.name}_total" if m.type == "counter" else m.name for m in scraped}
    table = (ROOT / "docs" / "metrics.md").read_text()
    shown = re.findall(r"^\| (.*?) \|", table, re.MULTILINE)
    assert {name for row in shown for name in re.findall(r"`(enrich_\w+)", row)} == names


def test_the_page_of_settings_is_what_is_read() -> None:
    kept = (ROOT / "docs" / "settings.md").read_text()
    assert kept == settings_page.page(), "of another version: make settings-page writes it"
    for name in Settings.model_fields:
        assert f"| `{name.upper()}` |" in kept, name


def test_operations_have_each_reason_of_the_health() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    table = page.partition("## By the health's code")[2].partition("\n## ")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == sorted(CODES)
    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert set(re.findall(r"`python -m enrich ([a-z-]+)", page)) <= set(commands)


def test_each_stored_field_is_explained() -> None:
    page = (ROOT / "docs" / "stored-fields.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == OUR_FIELDS


def test_the_schemas_are_of_what_commands_print() -> None:
    kept = json.loads((ROOT / "docs" / "json-schemas.json").read_text())
    assert kept == json_forms.schemas(), "of another version: make schemas writes them"
    commands = get_command(app).commands  # type: ignore[attr-defined]
    with_json = {
        name
        for name, command in commands.items()
        if any("--json" in parameter.opts for parameter in command.params)
    }
    assert {name.partition(" ")[0] for name in kept} == with_json

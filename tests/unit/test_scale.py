"""docs/scale.md: its table is what the model says, and the rows that it names are in the matrix."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.model import Machine, main
from tests.chaos.matrix import ROWS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "scale.md").read_text()
TABLE = re.findall(
    r"^\| (10\^\d+) \| `(.*?)` \| ([\d,]+) \| (\w+) \| ([\d.,]+) \| ([\d,]+) "
    r"\| ([\d.]+) (GB|TB) \|$",
    PAGE,
    re.M,
)


@pytest.mark.parametrize(
    ("logs", "options", "rate", "binds", "hours", "dollars", "disk", "unit"),
    TABLE,
    ids=[" ".join(row[:2]) for row in TABLE],
)
def test_the_table_is_the_models(
    logs: str, options: str, rate: str, binds: str, hours: str, dollars: str, disk: str, unit: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert main(options.split()) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"{rate} vectors a second; {binds} binds" in told
    row = re.search(rf"{re.escape(logs)} │ ([\d.,]+) │ [\d.,]+ │ ([\d.,]+) │", told)
    assert row is not None
    assert (row[1], row[2]) == (hours, dollars)
    # The upper of the two figures that were measured for a log.
    bytes_of_all = 12.3e3 * 10 ** int(logs.partition("^")[2])
    assert float(disk) == pytest.approx(bytes_of_all / {"GB": 1e9, "TB": 1e12}[unit], rel=0.03)


def test_there_is_a_table() -> None:
    assert len(TABLE) == PAGE.count("\n| 10^") >= 6
    assert f"{Machine().finds_per_second:,.0f} logs/s" in PAGE


def test_the_rows_that_it_names_are_in_the_matrix() -> None:
    for page in (PAGE, (ROOT / "deploy" / "kubernetes" / "README.md").read_text()):
        rows = re.findall(r"rows? ((?:`[a-z-]+`(?:,? (?:and )?)?)+)", page)
        named = {name for group in rows for name in re.findall(r"`([a-z-]+)`", group)}
        assert named
        assert {name for name in named if not name.endswith("-")} <= set(ROWS)

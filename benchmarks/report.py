"""What is shown and kept: one table, and one JSON file that is whole or not there."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.rounds import Figure

_COLOURS = {"reached": "green", "missed": "red", "not measured": "yellow", "": ""}


def table_of(figures: Sequence[Figure]) -> Table:
    """One row for each figure, those without a target dim."""
    table = Table(title="benchmarks")
    for name in ("line", "figure", "value", "target", "verdict", "note"):
        table.add_column(name, overflow="fold", justify="right" if name == "value" else "left")
    last = ""
    for figure in figures:
        colour = _COLOURS[figure.verdict]
        verdict = f"[{colour}]{figure.verdict}[/]" if colour else ""
        table.add_row(
            figure.line if figure.line != last else "",
            figure.name,
            told(figure.value, figure.unit),
            f"{_SIGNS[figure.way]} {told(figure.bound, figure.unit)}" if figure.way else "",
            verdict,
            figure.note,
            style="" if figure.way else "dim",
            end_section=False,
        )
        last = figure.line
    return table


_SIGNS = {">=": "≥", "<=": "≤"}


def told(value: float | None, unit: str) -> str:
    """A number with as many digits as are worth reading, and its unit."""
    if value is None:
        return "—"
    if value == int(value) and abs(value) < 1e15:
        digits = f"{int(value):,}"
    elif abs(value) >= 100:
        digits = f"{value:,.0f}"
    elif abs(value) >= 10:
        digits = f"{value:.1f}"
    else:
        digits = f"{value:.3g}"
    return f"{digits} {unit}".rstrip()


def results_of(
    figures: Sequence[Figure], data: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that was measured, as JSON types."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "python": platform.python_version(),
            "load": list(os.getloadavg()),
        },
        "options": {name: _plain(value) for name, value in options.items()},
        "figures": [{**asdict(figure), "verdict": figure.verdict} for figure in figures],
        "data": dict(data),
    }


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file so that no reader, and no end of this program, ever leaves half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise

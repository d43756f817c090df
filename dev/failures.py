"""True logs: what real failures of libraries and servers wrote, and lines of libraries at work.

dev/failures.jsonl was captured once: each kind of failure was provoked on Linux with Python 3.11,
OpenSearch 3.5 and Valkey 9, and its logger's text was kept, with a placeholder such as {port} for
each value that differs between machines and runs. The code that did so is in the history of this
folder, up to commit 76bfa7f.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec

_CAPTURE = Path(__file__).with_suffix(".jsonl")


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """An ERROR log."""

    #: Name of the kind, e.g. "redis-wrong-type"; a kind may give more than one failure.
    kind: str
    service_name: str
    #: Name of the logger that wrote it.
    logger: str
    #: The log line and the traceback below it, with placeholders for what varies.
    message: str
    #: Whose words it carries: "opensearch", "redis", or "" for a library's own.
    server: str = ""


class Ordinary(msgspec.Struct, frozen=True, kw_only=True):
    """An INFO or WARN log."""

    #: "INFO" or "WARN".
    level: str
    service_name: str
    logger: str
    #: The log line, with placeholders as in a failure.
    message: str


def failures() -> list[Failure]:
    """Every failure, of all kinds."""
    return [msgspec.convert(row, Failure) for row in _rows() if row["level"] == "ERROR"]


def ordinary() -> list[Ordinary]:
    """INFO and WARN lines of libraries at work."""
    return [msgspec.convert(row, Ordinary) for row in _rows() if row["level"] != "ERROR"]


@cache
def _rows() -> list[dict[str, str]]:
    lines = _CAPTURE.read_text(encoding="utf-8").splitlines()
    return [msgspec.json.decode(line, type=dict[str, str]) for line in lines]

"""Reads a user's own log file, JSON or plain text, into logs as dev/sample_logs.py has them.

Formats are recognised line by line, so a file may mix them. What does not begin a log of its own (a
stack trace, an indented line) belongs to the log before it; no line of text is lost. Files are read
as a stream: memory holds one log at a time, and one more for each program whose lines are mixed.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from dev import log_json
from dev.log_bytes import LONGEST_LINE, Encoded, LogFileError, inspect, lines_of
from dev.log_entry import Entry
from dev.log_levels import of_text
from dev.log_lines import (
    CONTINUES,
    goes_on,
    is_open_csv,
    joins,
    level_within,
    second_line,
    start,
    unwrap,
)
from dev.sample_logs import SampleLog

__all__ = ["LogFileError", "Summary", "read_logs", "summarize"]

DEFAULT_PROJECT = "0e4d1c6a_93b7_4f25_a8d0_7c51fe2b6890"
#: A log of more characters than this is cut into several, so that a file without any line that
#: begins a log can't fill the memory.
LONGEST_MESSAGE = LONGEST_LINE

#: An object of JSON over more lines than this is taken as lines of text.
_MOST_JSON_LINES = 5_000
#: Programs whose logs are kept open side by side.
_MOST_SOURCES = 64

_NAMESPACE = uuid.UUID("3f1d9a52-6c0b-5e47-8a94-2b7d60c1e8f3")


@dataclass(slots=True)
class Summary:
    """What was read of a file, and what was not understood."""

    name: str
    encoding: str
    logs: int = 0
    errors: int = 0
    #: Logs that say no level; they count as INFO.
    without_level: int = 0
    #: Logs that neither say a time nor follow one that does; they have the file's own.
    without_time: int = 0
    #: Logs begun by no known head.
    not_understood: int = 0
    first: datetime | None = None
    last: datetime | None = None
    #: The first line that was not understood.
    example: str = ""
    #: A text of level ERROR, for a question about this file.
    error_text: str = ""

    def sentence(self) -> str:
        """One line for a person."""
        parts = [self.encoding, f"{self.logs:,} logs", f"{self.errors:,} ERROR"]
        if self.not_understood:
            parts.append(f"{self.not_understood:,} not understood (taken as INFO)")
        if self.without_level > self.not_understood:
            parts.append(f"{self.without_level - self.not_understood:,} more without a level")
        if self.first and self.last:
            span = f"times from {self.first:%Y-%m-%d %H:%M:%S} to {self.last:%Y-%m-%d %H:%M:%S}"
            parts.append(f"{span} UTC")
        if self.without_time:
            parts.append(f"{self.without_time:,} without a time (they get the file's own)")
        return f"{self.name}: {', '.join(parts)}"


def read_logs(
    path: Path, *, project: str = DEFAULT_PROJECT, summary: Summary | None = None
) -> Iterator[SampleLog]:
    """Yield the logs of a file, oldest line first; what is packed is unpacked on the way.

    A log's id follows from the file's name and its place in it, so reading again gives the same
    ids. Logs without a time carry that of the log before, or the file's own.

    Args:
        summary: counts what was read, where one is given.

    Raises:
        LogFileError: the file is missing, no regular file, unreadable, empty, or not a text.
    """
    encoded = inspect(path)
    modified = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return _read(path, encoded, project, modified, summary or Summary(path.name, encoded.name))


def summarize(path: Path) -> Summary:
    """Read a whole file and say what is in it.

    Raises:
        LogFileError: as `read_logs`.
    """
    summary = Summary(path.name, inspect(path).name)
    for _ in read_logs(path, summary=summary):
        pass
    return summary


def _read(
    path: Path, encoded: Encoded, project: str, modified: datetime, summary: Summary
) -> Iterator[SampleLog]:
    last_time = None
    for number, entry in enumerate(_entries(lines_of(path, encoded), modified)):
        last_time = entry.timestamp or last_time
        _finish(entry)
        _count(summary, entry, last_time)
        id_ = uuid.uuid5(_NAMESPACE, f"{path.name}:{number}")
        yield _log(entry, last_time or modified, project, id_)


def _finish(entry: Entry) -> None:
    """A log whose head says no level is an error if its text reports one."""
    if entry.level is None:
        entry.level = next((level for line in entry.lines if (level := of_text(line))), None)


def _count(summary: Summary, entry: Entry, time: datetime | None) -> None:
    summary.logs += 1
    summary.without_level += entry.level is None
    summary.without_time += time is None
    if not entry.headed and not entry.from_json and entry.level is None:
        summary.not_understood += 1
        summary.example = summary.example or entry.lines[0]
    if entry.timestamp:
        summary.first = min(summary.first or entry.timestamp, entry.timestamp)
        summary.last = max(summary.last or entry.timestamp, entry.timestamp)
    if entry.level == "ERROR":
        summary.errors += 1
        summary.error_text = summary.error_text or "\n".join(entry.lines)[:2000]


def _log(entry: Entry, timestamp: datetime, project: str, id_: uuid.UUID) -> SampleLog:
    log_id = str(id_)
    utc = timestamp.astimezone(UTC)
    document = {
        **entry.extra,
        "level": entry.level or "INFO",
        "message": "\n".join(entry.lines).rstrip(),
        "timestamp": utc.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "service_name": entry.service_name or entry.logger or "unknown",
        "log_id": log_id,
    }
    if entry.logger:
        document["logger"] = entry.logger
    return SampleLog(f"{project}_{utc.year:04d}_{utc.month:02d}", log_id, document)


# Grouping


def _entries(lines: Iterable[str], modified: datetime) -> Iterator[Entry]:
    # By source: where several programs' lines are mixed, each goes on with its own log.
    open_: dict[str, Entry] = {}
    for line, wrapped_at, source in _whole(lines):
        current = open_.get(source)
        if not line.strip() and not current:
            continue
        if current and _append(current, line):
            continue
        started = start(line, wrapped_at, modified)
        more = joins(started[0], current) if started and current else None
        if current and more is not None and _append(current, line, more):
            continue
        if not started and current and (current.headed or CONTINUES.match(line)):
            if _append(current, line, line):
                continue
            started = [replace(current, lines=[line])]
        if current:
            yield open_.pop(source)
        if not started:
            level = level_within(line)
            started = [Entry([line], level, wrapped_at, headed=False)]
        yield from started[:-1]
        begun = started[-1]
        begun.size = sum(map(len, begun.lines))
        begun.service_name = begun.service_name or source or None
        open_[source] = begun
        if len(open_) > _MOST_SOURCES:
            yield open_.pop(next(iter(open_)))
    yield from open_.values()


def _append(current: Entry, line: str, text: str | None = None) -> bool:
    """Add a line to the log before, if it belongs there and the log has room."""
    if text is None:
        if second := second_line(line, current):
            current.level, current.lines = second[0], [second[1]]
            return True
        text = goes_on(line, current)
        if text is None:
            return False
    if current.size + len(text) > LONGEST_MESSAGE:
        return False
    if current.headed and current.lines == [""]:
        # Oracle, Erlang and others give the time a line of its own.
        current.lines, current.apart = [text], True
    else:
        current.lines.append(text)
    current.size += len(text) + 1
    return True


def _whole(lines: Iterable[str]) -> Iterator[tuple[str, datetime | None, str]]:
    """Lines as their program wrote them, and objects of JSON as one line each."""
    # A container runtime cuts long lines and marks all pieces but the last as partial.
    partial = ""
    held: list[str] = []
    depth = 0
    for raw in lines:
        if held:
            held.append(raw)
            depth += log_json.balance(raw) if not is_open_csv(held[0]) else 0
            joined = "\n".join(held)
            closed = joined.count('"') % 2 == 0 if is_open_csv(held[0]) else depth <= 0
            if closed and (is_open_csv(held[0]) or log_json.entries_of(_bare(joined)) is not None):
                yield _bare(joined) if joined.startswith("{") else joined, None, ""
                held = []
            elif closed or len(held) >= _MOST_JSON_LINES or len(joined) >= LONGEST_MESSAGE:
                for each in held:
                    yield each, None, ""
                held = []
            continue
        stripped = raw.strip()
        if stripped in _LIST_MARKS and not partial:
            # The brackets around a list of objects, each of which stands on lines of its own.
            continue
        unwrapped = unwrap(partial, raw)
        if unwrapped.partial and len(unwrapped.line) < LONGEST_MESSAGE:
            partial = unwrapped.line
            continue
        partial = ""
        opens = stripped.startswith("{") and log_json.balance(stripped) > 0
        if (opens or is_open_csv(raw)) and unwrapped.time is None and not unwrapped.source:
            held, depth = [stripped if opens else raw], log_json.balance(stripped)
            continue
        yield _trim(unwrapped.line), unwrapped.time, unwrapped.source
    for each in held:
        yield each, None, ""
    if partial:
        yield partial, None, ""


_LIST_MARKS = ("[", "]", "],")


def _trim(line: str) -> str:
    """One object of a list that has one on each line."""
    bare = _bare(line)
    return bare if bare != line and log_json.parse(bare) is not None else line


def _bare(text: str) -> str:
    stripped = text.strip()
    if stripped.startswith("[{") and not stripped.endswith("]"):
        stripped = stripped[1:]
    if stripped.startswith("{") and stripped.endswith(("]", ",")):
        return stripped.rstrip(",]").rstrip() if not stripped.endswith("}") else stripped
    return stripped if stripped.startswith("{") else text

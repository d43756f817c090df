"""Reads a user's own log file, JSON lines or plain text, into logs as dev/sample_logs.py has them.

Formats are recognised line by line, so a file may mix them. What does not begin a log of its own (a
stack trace, an indented line) belongs to the log before it; no line of text is lost. Files are read
as a stream: memory holds one log at a time.
"""

from __future__ import annotations

import gzip
import uuid
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, cast

from dev.log_lines import CONTINUES, Entry, level_within, start, unwrap
from dev.sample_logs import SampleLog

DEFAULT_PROJECT = "0e4d1c6a_93b7_4f25_a8d0_7c51fe2b6890"
#: A log of more characters than this is cut into several, so that a file without any line that
#: begins a log can't fill the memory.
LONGEST_MESSAGE = 5_000_000

_NAMESPACE = uuid.UUID("3f1d9a52-6c0b-5e47-8a94-2b7d60c1e8f3")
# What the operating system and a damaged .gz raise.
_UNREADABLE = (OSError, EOFError, zlib.error)
_GZIP_MAGIC = b"\x1f\x8b"
_PROBE_BYTES = 8192


class LogFileError(ValueError):
    """The file can't be read as a log; the text says why in one sentence."""


def read_logs(path: Path, *, project: str = DEFAULT_PROJECT) -> Iterator[SampleLog]:
    """Yield the logs of a file, oldest line first; .gz is unpacked on the way.

    A log's id follows from the file's name and its place in it, so reading again gives the same
    ids. Logs without a time carry that of the log before, or the file's own.

    Raises:
        LogFileError: the file is missing, unreadable, empty, or not a text.
    """
    try:
        if path.is_dir():
            raise LogFileError(f"{path} is a folder, not a log file.")
        modified = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        _check_probe(path)
    except FileNotFoundError as error:
        raise LogFileError(f"{path} does not exist.") from error
    except _UNREADABLE as error:
        raise LogFileError(f"{path} can't be read: {_reason(error)}.") from error
    return _read(path, project, modified)


def _read(path: Path, project: str, modified: datetime) -> Iterator[SampleLog]:
    last_time = modified
    with _open(path) as stream:
        for number, entry in enumerate(_entries(_lines(path, stream), modified)):
            last_time = entry.timestamp or last_time
            yield _log(entry, last_time, project, uuid.uuid5(_NAMESPACE, f"{path.name}:{number}"))


def _lines(path: Path, stream: IO[bytes]) -> Iterator[str]:
    try:
        # A limit for one line, too: readline() gives up there and goes on with the rest.
        while line := stream.readline(LONGEST_MESSAGE):
            yield line.decode("utf-8", errors="replace").rstrip("\r\n").removeprefix("\ufeff")
    except _UNREADABLE as error:
        raise LogFileError(f"{path} can't be read to its end: {_reason(error)}.") from error


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP_MAGIC
    return cast(IO[bytes], gzip.open(path)) if packed else path.open("rb")


def _check_probe(path: Path) -> None:
    with _open(path) as stream:
        probe = stream.read(_PROBE_BYTES)
    if not probe.strip():
        raise LogFileError(f"{path} is empty.")
    if b"\x00" in probe:
        raise LogFileError(f"{path} is a binary file, not a log.")


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")


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
    current: Entry | None = None
    # A container runtime cuts long lines and marks all pieces but the last as partial.
    partial = ""
    for raw in lines:
        line, wrapped_at, is_partial = unwrap(partial, raw)
        if is_partial and len(line) < LONGEST_MESSAGE:
            partial = line
            continue
        partial = ""
        if not line.strip() and not current:
            continue
        started = start(line, wrapped_at, modified)
        if started is None and current and (current.headed or CONTINUES.match(line)):
            if current.size + len(line) <= LONGEST_MESSAGE:
                current.lines.append(line)
                current.size += len(line) + 1
                continue
            started = replace(current, lines=[line])
        if current:
            yield current
        current = started or Entry([line], level_within(line), wrapped_at)
        current.size = sum(map(len, current.lines))
    if partial:
        if current:
            yield current
        current = start(partial, None, modified) or Entry([partial])
    if current:
        yield current

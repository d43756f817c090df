"""Reads a user's own log file, JSON lines or plain text, into logs as dev/sample_logs.py has them.

Formats are recognised line by line, so a file may mix them. What does not begin a log of its own (a
stack trace, an indented line) belongs to the log before it; no line of text is lost. Files are read
as a stream: memory holds one log at a time.
"""

from __future__ import annotations

import gzip
import re
import uuid
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, cast

import orjson

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


@dataclass(slots=True)
class _Entry:
    lines: list[str]
    level: str | None = None
    timestamp: datetime | None = None
    service_name: str | None = None
    logger: str | None = None
    size: int = 0
    extra: dict[str, Any] = field(default_factory=dict)
    #: Begun by a time or a level: whatever has none of its own goes on with this log.
    headed: bool = False


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


def _log(entry: _Entry, timestamp: datetime, project: str, id_: uuid.UUID) -> SampleLog:
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


def _entries(lines: Iterable[str], modified: datetime) -> Iterator[_Entry]:
    current: _Entry | None = None
    # A container runtime cuts long lines and marks all pieces but the last as partial.
    partial = ""
    for raw in lines:
        line, wrapped_at, is_partial = _unwrap(partial, raw)
        if is_partial and len(line) < LONGEST_MESSAGE:
            partial = line
            continue
        partial = ""
        if not line.strip() and not current:
            continue
        started = _start(line, wrapped_at, modified)
        if started is None and current and (current.headed or _CONTINUES.match(line)):
            if current.size + len(line) <= LONGEST_MESSAGE:
                current.lines.append(line)
                current.size += len(line) + 1
                continue
            started = replace(current, lines=[line])
        if current:
            yield current
        current = started or _Entry([line], _level_within(line), wrapped_at)
        current.size = sum(map(len, current.lines))
    if partial:
        if current:
            yield current
        current = _start(partial, None, modified) or _Entry([partial])
    if current:
        yield current


def _unwrap(partial: str, line: str) -> tuple[str, datetime | None, bool]:
    """Take off what a container runtime has put around the line it was given."""
    if match := _CRI.match(line):
        return partial + (match["rest"] or ""), _iso(match["time"]), match["tag"] == "P"
    if line.startswith("{") and '"log"' in line and '"stream"' in line:
        record = _json(line)
        inner = record.get("log") if record else None
        if record and isinstance(inner, str) and "level" not in record:
            text = partial + inner.rstrip("\n")
            return text, _any_time(record.get("time")), not inner.endswith("\n")
    return partial + line, None, False


def _start(line: str, wrapped_at: datetime | None, modified: datetime) -> _Entry | None:
    """The log that this line begins, or None when it goes on with the one before."""
    if line.startswith("{") and (record := _json(line)) is not None:
        entry = _from_json(line, record)
    elif _LOGFMT.match(line):
        entry = _from_json(line, {key: _unquote(value) for key, value in _PAIR.findall(line)})
    elif match := _KLOG.match(line):
        when = f"{modified.year}-{match['month']}-{match['day']}T{match['clock']}"
        entry = _Entry(
            [match["rest"]],
            _LEVELS[match["level"].lower()],
            _not_after(_iso(when), modified),
            extra={"source": match["source"]},
            headed=True,
        )
    elif match := _SYSLOG.match(line):
        entry = _from_syslog(match, modified)
    elif match := _TIME.match(line):
        entry = _from_head(match["rest"], _iso(match["time"]) or _other_time(match["time"]))
    elif match := _LEVEL_FIRST.match(line):
        entry = _from_head(line, None)
    else:
        return None
    entry.timestamp = entry.timestamp or wrapped_at
    return entry


# Plain text

_LEVELS = {
    **dict.fromkeys(("trace", "debug", "fine", "finer", "finest", "config", "t", "d"), "INFO"),
    **dict.fromkeys(("info", "information", "notice", "i", "n"), "INFO"),
    **dict.fromkeys(("warn", "warning", "w", "wrn"), "WARN"),
    **dict.fromkeys(("error", "err", "e", "eror", "severe", "fatal", "critical", "crit"), "ERROR"),
    **dict.fromkeys(("f", "c", "alert", "emerg", "emergency", "panic", "dpanic"), "ERROR"),
}
_LEVEL_WORD = (
    r"(?:TRACE|DEBUG|FINE|FINER|FINEST|CONFIG|INFO|INFORMATION|NOTICE|WARN|WARNING|WRN|ERROR|ERR"
    r"|SEVERE|FATAL|CRITICAL|CRIT|ALERT|EMERG|EMERGENCY|PANIC|DPANIC)"
)
# What goes on with a log that no time or level began: a trace, or an indented line.
_CONTINUES = re.compile(
    r"\s|$|\}|Traceback \(most|Caused by:|Suppressed:|\.\.\. \d+ more"
    r"|During handling of|The above exception"
    r"|(?:[A-Za-z_][\w$]*\.)*[A-Z][\w$]*(?:Error|Exception|Timeout|Exit|Interrupt)\b"
)
# 2026-11-22 10:11:12,345, 2026-11-22T10:11:12.345Z, 2026/11/22 10:11:12, 22/Nov/2026:10:11:12 +0000
_TIME = re.compile(
    r"\[?(?P<time>\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?"
    r"(?: ?(?:Z|UTC|[+-]\d\d:?\d\d))?"
    r"|\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}|\d\d:\d\d:\d\d[.,]\d{3})"
    r"(?:\]|(?=\s)|$)\s*(?P<rest>.*)",
    re.DOTALL,
)
_CRI = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\dT\S+) (?:stdout|stderr) (?P<tag>[FP])(?: (?P<rest>.*)|(?P<none>)$)"
)
_SYSLOG = re.compile(
    r"(?:<(?P<priority>\d{1,3})>)?(?P<time>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d) (?P<host>\S+) "
    r"(?P<program>[^\s:\[]+)(?:\[(?P<pid>\d+)\])?: (?P<rest>.*)"
)
# Go's glog and Kubernetes' klog: E1122 10:11:12.345678  1234 file.go:56] message
_KLOG = re.compile(
    r"(?P<level>[IWEF])(?P<month>\d\d)(?P<day>\d\d) (?P<clock>\d\d:\d\d:\d\d\.\d{6})\s+\d+ "
    r"(?P<source>[^\s\]]+:\d+)\] (?P<rest>.*)"
)
# Go's logrus and slog: time=2026-11-22T10:11:12Z level=error msg="the message"
_LOGFMT = re.compile(r"(?:time|ts|t|level|lvl)=.*\bmsg=")
_PAIR = re.compile(r"([A-Za-z_][\w.]*)=(\"(?:[^\"\\]|\\.)*\"|\S*)")
# "ERROR:name:message" (Python's default), "ERROR name - message", "[error] message". Without
# brackets it has to be in capitals: "Error in line 3" may be the middle of a trace.
_LEVEL_FIRST = re.compile(rf"(?:\[(?i:{_LEVEL_WORD})\]|{_LEVEL_WORD})(?=[\s:|-]|$)")
_LEVEL_ANYWHERE = re.compile(rf"\b{_LEVEL_WORD}\b")
_LEVEL_BRACKETED = re.compile(rf"[\[<(]\s*({_LEVEL_WORD})\s*[\])>]", re.IGNORECASE)
_HEAD_CHARACTERS = 200
_PYTHON_HEAD = re.compile(rf"(?P<level>{_LEVEL_WORD}):(?P<name>[A-Za-z_][\w.$-]*):(?P<rest>.*)")
_NAME_AFTER_LEVEL = re.compile(
    rf"(?:\[[^\]]*\]\s+)?\[?(?P<level>{_LEVEL_WORD})\s*\]?\s+(?:\d+\s+---\s+)?(?:\[[^\]]*\]\s+)*"
    # One word with a capital in front of a colon is an error's name rather than a logger's.
    r"(?P<name>(?![A-Z]\w*:)[A-Za-z_][\w.$/-]*)\s*(?::|\s-)\s+(?P<rest>.*)"
)
_NAME_BEFORE_LEVEL = re.compile(
    rf"-\s+(?P<name>[\w.$-]+)\s+-\s+(?P<level>{_LEVEL_WORD})\s+-\s+(?P<rest>.*)"
)
_JUST_LEVEL = re.compile(
    rf"(?:[\[<(](?P<level>(?i:{_LEVEL_WORD}))[\])>]|(?P<bare>{_LEVEL_WORD}))"
    r"\s*[:|-]?\s+(?P<rest>\S.*)"
)


def _from_head(rest: str, timestamp: datetime | None) -> _Entry:
    """A log from what stands behind its time: level and name where a known layout has them."""
    for layout in (_PYTHON_HEAD, _NAME_BEFORE_LEVEL, _NAME_AFTER_LEVEL):
        if match := layout.match(rest):
            level = _LEVELS[match["level"].lower()]
            return _Entry([match["rest"]], level, timestamp, logger=match["name"], headed=True)
    if match := _JUST_LEVEL.match(rest):
        level = _LEVELS[(match["level"] or match["bare"]).lower()]
        return _Entry([match["rest"]], level, timestamp, headed=True)
    return _Entry([rest], _level_within(rest), timestamp, headed=True)


def _level_within(line: str) -> str | None:
    """A level in brackets, or else a word in capitals, near the start of the line."""
    head = line[:_HEAD_CHARACTERS]
    if match := _LEVEL_BRACKETED.search(head):
        return _LEVELS[match[1].lower()]
    if match := _LEVEL_ANYWHERE.search(head):
        return _LEVELS[match[0].lower()]
    # A trace that nothing introduced.
    return "ERROR" if line.startswith(("Traceback (most recent", "Exception in thread")) else None


def _from_syslog(match: re.Match[str], modified: datetime) -> _Entry:
    try:
        parsed = datetime.strptime(f"{modified.year} {match['time']}", "%Y %b %d %H:%M:%S")
        timestamp = _not_after(parsed.replace(tzinfo=UTC), modified)
    except ValueError:
        timestamp = None
    entry = _from_head(match["rest"], timestamp)
    if match["priority"]:
        # RFC 3164, 4.1.1: severity is the priority modulo 8, 0 to 3 are error and worse.
        severity = int(match["priority"]) % 8
        entry.level = "ERROR" if severity <= 3 else "WARN" if severity == 4 else "INFO"
    entry.service_name = match["program"]
    entry.extra["host"] = match["host"]
    return entry


def _not_after(time: datetime | None, modified: datetime) -> datetime | None:
    """Formats without a year mean the latest one in which the time lies before the file's own."""
    if time is None or (time - modified).days < 1:
        return time
    try:
        return time.replace(year=time.year - 1)
    except ValueError:
        return None


# JSON

_LEVEL_KEYS = ("level", "severity", "levelname", "log.level", "loglevel", "lvl", "log_level")
_MESSAGE_KEYS = ("message", "msg", "log", "text", "event")
_TIME_KEYS = ("timestamp", "@timestamp", "time", "ts", "asctime", "datetime")
_SERVICE_KEYS = ("service", "service_name", "service.name", "app", "application", "logger", "name")
_LOGGER_KEYS = ("logger", "logger_name", "log.logger", "loggerName", "name")
_TRACE_KEYS = (
    "exc_info", "exception", "stack_trace", "stacktrace", "traceback", "stack", "error", "err",
    "error.message", "error.stack_trace", "err.stack",
)  # fmt: skip
# bunyan and pino write levels as numbers.
_LEVEL_NUMBERS = ((50, "ERROR"), (40, "WARN"), (0, "INFO"))


def _unquote(value: str) -> str:
    if not value.startswith('"'):
        return value
    try:
        return str(orjson.loads(value))
    except orjson.JSONDecodeError:
        return value[1:-1]


def _json(line: str) -> dict[str, Any] | None:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return record if isinstance(record, dict) else None


def _from_json(line: str, record: dict[str, Any]) -> _Entry:
    message = _first(record, _MESSAGE_KEYS)
    # Without a message the whole line is the text: nothing of the file is dropped silently.
    lines = [line if message is None else message]
    for key in _TRACE_KEYS:
        trace = _value(record, key)
        if isinstance(trace, str) and trace.strip() and not any(trace in line for line in lines):
            lines.append(trace)
    service = _value(record, "service")
    return _Entry(
        lines,
        _json_level(record),
        next((time for key in _TIME_KEYS if (time := _any_time(_value(record, key)))), None),
        service["name"]
        if isinstance(service, dict) and isinstance(service.get("name"), str)
        else _first(record, _SERVICE_KEYS),
        _first(record, _LOGGER_KEYS),
        extra={
            key: value
            for key in ("trace_id", "host", "thread", "duration_ms")
            if isinstance(value := record.get(key), str | int | float)
        },
    )


def _json_level(record: dict[str, Any]) -> str | None:
    for key in _LEVEL_KEYS:
        value = _value(record, key)
        if isinstance(value, str) and value.strip().lower() in _LEVELS:
            return _LEVELS[value.strip().lower()]
        if isinstance(value, int) and not isinstance(value, bool):
            return next((level for least, level in _LEVEL_NUMBERS if value >= least), None)
    return None


def _first(record: dict[str, Any], keys: tuple[str, ...]) -> str | None:
    for key in keys:
        value = _value(record, key)
        if isinstance(value, str) and value.strip():
            return value
    return None


def _value(record: dict[str, Any], key: str) -> Any:
    """A value by its key, "a.b" also as b within a."""
    if key in record or "." not in key:
        return record.get(key)
    outer, _, inner = key.partition(".")
    within = record.get(outer)
    return within.get(inner) if isinstance(within, dict) else None


# Times


def _any_time(value: Any) -> datetime | None:
    if isinstance(value, str):
        return _iso(value.strip()) or _other_time(value.strip())
    if isinstance(value, int | float) and not isinstance(value, bool):
        # Seconds reach 1e11 in the year 5138; what is above that counts in smaller units.
        for unit in (1, 1e3, 1e6, 1e9):
            if 0 < value / unit < 1e11:
                return datetime.fromtimestamp(value / unit, UTC)
    return None


_ISO_PARTS = re.compile(
    r"(\d{4})[-/](\d\d)[-/](\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,](\d{1,9}))?"
    r"(?: ?(Z|UTC|[+-]\d\d:?\d\d))?"
)


def _iso(text: str) -> datetime | None:
    """A time like ISO 8601; one without a zone counts as UTC."""
    match = _ISO_PARTS.fullmatch(text)
    if not match:
        return None
    year, month, day, clock, fraction, zone = match.groups()
    zone = "+00:00" if zone in (None, "Z", "UTC") else zone
    try:
        return datetime.fromisoformat(
            f"{year}-{month}-{day}T{clock}.{(fraction or '0')[:6]:0<6}{zone}"
        ).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _other_time(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, "%d/%b/%Y:%H:%M:%S %z")
    except ValueError:
        return None

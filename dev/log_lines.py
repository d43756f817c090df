"""What one line of a log file is: the beginning of a log in some format, or more of the one before.

Knows what container runtimes, syslog, Go's, Java's and Python's loggers write, and JSON and logfmt
by whatever names their fields have.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson


@dataclass(slots=True)
class Entry:
    """One log of a file, as far as it was read."""

    lines: list[str]
    level: str | None = None
    timestamp: datetime | None = None
    service_name: str | None = None
    logger: str | None = None
    size: int = 0
    extra: dict[str, Any] = field(default_factory=dict)
    #: Begun by a time or a level: whatever has none of its own goes on with this log.
    headed: bool = False


def unwrap(partial: str, line: str) -> tuple[str, datetime | None, bool]:
    """Take off what a container runtime has put around the line it was given.

    Args:
        partial: the pieces of this line that came before.

    Returns:
        the line so far, its time, and whether more pieces follow.
    """
    if match := _CRI.match(line):
        return partial + (match["rest"] or ""), _iso(match["time"]), match["tag"] == "P"
    if line.startswith("{") and '"log"' in line and '"stream"' in line:
        record = _json(line)
        inner = record.get("log") if record else None
        if record and isinstance(inner, str) and "level" not in record:
            text = partial + inner.rstrip("\n")
            return text, _any_time(record.get("time")), not inner.endswith("\n")
    return partial + line, None, False


def start(line: str, wrapped_at: datetime | None, modified: datetime) -> Entry | None:
    """The log that this line begins, or None when it goes on with the one before."""
    if line.startswith("{") and (record := _json(line)) is not None:
        entry = _from_json(line, record)
    elif _LOGFMT.match(line):
        entry = _from_json(line, {key: _unquote(value) for key, value in _PAIR.findall(line)})
    elif match := _KLOG.match(line):
        when = f"{modified.year}-{match['month']}-{match['day']}T{match['clock']}"
        entry = Entry(
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
CONTINUES = re.compile(
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


def _from_head(rest: str, timestamp: datetime | None) -> Entry:
    """A log from what stands behind its time: level and name where a known layout has them."""
    for layout in (_PYTHON_HEAD, _NAME_BEFORE_LEVEL, _NAME_AFTER_LEVEL):
        if match := layout.match(rest):
            level = _LEVELS[match["level"].lower()]
            return Entry([match["rest"]], level, timestamp, logger=match["name"], headed=True)
    if match := _JUST_LEVEL.match(rest):
        level = _LEVELS[(match["level"] or match["bare"]).lower()]
        return Entry([match["rest"]], level, timestamp, headed=True)
    return Entry([rest], level_within(rest), timestamp, headed=True)


def level_within(line: str) -> str | None:
    """A level in brackets, or else a word in capitals, near the start of the line."""
    head = line[:_HEAD_CHARACTERS]
    if match := _LEVEL_BRACKETED.search(head):
        return _LEVELS[match[1].lower()]
    if match := _LEVEL_ANYWHERE.search(head):
        return _LEVELS[match[0].lower()]
    # A trace that nothing introduced.
    return "ERROR" if line.startswith(("Traceback (most recent", "Exception in thread")) else None


def _from_syslog(match: re.Match[str], modified: datetime) -> Entry:
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


def _from_json(line: str, record: dict[str, Any]) -> Entry:
    message = _first(record, _MESSAGE_KEYS)
    # Without a message the whole line is the text: nothing of the file is dropped silently.
    lines = [line if message is None else message]
    for key in _TRACE_KEYS:
        trace = _value(record, key)
        if isinstance(trace, str) and trace.strip() and not any(trace in line for line in lines):
            lines.append(trace)
    service = _value(record, "service")
    return Entry(
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

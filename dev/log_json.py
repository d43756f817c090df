"""Reads one record of JSON, by whatever names its fields have, as the logs that it holds.

Knows the shapes of ECS, OpenTelemetry, GELF, journald, MongoDB, Serilog, .NET, log4j, pino, bunyan,
structlog, CloudTrail, Cloud Logging, Azure and the Windows event log; others as they come.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import orjson

from dev.log_entry import Entry
from dev.log_levels import of_field, of_syslog, of_text
from dev.log_times import any_time

_LEVEL_KEYS = (
    "level", "severity", "levelname", "log.level", "loglevel", "lvl", "log_level",
    "leveldisplayname",
    "severitytext", "severity_text", "severity.text", "@l", "priority", "severitynumber",
    "severity_number", "levelno", "event.severity",
)  # fmt: skip
_MESSAGE_KEYS = (
    "renderedmessage", "@m", "message", "msg", "full_message", "short_message", "textpayload",
    "jsonpayload.message", "protopayload.status.message", "body", "log", "text", "event", "@mt",
    "messagetemplate", "properties.message", "resultdescription", "fields.message",
    "errormessage", "event_data.message",
)  # fmt: skip
_TIME_KEYS = (
    "timestamp", "@timestamp", "time", "ts", "@t", "asctime", "datetime", "date", "eventtime",
    "timecreated", "timeunixnano", "observedtimeunixnano", "timemillis", "instant",
    "__realtime_timestamp", "_source_realtime_timestamp", "receivetimestamp", "created", "t",
)  # fmt: skip
_SERVICE_KEYS = (
    "service", "service_name", "service.name", "app", "application", "syslog_identifier",
    "_systemd_unit", "resource.labels.container_name", "kubernetes.container_name", "logger",
    "category", "loggername", "sourcecontext", "providername", "name",
)  # fmt: skip
_LOGGER_KEYS = (
    "logger", "logger_name", "log.logger", "loggername", "category", "sourcecontext",
    "properties.sourcecontext", "name",
)  # fmt: skip
_TRACE_KEYS = (
    "exc_info", "exception", "stack_trace", "stacktrace", "traceback", "stack", "@x", "error",
    "err", "thrown", "error.message", "error.stack_trace", "error.stack", "err.stack", "exc_text",
    "jsonpayload.exception", "jsonpayload.stack_trace", "attributes.exception.stacktrace",
    "properties.exception",
)  # fmt: skip
#: Lists in which a service ships several records as one, with the key within each.
_ENVELOPES = ("records", "logevents", "entries", "events", "logs")
_ERROR_MESSAGE = 2_000
_BALANCE = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]]')


def parse(text: str) -> dict[str, Any] | None:
    """An object of JSON, or None."""
    try:
        record = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return record if isinstance(record, dict) else None


def balance(line: str) -> int:
    """How many more braces and brackets a line opens than it closes, outside of strings."""
    found = _BALANCE.findall(line)
    return sum((mark in "{[") - (mark in "}]") for mark in found if len(mark) == 1)


def entries_of(text: str) -> list[Entry] | None:
    """The logs in an object or a list of JSON, or None where the text is neither."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if isinstance(value, list):
        if not value or not all(isinstance(each, dict) for each in value):
            return None
        return [entry for record in value for entry in _records(record)]
    return list(_records(value, text)) if isinstance(value, dict) else None


def _records(record: dict[str, Any], text: str | None = None) -> Iterator[Entry]:
    if isinstance(record.get("resourceLogs"), list) and (found := list(_from_otlp(record))):
        yield from found
        return
    if len(record) <= 6:
        for key, value in record.items():
            if key.lower() in _ENVELOPES and _is_list_of_objects(value):
                for inner in value:
                    yield from _records(inner)
                return
    yield entry_of(record, text or orjson.dumps(record).decode())


def _objects(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def entry_of(record: dict[str, Any], line: str) -> Entry:
    """One record as a log; without a message the whole line is its text, so nothing is dropped."""
    fields = {key.lower(): value for key, value in record.items()}
    if "eventsource" in fields and "eventname" in fields:
        return _from_cloudtrail(fields, line)
    message = _message(fields)
    if message is not None and isinstance(fields.get("attr"), dict) and "msg" in fields:
        # MongoDB says in `attr` what its message is about.
        message = f"{message} {orjson.dumps(fields['attr']).decode()}"
    lines = [line if message is None else message]
    for key in _TRACE_KEYS:
        trace = _render(_value(fields, key))
        if trace and not any(trace in each for each in lines):
            lines.append(trace)
    service = _value(fields, "service")
    return Entry(
        lines,
        _level(fields, lines),
        next((time for key in _TIME_KEYS if (time := _time(_value(fields, key)))), None),
        service["name"]
        if isinstance(service, dict) and isinstance(service.get("name"), str)
        else _first(fields, _SERVICE_KEYS),
        _first(fields, _LOGGER_KEYS) or (_first(fields, ("c",)) if "attr" in fields else None),
        extra={
            key: value
            for key in ("trace_id", "host", "thread", "duration_ms")
            if isinstance(value := record.get(key), str | int | float)
        },
        from_json=True,
    )


def _message(fields: dict[str, Any]) -> str | None:
    for key in _MESSAGE_KEYS:
        value = _value(fields, key)
        if isinstance(value, dict):
            value = value.get("stringValue") or value.get("message") or value.get("msg")
        elif isinstance(value, list) and value and all(isinstance(each, int) for each in value):
            # journald writes a message that is not UTF-8 as its bytes.
            raw = bytes(each & 255 for each in value)
            try:
                value = raw.decode()
            except UnicodeDecodeError:
                value = raw.decode("cp1252", errors="replace")
        if isinstance(value, str) and value.strip():
            return value
    return None


def _level(fields: dict[str, Any], lines: list[str]) -> str | None:
    windows = any(key in fields for key in ("eventid", "providername", "leveldisplayname"))
    keys: tuple[str, ...] = _LEVEL_KEYS
    if "t" in fields or "attr" in fields:
        keys = (*keys, "s")
    if windows:
        keys = ("leveldisplayname", *keys)
    for key in keys:
        value = _value(fields, key)
        if key == "priority" and isinstance(value, str) and value.isdigit():
            return of_syslog(int(value))
        if level := of_field(key, value, windows=windows and key != "leveldisplayname"):
            return level
    # A trace says it as well; and Serilog's short form leaves only Information out.
    if "@t" in fields:
        return "INFO"
    if len(lines) > 1 or any(key in fields for key in ("exception", "errorcode", "stack_trace")):
        return "ERROR"
    return of_text(lines[0]) if "\n" in lines[0] or len(fields) == 1 else None


def _from_cloudtrail(fields: dict[str, Any], line: str) -> Entry:
    code, reason = fields.get("errorcode"), fields.get("errormessage")
    text = f"{fields['eventsource']} {fields['eventname']}"
    if code:
        text += f": {code}" + (f": {reason}" if reason else "")
    return Entry(
        [text if code else line],
        "ERROR" if code else "INFO",
        any_time(fields.get("eventtime")),
        str(fields["eventsource"]),
        from_json=True,
    )


def _from_otlp(record: dict[str, Any]) -> Iterator[Entry]:
    for resource in _objects(record["resourceLogs"]):
        attributes = _attributes(resource.get("resource"))
        for scope in _objects(resource.get("scopeLogs")):
            within = scope.get("scope")
            name = within.get("name") if isinstance(within, dict) else None
            for one in _objects(scope.get("logRecords")):
                own = _attributes(one)
                body = _plain(one.get("body"))
                entry = entry_of(
                    {
                        **{k: v for k, v in one.items() if k not in ("attributes", "body")},
                        "message": body if isinstance(body, str) else orjson.dumps(body).decode(),
                        "stack_trace": own.get("exception.stacktrace"),
                        "service_name": attributes.get("service.name"),
                        "logger": name,
                        "trace_id": one.get("traceId"),
                    },
                    orjson.dumps(one).decode(),
                )
                yield entry


def _attributes(holder: Any) -> dict[str, Any]:
    listed = _objects(holder.get("attributes")) if isinstance(holder, dict) else []
    return {
        each["key"]: _plain(each.get("value"))
        for each in listed
        if isinstance(each.get("key"), str)
    }


def _plain(value: Any) -> Any:
    """OpenTelemetry's {"stringValue": "x"} as "x"."""
    if isinstance(value, dict) and len(value) == 1:
        kind, inner = next(iter(value.items()))
        if kind.endswith("Value"):
            return inner
    return value


def _render(value: Any) -> str | None:
    """An error as text, where a library writes it as fields."""
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, list):
        texts = [text for each in value[:50] if (text := _render(each))]
        return "\n".join(texts) or None
    if not isinstance(value, dict):
        return None
    fields = {key.lower(): each for key, each in value.items()}
    stack = _first(fields, ("stack", "stack_trace", "stacktrace", "stacktracestring"))
    name = _first(fields, ("name", "type", "exc_type", "class", "classname", "kind"))
    told = _first(fields, ("message", "exc_value", "msg", "localizedmessage", "detail"))
    head = f"{name}: {told}" if name and told else told or name
    if stack:
        return stack if not head or (told or head) in stack else f"{head}\n{stack}"
    frames: list[Any] = next(
        (fields[key] for key in ("extendedstacktrace", "frames", "stacktrace", "backtrace")
         if isinstance(fields.get(key), list)), [],
    )  # fmt: skip
    lines = [head] if head else []
    for frame in frames:
        if isinstance(frame, str):
            lines.append(f"    {frame}")
        elif isinstance(frame, dict):
            place = frame.get("file") or frame.get("filename") or ""
            line = frame.get("line", frame.get("lineno", ""))
            function = frame.get("method") or frame.get("name") or frame.get("function") or ""
            owner = f"{frame['class']}." if isinstance(frame.get("class"), str) else ""
            lines.append(f"    at {owner}{function} ({place}:{line})")
    cause = _render(fields.get("cause") or fields.get("innerexception"))
    if cause:
        lines.append(f"Caused by: {cause}")
    return "\n".join(lines) or None


def _time(value: Any) -> datetime | None:
    if isinstance(value, dict):
        fields = {key.lower(): each for key, each in value.items()}
        if "$date" in fields:
            return _time(fields["$date"])
        if "$numberlong" in fields:
            return any_time(fields["$numberlong"])
        if "epochsecond" in fields and isinstance(fields["epochsecond"], int):
            nanos = fields.get("nanoofsecond")
            return any_time(fields["epochsecond"] + (nanos if isinstance(nanos, int) else 0) / 1e9)
        return _time(fields.get("systemtime")) if "systemtime" in fields else None
    return any_time(value)


def _first(fields: dict[str, Any], keys: tuple[str, ...]) -> str | None:
    for key in keys:
        value = _value(fields, key)
        if isinstance(value, str) and value.strip():
            return value
    return None


def _value(fields: dict[str, Any], key: str) -> Any:
    """A value by its key, "a.b" also as b within a."""
    if key in fields or "." not in key:
        return fields.get(key)
    outer, _, inner = key.partition(".")
    within = fields.get(outer)
    if not isinstance(within, dict):
        return None
    return _value({each.lower(): value for each, value in within.items()}, inner)

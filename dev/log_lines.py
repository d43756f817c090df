"""What one line of a log file is: the beginning of a log in some format, or more of the one before.

Takes off what container runtimes, compose and kubectl put before a line and what terminals colour
it with. Knows the heads that syslog, web servers, databases and the loggers of the common languages
write; records of JSON are read by log_json.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from dev import log_json
from dev.log_entry import Entry
from dev.log_levels import SMALL, WORD, of_syslog, of_text, of_word
from dev.log_times import any_time, head_time, not_after


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """A line without what a runtime put around it."""

    line: str
    #: As the runtime noted it.
    time: datetime | None = None
    #: More pieces of the same line follow.
    partial: bool = False
    #: Which of several programs wrote it, where their lines are mixed; "" where that is not said.
    source: str = ""


def unwrap(partial: str, line: str) -> Unwrapped:
    """Take off what a container runtime, compose, kubectl or a terminal has put around a line.

    Args:
        partial: the pieces of this line that came before.
    """
    if "\x1b" in line or "\\u001b" in line:
        line = _ESCAPE.sub("", line)
    if match := _CRI.match(line):
        whole = _inner(partial + (match["rest"] or ""))
        return Unwrapped(whole, any_time(match["time"]), match["tag"] == "P")
    if line.startswith("{") and '"log"' in line and '"stream"' in line:
        record = log_json.parse(line)
        inner = record.get("log") if record else None
        if record and isinstance(inner, str) and "level" not in record:
            text = _inner(partial + inner.rstrip("\n"))
            return Unwrapped(text, any_time(record.get("time")), not inner.endswith("\n"))
    source = ""
    if match := _KUBECTL.match(line) or _COMPOSE.match(line):
        source, line = match["source"], match["rest"]
        if match := _CRI.match(line):
            return Unwrapped(match["rest"] or "", any_time(match["time"]), source=source)
    return Unwrapped(partial + line, source=source)


def _inner(line: str) -> str:
    return _ESCAPE.sub("", line) if "\x1b" in line else line


def start(line: str, wrapped_at: datetime | None, modified: datetime) -> list[Entry]:
    """The logs that this line begins; none when it goes on with the one before."""
    entries = _start(line, modified)
    for entry in entries:
        entry.timestamp = entry.timestamp or wrapped_at
    return entries


def goes_on(line: str, entry: Entry) -> str | None:
    """What this line, though it has a head of its own, adds to the log before; None if nothing.

    A trace behind a prefix, PostgreSQL's DETAIL and STATEMENT, an exception of Android.
    """
    if not entry.prefix or entry.from_json:
        return None
    if line.startswith(entry.prefix):
        rest = line[len(entry.prefix) :]
        if _is_more(rest, entry):
            return rest
        if match := _POSTGRES_MORE.match(rest):
            return match["text"]
    return None


def joins(new: Entry, entry: Entry) -> str | None:
    """The text of a line that has a head of its own and is still a line of the trace before it."""
    if entry.from_json or len(new.lines) != 1:
        return None
    if new.alarm:
        # What an error's own log goes on to say, or the heart of a dump that has begun before.
        nested = not entry.alarm or _ERROR_HEAD.match(new.lines[0]) is not None
        more = entry.level == "ERROR" and nested
        opened = entry.apart or (entry.headed and not entry.lines[0])
        return new.lines[0] if more or opened else None
    if not (new.timestamp and entry.timestamp) or new.service_name != entry.service_name:
        return None
    apart = abs((new.timestamp - entry.timestamp).total_seconds())
    if new.raw and apart <= 5 and _is_more(new.raw, entry):
        return new.raw
    # Rails writes each line of an exception as a log of its own.
    fatal = new.prefix.startswith("F, [") and entry.prefix.startswith("F, [")
    return new.lines[0] if fatal and apart < 1 else None


def second_line(line: str, entry: Entry) -> tuple[str, str] | None:
    """Level and text of the second line of java.util.logging, whose first had only the time."""
    if entry.level or len(entry.lines) != 1 or not _JUL_FIRST.fullmatch(entry.lines[0]):
        return None
    match = _JUL_SECOND.match(line)
    return (level, match["rest"]) if match and (level := of_word(match["level"])) else None


def _is_more(text: str, entry: Entry) -> bool:
    if not text.strip() or _TRACE_LINE.match(text):
        return bool(text.strip()) or len(entry.lines) > 1
    if _SQL_SERVER.match(entry.lines[0]) and len(entry.lines) == 1:
        return True
    in_trace = _ANDROID.match(entry.lines[-1]) is not None or (
        len(entry.lines) > 1
        and (entry.lines[-1][:1] in " \t" or _TRACE_LINE.match(entry.lines[-1]) is not None)
    )
    return in_trace and _ERROR_NAME.match(text) is not None


# A person reads these as more of the log before, whatever stands in front of them.
_TRACE_LINE = re.compile(
    r"[ \t]+\S|Traceback \(most|Caused by:|Suppressed:|\.\.\. \d+ more|at [\w$.<>/ ]+\("
    r"|goroutine \d+ \["
    r"|During handling of|The above exception|Stack trace:|Process: \S+, PID: |#\d+ "
    r"|stack backtrace:|\d+: 0x"
)
_ANDROID = re.compile(r"FATAL EXCEPTION: |Process: \S+, PID: ")
_SQL_SERVER = re.compile(r"Error: \d+, Severity: \d+, State: \d+")
_ERROR_HEAD = re.compile(r"[\w$.]*(?:Error|Exception)\b")
_ERROR_NAME = re.compile(
    r"(?:[A-Za-z_][\w$]*[.:]+)*[A-Z][\w$]*(?:Error|Exception|Timeout|Exit|Interrupt|Warning)\b"
    r"|[\w$]+(?:\.[\w$]+)+: |During handling|The above"
)
# What goes on with a log that no time or level began: a trace, or an indented line.
CONTINUES = re.compile(
    r"\s|$|\}|Traceback \(most|Caused by:|Suppressed:|\.\.\. \d+ more"
    r"|During handling of|The above exception"
    r"|(?:[A-Za-z_][\w$]*\.)*[A-Z][\w$]*(?:Error|Exception|Timeout|Exit|Interrupt)\b"
)
_POSTGRES_MORE = re.compile(
    r"(?:\[[^\]]*\]:? |\S+@\S+ |\(\S+\) )*"
    r"(?P<text>(?:DETAIL|HINT|STATEMENT|CONTEXT|QUERY|LOCATION):  .*)",
    re.DOTALL,
)
_JUL_FIRST = re.compile(r"[\w$.]+\.?[\w$]+ [\w$<>]+")
_JUL_SECOND = re.compile(rf"(?P<level>{WORD}): (?P<rest>.*)", re.DOTALL)
_ESCAPE = re.compile(
    r"(?:\x1b|\\u001b)(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])"
)

# Prefixes

_CRI = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\dT\S+) (?:stdout|stderr) (?P<tag>[FP])(?: (?P<rest>.*)|(?P<none>)$)",
    re.DOTALL,
)
_KUBECTL = re.compile(r"\[(?P<source>(?:pod|container)/[^\]\s]+)\] ?(?P<rest>.*)", re.DOTALL)
_COMPOSE = re.compile(
    rf"(?!{WORD}\b)(?:\d+\|)?(?P<source>[a-z][\w.-]*) *\| ?(?P<rest>.*)", re.DOTALL
)

# Heads

_SYSLOG = re.compile(
    r"(?:<(?P<priority>\d{1,3})>)?(?P<time>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d) (?P<host>\S+) "
    r"(?P<program>[^\s:\[]+)(?:\[(?P<pid>\d+)\])?: (?P<rest>.*)",
    re.DOTALL,
)
# <165>1 2003-10-11T22:14:15.003Z host app 812 ID47 [id@1 key="value"] message
_RFC5424 = re.compile(
    r"<(?P<priority>\d{1,3})>1 (?P<time>\S+) (?P<host>\S+) (?P<program>\S+) (?P<pid>\S+) "
    r"(?P<id>\S+)"
    r" (?:-|(?:\[(?:[^\]\\\"]|\\.|\"(?:[^\"\\]|\\.)*\")*\])+)(?: \ufeff?(?P<rest>.*)|$)",
    re.DOTALL,
)
# Go's glog and Kubernetes' klog: E1122 10:11:12.345678  1234 file.go:56] message
_KLOG = re.compile(
    r"(?P<level>[IWEF])(?:(?P<year>\d{4}))?(?P<month>\d\d)(?P<day>\d\d) "
    r"(?P<clock>\d\d:\d\d:\d\d\.\d{6})\s+\d+ (?P<source>[^\s\]]+:\d+)\] (?P<rest>.*)",
    re.DOTALL,
)
# Go's logrus and slog: time=2026-11-22T10:11:12Z level=error msg="the message"
_LOGFMT = re.compile(
    r"(?=.*\b(?:level|lvl|severity|time|ts|t)=)[A-Za-z_@][\w.@-]*=(?:\"|\S).*\b(?:msg|message|err|error)="
)
_PAIR = re.compile(r"([A-Za-z_@][\w.@-]*)=(\"(?:[^\"\\]|\\.)*\"|\S*)")
# BGL and its like: alert, epoch, day, node, time, node, RAS, component, level, text
_BGL = re.compile(r"\S+ (?P<epoch>\d{10}) \d{4}\.\d\d\.\d\d (?P<host>\S+) (?P<rest>.*)", re.DOTALL)
_BGL_REST = re.compile(
    rf"\S+ (?P<host>\S+) \w+ (?P<name>\w+) (?P<level>{WORD}|FAILURE) (?P<rest>.*)"
)
# Ruby: E, [2026-11-22T10:11:12.345678 #1234] ERROR -- name: message
_RUBY = re.compile(
    rf"[A-Z], \[(?P<time>\S+(?: \S+)?) +#\d+\] +(?P<level>{WORD}|ANY) -- "
    r"(?P<name>[^:]*): (?P<rest>.*)",
    re.DOTALL,
)
# Redis: 1234:M 22 Nov 2026 10:11:12.345 # message
_REDIS = re.compile(r"\d+:[A-Z] (?P<rest>\d{1,2} [A-Z][a-z]{2} .*)", re.DOTALL)
_REDIS_REST = re.compile(r"\s*(?P<mark>[#*.-]) (?P<rest>.*)", re.DOTALL)
# Erlang: =ERROR REPORT==== 22-Nov-2026::10:11:12.345 ===
_ERLANG = re.compile(r"=(?P<level>[A-Z]+) REPORT==== (?P<day>[\w-]+)::(?P<clock>[\d:.]+) ===")
# Tornado and Jupyter: [E 2026-11-22 10:11:12.345 name] message
_LETTER_TIME = re.compile(r"\[(?P<level>[DIWECF]) (?P<rest>\d.*)", re.DOTALL)
_LETTER_REST = re.compile(r"\s*(?P<name>[^\]]*)\] (?P<rest>.*)", re.DOTALL)
# logrus on a terminal: ERRO[0012] message
_LOGRUS = re.compile(
    r"(?P<level>TRAC|DEBU|INFO|WARN|ERRO|FATA|PANI)\[\d{4,}\] (?P<rest>.*)", re.DOTALL
)
# .NET's console: fail: Category[13], the message indented below
_DOTNET = re.compile(
    r"(?P<level>trce|dbug|info|warn|fail|crit): (?P<name>[A-Za-z_][\w.`<>+]*)\[-?\d+\](?P<rest>.*)"
)
# CSV log of PostgreSQL
_POSTGRES_CSV = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)? [A-Z+\-\d]{1,5},(?:\"[^\"]*\")?,(?:\"[^\"]*\")?,\d*,"
)
# "ERROR:name:message" (Python's default), "ERROR name - message", "[error] message". Without
# brackets it has to be in capitals: "Error in line 3" may be the middle of a trace.
_LEVEL_FIRST = re.compile(
    rf"(?:\[(?i:{WORD})\]|{WORD})(?=[\s:|-]|$)"
    r"|(?:error|warn|warning|info|debug|fatal|critical): (?=\S)"
)
_LEVEL_THEN = re.compile(rf"\[?(?P<level>(?i:{WORD}))\]?[:|\t ]*\s*(?P<rest>\S.*)", re.DOTALL)
_LEVEL_ANYWHERE = re.compile(rf"(?<![\w-]){WORD}(?![\w-])")
_LEVEL_BRACKETED = re.compile(rf"[\[<(](?:[\w.-]*[:./])?\s*({WORD})\s*[\])>]", re.IGNORECASE)
_LEVEL_NAMED = re.compile(rf"\b(?:level|lvl|severity|at)[=:]\s*\"?({WORD})\b", re.IGNORECASE)
_OWN_PREFIX = re.compile(
    r"(?:\[[^\]]*\]:? )+(?=[A-Z]+:  )|<\d+\.\d+\.\d+> |[a-zA-Z]+\d* +(?=Error: \d+, Severity)"
)
_HEAD_CHARACTERS = 200

# Behind the time

_BRACKETED_NAME = r"\[(?P<name>[^\]]*?)\s*\]"
_LAYOUTS = tuple(
    re.compile(layout, re.DOTALL)
    for layout in (
        # Python's default
        rf"(?P<level>{WORD}):(?P<name>[A-Za-z_][\w.$-]*):(?P<rest>.*)",
        # celery, Serilog: the bracket of the time holds the level, too
        rf"[:,]? ?(?P<level>{WORD})(?:/(?P<name>[\w.-]+))?\] (?P<rest>.*)",
        # loguru: | ERROR    | module:function:12 - message
        rf"\| (?P<level>{WORD}) +\| (?P<name>[\w.<>]+):[\w.<>]+:\d+ - (?P<rest>.*)",
        rf"-\s+(?P<name>[\w.$-]+)\s+-\s+(?P<level>{WORD})\s+-\s+(?P<rest>.*)",
        # Laravel, Symfony: production.ERROR: message
        rf"(?P<name>[a-z][\w-]*)\.(?P<level>{WORD}): (?P<rest>.*)",
        # Elasticsearch, OpenSearch: [ERROR][o.e.b.Bootstrap ] [node] message
        rf"\[(?P<level>{WORD})\s*\]\s*{_BRACKETED_NAME}\s*(?P<rest>.*)",
        # WildFly: ERROR [org.jboss.as] (thread) message
        rf"(?P<level>{WORD})\s+\[(?P<name>[A-Za-z_][\w$]*(?:\.[\w$]+)+)\] "
        r"\((?P<thread>[^)]*)\) (?P<rest>.*)",
        # Tomcat: SEVERE [main] org.apache.Catalina.start message
        r"(?P<level>SEVERE|WARNING|INFO|CONFIG|FINE|FINER|FINEST) \[[^\]]*\] "
        r"(?P<name>[A-Za-z_][\w$]*(?:\.[\w$<>]+)+) (?P<rest>.*)",
        # Android: 1702  2395 D WindowManager: message
        r"\d+\s+\d+ (?P<level>[VDIWEF]) (?P<name>[^:]*?)\s*: (?P<rest>.*)",
        # OpenStack: 800 ERROR cinder.volume.api [req-… - - -] message
        rf"\d+ (?P<level>{WORD}) (?P<name>[A-Za-z_]\w*(?:\.\w+)+) (?P<rest>.*)",
        # level, logger, caller and message between tabs, as zap writes them
        rf"(?P<level>(?i:{WORD}))\t(?:(?P<name>[A-Za-z_][\w.-]*)\t(?!\{{))?(?:[\w./@-]+\.go:\d+\t)?(?P<rest>.*)",
        # One word with a capital in front of a colon is an error's name rather than a logger's.
        rf"(?:\d+ )?(?:\[[^\]]*\]\s+)?\[?(?P<level>{WORD})\s*\]?\s+"
        r"(?:\d+\s+---\s+)?(?:\[[^\]]*\]\s+)*"
        r"(?P<name>(?![A-Z]\w*:)[A-Za-z_][\w.$/-]*)\s*(?::|\s-)\s+(?P<rest>.*)",
        # gunicorn, MySQL, Envoy, MariaDB, Apache: [7] [ERROR] message, 0 [ERROR] [MY-1] message
        rf"(?:\[\d+\]\s*|\d+ )*\[(?:(?P<name>[\w.-]+):)?"
        rf"(?P<level>(?i:{WORD})\d?)\s*\]:?\s*(?P<rest>.*)",
        # AWS Lambda: an id between the time and the level
        rf"\t?[0-9a-f]{{8}}-[0-9a-f-]{{27}}\s+(?P<level>{WORD})\s+(?P<rest>.*)",
        rf"(?:[\[<(](?P<level>(?i:{WORD}))[\])>])\s*[:|-]?\s+(?P<rest>\S.*)",
        rf"(?P<level>{WORD})\s*[:|-]?\s+(?P<rest>\S.*)",
        # winston and others: - error: message
        rf"(?P<level>{SMALL})\s*(?:[:|]|\s-|\s\s)\s*(?P<rest>\S.*)",
        rf"\[[^\]]*\]\s+(?P<level>{SMALL}): (?P<rest>\S.*)",
        # WebSphere: 00000001 ServletWrappe E   message
        r"[0-9a-f]{8} (?P<name>\S+)\s+(?P<level>[EWIFAC])\s+(?P<rest>.*)",
        rf"(?P<level>{SMALL})\t(?P<rest>\S.*)",
    )
)
#: A program's name as syslog writes it behind an ISO time, with the host or without.
_PROGRAM = re.compile(
    r"(?:(?P<host>[\w.-]+) )?(?P<program>[A-Za-z_][\w./@-]*)\[[\w.-]+\]: (?P<rest>.*)", re.DOTALL
)
_SMALL_WORD = re.compile(rf"{SMALL}(?=\s)")
_CLOSED = re.compile(r"[\])>,:\"]?[ \t]*")
_SEPARATOR = re.compile(r"[-|][ \t]+|#\d+[\])]\s*")


def _start(line: str, modified: datetime) -> list[Entry]:
    if line and line[0] in "{[" and line[-1] in "}]," and (line[0] == "{" or line[1:2] in "{ "):
        found = log_json.entries_of(line.removesuffix(","))
        if found is not None:
            return found
    entry = _from_known(line, modified) or _from_time(line, modified)
    return [entry] if entry else []


def _from_known(line: str, modified: datetime) -> Entry | None:
    """A log with a head of one program or protocol alone."""
    if match := _RFC5424.match(line):
        entry = _head(match["rest"] or "", any_time(match["time"]), line)
        entry.level = of_syslog(int(match["priority"]) % 8)
        return _of_program(entry, match["program"], match["host"])
    if match := _KLOG.match(line):
        year = match["year"] or modified.year
        when = any_time(f"{year}-{match['month']}-{match['day']}T{match['clock']}")
        return Entry(
            [match["rest"]],
            of_word(match["level"]),
            when if match["year"] else not_after(when, modified),
            extra={"source": match["source"]},
            headed=True,
        )
    if match := _SYSLOG.match(line):
        time = head_time(match["time"], modified)
        entry = _head(match["rest"], time[0] if time else None, line)
        if match["priority"]:
            entry.level = of_syslog(int(match["priority"]) % 8)
        return _of_program(entry, match["program"], match["host"])
    if match := _POSTGRES_CSV.match(line):
        return _from_postgres_csv(line)
    if match := _RUBY.match(line):
        name = match["name"].strip() or None
        return Entry(
            [match["rest"]],
            of_word(match["level"]),
            any_time(match["time"]),
            logger=name,
            headed=True,
            prefix=line[: match.start("rest")],
        )
    if match := _BGL.match(line):
        rest = _BGL_REST.match(match["rest"])
        return Entry(
            [rest["rest"] if rest else match["rest"]],
            of_word(rest["level"]) if rest else level_within(match["rest"]),
            any_time(int(match["epoch"])),
            logger=rest["name"] if rest else None,
            extra={"host": match["host"]},
            headed=True,
        )
    if (match := _REDIS.match(line)) and (time := head_time(match["rest"], modified)):
        rest = _REDIS_REST.match(time[1])
        level = "WARN" if rest and rest["mark"] == "#" else "INFO"
        return Entry([rest["rest"] if rest else time[1]], level, time[0], headed=True)
    if (match := _LETTER_TIME.match(line)) and (time := head_time(match["rest"], modified)):
        rest = _LETTER_REST.match(time[1])
        text = rest["rest"] if rest else time[1]
        logger = rest["name"] if rest else None
        return Entry([text], of_word(match["level"]), time[0], logger=logger or None, headed=True)
    if (match := _LOGRUS.match(line)) or (match := _DOTNET.match(line)):
        category = match.groupdict().get("name")
        # The category stays part of the text: below it there may be nothing but an exception.
        text = match["rest"] if category is None else line.partition(": ")[2]
        word = match["level"].lower()
        grade = of_word({"trac": "trace", "debu": "debug"}.get(word, word))
        return Entry([text], grade, logger=category, headed=True)
    if match := _ERLANG.match(line):
        found = head_time(f"{match['day']} {match['clock']}", modified)
        return Entry([""], of_word(match["level"]), found[0] if found else None, headed=True)
    if _LOGFMT.match(line):
        pairs = {key: _unquote(value) for key, value in _PAIR.findall(line)}
        return log_json.entry_of(pairs, line)
    return None


def _from_time(line: str, modified: datetime) -> Entry | None:
    """A log that a time or a level begins, or an alarm that nothing does."""
    opened = line[:1] in '[(<"'
    time = head_time(line[1:] if opened else line, modified)
    if time:
        return _head(time[1], time[0], line)
    if _LEVEL_FIRST.match(line):
        # Lambda, Django, Dropwizard: the time follows the level.
        then = _LEVEL_THEN.match(line)
        if then and (time := head_time(then["rest"].lstrip("[("), modified)):
            entry = _head(time[1], time[0], line)
            entry.level, entry.raw = of_word(then["level"]), ""
            return entry
        return _head(line, None, line)
    if of_text(line) == "ERROR" and not CONTINUES.match(line):
        return Entry([line], "ERROR", headed=True, alarm=True)
    return None


def _of_program(entry: Entry, program: str, host: str) -> Entry:
    entry.service_name = None if program == "-" else program
    entry.extra["host"] = host
    return entry


def _head(rest: str, timestamp: datetime | None, line: str) -> Entry:
    """A log from what stands behind its time: level and name where a known layout has them."""
    text = rest[_end(_CLOSED, rest) :]
    bare = text[_end(_SEPARATOR, text) :]
    for candidate in dict.fromkeys((rest, text, bare)):
        for layout in _LAYOUTS:
            if match := layout.match(candidate):
                parts = match.groupdict()
                entry = Entry(
                    [match["rest"]],
                    of_word(match["level"].rstrip("0123456789")),
                    timestamp,
                    logger=parts.get("name") or None,
                    headed=True,
                )
                return _with_prefix(entry, line)
    if match := _DOTNET.match(text):
        below = text.partition(": ")[2]
        name = match["name"]
        return Entry([below], of_word(match["level"]), timestamp, logger=name, headed=True)
    text = bare
    if match := _PROGRAM.match(text):
        inner = _head(match["rest"], timestamp, line)
        inner.service_name = match["program"]
        if match["host"]:
            inner.extra["host"] = match["host"]
        return inner
    level = level_within(text)
    if level is None and (small := _SMALL_WORD.match(text)):
        level = of_word(small[0])
    entry = _with_prefix(Entry([text], level, timestamp, headed=True), line)
    entry.raw = rest.removeprefix("]").removeprefix(" ")
    return entry


def _end(pattern: re.Pattern[str], text: str) -> int:
    match = pattern.match(text)
    return match.end() if match else 0


def _with_prefix(entry: Entry, line: str) -> Entry:
    text = entry.lines[0]
    if text and line.endswith(text):
        entry.prefix = line[: len(line) - len(text)]
    # PostgreSQL's text keeps its process in front: "[7] ERROR:  ...".
    # Erlang's and SQL Server's do likewise.
    if match := _OWN_PREFIX.match(text):
        entry.prefix += match[0]
        if _SQL_SERVER.match(text, match.end()):
            entry.lines = [text[match.end() :]]
    return entry


def level_within(line: str) -> str | None:
    """A level in brackets, or else a word in capitals, near the start of the line."""
    head = line[:_HEAD_CHARACTERS]
    for pattern in (_LEVEL_BRACKETED, _LEVEL_NAMED):
        if match := pattern.search(head):
            return of_word(match[1])
    # A text that reports a failure may speak of any level.
    if level := of_text(line):
        return level
    match = _LEVEL_ANYWHERE.search(head)
    return of_word(match[0]) if match else None


def _from_postgres_csv(line: str) -> Entry | None:
    fields = next(csv.reader([line], strict=False), [])
    if len(fields) < 14:
        return None
    level = of_word(fields[11])
    lines = [fields[13]]
    for title, place in (("DETAIL", 14), ("HINT", 15), ("CONTEXT", 18), ("STATEMENT", 19)):
        if len(fields) > place and fields[place]:
            lines.append(f"{title}:  {fields[place]}")
    time = head_time(fields[0], datetime.now(UTC))
    return Entry(lines, level, time[0] if time else None, logger=fields[2] or None, from_json=True)


def is_open_csv(line: str) -> bool:
    """Whether a line of PostgreSQL's CSV ends within quotes: the field goes on in the next."""
    return _POSTGRES_CSV.match(line) is not None and line.count('"') % 2 == 1


def _unquote(value: str) -> str:
    if not value.startswith('"'):
        return value
    try:
        return str(orjson.loads(value))
    except orjson.JSONDecodeError:
        return value[1:-1]

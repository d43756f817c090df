"""A user's own log file is read whole, whatever its format: each log with its level, time and
origin, and every stack trace with the log it belongs to.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dev.log_files import LONGEST_MESSAGE, LogFileError, read_logs, summarize
from dev.sample_logs import SampleLog

TRACE = """Traceback (most recent call last):
  File "/srv/app/pay.py", line 3, in charge
    connect()
ConnectionRefusedError: [Errno 111] Connection refused

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/srv/app/pay.py", line 5, in charge
RuntimeError: no gateway"""

JAVA_TRACE = """java.lang.IllegalStateException: no gateway
\tat com.shop.Pay.charge(Pay.java:31)
Caused by: java.net.ConnectException: Connection refused
\tat java.base/sun.nio.ch.Net.connect(Net.java:579)
\t... 12 more"""


def read(folder: Path, text: str | bytes, name: str = "app.log") -> list[SampleLog]:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    modified = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()
    os.utime(path, (modified, modified))
    return list(read_logs(path))


# One line of each format, all but two of the same moment: level, service or logger, message.
FORMATS = {
    "python": ("2026-11-22 10:11:12,345 ERROR pay.api: no answer", "ERROR", "pay.api", "no answer"),
    "python dashes": (
        "2026-11-22 10:11:12,345 - pay.api - WARNING - no answer",
        "WARN",
        "pay.api",
        "no answer",
    ),
    "log4j": (
        "2026-11-22 10:11:12,345 [main] ERROR com.shop.Pay - no answer",
        "ERROR",
        "com.shop.Pay",
        "no answer",
    ),
    "log4j level first": (
        "2026-11-22 10:11:12,345 FATAL [main] com.shop.Pay - no answer",
        "ERROR",
        "com.shop.Pay",
        "no answer",
    ),
    "spring boot": (
        "2026-11-22 10:11:12.345  INFO 4711 --- [nio-8080-exec-1] c.shop.Pay    : no answer",
        "INFO",
        "c.shop.Pay",
        "no answer",
    ),
    "iso with zone": (
        "2026-11-22T19:11:12.345678+09:00 ERROR pay.api: no answer",
        "ERROR",
        "pay.api",
        "no answer",
    ),
    "nginx": (
        "2026/11/22 10:11:12 [error] 31#31: *5 connect() failed (111: Connection refused)",
        "ERROR",
        "unknown",
        "31#31: *5 connect() failed (111: Connection refused)",
    ),
    "syslog": (
        "<27>Nov 22 10:11:12 web-1 payd[812]: no answer",
        "ERROR",
        "payd",
        "no answer",
    ),
    "syslog without priority": (
        "Nov 22 10:11:12 web-1 payd: CRITICAL no answer",
        "ERROR",
        "payd",
        "no answer",
    ),
    "kubernetes CRI": (
        "2026-11-22T10:11:12.345678901Z stderr F ERROR pay.api: no answer",
        "ERROR",
        "pay.api",
        "no answer",
    ),
    "docker json-file": (
        '{"log":"[warn] no answer\\n","stream":"stderr","time":"2026-11-22T10:11:12.345678901Z"}',
        "WARN",
        "unknown",
        "no answer",
    ),
    "go log": ("2026/11/22 10:11:12 no answer", "INFO", "unknown", "no answer"),
    "go slog": (
        'time=2026-11-22T10:11:12.345Z level=ERROR msg="no \\"answer\\"" service=pay',
        "ERROR",
        "pay",
        'no "answer"',
    ),
    "go klog": (
        "E1122 10:11:12.345678       1 pay.go:56] no answer",
        "ERROR",
        "unknown",
        "no answer",
    ),
    "postgres": (
        "2026-11-22 10:11:12.345 UTC [7] ERROR:  deadlock detected",
        "ERROR",
        "unknown",
        "[7] ERROR:  deadlock detected",
    ),
    "json": (
        '{"level":"error","message":"no answer","@timestamp":"2026-11-22T10:11:12.345Z",'
        '"service":"pay"}',
        "ERROR",
        "pay",
        "no answer",
    ),
    "json, epoch s": (
        '{"severity":"SEVERE","msg":"no answer","ts":1795342272.345,"logger":"pay"}',
        "ERROR",
        "pay",
        "no answer",
    ),
    "json, epoch ms": (
        '{"levelname":"WARNING","log":"no answer","time":1795342272345,"service_name":"pay"}',
        "WARN",
        "pay",
        "no answer",
    ),
    "json, ECS": (
        '{"log.level":"E","message":"no answer","@timestamp":"2026-11-22T10:11:12Z",'
        '"service":{"name":"pay"}}',
        "ERROR",
        "pay",
        "no answer",
    ),
    "json, pino": (
        '{"level":50,"time":1795342272345,"msg":"no answer"}',
        "ERROR",
        "unknown",
        "no answer",
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_line_of_each_format_is_understood(tmp_path: Path, name: str) -> None:
    line, level, service, message = FORMATS[name]

    [log] = read(tmp_path, line + "\n")

    assert log.document["level"] == level
    assert log.document["message"] == message
    assert log.document["service_name"] == service
    assert log.document["timestamp"].startswith("2026-11-22T10:11:12")
    assert log.index.endswith("_2026_11")


@pytest.mark.parametrize("trace", [TRACE, JAVA_TRACE], ids=["python", "java"])
@pytest.mark.parametrize("name", [name for name in FORMATS if "CRI" not in name])
def test_a_stack_trace_stays_with_its_log(tmp_path: Path, name: str, trace: str) -> None:
    line, _, _, message = FORMATS[name]

    logs = read(tmp_path, f"{line}\n{trace}\n{line}\n")

    assert [log.document["message"] for log in logs] == [f"{message}\n{trace}", message]


def test_a_stack_trace_stays_together_through_a_container_runtime(tmp_path: Path) -> None:
    head = "2026-11-22T10:11:12.345678901Z stderr"
    lines = [f"{head} F ERROR pay: no answer", *(f"{head} F {line}" for line in TRACE.split("\n"))]

    [log] = read(tmp_path, "\n".join(lines))

    assert log.document["message"] == f"no answer\n{TRACE}"


def test_pieces_of_a_line_cut_by_a_container_runtime_are_joined(tmp_path: Path) -> None:
    head = "2026-11-22T10:11:12.345Z stdout"

    [log] = read(tmp_path, f"{head} P ERROR pay: no\n{head} P  ans\n{head} F wer\n")

    assert log.document["message"] == "no answer"


@pytest.mark.parametrize("key", ["exc_info", "stack_trace", "exception"])
def test_a_trace_in_its_own_json_field_joins_the_message(tmp_path: Path, key: str) -> None:
    [log] = read(tmp_path, json.dumps({"level": "ERROR", "message": "no answer", key: TRACE}))

    assert log.document["message"] == f"no answer\n{TRACE}"


def test_lines_without_time_or_level_are_logs_of_their_own(tmp_path: Path) -> None:
    logs = read(tmp_path, f"starting\nlistening on 8080\n{TRACE}\nstopped\n")

    messages = [log.document["message"] for log in logs]
    assert messages == ["starting", f"listening on 8080\n{TRACE}", "stopped"]


def test_a_message_that_begins_with_an_error_name_keeps_it(tmp_path: Path) -> None:
    [log] = read(tmp_path, "2026-11-22 10:11:12 ERROR ValueError: bad amount\n")

    assert log.document["message"] == "ValueError: bad amount"


def test_a_syslog_month_that_lies_ahead_was_last_year(tmp_path: Path) -> None:
    [log] = read(tmp_path, "Dec 30 23:59:59 web-1 payd: no answer\n")

    assert log.document["timestamp"] == "2025-12-30T23:59:59.000Z"


def test_a_log_without_a_time_carries_that_of_the_log_before(tmp_path: Path) -> None:
    logs = read(tmp_path, "ERROR:pay:one\n2026-10-01 00:00:00 ERROR two\nERROR:pay:three\n")

    times = [log.document["timestamp"] for log in logs]
    assert times == ["2026-11-22T12:00:00.000Z", *["2026-10-01T00:00:00.000Z"] * 2]


def test_reading_twice_gives_the_same_logs(tmp_path: Path) -> None:
    text = "\n".join(line for line, *_ in FORMATS.values())

    assert read(tmp_path, text) == read(tmp_path, text)


def test_gzip_and_plain_give_the_same(tmp_path: Path) -> None:
    text = f"2026-11-22 10:11:12 ERROR no answer\n{TRACE}\n".encode()

    plain, packed = read(tmp_path, text, "a.log"), read(tmp_path, gzip.compress(text), "a.log")

    assert plain == packed


def test_a_line_that_is_not_utf8_is_read_in_the_encoding_it_has(tmp_path: Path) -> None:
    [log] = read(tmp_path, b"2026-11-22 10:11:12 ERROR caf\xe9 closed\n")

    assert log.document["message"] == "café closed"


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_the_text(tmp_path: Path) -> None:
    logs = read(tmp_path, "\ufeffERROR:pay:one\r\nERROR:pay:two\r\n")

    assert [log.document["message"] for log in logs] == ["one", "two"]


def test_an_endless_log_is_cut_rather_than_held_in_memory(tmp_path: Path) -> None:
    line = "x" * 1_000_000
    logs = read(tmp_path, "ERROR:pay:start\n" + f"{line}\n" * 12)

    assert len(logs) == 3
    assert all(len(log.document["message"]) <= LONGEST_MESSAGE + 10 for log in logs)
    assert sum(log.document["message"].count("x") for log in logs) == 12_000_000
    assert {log.document["level"] for log in logs} == {"ERROR"}


def test_what_is_no_log_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    text = b"2026-11-22 10:11:12 ERROR no answer\n" * 2000
    cases: dict[str, tuple[Any, str]] = {
        "empty.log": (b"", "is empty"),
        "blank.log": (b"\n \n", "is empty"),
        "picture.png": (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "is a binary file"),
        "damaged.gz": (b"\x1f\x8b\x08\x00damaged", "can't be read"),
        "cut.gz": (gzip.compress(text)[:60], "can't be read"),
    }
    for name, (content, sentence) in cases.items():
        with pytest.raises(LogFileError, match=sentence) as caught:
            read(tmp_path, content, name)
        assert str(caught.value).endswith(".") and "\n" not in str(caught.value)
    with pytest.raises(LogFileError, match="does not exist"):
        read_logs(tmp_path / "missing.log")
    with pytest.raises(LogFileError, match="is a folder"):
        read_logs(tmp_path)


LINES = st.one_of(
    st.sampled_from([line for line, *_ in FORMATS.values()]),
    st.sampled_from([*TRACE.split("\n"), *JAVA_TRACE.split("\n")]),
    # Control characters in numbers make it a binary file.
    st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=60),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(LINES, max_size=12))
def test_no_line_is_lost_and_order_is_kept(lines: list[str]) -> None:
    # A word that occurs nowhere else marks each line; the NUL would make it a binary file.
    marked = [line.replace("\0", "") + f" mark{number}." for number, line in enumerate(lines)]
    # Where a line has fields, the mark has to stand in the message.
    marked = [
        original.replace("no ", line.split()[-1])
        if original.startswith(('{"', "time=")) and "no " in original
        else line
        for original, line in zip(lines, marked, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        logs = read(Path(folder), "\n".join([*marked, "ERROR:end:last"]))

    text = "\n".join(log.document["message"] for log in logs)
    found = [text.find(f"mark{number}.") for number in range(len(lines))]
    assert -1 not in found
    assert found == sorted(found)
    assert all(log.document["level"] in {"ERROR", "WARN", "INFO"} for log in logs)


PROGRAMS = yaml.safe_load((Path(__file__).parent / "log_formats.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_programs_write_is_read_as_a_person_reads_it(tmp_path: Path, program: str) -> None:
    case = PROGRAMS[program]

    logs = read(tmp_path, case["file"])

    seen = [
        {
            "level": log.document["level"],
            "time": log.document["timestamp"],
            "text": log.document["message"],
        }
        for log in logs
    ]
    wanted = [{**log, "text": log["text"].rstrip()} for log in case["logs"]]
    assert seen == wanted


WRITTEN = {
    "euc-kr": ("결제 서버 연결이 거부되었습니다", "EUC-KR (guessed)"),
    "cp949": ("실패", "EUC-KR (guessed)"),
    "shift_jis": ("決済サーバーに接続できません", "Shift-JIS (guessed)"),
    "gb18030": ("支付服务器拒绝连接，请稍后再试", "GB18030 (guessed)"),
    "cp1251": ("не удалось подключиться к серверу", "Windows-1251 (guessed)"),
    "latin-1": ("Größe überschritten: naïve café", "Latin-1 (guessed)"),
    "utf-8": ("결제 서버", "UTF-8"),
    "utf-8-sig": ("결제 서버", "UTF-8"),
    "utf-16": ("결제 서버", "UTF-16"),
    "utf-16-le": ("결제 서버", "UTF-16"),
    "utf-16-be": ("no answer", "UTF-16"),
    "utf-32": ("결제 서버", "UTF-32"),
    "utf-32-le": ("결제 서버", "UTF-32"),
    "utf-32-be": ("결제 서버", "UTF-32"),
}


@pytest.mark.parametrize("encoding", WRITTEN)
def test_each_encoding_is_read_and_named(tmp_path: Path, encoding: str) -> None:
    text, name = WRITTEN[encoding]

    logs = read(tmp_path, f"2026-11-22 10:11:12 ERROR {text}\r\n".encode(encoding) * 2)

    assert [log.document["message"] for log in logs if log.document["message"]] == [text, text]
    assert summarize(tmp_path / "app.log").encoding == name


@pytest.mark.parametrize(
    "pack",
    [gzip.compress, bz2.compress, lzma.compress, lambda text: gzip.compress(text) * 2],
    ids=["gzip", "bzip2", "xz", "gzip of two members"],
)
def test_what_is_packed_is_unpacked(tmp_path: Path, pack: Any) -> None:
    line = b"2026-11-22 10:11:12 ERROR no answer\n"

    logs = read(tmp_path, pack(line))

    assert {log.document["message"] for log in logs} == {"no answer"}


def test_the_hole_that_a_rotation_leaves_is_no_part_of_the_log(tmp_path: Path) -> None:
    hole = b"\x00" * 70_000

    logs = read(tmp_path, hole + b"2026-11-22 10:11:12 ERROR bad \x00packet\n")

    assert [log.document["message"] for log in logs] == ["bad packet"]


def test_a_pipe_or_a_device_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")

    for path in (tmp_path / "fifo", Path("/dev/null")):
        with pytest.raises(LogFileError, match="is a pipe or a device"):
            read_logs(path)


@pytest.mark.parametrize(
    ("first", "sentence"),
    [
        (b"PK\x03\x04", "zip archive"),
        (b"\x28\xb5\x2f\xfd", "packed with zstd"),
        (b"LPKSHHRH", "journalctl"),
        (b"ElfFile\x00", "Get-WinEvent"),
    ],
)
def test_an_archive_is_refused_with_what_to_do(tmp_path: Path, first: bytes, sentence: str) -> None:
    with pytest.raises(LogFileError, match=sentence):
        read(tmp_path, first + b"\x00\x01" * 40)


def test_the_summary_says_what_was_read_and_what_was_not_understood(tmp_path: Path) -> None:
    read(
        tmp_path,
        "hello\n2026-11-22 10:11:12 ERROR no answer\n2026-11-22 10:13:12 INFO fine\n",
        "my.log",
    )

    summary = summarize(tmp_path / "my.log")

    assert summary.sentence() == (
        "my.log: UTF-8, 3 logs, 1 ERROR, 1 not understood (taken as INFO), times from "
        "2026-11-22 10:11:12 to 2026-11-22 10:13:12 UTC, 1 without a time (they get the file's own)"
    )
    assert summary.example == "hello"
    assert summary.error_text == "no answer"


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_in_a_sentence(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            read(Path(folder), content)
        except LogFileError as error:
            assert str(error).endswith(".")


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["level", "message", "time", "instant", "err", "thrown", "resourceLogs", "records",
                 "scopeLogs", "logRecords", "t", "attr", "msg", "service", "body", "$date",
                 "exception", "frames", "eventSource", "eventName"]
            ),
            inner,
            max_size=4,
        ),
        max_leaves=12,
    )
)  # fmt: skip
def test_any_json_is_read(value: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        logs = read(Path(folder), json.dumps(value) + "\nERROR:end:last")

    assert logs[-1].document["message"].endswith("last")

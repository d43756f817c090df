"""The built-in logs are true, agree between runs, and have the shape that they promise: how many
are errors, how many of those distinct, Korean or long, how they fall on projects and months.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import datetime
from typing import Any

import pytest

from dev.failures import Failure, Ordinary, failures, ordinary
from dev.sample_logs import LONG_CHARACTERS, PROJECTS, SampleLog, generate

ALL, ORDINARY = failures(), ordinary()
#: What libraries say by themselves; a server's words may have no traceback below.
FAILURES = [failure for failure in ALL if not failure.server]


@pytest.fixture(scope="module")
def logs() -> list[SampleLog]:
    return list(generate(5000, failures=FAILURES, ordinary=ORDINARY))


def errors_of(logs: list[SampleLog]) -> list[str]:
    return [log.document["message"] for log in logs if log.document["level"] == "ERROR"]


def as_bytes(logs: list[SampleLog]) -> bytes:
    return json.dumps([[log.index, log.id, log.document] for log in logs]).encode()


# What was captured


def test_there_are_many_kinds_and_each_has_its_own_text() -> None:
    assert len({failure.kind for failure in ALL}) > 110
    assert len({(failure.kind, failure.message) for failure in ALL}) == len(ALL)


def test_nothing_of_one_machine_is_left_in_the_texts() -> None:
    for one in (*FAILURES, *ORDINARY):
        files = re.findall(r'File "([^"]+)"', one.message)
        assert all(path.startswith(("/srv/app/", "/usr/lib/python3.11", "<")) for path in files)
        for found in ("/tmp/", "/home/", "/root", "127.0.0.1"):
            assert found not in one.message
        assert not re.search(r"0x[0-9a-f]{6}|[: =][3-6]\d{4}\b|failures-", one.message)


def test_each_failure_is_a_line_with_a_real_traceback_below() -> None:
    for failure in FAILURES:
        line, _, traceback = failure.message.partition("\n")
        assert line and not line.startswith(" ")
        assert "Traceback (most recent call last):" in traceback
        assert 'File "/srv/app/' in traceback
        assert failure.service_name and failure.logger


def test_failures_are_what_they_are_called() -> None:
    texts: dict[str, str] = {}
    for failure in ALL:
        texts[failure.kind] = texts.get(failure.kind, "") + failure.message
    expected = {
        "requests-refused": "[Errno 111] Connection refused",
        "tls-self-signed": "self-signed certificate",
        "tls-expired": "certificate has expired",
        "tls-wrong-host": "not valid for 'carrier.internal'",
        "openai-429": "openai.RateLimitError",
        "sql-locked": "database is locked",
        "json-too-deep": "RecursionError",
        "key-error-chain": "During handling of the above exception",
        "http-409": "The above exception was the direct cause",
        "exception-group": "unhandled errors in a TaskGroup (2 sub-exceptions)",
        # In the servers' own words; redis-py tells some by the exception's name.
        "redis-wrong-type": "WRONGTYPE",
        "redis-no-script": "NoScriptError",
        "redis-oom": "OutOfMemoryError",
        "redis-read-only": "ReadOnlyError",
        "redis-busy": "BUSY",
        "opensearch-no-index": "index_not_found_exception",
        "opensearch-conflict": "version_conflict_engine_exception",
        "opensearch-parse": "parsing_exception",
        "opensearch-bulk": "document(s) failed to index",
    }
    for kind, text in expected.items():
        assert text in texts[kind]
    assert "mapper_parsing_exception" in texts["opensearch-mapping"]
    assert re.search(r"\n\tat [^\n]+(\n.*)*\nCaused by: ", texts["opensearch-mapping"])


def test_ordinary_lines_come_from_libraries() -> None:
    assert {line.level for line in ORDINARY} == {"INFO", "WARN"}
    assert {"urllib3.connectionpool", "celery.app.trace", "asyncio"} <= {x.logger for x in ORDINARY}


# Multiplication


def test_the_same_call_gives_the_same_bytes(logs: list[SampleLog]) -> None:
    given: dict[str, Any] = {"failures": FAILURES, "ordinary": ORDINARY}

    assert as_bytes(list(generate(5000, **given))) == as_bytes(logs)
    assert as_bytes(list(generate(5000, seed=8, **given))) != as_bytes(logs)


def test_two_of_five_logs_are_errors_by_default(logs: list[SampleLog]) -> None:
    levels = Counter(log.document["level"] for log in logs)

    assert len(logs) == 5000
    assert levels["ERROR"] == 2000
    assert levels["INFO"] > levels["WARN"] > 300


@pytest.mark.parametrize("errors", [2_000, 20_000])
@pytest.mark.parametrize("share", [0.1, 0.3])
def test_the_share_of_distinct_errors_holds(errors: int, share: float) -> None:
    logs = generate(
        errors, errors=errors, failures=FAILURES, ordinary=ORDINARY, distinct_share=share
    )
    messages = errors_of(list(logs))

    assert len(messages) == errors
    assert len(set(messages)) / errors == pytest.approx(share, abs=0.03)


def test_few_texts_make_up_most_of_the_errors(logs: list[SampleLog]) -> None:
    counts = [count for _, count in Counter(errors_of(logs)).most_common()]

    assert sum(counts[:75]) > len(errors_of(logs)) / 2
    assert counts[0] < len(errors_of(logs)) / 5


def test_every_kind_is_among_the_default_logs(logs: list[SampleLog]) -> None:
    known = {
        (failure.service_name, failure.logger)
        for failure in FAILURES
        if len(failure.message) < LONG_CHARACTERS
    }
    seen = {(log.document["service_name"], log.document["logger"]) for log in logs}
    assert known <= seen


def test_some_errors_are_korean_and_some_long(logs: list[SampleLog]) -> None:
    messages = errors_of(logs)
    korean = [text for text in messages if re.match(r"[^\n]*[가-힣]", text)]
    long = [text for text in messages if len(text) >= LONG_CHARACTERS]

    assert len(korean) / len(messages) == pytest.approx(0.08, abs=0.02)
    assert all("Traceback (most recent call last)" in text for text in korean)
    assert 0.005 < len(long) / len(messages) < 0.03
    assert max(map(len, messages)) <= 31_000


def test_logs_fall_on_three_unequal_projects_and_two_months(logs: list[SampleLog]) -> None:
    for project, share in PROJECTS.items():
        of_project = [log for log in logs if log.index.startswith(project)]
        assert len(of_project) / len(logs) == pytest.approx(share, abs=0.03)
    assert {log.index[-7:] for log in logs} == {"2026_10", "2026_11"}
    assert len({log.index for log in logs}) == 6


def test_documents_have_the_fields_of_a_log(logs: list[SampleLog]) -> None:
    for log in logs:
        document = log.document
        assert re.fullmatch(r"[0-9a-f]{32}", document["trace_id"])
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", document["log_id"])
        assert document["log_id"] == log.id
        at = datetime.strptime(document["timestamp"], "%Y-%m-%dT%H:%M:%S.%fZ")
        assert log.index.endswith(f"{at:_%Y_%m}") and len(document["timestamp"]) == 24
        assert isinstance(document["duration_ms"], float) and document["duration_ms"] > 0
        assert set(document["labels"]) == {"region", "version", "attempt"}
        assert document["host"] and document["thread"] and document["logger"]
        assert not re.search(r"\{(host|port|id|order|customer|sku|n|s)\}", document["message"])
    assert len({log.id for log in logs}) == len(logs)


def test_one_message_names_one_host_and_one_order(logs: list[SampleLog]) -> None:
    for message in errors_of(logs):
        if len(message) < LONG_CHARACTERS:
            assert len(set(re.findall(r"host='([\d.]+)'", message))) <= 1


def test_a_failure_with_nothing_that_varies_is_multiplied_all_the_same() -> None:
    failure = Failure(kind="same", service_name="shop", logger="shop", message="always the same")
    line = Ordinary(level="INFO", service_name="shop", logger="shop", message="started")

    logs = list(generate(10, errors=4, failures=[failure], ordinary=[line], months=["2027-02"]))

    assert errors_of(logs) == ["always the same"] * 4
    assert {log.index[-7:] for log in logs} == {"2027_02"}


def test_what_can_not_be_met_is_refused() -> None:
    line = Ordinary(level="INFO", service_name="shop", logger="shop", message="started")

    with pytest.raises(ValueError, match="between 0 and 5"):
        generate(5, errors=6, failures=[], ordinary=[line])
    with pytest.raises(ValueError, match="nothing to multiply"):
        generate(5, errors=1, failures=[], ordinary=[line])
    with pytest.raises(ValueError, match="distinct_share"):
        generate(5, errors=0, failures=[], ordinary=[line], distinct_share=0)
    with pytest.raises(ValueError, match="YYYY-MM"):
        list(generate(5, errors=0, failures=[], ordinary=[line], months=["October"]))

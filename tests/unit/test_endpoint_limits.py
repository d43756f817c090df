"""What an endpoint was found to take: kept for all workers, only ever lowered, forgotten, shown."""

from __future__ import annotations

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.embedding.limits import EndpointLimits, OwnLimits, SharedLimits, limits_of
from enrich.ledger import Ledger
from enrich.ledger.endpoint import LIMITS_KEPT_SECONDS
from enrich.status.report import EndpointLimitsReport, read_status
from enrich.text.extract import CUT_MARK, LEAST_CUT_BYTES, cut

REPEATABLE = settings(deadline=None, max_examples=150, derandomize=True)


@pytest.fixture
def ledger(connection: redis.Redis) -> Ledger:
    connection.flushall()
    return Ledger(connection, "enrich:")


def shared(ledger: Ledger, space: str = "a") -> SharedLimits:
    return SharedLimits(space, ledger.endpoint.limits, ledger.endpoint.record_limits)


@REPEATABLE
@given(st.lists(st.builds(EndpointLimits, **dict.fromkeys(
    ("inputs", "request_bytes", "text_bytes"), st.integers(0, 9))), max_size=6))  # fmt: skip
def test_limits_are_only_ever_lowered(found: list[EndpointLimits]) -> None:
    limits = OwnLimits()
    for each in found:
        limits.lower(each)
    for name in ("inputs", "request_bytes", "text_bytes"):
        known = [value for each in found if (value := getattr(each, name))]
        assert getattr(limits.read(), name) == min(known, default=0)


def test_what_one_worker_found_holds_for_all_of_its_space(
    ledger: Ledger, connection: redis.Redis
) -> None:
    assert shared(ledger).read() == EndpointLimits()
    shared(ledger).lower(EndpointLimits(inputs=32))
    shared(ledger).lower(EndpointLimits(text_bytes=900))
    assert shared(ledger).read() == EndpointLimits(inputs=32, text_bytes=900)
    assert shared(ledger, "another model").read() == EndpointLimits()
    assert 0 < connection.ttl("enrich:endpoint_limits") <= LIMITS_KEPT_SECONDS


def test_nothing_found_writes_nothing(ledger: Ledger, connection: redis.Redis) -> None:
    shared(ledger).lower(EndpointLimits())
    assert not connection.exists("enrich:endpoint_limits")
    shared(ledger).lower(EndpointLimits(inputs=32))
    connection.expire("enrich:endpoint_limits", 5)
    # What is no lower must not keep it from being forgotten.
    shared(ledger).lower(EndpointLimits(inputs=40))
    assert connection.ttl("enrich:endpoint_limits") <= 5


def test_fields_of_another_version_count_for_nothing() -> None:
    assert limits_of({"inputs": 3, "colour": 7, "text_bytes": 0}) == EndpointLimits(inputs=3)


def test_status_tells_them(ledger: Ledger) -> None:
    assert read_status(ledger, None).endpoint_limits == {}
    shared(ledger).lower(EndpointLimits(inputs=32, text_bytes=1_200))
    assert read_status(ledger, None).endpoint_limits == {
        "a": EndpointLimitsReport(inputs=32, text_bytes=1_200)
    }
    (told,) = read_status(ledger, None).endpoint_limits.values()
    assert told.told() == "at most 32 texts a request, 1,200 bytes a text"


@REPEATABLE
@given(
    st.text(min_size=20, max_size=3_000).map(lambda text: "head " + text + " tail"),
    st.integers(LEAST_CUT_BYTES, 8_000),
)
def test_a_text_is_cut_to_any_size_and_keeps_both_ends(text: str, limit: int) -> None:
    short = cut(text, limit)
    size = len(text.encode())
    assert len(short.encode()) <= limit
    if size <= limit:
        assert short == text
    else:
        assert short.startswith("head")
        assert CUT_MARK in short
        assert short.endswith("tail")


def test_the_last_cause_is_kept_however_short_the_text_has_to_be() -> None:
    cause = "Caused by: java.sql.SQLException: connection closed\n"
    trace = (
        "first line\n" + "\tat some.Frame(Main.java:7)\n" * 200 + cause + "\tat x.Y(Z:1)\n" * 200
    )
    for limit in (200, 500, 1_000, 2_000, 8_000):
        assert "Caused by: java.sql.SQLException" in cut(trace, limit)

"""Traces: one a run, whoever does its parts, and nothing in them that a log said."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from enrich import tracing
from enrich.errors import TransientError
from enrich.log_store.connection import _operation
from enrich.tracing.otel import recorder_to
from tests.traces import Receiver, told

BEGAN, ENDED = datetime(2026, 11, 1, 12, tzinfo=UTC), datetime(2026, 11, 1, 12, 5, tzinfo=UTC)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    try:
        yield receiver
    finally:
        tracing.record_with(None)
        receiver.close()


def sent(receiver: Receiver) -> list[Any]:
    tracing.close()
    return receiver.spans()


def test_parts_of_a_run_are_in_the_span_that_its_closer_makes(receiver: Receiver) -> None:
    # Two processes that know of each other only the run's id.
    tracing.record_with(recorder_to(receiver.url))
    with tracing.part_of("r1", "chunk", work="chunk 7"), tracing.span("opensearch", method="GET"):
        pass
    tracing.close()
    tracing.record_with(recorder_to(receiver.url))
    tracing.ended("r1", BEGAN, ENDED, well=True, vectors=5)
    tracing.ended("r2", BEGAN, ENDED, well=False)

    by_name = {span.name: span for span in sent(receiver) if told(span).get("enrich.run") != "r2"}
    assert set(by_name) == {"run", "chunk", "opensearch"}
    run, chunk, call = by_name["run"], by_name["chunk"], by_name["opensearch"]
    assert run.trace_id == chunk.trace_id == call.trace_id
    assert not run.parent_span_id
    assert chunk.parent_span_id == run.span_id and call.parent_span_id == chunk.span_id
    assert (run.start_time_unix_nano, run.end_time_unix_nano) == (
        int(BEGAN.timestamp() * 1e9), int(ENDED.timestamp() * 1e9),
    )  # fmt: skip
    assert told(run) == {"enrich.run": "r1", "vectors": 5}
    (other,) = (span for span in sent(receiver) if told(span).get("enrich.run") == "r2")
    assert other.trace_id != run.trace_id and other.status.code == 2


def test_what_failed_is_told_by_its_class_alone(receiver: Receiver) -> None:
    tracing.record_with(recorder_to(receiver.url))
    with pytest.raises(TransientError), tracing.part_of("r1", "chunk"):
        raise TransientError("it quotes: card 4111 declined")
    (span,) = sent(receiver)
    assert told(span) == {"enrich.run": "r1", "error.type": "TransientError"}
    assert not span.events and not span.status.message
    assert b"declined" not in b"".join(receiver.bodies)


def test_what_is_no_part_of_a_run_is_not_recorded(receiver: Receiver) -> None:
    tracing.record_with(recorder_to(receiver.url))
    with tracing.span("opensearch"), tracing.part_of("", "tick"):
        pass
    assert sent(receiver) == []


def test_without_a_recorder_nothing_is_done() -> None:
    with tracing.part_of("r1", "chunk"), tracing.span("opensearch"):
        tracing.ended("r1", BEGAN, ENDED, well=True)
    tracing.close()


@pytest.mark.parametrize(
    ("path", "operation"),
    [
        ("/a_b_2026_11/_doc/an%20id", "_doc"),
        ("/_bulk", "_bulk"),
        ("/_plugins/_knn/stats", "_plugins"),
        ("/a_b_2026_11", "index"),
    ],
)
def test_no_id_of_a_document_is_in_a_span(path: str, operation: str) -> None:
    assert _operation(path) == operation

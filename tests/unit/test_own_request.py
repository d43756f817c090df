"""A delivery in the worker's main process: it waits by this host's clock, and a child that ran out
of memory ends its own task only."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from celery import Celery
from kombu.transport.virtual import Message

from tasks.own_request import OwnRequest
from tasks.retry import after

APP = Celery("test", broker="memory://", set_as_current=False)


@APP.task(name="work", shared=False, acks_late=True)
def work() -> None: ...


def request_of(on_ack: Any = None, **headers: Any) -> OwnRequest:
    told = {"lang": "py", "task": "work", "id": "1", "root_id": "1", **headers}
    message = Message(
        {"body": "", "headers": told, "properties": {"delivery_tag": "t", "delivery_info": {}}}
    )
    return OwnRequest(
        message, app=APP, task=work, headers=told, body=[[], {}, {}], decoded=True, on_ack=on_ack
    )


@pytest.mark.parametrize("hours", [-1, 0, 1])
def test_a_retry_is_due_by_this_hosts_clock(hours: int) -> None:
    sent = datetime.now(UTC) + timedelta(hours=hours, seconds=20)
    before = datetime.now(UTC)
    request = request_of(eta=sent.isoformat(), **after(20)["headers"])
    waits = timedelta(seconds=20)
    assert before + waits <= request.eta <= datetime.now(UTC) + waits


def test_what_does_not_wait_is_due_at_once() -> None:
    assert request_of().eta is None


def test_a_child_without_memory_does_not_end_the_worker(caplog: pytest.LogCaptureFixture) -> None:
    acknowledged: list[Any] = []
    request = request_of(on_ack=lambda *_: acknowledged.append(True))
    try:
        raise MemoryError
    except MemoryError:
        failure = ExceptionInfo()
    with caplog.at_level(logging.ERROR):
        request.on_failure(failure)
    # Acknowledged, for else it would be taken and fail again without end.
    assert acknowledged == [True]
    assert "work ran out of memory" in caplog.text

"""A delivery is unpacked before any task runs: whatever its body is, only its own refusal comes."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import InvalidTaskError
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu.exceptions import ContentDisallowed, DecodeError
from kombu.transport import virtual

from enrich.worker.envelope import UNREADABLE, check_task
from enrich.worker.transport import Message
from tasks.own_request import OwnRequest

REPEATABLE = settings(deadline=None, max_examples=300, derandomize=True)
APP = Celery("test", broker="memory://", set_as_current=False)
APP.conf.accept_content = ["json"]


@APP.task(name="work", shared=False)
def work(*_: Any) -> None: ...


class Channel:
    """What a message asks of its channel."""

    def prepare_message(self, *_: Any) -> None: ...

    codecs = virtual.Channel.codecs
    decode_body = virtual.Channel.decode_body


def payload(body: bytes, **headers: Any) -> dict[str, Any]:
    return {
        "body": base64.b64encode(body).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"lang": "py", "task": "work", "id": "1", "root_id": "1", **headers},
        "properties": {
            "delivery_tag": "t",
            "delivery_info": {"exchange": "enrich", "routing_key": "enrich.embed"},
            "body_encoding": "base64",
        },
    }


#: What Celery's consumer and ours log and drop; anything else would end the worker.
DROPPED = (*UNREADABLE, AttributeError, InvalidTaskError, DecodeError, ContentDisallowed)


#: What the transport drops, before the consumer sees anything.
REFUSED = tuple(kind for kind in DROPPED if kind is not AttributeError)


def request_of(message: dict[str, Any]) -> OwnRequest:
    """As a delivery goes through the transport, the consumer and the task's request."""
    received = Message(message, channel=Channel(), accept={"application/json"})
    check_task(received.headers, received.payload, {"work"})
    return OwnRequest(received, app=APP, task=work, headers=received.headers)


GOOD = json.dumps([[1, "two"], {"three": 3}, {"callbacks": None, "errbacks": None}]).encode()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
BODIES = (
    st.binary(max_size=80)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.tuples(st.integers(0, len(GOOD)), st.integers(0, 5), st.binary(max_size=3)).map(
        lambda cut: GOOD[: cut[0]] + cut[2] + GOOD[cut[0] + cut[1] :]
    )
)


def test_a_good_body_is_taken() -> None:
    assert request_of(payload(GOOD)).args == [1, "two"]


@pytest.mark.long
@REPEATABLE
@given(BODIES)
def test_any_body_is_taken_or_refused(body: bytes) -> None:
    with suppress(*DROPPED):
        request_of(payload(body))


@pytest.mark.long
@REPEATABLE
@given(
    st.sampled_from(["body_encoding", "delivery_tag", "priority", "reply_to"]),
    st.text(max_size=8) | JSON,
)
def test_any_property_is_taken_or_refused(name: str, value: Any) -> None:
    message = payload(GOOD)
    message["properties"][name] = value
    with suppress(*REFUSED):
        request_of(message)


@pytest.mark.long
@REPEATABLE
@given(st.sampled_from(["eta", "expires", "timelimit", "retries", "wait", "argsrepr"]), JSON)
def test_any_header_is_taken_or_refused(name: str, value: Any) -> None:
    with suppress(*DROPPED):
        request_of(payload(GOOD, **{name: value}))

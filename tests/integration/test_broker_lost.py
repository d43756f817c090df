"""A broker that is lost while a message is held is given up without ending the worker."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from kombu import Connection, Consumer, Queue
from kombu.common import ignore_errors

from dev.services import Services


@pytest.fixture
def connection(clean: Services) -> Iterator[Connection]:
    with Connection(
        clean.environment()["REDIS_URL"],
        transport="enrich.worker.transport:Transport",
        transport_options={"global_keyprefix": "pipeline:"},
    ) as connection:
        yield connection


@pytest.fixture
def held(connection: Connection) -> Any:
    """A message that was taken and not acknowledged."""
    queue = Queue("lost", channel=connection.default_channel)
    queue.declare()
    with connection.Producer() as producer:
        producer.publish({}, routing_key="lost")
    taken: list[Any] = []
    Consumer(connection, [queue], on_message=taken.append).consume()
    connection.drain_events(timeout=5)
    (message,) = taken
    return message


#: What kombu leaves without a value: the connection, when Redis went away in the middle of closing
#: its channel; the channel's way to it, for a task that ends when the connection was replaced.
LEFT = {"given up": ("transport", "client"), "closed": ("channel", "connection")}


@pytest.mark.parametrize("state", LEFT)
def test_what_is_held_then_can_neither_be_acknowledged_nor_end_the_worker(
    clean: Services,
    connection: Connection,
    held: Any,
    monkeypatch: pytest.MonkeyPatch,
    state: str,
) -> None:
    owner, name = LEFT[state]
    monkeypatch.setattr(
        {"transport": connection.transport, "channel": held.channel}[owner], name, None
    )
    # Its pools were closed with it.
    for pool in ("_pool", "_async_pool"):
        monkeypatch.setattr(held.channel, pool, None)

    # As Celery does both: it takes a lost connection, and nothing else, for granted.
    held.ack_log_error(logging.getLogger(), connection.connection_errors)
    if state == "given up":
        ignore_errors(connection, held.channel.qos.restore_unacked)

    # The message is where it was, and comes back after the visibility time-out.
    with redis.Redis.from_url(clean.environment()["REDIS_URL"]) as witness:
        assert witness.hlen("pipeline:unacked") == 1

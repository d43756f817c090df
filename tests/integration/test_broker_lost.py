"""A broker that is lost while a message is held is given up without ending the worker."""

from __future__ import annotations

from typing import Any

import redis
from kombu import Connection, Consumer, Queue

from dev.services import Services


def test_a_channel_whose_connection_was_given_up_first_can_be_closed(clean: Services) -> None:
    url = clean.environment()["REDIS_URL"]
    connection = Connection(
        url,
        transport="enrich.broker:Transport",
        transport_options={"global_keyprefix": "pipeline:"},
    )
    channel = connection.default_channel
    queue = Queue("lost", channel=channel)
    queue.declare()
    with connection.Producer() as producer:
        producer.publish({}, routing_key="lost")
    taken: list[Any] = []
    Consumer(connection, [queue], on_message=taken.append).consume()
    connection.drain_events(timeout=5)
    assert len(taken) == 1

    # As kombu leaves it when Redis went away in the middle of closing the channel.
    connection.transport.client = None
    channel.close()

    # The message is where it was, and comes back after the visibility time-out.
    with redis.Redis.from_url(url) as witness:
        assert witness.hlen("pipeline:unacked") == 1

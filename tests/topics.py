"""Kafka's topics in the hands of a test: made, filled and looked at past the product.

The fixture `topics` (tests/conftest.py) gives a `Topics` on a broker of the tests, which starts
with the first test that asks for it, in some five seconds. Names are new each time, so that no
test sees what another left.

    def test_logs(topics: Topics) -> None:
        topic = topics.create(partitions=3)
        topics.produce(topic, [{"level": "ERROR", "message": "x"}, b"not json", None], partition=0)
        ...
        assert topics.committed("some-group", topic) == topics.ends(topic)
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from functools import partial
from typing import Any, TypeVar

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

TIMEOUT = 30.0

#: What a broker says that has just started, until it knows what it has.
STARTING = {
    *(KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.COORDINATOR_NOT_AVAILABLE),
    *(KafkaError.NOT_COORDINATOR, KafkaError.NOT_LEADER_FOR_PARTITION),
    *(KafkaError.LEADER_NOT_AVAILABLE, KafkaError.UNKNOWN_TOPIC_OR_PART),
    *(KafkaError._UNKNOWN_PARTITION, KafkaError._TRANSPORT),
}

T = TypeVar("T")


class Topics:
    """A client with all rights on one broker."""

    def __init__(self, servers: str, **options: Any) -> None:
        """
        Args:
            servers: what KAFKA_BOOTSTRAP_SERVERS takes.
            options: more of librdkafka's, with `_` for `.`, for a broker that asks for a login.
        """
        self.servers = servers
        self.options = {
            "bootstrap.servers": servers,
            # Says on stderr that a broker was ended, which a test may do.
            "log_level": 0,
            **{name.replace("_", "."): value for name, value in options.items()},
        }
        self.admin = AdminClient(self.options)

    def create(self, name: str = "", *, partitions: int = 1, **config: Any) -> str:
        """Make a topic and return its name, a new one if none is given.

        Args:
            config: the topic's settings, with `_` for `.`: `retention_ms=1000`.
        """
        name = name or f"logs-{uuid.uuid4().hex[:12]}"
        settings = {key.replace("_", "."): str(value) for key, value in config.items()}
        topic = NewTopic(name, partitions, 1, config=settings)
        self.admin.create_topics([topic])[name].result(TIMEOUT)
        return name

    def delete(self, topic: str) -> None:
        self.admin.delete_topics([topic])[topic].result(TIMEOUT)

    def widen(self, topic: str, partitions: int) -> None:
        """Give a topic more partitions, so many in all."""
        self.admin.create_partitions([NewPartitions(topic, partitions)])[topic].result(TIMEOUT)

    def produce(
        self,
        topic: str,
        values: Iterable[bytes | str | Mapping[str, Any] | None],
        *,
        partition: int | None = None,
        key: bytes | None = None,
        headers: list[tuple[str, bytes | None]] | None = None,
        timestamp: int | None = None,
        **options: Any,
    ) -> list[tuple[int, int]]:
        """Produce messages in this order and return partition and offset of each.

        Args:
            values: a mapping becomes JSON, None a tombstone, bytes stay as they are.
            timestamp: milliseconds since 1970, of Kafka's own.
            options: more of the producer's, with `_` for `.`: `compression_type="zstd"`.
        """
        producer = Producer(
            {
                **self.options,
                "acks": "all",
                "linger.ms": 5,
                "message.max.bytes": 20_000_000,
                "partitioner": "consistent_random",
                # Spreads a handful over all partitions, too.
                "sticky.partitioning.linger.ms": 0,
                **{name.replace("_", "."): value for name, value in options.items()},
            }
        )
        places: dict[int, tuple[int, int]] = {}
        failures: list[str] = []
        more = {
            name: value
            for name, value in (
                *(("partition", partition), ("key", key)),
                *(("headers", headers), ("timestamp", timestamp)),
            )
            if value is not None
        }
        count = 0

        def delivered(n: int, error: Any, message: Any) -> None:
            if error is not None:
                failures.append(str(error))
            else:
                places[n] = message.partition(), message.offset()

        for n, value in enumerate(values):
            count += 1
            encoded = json.dumps(value).encode() if isinstance(value, Mapping) else value
            done = partial(delivered, n)
            while True:
                try:
                    producer.produce(topic, encoded, on_delivery=done, **more)
                    break
                except BufferError:
                    producer.poll(0.1)
            producer.poll(0)
        left = producer.flush(TIMEOUT)
        assert not left and not failures, (left, failures[:3])
        return [places[n] for n in range(count)]

    def read(self, topic: str) -> list[bytes | None]:
        """The value of each message that is there, each partition's in its order."""
        left = {number: end for number, end in self.ends(topic).items() if end}
        reader = Consumer({**self.options, "group.id": "looks-only", "enable.auto.commit": False})
        values: list[bytes | None] = []
        with closing(reader):
            reader.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in left])
            deadline = time.monotonic() + TIMEOUT
            while left:
                assert time.monotonic() < deadline, f"partitions {sorted(left)} cannot be read"
                for message in reader.consume(1000, 0.1):
                    assert message.error() is None, message.error()
                    values.append(message.value())
                    if message.offset() + 1 >= left[message.partition()]:
                        del left[message.partition()]
        return values

    def ends(self, topic: str) -> dict[int, int]:
        """The offset that the next message of each partition will have."""
        asker = {**self.options, "group.id": "looks-only", "enable.auto.commit": False}
        with closing(Consumer(asker)) as reader:

            def ask() -> dict[int, int]:
                found = reader.list_topics(topic, timeout=TIMEOUT).topics[topic]
                if found.error is not None:
                    raise KafkaException(found.error)
                places = [TopicPartition(topic, number) for number in sorted(found.partitions)]
                return {
                    place.partition: int(reader.get_watermark_offsets(place, timeout=TIMEOUT)[1])
                    for place in places
                }

            return _once_started(ask)

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """The offsets that a group has committed; partitions without one are left out."""
        asked = ConsumerGroupTopicPartitions(group)
        try:
            answer = self.admin.list_consumer_group_offsets([asked])[group].result(TIMEOUT)
        except KafkaException as error:
            if error.args[0].code() not in STARTING:
                raise
            return {}
        return {
            one.partition: one.offset
            for one in answer.topic_partitions or ()
            if one.topic == topic and one.offset >= 0
        }

    def reset(self, group: str, topic: str, offset: int = 0) -> None:
        """Set what a group without members has committed, for all partitions of a topic."""
        wanted = [TopicPartition(topic, number, offset) for number in self.ends(topic)]
        asked = ConsumerGroupTopicPartitions(group, wanted)
        self.admin.alter_consumer_group_offsets([asked])[group].result(TIMEOUT)


def _once_started(ask: Callable[[], T]) -> T:
    """An answer, asked for again while the broker does not know what it has."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            return ask()
        except KafkaException as error:
            if error.args[0].code() not in STARTING or time.monotonic() > deadline:
                raise
            time.sleep(0.1)

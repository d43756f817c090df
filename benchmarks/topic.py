"""A topic under measurement: filled once, read by several groups, each from its beginning."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator
from itertools import cycle
from typing import Any, Self

import orjson
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from more_itertools import take

from benchmarks.corpus import Corpus
from dev.failures import ordinary
from dev.sample_logs import generate
from enrich.models import project_of

PARTITIONS = 6
#: Different logs of other levels; a topic repeats them.
_QUIET = 5_000


class TopicFailed(RuntimeError):
    """Kafka did not do what a benchmark needs; the text says what it answered."""


class Topic:
    """One topic of one broker."""

    def __init__(self, servers: str, name: str) -> None:
        self.servers = servers
        self.name = name
        self.size = 0
        #: By partition: the offset after the last ERROR log.
        self.ends = [0] * PARTITIONS
        self._sizes = [0] * PARTITIONS
        admin = AdminClient({"bootstrap.servers": servers})
        admin.create_topics([NewTopic(name, PARTITIONS, 1)])[name].result(30)

    def fill(self, messages: Iterable[bytes]) -> None:
        """Append messages, spread over the partitions. Raises TopicFailed if one was refused."""
        refused: list[Any] = []

        def seen(error: Any, _: Any) -> None:
            if error is not None:
                refused.append(error)

        producer = Producer(
            {
                "bootstrap.servers": self.servers,
                "linger.ms": 50,
                "batch.size": 1_000_000,
                "queue.buffering.max.messages": 200_000,
            }
        )
        draw = random.Random(7).randrange
        for value in messages:
            partition = draw(PARTITIONS)
            while True:
                try:
                    producer.produce(self.name, value, partition=partition, on_delivery=seen)
                    break
                except BufferError:
                    producer.poll(0.1)
            self.size += 1
            self._sizes[partition] += 1
            if b'"level":"ERROR"' in value:
                self.ends[partition] = self._sizes[partition]
            if self.size % 1000 == 0:
                producer.poll(0)
        left = producer.flush(120)
        if refused or left:
            why = refused[0].str() if refused else "no answer"
            raise TopicFailed(f"Kafka took not all messages of {self.name}: {why}")

    def progress(self, group: str) -> Progress:
        return Progress(self, group)


class Progress:
    """How far a group has committed; it does not join it."""

    def __init__(self, topic: Topic, group: str) -> None:
        self._topic = topic
        self._asks = Consumer({"bootstrap.servers": topic.servers, "group.id": group})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._asks.close()

    def committed(self) -> int:
        """Messages before the committed offsets of all partitions."""
        return sum(self._offsets())

    def through(self) -> bool:
        """Whether all ERROR logs lie before them."""
        return all(at >= end for at, end in zip(self._offsets(), self._topic.ends, strict=True))

    def _offsets(self) -> list[int]:
        wanted = [TopicPartition(self._topic.name, number) for number in range(PARTITIONS)]
        return [max(0, each.offset) for each in self._asks.committed(wanted, timeout=30)]

    def until(self, messages: int, patience: float, every: float = 0.05) -> None:
        """Wait until that many are committed. Raises TopicFailed."""
        deadline = time.monotonic() + patience
        while (there := self.committed()) < messages:
            if time.monotonic() > deadline:
                raise TopicFailed(f"{there} of {messages} messages were committed in time")
            time.sleep(every)


def as_messages(corpus: Corpus) -> Iterator[bytes]:
    """The logs of a corpus as their producer sends them."""
    for log in corpus.logs:
        document = orjson.loads(log.source)
        document["document_id"] = log.id
        document["safe_project_uuid"] = project_of(log.index)
        yield orjson.dumps(document)


def mixed(corpus: Corpus, size: int) -> Iterator[bytes]:
    """`size` messages, evenly among them the corpus' logs; the others have other levels."""
    samples = generate(_QUIET, errors=0, failures=[], ordinary=ordinary())
    quiet = []
    for sample in samples:
        sample.document["document_id"] = sample.id
        sample.document["safe_project_uuid"] = project_of(sample.index)
        quiet.append(orjson.dumps(sample.document))
    others = cycle(quiet)
    every = size // len(corpus.logs)
    for error in as_messages(corpus):
        yield error
        yield from take(every - 1, others)

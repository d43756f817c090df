"""The judge of what consumers of Kafka did, from the topic itself, without the product's code.

It reads every message of the topic, decides by itself which are ERROR logs, which are of another
level and which are poison, and holds against that what the ledger counted and what stands in
OpenSearch. The documents themselves are judged by checker.py.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

import redis
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from tests.chaos.checker import REALTIME, Key, Truth, text_of

METHOD = "realtime_consumer"

#: Outcomes of the consumer's ledger that an ERROR log may have.
WRITTEN = ("embedded", "duplicate", "cached", "reused")
OF_LOGS = (*WRITTEN, "already_vectorized", "failed", "gone", "left", "excluded")

T = TypeVar("T")

#: For so long the judge asks again where Kafka has no answer, as after a fault.
ASKS_SECONDS = 60.0

#: Topic's id, partition, offset.
Place = tuple[str, int, int]


@dataclass(frozen=True, kw_only=True)
class Produced:
    """A message of the topic."""

    kind: Literal["log", "other_level", "poison"]
    key: Key = ("", "")
    source: Mapping[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class TopicTruth(Truth):
    """What is known about documents and messages."""

    #: Messages that Kafka may have removed before anybody read them.
    removed: set[Place] = field(default_factory=set)
    #: Where Redis was lost: the offsets from which on, at least, its counts are whole again.
    counts_from: dict[tuple[str, int], int] | None = None
    #: Documents that were put into OpenSearch by the consumer: two writes would be one too many.
    indexed_by_consumer: bool = False

    def is_counted(self, place: Place) -> bool:
        """Whether the ledger must have counted a message; otherwise it may have."""
        if place in self.removed:
            return False
        if self.counts_from is None:
            return True
        # A partition that was not known then has all of its messages behind that moment.
        return place[2] >= self.counts_from.get(place[:2], 0)


class Topic:
    """Reads a topic, its offsets and those of a group. The group is never joined."""

    def __init__(self, servers: str, name: str, group: str) -> None:
        self.name = name
        options = {"bootstrap.servers": servers, "log_level": 0}
        self.admin = AdminClient(options)
        self.client = Consumer(
            {
                **options,
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "topic.metadata.refresh.interval.ms": 1000,
            }
        )
        self.messages: dict[Place, Produced] = {}

    def close(self) -> None:
        self.client.close()

    def id(self) -> str:
        """Kafka's own id, which tells a topic that was made anew from the old one."""
        name = self.name

        def ask() -> str:
            answers = self.admin.describe_topics(TopicCollection([name]), request_timeout=30)
            return str(answers[name].result().topic_id)

        return answered(ask)

    def partitions(self) -> list[int]:
        known = answered(lambda: self.admin.list_topics(self.name, timeout=30)).topics[self.name]
        return [] if known.error else sorted(known.partitions)

    def ends(self) -> dict[int, tuple[int, int]]:
        """Of each partition the oldest offset and the next one."""

        def ask() -> dict[int, tuple[int, int]]:
            return {
                number: self.client.get_watermark_offsets(
                    TopicPartition(self.name, number), timeout=30, cached=False
                )
                for number in self.partitions()
            }

        return answered(ask)

    def committed(self) -> dict[int, int]:
        """Of each partition the group's offset; 0 where it has none."""
        wanted = [TopicPartition(self.name, number) for number in self.partitions()]
        found = answered(lambda: self.client.committed(wanted, timeout=30))
        return {one.partition: max(0, one.offset) for one in found}

    def lag(self) -> int:
        """Messages that are there and not committed."""
        committed = self.committed()
        return sum(
            end - max(begin, committed[number]) for number, (begin, end) in self.ends().items()
        )

    def read(self) -> None:
        """Take over every message that is there; those that were read before stay known."""
        id, ends = self.id(), self.ends()
        left = {number for number, (begin, end) in ends.items() if end > begin}
        self.client.assign([TopicPartition(self.name, n, OFFSET_BEGINNING) for n in left])
        deadline = time.monotonic() + 60
        while left:
            if time.monotonic() > deadline:
                raise AssertionError(f"the judge cannot read {self.name}/{sorted(left)}")
            for message in self.client.consume(1000, 0.1):
                if message.error() is not None:
                    continue
                place = id, message.partition(), message.offset()
                self.messages[place] = understood(message.value())
                if message.offset() + 1 >= ends[message.partition()][1]:
                    left.discard(message.partition())
        self.client.unassign()


def answered(ask: Callable[[], T]) -> T:
    """What Kafka answers, asked again while it cannot, as when a partition has no leader yet."""
    deadline = time.monotonic() + ASKS_SECONDS
    while True:
        try:
            return ask()
        except KafkaException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def understood(value: bytes | None) -> Produced:
    """What a message is, by the words of the documentation."""
    try:
        source = json.loads(value or b"")
    except ValueError:
        return Produced(kind="poison")
    if not isinstance(source, dict):
        return Produced(kind="poison")
    if source.get("level") != "ERROR":
        return Produced(kind="other_level")
    id, project = source.get("log_id"), source.get("safe_project_uuid")
    if not isinstance(id, str) or not isinstance(project, str):
        return Produced(kind="poison")
    when = datetime.fromisoformat(source["timestamp"]).astimezone(UTC)
    return Produced(kind="log", key=(f"{project}_{when:%Y_%m}", id), source=source)


def run_of(group: str) -> str:
    """How a group signs its writes."""
    return REALTIME + hashlib.sha256(group.encode()).hexdigest()[:8]


class TopicChecker:
    """Judges one group on one topic."""

    def __init__(self, topic: Topic, group: str, connection: redis.Redis, prefix: str) -> None:
        self._topic = topic
        self._group = group
        self._redis = connection
        self._prefix = prefix

    def counts(self) -> Counter[str]:
        """What the ledger says, by outcome."""
        totals = self._redis.hgetall(f"{self._prefix}realtime:totals:{self._group}")
        known = (*OF_LOGS, "other_level", "poison", "messages")
        return Counter(
            {name.decode(): int(n) for name, n in totals.items() if name.decode() in known}
        )

    def check(self, truth: TopicTruth, stored: Mapping[Key, Mapping[str, Any]]) -> list[str]:
        """Everything that must hold once all is read and the backfill is through."""
        counts = self.counts()
        broken = self._sums(truth, counts)
        broken += self._writes(truth, counts, stored)
        broken += self._documents(truth, stored)
        if lag := self._topic.lag():
            broken.append(f"{lag} messages are not committed")
        return broken

    def _sums(self, truth: TopicTruth, counts: Mapping[str, int]) -> list[str]:
        """What was counted is what was produced: nothing twice, nothing never."""
        there: Counter[str] = Counter()
        certain: Counter[str] = Counter()
        for place, message in self._topic.messages.items():
            there[message.kind] += 1
            certain[message.kind] += truth.is_counted(place)
        counted = {
            "log": sum(counts[name] for name in OF_LOGS),
            "other_level": counts["other_level"],
            "poison": counts["poison"],
        }
        broken = [
            f"{counted[kind]} of kind {kind} are counted, the topic has {certain[kind]}"
            + (f" to {there[kind]}" if there[kind] != certain[kind] else "")
            for kind in counted
            if not certain[kind] <= counted[kind] <= there[kind]
        ]
        if counts["messages"] != sum(counted.values()):
            broken.append(f"{counts['messages']} messages are counted, their ends are {counted}")
        if counts["excluded"]:
            broken.append(f"{counts['excluded']} logs are excluded, and none should be")
        return broken

    def _writes(
        self,
        truth: TopicTruth,
        counts: Mapping[str, int],
        stored: Mapping[Key, Mapping[str, Any]],
    ) -> list[str]:
        """Which end an ERROR log has is the one that OpenSearch shows."""
        ours = {
            key
            for key, hit in stored.items()
            if "log_vector" in hit["_source"]
            and hit["_source"].get("ai_enrichment_run") == run_of(self._group)
        }
        lost = truth.gone | truth.replaced
        sure, possible, of_others, failing, never = 0, 0, 0, 0, 0
        for place, message in self._topic.messages.items():
            if message.kind == "log":
                sure += message.key in ours and truth.is_counted(place)
                possible += message.key in ours | lost
                of_others += message.key not in ours or message.key in lost
                failing += message.key in truth.failing
                never += message.key in lost or message.key not in truth.sources
        written, left = sum(counts[name] for name in WRITTEN), counts["left"]
        broken = []
        # A message may have been left and its copy written.
        if not sure <= written + left or written > possible or (not left and written < sure):
            broken.append(
                f"{written} written and {left} left are counted; of the messages {sure} to "
                f"{possible} have a vector that a consumer wrote"
            )
        if counts["already_vectorized"] > of_others:
            broken.append(
                f"{counts['already_vectorized']} had a vector already, and only {of_others} can"
            )
        if counts["failed"] > failing:
            broken.append(f"{counts['failed']} failed, and only {failing} should")
        if counts["gone"] > never:
            broken.append(f"{counts['gone']} are gone, and only {never} should be")
        return broken

    def _documents(self, truth: TopicTruth, stored: Mapping[Key, Mapping[str, Any]]) -> list[str]:
        broken = []
        in_topic = {m.key for m in self._topic.messages.values() if m.kind == "log"}
        for key, hit in stored.items():
            source = hit["_source"]
            by_consumer = str(source.get("ai_enrichment_run", "")).startswith(REALTIME)
            name = f"{key[0]}/{key[1]}"
            marked = source.get("ai_enrichment_method") == METHOD
            if by_consumer != marked and key not in truth.theirs:
                broken.append(f"method and run of a vector do not fit: {name}")
            if by_consumer and source["ai_enrichment_run"] != run_of(self._group):
                broken.append(f"a vector of an unknown group: {name}")
            if by_consumer and key not in in_topic:
                broken.append(f"a log that is not in the topic was written by a consumer: {name}")
            before = truth.sources.get(key, {})
            untouched = key not in truth.replaced and key not in truth.theirs
            owed = before.get("level") == "ERROR" and "log_vector" not in before
            if owed and untouched and text_of(before) and hit["_version"] != 2:
                broken.append(
                    f"a log was not written once, but {hit['_version'] - 1} times: {name}"
                )
        return broken[:5] + ([f"{len(broken)} such documents in all"] if len(broken) > 5 else [])

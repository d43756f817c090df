"""What a row about consumers of Kafka acts on: a topic, a producer and a shipper of its logs, real
consumer processes, and the truth, which the topic itself tells.

The backfill comes at the end: whatever the consumers have left must get its vector from it, within
a deadline.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewPartitions, NewTopic

from dev.service import Service
from enrich.ledger import Ledger
from tests.chaos.checker import Findings, Key
from tests.chaos.topic_checker import WRITTEN, Topic, TopicChecker, TopicTruth, understood
from tests.chaos.traffic import Item, Traffic
from tests.chaos.world import BANK, SHOP, Stuck, World
from tests.conftest import ROOT

PARTITIONS = 3

#: Seconds after which a member that is silent has left the group, and the same for the client.
SESSION = 6.0
CLIENT = {"topic.metadata.refresh.interval.ms": 1000, "reconnect.backoff.max.ms": 1000}
#: Of the classic protocol; in the other one, the broker has them.
CLASSIC = {"session.timeout.ms": int(SESSION * 1000), "heartbeat.interval.ms": 500}

#: Scaled down. A document that comes later than the patience is left to the backfill.
CONSUMER_ENV = {
    "ENRICHMENT_BATCH_SIZE": "20",
    "ENRICHMENT_BATCH_TIMEOUT": "0.5",
    "ENRICH_DOCUMENT_WAIT_SECONDS": "3",
    "OPENAI_TIMEOUT_SECONDS": "6",
}
PATIENCE = 3.0

#: Of both programs. What a slow machine does to the backfill's limits is no matter of these rows.
BOTH_ENV = {
    "OPENSEARCH_TIMEOUT_SECONDS": "8",
    "ENRICH_SOFT_TIME_LIMIT_SECONDS": "20",
    "ENRICH_HARD_TIME_LIMIT_SECONDS": "25",
    "ENRICH_VISIBILITY_TIMEOUT_SECONDS": "30",
    "ENRICH_CHUNK_DEADLINE_SECONDS": "60",
}

#: Logs of a row, and how many are produced in a second.
LOGS, PER_SECOND = 200, 50.0

#: Seconds until what was produced must be through, once the fault is over: some twenty, and several
#: times as much on a machine under load.
HEALED = 180.0

#: How long a consumer may take to leave after SIGTERM: its grace, and an answer that it waits for;
#: twice that, on such a machine.
LEAVES = 50.0

#: How long a consumer may take to begin and to be given partitions.
JOINS = 120.0

PROJECTS = {"shop_web": SHOP, "bank_core": BANK}

#: A day without a change of month in any zone.
BEGUN = datetime(2026, 11, 12, 9, 0, tzinfo=UTC)


class TopicWorld(World):
    """One row's topic, group and consumers, beside what every row has."""

    kafka = True
    truth: TopicTruth

    def __enter__(self) -> TopicWorld:
        self.consumers: list[Service] = []
        self.group = f"chaos-{self.name}"
        self.protocol = "classic"
        self.mode = "attach"
        self.partitions = PARTITIONS
        #: When a log's document comes, in seconds after its message; None: never.
        self.ships_after: Callable[[], float | None] = self._shortly
        self.topic_name = f"{self.group}-{self.random.randrange(10**9)}"
        self._made = 0
        self.env |= BOTH_ENV
        super().__enter__()
        return self

    def _reach(self) -> None:
        super()._reach()
        if not self.stack.kafka.running:
            self.stack.kafka.start()
        self.topic = Topic(self.stack.kafka.url, self.topic_name, self.group)
        self._exits.callback(self.topic.close)
        self.judge = TopicChecker(self.topic, self.group, self.redis, self.prefix)
        self.traffic = Traffic(
            self.stack.kafka.url,
            self.topic_name,
            self.search.http,
            lambda: self.partitions,
            self.random,
        )

    def __exit__(self, *raised: object) -> None:
        self.end_processes()
        self.topic.admin.delete_topics([self.topic_name])
        super().__exit__(*raised)

    def end_processes(self) -> None:
        for service in self.consumers:
            # A stopped process is killed as well.
            service.kill()
        super().end_processes()

    def seed(self) -> None:
        self.truth = TopicTruth()
        for index in (SHOP, BANK):
            self.search.create(index)
        self.make_topic()

    @contextmanager
    def indices(self, names: set[str]) -> Iterator[None]:
        """Indices beside the two that every row has."""
        more = sorted(names - {SHOP, BANK})
        for name in more:
            self.search.create(name)
        yield
        for name in more:
            self.search("DELETE", f"/{name}")

    # -- the topic

    def make_topic(self) -> None:
        """Make the topic and wait until it is there."""
        wanted = [NewTopic(self.topic_name, self.partitions, 1)]
        self.topic.admin.create_topics(wanted)[self.topic_name].result(30)
        self.until(
            lambda: len(self.topic.partitions()) == self.partitions, "the topic is there", 30
        )

    def delete_topic(self) -> None:
        """Delete the topic; what of it nobody has committed may never be read."""
        self.topic.read()
        id, committed = self.topic.id(), self.topic.committed()
        self.truth.removed |= {
            place
            for place in self.topic.messages
            if place[0] == id and place[2] >= committed.get(place[1], 0)
        }
        self.topic.admin.delete_topics([self.topic_name])[self.topic_name].result(30)
        self.until(lambda: not self.topic.partitions(), "the topic is gone", 30)

    def add_partitions(self, count: int) -> None:
        self.partitions += count
        wanted = [NewPartitions(self.topic_name, self.partitions)]
        self.topic.admin.create_partitions(wanted)[self.topic_name].result(30)
        self.until(
            lambda: len(self.topic.partitions()) == self.partitions, "the partitions are there", 30
        )

    def reset_offsets(self) -> None:
        """Let the group begin again at the oldest message. Nobody may be in the group."""
        self.topic.client.commit(
            offsets=[TopicPartition(self.topic_name, n, 0) for n in range(self.partitions)],
            asynchronous=False,
        )

    # -- logs

    def logs(self, count: int = LOGS) -> list[Item]:
        """Logs of two projects, many with the same text, some twice; with them other levels, poison
        and logs without text."""
        items = []
        for _ in range(count):
            items.append(self._item(self._made))
            self._made += 1
        return items

    def _item(self, n: int) -> Item:
        if n % 25 == 7:
            poison = (b"not json", None, b"[]", b'{"level": "ERROR", "message": "no id"}')
            return Item(value=poison[n // 25 % len(poison)])
        project = "bank_core" if n % 4 == 0 else "shop_web"
        zone = timezone(timedelta(hours=self.random.choice((0, 1, -5))))
        source: dict[str, Any] = {
            "log_id": f"{self.name}-{n}",
            "safe_project_uuid": project,
            "level": "INFO" if n % 10 == 3 else "ERROR",
            "timestamp": (BEGUN + timedelta(seconds=n)).astimezone(zone).isoformat(),
            "message": "  " if n % 40 == 11 else f"connection refused by host number {n % 80}.",
            "n": n,
            "price": 1.10,
        }
        return Item(
            index=PROJECTS[project],
            id=source["log_id"],
            source=source,
            value=json.dumps(source).encode(),
            times=2 if n % 20 == 5 else 1,
            ships_after=self.ships_after() if self.mode == "attach" else None,
        )

    def _shortly(self) -> float:
        """Before the message, with it, or while it is waited for."""
        return self.random.choice((-1.0, 0.0, 0.0, 0.8))

    def never(self) -> None:
        """The shipper of a log that nobody ships."""
        return None

    def begin(self, count: int = LOGS, per_second: float = PER_SECOND) -> list[Item]:
        """Let logs come from now on; they are declared to the truth."""
        return self.send(self.logs(count), per_second)

    def send(self, items: list[Item], per_second: float = PER_SECOND) -> list[Item]:
        for item in items:
            if item.index and item.ships_after is not None:
                self.truth.owe((item.index, item.id), item.source)
        self.traffic.begin(items, per_second)
        return items

    def vectorized(self, item: Item) -> Item:
        """A log whose document comes with another writer's vector."""
        vector = self._vector()
        source = {**item.source, "log_vector": vector, "by": "sibling"}
        return replace(item, source=source)

    # -- consumers

    def start(self) -> None:
        """A consumer, and logs that come; a second fault meets it begun."""
        if self.consumers:
            return
        self.consumer()
        self.begin()

    def consumer(self, *, wait: bool = True, stumbling: bool = False, **env: str) -> Service:
        """Start a consumer; a stumbling one takes CHAOS_MOMENT, see stumbling_consumer.py."""
        self._number += 1
        options = CLIENT | (CLASSIC if self.protocol == "classic" else {})
        own = CONSUMER_ENV | {
            "KAFKA_TOPIC": self.topic_name,
            "CONSUMER_GROUP_ID": self.group,
            "KAFKA_GROUP_PROTOCOL": self.protocol,
            "ENRICH_CONSUMER_MODE": self.mode,
            "KAFKA_EXTRA_CONFIG": json.dumps(options),
        }
        words = ["tests.chaos.stumbling_consumer"] if stumbling else ["enrich", "consume"]
        service = self.stack.spawn(
            f"{self.name}-c{self._number}",
            [sys.executable, "-m", *words],
            env=self._environment(ROOT) | own | self.env | env,
        )
        self.consumers.append(service)
        if wait:
            self.assigned(service)
        return service

    def begun(self, service: Service) -> None:
        """Wait until a consumer is about to join the group."""
        self.until(
            lambda: "has begun" in service.log.read_text(), f"{service.name} has begun", JOINS
        )

    def assigned(self, service: Service) -> None:
        """Wait until a consumer has partitions, or at least was told that it has none."""
        self.until(
            lambda: "partitions assigned" in service.log.read_text(),
            f"{service.name} is in the group",
            JOINS,
        )

    def leave(self, service: Service) -> None:
        """SIGTERM: it finishes or gives up, and leaves."""
        os.kill(service.pid, signal.SIGTERM)
        self.until(lambda: not service.running, f"{service.name} has left", LEAVES)
        if service.returncode == -signal.SIGTERM and "has begun" not in service.log.read_text():
            # It was not yet so far that it had anything to finish.
            return
        if service.returncode:
            raise Stuck(f"{service.name} ended with {service.returncode} when it was to leave")

    def answers_lost(self) -> None:
        """What the API was sent until now and nobody has kept may be paid for once more: whoever
        had asked for it is gone. Of a backlog that is a large batch, of few logs a small one."""
        uses = self.redis.scan_iter(f"{self.prefix}vector:*:uses")
        kept = sum(int(self.redis.zcard(key)) for key in uses)
        lost = int(self.api.seen["inputs"]) - kept
        self.truth.cut_inputs = max(self.truth.cut_inputs, lost)

    def counted(self, messages: int) -> None:
        """Wait until so many messages are counted."""
        self.until(
            lambda: self.judge.counts()["messages"] >= messages, f"{messages} messages are counted"
        )

    # -- the end

    def settle(self) -> Findings:
        """Consumers go on until all is committed, and leave; the backfill finds what they left;
        then the findings of both judges."""
        told: list[str] = []
        try:
            self._read_all()
        except (Stuck, AssertionError) as error:
            told.append(str(error))
        told += self._tracebacks()
        self.topic.read()
        if self.mode == "index":
            for message in self.topic.messages.values():
                if message.kind == "log":
                    self.truth.owe(message.key, dict(message.source))
        counts = self.judge.counts()
        left = self.checker.owed(self.truth)
        if left and not self.beats:
            super().start()
        findings = super().settle()
        stored = self.checker.read({index for index, _ in self.truth.sources})
        findings.violations.extend(told)
        findings.violations.extend(self.judge.check(self.truth, stored))
        findings.violations.extend(self._summary())
        logs = sum(m.kind == "log" for m in self.topic.messages.values())
        outcomes = Counter(
            {
                "written": sum(counts[name] for name in WRITTEN),
                "already": counts["already_vectorized"],
                "left": counts["left"],
                "failed": counts["failed"],
                "gone": counts["gone"],
                "poison": counts["poison"],
                "backfilled": left,
            }
        )
        return replace(findings, documents=logs, outcomes=+outcomes)

    def _read_all(self) -> None:
        self.traffic.finish()
        if not any(service.running for service in self.consumers):
            self.consumer()
        self.until(lambda: not self.topic.lag(), "all messages are committed", HEALED)
        for service in self.consumers:
            if service.running:
                self.leave(service)

    def _tracebacks(self) -> list[str]:
        return [
            f"{service.name} shows a traceback"
            for service in self.consumers
            if "Traceback" in service.log.read_text()
        ]

    def _summary(self) -> list[str]:
        """The screens are told what the judge has read."""
        ledger = Ledger(self.redis, self.prefix)
        shown = {one.group: one for one in ledger.realtime.summary()}.get(self.group)
        counts = self.judge.counts()
        if shown is None:
            return ["the summary does not know the group"]
        outcomes = {name: n for name, n in shown.outcomes.items() if n}
        told = {name: n for name, n in counts.items() if n and name != "messages"}
        broken = []
        if (outcomes, shown.messages) != (told, counts["messages"]):
            broken.append(f"the summary shows {outcomes}, the ledger has {told}")
        # One that was killed could not say so.
        left = {service.pid for service in self.consumers if service.returncode == 0}
        broken += [
            f"{one.name} is shown, and has left" for one in shown.consumers if one.pid in left
        ]
        return broken

    def keys(self, items: list[Item]) -> list[Key]:
        """The ERROR logs with a text among items that are shipped."""
        return [
            (item.index, item.id)
            for item in items
            if item.index
            and item.ships_after is not None
            and understood(item.value).kind == "log"
            and item.source["message"].strip()
        ]

"""The consumer as operators run it, as a process on real Kafka, OpenSearch and Redis.

How far it is, Kafka tells; what became of logs, OpenSearch; and the sums must be the topic's.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from io import StringIO
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Consumer, Producer
from rich.console import Console

from dev.api_control import ApiControl
from dev.embedding_model import Model
from dev.service import Service
from dev.services import Services
from enrich.cli.checks import kafka
from enrich.cli.checks.findings import Findings
from enrich.ledger.realtime_summary import ConsumerReport, RealtimeSummary
from enrich.log_store import index_template
from enrich.settings import load_settings
from enrich.wiring import build_ledger
from tests.conftest import DIMENSIONS, PREFIX, ROOT, Pipeline, Search, wait_for
from tests.topics import Topics

#: All logs are of one moment, so that no test runs into another month.
NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
MONTH = f"{NOW:%Y_%m}"
INDEX = f"shop_{MONTH}"
PROTOCOLS = pytest.mark.parametrize("protocol", ["classic", "consumer"])
WITH_VECTOR = {"exists": {"field": "log_vector"}}


def logs(count: int, name: str = "log", distinct: int = 7) -> list[dict[str, Any]]:
    """Logs as a topic has them, each second one an ERROR."""
    return [
        {
            "log_id": f"{name}{n}",
            "project_uuid": "shop",
            "level": "INFO" if n % 2 else "ERROR",
            "timestamp": NOW.isoformat(),
            "message": f"the {name} database refused connection number {n % distinct}",
            "trace_id": f"trace {n // 3}",
        }
        for n in range(count)
    ]


def kind_of(value: bytes | None) -> str:
    """What a message is: a log of a level, or poison."""
    try:
        return str(json.loads(value or b"")["level"])
    except ValueError:
        return "poison"


class Desk:
    """Consumers of one group, and what they read and write."""

    def __init__(
        self, stack: Services, topics: Topics, search: Search, build: Any, exits: ExitStack
    ) -> None:
        self.stack, self.topics, self.search, self._exits = stack, topics, search, exits
        self._build = build
        self.group = f"group-{uuid.uuid4().hex[:8]}"
        self.topic = topics.create(partitions=4)
        self._number = 0
        search.create(INDEX)

    def consumer(self, **env: str) -> Service:
        self._number += 1
        service = self.stack.spawn(
            f"{self.group}-{self._number}",
            [sys.executable, "-m", "enrich", "consume"],
            env={
                "PYTHONPATH": str(ROOT),
                "ENRICH_LOG_FILE": "none",
                "ENRICH_REDIS_PREFIX": PREFIX,
                "KAFKA_BOOTSTRAP_SERVERS": self.topics.servers,
                "KAFKA_TOPIC": self.topic,
                "CONSUMER_GROUP_ID": self.group,
                "ENRICHMENT_BATCH_TIMEOUT": "0.5",
                **env,
            },
        )
        self._exits.callback(service.stop)
        return service

    def assigned(self, service: Service) -> None:
        wait_for(lambda: "partitions assigned" in service.log.read_text(), service)

    def ship(self, some: list[dict[str, Any]]) -> None:
        """Index logs, as a shipper does."""
        self.search.index(INDEX, [{"_id": one["log_id"], **one} for one in some])

    def committed(self) -> bool:
        ends = {n: end for n, end in self.topics.ends(self.topic).items() if end}
        return self.topics.committed(self.group, self.topic) == ends

    def has_read(self, count: int) -> bool:
        """Whether so many messages were read, whatever became of them."""
        return sum(one.position or 0 for each in self.summaries for one in each.partitions) >= count

    def wait(self, *services: Service) -> RealtimeSummary:
        """Until all of the topic is committed; what the ledger has counted."""
        wait_for(self.committed, services[0] if services else None)
        return self.summary

    @property
    def summaries(self) -> list[RealtimeSummary]:
        ledger = build_ledger(self._build(enrich_redis_prefix=PREFIX))
        found = [one for one in ledger.realtime.summary() if one.group == self.group]
        ledger.close()
        return found

    @property
    def summary(self) -> RealtimeSummary:
        (summary,) = self.summaries
        return summary

    @property
    def consumers(self) -> list[ConsumerReport]:
        """What the consumers say of themselves."""
        return [one for each in self.summaries for one in each.consumers]


@pytest.fixture
def desk(clean: Services, topics: Topics, search: Search, settings: Any) -> Iterator[Desk]:
    with ExitStack() as exits:
        yield Desk(clean, topics, search, settings, exits)


def assert_right(
    desk: Desk, model: Model, count: int, index: str = INDEX
) -> dict[str, dict[str, Any]]:
    """Each ERROR log has exactly the vector of its text, and no other log has any."""
    sources = desk.search.sources(index)
    with_vector = {id: one for id, one in sources.items() if "log_vector" in one}
    assert len(with_vector) == count
    texts = sorted({one["message"] for one in with_vector.values()})
    right = dict(zip(texts, model.embed(texts), strict=True))
    for one in with_vector.values():
        assert one["level"] == "ERROR"
        assert np.array_equal(np.float32(one["log_vector"]), right[one["message"]])
    return with_vector


@PROTOCOLS
def test_logs_get_their_vectors_as_they_are_produced(
    desk: Desk, model: Model, embeddings: ApiControl, protocol: str
) -> None:
    some = logs(120)
    desk.ship(some)
    desk.topics.produce(desk.topic, [*some, b"not json", None])
    consumer = desk.consumer(KAFKA_GROUP_PROTOCOL=protocol)
    summary = desk.wait(consumer)
    stored = assert_right(desk, model, 60)
    assert {one["ai_enrichment_method"] for one in stored.values()} == {"realtime_consumer"}
    counts = {name: n for name, n in summary.outcomes.items() if n}
    assert sum(counts.values()) == summary.messages == 122
    assert (counts["other_level"], counts["poison"]) == (60, 2)
    assert summary.vectors == 60
    assert summary.usage["api_inputs"] == 7
    os.kill(consumer.pid, signal.SIGTERM)
    wait_for(lambda: not consumer.running)
    assert consumer.returncode == 0
    assert "has left the group" in consumer.log.read_text()
    assert desk.summary.consumers == []


def test_a_log_is_waited_for_and_left_to_the_backfill_if_it_does_not_come(
    desk: Desk, model: Model, pipeline: Callable[..., Pipeline]
) -> None:
    late, never = logs(20, "late"), logs(20, "never")
    desk.topics.produce(desk.topic, late)
    patient = desk.consumer(ENRICH_DOCUMENT_WAIT_SECONDS="300")
    wait_for(lambda: desk.has_read(20), patient)
    desk.ship(late)
    desk.wait(patient)
    os.kill(patient.pid, signal.SIGTERM)
    wait_for(lambda: not patient.running)
    desk.topics.produce(desk.topic, never)
    summary = desk.wait(desk.consumer(ENRICH_DOCUMENT_WAIT_SECONDS="1"))
    assert_right(desk, model, 10)
    assert (summary.vectors, summary.outcomes["left"]) == (10, 10)
    desk.ship(never)
    record = pipeline().run()
    assert (record.found, record.state) == (10, "finished")
    # What the consumer wrote is no stranger's.
    assert record.written_by_others == 0
    assert_right(desk, model, 20)


def test_in_mode_index_logs_are_put_in_once(desk: Desk, model: Model) -> None:
    some = logs(40)
    there = some[:4]
    desk.ship(there)
    desk.search("DELETE", f"/{INDEX}/_doc/{some[2]['log_id']}")
    desk.topics.produce(desk.topic, [*some, *some])
    consumer = desk.consumer(ENRICH_CONSUMER_MODE="index")
    summary = desk.wait(consumer)
    stored = assert_right(desk, model, 20)
    for one in some:
        if one["level"] == "ERROR":
            kept = stored[one["log_id"]]
            assert {name: kept[name] for name in one} == one
    assert summary.messages == 80
    assert summary.usage["api_inputs"] == 7


def test_an_alias_is_looked_behind(desk: Desk, search: Search, model: Model) -> None:
    some = logs(12)
    search("POST", "/_aliases", {"actions": [
        {"add": {"index": INDEX, "alias": f"alias_{MONTH}"}},
    ]})  # fmt: skip
    desk.ship(some)
    search.create(f"{INDEX}_x")
    search("POST", "/_aliases", {"actions": [
        {"add": {"index": f"{INDEX}_x", "alias": f"alias_{MONTH}"}},
    ]})  # fmt: skip
    desk.topics.produce(desk.topic, [{**one, "project_uuid": "alias"} for one in some])
    summary = desk.wait(desk.consumer())
    assert_right(desk, model, 6)
    assert summary.vectors == 6


@pytest.fixture
def stream(clean: Services, search: Search) -> Iterator[str]:
    """A data stream of a name that a month's index would have."""
    name = f"pay_{MONTH}"
    template = {**index_template(DIMENSIONS, [f"{name}*"]), "data_stream": {}}
    search("PUT", "/_index_template/pay", template)
    search("PUT", f"/_data_stream/{name}")
    yield name
    search("DELETE", f"/_data_stream/{name}")


@pytest.mark.apart
def test_a_data_stream_is_looked_behind_where_the_backfill_does(
    desk: Desk, search: Search, stream: str, model: Model
) -> None:
    some = [{**one, "project_uuid": "pay", "@timestamp": one["timestamp"]} for one in logs(12)]
    for part in (some[:6], some[6:]):
        rows = [row for one in part for row in ({"create": {"_id": one["log_id"]}}, one)]
        body = "".join(json.dumps(row) + "\n" for row in rows).encode()
        assert not search("POST", f"/{stream}/_bulk", body)["errors"]
        search("POST", f"/{stream}/_rollover")
    desk.topics.produce(desk.topic, some)
    # By default the names of its indices, which begin with a dot, are left out.
    without = desk.consumer(CONSUMER_GROUP_ID=f"{desk.group}-without")
    other = desk.group
    desk.group += "-without"
    assert desk.wait(without).outcomes["excluded"] == 6
    desk.group = other
    summary = desk.wait(desk.consumer(ENRICH_INDEX_PATTERN="*_*,-.*,.ds-*_*"))
    assert summary.vectors == 6
    assert_right(desk, model, 6, stream)


@pytest.mark.apart
def test_a_topic_that_is_made_later_is_waited_for_and_shown(desk: Desk, model: Model) -> None:
    some = logs(10)
    desk.ship(some)
    desk.topic = f"{desk.topic}-later"
    quick = json.dumps({"topic.metadata.refresh.interval.ms": 500})
    consumer = desk.consumer(KAFKA_EXTRA_CONFIG=quick)
    wait_for(lambda: "has begun" in consumer.log.read_text(), consumer)
    # As long as it lasts, in each of its reports.
    seen: set[datetime] = set()

    def is_told() -> bool:
        seen.update(each.seen_at for each in desk.consumers)
        return len(seen) > 2

    wait_for(is_told, consumer)
    for each in desk.consumers:
        assert each.why == f"Kafka at {desk.topics.servers} has no topic {desk.topic}"
    desk.topics.create(desk.topic, partitions=2)
    desk.topics.produce(desk.topic, some)
    desk.wait(consumer)
    assert_right(desk, model, 5)
    wait_for(lambda: [each.why for each in desk.consumers] == [""], consumer)
    told = consumer.log.read_text()
    assert told.count(f"topic {desk.topic} is not there yet; it is waited for") == 1
    assert "has no topic" not in told and "Traceback" not in told


@PROTOCOLS
@pytest.mark.apart
def test_consumers_share_partitions_and_lose_nothing_when_they_come_and_go(
    desk: Desk, model: Model, embeddings: ApiControl, protocol: str
) -> None:
    some = logs(400, distinct=40)
    desk.ship(some)
    quick = {
        "KAFKA_GROUP_PROTOCOL": protocol,
        "ENRICHMENT_BATCH_SIZE": "5",
        **(
            {"KAFKA_EXTRA_CONFIG": json.dumps({"session.timeout.ms": 6000})}
            if protocol == "classic"
            else {}
        ),
    }
    first = desk.consumer(**quick)
    desk.assigned(first)
    desk.topics.produce(desk.topic, some[:150])
    second = desk.consumer(**quick)
    desk.assigned(second)
    desk.topics.produce(desk.topic, some[150:300])
    # One dies without a word, one joins, one leaves as it should.
    first.kill()
    third = desk.consumer(**quick)
    desk.topics.produce(desk.topic, some[300:])
    os.kill(second.pid, signal.SIGTERM)
    summary = desk.wait(third)
    assert_right(desk, model, 200)
    counts = {name: n for name, n in summary.outcomes.items() if n}
    assert counts.pop("other_level") == 200
    assert sum(counts.values()) == 200
    assert not counts.keys() - {"embedded", "cached", "duplicate", "reused", "already_vectorized"}
    # Only a request that was under way when one died may be paid for again.
    assert summary.usage["api_inputs"] <= 80


@PROTOCOLS
@pytest.mark.apart
def test_a_broker_that_is_killed_and_started_anew_costs_no_message(
    desk: Desk, kafka_stack: Services, model: Model, embeddings: ApiControl, protocol: str
) -> None:
    broker = kafka_stack.kafka
    some = logs(300, distinct=40)
    before, meanwhile, after = some[:120], some[120:200], some[200:]
    desk.ship(some)
    # Keeps what it cannot deliver, and delivers it once.
    producer = Producer({**desk.topics.options, "enable.idempotence": True})
    desk.topics.produce(desk.topic, [*before, b"not json"])
    # So that it is in the middle of a batch when the broker dies.
    embeddings.set(latency_ms=1000)
    consumer = desk.consumer(KAFKA_GROUP_PROTOCOL=protocol)
    wait_for(lambda: embeddings.seen["requests"] > 0, consumer)
    for one in meanwhile[:40]:
        producer.produce(desk.topic, json.dumps(one))
    broker.kill()
    try:
        for one in meanwhile[40:]:
            producer.produce(desk.topic, json.dumps(one))
        wait_for(lambda: any("cannot be reached" in each.why for each in desk.consumers), consumer)
    finally:
        # Other tests have this broker, too.
        broker.start()
    assert producer.flush(120) == 0
    desk.topics.produce(desk.topic, [*after, None])
    summary = desk.wait(consumer)

    values = desk.topics.read(desk.topic)
    kinds = Counter(kind_of(value) for value in values)
    assert {json.loads(value)["log_id"] for value in values if kind_of(value) != "poison"} == {
        one["log_id"] for one in some
    }
    assert (kinds["ERROR"], kinds["INFO"], kinds["poison"]) == (150, 150, 2)
    counts = {name: n for name, n in summary.outcomes.items() if n}
    assert (counts.pop("other_level"), counts.pop("poison")) == (kinds["INFO"], kinds["poison"])
    assert sum(counts.values()) == summary.vectors == kinds["ERROR"]
    assert summary.messages == len(values)
    assert_right(desk, model, 150)
    assert summary.usage["api_inputs"] == 20
    wait_for(lambda: [each.why for each in desk.consumers] == [""], consumer)
    assert "Traceback" not in consumer.log.read_text()


def test_all_again_from_the_beginning_pays_and_writes_nothing(
    desk: Desk, model: Model, embeddings: ApiControl
) -> None:
    some = logs(60)
    desk.ship(some)
    desk.topics.produce(desk.topic, some)
    consumer = desk.consumer()
    before = desk.wait(consumer)
    written = assert_right(desk, model, 30)
    os.kill(consumer.pid, signal.SIGTERM)
    wait_for(lambda: not consumer.running)
    desk.topics.reset(desk.group, desk.topic)
    after = desk.wait(desk.consumer())
    assert assert_right(desk, model, 30) == written
    assert after.outcomes == before.outcomes
    assert after.usage["api_inputs"] == before.usage["api_inputs"]


def test_backfill_and_consumer_at_once_write_one_right_vector_each(
    desk: Desk, model: Model, pipeline: Callable[..., Pipeline]
) -> None:
    some = logs(300, distinct=60)
    desk.ship(some)
    consumer = desk.consumer(ENRICHMENT_BATCH_SIZE="10")
    desk.assigned(consumer)
    backfill = pipeline(enrich_batch_size=20)
    desk.topics.produce(desk.topic, some)
    record = backfill.run()
    summary = desk.wait(consumer)
    assert_right(desk, model, 150)
    assert record.found == record.settled
    assert summary.vectors + record.vectors_written == 150
    # A text that both met at once is paid for once.
    assert summary.usage["api_inputs"] + record.api_inputs == 30
    assert (record.errors, summary.usage["errors"], record.failed) == (0, 0, 0)


def test_an_index_without_vectors_is_left_with_its_reason(desk: Desk) -> None:
    plain = {"mappings": {"properties": {"level": {"type": "keyword"}}}}
    index = f"bank_{MONTH}"
    desk.search.create(index, **plain)
    some = [{**one, "project_uuid": "bank"} for one in logs(10)]
    desk.search.index(index, [{"_id": one["log_id"], **one} for one in some])
    desk.topics.produce(desk.topic, some)
    summary = desk.wait(desk.consumer())
    assert summary.outcomes["left"] == 5
    (why,) = summary.left_reasons
    assert "index.knn" in why
    assert desk.search.count(index, WITH_VECTOR) == 0
    assert summary.usage["api_inputs"] == 0


def test_check_tells_what_kafka_has(topics: Topics) -> None:
    topic, group = topics.create(partitions=2), f"group-{uuid.uuid4().hex[:8]}"
    topics.produce(topic, logs(5))

    def told(**more: Any) -> tuple[str, int]:
        settings = load_settings(
            openai_api_key="k", kafka_bootstrap_servers=topics.servers, consumer_group_id=group,
            **{"kafka_topic": topic, **more},
        )  # fmt: skip
        out = StringIO()
        findings = Findings(Console(file=out, width=400))
        with findings.failing_here():
            kafka.look_at(settings, findings)
        return out.getvalue(), findings.status

    text, status = told()
    assert status == 0
    for line in (
        f"✓ 1 broker of cluster {topics.admin.list_topics().cluster_id} at {topics.servers}",
        f"✓ topic {topic}: 2 partitions, which may be read",
        f"! group {group} has no consumer now",
        "✓ 5 messages left in 2 partitions",
        "✓ 2 partitions without an offset begin at the earliest message",
    ):
        assert line in text, text
    text, status = told(kafka_topic=f"gone,{topic}")
    assert status == 1 and "✗ topic gone is not there: create it" in text
    # Another program in our group, which has read a part.
    stranger = Consumer(
        {**topics.options, "group.id": group, "client.id": "spark", "auto.offset.reset": "earliest"}
    )
    try:
        stranger.subscribe([topic])
        assert stranger.consume(5, 30)
        stranger.commit(asynchronous=False)
        text, status = told()
    finally:
        stranger.close()
    assert status == 1 and f"✗ another program consumes as group {group} (spark)" in text
    assert "✓ 0 messages left in 2 partitions" in text

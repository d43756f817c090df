"""Live logs for the demo: produced to a real Kafka, indexed by a shipper, enriched by the consumer.

Each log goes to Kafka the moment it is made and, a little later, into OpenSearch, as from a
service whose shipper is slower than its producer. What is told is the time from produced to a
vector that a search finds.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from math import ceil

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from opensearchpy import OpenSearch, helpers

from dev.failures import failures, ordinary
from dev.sample_logs import SampleLog, generate
from dev.service import Service
from dev.services import CHECKOUT, Services
from enrich.ledger import Ledger
from enrich.models import REALTIME_METHOD
from enrich.settings import Settings

PARTITIONS = 3
#: Logs a second, of which two in five are of level ERROR.
RATE = 30
#: What is shown, and seconds for which logs are produced for it.
SECONDS = 20.0
#: Between producing a log and indexing it.
SHIPPER_SECONDS = 1.0
#: Gives up on a consumer that does not begin, or on vectors that do not come.
PATIENCE = 120.0

Say = Callable[[str], None]


class LiveLogsFailed(RuntimeError):
    """Live logs got no vectors; the text says what to look at."""


class LiveLogs:
    """The producer, the shipper and the consumer's process."""

    def __init__(
        self,
        stack: Services,
        client: OpenSearch,
        settings: Settings,
        environment: Mapping[str, str],
        logs: Iterator[SampleLog] | None = None,
    ) -> None:
        """Make the topic and start the consumer."""
        self._client = client
        self._settings = settings
        self._topic = settings.kafka_topic[0]
        servers: dict[str, str | int | float | bool] = {
            "bootstrap.servers": settings.kafka_bootstrap_servers,
            # What it has to say comes by exceptions; its lines would say that the broker ends.
            "log_level": 0,
        }
        topic = NewTopic(self._topic, PARTITIONS, 1)
        # Kept until it has answered: its end ends what is asked.
        admin = AdminClient(servers)
        admin.create_topics([topic])[self._topic].result(30)
        self._producer = Producer({**servers, "linger.ms": 5})
        self.consumer: Service = stack.spawn(
            "consumer",
            [sys.executable, "-m", "enrich", "consume"],
            env={"PYTHONPATH": str(CHECKOUT), **environment},
        )
        self._logs = logs or _endless_logs()
        self._begun = time.monotonic()
        self.produced = 0
        self._to_ship: deque[tuple[float, SampleLog]] = deque()
        #: ERROR logs of which no search has found the vector: when each was produced.
        self._open: dict[tuple[str, str], float] = {}
        #: ERROR logs that were produced, as index and id.
        self.errors: list[tuple[str, str]] = []
        #: Seconds from produced to found with a vector; of the last ones only.
        self.seconds: deque[float] = deque(maxlen=10_000)
        #: How many vectors each of the two programs wrote.
        self.by_consumer = self.by_backfill = 0

    def wait_for_partitions(self, ledger: Ledger) -> None:
        """Until the consumer has all partitions: what comes before is the time of its start."""
        deadline = time.monotonic() + PATIENCE
        while not any(
            len({one.number for one in group.partitions if one.consumer}) == PARTITIONS
            for group in ledger.realtime.summary()
        ):
            self._see_that_it_runs()
            if time.monotonic() > deadline:
                raise LiveLogsFailed(f"the consumer did not begin; see {self.consumer.log}")
            time.sleep(0.2)
        self._begun = time.monotonic()

    def turn(self, *, produce: bool = True) -> None:
        """Produce what is due, ship what is due, and look which vectors a search finds."""
        self._see_that_it_runs()
        now = time.monotonic()
        if produce:
            # After a pause of this process no flood makes up for it.
            for _ in range(min(RATE, int((now - self._begun) * RATE) - self.produced)):
                self._produce(next(self._logs))
            self._producer.poll(0)
        self._ship(now)
        if self._open:
            self._look()

    @property
    def waiting(self) -> int:
        """ERROR logs without a vector yet."""
        return len(self._open)

    def _see_that_it_runs(self) -> None:
        if not self.consumer.running:
            raise LiveLogsFailed(f"the consumer ended by itself; see {self.consumer.log}")

    def _produce(self, log: SampleLog) -> None:
        # A service names its project; an index, as the log's time decides it, is the shipper's.
        project = log.index[: -len("_2026_11")]
        made = datetime.now(UTC)
        document = {
            **log.document,
            "project_uuid": project,
            "timestamp": made.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
        log = SampleLog(f"{project}_{made:%Y_%m}", log.id, document)
        self._producer.produce(self._topic, json.dumps(document).encode(), key=log.id)
        self.produced += 1
        now = time.monotonic()
        self._to_ship.append((now + SHIPPER_SECONDS, log))
        if document["level"] == "ERROR":
            self._open[log.index, log.id] = now
            self.errors.append((log.index, log.id))

    def _ship(self, now: float) -> None:
        due = []
        while self._to_ship and self._to_ship[0][0] <= now:
            log = self._to_ship.popleft()[1]
            due.append({"_index": log.index, "_id": log.id, "_source": log.document})
        if due:
            helpers.bulk(self._client, due)

    def _look(self) -> None:
        ids = [id for _, id in itertools.islice(self._open, 1000)]
        found = self._client.search(
            index=self._settings.index_expression,
            body={
                "size": len(ids),
                "_source": ["ai_enrichment_method"],
                "query": {
                    "bool": {
                        "filter": [{"ids": {"values": ids}}, {"exists": {"field": "log_vector"}}]
                    }
                },
            },
        )
        now = time.monotonic()
        for hit in found["hits"]["hits"]:
            produced = self._open.pop((hit["_index"], hit["_id"]), None)
            if produced is None:
                continue
            self.seconds.append(now - produced)
            if hit["_source"].get("ai_enrichment_method") == REALTIME_METHOD:
                self.by_consumer += 1
            else:
                self.by_backfill += 1


def show(
    live: LiveLogs,
    settings: Settings,
    ledger: Ledger,
    verify: Callable[[Sequence[tuple[str, str]]], int],
    say: Say,
) -> None:
    """Produce for a while, wait for all vectors, and tell how long each took.

    Args:
        verify: how many of these ERROR logs have exactly the vector of their own text.

    Raises LiveLogsFailed: a log got no vector, or a wrong one.
    """
    say("live logs: Kafka and the consumer are up; a producer and a slower shipper begin")
    try:
        live.wait_for_partitions(ledger)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            live.turn()
            time.sleep(0.1)
        deadline = time.monotonic() + PATIENCE
        while live.waiting:
            if time.monotonic() > deadline:
                raise LiveLogsFailed(
                    f"{live.waiting} live ERROR logs have no vector after {PATIENCE:.0f} s; see "
                    f"{live.consumer.log}"
                )
            live.turn(produce=False)
            time.sleep(0.1)
    except KafkaException as error:
        raise LiveLogsFailed(f"Kafka refused a log ({error.args[0].name()})") from None
    errors = list(live.errors)
    say(
        f"{live.produced} live logs in {SECONDS:.0f} s, {len(errors)} of them ERROR: "
        f"{live.by_consumer} got their vector from the consumer, {live.by_backfill} from the "
        "backfill"
    )
    say(
        f"from produced to searchable vector: p50 {percentile(live.seconds, 50):.1f} s, p99 "
        f"{percentile(live.seconds, 99):.1f} s; a batch is {settings.enrichment_batch_size} logs "
        f"or {settings.enrichment_batch_timeout:g} s"
    )
    right = verify(errors)
    say(f"{right} of {len(errors)} live ERROR logs have exactly the vector of their own text")
    if right != len(errors):
        raise LiveLogsFailed(f"{len(errors) - right} live ERROR logs have no right vector")


def percentile(values: Sequence[float] | deque[float], percent: float) -> float:
    """The smallest value that so many percent of all do not exceed; 0 where there is none."""
    ordered = sorted(values)
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)] if ordered else 0.0


def _endless_logs() -> Iterator[SampleLog]:
    """The built-in logs, with other values and ids each time around."""
    month = f"{datetime.now(UTC):%Y-%m}"
    for seed in itertools.count(1000):
        yield from generate(
            600, seed=seed, failures=failures(), ordinary=ordinary(), months=(month,)
        )

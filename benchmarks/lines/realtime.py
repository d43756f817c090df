"""Live logs beside a backlog, under a quota that binds: from produced to searchable.

Applications produce to Kafka, a shipper indexes the same logs into OpenSearch half a second at a
time, and a search asks all the time which of them can be found by their vector. Half of the live
logs have a text that the backlog has too. First without a backlog, then until one is drained.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from benchmarks.background import Background
from benchmarks.corpus import Corpus, create_indices, fresh, make_corpus
from benchmarks.product import Product
from benchmarks.rounds import Figure, at_least, at_most, percentile, stated
from benchmarks.stage import Stage, StageFailed
from dev.services import CHECKOUT
from enrich.settings import Settings

SIZE = 100_000
#: Tokens a minute by logs of the backlog, so that draining it takes about five minutes.
_TOKENS_BY_LOG = 20
_REQUESTS_PER_MINUTE = 3_000
_LATENCY_MS = 50.0

_TOPIC = "application-logs"
_PARTITIONS = 3
_PROJECT = "live_project"
_ERRORS_PER_SECOND = 4
#: Messages of other levels by each ERROR.
_OTHERS = 4
_TURN_SECONDS = 0.25
_LOOK_SECONDS = 0.1
_ALONE_SECONDS = 90.0
_WARMING_LOGS = 100

_TIMEOUT = float(Settings.model_fields["enrichment_batch_timeout"].default)


def measure(stage: Stage) -> list[Figure]:
    size = stage.options.size or SIZE
    tokens = _TOKENS_BY_LOG * size
    corpus = make_corpus(size)
    env = {
        "KAFKA_TOPIC": _TOPIC,
    }
    _create_topic(stage)
    with stage.product(env=env) as product:
        stage.warm(product)
        fresh(stage.cluster, corpus)
        create_indices(stage.cluster, [_index()])
        stage.api.reset(
            latency_ms=_LATENCY_MS,
            requests_per_minute=_REQUESTS_PER_MINUTE,
            tokens_per_minute=tokens,
        )
        product.forget()
        _start_consumer(stage, product, env)
        live = Live(stage, corpus)
        live.until_seen(_WARMING_LOGS)
        stage.say("realtime: without a backlog")
        ends = time.monotonic() + _ALONE_SECONDS
        alone = live.while_(lambda: time.monotonic() < ends)
        stage.say(f"realtime: beside a backlog of {size:,}")
        product.begin()
        begun = time.monotonic()
        looks: list[Look] = []

        def draining() -> bool:
            looks.append(_look(stage, product))
            return not product.over()

        beside = live.while_(draining)
        drained = time.monotonic() - begun
        product.end_beat()
        product.runs()
        seen = stage.api.counts()
    stage.data["realtime"] = {
        "alone": alone,
        "beside": beside,
        "looks": [(look.at - begun, look.tokens, look.live) for look in looks],
        "api": seen,
    }
    used, of_live = shares(looks, tokens)
    return [
        *_waits("without a backlog", alone, None),
        *_waits(f"beside a backlog of {size:,}", beside, _TIMEOUT + 1),
        stated("realtime", "backlog drained in", drained, "s", f"at {tokens:,} tokens a minute"),
        at_least("realtime", "used of the quota meanwhile", 100 * used, 95, "%"),
        stated("realtime", "of the quota, taken by live logs", 100 * of_live, "%"),
        at_most(
            "realtime", "inputs by distinct text", seen["inputs"] / seen["distinct_inputs"], 1.01
        ),
        at_most("realtime", "requests refused", seen["refused"] / seen["requests"] * 100, 1, "%"),
    ]


def _waits(name: str, waits: Sequence[float], bound: float | None) -> list[Figure]:
    p99 = percentile(waits, 0.99)
    told = f"p99 from produced to searchable, {name}"
    return [
        stated("realtime", f"median, {name}", percentile(waits, 0.5), "s", f"{len(waits)} logs"),
        stated("realtime", told, p99, "s")
        if bound is None
        else at_most("realtime", told, p99, bound, "s"),
        stated("realtime", f"at most, {name}", max(waits), "s"),
    ]


@dataclass(frozen=True, slots=True)
class Look:
    """What the API had served at a time, and how much of it to the consumer."""

    at: float
    tokens: int
    live: int


def _look(stage: Stage, product: Product) -> Look:
    live = sum(group.usage.get("api_tokens", 0) for group in product.ledger.realtime.summary())
    return Look(time.monotonic(), stage.api.counts()["tokens"], live)


def shares(looks: Sequence[Look], tokens_per_minute: int) -> tuple[float, float]:
    """Of the quota, what was used and what live logs took, in the middle of a drain: at first
    nothing has been found yet, and in the end what is left are known texts."""
    if len(looks) < 10:
        return 0.0, 0.0
    first, last = looks[len(looks) // 5], looks[-len(looks) // 5]
    quota = tokens_per_minute * (last.at - first.at) / 60
    return (last.tokens - first.tokens) / quota, (last.live - first.live) / quota


def _index() -> str:
    return f"{_PROJECT}_{datetime.now(UTC):%Y_%m}"


def _create_topic(stage: Stage) -> None:
    admin = AdminClient({"bootstrap.servers": stage.stack.kafka.url})
    for made in admin.create_topics([NewTopic(_TOPIC, _PARTITIONS, 1)]).values():
        made.result(30)


def _start_consumer(stage: Stage, product: Product, env: dict[str, str]) -> None:
    folder = stage.folder / "consumer"
    folder.mkdir(parents=True, exist_ok=True)
    consumer = stage.stack.spawn(
        "consumer",
        [sys.executable, "-m", "enrich", "consume"],
        env={
            "PYTHONPATH": str(CHECKOUT),
            "ENRICH_LOG_FILE": str(folder / "consumer.log"),
            **stage.options.env,
            **env,
        },
        cwd=folder,
    )
    # One of the programs whose end would be told.
    product.programs["consumer"] = consumer


@dataclass
class Live:
    """Logs as they happen, and when each can be found by its vector."""

    stage: Stage
    corpus: Corpus
    #: When each log was produced that has not been found yet, by id.
    pending: dict[str, float] = field(default_factory=dict)
    _number: int = 0

    def until_seen(self, logs: int) -> None:
        ends = self._number + logs
        self.while_(lambda: self._number < ends)

    def while_(self, condition: Callable[[], bool]) -> list[float]:
        """Produce while a condition holds, and wait for the rest; seconds until each was found."""
        waits: list[float] = []
        with _Searches(self, waits):
            with _Producing(self):
                while condition():
                    time.sleep(0.5)
            patience = time.monotonic() + 60
            while self.pending:
                if time.monotonic() > patience:
                    raise StageFailed(
                        f"{len(self.pending)} live logs have no vector a minute later"
                    )
                time.sleep(0.1)
        return waits

    def next(self) -> tuple[str, dict[str, Any]]:
        """The id and the document of the next log."""
        self._number += 1
        n = self._number
        log = self.corpus.logs[random.Random(n).randrange(len(self.corpus.logs))]
        document = orjson.loads(log.source)
        document["timestamp"] = datetime.now(UTC).isoformat(timespec="milliseconds")
        if n % 2:
            document["message"] = f"request of tenant{n}x failed: {document['message']}"
        return f"live-{n}", document


class _Producing(Background):
    """Applications and their shipper."""

    def __init__(self, live: Live) -> None:
        super().__init__()
        self._live = live
        self._cluster = live.stage.cluster.another()

    def work(self) -> None:
        producer = Producer({"bootstrap.servers": self._live.stage.stack.kafka.url, "linger.ms": 5})
        due, turn = time.monotonic(), 0
        rows: list[bytes] = []
        while not self.over.is_set():
            for _ in range(round(_ERRORS_PER_SECOND * _TURN_SECONDS)):
                rows += self._produce(producer)
            producer.poll(0)
            turn += 1
            if turn % 2 == 0:
                rows = self._ship(rows)
            due += _TURN_SECONDS
            self.over.wait(max(0.0, due - time.monotonic()))
        producer.flush(30)
        self._ship(rows)
        self._cluster.close()

    def _produce(self, producer: Producer) -> list[bytes]:
        """Produce an ERROR and some others; what the shipper sends of it."""
        id, document = self._live.next()
        message = {**document, "document_id": id, "project_uuid": _PROJECT}
        self._live.pending[id] = time.monotonic()
        producer.produce(_TOPIC, orjson.dumps(message), key=id)
        for n in range(_OTHERS):
            other = {**message, "document_id": f"{id}-{n}", "level": "INFO"}
            producer.produce(_TOPIC, orjson.dumps(other), key=f"{id}-{n}")
        return [orjson.dumps({"index": {"_index": _index(), "_id": id}}), orjson.dumps(document)]

    def _ship(self, rows: list[bytes]) -> list[bytes]:
        if rows:
            self._cluster.bulk(b"\n".join(rows) + b"\n")
        return []


class _Searches(Background):
    """Looks for live logs that have a vector."""

    def __init__(self, live: Live, waits: list[float]) -> None:
        super().__init__()
        self._live = live
        self._waits = waits
        self._cluster = live.stage.cluster.another()

    def work(self) -> None:
        while not self.over.wait(_LOOK_SECONDS):
            wanted = list(self._live.pending)[:1000]
            if not wanted:
                continue
            query = {
                "size": len(wanted),
                "_source": False,
                "query": {
                    "bool": {
                        "filter": [
                            {"ids": {"values": wanted}},
                            {"exists": {"field": "log_vector"}},
                        ]
                    }
                },
            }
            hits = self._cluster("POST", f"/{_index()}/_search", query)["hits"]["hits"]
            now = time.monotonic()
            self._waits += [now - self._live.pending.pop(hit["_id"]) for hit in hits]
        self._cluster.close()

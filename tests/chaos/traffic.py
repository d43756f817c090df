"""Logs as they come in production: one program produces them to the topic, another ships their
documents, each at its own pace. Both go on through faults, as such programs do."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2
from confluent_kafka import KafkaException, Producer

#: Between two looks at what is due.
TICK_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class Item:
    """A message, a document, or both."""

    index: str = ""
    id: str = ""
    source: dict[str, Any] = field(default_factory=dict)
    #: None: nothing is produced.
    value: bytes | None = None
    produced: bool = True
    #: How often it is produced; a producer's retry may do so twice.
    times: int = 1
    #: Seconds from the message to the document, perhaps negative; None: it is never shipped.
    ships_after: float | None = 0.0


class Traffic:
    """Sends items at a rate, in a thread of its own."""

    def __init__(
        self,
        servers: str,
        topic: str,
        opensearch: httpx2.Client,
        partitions: Callable[[], int],
        source: random.Random,
    ) -> None:
        """
        Args:
            partitions: how many the topic has now.
        """
        self._topic = topic
        self._opensearch = opensearch
        self._partitions = partitions
        self._random = source
        self._producer = Producer(
            {
                "bootstrap.servers": servers,
                "log_level": 0,
                "linger.ms": 5,
                "message.timeout.ms": 60_000,
                "topic.metadata.refresh.interval.ms": 1000,
                "reconnect.backoff.max.ms": 1000,
            }
        )
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        #: Messages that Kafka did not take in time; their logs are the backfill's.
        self.not_produced = 0

    def begin(self, items: list[Item], per_second: float) -> None:
        self.finish()
        self._thread = threading.Thread(target=self._go, args=(items, per_second), daemon=True)
        self._thread.start()

    def finish(self, seconds: float = 90.0) -> None:
        """Wait until all is sent. Raises what stopped it, if anything did."""
        if self._thread is not None:
            self._thread.join(seconds)
            if self._thread.is_alive():
                raise AssertionError("the logs could not be produced and shipped in time")
            self._thread = None
        if self._error is not None:
            raise self._error

    @property
    def going_on(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _go(self, items: list[Item], per_second: float) -> None:
        try:
            self._send(items, per_second)
        except BaseException as error:
            self._error = error

    def _send(self, items: list[Item], per_second: float) -> None:
        messages = [(n / per_second, item) for n, item in enumerate(items) if item.produced]
        documents = sorted(
            (
                (n / per_second + item.ships_after, n, item)
                for n, item in enumerate(items)
                if item.ships_after is not None and item.index
            ),
            key=lambda due: due[:2],
        )
        begun = time.monotonic()
        while messages or documents:
            now = time.monotonic() - begun
            shipped = [item for at, _, item in documents if at <= now][:500]
            if shipped and self._ship(shipped):
                documents = documents[len(shipped) :]
            while messages and messages[0][0] <= now:
                item = messages.pop(0)[1]
                for _ in range(item.times):
                    self._produce(item.value)
            self._producer.poll(0)
            time.sleep(TICK_SECONDS)
        self._producer.flush(80)

    def _produce(self, value: bytes | None) -> None:
        try:
            self._producer.produce(
                self._topic,
                value,
                partition=self._random.randrange(self._partitions()),
                on_delivery=self._delivered,
            )
        except KafkaException:
            # A partition or a topic that is not there, for all that the client knows.
            self.not_produced += 1

    def _delivered(self, error: Any, message: Any) -> None:
        self.not_produced += error is not None

    def _ship(self, items: list[Item]) -> bool:
        """Whether OpenSearch has them now; a shipper tries again."""
        rows = [
            json.dumps(row)
            for item in items
            for row in ({"create": {"_index": item.index, "_id": item.id}}, item.source)
        ]
        try:
            answer = self._opensearch.post(
                "/_bulk",
                content=("\n".join(rows) + "\n").encode(),
                headers={"content-type": "application/json"},
            )
            if answer.status_code != 200:
                return False
            kinds = {row["create"]["status"] for row in answer.json()["items"]}
        except (httpx2.HTTPError, ValueError):
            return False
        return kinds <= {201, 409}

"""The product in this process, in memory: what `tests.conftest.Pipeline` is on servers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import fakeredis

from enrich.backfill.chunk import ChunkBusy
from enrich.backfill.in_memory import InMemoryPublisher
from enrich.backfill.page import Scanner
from enrich.backfill.run import Backfill, Parts
from enrich.backfill.survey import Survey
from enrich.embedding.in_memory import (
    InMemoryCache,
    InMemoryEmbedder,
    InMemoryLocations,
    InMemoryQuota,
    vector_of,
)
from enrich.enrichment.enricher import Enricher
from enrich.enrichment.journal import RunJournal
from enrich.enrichment.slow_indices import SlowIndices
from enrich.enrichment.write_trials import WriteTrials
from enrich.errors import TransientError
from enrich.ledger.in_memory import in_memory_ledger
from enrich.log_store.in_memory import InMemoryLogStore
from enrich.models import Chunk, RunRecord
from enrich.ratelimit.write_throttle import WriteThrottle
from enrich.settings import load_settings
from enrich.wiring import planner_of, resolver_of

DIMENSIONS = 4
NOBODY = fakeredis.FakeRedis(connected=False)

#: As the tasks do.
MOST_TRIES = 3


def logs(count: int, distinct: int, **fields: Any) -> list[dict[str, Any]]:
    """ERROR logs of so many texts; those later in the list are newer."""
    return [
        {
            "level": "ERROR",
            "message": f"connection refused by host number {n % distinct}",
            "timestamp": f"2026-11-20T{n // 3600:02}:{n // 60 % 60:02}:{n % 60:02}Z",
            **fields,
        }
        for n in range(count)
    ]


class MemoryPipeline:
    """One process with everything in it."""

    def __init__(self, **overrides: Any) -> None:
        wanted = {
            "openai_api_key": "k",
            "embedding_dimensions": DIMENSIONS,
            "enrich_batch_size": 100,
            **overrides,
        }
        self.settings = load_settings(_env_file=None, **wanted)
        self.store = InMemoryLogStore(self.settings)
        self.embedder = InMemoryEmbedder(DIMENSIONS)
        self.cache = InMemoryCache()
        self.locations = InMemoryLocations(self.settings.openai_base_url)
        self.quota = InMemoryQuota()
        # Whole, so that no moment lies between what Redis can tell and the float beside it.
        began = float(int(time.time()))
        #: Seconds by which the ledger's time has moved; it stands still otherwise.
        self.later = 0.0
        self.ledger = in_memory_ledger(clock=lambda: began + self.later)
        self.publisher = InMemoryPublisher()
        self.messages = self.publisher.messages
        self.resolver = resolver_of(
            *(self.settings, self.store, self.ledger, self.quota),
            *(self.embedder, self.cache, self.locations),
        )
        self.planner = planner_of(
            *(self.settings, self.store, self.ledger, self.cache, self.locations),
            self.quota.limits,
        )
        # Without a pace it asks nobody.
        throttle = WriteThrottle(NOBODY, "enrich:", 0)
        self.scanner = Scanner(
            *(self.settings, self.store, self.ledger, self.resolver),
            Survey(
                *(self.settings, self.store, self.locations, self.ledger, self.resolver),
            ),
            self.publisher,
        )
        trials = WriteTrials(self.store.engines, self.ledger.index_states, "host/1")
        self.enricher = Enricher(
            *(self.settings, self.store, self.resolver, self.ledger, throttle, trials),
            SlowIndices(lambda: self.later),
            RunJournal(self.ledger),
        )
        self.backfill = Backfill(
            Parts(
                settings=self.settings,
                store=self.store,
                resolver=self.resolver,
                locations=self.locations,
                ledger=self.ledger,
                throttle=throttle,
                publisher=self.publisher,
                connections=(),
                planner=self.planner if self.settings.enrich_confirm_above_usd else None,
            )
        )
        self.lines: list[str] = []
        #: Called before each message; may change the world.
        self.before: Callable[[str, Any], None] = lambda name, arguments: None

    def fill(self, **pending: int) -> None:
        """Give each index so many logs of three texts."""
        for index, count in pending.items():
            self.put(index, logs(count, 3))

    def put(self, index: str, some: Iterable[Mapping[str, Any]], name: str = "log") -> None:
        """Write logs as `{name}{n}` and make them visible."""
        if index not in self.store.indices:
            self.store.create(index)
        for n, source in enumerate(some):
            self.store.put(index, f"{name}{n}", source)
        self.store.documents.refresh([index])

    def deliver(self) -> None:
        name, arguments = self.messages[0]
        self.before(name, arguments)
        for last in (*[False] * (MOST_TRIES - 1), True):
            try:
                self.lines.append(self.publisher.deliver_first(self.backfill))
                return
            except ChunkBusy:
                return
            except TransientError as error:
                if name != "embed_and_update":
                    raise
                if last:
                    chunk = Chunk.from_message(*arguments)
                    self.lines.append(self.backfill.give_up(chunk, str(error)))
                    return
                self.messages.appendleft((name, arguments))

    def run(self, trigger: str = "manual") -> RunRecord:
        """One run (and those that continue it), to its end; the record of the last."""
        self.publisher.find_unvectorized(trigger)
        while self.messages:
            self.deliver()
        return self.ledger.records.last(1)[0]

    def sources(self, index: str) -> dict[str, dict[str, Any]]:
        """Every log of an index as it is now."""
        return {id: log.source for id, log in self.store.indices[index].logs.items()}

    def vectorised(self, *indices: str) -> int:
        """How many logs have a vector; each has that of its own text."""
        count = 0
        for index in indices or self.store.indices:
            for source in self.sources(index).values():
                if source.get("log_vector") is not None:
                    right = vector_of(str(source["message"]).strip(), DIMENSIONS).tolist()
                    assert source["log_vector"] == right
                    count += 1
        return count


def assert_adds_up(record: RunRecord) -> None:
    assert record.found == record.settled
    assert record.state == "finished"
    assert record.chunks_open == 0

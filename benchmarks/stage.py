"""What every line of the benchmarks plays on: the servers, the folder, the options.

Before anything starts it is checked that the disk and the memory are there; what goes wrong later
is told in a sentence.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from benchmarks.ceilings import Way, ceiling
from benchmarks.cluster import Cluster
from benchmarks.corpus import Corpus, fresh, make_corpus
from benchmarks.product import Drain, Product, settings_of
from dev.api_control import ApiControl
from dev.services import CHECKOUT, Services
from enrich.log_store import Addition, LogStore, Target, Write

HEAP = "2g"
PEERS_PYTHON = CHECKOUT / ".dev" / "bench-venv" / "bin" / "python"

_MB = 1024 * 1024
#: On disk, of one log with its vector: source, graph, translog, and what merging needs meanwhile.
_DISK_PER_LOG = 0.12 * _MB
_DISK_ALWAYS = 1024 * _MB
#: In memory, of one log of a corpus, its share of vectors as floats and as JSON included.
_MEMORY_PER_LOG = 0.015 * _MB
#: OpenSearch with its heap, a worker of a few processes, beat, Flower and the model.
_MEMORY_ALWAYS = 5 * 1024 * _MB

_WARMING_ROUNDS = 8
_SMALL_REQUESTS = 5000
_SMALL_AT_ONCE = 4


class StageFailed(RuntimeError):
    """A benchmark cannot begin or go on; the text says what is missing."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What was asked for."""

    full: bool = False
    #: Logs of a line's corpus; None: as many as each line finds right.
    size: int | None = None
    rounds: int | None = None
    #: Variables for the product, beside its defaults.
    env: Mapping[str, str] = field(default_factory=dict)
    concurrency: int | None = None
    #: Contenders of the line `drain` beside the product; None: all that are there.
    against: frozenset[str] | None = None
    #: ENRICH_WRITE_PACE for the line `kindness`.
    pace: str = "200"


@dataclass(kw_only=True)
class Stage:
    """Handed to every line."""

    options: Options
    stack: Services
    cluster: Cluster
    api: ApiControl
    folder: Path
    say: Callable[[str], None]
    #: What was measured, by line, for the JSON.
    data: dict[str, Any] = field(default_factory=dict)
    _products: int = 0

    def size(self, quick: int, full: int) -> int:
        """How many logs: what was asked for, or what fits minutes or hours."""
        return self.options.size or (full if self.options.full else quick)

    def rounds(self, quick: int, full: int) -> int:
        return self.options.rounds or (full if self.options.full else quick)

    def product(
        self,
        *,
        env: Mapping[str, str] | None = None,
        concurrency: int | None = None,
        workers: int = 1,
        flower: bool = True,
        prefix: Callable[[str], list[str]] | None = None,
    ) -> Product:
        """The product, not yet started, with a folder of its own."""
        self._products += 1
        return Product(
            self.stack,
            self.cluster,
            self.folder / f"product{self._products}",
            env={**self.options.env, **(env or {})},
            concurrency=concurrency or self.options.concurrency,
            workers=workers,
            flower=flower,
            prefix=prefix,
        )

    def warm(self, product: Product, size: int = 1000) -> None:
        """A small drain that nobody counts: connections are open."""
        corpus = make_corpus(size, distinct_share=1.0, seed=99)
        fresh(self.cluster, corpus)
        self.api.reset()
        product.forget()
        product.drain(expect=size)
        product.forget()

    def warm_opensearch(self, product: Product, corpus: Corpus) -> None:
        """Drain and write a corpus in turns until neither gets faster twice in a row: Java compiles
        what is used most, and a node that has just started is a third as fast as it is 100,000 logs
        later.
        What runs once a request is compiled after thousands of requests only."""
        self.warm(product)
        many_small_requests(self.stack, self.cluster, corpus)
        best, in_vain = [0.0, 0.0], 0
        for _ in range(_WARMING_ROUNDS):
            rates = [
                self.drain(product, corpus, latency_ms=0).rate,
                self.ceiling(corpus, "index"),
            ]
            self.say("warming up: {:.0f}/s and {:.0f}/s".format(*rates))
            faster = any(rate >= 1.05 * before for rate, before in zip(rates, best, strict=True))
            in_vain = 0 if faster else in_vain + 1
            if in_vain == 2:
                break
            best = [max(pair) for pair in zip(rates, best, strict=True)]

    def ceiling(self, corpus: Corpus, way: Way) -> float:
        return ceiling(self.cluster, corpus, fresh(self.cluster, corpus), way)

    def drain(self, product: Product, corpus: Corpus, *, latency_ms: float) -> Drain:
        """A drain of fresh logs by a product that has forgotten all it knew."""
        fresh(self.cluster, corpus)
        product.forget()
        self.api.reset(latency_ms=latency_ms)
        return product.drain(expect=len(corpus.logs))

    def peer(self, name: str, corpus: Corpus, *arguments: str, latency_ms: float) -> dict[str, Any]:
        """Run a peer over fresh logs; what it says, and what the API saw."""
        fresh(self.cluster, corpus)
        self.api.reset(latency_ms=latency_ms)
        # The script that is replaced needs no more than the product itself does.
        python = sys.executable if name == "one_by_one" else str(PEERS_PYTHON)
        done = subprocess.run(
            [python, "-m", f"benchmarks.peers.{name}", *arguments],
            env={**os.environ, **self.stack.environment(), "PYTHONPATH": str(CHECKOUT)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            last = (done.stderr.strip() or "no word").splitlines()[-1]
            raise StageFailed(f"{name} ended with status {done.returncode}: {last}")
        told: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        told["rate"] = told["written"] / told["seconds"]
        told["api"] = self.api.counts()
        return told


def many_small_requests(stack: Services, cluster: Cluster, corpus: Corpus) -> None:
    """Search, read and write a few logs at a time, thousands of times, as the product does it."""
    fresh(cluster, corpus)
    store = LogStore(settings_of(stack))
    addition = Addition({"ai_enrichment_status": "success"}, corpus.encoded()[0])
    many = [Target(index, None, 700) for index in corpus.indices]
    few = [Target(index, None, 3) for index in corpus.indices]
    found = [hit.reference for page in store.finder.page(many, frozenset()) for hit in page.hits]

    def ask(number: int) -> None:
        store.finder.page(few, frozenset())
        some = random.Random(number).sample(found, min(6, len(found)))
        documents = store.documents.read(some)
        store.documents.write(
            [Write(document=document, addition=addition) for document in documents[:2]]
        )

    try:
        with ThreadPoolExecutor(_SMALL_AT_ONCE) as pool:
            for _ in pool.map(ask, range(_SMALL_REQUESTS)):
                pass
    finally:
        store.close()


def peers_there() -> bool:
    return PEERS_PYTHON.exists()


def check_room(folder: Path, logs: int) -> None:
    """Raise StageFailed, with numbers, if this machine has no room for that many logs."""
    folder.mkdir(parents=True, exist_ok=True)
    disk = psutil.disk_usage(str(folder)).free
    wanted = _DISK_ALWAYS + logs * _DISK_PER_LOG
    if disk < wanted:
        raise StageFailed(
            f"{folder} has {_in_gb(disk)} free and {_in_gb(wanted)} are needed for {logs} logs: "
            "make room, or ask for fewer with --size"
        )
    memory = psutil.virtual_memory().available
    wanted = _MEMORY_ALWAYS + logs * _MEMORY_PER_LOG
    if memory < wanted:
        raise StageFailed(
            f"{_in_gb(memory)} of memory are free and {_in_gb(wanted)} are needed for {logs} logs: "
            "end other programs, or ask for fewer with --size"
        )


def _in_gb(amount: float) -> str:
    return f"{amount / 1024**3:.1f} GB"

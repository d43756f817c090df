"""The states that the page can be in, each made of real data on the servers of the tests.

A scene fills OpenSearch and Redis and says how the page is served. Runs of the past are made by the
ledger's own moves, and their times moved back afterwards.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from dev.failures import failures, ordinary
from dev.sample_logs import generate
from enrich import __version__
from enrich.ledger import Ledger, Scan
from enrich.ledger.deployment import NEVER, Configuration, WorkerNote
from tests.conftest import Pipeline, Search

#: A name and a sentence that try to be more than text.
HOSTILE = "<img src=x onerror=alert(1)>\x1b[2J\u202egnp.exe{{ 1 + 1 }}`</style>"

NO_SCAN = Scan(pending=[], update_only=[], unsorted=[])
#: Of the scene in which nothing is invented.
LIVED_RUNS = 16


@dataclass(frozen=True)
class Scene:
    """A state of the page."""

    name: str
    #: What the page says in one word.
    word: str
    fill: Callable[[World], None]
    #: Settings beside those of the tests.
    settings: dict[str, Any] = field(default_factory=dict)
    #: Of the pages that are looked at beside the first: their paths.
    more: tuple[str, ...] = ()


@dataclass(frozen=True)
class World:
    """What a scene is made of."""

    pipeline: Pipeline
    search: Search

    @property
    def ledger(self) -> Ledger:
        return self.pipeline.ledger

    # -- logs

    def index(self, name: str, messages: list[str], minutes_ago: float = 5, **fields: Any) -> None:
        """ERROR logs of these texts, the first of them the oldest."""
        self.search.create(name, **fields)
        now = datetime.now(UTC)
        self.search.index(
            name,
            [
                {
                    "level": "ERROR",
                    "message": message,
                    "timestamp": (now - timedelta(minutes=minutes_ago, seconds=-n)).isoformat(),
                }
                for n, message in enumerate(messages)
            ],
        )

    # -- runs

    def past_run(self, minutes_ago: float, seconds: float, **outcomes: int) -> str:
        """A run that ended, with these outcomes of its logs."""
        ledger = self.ledger
        run = ledger.runs.open("beat", 0).run
        chunk = f"{run}:1:0"
        found = sum(outcomes.values())
        ledger.pages.register(
            run, 1, scan=NO_SCAN, scan_done=True, chunks={chunk: found} if found else {}
        )
        if found:
            ledger.chunks.begin(chunk, "host/1", 120)
            why = {"the embeddings API answers 503": outcomes.get("deferred", 0)}
            ledger.chunks.settle(chunk, outcomes, reasons={k: n for k, n in why.items() if n})
            inputs = outcomes.get("embedded", 0)
            if inputs:
                ledger.counters.add(
                    run,
                    micro_usd=int(inputs * 96 * 0.13),
                    api_requests=-(-inputs // 256),
                    api_inputs=inputs,
                    api_tokens=inputs * 96,
                )
        ledger.runs.finish(run)
        self.moved(run, minutes_ago, seconds)
        return run

    def moved(self, run: str, minutes_ago: float, seconds: float) -> None:
        began = datetime.now(UTC) - timedelta(minutes=minutes_ago)
        times = {"started_at": began, "finished_at": began + timedelta(seconds=seconds)}
        keys = self.ledger._keys
        keys.redis.hset(
            keys.run_key(run),
            mapping={name: int(time.timestamp() * 1000) for name, time in times.items()},
        )
        keys.redis.hincrby(keys.key("totals"), "milliseconds", int(seconds * 1000))

    def ticked(self, minutes_ago: float) -> None:
        moment = datetime.now(UTC) - timedelta(minutes=minutes_ago)
        keys = self.ledger._keys
        keys.redis.set(keys.key("last_tick"), int(moment.timestamp() * 1000))

    def history(self, runs: int, seed: int = 7) -> None:
        """A day and a half of runs, as they are in an ordinary week."""
        source = random.Random(seed)
        for n in range(runs, 0, -1):
            busy = source.random() < 0.8
            embedded = int(source.lognormvariate(7, 0.7)) if busy else 0
            outcomes = {
                "embedded": embedded,
                "duplicate": int(embedded * source.uniform(0.4, 1.4)),
                "cached": int(embedded * source.uniform(0.1, 0.9)),
                "reused": int(embedded * source.uniform(0, 0.3)),
                "already_vectorized": int(embedded * source.uniform(0, 0.05)),
                "failed": source.choice((0, 0, 0, 1, 12, 40)) if busy else 0,
                "deferred": source.choice((0, 0, 0, 0, 0, 0, embedded // 6)) if busy else 0,
            }
            total = sum(outcomes.values())
            self.past_run(
                n * 10 + source.uniform(0, 1),
                1.0 + total / source.uniform(900, 2400),
                **{name: count for name, count in outcomes.items() if count},
            )

    # -- who works

    def worker(self, host: str, **changed: Any) -> None:
        note = {
            "token": host,
            "name": f"celery@{host}",
            "host": host,
            "pid": 4242,
            "processes": 8,
            "queues": ("enrich.scan", "enrich.embed"),
            "version": __version__,
            "configuration": Configuration.of(self.pipeline.settings),
            "refuses": "",
            "since": NEVER,
            "seen": NEVER,
            "seconds_ago": 0.0,
            **changed,
        }
        self.ledger.deployment.note_worker(WorkerNote(**note))

    def beat(self) -> None:
        self.ledger.deployment.note_beat("beat", "scheduler-1", 17, 600.0)


TEXTS = [
    f"{what} of {service} {why}"
    for what in ("connection", "request", "payment", "lookup", "transaction")
    for service in ("orders", "billing", "search", "stock", "mail")
    for why in ("timed out", "was refused", "was reset by peer", "met a full disk")
]


def _enriched(world: World, runs: int = 60) -> None:
    """Three projects whose logs all have vectors, after a history of runs."""
    world.history(runs)
    for place, project in enumerate(("shop_checkout", "shop_stock", "billing_core")):
        world.index(f"{project}_2026_11", TEXTS[place * 20 : place * 20 + 60])
    world.pipeline.run("manual")
    world.worker("worker-a")
    world.worker("worker-b", processes=4)
    world.beat()


def healthy(world: World) -> None:
    _enriched(world)
    for _ in range(3):
        world.past_run(1, 0.1)
    world.ticked(3)


def working(world: World) -> None:
    """A run half-way: some chunks are done, some at work, some wait."""
    _enriched(world, 30)
    world.index("shop_search_2026_11", [f"{t} at node {n}" for n in range(12) for t in TEXTS], 190)
    line = world.pipeline
    line.find_unvectorized("manual")
    while line.messages and line.messages[0][0] != "embed_and_update":
        line.deliver()
    for _ in range(4):
        line.deliver()
    run = world.ledger.runs.active()
    waiting = [m[1][0]["id"] for m in line.messages if m[0] == "embed_and_update"]
    for chunk, owner in zip(waiting, ("worker-a/71", "worker-a/72", "worker-b/9"), strict=False):
        world.ledger.chunks.begin(chunk, owner, 120)
    world.ledger.counters.add(run, rate_limited=3, retries=1)
    keys = world.ledger._keys
    began = datetime.now(UTC) - timedelta(seconds=9)
    keys.redis.hset(keys.run_key(run), "started_at", int(began.timestamp() * 1000))
    world.ticked(0.2)


def lived(world: World) -> None:
    """Runs that were really made, one after the other, of the demo's failures; the last is at work.

    No run and no count of it is invented: the README's picture is of this.
    """
    source = random.Random(11)
    sizes = [source.randint(60, 400) for _ in range(LIVED_RUNS)] + [2_000]
    total = sum(sizes)
    messages = (
        log.document["message"]
        for log in generate(total, errors=total, failures=failures(), ordinary=ordinary())
    )
    projects = ("shop_checkout", "shop_stock", "billing_core")
    for project in projects:
        world.search.create(f"{project}_2026_11")
    world.worker("worker-a")
    world.worker("worker-b", processes=4)
    world.beat()
    line = world.pipeline
    for number, size in enumerate(sizes):
        index = f"{source.choice(projects)}_2026_11"
        now = datetime.now(UTC).isoformat()
        world.search.index(
            index,
            [
                {"_id": f"{number}-{n}", "level": "ERROR", "message": message, "timestamp": now}
                for n, message in enumerate(islice(messages, size))
            ],
        )
        if number < LIVED_RUNS:
            # As by hand: a tick that comes sooner than beat's next begins nothing.
            line.run("manual")
    line.find_unvectorized("manual")
    while line.messages and (
        line.messages[0][0] != "embed_and_update"
        or world.ledger.records.last(1)[0].settled < sizes[-1] // 3
    ):
        line.deliver()


def late(world: World) -> None:
    _enriched(world, 20)
    world.index("shop_search_2026_11", TEXTS[:40], 95)
    keys = world.ledger._keys
    for run in world.ledger.records.names()[:3]:
        world.moved(run, 80, 4)
    keys.redis.delete(keys.key("beats"))
    world.ticked(80)


def degraded(world: World) -> None:
    """Failed logs, and an index that cannot take a vector."""
    _enriched(world, 40)
    world.index("shop_mail_2026_11", ["", "   ", "mail server is gone"] * 6)
    floats = {
        "mappings": {"properties": {"level": {"type": "keyword"}, "log_vector": {"type": "float"}}},
        "settings": {"index.knn": True},
    }
    world.index("legacy_float_2026_11", TEXTS[:30], **floats)
    world.pipeline.run("manual")
    world.ticked(2)


def halted(world: World) -> None:
    """The endpoint refused the key, with logs waiting."""
    _enriched(world, 40)
    world.moved(world.ledger.records.names()[0], 9, 2)
    world.index("shop_search_2026_11", TEXTS, 42)
    run = world.ledger.runs.open("beat", 0).run
    chunks = {f"{run}:1:{n}": 25 for n in range(4)}
    world.ledger.pages.register(run, 1, scan=NO_SCAN, scan_done=True, chunks=chunks)
    world.ledger.runs.halt(
        run, "the embeddings API refuses OPENAI_API_KEY (401): set the right one in .env"
    )
    world.ledger.runs.finish(run)
    world.moved(run, 4, 1.3)
    world.ticked(4)


def paused(world: World) -> None:
    _enriched(world, 12)
    world.index("shop_search_2026_11", TEXTS[:50], 20)
    world.ledger.controls.pause()
    world.ticked(2)


def unknown(world: World) -> None:
    """Redis is away: the page is served with an address where nobody answers."""
    world.index("shop_checkout_2026_11", TEXTS[:30])


def without_opensearch(world: World) -> None:
    world.history(20)
    world.worker("worker-a")
    world.beat()
    world.ticked(3)


def empty(world: World) -> None:
    """The first minute after an installation."""


def hostile(world: World) -> None:
    """Names and reasons of others that try to be markup, commands, or a megabyte."""
    world.index("evil_\u202egnp_2026_11", TEXTS[:3])
    world.index("a" * 200 + "_2026_11", TEXTS[:3])
    run = world.ledger.runs.open("beat", 0).run
    chunks = {f"{run}:1:0": 2}
    world.ledger.pages.register(run, 1, scan=NO_SCAN, scan_done=True, chunks=chunks)
    world.ledger.runs.skip(run, HOSTILE, HOSTILE)
    world.ledger.runs.skip(run, "b" * 1_000_000, "c" * 1_000_000)
    world.ledger.counters.add_retry(run, HOSTILE)
    world.ledger.runs.halt(run, HOSTILE + "d" * 1_000_000)
    world.ledger.runs.finish(run)
    world.worker("evil", name=HOSTILE, refuses=HOSTILE)


def many(world: World) -> None:
    """More indices than fit on a page."""
    world.history(60, seed=3)
    for n in range(36):
        world.index(f"project{n:02}_app_2026_11", TEXTS[: 1 + n % 7], 30 + n)
    world.worker("worker-a")
    world.beat()
    world.ticked(3)


SCENES = {
    scene.name: scene
    for scene in (
        Scene("lived", "Working", lived),
        Scene("healthy", "Healthy", healthy, more=("runs", "run", "api/")),
        Scene("working", "Working", working, more=("run",)),
        Scene("late", "Late", late),
        Scene("degraded", "Degraded", degraded, more=("order/retry-failed",)),
        Scene("halted", "Halted", halted, more=("order/run", "run")),
        Scene("paused", "Paused", paused, more=("order/resume",)),
        Scene("unknown", "Unknown", unknown, {"redis_url": "redis://127.0.0.1:1/0"}),
        Scene("without_opensearch", "Unknown", without_opensearch, {"opensearch_port": 1}),
        Scene("empty", "Healthy", empty),
        Scene("hostile", "Halted", hostile, more=("run",)),
        Scene("many", "Healthy", many, more=("indices", "indices?page=1&q=project1")),
    )
}

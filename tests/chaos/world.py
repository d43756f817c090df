"""What a row of the chaos matrix acts on: real servers behind proxies, real worker and beat.

A `World` is one row's: fresh indices, a key prefix of its own, its worker and beat processes with
time limits scaled down in their order, and the truth about its documents. Between the workers and
Redis, and between them and OpenSearch, stands a TCP proxy; the row itself speaks to them directly.
"""

from __future__ import annotations

import random
import ssl
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx2
import redis

from dev.api_control import ApiControl
from dev.embedding_model import Model
from dev.opensearch_security import ADMIN
from dev.service import Service
from dev.services import Services
from dev.tcp_proxy import TcpProxy
from enrich.ledger import IndexState
from tests.chaos.checker import Checker, Findings, Truth
from tests.conftest import ROOT, Search

T = TypeVar("T")

SHOP = "shop_web_2026_11"
BANK = "bank_core_2026_11"

#: Scaled down, in their order. The interval is shorter than the deadline on purpose: ticks that
#: find a run active are part of what is tested.
ENV = {
    "ENRICH_INTERVAL_MINUTES": "0.1",
    "ENRICH_SOFT_TIME_LIMIT_SECONDS": "3",
    "ENRICH_HARD_TIME_LIMIT_SECONDS": "4",
    "ENRICH_VISIBILITY_TIMEOUT_SECONDS": "6",
    "ENRICH_CHUNK_DEADLINE_SECONDS": "10",
    # Rows wait for chunks that are given up; outages are theirs to time.
    "ENRICH_OUTAGE_SECONDS": "0",
    "ENRICH_BATCH_SIZE": "10",
    "OPENAI_TIMEOUT_SECONDS": "2",
    "OPENSEARCH_TIMEOUT_SECONDS": "2",
}
INTERVAL = 6.0
BATCH = 10
PROCESSES = 2

#: Variables of a worker that is not quite the product's own, see stumbling.py.
STUMBLES = {"CHAOS_MOMENT", "CHAOS_CLOCK"}

#: Gives up on a row whose backlog does not empty; transient trouble backs off for up to a minute.
PATIENCE = 240.0


class Stuck(AssertionError):
    """Something that had to happen did not."""


class TooLate(AssertionError):
    """The drain was through before the fault: it proves nothing."""


class LeftOut(AssertionError):
    """A row needs what is not here; nothing was started."""


class World:
    """One row's servers, processes and truth."""

    #: Whether the stack needs a broker of Kafka.
    kafka = False

    def __init__(
        self, stack: Services, folder: Path, name: str, seed: int, model: Model, *, size: int = 400
    ) -> None:
        self.stack = stack
        self.folder = folder
        self.name = name
        self.random = random.Random(seed)
        self.size = size
        self.prefix = f"chaos-{name}:"
        self.truth = Truth()
        self.model = model
        self.workers: list[Service] = []
        self.beats: list[Service] = []
        #: Beside `ENV`; a row may set it before it starts anything.
        self.env: dict[str, str] = {}
        #: How many inputs are sent before a harm is done.
        self.moment = 3 * BATCH
        self._number = 0
        self._exits = ExitStack()

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._reach()
        self._exits.callback(self.end_processes)
        self.forget()
        self.seed()
        return self

    def move_to(self, stack: Services) -> None:
        """Begin anew on other servers, before anything has been started on these."""
        self.stack = stack
        self.truth = Truth()
        self._reach()
        self.forget()
        self.seed()

    def _reach(self) -> None:
        """Connect to all servers of the stack."""
        enter = self._exits.enter_context
        self.redis_proxy = enter(TcpProxy(self.stack.redis.port))
        self.opensearch_proxy = enter(TcpProxy(self.stack.opensearch.port))
        client: dict[str, Any] = {}
        if self.stack.opensearch.url.startswith("https:"):
            context = ssl.create_default_context(cafile=str(self.stack.authority))
            client = {"auth": ADMIN, "verify": context}
        self.search = Search(self.stack.opensearch.url, **client)
        self._exits.callback(self.search.http.close)
        self.api = ApiControl(self.stack.embeddings.url, self.stack.control_key)
        self._exits.callback(self.api.close)
        self.redis = redis.Redis.from_url(self.stack.redis.url)
        self._exits.callback(self.redis.close)
        self.checker = Checker(
            self.stack.opensearch.url, self.stack.redis.url, self.prefix, self.model, **client
        )
        self._exits.callback(self.checker.close)

    def __exit__(self, *raised: object) -> None:
        self._exits.close()

    def until_judged(self, context: AbstractContextManager[T]) -> T:
        """Enter what a row needs until it is judged, and leave it then."""
        return self._exits.enter_context(context)

    def end_processes(self) -> None:
        """End the workers and beats of this row."""
        # Killed, not stopped: a soft shutdown would wait, and nothing is left that could be lost.
        for service in [*self.beats, *self.workers]:
            service.kill()

    # -- the documents

    def forget(self) -> None:
        """Empty what another row may have left, on servers that other tests may share."""
        for service in (self.stack.redis, self.stack.opensearch):
            if not service.running:
                service.start()
        self.redis.execute_command("REPLICAOF", "NO", "ONE")
        self.redis.config_set("maxmemory", "0")
        self.api.reset()
        self.api.set(latency_ms=250)
        for index in (SHOP, BANK):
            self.search("DELETE", f"/{index}?ignore_unavailable=true", ok=False)
        if keys := list(self.redis.scan_iter(self.prefix + "*")):
            self.redis.delete(*keys)

    def seed(self) -> None:
        """Two projects with ERROR logs, many with the same text; INFO logs; logs with a vector
        already; logs without text, which must fail."""
        distinct = self.size * 2 // 5
        for index, share in ((SHOP, 3), (BANK, 1)):
            self.search.create(index)
            count = self.size * share // 4
            documents = [self._log(n, distinct) for n in range(count)]
            documents += [{**self._log(n, distinct), "level": "INFO"} for n in range(40)]
            documents += [
                {**self._log(n, distinct), "log_vector": self._vector(), "by": "sibling"}
                for n in range(5)
            ]
            documents += [{**self._log(n, distinct), "message": "  "} for n in range(2)]
            self.search.index(index, documents)
        for key, hit in self.checker.read((SHOP, BANK)).items():
            self.truth.owe(key, hit["_source"])

    def _log(self, n: int, distinct: int) -> dict[str, Any]:
        return {
            "level": "ERROR",
            "message": f"connection refused by host number {n % distinct}.",
            "timestamp": f"2026-11-{1 + n % 28:02d}T10:00:00.{n % 1000:03d}Z",
            "n": n,
            "price": 1.10,
        }

    def _vector(self) -> list[float]:
        return [self.random.uniform(-1, 1) for _ in range(1536)]

    def some(self, count: int, index: str = SHOP) -> list[tuple[str, str]]:
        """Some of the logs that are owed."""
        keys = [
            key
            for key, source in self.truth.sources.items()
            if key[0] == index
            and source["level"] == "ERROR"
            and "log_vector" not in source
            and source["message"].strip()
        ]
        return self.random.sample(keys, count)

    # -- the processes

    def start(self) -> None:
        """A worker and beat, and the drain begins; a second fault meets it begun."""
        if self.beats:
            return
        self.worker(wait=False)
        self.beat()

    def worker(
        self, *, wait: bool = True, processes: int = PROCESSES, code: Path = ROOT, **env: str
    ) -> Service:
        """Start a worker; `env` may name a moment at which it stumbles, see stumbling.py.

        Args:
            code: the checkout that it runs, perhaps of another version.
        """
        self._number += 1
        name = f"{self.name}-w{self._number}"
        service = self._spawn(
            name,
            code,
            *("worker", "-c", str(processes), "-n", f"{name}@%h", "--without-mingle"),
            **env,
        )
        self.workers.append(service)
        if wait:
            self.until(lambda: "ready" in service.log.read_text(), "the worker is ready")
        return service

    def beat(self, code: Path = ROOT) -> Service:
        self._number += 1
        name = f"{self.name}-b{self._number}"
        service = self._spawn(name, code, "beat", "-s", str(self.folder / name))
        self.beats.append(service)
        return service

    def _spawn(self, name: str, code: Path, *words: str, **env: str) -> Service:
        program = "tests.chaos.stumbling" if env.keys() & STUMBLES else "celery"
        return self.stack.spawn(
            name,
            [sys.executable, "-m", program, "-A", "enrich", *words],
            env=self._environment(code, ENRICH_LOG_FILE=str(self.folder / f"{self.name}.log"))
            | env,
        )

    def _environment(self, code: Path, **env: str) -> dict[str, str]:
        """The variables of a process of this row."""
        proxied = {
            "REDIS_URL": f"redis://127.0.0.1:{self.redis_proxy.port}/0",
            "OPENSEARCH_PORT": str(self.opensearch_proxy.port),
        }
        own = {
            "PYTHONPATH": str(code),
            "ENRICH_REDIS_PREFIX": self.prefix,
        }
        return {**ENV, **proxied, **own, **env, **self.env}

    # -- waiting

    def until(self, condition: Callable[[], bool], what: str, patience: float = 90.0) -> None:
        """Wait for a condition; Stuck, with its name, if it does not come about."""
        deadline = time.monotonic() + patience
        while not condition():
            if time.monotonic() > deadline:
                raise Stuck(f"it was waited {patience:.0f} s in vain until {what}")
            time.sleep(0.05)

    def met(self, found: bool, otherwise: str) -> None:
        """TooLate unless a fault has met something to strike."""
        if not found:
            raise TooLate(f"the fault came too late: {otherwise}")

    def under_way(self, inputs: int = 0) -> None:
        """Until some texts have been paid for, and others not."""
        inputs = inputs or self.moment
        self.until(lambda: self.api.seen["inputs"] >= inputs, f"{inputs} inputs were sent")

    def through(self, patience: float = 90.0) -> None:
        """Until nothing is owed, whoever works."""

        def empty() -> bool:
            self._scale_trials()
            return not self.checker.owed(self.truth)

        self.until(empty, "the backlog is empty", patience)

    def reasons(self) -> list[str]:
        """Why runs were halted, and "index: reason" of what they skipped."""
        said = []
        for run in self.redis.lrange(self.prefix + "runs", 0, -1):
            key = f"{self.prefix}run:{run.decode()}"
            said.append((self.redis.hget(key, "halt_reason") or b"").decode())
            skipped = self.redis.hgetall(f"{key}:skipped")
            said += [f"{index.decode()}: {why.decode()}" for index, why in skipped.items()]
        return said

    def told(self, words: str, index: str = "") -> None:
        """Wait until a run was halted, or left the index out, for a reason with these words."""
        self.until(
            lambda: any(s.startswith(index) and words in s for s in self.reasons()),
            f"a run told: {index} {words}",
            60.0,
        )

    def active_run(self) -> str:
        return (self.redis.get(self.prefix + "active_run") or b"").decode()

    def halted(self) -> bool:
        """Whether any run was halted."""
        runs = self.redis.lrange(self.prefix + "runs", 0, -1)
        states = [self.redis.hget(f"{self.prefix}run:{r.decode()}", "state") for r in runs]
        return b"halted" in states

    def queue(self, name: str = "enrich.embed") -> str:
        """The broker's list for a queue."""
        return f"{self.prefix}broker:{name}"

    def settle(self) -> Findings:
        """Ticks go on until nothing is owed and no run is active; then the checker's findings."""
        late = ""
        try:
            self.until(
                self._through,
                "the backlog is empty and no run is active",
                PATIENCE,
            )
        except Stuck as error:
            late = str(error)
        if self.workers and not self.workers[-1].running:
            late = f"{late or 'the backlog was not emptied'}: the worker ended by itself"
        for beat in self.beats:
            beat.kill()
        try:
            # A tick that was on its way may have begun one more run, over an empty backlog.
            if not late:
                self.until(lambda: not self.active_run(), "the last run is over", 60.0)
        except Stuck as error:
            late = late or str(error)
        time.sleep(0.3)
        findings = self.checker.check(self.truth, int(self.api.seen["inputs"]))
        if late:
            findings.violations.insert(0, late)
        return findings

    def _through(self) -> bool:
        """Nothing is owed, no run is active and no message is on its way back from a lost worker;
        or nobody is left who could go on."""
        if self.workers and not self.workers[-1].running:
            return True
        self._scale_trials()
        try:
            return not (self.checker.owed(self.truth) or self.active_run() or self._held())
        except httpx2.HTTPError:
            # Just started, OpenSearch refuses to search until its shards are there.
            return False

    def _scale_trials(self) -> None:
        """An index that did not answer within the scaled time-out, on a machine under load perhaps
        without a fault, is tried again in scaled time too: in seconds, not in minutes."""
        for key in self.redis.scan_iter(f"{self.prefix}index:*"):
            if self.redis.get(key) == IndexState.DEAD.value.encode():
                self.redis.expire(key, 5, lt=True)

    def _held(self) -> int:
        """Messages that were taken and not finished. Those of a lost worker come back after the
        visibility time-out and up to ten seconds, here perhaps later than their deadline: what it
        had written is counted only then."""
        return int(self.redis.zcard(self.prefix + "broker:unacked_index"))

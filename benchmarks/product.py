"""The product as its users run it: `celery -A enrich worker`, `beat` and Flower, real processes.

A drain begins with beat's first tick and ends when the run record says so; how many vectors were
written, and when the last one was, is asked of OpenSearch as well.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from more_itertools import sliced

from benchmarks.background import Background
from benchmarks.cluster import Cluster
from benchmarks.sampling import Sample, Sampler, cpu_seconds
from dev.api_control import ApiControl
from dev.service import Service
from dev.services import CHECKOUT, Services, free_ports
from enrich.models import RunRecord
from enrich.settings import Settings, load_settings
from enrich.wiring import build_ledger

PREFIX = "enrich:"
QUEUE = PREFIX + "broker:enrich.embed"


class ProductFailed(RuntimeError):
    """The product did not do its work; the text says what was seen."""


@dataclass(frozen=True, kw_only=True)
class Drain:
    """What a backlog's way to empty cost."""

    #: The run and those that continued it, in order.
    runs: list[RunRecord]
    #: Written by these runs.
    vectors: int
    #: From the opening of the first run to the end of the last, as the records say.
    seconds: float
    #: The same, to the last look at OpenSearch's statistics after which something was written.
    seconds_seen: float
    #: User and system time by program while it lasted.
    cpu: dict[str, float]
    opensearch_cpu: float
    #: Of segments, by OpenSearch, while it lasted.
    merges: int
    #: By handler.
    opensearch_requests: dict[str, int]
    redis_commands: int
    api: dict[str, int]
    samples: list[Sample] = field(repr=False)

    @property
    def rate(self) -> float:
        """Vectors a second, of the longer of the two times."""
        return self.vectors / max(self.seconds, self.seconds_seen)

    def to_json(self) -> dict[str, Any]:
        """What the result file keeps."""
        return {
            "rate": self.rate,
            "vectors": self.vectors,
            "seconds": self.seconds,
            "seconds_seen": self.seconds_seen,
            "cpu": self.cpu,
            "opensearch_cpu": self.opensearch_cpu,
            "merges": self.merges,
            "opensearch_requests": self.opensearch_requests,
            "redis_commands": self.redis_commands,
            "api": self.api,
            "queue_most": max((sample.gauges["queue"] for sample in self.samples), default=0.0),
            "runs": len(self.runs),
        }


class CountingRedis(redis.Redis):
    """A connection that knows how many commands were its own."""

    sent = 0

    def execute_command(self, *args: Any, **options: Any) -> Any:
        self.sent += 1
        return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]


class Product:
    """Worker and Flower while it is entered; beat for each drain."""

    def __init__(
        self,
        stack: Services,
        cluster: Cluster,
        folder: Path,
        *,
        env: Mapping[str, str] | None = None,
        concurrency: int | None = None,
        workers: int = 1,
        flower: bool = True,
        prefix: Callable[[str], list[str]] | None = None,
    ) -> None:
        """
        Args:
            env: variables beside the defaults.
            concurrency: processes of each worker; None leaves that to the product.
            prefix: what to put before the command of a program of this name, such as the way
                into another network.
        """
        self._stack = stack
        self._cluster = cluster
        self._folder = folder
        self._env = dict(env or {})
        self._concurrency = concurrency
        self._workers = workers
        self._flower = flower
        self._prefix = prefix or (lambda _: [])
        self._count = 0
        self.log_file = folder / "periodic_enrichment.log"
        self.programs: dict[str, Service] = {}
        self.ledger = build_ledger(settings_of(stack))
        self.redis = CountingRedis(host="127.0.0.1", port=stack.redis.port)
        self.api = ApiControl(stack.embeddings.url, stack.control_key)

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self.forget()
        for number in range(self._workers):
            words = ["worker", "-n", f"bench{number}@%h"]
            if self._concurrency is not None:
                words += ["-c", str(self._concurrency)]
            self._start(f"worker{number or ''}", *words)
        if self._flower:
            (port,) = free_ports(1)
            self._start("flower", "flower", env={"FLOWER_PORT": str(port)})
        for name, service in self.programs.items():
            word = " ready." if name.startswith("worker") else "Visit me at"
            self.until(partial(_said, service, word), f"{name} is ready", 120.0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for service in reversed(self.programs.values()):
            # Killed rather than stopped: nothing is left that could be lost.
            service.kill()
        self.ledger.close()
        self.redis.close()
        self.api.close()

    def _start(self, name: str, *words: str, env: Mapping[str, str] | None = None) -> Service:
        self._count += 1
        service = self._stack.spawn(
            f"{self._folder.name}-{name}-{self._count}",
            [*self._prefix(name), sys.executable, "-m", "celery", "-A", "enrich", *words],
            env={
                "PYTHONPATH": str(CHECKOUT),
                "ENRICH_LOG_FILE": str(self.log_file),
                **self._env,
                **(env or {}),
            },
            cwd=self._folder,
        )
        self.programs[name] = service
        return service

    def forget(self, keep: tuple[bytes, ...] = ()) -> None:
        """Empty Redis of all but `keep` and the broker's bindings, which the worker has made."""
        kept = tuple(PREFIX.encode() + start for start in (b"broker:", *keep))
        keys = [
            key
            for key in self.redis.scan_iter(PREFIX + "*", count=1000)
            if not key.startswith(kept)
        ]
        for some in sliced(keys, 1000):
            self.redis.unlink(*some)

    def until(
        self, condition: Callable[[], bool], what: str, patience: float = 60.0, every: float = 0.05
    ) -> None:
        """Wait for a condition. ProductFailed if a program ends or patience does."""
        deadline = time.monotonic() + patience
        while not condition():
            for name, service in self.programs.items():
                if not service.running:
                    raise ProductFailed(f"{name} ended by itself; see {service.log}")
            if time.monotonic() > deadline:
                raise ProductFailed(f"it was waited {patience:.0f} s in vain until {what}")
            time.sleep(every)

    # -- draining

    def begin(self) -> None:
        """Start beat, whose first tick is at once, and wait until it has opened a run."""
        self._start("beat", "beat", "-s", str(self._folder / f"beat-{self._count}"))
        self.until(self._opened, "beat's first tick opened a run", every=0.01)

    def follow(self, patience: float = 3600.0) -> None:
        """Wait until a run has ended that leaves nothing for the next."""
        self.until(self.over, "the backlog was drained", patience, every=0.2)

    def end_beat(self) -> None:
        """No tick comes any more."""
        beat = self.programs.pop("beat", None)
        if beat is not None:
            beat.kill()

    def runs(self) -> list[RunRecord]:
        """The runs since `forget`, oldest first. ProductFailed if one did not end well."""
        runs = self.ledger.records.last(100)[::-1]
        for run in runs:
            if run.state != "finished" or run.settled != run.found:
                why = f": {run.halt_reason}" if run.halt_reason else ""
                raise ProductFailed(
                    f"run {run.number} is {run.state}, {run.settled} of {run.found} logs are "
                    f"accounted for{why}"
                )
        return runs

    def drain(self, *, expect: int, patience: float = 3600.0) -> Drain:
        """Let beat tick, follow the runs to the end, and measure.

        Args:
            expect: how many logs must have a vector afterwards.

        Raises:
            ProductFailed: a program ended, a run halted, or the vectors are too few.
        """
        before = self._standing()
        with _Writes(self._cluster) as writes:
            self.begin()
            # Beat's own start is no part of the drain, nor is the worker's waiting meanwhile.
            cpu_before, redis_before = self._cpu(), self._redis_commands()
            # No process is looked at meanwhile: that alone takes a hundredth of the machine.
            with Sampler(programs={}, gauges={"queue": self.queue_depth}, every=1.0) as sampler:
                self.follow(patience)
            cpu_after, redis_after = self._cpu(), self._redis_commands()
        after = self._standing()
        self.end_beat()
        runs = self.runs()
        vectors = self._cluster.with_vector()
        if vectors != expect:
            raise ProductFailed(f"{vectors} of {expect} logs have a vector after the drain")
        begun, ended = runs[0].started_at, runs[-1].finished_at
        assert begun is not None and ended is not None
        return Drain(
            runs=runs,
            vectors=sum(run.vectors_written for run in runs),
            seconds=(ended - begun).total_seconds(),
            seconds_seen=writes.last_at - begun.timestamp() if writes.last_at else 0.0,
            cpu={name: cpu_after[name] - cpu_before[name] for name in cpu_before},
            opensearch_cpu=after["cpu"] - before["cpu"],
            merges=after["merges"] - before["merges"],
            opensearch_requests={
                name: n - before["requests"].get(name, 0)
                for name, n in after["requests"].items()
                if n > before["requests"].get(name, 0)
            },
            redis_commands=redis_after - redis_before,
            api={name: n - before["api"][name] for name, n in after["api"].items()},
            samples=sampler.samples,
        )

    def pids(self) -> dict[str, int]:
        return {name: service.pid for name, service in self.programs.items()}

    def _cpu(self) -> dict[str, float]:
        return {name: cpu_seconds(pid) for name, pid in self.pids().items()}

    def forget_all_but_vectors(self) -> None:
        """As `forget`, but the cache of vectors stays."""
        self.forget(keep=(b"vector:",))

    def queue_depth(self) -> float:
        depth: Any = self.redis.llen(QUEUE)
        return float(depth)

    def redis_bytes(self) -> float:
        info: Any = self.redis.info("memory")
        return float(info["used_memory"])

    def _opened(self) -> bool:
        return bool(self.redis.llen(PREFIX + "runs"))

    def over(self) -> bool:
        """Whether no run is active and the last one was not stopped by time."""
        if self.redis.get(PREFIX + "active_run"):
            return False
        newest: Any = self.redis.lindex(PREFIX + "runs", 0)
        key = f"{PREFIX}run:{newest.decode()}"
        told: Any = self.redis.hmget(key, "state", "more", "stopped_by")
        state, more, stopped_by = told
        return state != b"running" and not (more == b"1" and stopped_by == b"time")

    def _redis_commands(self) -> int:
        """Commands since the server started, without those asked from here."""
        info: Any = self.redis.info("stats")
        return int(info["total_commands_processed"]) - self.redis.sent

    def _standing(self) -> dict[str, Any]:
        return {
            "cpu": self._cluster.cpu_seconds(),
            "merges": self._cluster.merges(),
            "requests": self._cluster.requests(),
            "api": self.api.counts(),
        }


class _Writes(Background):
    """Watches OpenSearch's count of index operations, to know until when there were more."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self._cluster = cluster
        self._written = cluster.written()
        #: Wall clock of the last look after which something was written; 0 while nothing was.
        self.last_at = 0.0

    def work(self) -> None:
        before = time.time()
        while not self.over.wait(0.2):
            at = time.time()
            written = self._cluster.written()
            if written != self._written:
                self._written, self.last_at = written, before
            before = at


def _said(service: Service, word: str) -> bool:
    return word in service.log.read_text(errors="replace")


def settings_of(stack: Services) -> Settings:
    """The product's settings on this stack, for what is asked of its parts from here."""
    return load_settings(**{name.lower(): value for name, value in stack.environment().items()})


def clean_environment() -> None:
    """Take this shell's settings of the product away: what is measured are the defaults."""
    prefixes = ("OPENAI_", "OPENSEARCH_", "EMBEDDING_", "FLOWER_", "CELERY")
    for name in list(os.environ):
        of_the_product = name.startswith("ENRICH_") and not name.startswith("ENRICH_DEV_")
        if of_the_product or name.startswith(prefixes) or name in ("REDIS_URL", "CACHE_URL"):
            del os.environ[name]

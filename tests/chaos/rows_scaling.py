"""Rows of the chaos matrix about workers whose number changes all the time.

What wakes and stops workers here reads the same lists of Redis as deploy/kubernetes' ScaledObject,
by the names in that file, and stops a worker as a kubelet does. It stands for KEDA, which needs a
cluster.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import yaml

from dev.service import Service
from enrich.settings import Settings
from tests.chaos.matrix import IN_FLIGHT, row
from tests.chaos.rows_search import another_index, some_logs
from tests.chaos.world import PATIENCE, PROCESSES, Stuck, World
from tests.conftest import ROOT

_MANIFESTS = ROOT / "deploy" / "kubernetes"

#: In their order, and wider than in other rows: what a time limit cuts is paid for again, and here
#: nothing may be.
_TIMES = {
    "ENRICH_SOFT_TIME_LIMIT_SECONDS": "10",
    "ENRICH_HARD_TIME_LIMIT_SECONDS": "15",
    "ENRICH_VISIBILITY_TIMEOUT_SECONDS": "20",
    "ENRICH_CHUNK_DEADLINE_SECONDS": "30",
    "OPENAI_TIMEOUT_SECONDS": "8",
    "OPENSEARCH_TIMEOUT_SECONDS": "8",
}

#: An index that makes the drain longer, or comes when there are no workers.
MORE = "more_web_2026_11"


def _manifest(path: str) -> dict[str, Any]:
    first: dict[str, Any] = next(iter(yaml.safe_load_all((_MANIFESTS / path).read_text())))
    return first


def as_a_pod(w: World) -> float:
    """Give workers what their pod gives them; the seconds that a kubelet waits for one to end."""
    spec = _manifest("base/worker.yaml")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    given = {each["name"]: each.get("value", "") for each in container["env"]}
    w.env |= {**_TIMES, "REMAP_SIGTERM": given["REMAP_SIGTERM"]}
    return float(spec["terminationGracePeriodSeconds"])


def more_texts(w: World, count: int) -> None:
    w.until_judged(another_index(w, MORE, some_logs("more", count)))


def nothing_twice(w: World) -> None:
    """The two inputs in a hundred that other rows may pay are not given here."""
    w.truth.cut_inputs -= int(0.02 * len(w.truth.texts))


@row("scaling", "workers come and go every few seconds: SIGTERM, and another starts; nothing twice")
def workers_come_and_go(w: World) -> None:
    grace = as_a_pod(w)
    w.api.set(latency_ms=1000)
    more_texts(w, 700)
    nothing_twice(w)
    w.start()
    w.until(lambda: w.api.seen["inputs"] >= w.moment, "some texts were sent", PATIENCE)
    for nth in range(6):
        leaving = w.workers[-1]
        if not w.checker.owed(w.truth):
            # How many there is time for is the machine's.
            w.met(nth >= 3, f"only {nth} workers were stopped in work")
            break
        if nth % 2:
            # For a while there is none.
            stop(w, leaving, grace)
            w.worker()
        else:
            w.worker()
            stop(w, leaving, grace)
        seen = w.api.seen["inputs"]
        w.until(
            lambda seen=seen: w.api.seen["inputs"] > seen or not w.checker.owed(w.truth),
            "the next worker took work",
        )


def stop(w: World, worker: Service, grace: float) -> None:
    """As a kubelet stops a container, but that none may need to be killed."""
    os.kill(worker.pid, signal.SIGTERM)
    w.until(lambda: not worker.running, "a worker ended within its grace time", grace)


class Autoscaler:
    """As many workers as the lists of the ScaledObject ask for, none where they are empty."""

    #: Scaled down as the world's other times; the most workers are what the machine can bear.
    COOLDOWN = 3.0
    MOST = 2

    def __init__(self, w: World) -> None:
        self._world = w
        self._grace = as_a_pod(w)
        self._idle_since = math.inf
        triggers = _manifest("overlays/keda/scaling.yaml")["spec"]["triggers"]
        default = str(Settings.model_fields["enrich_redis_prefix"].default)
        self._lists = [
            w.prefix + each["metadata"]["listName"].removeprefix(default)
            for each in triggers
            if each["type"] == "redis"
        ]
        #: How often there were none, and how often a list woke the first.
        self.rests = self.wakes = 0

    def follow(self, condition: Callable[[], bool], what: str) -> None:
        """Scale until something is so; Stuck if it does not come about."""

        def so() -> bool:
            self._scale()
            return condition()

        self._world.until(so, what, PATIENCE)

    @property
    def workers(self) -> list[Service]:
        return [worker for worker in self._world.workers if worker.running]

    def lengths(self) -> list[int]:
        """What KEDA counts: members of a sorted set as well as of a list."""
        redis = self._world.redis
        counted = {b"list": redis.llen, b"zset": redis.zcard, b"none": lambda key: 0}
        return [int(counted[redis.type(key)](key)) for key in self._lists]

    def _scale(self) -> None:
        wanted = min(self.MOST, math.ceil(max(self.lengths()) / PROCESSES))
        if wanted:
            self._idle_since = math.inf
            if not self.workers:
                self.wakes += 1
            for _ in range(wanted - len(self.workers)):
                self._world.worker(wait=False)
            return
        self._idle_since = min(self._idle_since, time.monotonic())
        if self.workers and time.monotonic() - self._idle_since > self.COOLDOWN:
            for worker in self.workers:
                stop(self._world, worker, self._grace)
            self.rests += 1


@row(
    "scaling", "no worker between ticks: beat's tick wakes one, an empty queue stops all, and again"
)
def scaled_to_zero(w: World) -> None:
    w.env["ENRICH_INTERVAL_MINUTES"] = "0.4"
    autoscaler = Autoscaler(w)
    nothing_twice(w)
    w.beat()
    autoscaler.follow(lambda: bool(autoscaler.workers), "beat's tick woke a worker")
    autoscaler.follow(lambda: not w.checker.owed(w.truth), "the backlog is empty")
    autoscaler.follow(lambda: autoscaler.rests > 0, "no worker was left")
    # What comes while nobody is there waits for the next tick, which wakes another worker.
    more_texts(w, 60)
    autoscaler.follow(lambda: not w.checker.owed(w.truth), "what came meanwhile has its vectors")
    if autoscaler.wakes < 2:
        raise Stuck("the second tick found a worker that had not been stopped")
    # The last one stays, to be judged.
    if not autoscaler.workers:
        w.worker()


@row("scaling", "the only worker is lost with chunks taken: what it had taken wakes another")
def scaled_worker_lost(w: World) -> None:
    # All that is published is taken: no list but that of taken messages is left to wake anybody.
    w.env |= {"ENRICH_MAX_CHUNKS_IN_FLIGHT": "2", "ENRICH_INTERVAL_MINUTES": "10"}
    autoscaler = Autoscaler(w)
    w.beat()
    autoscaler.follow(lambda: bool(autoscaler.workers), "beat's tick woke a worker")
    autoscaler.follow(lambda: w.api.seen["inputs"] >= w.moment, "some texts were sent")
    for worker in autoscaler.workers:
        worker.kill()
    w.truth.cut_inputs += IN_FLIGHT
    w.met(sum(autoscaler.lengths()) > 0, "nothing was taken")
    # No tick is near: whoever wakes is woken by these lists.
    autoscaler.follow(lambda: not w.checker.owed(w.truth), "another worker took it over")
    if not autoscaler.workers:
        w.worker()

"""What processes cost: CPU time and memory of whole process trees, and the depth of a queue."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import psutil  # type: ignore[import-untyped]


def tree(pid: int) -> list[psutil.Process]:
    """A process and all below it; empty if it is gone."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu_seconds(pid: int) -> float:
    """User and system time of a process tree, those that have ended in it included."""
    total = 0.0
    for process in tree(pid):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def rss_bytes(pid: int) -> dict[int, int]:
    """Resident memory of each process of a tree, by pid."""
    found = {}
    for process in tree(pid):
        try:
            found[process.pid] = int(process.memory_info().rss)
        except psutil.NoSuchProcess:
            continue
    return found


@dataclass(frozen=True, slots=True)
class Sample:
    """One look."""

    #: Seconds since the sampler began.
    at: float
    #: Resident bytes by name of the program and pid.
    rss: dict[str, dict[int, int]]
    #: Whatever else was asked for.
    gauges: dict[str, float]


@dataclass(kw_only=True)
class Sampler:
    """Looks at programs and gauges again and again, in a thread, while it is entered."""

    #: Root process of each program, by name.
    programs: Mapping[str, int]
    gauges: Mapping[str, Callable[[], float]] = field(default_factory=dict)
    every: float = 0.5
    samples: list[Sample] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        begun = time.monotonic()
        while True:
            self.samples.append(
                Sample(
                    at=time.monotonic() - begun,
                    rss={name: rss_bytes(pid) for name, pid in self.programs.items()},
                    gauges={name: look() for name, look in self.gauges.items()},
                )
            )
            if self._over.wait(self.every):
                return

    def highest(self, gauge: str) -> float:
        return max((sample.gauges[gauge] for sample in self.samples), default=0.0)

"""What processes cost: CPU time and memory of whole process trees, and the depth of a queue."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import psutil  # type: ignore[import-untyped]

from benchmarks.background import Background


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


class Sampler(Background):
    """Looks at programs and gauges again and again while it is entered."""

    def __init__(
        self,
        *,
        programs: Mapping[str, int],
        gauges: Mapping[str, Callable[[], float]],
        every: float = 0.5,
    ) -> None:
        """
        Args:
            programs: the root process of each, by name.
            every: seconds between two looks.
        """
        super().__init__()
        self.samples: list[Sample] = []
        self._programs = programs
        self._gauges = gauges
        self._every = every

    def work(self) -> None:
        begun = time.monotonic()
        while True:
            self.samples.append(
                Sample(
                    at=time.monotonic() - begun,
                    rss={name: rss_bytes(pid) for name, pid in self._programs.items()},
                    gauges={name: look() for name, look in self._gauges.items()},
                )
            )
            if self.over.wait(self._every):
                return

    def highest(self, gauge: str) -> float:
        return max((sample.gauges[gauge] for sample in self.samples), default=0.0)

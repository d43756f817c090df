"""How many processes a worker has unless it is told: what its cores and its memory are good for."""

from __future__ import annotations

import math
import os
from pathlib import Path

from enrich.settings import MOST_DEFAULT_PROCESSES

#: A process waits for the API half of its time, and for OpenSearch another part.
_PROCESSES_PER_CORE = 4
#: A process with its share of the texts and vectors that are on their way, resident.
_BYTES_PER_PROCESS = 140_000_000

_CGROUP = Path("/sys/fs/cgroup")
_OWN_GROUP = Path("/proc/self/cgroup")


def default_processes(cgroup: Path = _CGROUP, own_group: Path = _OWN_GROUP) -> int:
    """Four a core that this process may use, in at most half of the memory that it may use.

    The other half is for what else lives there. A container's limits (cgroup v2 and v1) and a CPU
    affinity count as well as the machine does.
    """
    folders = _folders(cgroup, own_group)
    cores = min([_own_cores(), *filter(None, (_quota(folder) for folder in folders))])
    memory = min([_machine_memory(), *filter(None, (_limit(folder) for folder in folders))])
    fitting = int(memory / 2 / _BYTES_PER_PROCESS)
    return max(1, min(_PROCESSES_PER_CORE * math.ceil(cores), fitting, MOST_DEFAULT_PROCESSES))


def _own_cores() -> float:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _machine_memory() -> float:
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError):
        # Unknown on this system: only the cores bound it.
        return math.inf


def _folders(cgroup: Path, own_group: Path) -> list[Path]:
    """The folder of this process's group, those above it, and those that version 1 has beside."""
    folders = [cgroup, cgroup / "cpu", cgroup / "memory"]
    for line in _text(own_group).splitlines():
        if line.startswith("0::/"):
            own = cgroup / line.removeprefix("0::/").strip()
            folders += [own, *(above for above in own.parents if cgroup in above.parents)]
    return folders


def _quota(folder: Path) -> float | None:
    """Cores that the group may use at once, such as 1.5."""
    quota, _, period = _text(folder / "cpu.max").partition(" ")
    if not quota:
        quota = _text(folder / "cpu.cfs_quota_us")
        period = _text(folder / "cpu.cfs_period_us")
    if not quota.isdigit() or not period.isdigit() or not int(period):
        return None
    return int(quota) / int(period)


def _limit(folder: Path) -> float | None:
    """Bytes that the group may use."""
    for name in ("memory.max", "memory.limit_in_bytes"):
        text = _text(folder / name)
        if text.isdigit() and int(text):
            return float(text)
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        # No such file: this kind of limit does not exist here.
        return ""

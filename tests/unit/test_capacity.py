"""A worker has by default as many processes as its cores and its memory are good for, and no more
than a container's limits allow.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from enrich.worker.capacity import default_processes

MEGABYTE = 1_000_000


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen cores, 64 GB."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    pages = {"SC_PAGE_SIZE": 1000, "SC_PHYS_PAGES": 64 * MEGABYTE}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)


@pytest.mark.parametrize(
    ("files", "processes"),
    [
        ({}, 32),
        ({"cpu.max": "max 100000", "memory.max": "max"}, 32),
        ({"cpu.max": "200000 100000"}, 8),
        ({"cpu.max": "150000 100000"}, 8),
        ({"cpu.max": "50000 100000"}, 4),
        ({"memory.max": str(1_000 * MEGABYTE)}, 3),
        ({"cpu.max": "100000 100000", "memory.max": str(100 * MEGABYTE)}, 1),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 32),
        ({"memory/memory.limit_in_bytes": str(2_000 * MEGABYTE)}, 7),
        ({"system.slice/cpu.max": "100000 100000"}, 4),
        ({"system.slice/worker.service/memory.max": str(1_000 * MEGABYTE)}, 3),
    ],
)
def test_limits_of_the_group_count_as_the_machine_does(
    machine: None, tmp_path: Path, files: dict[str, str], processes: int
) -> None:
    own = tmp_path / "own"
    own.write_text("0::/system.slice/worker.service\n")
    for name, content in files.items():
        (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / name).write_text(content + "\n")

    assert default_processes(tmp_path / "cgroup", own) == processes


def test_cores_that_the_process_may_not_use_do_not_count(
    machine: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5})

    assert default_processes(tmp_path, tmp_path / "own") == 8

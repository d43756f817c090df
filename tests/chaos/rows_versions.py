"""Rows of the chaos matrix about a rolling deploy: processes of the version before and of this one.

The version before is taken from the history of this checkout and runs with the same packages. Where
the history is not there, as in a shallow clone, the rows are left out and say so.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tarfile
from pathlib import Path

from dev.http_proxy import Answered, Asked, Forward, HttpProxy
from dev.service import Service
from tests.chaos.matrix import IN_FLIGHT, children, row
from tests.chaos.rows_deployment import more_logs
from tests.chaos.rows_search import refusing_items
from tests.chaos.world import BANK, PATIENCE, LeftOut, World
from tests.conftest import ROOT

#: The last commit before the files were moved to their rooms.
BEFORE = "1e41820"


def version_before(w: World) -> Path:
    """A folder with the code of the version before. Raises LeftOut."""
    archive, folder = w.folder / "before.tar", w.folder / "before"
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), "archive", "-o", str(archive), BEFORE],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    except FileNotFoundError:
        raise LeftOut("git is not installed, by which the version before is found") from None
    if done.returncode:
        raise LeftOut(
            f"commit {BEFORE} is not in the history here (git fetch --unshallow): "
            f"{done.stderr.strip()}"
        )
    with tarfile.open(archive) as tree:
        tree.extractall(folder, filter="data")
    return folder


@row("workers", "a rolling deploy: the version before beside this one, beat of the one, then other")
def version_before_beside(w: World) -> None:
    before = version_before(w)
    # As many processes as in other rows: time limits are scaled for those.
    old, new = w.worker(code=before, processes=1), w.worker(processes=1)
    w.beat(before)
    w.under_way()
    w.beats[0].kill()
    w.beat()
    # The next run is this version's, and the worker of the version before takes part in it.
    more_logs(w)
    w.through(PATIENCE)
    for worker, version in ((old, "the version before"), (new, "this version")):
        w.met(chunks_settled(w, worker) > 1, f"the worker of {version} had no chunks")
    os.kill(old.pid, signal.SIGTERM)
    w.until(lambda: not old.running, "the old worker has ended")


def chunks_settled(w: World, worker: Service) -> int:
    """How many chunks the processes of a worker have settled, by the log of all."""
    names = [f"[{pid}]" for pid in children(worker.pid)]
    lines = (w.folder / f"{w.name}.log").read_text().splitlines()
    return sum(" settled: " in line and any(name in line for name in names) for line in lines)


class Refusal:
    """Refuses the writes of one index for now, as an OpenSearch under load does."""

    def __init__(self, index: str) -> None:
        self.over = False
        self.times = 0
        self._spoil = refusing_items(lambda _, fields: fields["_index"] == index)

    def __call__(self, asked: Asked, forward: Forward) -> Answered:
        # A bulk to one index is a trial, and an index that refuses it is skipped by runs.
        if self.over or asked.path.partition("?")[0] != "/_bulk":
            return forward(asked)
        self.times += 1
        return self._spoil(asked, forward)


def handed_over(w: World, first: Path, then: Path) -> None:
    """All processes of one version are killed in work, those of another take over what is in Redis:
    messages, leases, chunks that are tried again because their index refuses writes."""
    w.env["ENRICH_MAX_CHUNKS_IN_FLIGHT"] = "8"
    refusal = Refusal(BANK)
    proxy = w.until_judged(HttpProxy(w.stack.opensearch.url))
    proxy.alter = refusal
    w.env["OPENSEARCH_PORT"] = str(proxy.port)
    w.worker(code=first, wait=False)
    w.beat(first)
    w.under_way()
    w.until(lambda: refusal.times > 0, "writes were refused")
    if first == ROOT:
        w.until(lambda: bool(set_aside(w)), "a chunk was set aside")
    w.workers[0].kill()
    w.beats[0].kill()
    w.truth.cut_inputs += IN_FLIGHT
    run = w.active_run()
    w.met(bool(run) and w.redis.hlen(f"{w.prefix}run:{run}:open") > 0, "no chunk was open")
    seen = refusal.times
    w.worker(code=then)
    w.beat(then)
    w.until(lambda: refusal.times > seen + 1, "the other version's writes were refused too")
    if then == ROOT:
        w.until(lambda: bool(set_aside(w)), "a chunk was set aside")
    refusal.over = True


def set_aside(w: World) -> int:
    """Chunks of the active run that wait for an index in trouble."""
    return int(w.redis.scard(f"{w.prefix}run:{w.active_run()}:aside"))


@row("workers", "all of the version before killed -9 in work; this version takes over")
def version_before_killed(w: World) -> None:
    handed_over(w, version_before(w), ROOT)


@row("workers", "this version killed -9, with chunks set aside; the version before takes over")
def version_before_again(w: World) -> None:
    handed_over(w, ROOT, version_before(w))

"""Rows about workers and messages: kills at exact moments, memory, clocks, late and foreign
messages. Part of the matrix, see matrix.py; the exact moments are stumbling.py's."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

from dev.service import Service
from enrich.ledger import Ledger
from tests.chaos.matrix import IN_FLIGHT, row
from tests.chaos.world import BATCH, PROCESSES, World
from tests.messages import again

# -- kill -9 of the whole worker between two steps of a chunk


def killed(moment: str, told: str, *, cut: int = 0, env: dict[str, str] | None = None) -> None:
    """A row whose worker, of one process, dies once at a moment; another takes over.

    With one process nothing else is in flight, so that the bill is exact.

    Args:
        cut: inputs whose answer is lost at that moment.
    """

    def harm(w: World) -> None:
        w.env |= env or {}
        stumble(w, moment)
        w.beat()
        w.until(lambda: not w.workers[0].running, f"the worker was killed when {moment}")
        w.until(lambda: (w.folder / "stumbled").exists(), "it was killed at its moment")
        w.truth.cut_inputs += cut
        w.worker()

    harm.__name__ = f"killed_when_{moment.replace('-', '_')}"
    row("workers", f"kill -9 {told}")(harm)


def stumble(w: World, moment: str, processes: int = 1) -> Service:
    """Start a worker that stumbles at a moment."""
    flag = str(w.folder / "stumbled")
    return w.worker(processes=processes, wait=False, CHAOS_MOMENT=moment, CHAOS_FLAG=flag)


killed("popped", "between the broker's pop of a message and its entry among the unacknowledged")
killed("to-be-asked", "before the API is asked")
killed("answered", "after the API answered, before the cache is written", cut=BATCH)
killed("cached", "after the cache is written, before the bulk")
killed("half-written", "between two requests of one bulk")
killed("written", "after the bulk, before the chunk is settled")
killed(
    "settled-page",
    "after a chunk is settled, before the next page is published",
    env={"ENRICH_MAX_CHUNKS_IN_FLIGHT": "1"},
)
killed("settled-run", "after the last chunk is settled, before the run's end is published")


@row("workers", "an error that was not foreseen in the main process, while chunks are at work")
def unknown_error(w: World) -> None:
    failing = stumble(w, "unknown-error", processes=PROCESSES)
    w.beat()
    w.until(lambda: not failing.running, "the worker ended, for its supervisor to start it again")
    w.until(lambda: failing.returncode != 0, "it said that it failed", 0)
    w.truth.cut_inputs += IN_FLIGHT
    w.worker()


# -- memory


def memory(moment: str, told: str, *, cut: int = 0) -> None:
    def harm(w: World) -> None:
        stumble(w, moment, processes=PROCESSES)
        w.beat()
        w.until(lambda: (w.folder / "stumbled").exists(), "a process had no memory left")
        w.truth.cut_inputs += cut

    harm.__name__ = moment.replace("-", "_")
    row("workers", told)(harm)


# The limit of its address space is the system's: what is raised, or what breaks, is real.
memory("no-memory", "a child meets its memory limit with an answer in hand, once", cut=BATCH)
memory(
    "no-memory-for-good",
    "a child meets its memory limit with an answer in hand, and stays there",
    cut=BATCH,
)
memory("no-memory-in-bulk", "a child meets its memory limit in C code, which crashes, in a bulk")
memory("no-memory-in-scan-once", "a child meets its memory limit in a scan, once")
memory("no-memory-in-scan", "a child meets its memory limit in a scan, and stays there")


# -- clocks

HOUR = 3600


def clock(name: str, told: str, ahead: int) -> None:
    """Two workers, one of them on a host with a wrong clock, and retries that each may get."""

    def harm(w: World) -> None:
        w.api.faults({"kind": "status", "status": 503, "after": 3, "times": 6})
        w.worker(CHAOS_CLOCK=str(ahead))
        w.start()
        w.under_way()

    harm.__name__ = f"clock_{name}"
    row("workers", told)(harm)


clock("ahead", "one of two hosts has its clock an hour ahead; retries between them", HOUR)
clock("behind", "one of two hosts has its clock an hour behind; retries between them", -HOUR)


@row("workers", "a host whose clock is an hour ahead is killed in work; the other goes on")
def clock_ahead_killed(w: World) -> None:
    wrong = w.worker(CHAOS_CLOCK=str(HOUR))
    w.start()
    w.under_way()
    wrong.kill()
    w.truth.cut_inputs += IN_FLIGHT


# -- messages too late


@row("messages", "all open chunks pass their deadline while their messages wait and are worked on")
def late_after_deferred(w: World) -> None:
    # The scan is not through, so that the run stays open while the deferred chunks arrive.
    w.env["ENRICH_MAX_CHUNKS_IN_FLIGHT"] = "4"
    w.start()
    w.under_way()
    run = ""

    def in_work() -> bool:
        nonlocal run
        run = w.active_run()
        return bool(run) and w.redis.hlen(f"{w.prefix}run:{run}:open") > 1

    w.until(in_work, "chunks were open")
    expired, _ = Ledger(w.redis, w.prefix).chunks.expire(run, -1)
    w.met(expired > 0, "no chunk was open")


@row("messages", "a chunk's message held back until its run is closed; and copies of others")
def late_after_run(w: World) -> None:
    w.start()
    w.under_way()
    waiting = w.redis.lrange(w.queue(), 0, -1)
    run = w.active_run()
    w.until(lambda: bool(w.redis.lpop(w.queue())), "a message was waiting")
    w.until(lambda: w.active_run() != run, "its run is closed")
    for message in waiting:
        w.redis.lpush(w.queue(), again(message))
    w.until(lambda: not w.checker.owed(w.truth), "the next run has found the logs")
    for message in waiting:
        w.redis.lpush(w.queue(), again(message))


# -- messages of another version

Arguments = tuple[list[Any], dict[str, Any]]


def version(name: str, told: str, change: Callable[[dict[str, Any]], Arguments]) -> None:
    """A row that makes every waiting chunk message one of another version.

    Args:
        change: takes the chunk, gives the task's arguments.
    """

    def harm(w: World) -> None:
        w.start()
        w.under_way()
        changed = 0
        while message := w.redis.lpop(w.queue()):
            w.redis.rpush(f"{w.prefix}changed", rewritten(message, change))
            changed += 1
        while w.redis.lmove(f"{w.prefix}changed", w.queue(), "LEFT", "RIGHT"):
            pass
        w.met(changed > 0, "no message waited")

    harm.__name__ = f"version_{name}"
    row("messages", told)(harm)


def rewritten(message: bytes, change: Callable[[dict[str, Any]], Arguments]) -> bytes:
    envelope = json.loads(again(message))
    (chunk, *_), _, embed = json.loads(base64.b64decode(envelope["body"]))
    arguments, named = change(chunk)
    body = json.dumps([arguments, named, embed]).encode()
    envelope["body"] = base64.b64encode(body).decode()
    return json.dumps(envelope).encode()


version("without_arguments", "chunk messages without their argument", lambda chunk: ([], {}))
version(
    "unknown_arguments",
    "chunk messages of a newer version, with arguments and fields that we do not know",
    lambda chunk: ([{**chunk, "version": 9, "hints": {"a": [1]}}, 0, "new"], {"later": True}),
)
version(
    "older_chunk",
    "chunk messages of an older version, without the fields that came later",
    lambda chunk: ([{"id": chunk["id"], "references": chunk["references"]}], {}),
)
version(
    "other_schema",
    "chunk messages of a version whose references have another shape",
    lambda chunk: (
        [{**chunk, "references": [{"index": r[0], "id": r[1]} for r in chunk["references"]]}],
        {},
    ),
)


@row("messages", "two hundred copies of waiting messages, each with some random bytes changed")
def messages_fuzzed(w: World) -> None:
    w.start()
    w.under_way()
    waiting = w.redis.lrange(w.queue(), 0, -1)
    w.met(bool(waiting), "no message waited")
    for _ in range(200):
        copy = bytearray(again(w.random.choice(waiting)))
        for _ in range(w.random.randint(1, 4)):
            copy[w.random.randrange(len(copy))] = w.random.randrange(256)
        w.redis.lpush(w.queue(w.random.choice(("enrich.embed", "enrich.scan"))), bytes(copy))


# -- Redis away for long


@row("redis", "connections cut for 30 s, longer than chunks' deadlines")
def redis_cut_long(w: World) -> None:
    w.start()
    w.under_way()
    w.redis_proxy.set_for("cut", 30)
    w.truth.cut_inputs += IN_FLIGHT


@row("redis", "hangs for 40 s, longer than a command is waited for")
def redis_hangs_long(w: World) -> None:
    w.start()
    w.under_way()
    w.redis_proxy.set_for("hang", 40)
    w.truth.cut_inputs += IN_FLIGHT

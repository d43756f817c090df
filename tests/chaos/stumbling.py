"""A real worker that stumbles once, at one exact moment of a chunk, or whose host's clock is wrong.

    python -m tests.chaos.stumbling -A enrich worker …

is `celery -A enrich worker …` with the product's own methods wrapped from outside, so that the
product needs no hook. CHAOS_MOMENT names the moment (see `MOMENTS`); CHAOS_FLAG names a file that
is made when it has come, and keeps it from coming again; CHAOS_CLOCK is how many seconds this
host's clock is ahead.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import Any

import time_machine
from celery.__main__ import main
from kombu.transport.redis import QoS

from enrich.consumer import CheckedConsumer
from enrich.embedder import OpenAIEmbedder
from enrich.ledger import Ledger
from enrich.log_store import documents
from enrich.log_store.connection import Connection
from enrich.vector_cache import VectorCache

#: A body of the bulk in the moment between two of them.
SMALL_BODY = 4


def first_time() -> bool:
    """Whether nobody has stumbled yet; true for one process only."""
    try:
        os.close(os.open(os.environ["CHAOS_FLAG"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def die() -> None:
    """kill -9 of this worker, all its processes at once, if it is the first time."""
    if first_time():
        os.killpg(0, signal.SIGKILL)


def wrap(owner: type, name: str, around: Callable[..., Any]) -> None:
    """Let `around(method, *arguments)` stand for a method."""
    method = getattr(owner, name)

    @wraps(method)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        return around(method, *arguments, **named)

    setattr(owner, name, wrapped)


def before(method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    die()
    return method(*arguments, **named)


def after(method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    answer = method(*arguments, **named)
    die()
    return answer


# -- the moments


def before_unacked() -> None:
    """Between the broker's pop of a chunk's message and its entry among the unacknowledged."""

    def around(method: Callable[..., Any], qos: QoS, message: Any, tag: str) -> Any:
        if message.headers.get("task") == "enrich.embed_and_update":
            die()
        return method(qos, message, tag)

    wrap(QoS, "append", around)


def between_bodies() -> None:
    """After one bulk request of several."""
    documents.MAX_BODY_DOCUMENTS = SMALL_BODY

    def around(method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        answer = method(*arguments, **named)
        if "/_bulk" in arguments and len(answer.items) == SMALL_BODY:
            die()
        return answer

    wrap(Connection, "ask", around)


def after_settle(*, last: bool) -> None:
    """After a chunk was settled, before what comes next is published: the run's end (`last`), or
    its next page."""

    def around(method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        verdict, standing = method(*arguments, **named)
        if standing.open_chunks == 0 and standing.scan_done is last:
            die()
        return verdict, standing

    wrap(Ledger, "settle", around)


def unknown_error() -> None:
    """An error that nobody thought of, in the worker's main process, while a chunk is at work."""
    chunks = 0

    def around(method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        handle = method(*arguments, **named)

        def stumbling(message: Any) -> None:
            nonlocal chunks
            chunks += message.headers.get("task") == "enrich.embed_and_update"
            if chunks > 1 and first_time():
                raise RuntimeError("nobody thought of this")
            handle(message)

        return stumbling

    wrap(CheckedConsumer, "create_task_handler", around)


def no_memory(owner: type, name: str, *, for_good: bool) -> None:
    """A method meets a process that has all the memory it may have, for once or from then on."""
    held: list[bytearray] = []

    def around(method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        if not first_time():
            return method(*arguments, **named)
        free = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (vm_bytes(), free[1]))
        size = 64 * 1024 * 1024
        while size > 512:
            try:
                held.append(bytearray(size))
            except MemoryError:
                size //= 2
        try:
            return method(*arguments, **named)
        finally:
            if not for_good:
                resource.setrlimit(resource.RLIMIT_AS, free)
                held.clear()

    wrap(owner, name, around)


def vm_bytes() -> int:
    """The address space of this process."""
    pages = Path("/proc/self/statm").read_text().split()[0]
    return int(pages) * resource.getpagesize()


MOMENTS: dict[str, Callable[[], None]] = {
    "popped": before_unacked,
    "to-be-asked": lambda: wrap(OpenAIEmbedder, "embed", before),
    "answered": lambda: wrap(OpenAIEmbedder, "embed", after),
    "cached": lambda: wrap(VectorCache, "put", after),
    "half-written": between_bodies,
    "written": lambda: wrap(documents.Documents, "write", after),
    "settled-page": lambda: after_settle(last=False),
    "settled-run": lambda: after_settle(last=True),
    "unknown-error": unknown_error,
    "no-memory": lambda: no_memory(VectorCache, "put", for_good=False),
    "no-memory-for-good": lambda: no_memory(VectorCache, "put", for_good=True),
    "no-memory-in-bulk": lambda: no_memory(documents.Documents, "write", for_good=True),
    "no-memory-in-scan": lambda: no_memory(Ledger, "register", for_good=True),
    "no-memory-in-scan-once": lambda: no_memory(Ledger, "register", for_good=False),
}


if __name__ == "__main__":
    if moment := os.environ.get("CHAOS_MOMENT"):
        MOMENTS[moment]()
    if ahead := float(os.environ.get("CHAOS_CLOCK", 0)):
        # All of Python's clocks but the monotonic one, which no host's clock moves.
        time_machine.travel(datetime.now(UTC) + timedelta(seconds=ahead), tick=True).start()
    sys.argv[0] = "celery"
    sys.exit(main())

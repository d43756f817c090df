"""A real worker that stumbles at one exact moment of a chunk, or whose host's clock is wrong.

    python -m tests.chaos.stumbling -A enrich worker …

is `celery -A enrich worker …` with the product's own methods wrapped from outside, so that the
product needs no hook. CHAOS_MOMENT names the moment (see `MOMENTS`); CHAOS_FLAG names a file that
is made when it has come, and keeps it from coming again; CHAOS_CLOCK is how many seconds this
host's clock is ahead. With CHAOS_MOMENT=all nothing is harmed: a file beside the flag, named after
each moment, tells that it came.

What is wrapped stands in `Place`s, which look at the product when this module is imported: a
method that moved, or takes something else, ends the import with a sentence.
"""

from __future__ import annotations

import inspect
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial, wraps
from pathlib import Path
from typing import Any

import time_machine
from celery.__main__ import main

from enrich.embedding.cache import VectorCache
from enrich.embedding.client import OpenAIEmbedder
from enrich.ledger.chunks import Chunks
from enrich.ledger.pages import Pages
from enrich.log_store import documents
from enrich.log_store.connection import Connection
from enrich.worker import transport
from enrich.worker.consumer import CheckedConsumer

#: A body of the bulk in the moment between two of them.
SMALL_BODY = 4

#: What happens at a moment: entered when it comes, left when the wrapped method is through.
Strike = Callable[[], AbstractContextManager[None]]


class Moved(AssertionError):
    """The product no longer has what a moment wraps: the moment would never come."""


@dataclass(frozen=True)
class Place:
    """A method that a moment wraps.

    Raises:
        Moved: the class has no such method of its own, or it takes other parameters.
    """

    owner: type
    name: str
    parameters: str

    def __post_init__(self) -> None:
        where = f"{self.owner.__module__}.{self.owner.__qualname__}.{self.name}"
        method = vars(self.owner).get(self.name)
        if method is None:
            raise Moved(f"{where} is not there: name the place where that is done now")
        found = " ".join(inspect.signature(method).parameters)
        if found != self.parameters:
            raise Moved(f"{where} takes ({found}), not ({self.parameters})")

    def wrap(self, around: Callable[..., Any]) -> None:
        """Let `around(method, *arguments)` stand for the method."""
        method = getattr(self.owner, self.name)

        @wraps(method)
        def wrapped(*arguments: Any, **named: Any) -> Any:
            return around(method, *arguments, **named)

        setattr(self.owner, self.name, wrapped)


NOTED = Place(transport.QoS, "append", "self message delivery_tag")
HANDED = Place(CheckedConsumer, "create_task_handler", "self args kwargs")
REQUESTED = Place(OpenAIEmbedder, "embed", "self texts")
CACHED = Place(VectorCache, "put", "self vectors")
ASKED = Place(Connection, "ask", "self type_ method path body params")
WRITTEN = Place(documents.Documents, "write", "self writes")
REGISTERED = Place(
    Pages,
    "register",
    "self run page scan scan_done chunks messages indices skipped more stopped_by",
)
SETTLED = Place(Chunks, "settle", "self chunk outcomes errors reasons")

# Who uses these classes is told by name only, so that a place could be there and never be reached.
if (
    transport.Channel.QoS is not transport.QoS
    or transport.Transport.Channel is not transport.Channel
):
    raise Moved("the broker notes what it took elsewhere than in enrich.worker.transport.QoS")
if not hasattr(documents, "MAX_BODY_DOCUMENTS"):
    raise Moved("enrich.log_store.documents bounds its bodies under another name")


# -- what strikes


def first_time() -> bool:
    """Whether nobody has stumbled yet; true for one process only."""
    try:
        os.close(os.open(os.environ["CHAOS_FLAG"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


@contextmanager
def death() -> Iterator[None]:
    """kill -9 of this worker, all its processes at once, the first time."""
    if first_time():
        os.killpg(0, signal.SIGKILL)
    yield


@contextmanager
def surprise() -> Iterator[None]:
    """An error that was not foreseen, the first time."""
    if first_time():
        raise RuntimeError("nobody foresaw this")
    yield


def no_memory(*, for_good: bool) -> Strike:
    """A process has all the memory that it may have, for once or from then on."""
    held: list[bytearray] = []

    @contextmanager
    def strike() -> Iterator[None]:
        if not first_time():
            yield
            return
        free = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (vm_bytes(), free[1]))
        size = 64 * 1024 * 1024
        while size > 512:
            try:
                held.append(bytearray(size))
            except MemoryError:
                size //= 2
        try:
            yield
        finally:
            if not for_good:
                resource.setrlimit(resource.RLIMIT_AS, free)
                held.clear()

    return strike


def vm_bytes() -> int:
    """The address space of this process."""
    pages = Path("/proc/self/statm").read_text().split()[0]
    return int(pages) * resource.getpagesize()


def witness(moment: str) -> Strike:
    """Nothing but a file that tells that the moment came."""

    @contextmanager
    def strike() -> Iterator[None]:
        Path(f"{os.environ['CHAOS_FLAG']}.{moment}").touch()
        yield

    return strike


# -- the moments


def before(place: Place, strike: Strike) -> None:
    def around(method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        with strike():
            return method(*arguments, **named)

    place.wrap(around)


def after(place: Place, strike: Strike) -> None:
    def around(method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        answer = method(*arguments, **named)
        with strike():
            return answer

    place.wrap(around)


def before_noted(strike: Strike) -> None:
    """Between the broker's pop of a chunk's message and its entry among the unacknowledged."""

    def around(method: Callable[..., Any], qos: transport.QoS, message: Any, tag: str) -> Any:
        if message.headers.get("task") != "enrich.embed_and_update":
            return method(qos, message, tag)
        with strike():
            return method(qos, message, tag)

    NOTED.wrap(around)


def between_bodies(strike: Strike) -> None:
    """After one bulk request of several."""
    documents.MAX_BODY_DOCUMENTS = SMALL_BODY

    def around(method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        answer = method(*arguments, **named)
        if "/_bulk" in arguments and len(answer.items) == SMALL_BODY:
            with strike():
                pass
        return answer

    ASKED.wrap(around)


def after_settled(strike: Strike, *, last: bool) -> None:
    """After a chunk was settled, before what comes next is published: the run's end (`last`), or
    its next page."""

    def around(method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        verdict, state = method(*arguments, **named)
        if state.open_chunks == 0 and state.scan_done is last:
            with strike():
                pass
        return verdict, state

    SETTLED.wrap(around)


def in_the_main_process(strike: Strike) -> None:
    """While a chunk is at work, in the worker's main process, which has taken another."""
    chunks = 0

    def around(method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        handle = method(*arguments, **named)

        def stumbling(message: Any) -> None:
            nonlocal chunks
            chunks += message.headers.get("task") == "enrich.embed_and_update"
            if chunks > 1:
                with strike():
                    handle(message)
            else:
                handle(message)

        return stumbling

    HANDED.wrap(around)


Moment = Callable[[Strike], None]

#: Each with what happens when it comes.
MOMENTS: dict[str, tuple[Moment, Strike]] = {
    "popped": (before_noted, death),
    "to-be-asked": (partial(before, REQUESTED), death),
    "answered": (partial(after, REQUESTED), death),
    "cached": (partial(after, CACHED), death),
    "half-written": (between_bodies, death),
    "written": (partial(after, WRITTEN), death),
    "settled-page": (partial(after_settled, last=False), death),
    "settled-run": (partial(after_settled, last=True), death),
    "unknown-error": (in_the_main_process, surprise),
    "no-memory": (partial(before, CACHED), no_memory(for_good=False)),
    "no-memory-for-good": (partial(before, CACHED), no_memory(for_good=True)),
    "no-memory-in-bulk": (partial(before, WRITTEN), no_memory(for_good=True)),
    "no-memory-in-scan": (partial(before, REGISTERED), no_memory(for_good=True)),
    "no-memory-in-scan-once": (partial(before, REGISTERED), no_memory(for_good=False)),
}

#: Stands for all moments, none of which does any harm.
ALL = "all"


def stumble(moment: str) -> None:
    """Wrap what a moment needs in this process."""
    if moment == ALL:
        for name, (lay, _) in MOMENTS.items():
            lay(witness(name))
    else:
        lay, strike = MOMENTS[moment]
        lay(strike)


if __name__ == "__main__":
    if moment := os.environ.get("CHAOS_MOMENT"):
        stumble(moment)
    if ahead := float(os.environ.get("CHAOS_CLOCK", 0)):
        # All of Python's clocks but the monotonic one, which no host's clock moves.
        time_machine.travel(datetime.now(UTC) + timedelta(seconds=ahead), tick=True).start()
    sys.argv[0] = "celery"
    sys.exit(main())

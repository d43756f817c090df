"""A server behind the service that no longer answers: whoever comes next is told at once.

A request that waits for an answer in vain holds a thread until its time is over, and those that
come meanwhile wait for a thread. So after one such request the others are refused, but for a few
that try whether it answers again. A server that refuses at once holds nobody up, and is always
asked.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import ParamSpec, TypeVar

from enrich.embedding.client import Embedded, Embedder
from enrich.errors import EnrichError, ServerUnavailable

P = ParamSpec("P")
T = TypeVar("T")

#: Requests that fail sooner hold nobody up.
SLOW_SECONDS = 1.0

#: Between two tries whether it answers again, and how many may be waiting for that at a time.
AGAIN_SECONDS, MOST_TRIES = 5.0, 4


class StillAway(ServerUnavailable):
    """The server did not answer lately, and was not asked.

    Attributes:
        seconds: before the next request may try.
    """

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message, seconds)
        self.seconds = seconds

    def __str__(self) -> str:
        return str(self.args[0])


class Outage:
    """What is known of one server; its users are threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Args: clock: seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        #: Why it is not asked; None while it is.
        self._away: str | None = None
        self._answered = self._again = -float("inf")
        #: Threads that try whether it answers again.
        self._trying: set[int] = set()

    @contextmanager
    def passed(self) -> Iterator[None]:
        """Work of this thread that will ask the server. Raises StillAway: it is not begun."""
        thread = threading.get_ident()
        with self._lock:
            if self._away is not None:
                now = self._clock()
                if now < self._again or len(self._trying) >= MOST_TRIES:
                    raise self._still_away(self._away)
                self._again = now + AGAIN_SECONDS
                self._trying.add(thread)
        try:
            yield
        finally:
            with self._lock:
                self._trying.discard(thread)

    @contextmanager
    def asked(self) -> Iterator[None]:
        """One request to the server. Raises StillAway: it is not sent."""
        with self._lock:
            if self._away is not None and threading.get_ident() not in self._trying:
                raise self._still_away(self._away)
        began = self._clock()
        try:
            yield
        except ServerUnavailable as error:
            self._failed(error, began)
            raise
        except EnrichError:
            self._well()
            raise
        self._well()

    def looking(
        self, look: Callable[[], object], lasting_seconds: float = 0.0
    ) -> Callable[[], None]:
        """A look at the server, whether it is away or not. Where it succeeds, the next work is a
        try: a server may answer a look and nothing else.

        Args:
            lasting_seconds: for so long one that succeeded is not taken again while it is not away.
        """
        well = -float("inf")

        def looked() -> None:
            nonlocal well
            began = self._clock()
            if self._away is None and began - well < lasting_seconds:
                return
            try:
                look()
            except ServerUnavailable as error:
                self._failed(error, began)
                raise
            well = began
            with self._lock:
                self._again = min(self._again, self._clock())

        return looked

    def _still_away(self, why: str) -> StillAway:
        return StillAway(why, max(0.0, self._again - self._clock()))

    def _well(self) -> None:
        with self._lock:
            self._away = None
            self._answered = self._clock()

    def _failed(self, error: ServerUnavailable, began: float) -> None:
        with self._lock:
            now = self._clock()
            # Where others were answered meanwhile, it was this request that took too long.
            if now - began >= SLOW_SECONDS and self._answered <= began:
                self._away = str(error)
                self._again = now + AGAIN_SECONDS
                self._trying.discard(threading.get_ident())


class WatchedEmbedder:
    """An embedder whose API may be away."""

    def __init__(self, embedder: Embedder, outage: Outage) -> None:
        self._embedder = embedder
        self._outage = outage

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Raises as `Embedder.embed`."""
        with self._outage.asked():
            return self._embedder.embed(texts)

    def close(self) -> None:
        self._embedder.close()


class WatchedThreads(ThreadPoolExecutor):
    """Threads whose work is to ask one server; a call fails with StillAway while it is away."""

    def __init__(self, most: int, name: str, outage: Outage) -> None:
        super().__init__(most, name)
        self._outage = outage

    def submit(self, call: Callable[P, T], /, *args: P.args, **options: P.kwargs) -> Future[T]:
        return super().submit(self._ask, partial(call, *args, **options))

    def _ask(self, call: Callable[[], T]) -> T:
        with self._outage.passed(), self._outage.asked():
            return call()

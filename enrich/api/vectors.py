"""Vectors for whoever asks over HTTP: known ones at once, all others through one resolver.

The last of them are remembered in this process for a while, since a text that is asked for often
would otherwise be fetched from Redis each time, by a thread that takes turns with the event loop.
Callers that ask within a few milliseconds share a request to the embeddings API, and a text that
one of them is embedding is awaited by the others.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

from cachetools import TTLCache

from enrich.embedding.budget import Usage
from enrich.embedding.resolver import Resolution, Resolved, Source, TextRequest
from enrich.errors import EnrichError, RateLimited
from enrich.text.extract import fingerprint
from enrich.vectors import Vector

T = TypeVar("T")

#: Requests to the embeddings API at a time, and lookups in the cache.
THREADS, LOOKUPS = 8, 2

#: Texts that one call of the resolver is given at most.
MOST_TEXTS = 2048

#: A caller with so many new texts shares no request: little would be saved, and all who share one
#: wait for the last of its texts, while the API could be working for them side by side.
ENOUGH_TEXTS = 64

#: Vectors that are remembered, some 25 MB, and for how many seconds: then Redis is asked again, so
#: that it knows what is used and a cache that was emptied is noticed.
REMEMBERED, REMEMBERED_SECONDS = 4096, 60.0

#: A pause that the embeddings API asks for is waited for, so many seconds in all; then the caller
#: is told how long it is.
PATIENCE_SECONDS = 10.0


class Cache(Protocol):
    """Knows vectors by fingerprint."""

    def get(self, fingerprints: Sequence[str]) -> Mapping[str, Vector]: ...


class Resolves(Protocol):
    """See `enrich.embedding.resolver.Resolver`."""

    def resolve(
        self, requests: Sequence[TextRequest], usage: Usage, *, owner: str, occasion: str
    ) -> Resolution: ...
    def embed_apart(
        self, requests: Sequence[TextRequest], usage: Usage, *, occasion: str
    ) -> Resolution: ...


@dataclass(frozen=True, kw_only=True)
class Saved:
    """What one call cost, and what it did not."""

    cached: int = 0
    duplicates: int = 0
    #: Texts that another caller was asking for.
    coalesced: int = 0
    #: Texts that were sent to the API for it.
    paid: int = 0
    tokens: int = 0
    micro_usd: int = 0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Results in the order of the texts."""

    results: list[Resolved]
    saved: Saved
    #: By place: texts that could not be asked for, and have neither a vector nor a reason.
    errors: Mapping[int, EnrichError] = field(default_factory=dict)


@dataclass(eq=False)
class _Group:
    """Texts that are asked for together."""

    #: By fingerprint.
    requests: dict[str, TextRequest]
    #: What came of each, and of those that were paid for their part of it.
    future: asyncio.Future[tuple[Mapping[str, Resolved], Mapping[str, _Part]]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


@dataclass(frozen=True)
class _Part:
    tokens: int
    micro_usd: int


@dataclass(eq=False)
class _Lookup:
    fingerprints: Sequence[str]
    future: asyncio.Future[Mapping[str, Vector]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Vectors:
    """One for each process; used on its event loop."""

    def __init__(
        self,
        resolver: Resolves,
        cache: Cache,
        usage: Usage,
        *,
        window_seconds: float,
        patience_seconds: float = PATIENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            usage: takes what is used.
            window_seconds: for so long texts are gathered before they are asked for.
            patience_seconds: for so long pauses are waited for.
            clock: seconds, of what is remembered.
        """
        self._patience = patience_seconds
        self._resolver = resolver
        self._cache = cache
        self._usage = usage
        self._window = window_seconds
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="resolve")
        self._lookups = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="lookup")
        self._process = f"api-{socket.gethostname()}-{os.getpid()}"
        self._numbers = itertools.count()
        self._remembered: TTLCache[str, Vector] = TTLCache(
            REMEMBERED, REMEMBERED_SECONDS, timer=clock
        )
        #: Texts on their way, by fingerprint.
        self._flying: dict[str, _Group] = {}
        #: Of callers with few texts, until the window ends.
        self._gathered: _Group | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._to_look_up: list[_Lookup] = []
        self._looking = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._lookups.shutdown(wait=False, cancel_futures=True)

    async def of(self, texts: Sequence[str], payer: str, *, store: bool = True) -> Answer:
        """A vector for each text, or why there is none; as `each`, without errors in the answer.

        Raises:
            Halt, TransientError: the embeddings API or Redis cannot be asked now.
        """
        answer = await self.each(texts, payer, store=store)
        for error in answer.errors.values():
            raise error
        return answer

    async def each(self, texts: Sequence[str], payer: str, *, store: bool = True) -> Answer:
        """A vector for each text, or why there is none. Where the embeddings API cannot be asked
        now, what is known has its vector all the same.

        Args:
            payer: who pays for what has to be bought.
            store: whether a vector may be kept, and taken from what was kept.

        Raises:
            Halt, TransientError: of none it is known whether it has one, as Redis cannot be asked;
                or the API cannot, and nothing may be taken from what was kept.
        """
        digests = [fingerprint(text) for text in texts]
        requests = {
            digest: TextRequest(fingerprint=digest, text=text, payers=frozenset({payer}))
            for digest, text in zip(digests, texts, strict=True)
        }
        if not store:
            return await self._apart(digests, requests)
        known = await self._look_up(list(requests))
        cached = {
            digest: Resolved(vector=vector, source=Source.CACHED)
            for digest, vector in known.items()
        }
        coalesced = {digest for digest in requests if digest in self._flying} - cached.keys()
        groups = self._ask_for({d: one for d, one in requests.items() if d not in cached})
        # All of them, so that one that fails leaves none unwatched.
        if groups:
            await asyncio.wait({group.future for group in groups.values()})
        got, mine = cached, []
        errors: dict[str, EnrichError] = {}
        for digest, group in groups.items():
            error = group.future.exception()
            if isinstance(error, EnrichError):
                errors[digest], got[digest] = error, Resolved()
                continue
            results, parts = group.future.result()
            got[digest] = results[digest]
            if digest in parts and digest not in coalesced:
                mine.append(parts[digest])
        sources = Counter(one.source for one in got.values())
        return Answer(
            results=[got[digest] for digest in digests],
            saved=Saved(
                cached=sources[Source.CACHED] + sources[Source.REUSED],
                duplicates=len(digests) - len(requests),
                coalesced=len(coalesced),
                paid=len(mine),
                tokens=sum(part.tokens for part in mine),
                micro_usd=sum(part.micro_usd for part in mine),
            ),
            errors={place: errors[d] for place, d in enumerate(digests) if d in errors},
        )

    async def _apart(self, digests: Sequence[str], requests: Mapping[str, TextRequest]) -> Answer:
        distinct = list(requests.values())
        # Once: what was bought before a pause is not in the cache.
        resolution = await _run(
            self._pool,
            lambda: self._resolver.embed_apart(distinct, self._usage, occasion=self._process),
        )
        got = dict(zip(requests, resolution.results, strict=True))
        return Answer(
            results=[got[digest] for digest in digests],
            saved=Saved(
                duplicates=len(digests) - len(requests),
                paid=len(distinct),
                tokens=resolution.paid.get("api_tokens", 0),
                micro_usd=resolution.paid.get("micro_usd", 0),
            ),
        )

    # -- what is known

    async def _look_up(self, fingerprints: Sequence[str]) -> Mapping[str, Vector]:
        found = {
            digest: vector
            for digest in fingerprints
            if (vector := self._remembered.get(digest)) is not None
        }
        left = [digest for digest in fingerprints if digest not in found]
        return {**found, **await self._look_up_together(left)} if left else found

    async def _look_up_together(self, fingerprints: Sequence[str]) -> Mapping[str, Vector]:
        """Lookups that come while others are at it go together."""
        lookup = _Lookup(fingerprints)
        self._to_look_up.append(lookup)
        if self._looking < LOOKUPS:
            self._spawn(self._look_up_all())
        return await lookup.future

    async def _look_up_all(self) -> None:
        self._looking += 1
        try:
            while self._to_look_up:
                some, self._to_look_up = self._to_look_up, []
                names = list(dict.fromkeys(f for one in some for f in one.fingerprints))
                try:
                    found = await _run(self._lookups, partial(self._cache.get, names))
                except BaseException as error:
                    for one in some:
                        _fail(one.future, error)
                    continue
                self._remembered.update(found)
                for one in some:
                    if not one.future.done():
                        one.future.set_result({f: found[f] for f in one.fingerprints if f in found})
        finally:
            self._looking -= 1

    # -- what has to be asked for

    def _ask_for(self, requests: Mapping[str, TextRequest]) -> dict[str, _Group]:
        """With which group each of these texts comes."""
        new = {d: request for d, request in requests.items() if d not in self._flying}
        if len(new) >= ENOUGH_TEXTS:
            self._send(self._fly(_Group({}), new))
        elif new:
            if self._gathered is None:
                self._gathered = _Group({})
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(self._window, self._send_gathered)
            self._fly(self._gathered, new)
            if len(self._gathered.requests) >= MOST_TEXTS:
                self._send_gathered()
        return {digest: self._flying[digest] for digest in requests}

    def _fly(self, group: _Group, requests: Mapping[str, TextRequest]) -> _Group:
        group.requests.update(requests)
        self._flying.update(dict.fromkeys(requests, group))
        return group

    def _send_gathered(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        group, self._gathered = self._gathered, None
        if group is not None:
            self._send(group)

    def _send(self, group: _Group) -> None:
        self._spawn(self._resolve(group))

    async def _resolve(self, group: _Group) -> None:
        name = f"{self._process}-{next(self._numbers)}"
        requests = list(group.requests.values())
        try:
            resolution = await self._patiently(
                lambda: self._resolver.resolve(requests, self._usage, owner=name, occasion=name)
            )
        except BaseException as error:
            _fail(group.future, error)
            return
        finally:
            for digest in group.requests:
                del self._flying[digest]
        results = dict(zip(group.requests, resolution.results, strict=True))
        if not group.future.done():
            group.future.set_result((results, _parts(group.requests, resolution)))

    async def _patiently(self, call: Callable[[], Resolution]) -> Resolution:
        """Again after a pause that is short enough. What was got before it is in the cache."""
        clock = asyncio.get_running_loop().time
        until = clock() + self._patience
        while True:
            try:
                return await _run(self._pool, call)
            except RateLimited as error:
                if clock() + error.pause > until:
                    raise
                await asyncio.sleep(error.pause)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _run(pool: ThreadPoolExecutor, call: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(pool, call)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
        # Whoever waited may be gone.
        future.exception()


def _parts(requests: Mapping[str, TextRequest], resolution: Resolution) -> dict[str, _Part]:
    """What was paid for each text, by its length."""
    paid = {
        digest: len(request.text)
        for (digest, request), one in zip(requests.items(), resolution.results, strict=True)
        if one.source is Source.EMBEDDED
    }
    size = sum(paid.values()) or 1
    tokens, micro_usd = (resolution.paid.get(name, 0) for name in ("api_tokens", "micro_usd"))
    return {
        digest: _Part(
            tokens=round(length / size * tokens), micro_usd=round(length / size * micro_usd)
        )
        for digest, length in paid.items()
    }

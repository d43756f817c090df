"""From text to vector: out of the cache, from a log that has it, or from the API; paid for once.

The one way in for whoever needs vectors. It knows texts by their fingerprint, who asks and who
pays, and nothing of runs, documents or tasks. A stored vector is believed within its scope, whose
own it is, or where its digest shows that the API gave it; then it may serve everybody.

Two callers that meet the same new text at once agree through a lease in the cache which of them
asks; the other waits for what it gets, in one place and within a bound. Who has priority waits
shortly, since the other may be waiting for a permit; it asks itself then, and the other, once it
has its permit, no longer does.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from enrich.embedding.api_key import ApiKey
from enrich.embedding.batching import Batching, Caller, Results
from enrich.embedding.budget import USED_UP, Bill, Budget, Usage, share_used_up
from enrich.embedding.locations import VectorLocation
from enrich.errors import TransientError
from enrich.models import LogLocation
from enrich.text.masking import masked_places
from enrich.vectors import Vector

log = logging.getLogger(__name__)

#: How long a text that another caller is embedding is waited for, at most.
MAX_WAIT_SECONDS = 10.0
LEASE_SECONDS = 30.0

#: Between two looks at the cache meanwhile, in seconds: the first and the longest. A caller of the
#: same process wakes the others up when it is through.
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.25


class Source(StrEnum):
    """Where a vector came from."""

    CACHED = "cached"
    REUSED = "reused"
    EMBEDDED = "embedded"
    #: Asked for in the same call by a text of the same fingerprint.
    DUPLICATE = "duplicate"


@dataclass(frozen=True, kw_only=True)
class TextRequest:
    """One text that shall have a vector."""

    fingerprint: str
    text: str
    #: Whose stored vectors may serve it; "" takes only those that may serve everybody.
    scope: str = ""
    #: Who asks for it; the first of them that may still spend pays.
    payers: frozenset[str] = frozenset({""})


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """What came of a text: a vector and its source, or why there is none."""

    vector: Vector | None = None
    source: Source | None = None
    #: Code of a refusal that is the text's own; trying again will not help.
    failure: str = ""
    #: Why it has none this time, in a sentence, where that is known.
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """What came of one call."""

    #: In the order of the requests.
    results: list[Resolved]
    #: Whether texts wait for another day because the whole budget is used up.
    out_of_budget: bool = False
    #: What was counted for it: api_requests, api_inputs, api_tokens, micro_usd, …
    paid: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StoredVector:
    """A vector as a log has it; nothing of it is proven."""

    fingerprint: str
    vector: Vector
    #: Whose texts it may serve without proof.
    scope: str
    #: Whether the fingerprint is that of the log's present text.
    of_its_text: bool


class StoredVectors(Protocol):
    """Reads vectors of logs."""

    def read(self, places: Sequence[LogLocation]) -> Sequence[StoredVector | None]:
        """In the order of the places; None where there is no whole vector."""
        ...


class Cache(Protocol):
    """Vectors by fingerprint, and who is embedding which text."""

    def get(self, fingerprints: Sequence[str]) -> Mapping[str, Vector]: ...
    def known(self, fingerprints: Sequence[str]) -> set[str]: ...
    def put(self, vectors: Mapping[str, Vector]) -> None: ...
    def lease(
        self, fingerprints: Sequence[str], owner: str, seconds: float, *, unsent: bool = False
    ) -> set[str]:
        """Those that the owner may embed: nobody else has them, and no vector has come yet."""
        ...

    def send(self, fingerprints: Sequence[str], owner: str, seconds: float) -> set[str]:
        """Announce that texts are sent now; those that nobody else has taken."""
        ...

    def release(self, fingerprints: Iterable[str], owner: str) -> None: ...


class Locations(Protocol):
    """Where the vectors stand that the API gave."""

    def find(self, fingerprints: Sequence[str]) -> Mapping[str, VectorLocation]: ...
    def remember(self, places: Mapping[str, VectorLocation]) -> None: ...


#: Stored vectors, by scope and fingerprint; by the scope "" those that may serve everybody.
Reusable = Mapping[tuple[str, str], Vector]


class Resolver:
    """One for each process; its threads may share it."""

    def __init__(
        self,
        *,
        batching: Batching,
        cache: Cache,
        stored: StoredVectors,
        locations: Locations,
        budget: Budget,
        key: ApiKey,
        usd_per_million_tokens: float,
        masks: bool = False,
        max_wait_seconds: float = MAX_WAIT_SECONDS,
        asking: Callable[[], AbstractContextManager[None]] = nullcontext,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        """
        Args:
            masks: whether texts come masked, so that masked places are counted.
            max_wait_seconds: how long a text is waited for that another caller wants to embed and
                has not sent yet; what was sent is waited for up to MAX_WAIT_SECONDS.
            asking: held while the API is asked; entering it raises what `resolve` then raises.
            clock: seconds.
            wait: waits for so many seconds, or until a caller of this process is through.
        """
        self._batching = batching
        self._cache = cache
        self._stored = stored
        self._locations = locations
        self.budget = budget
        self._key = key
        self._price = usd_per_million_tokens
        self._masks = masks
        self._max_wait = max_wait_seconds
        self._asking = asking
        self._clock = clock
        self._through = threading.Condition()
        self._wait = wait or self._until_another_is_through

    def resolve(
        self,
        requests: Sequence[TextRequest],
        usage: Usage,
        *,
        owner: str,
        occasion: str,
        reusable: Reusable | None = None,
    ) -> Resolution:
        """Get a vector for each text, from the cheapest place.

        Args:
            usage: takes what is used, request by request.
            owner: holds the leases; the same for a call that is made again after its process died.
            occasion: see `Caller`.
            reusable: stored vectors that were looked for before, from `reusable`.

        Raises:
            Halt, TransientError: from the API; vectors got before are in the cache.
        """
        results: list[Resolved | None] = [None] * len(requests)
        cached = self._cache.get(sorted({request.fingerprint for request in requests}))
        for place, request in enumerate(requests):
            if request.fingerprint in cached:
                results[place] = Resolved(vector=cached[request.fingerprint], source=Source.CACHED)
        self._reuse(requests, results, reusable or {})
        missing = _missing(requests, results)
        if missing:
            places = self._locations.find(sorted({request.fingerprint for request in missing}))
            self._reuse(requests, results, self.reusable(list(places.values())))
            missing = _missing(requests, results)
        if not missing:
            return Resolution(results=_whole(results))
        if self.budget.used_up():
            left = [one or Resolved(reason=USED_UP) for one in results]
            return Resolution(results=left, out_of_budget=True)
        spent = self.budget.over_share({payer for one in missing for payer in one.payers})
        bill = Bill(usage, self._price)
        with self._asking():
            by_text = self._embed_each(
                {one.fingerprint: one.text for one in missing if one.payers - spent},
                payers_of(missing, spent),
                bill,
                Caller(occasion=occasion, meter=bill),
                owner,
            )
        first: set[str] = set()
        for place, request in enumerate(requests):
            if results[place] is not None:
                continue
            if request.fingerprint not in by_text:
                results[place] = Resolved(reason=share_used_up(min(request.payers)))
                continue
            one = by_text[request.fingerprint]
            if request.fingerprint in first and one.vector is not None:
                # It was sent once for all that ask for it.
                one = Resolved(vector=one.vector, source=Source.DUPLICATE)
            first.add(request.fingerprint)
            results[place] = one
        return Resolution(results=_whole(results), paid=bill.counted)

    def reusable(self, places: Sequence[LogLocation]) -> Reusable:
        """The vectors that stand there and can be believed; those of locations by everybody."""
        found: dict[tuple[str, str], Vector] = {}
        from_api: dict[str, Vector] = {}
        for place, stored in zip(places, self._stored.read(places), strict=True):
            if stored is None:
                continue
            if isinstance(place, VectorLocation) and place.vouches_for(
                stored.fingerprint, stored.vector
            ):
                from_api[stored.fingerprint] = found["", stored.fingerprint] = stored.vector
            elif stored.of_its_text:
                found[stored.scope, stored.fingerprint] = stored.vector
        self._keep(from_api)
        return found

    def known(self, fingerprints: Sequence[str]) -> set[str]:
        """Those that `resolve` would find without paying, as far as the cache and the locations
        know."""
        known = self._cache.known(fingerprints)
        left = [each for each in fingerprints if each not in known]
        return known | self._locations.find(left).keys()

    def remember(self, places: Mapping[str, VectorLocation]) -> None:
        """Record where vectors that the API gave were written, by fingerprint."""
        try:
            self._locations.remember(places)
        except TransientError as error:
            # The logs have their vectors; the same text may be paid for once more.
            log.warning("the places of written vectors were not recorded: %s", error)

    def embed(self, texts: Mapping[str, str], usage: Usage, *, occasion: str) -> Results:
        """Ask the API alone, whatever is known. Raises as `resolve`."""
        caller = Caller(occasion=occasion, meter=Bill(usage, self._price))
        with self._key.in_use():
            return self._batching.embed(texts, caller, lambda vectors: None)

    def embed_apart(
        self, requests: Sequence[TextRequest], usage: Usage, *, occasion: str
    ) -> Resolution:
        """Get vectors from the API alone, and keep none of them. Each text once; raises as
        `resolve`."""
        if self.budget.used_up():
            left = [Resolved(reason=USED_UP) for _ in requests]
            return Resolution(results=left, out_of_budget=True)
        bill = Bill(usage, self._price)
        payers = payers_of(requests, ())
        texts = {one.fingerprint: one.text for one in requests}
        with self._asking(), self._key.in_use():
            bill.charge((payers[one.fingerprint], one.text) for one in requests)
            found = self._batching.embed(
                texts, Caller(occasion=occasion, meter=bill), lambda vectors: None
            )
        got = _resolved(found)
        return Resolution(results=[got[one.fingerprint] for one in requests], paid=bill.counted)

    def probe(self, usage: Usage, *, occasion: str) -> None:
        """Send one harmless text, to see whether the API works at all. Raises as `resolve`."""
        with self._key.in_use():
            self._batching.probe(Caller(occasion=occasion, meter=Bill(usage, self._price)))

    def _reuse(
        self,
        requests: Sequence[TextRequest],
        results: list[Resolved | None],
        reusable: Reusable,
    ) -> None:
        for place, request in enumerate(requests):
            if results[place] is None:
                vector = reusable.get(
                    (request.scope, request.fingerprint), reusable.get(("", request.fingerprint))
                )
                if vector is not None:
                    results[place] = Resolved(vector=vector, source=Source.REUSED)

    def _embed_each(
        self,
        texts: dict[str, str],
        payers: Mapping[str, str],
        bill: Bill,
        caller: Caller,
        owner: str,
    ) -> dict[str, Resolved]:
        """Embed texts, except those that another caller is embedding: these are waited for.

        After a while what the other has not sent yet is taken over from it, and sent here; it
        finds that out before it sends. So a text is sent once, unless nothing comes for very long.
        """
        results: dict[str, Resolved] = {}
        begun = news = self._clock()
        pause = FIRST_PAUSE
        while texts:
            now = self._clock()
            at_the_bound = now - news >= MAX_WAIT_SECONDS
            mine = self._cache.lease(
                sorted(texts), owner, LEASE_SECONDS, unsent=now - begun >= self._max_wait
            )
            if at_the_bound:
                mine = set(texts)
            if mine:
                some = {fingerprint: texts.pop(fingerprint) for fingerprint in sorted(mine)}
                bill.charge((payers[fingerprint], text) for fingerprint, text in some.items())
                results |= self._embed_mine(some, caller, owner, whatever=at_the_bound)
                # Taken over by others meanwhile, who are waited for from now on.
                texts |= {each: text for each, text in some.items() if each not in results}
                news = self._clock()
            for known, vector in self._cache.get(sorted(texts)).items():
                del texts[known]
                results[known] = Resolved(vector=vector, source=Source.CACHED)
                news = self._clock()
            if texts:
                self._wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
        return results

    def _embed_mine(
        self, texts: Mapping[str, str], caller: Caller, owner: str, *, whatever: bool
    ) -> dict[str, Resolved]:
        """Args: whatever: send them also if somebody else has."""

        def keep(vectors: dict[str, Vector]) -> None:
            self._keep(vectors)
            masked = sum(masked_places(texts[each]) for each in vectors) if self._masks else 0
            if masked:
                caller.meter.count(masked=masked)

        def sends(fingerprints: Sequence[str]) -> set[str]:
            if whatever:
                return set(fingerprints)
            return self._cache.send(fingerprints, owner, LEASE_SECONDS)

        try:
            with self._key.in_use():
                found = self._batching.embed(texts, caller, keep, sends)
        finally:
            self._cache.release(texts, owner)
            with self._through:
                self._through.notify_all()
        return _resolved(found)

    def _keep(self, vectors: Mapping[str, Vector]) -> None:
        if not vectors:
            return
        try:
            self._cache.put(vectors)
        except TransientError as error:
            # They are in hand and paid for: the caller has them.
            log.warning("vectors were not cached: %s", error)

    def _until_another_is_through(self, seconds: float) -> None:
        with self._through:
            self._through.wait(seconds)


def _resolved(found: Results) -> dict[str, Resolved]:
    """What the API brought, by fingerprint."""
    return {
        **{
            each: Resolved(vector=vector, source=Source.EMBEDDED)
            for each, vector in found.vectors.items()
        },
        **{each: Resolved(failure=code) for each, code in found.refused.items()},
        **{each: Resolved(reason=found.reasons.get(each, "")) for each in found.invalid},
    }


def payers_of(requests: Iterable[TextRequest], spent: Collection[str]) -> dict[str, str]:
    """Who pays for each text: of those who ask for it, the first that may still spend."""
    payers: dict[str, str] = {}
    for request in requests:
        if able := request.payers - set(spent):
            payers.setdefault(request.fingerprint, min(able))
    return payers


def _missing(
    requests: Sequence[TextRequest], results: Sequence[Resolved | None]
) -> list[TextRequest]:
    return [request for request, one in zip(requests, results, strict=True) if one is None]


def _whole(results: Sequence[Resolved | None]) -> list[Resolved]:
    return [one for one in results if one is not None]

"""From text to vector: each text gets its own vector or its own reason, and is paid for once."""

from __future__ import annotations

import hashlib
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.embedding.api_key import ApiKey
from enrich.embedding.batching import BYTES_PER_TOKEN, HARMLESS_TEXT, Batching
from enrich.embedding.budget import USED_UP, Budget, share_used_up
from enrich.embedding.client import Embedded
from enrich.embedding.in_memory import (
    InMemoryCache,
    InMemoryKeys,
    InMemoryLocations,
    InMemoryQuota,
    InMemorySpending,
    InMemoryUsage,
)
from enrich.embedding.limits import EndpointLimits
from enrich.embedding.locations import VectorLocation
from enrich.embedding.resolver import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    MAX_WAIT_SECONDS,
    Resolution,
    Resolver,
    Source,
    StoredVector,
    TextRequest,
)
from enrich.errors import Halt, InputRefused, ServerUnavailable, TransientError
from enrich.models import LogLocation, Reference
from enrich.ratelimit.api_quota import Limits
from enrich.vectors import BYTES, Vector
from enrich.wiring import REALTIME_WAIT_SECONDS

TEXTS = [f"disk {n} is full" for n in range(12)]
SCOPES = ["pay", "shop", ""]


def fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def vector_of(text: str, planted: int = 0) -> Vector:
    digest = hashlib.sha256(f"{planted} {text}".encode()).digest()[:8]
    return np.frombuffer(digest, dtype=np.uint8).astype(BYTES) + BYTES.type(1)


def wanted(text: str, scope: str = "", *payers: str) -> TextRequest:
    asking = frozenset(payers or (scope or "pay",))
    return TextRequest(fingerprint=fingerprint(text), text=text, scope=scope, payers=asking)


class ServerFailed(TransientError):
    """The endpoint's server failed; it may have been for one text."""

    failed_as = "500"


@dataclass
class Endpoint:
    """Embeds texts, but for those that it refuses or has no vector for."""

    refused: set[str] = field(default_factory=set)
    invalid: set[str] = field(default_factory=set)
    #: Texts that the endpoint's server fails for.
    failing: set[str] = field(default_factory=set)
    #: Raised by the n-th request from now, counted from 0.
    errors: dict[int, Exception] = field(default_factory=dict)
    embedded: Counter[str] = field(default_factory=Counter)
    before: Callable[[Sequence[str]], None] = lambda texts: None
    requests: int = 0

    def embed(self, texts: Sequence[str]) -> Embedded:
        self.before(texts)
        nth, self.requests = self.requests, self.requests + 1
        if nth in self.errors:
            raise self.errors[nth]
        if self.refused & set(texts):
            raise InputRefused("the endpoint refuses this text (400)")
        if self.failing & set(texts):
            raise ServerFailed("the endpoint fails (500)")
        self.embedded.update(text for text in texts if text not in self.invalid)
        vectors = [None if text in self.invalid else vector_of(text) for text in texts]
        return Embedded(vectors=vectors, tokens=10 * len(texts), limits=Limits())

    def close(self) -> None:
        """There is nothing to be closed."""


class Logs:
    """Vectors that logs have, by place."""

    def __init__(self) -> None:
        self.stored: dict[LogLocation, StoredVector] = {}

    def read(self, places: Sequence[LogLocation]) -> list[StoredVector | None]:
        return [self.stored.get(LogLocation(one.index, one.id, one.routing)) for one in places]


class Desk:
    """A resolver with all that it works with, in memory."""

    def __init__(
        self,
        endpoint: Endpoint | None = None,
        *,
        usd_per_day: float = 0,
        share: float = 1,
        **options: Any,
    ) -> None:
        """Args: options: of the resolver."""
        self.now = 0.0
        self.waits: list[float] = []
        self.endpoint = endpoint or Endpoint()
        self.cache = InMemoryCache(lambda: self.now)
        self.locations = InMemoryLocations()
        self.logs = Logs()
        self.spending = InMemorySpending()
        self.keys = InMemoryKeys()
        self.usage = InMemoryUsage()
        self.resolver = Resolver(
            batching=Batching(self.endpoint, InMemoryQuota()),
            cache=self.cache,
            stored=self.logs,
            locations=self.locations,
            budget=Budget(spending=self.spending, usd_per_day=usd_per_day, share=share),
            key=ApiKey(self.keys, "sk-mine", interval_seconds=600),
            usd_per_million_tokens=0.13,
            clock=lambda: self.now,
            **{"wait": self.wait, **options},
        )

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def resolve(
        self,
        *requests: TextRequest,
        owner: str = "me",
        occasion: str = "today",
        places: Sequence[LogLocation] = (),
    ) -> Resolution:
        reusable = self.resolver.reusable(places)
        return self.resolver.resolve(
            requests, self.usage, owner=owner, occasion=occasion, reusable=reusable
        )

    def store(
        self, text: str, scope: str, *, planted: int = 0, changed: bool = False
    ) -> LogLocation:
        """A log of a scope that has a vector for this text."""
        place = LogLocation(f"{scope}_2026_01", f"{text}/{planted}", None)
        self.logs.stored[place] = StoredVector(
            fingerprint=fingerprint(text),
            vector=vector_of(text, planted),
            scope=scope,
            of_its_text=not changed,
        )
        return place

    def note_location(self, text: str, *, forged: bool = False) -> None:
        place = self.store(text, "other", planted=7 if forged else 0, changed=True)
        location = VectorLocation.of(
            Reference(place.index, place.id, None, 1, 1), fingerprint(text), vector_of(text)
        )
        self.locations.remember({fingerprint(text): location})


def sources(resolution: Resolution) -> list[Source | None]:
    return [one.source for one in resolution.results]


# -- each place in turn


def test_the_cheapest_place_is_taken_and_what_the_api_gave_is_known_from_then_on() -> None:
    desk = Desk()
    cached, in_log, at_place, new = TEXTS[:4]
    desk.cache.put({fingerprint(cached): vector_of(cached)})
    place = desk.store(in_log, "pay")
    desk.note_location(at_place)
    asked = [wanted(text, "pay") for text in (cached, in_log, at_place, new)]

    first = desk.resolve(*asked, places=[place])

    assert sources(first) == [Source.CACHED, Source.REUSED, Source.REUSED, Source.EMBEDDED]
    for text, one in zip((cached, in_log, at_place, new), first.results, strict=True):
        assert np.array_equal(one.vector, vector_of(text))
    assert desk.endpoint.embedded == {new: 1}
    assert first.paid["api_inputs"] == 1
    # What the API gave may serve everybody; what a log says of itself may not.
    assert sources(desk.resolve(*asked)) == [
        Source.CACHED, Source.EMBEDDED, Source.CACHED, Source.CACHED,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("scope", "changed"), [("shop", False), ("pay", True)], ids=["another project's", "changed"]
)
def test_a_vector_that_anybody_may_have_written_serves_nobody_else(
    scope: str, changed: bool
) -> None:
    desk = Desk()
    place = desk.store(TEXTS[0], scope, planted=1, changed=changed)
    resolution = desk.resolve(wanted(TEXTS[0], "pay"), places=[place])
    assert sources(resolution) == [Source.EMBEDDED]
    assert np.array_equal(resolution.results[0].vector, vector_of(TEXTS[0]))


def test_a_place_whose_vector_is_not_the_apis_any_more_is_not_believed() -> None:
    desk = Desk()
    desk.note_location(TEXTS[0], forged=True)
    assert sources(desk.resolve(wanted(TEXTS[0], "pay"))) == [Source.EMBEDDED]


def test_a_text_that_several_scopes_ask_for_is_sent_once() -> None:
    desk = Desk()
    resolution = desk.resolve(*(wanted(TEXTS[0], scope) for scope in ("pay", "shop", "")))
    assert sources(resolution) == [Source.EMBEDDED, Source.DUPLICATE, Source.DUPLICATE]
    assert desk.endpoint.embedded == {TEXTS[0]: 1}


def test_what_is_known_is_told_without_paying() -> None:
    desk = Desk()
    desk.cache.put({fingerprint(TEXTS[0]): vector_of(TEXTS[0])})
    desk.note_location(TEXTS[1])
    names = [fingerprint(text) for text in TEXTS[:3]]
    assert desk.resolver.known(names) == set(names[:2])
    assert desk.endpoint.requests == 0


def test_a_text_that_is_known_is_paid_by_nobody_though_the_day_is_used_up() -> None:
    desk = Desk(usd_per_day=1.0)
    desk.spending.spent = {"pay": 1.0}
    desk.cache.put({fingerprint(TEXTS[0]): vector_of(TEXTS[0])})
    resolution = desk.resolve(wanted(TEXTS[0]))
    assert np.array_equal(resolution.results[0].vector, vector_of(TEXTS[0]))
    assert (resolution.paid, resolution.out_of_budget) == ({}, False)


def test_what_is_known_is_given_while_the_api_must_not_be_asked() -> None:
    away = ServerUnavailable("the embeddings API did not answer in time")

    @contextmanager
    def asking() -> Iterator[None]:
        raise away
        yield

    desk = Desk(asking=asking)
    desk.cache.put({fingerprint(TEXTS[0]): vector_of(TEXTS[0])})
    desk.note_location(TEXTS[1])
    given = desk.resolve(*map(wanted, TEXTS[:2]))
    assert sources(given) == [Source.CACHED, Source.REUSED]
    apart = [wanted(TEXTS[0])]
    for ask in (
        lambda: desk.resolve(wanted(TEXTS[2])),
        lambda: desk.resolver.embed_apart(apart, desk.usage, occasion="today"),
    ):
        with pytest.raises(ServerUnavailable) as raised:
            ask()
        assert raised.value is away
    assert (desk.endpoint.requests, desk.usage.counted["api_requests"]) == (0, 0)
    # Nobody waits for who was not let through.
    assert desk.cache.lease([fingerprint(TEXTS[2])], "another", 30) == {fingerprint(TEXTS[2])}


def test_a_place_that_is_recorded_serves_every_scope_from_then_on() -> None:
    desk = Desk()
    text = TEXTS[0]
    place = desk.store(text, "shop", changed=True)
    reference = Reference(place.index, place.id, None, 1, 1)
    name = fingerprint(text)
    desk.resolver.remember({name: VectorLocation.of(reference, name, vector_of(text))})
    assert sources(desk.resolve(wanted(text, "pay"))) == [Source.REUSED]
    assert desk.endpoint.requests == 0


def test_a_log_without_a_vector_hides_no_other() -> None:
    desk = Desk()
    empty = LogLocation("pay_2026_01", "empty", None)
    places = [empty, desk.store(TEXTS[0], "pay"), empty, desk.store(TEXTS[1], "pay")]
    assert sources(desk.resolve(*(wanted(text, "pay") for text in TEXTS[:2]), places=places)) == [
        Source.REUSED, Source.REUSED,
    ]  # fmt: skip


def test_a_reader_that_leaves_places_out_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """No vector is taken for what stands at another place."""
    desk = Desk()
    places = [desk.store(text, "pay") for text in TEXTS[:2]]
    stored = desk.logs.read(places)
    monkeypatch.setattr(desk.logs, "read", lambda places: stored[1:])
    with pytest.raises(ValueError, match="shorter"):
        desk.resolver.reusable(places)


# -- reasons


def test_each_text_has_its_own_reason() -> None:
    desk = Desk(Endpoint(refused={TEXTS[0]}, invalid={TEXTS[1]}))
    refused, invalid, good = desk.resolve(*map(wanted, TEXTS[:3])).results
    assert (refused.failure, refused.vector) == ("text_refused", None)
    assert (invalid.failure, invalid.vector, invalid.source) == ("", None, None)
    assert invalid.reason == ""
    assert good.source is Source.EMBEDDED


def test_a_text_that_a_server_fails_for_is_given_up_once_another_occasion_sees_the_same() -> None:
    desk = Desk(Endpoint(failing={TEXTS[0]}))
    for _ in range(2):
        failed, good = desk.resolve(*map(wanted, TEXTS[:2]), occasion="monday").results
        assert failed.failure == ""
        assert "fails for these texts alone (500)" in failed.reason
        assert good.vector is not None
    [failed] = desk.resolve(wanted(TEXTS[0]), occasion="tuesday").results
    assert (failed.failure, failed.reason) == ("text_refused", "")


def test_occasions_count_as_well_where_the_api_is_asked_alone() -> None:
    desk = Desk(Endpoint(failing={TEXTS[0]}))
    first = desk.resolver.embed({"a": TEXTS[0]}, desk.usage, occasion="monday")
    second = desk.resolver.embed({"a": TEXTS[0]}, desk.usage, occasion="tuesday")
    assert (first.invalid, first.refused) == ({"a"}, {})
    assert (second.invalid, second.refused) == (set(), {"a": "text_refused"})


@pytest.mark.parametrize(("options", "masked"), [({"masks": True}, 3), ({"masks": False}, 0)])
def test_masked_places_are_counted_in_texts_that_are_embedded(
    options: dict[str, bool], masked: int
) -> None:
    desk = Desk(Endpoint(invalid={"no vector for [masked ip]"}), **options)
    known = "known [masked phone]"
    desk.cache.put({fingerprint(known): vector_of(known)})
    two, one = "token [masked credential] of [masked email]", "from [masked ip]"
    paid = desk.resolve(*map(wanted, [known, two, one, "plain", "no vector for [masked ip]"])).paid
    assert paid.get("masked", 0) == desk.usage.counted.get("masked", 0) == masked


def test_no_masked_places_are_counted_where_nothing_is_masked() -> None:
    """Logs may quote a placeholder; nobody masked it."""
    desk = Desk()
    assert "masked" not in desk.resolve(wanted("a log about [masked email]")).paid


def test_a_budget_that_is_used_up_buys_nothing_and_takes_what_is_known() -> None:
    desk = Desk(usd_per_day=1.0)
    desk.spending.spent = {"pay": 1.0}
    desk.cache.put({fingerprint(TEXTS[0]): vector_of(TEXTS[0])})
    resolution = desk.resolve(*map(wanted, TEXTS[:2]))
    assert resolution.out_of_budget
    assert [one.reason for one in resolution.results] == ["", USED_UP]
    assert sources(resolution) == [Source.CACHED, None]
    assert desk.endpoint.requests == 0


def test_who_has_used_its_share_waits_and_takes_what_others_pay_for() -> None:
    desk = Desk(usd_per_day=1.0, share=0.5)
    desk.spending.spent = {"flood": 0.5, "quiet": 0.1}
    resolution = desk.resolve(
        wanted(TEXTS[0], "flood"),
        wanted(TEXTS[1], "flood"),
        wanted(TEXTS[1], "quiet"),
    )
    assert [one.reason for one in resolution.results] == [share_used_up("flood"), "", ""]
    assert sources(resolution) == [None, Source.EMBEDDED, Source.DUPLICATE]
    assert desk.usage.paid_by.keys() == {"quiet"}


def test_what_is_paid_is_shared_out_by_the_length_of_the_texts() -> None:
    desk = Desk()
    long = "x" * 3_000
    paid = desk.resolve(wanted("y" * 1_000, "pay"), wanted(long, "shop")).paid
    assert paid["api_tokens"] == 20
    assert desk.usage.paid_by.total() == desk.usage.counted["micro_usd"] == paid["micro_usd"] == 3
    assert desk.usage.paid_by["shop"] > desk.usage.paid_by["pay"]


# -- an API in trouble


def test_what_was_paid_for_before_trouble_is_kept_and_the_leases_are_given_back() -> None:
    desk = Desk(Endpoint(errors={1: ServerUnavailable("the embeddings API is away")}))
    # Two requests, by their bytes.
    texts = [letter * 400_000 for letter in "ab"]
    with pytest.raises(TransientError, match="away"):
        desk.resolve(*map(wanted, texts), owner="first")
    again = desk.resolve(*map(wanted, texts), owner="second")
    assert set(sources(again)) == {Source.CACHED, Source.EMBEDDED}
    assert set(desk.endpoint.embedded.values()) == {1}
    assert desk.waits == []


@pytest.mark.parametrize(("digest", "raised"), [("another", TransientError), ("", Halt)])
def test_a_key_that_is_refused_halts_unless_another_one_works(
    digest: str, raised: type[Exception]
) -> None:
    desk = Desk(Endpoint(errors={0: Halt("OPENAI_API_KEY is refused (401)")}))
    if digest:
        desk.keys.note(digest, 60)
    with pytest.raises(raised, match="OPENAI_API_KEY"):
        desk.resolve(wanted(TEXTS[0]))


def test_the_api_can_be_asked_alone_and_is_probed_with_a_harmless_text() -> None:
    desk = Desk()
    desk.cache.put({fingerprint(TEXTS[0]): vector_of("something else")})
    found = desk.resolver.embed({"a": TEXTS[0]}, desk.usage, occasion="today")
    assert np.array_equal(found.vectors["a"], vector_of(TEXTS[0]))
    desk.resolver.probe(desk.usage, occasion="today")
    assert desk.endpoint.embedded == {TEXTS[0]: 1, HARMLESS_TEXT: 1}
    assert desk.usage.counted["api_requests"] == 2


def test_a_cache_and_a_memory_of_places_that_fail_lose_no_vector(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*_: object) -> None:
        raise ServerUnavailable("Redis is full")

    desk = Desk()
    monkeypatch.setattr(desk.cache, "put", away)
    monkeypatch.setattr(desk.locations, "remember", away)
    assert sources(desk.resolve(wanted(TEXTS[0]))) == [Source.EMBEDDED]
    desk.resolver.remember({})
    assert [record.getMessage() for record in caplog.records] == [
        "vectors were not cached: Redis is full",
        "the places of written vectors were not recorded: Redis is full",
    ]


# -- a text that another caller is embedding


def test_a_text_in_flight_is_waited_for_and_not_sent_twice() -> None:
    desk = Desk()
    name = fingerprint(TEXTS[0])
    desk.cache.lease([name], "other", 60)

    def until_it_is_there(seconds: float) -> None:
        Desk.wait(desk, seconds)
        if len(desk.waits) == 3:
            desk.cache.put({name: vector_of(TEXTS[0])})
            desk.cache.release([name], "other")

    desk.resolver._wait = until_it_is_there
    resolution = desk.resolve(wanted(TEXTS[0]), wanted(TEXTS[1]))
    assert sources(resolution) == [Source.CACHED, Source.EMBEDDED]
    for text, one in zip(TEXTS, resolution.results, strict=False):
        assert np.array_equal(one.vector, vector_of(text))
    assert desk.endpoint.embedded == {TEXTS[1]: 1}
    assert len(desk.waits) == 3


@pytest.mark.parametrize("lease_seconds", [1.0, 10 * MAX_WAIT_SECONDS], ids=["lapses", "stays"])
def test_who_embeds_and_never_ends_is_not_waited_for_longer_than_the_bound(
    lease_seconds: float,
) -> None:
    desk = Desk()
    desk.cache.lease([fingerprint(TEXTS[0])], "other", lease_seconds)
    # What was embedded before the wait is not lost by it.
    resolution = desk.resolve(wanted(TEXTS[0]), wanted(TEXTS[1]))
    assert sources(resolution) == [Source.EMBEDDED, Source.EMBEDDED]
    assert sum(desk.waits) <= min(lease_seconds, MAX_WAIT_SECONDS) + LONGEST_PAUSE
    # No busy poll: most looks are as far apart as they may be.
    assert len(desk.waits) < 2 * sum(desk.waits) / LONGEST_PAUSE + 5


@pytest.mark.parametrize("came", [0.01, 0.03, 0.05, 0.1, 0.2, 1.0, 5.0])
def test_a_text_that_came_soon_is_seen_soon(came: float) -> None:
    """Within about as long again as it took, and within the longest pause."""
    desk = Desk()
    name = fingerprint(TEXTS[0])
    desk.cache.lease([name], "other", 60)

    def until(seconds: float) -> None:
        Desk.wait(desk, seconds)
        if desk.now >= came:
            desk.cache.put({name: vector_of(TEXTS[0])})

    desk.resolver._wait = until
    assert sources(desk.resolve(wanted(TEXTS[0]))) == [Source.CACHED]
    assert desk.now <= min(2 * came, came + LONGEST_PAUSE) + FIRST_PAUSE + 1e-9


def test_who_goes_first_waits_shortly_for_one_who_waits_for_a_permit() -> None:
    desk = Desk(max_wait_seconds=REALTIME_WAIT_SECONDS)
    desk.cache.lease([fingerprint(TEXTS[0])], "backlog", 60)
    assert sources(desk.resolve(wanted(TEXTS[0]))) == [Source.EMBEDDED]
    assert sum(desk.waits) <= REALTIME_WAIT_SECONDS + LONGEST_PAUSE


def test_what_another_has_sent_is_waited_for_also_by_who_goes_first() -> None:
    desk = Desk(max_wait_seconds=REALTIME_WAIT_SECONDS)
    name = fingerprint(TEXTS[0])
    desk.cache.send([name], "backlog", 60)

    def slow_answer(seconds: float) -> None:
        Desk.wait(desk, seconds)
        if desk.now >= 8 * REALTIME_WAIT_SECONDS:
            desk.cache.put({name: vector_of(TEXTS[0])})

    desk.resolver._wait = slow_answer
    assert sources(desk.resolve(wanted(TEXTS[0]))) == [Source.CACHED]
    assert desk.endpoint.requests == 0


def test_who_was_busy_for_long_itself_still_waits_for_what_others_have_sent() -> None:
    """A slow endpoint: neither its own requests nor those of others that bring something count as
    time in which nothing came."""
    desk = Desk(max_wait_seconds=REALTIME_WAIT_SECONDS)
    mine, *others = sorted(TEXTS[:4], key=fingerprint)
    desk.cache.send([fingerprint(text) for text in others], "other", 600)

    def takes_long(texts: Sequence[str]) -> None:
        desk.now += MAX_WAIT_SECONDS

    def other_goes_on(seconds: float) -> None:
        Desk.wait(desk, seconds)
        done = int(desk.now / (MAX_WAIT_SECONDS - 2 * LONGEST_PAUSE)) - 1
        desk.cache.put({fingerprint(text): vector_of(text) for text in others[:done]})

    desk.endpoint.before = takes_long
    desk.resolver._wait = other_goes_on
    resolution = desk.resolve(*map(wanted, (mine, *others)))
    assert sources(resolution) == [Source.EMBEDDED, *[Source.CACHED] * 3]
    assert desk.endpoint.embedded == {mine: 1}


@pytest.mark.parametrize("max_wait", [REALTIME_WAIT_SECONDS, MAX_WAIT_SECONDS])
def test_two_who_want_the_same_texts_at_once_share_them_and_none_is_sent_twice(
    max_wait: float,
) -> None:
    """The one with many requests is at its first when the other comes."""
    slow = Desk()
    quick = Desk(max_wait_seconds=max_wait)
    quick.cache = quick.resolver._cache = slow.cache
    one_each = EndpointLimits(inputs=1)
    slow.resolver._batching = Batching(slow.endpoint, InMemoryQuota(), most=one_each)
    got: list[Resolution] = []
    # In the order of their fingerprints, as they are sent.
    first, *others = sorted(TEXTS, key=fingerprint)

    def meanwhile(texts: Sequence[str]) -> None:
        if list(texts) == [first]:
            got.append(quick.resolve(*map(wanted, others), owner="quick"))

    slow.endpoint.before = meanwhile
    resolution = slow.resolve(*map(wanted, (first, *others)), owner="slow")
    assert sources(got[0]) == [Source.EMBEDDED] * len(others)
    assert sources(resolution) == [Source.EMBEDDED] + [Source.CACHED] * len(others)
    sent = slow.endpoint.embedded + quick.endpoint.embedded
    assert sent == dict.fromkeys(TEXTS, 1)
    assert resolution.paid["api_inputs"] == 1


def test_what_others_got_while_a_permit_was_waited_for_is_not_sent() -> None:
    class Behind(InMemoryQuota):
        """Somebody who goes first embeds the first text meanwhile."""

        corrections: ClassVar[list[tuple[int, int]]] = []

        def acquire(self, tokens: int, timeout: float = 0.0) -> float:
            desk.cache.put({fingerprint(TEXTS[0]): vector_of(TEXTS[0])})
            return 3.0

        def correct(self, tokens: int, billed: int) -> None:
            self.corrections.append((tokens, billed))

    desk = Desk()
    desk.resolver._batching = Batching(desk.endpoint, Behind())
    resolution = desk.resolve(wanted(TEXTS[0]), wanted(TEXTS[1]))
    assert sources(resolution) == [Source.CACHED, Source.EMBEDDED]
    assert desk.endpoint.embedded == {TEXTS[1]: 1}
    assert resolution.paid["api_inputs"] == 1
    # The permit was for both.
    assert Behind.corrections[0] == (len(TEXTS[0]) // BYTES_PER_TOKEN + 1, 0)
    again = desk.resolve(wanted(TEXTS[2]), wanted(TEXTS[0]))
    assert sources(again) == [Source.EMBEDDED, Source.CACHED]

    # Where all of it is known, nothing is asked for.
    class Late(Behind):
        def acquire(self, tokens: int, timeout: float = 0.0) -> float:
            desk.cache.put({fingerprint(each): vector_of(each) for each in ("d", "e")})
            return 3.0

    desk.resolver._batching = Batching(desk.endpoint, Late())
    before = desk.endpoint.requests
    assert sources(desk.resolve(wanted("d"), wanted("e"))) == [Source.CACHED, Source.CACHED]
    assert desk.endpoint.requests == before


def test_at_the_bound_nobody_waits_any_more() -> None:
    desk = Desk()
    desk.cache.lease([fingerprint(TEXTS[0])], "other", 10 * MAX_WAIT_SECONDS)

    def until_the_bound(seconds: float) -> None:
        Desk.wait(desk, MAX_WAIT_SECONDS)

    desk.resolver._wait = until_the_bound
    assert sources(desk.resolve(wanted(TEXTS[0]))) == [Source.EMBEDDED]
    assert desk.now == MAX_WAIT_SECONDS


def test_the_vector_of_another_process_is_seen_though_it_wakes_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = Desk(wait=None)
    name = fingerprint(TEXTS[0])
    desk.cache.lease([name], "other", 60)
    look = desk.cache.get
    looks: list[Sequence[str]] = []

    def there_in_the_end(fingerprints: Sequence[str]) -> dict[str, Vector]:
        looks.append(fingerprints)
        if len(looks) == 3:
            desk.cache.put({name: vector_of(TEXTS[0])})
        return look(fingerprints)

    monkeypatch.setattr(desk.cache, "get", there_in_the_end)
    got: list[Resolution] = []
    # Alone in a thread: a wait without an end fails this test and does not stop the others.
    thread = threading.Thread(
        target=lambda: got.append(desk.resolve(wanted(TEXTS[0]))), daemon=True
    )
    thread.start()
    thread.join(60)
    assert [sources(each) for each in got] == [[Source.CACHED]]


def test_a_call_that_is_made_again_has_its_own_leases() -> None:
    desk = Desk()
    desk.cache.lease([fingerprint(TEXTS[0])], "chunk", 60)
    assert sources(desk.resolve(wanted(TEXTS[0]), owner="chunk")) == [Source.EMBEDDED]
    assert desk.waits == []


def test_threads_of_one_process_send_a_text_once() -> None:
    desk = Desk()
    entered, waits = threading.Event(), threading.Event()

    def hold(texts: Sequence[str]) -> None:
        entered.set()
        assert waits.wait(60)

    def wait(seconds: float) -> None:
        waits.set()
        desk.resolver._until_another_is_through(60)

    desk.endpoint.before = hold
    desk.resolver._wait = wait
    got: dict[str, Resolution] = {}

    def work(owner: str) -> None:
        got[owner] = desk.resolve(wanted(TEXTS[0]), owner=owner)

    first = threading.Thread(target=work, args=("first",))
    first.start()
    assert entered.wait(60)
    second = threading.Thread(target=work, args=("second",))
    second.start()
    for thread in (first, second):
        thread.join(60)
    assert sources(got["first"]) == [Source.EMBEDDED]
    assert sources(got["second"]) == [Source.CACHED]
    assert desk.endpoint.embedded == {TEXTS[0]: 1}


# -- any mix

Numbers = st.sets(st.integers(0, len(TEXTS) - 1), max_size=4)


@dataclass(frozen=True)
class Mix:
    """One call: what is asked for, and what is known and refused by then."""

    asked: list[tuple[int, str]]
    cached: set[int]
    refused: set[int]
    invalid: set[int]
    located: dict[int, bool]
    #: Text, whose log, whether the log's text has changed since.
    stored: list[tuple[int, str, bool]]


MIXES = st.builds(
    Mix,
    asked=st.lists(st.tuples(st.integers(0, len(TEXTS) - 1), st.sampled_from(SCOPES)), max_size=12),
    cached=Numbers,
    refused=Numbers,
    invalid=Numbers,
    located=st.dictionaries(st.integers(0, len(TEXTS) - 1), st.booleans(), max_size=3),
    stored=st.lists(
        st.tuples(st.integers(0, len(TEXTS) - 1), st.sampled_from(["pay", "shop"]), st.booleans()),
        max_size=4,
    ),
)


def random_mix(by: random.Random) -> Mix:
    def some(most: int) -> set[int]:
        return {by.randrange(len(TEXTS)) for _ in range(by.randint(0, most))}

    return Mix(
        asked=[(by.randrange(len(TEXTS)), by.choice(SCOPES)) for _ in range(by.randint(0, 12))],
        cached=some(2),
        refused=some(3),
        invalid=some(3),
        located={n: by.random() < 0.5 for n in some(2)},
        stored=[(n, by.choice(["pay", "shop"]), by.random() < 0.5) for n in some(4)],
    )


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(MIXES, min_size=1, max_size=5))
def test_any_mix_gives_each_text_its_own_vector_or_its_own_reason(mixes: list[Mix]) -> None:
    assert_each_has_its_own(mixes)


@pytest.mark.long
def test_ten_thousand_mixes_give_each_text_its_own_vector_or_its_own_reason() -> None:
    by = random.Random(11)
    for _ in range(2_000):
        assert_each_has_its_own([random_mix(by) for _ in range(5)])


def assert_each_has_its_own(mixes: Sequence[Mix]) -> None:
    desk = Desk()
    for nth, mix in enumerate(mixes):
        desk.cache.put({fingerprint(TEXTS[n]): vector_of(TEXTS[n]) for n in mix.cached})
        for n, forged in mix.located.items():
            desk.note_location(TEXTS[n], forged=forged)
        desk.endpoint.refused = {TEXTS[n] for n in mix.refused}
        desk.endpoint.invalid = {TEXTS[n] for n in mix.invalid}
        known = desk.cache.known([fingerprint(text) for text in TEXTS])
        believed: dict[tuple[str, str], list[Vector]] = {}
        places = []
        for n, scope, changed in mix.stored:
            places.append(desk.store(TEXTS[n], scope, planted=nth + 1, changed=changed))
        for place in places:
            one = desk.logs.stored[place]
            if one.of_its_text:
                believed.setdefault((one.scope, one.fingerprint), []).append(one.vector)
        bought = desk.endpoint.embedded.copy()

        resolution = desk.resolve(
            *(wanted(TEXTS[n], scope) for n, scope in mix.asked), places=places
        )

        assert len(resolution.results) == len(mix.asked)
        for (n, scope), one in zip(mix.asked, resolution.results, strict=True):
            text, name = TEXTS[n], fingerprint(TEXTS[n])
            if one.vector is None:
                assert one.source is None and name not in known
                assert (one.failure == "text_refused") == (n in mix.refused)
                assert n in mix.refused | mix.invalid
                continue
            assert (one.failure, one.reason) == ("", "")
            if not np.array_equal(one.vector, vector_of(text)):
                assert one.source is Source.REUSED
                assert among(one.vector, believed.get((scope, name), []))
            if one.source is Source.CACHED:
                assert name in known
        new = desk.endpoint.embedded - bought
        new.pop(HARMLESS_TEXT, None)
        assert all(count == 1 and fingerprint(text) not in known for text, count in new.items())
        assert new.keys() <= {TEXTS[n] for n, _ in mix.asked}
    assert desk.usage.paid_by.total() == desk.usage.counted["micro_usd"]
    assert desk.waits == []


def among(vector: Vector, others: Iterable[Vector]) -> bool:
    return any(np.array_equal(vector, other) for other in others)

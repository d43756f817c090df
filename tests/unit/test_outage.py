"""A server that does not answer holds up those who asked first, and nobody after them."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from enrich.api.outage import (
    AGAIN_SECONDS,
    MOST_TRIES,
    SLOW_SECONDS,
    Outage,
    StillAway,
    WatchedEmbedder,
    WatchedThreads,
)
from enrich.api.refusals import refusal_of
from enrich.embedding.client import Embedded
from enrich.embedding.in_memory import InMemoryEmbedder
from enrich.errors import EnrichError, Halt, RateLimited, ServerUnavailable

AWAY = "the server did not answer in time"


class World:
    """A clock that is set by hand, and a server whose requests take as long as is said."""

    def __init__(self) -> None:
        self.now = 100.0
        self.outage = Outage(clock=lambda: self.now)
        self.sent = 0

    def work(self, seconds: float = 0.0, error: EnrichError | None = None) -> None:
        """As a thread of the service does it: one request."""
        with self.outage.passed(), self.outage.asked():
            self.sent += 1
            self.now += seconds
            if error is not None:
                raise error

    def time_out(self, seconds: float = 30.0) -> None:
        with pytest.raises(ServerUnavailable, match=AWAY):
            self.work(seconds, ServerUnavailable(AWAY))

    def is_refused(self) -> bool:
        """Whether the next work is not begun."""
        before = self.sent
        try:
            self.work()
        except ServerUnavailable as error:
            assert str(error) == AWAY
        return self.sent == before


@pytest.fixture
def world() -> World:
    return World()


def test_after_a_request_in_vain_others_are_refused_until_one_tries(world: World) -> None:
    world.work()
    world.time_out()
    assert all(world.is_refused() for _ in range(20))
    world.now += 1.5
    with pytest.raises(StillAway) as told:
        world.work()
    assert refusal_of(told.value).headers == {"Retry-After": str(math.ceil(AGAIN_SECONDS - 1.5))}
    world.now += AGAIN_SECONDS - 1.5
    world.time_out()
    assert world.is_refused()
    world.now += AGAIN_SECONDS
    world.work()
    # It answers: all may ask.
    assert not any(world.is_refused() for _ in range(20))


@pytest.mark.parametrize("answer", [RateLimited("a pause", 1.0), Halt("the key was refused"), None])
def test_any_answer_ends_it(world: World, answer: EnrichError | None) -> None:
    world.time_out()
    world.now += AGAIN_SECONDS
    try:
        world.work(30.0, answer)
    except EnrichError as error:
        assert error is answer
    assert not world.is_refused()


def test_who_is_refused_at_once_is_always_asked(world: World) -> None:
    for _ in range(5):
        world.time_out(SLOW_SECONDS / 2)
    assert world.sent == 5
    assert not world.is_refused()


def test_a_slow_request_is_no_outage_where_others_are_answered(world: World) -> None:
    with pytest.raises(ServerUnavailable), world.outage.asked():
        world.now += 1
        with ThreadPoolExecutor(1) as other:
            other.submit(world.work, 1.0).result()
        world.now += 28
        raise ServerUnavailable(AWAY)
    assert not world.is_refused()


def test_the_same_work_asks_no_second_time(world: World) -> None:
    """As a batch that timed out, which asks whether the API works at all."""
    with world.outage.passed():
        for seconds in (30.0, 0.0):
            with pytest.raises(ServerUnavailable, match=AWAY), world.outage.asked():
                world.sent += 1
                world.now += seconds
                raise ServerUnavailable(AWAY)
    assert world.sent == 1


def test_few_try_at_a_time(world: World) -> None:
    world.time_out()
    may_end = threading.Event()

    def hang(began: threading.Event) -> None:
        with world.outage.passed(), world.outage.asked():
            began.set()
            assert may_end.wait(30)

    with ThreadPoolExecutor(MOST_TRIES) as threads:
        try:
            for _ in range(MOST_TRIES):
                world.now += AGAIN_SECONDS
                began = threading.Event()
                threads.submit(hang, began)
                assert began.wait(30)
                # The next comes only after a while.
                assert world.is_refused()
            world.now += AGAIN_SECONDS
            assert world.is_refused(), "as many as may are trying"
        finally:
            may_end.set()
    assert not world.is_refused()


def test_a_look_that_is_answered_lets_the_next_try(world: World) -> None:
    world.time_out()
    look = world.outage.looking(lambda: None)
    assert world.is_refused()
    look()
    world.time_out()
    # It answers a look and nothing else: all but the one are refused.
    assert world.is_refused()
    look()
    world.work()
    assert not world.is_refused()


def test_a_look_in_vain_is_enough(world: World) -> None:
    def look() -> None:
        world.now += 30
        raise ServerUnavailable(AWAY)

    with pytest.raises(ServerUnavailable):
        world.outage.looking(look)()
    assert world.is_refused()
    # A look is always taken.
    with pytest.raises(ServerUnavailable):
        world.outage.looking(look)()


def test_a_provider_that_answers_is_not_looked_at_each_time(world: World) -> None:
    looked: list[float] = []
    troubles: list[ServerUnavailable] = []

    def look() -> None:
        looked.append(world.now)
        for error in troubles:
            raise error

    looking = world.outage.looking(look, lasting_seconds=10.0)
    for world.now in (100.0, 105.0, 109.9, 110.0, 115.0):
        looking()
    assert looked == [100.0, 110.0]
    troubles.append(ServerUnavailable(AWAY))
    for world.now in (120.0, 121.0):
        with pytest.raises(ServerUnavailable):
            looking()
    troubles.clear()
    for world.now in (122.0, 123.0):
        looking()
    assert looked == [100.0, 110.0, 120.0, 121.0, 122.0]
    # What it answered lately is no answer once others wait in vain.
    world.time_out(2.0)
    looking()
    assert looked[-1] == 125.0


def test_those_that_wait_for_a_thread_are_told_when_the_first_are() -> None:
    now = [0.0]
    outage = Outage(clock=lambda: now[0])
    may_end, sent = threading.Event(), []

    def hang() -> None:
        sent.append(1)
        assert may_end.wait(30)
        now[0] += 30
        raise ServerUnavailable(AWAY)

    with WatchedThreads(2, "search", outage) as threads:
        waiting: list[Future[None]] = [threads.submit(hang) for _ in range(50)]
        may_end.set()
        assert {str(one.exception(30)) for one in waiting} == {AWAY}
    assert len(sent) <= 2


def test_an_embedder_is_not_asked_while_its_api_is_away() -> None:
    now = [0.0]
    outage = Outage(clock=lambda: now[0])

    def trouble(texts: Sequence[str]) -> EnrichError | None:
        now[0] += 30
        return ServerUnavailable(AWAY)

    api = InMemoryEmbedder(4, trouble)
    embedder = WatchedEmbedder(api, outage)

    def embed() -> Embedded:
        with outage.passed():
            return embedder.embed(["a text"])

    for _ in range(3):
        with pytest.raises(ServerUnavailable, match=AWAY):
            embed()
    assert len(api.requests) == 1
    now[0] += AGAIN_SECONDS
    api.trouble = lambda texts: None
    assert [len(one.vectors) for one in (embed(), embed())] == [1, 1]

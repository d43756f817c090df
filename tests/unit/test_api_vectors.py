"""Vectors for callers of the service, in memory: each input its own, and each text paid once."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from enrich.api.vectors import REMEMBERED_SECONDS, Answer, Saved, Vectors
from enrich.embedding.budget import Usage
from enrich.embedding.in_memory import InMemoryCache, InMemoryUsage, vector_of
from enrich.embedding.resolver import Resolution, Resolved, Source, TextRequest
from enrich.errors import RateLimited, TransientError
from enrich.text.extract import fingerprint
from enrich.vectors import Vector

DIMENSIONS = 8


class Resolver:
    """Plays the resolver: answers from the cache or buys, in any order and after any time."""

    def __init__(self, cache: InMemoryCache, seed: int = 0) -> None:
        self.cache = cache
        self.calls: list[list[str]] = []
        self.apart: list[list[str]] = []
        self.trouble: Exception | None = None
        #: Raised by the next calls, one each.
        self.troubles: list[Exception] = []
        self.refused: set[str] = set()
        self.may_end = threading.Event()
        self.may_end.set()
        self._lock = threading.Lock()

    def resolve(
        self, requests: Sequence[TextRequest], usage: Usage, *, owner: str, occasion: str
    ) -> Resolution:
        with self._lock:
            self.calls.append([o.text for o in requests if not self.cache.known([o.fingerprint])])
        assert self.may_end.wait(30)
        if self.troubles:
            raise self.troubles.pop()
        if self.trouble is not None:
            raise self.trouble
        results, paid = [], 0
        for one in requests:
            if one.text in self.refused:
                results.append(Resolved(failure="text_refused"))
                continue
            vector = vector_of(one.text, DIMENSIONS)
            if self.cache.known([one.fingerprint]):
                # Bought since this caller looked.
                results.append(Resolved(vector=vector, source=Source.CACHED))
                continue
            self.cache.put({one.fingerprint: vector})
            results.append(Resolved(vector=vector, source=Source.EMBEDDED))
            paid += 1
        return Resolution(results=results, paid={"api_tokens": 10 * paid, "micro_usd": 20 * paid})

    def embed_apart(
        self, requests: Sequence[TextRequest], usage: Usage, *, occasion: str
    ) -> Resolution:
        self.apart.append([one.text for one in requests])
        results = [
            Resolved(vector=vector_of(one.text, DIMENSIONS), source=Source.EMBEDDED)
            for one in requests
        ]
        return Resolution(results=results, paid={"api_tokens": 7})


class Desk:
    def __init__(self, window: float = 0.001, clock: Callable[[], float] = time.monotonic) -> None:
        self.cache = InMemoryCache()
        self.resolver = Resolver(self.cache)
        self.vectors = Vectors(
            self.resolver, self.cache, InMemoryUsage(), window_seconds=window, clock=clock
        )

    def run(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        async def whole() -> Any:
            try:
                return await asyncio.wait_for(work(), 60)
            finally:
                self.vectors.close()

        return asyncio.run(whole())


def is_right(text: str, resolved: Resolved) -> bool:
    return resolved.vector is not None and np.array_equal(
        resolved.vector, vector_of(text, DIMENSIONS)
    )


def test_mixed_batches_give_each_input_its_own_vector() -> None:
    # Some known, some new, some twice, some refused, many callers at once.
    desk = Desk()
    chance = random.Random(7)
    texts = [f"text {n}" for n in range(300)]
    desk.resolver.refused = set(texts[:10])
    rows = 0

    async def caller(number: int) -> int:
        mine = random.Random(number)
        wrong = 0
        for _ in range(20):
            asked = [mine.choice(texts) for _ in range(mine.randint(1, 40))]
            answer = await desk.vectors.of(asked, f"caller {number}")
            assert len(answer.results) == len(asked)
            for text, resolved in zip(asked, answer.results, strict=True):
                if text in desk.resolver.refused:
                    wrong += resolved.failure != "text_refused"
                else:
                    wrong += not is_right(text, resolved)
            nonlocal rows
            rows += len(asked)
            if chance.random() < 0.3:
                await asyncio.sleep(0)
        return wrong

    async def all_of_them() -> list[int]:
        return await asyncio.gather(*(caller(number) for number in range(30)))

    assert sum(desk.run(all_of_them)) == 0
    assert rows > 10_000
    bought = [text for call in desk.resolver.calls for text in call]
    good = [text for text in bought if text not in desk.resolver.refused]
    assert len(good) == len(set(good)) <= 290


def test_callers_within_the_window_share_one_request() -> None:
    desk = Desk(window=0.2)

    async def work() -> list[Answer]:
        return await asyncio.gather(
            *(desk.vectors.of([f"text {n}", "shared"], "me") for n in range(20))
        )

    answers = desk.run(work)
    assert len(desk.resolver.calls) == 1
    assert sorted(desk.resolver.calls[0]) == sorted(["shared", *(f"text {n}" for n in range(20))])
    assert sum(answer.saved.coalesced for answer in answers) == 19
    assert sum(answer.saved.paid for answer in answers) == 21
    assert sum(answer.saved.micro_usd for answer in answers) == pytest.approx(420, abs=21)


def test_a_text_on_its_way_is_awaited() -> None:
    desk = Desk(window=0)

    async def work() -> tuple[Answer, Answer]:
        desk.resolver.may_end.clear()
        first = asyncio.create_task(desk.vectors.of(["a"], "one"))
        while not desk.resolver.calls:
            await asyncio.sleep(0.001)
        second = asyncio.create_task(desk.vectors.of(["a"], "two"))
        await asyncio.sleep(0.01)
        desk.resolver.may_end.set()
        return await first, await second

    first, second = desk.run(work)
    assert desk.resolver.calls == [["a"]]
    assert (first.saved.paid, second.saved) == (1, Saved(coalesced=1))
    assert is_right("a", second.results[0])


def test_what_is_known_is_asked_for_nowhere() -> None:
    desk = Desk()

    async def work() -> Answer:
        await desk.vectors.of(["a"], "me")
        return await desk.vectors.of(["a", "a"], "me")

    answer = desk.run(work)
    assert answer.saved == Saved(cached=1, duplicates=1)
    assert desk.resolver.calls == [["a"]]


def test_what_is_asked_for_often_is_fetched_once_a_minute() -> None:
    seconds = [0.0]
    desk = Desk(clock=lambda: seconds[0])
    texts = ["one", "two"]
    desk.cache.put({fingerprint(text): vector_of(text, DIMENSIONS) for text in texts})
    fetched: list[int] = []
    get = desk.cache.get
    desk.cache.get = lambda names: (fetched.append(len(names)), get(names))[1]  # type: ignore[method-assign]

    async def work() -> None:
        for asked, seen in (("one",), [1]), (("one", "two"), [1, 1]), (("two", "one"), [1, 1]):
            answer = await desk.vectors.of(asked, "caller")
            assert all(is_right(*pair) for pair in zip(asked, answer.results, strict=True))
            assert answer.saved == Saved(cached=len(asked))
            assert fetched == seen
        seconds[0] = REMEMBERED_SECONDS + 1
        # The cache was emptied meanwhile: it is the one to be believed.
        desk.cache.get = lambda names: {}  # type: ignore[method-assign]
        desk.cache.known = lambda names: set()  # type: ignore[method-assign]
        assert (await desk.vectors.of(["one"], "caller")).saved.paid == 1

    desk.run(work)


def test_a_failure_reaches_all_who_wait_and_none_after_them() -> None:
    desk = Desk(window=0.05)
    desk.resolver.trouble = TransientError("the API is away")

    async def work() -> Any:
        failed = await asyncio.gather(
            *(desk.vectors.of(["a", "b"], "me") for _ in range(3)), return_exceptions=True
        )
        desk.resolver.trouble = None
        return failed, await desk.vectors.of(["a"], "me")

    failed, after = desk.run(work)
    assert [type(one) for one in failed] == [TransientError] * 3
    assert is_right("a", after.results[0])


def test_what_is_known_has_its_vector_beside_what_cannot_be_asked_for() -> None:
    desk = Desk()
    away = TransientError("the API is away")

    async def work() -> Answer:
        await desk.vectors.of(["known"], "me")
        desk.resolver.trouble = away
        with pytest.raises(TransientError):
            await desk.vectors.of(["new", "known"], "me")
        return await desk.vectors.each(["new", "known", "new", "other"], "me")

    answer = desk.run(work)
    assert answer.errors == {0: away, 2: away, 3: away}
    assert is_right("known", answer.results[1])
    assert [one.vector is None for one in answer.results] == [True, False, True, True]
    assert answer.saved == Saved(cached=1, duplicates=1)


def test_what_is_not_to_be_kept_is_neither_kept_nor_taken() -> None:
    desk = Desk()

    async def work() -> list[Answer]:
        first = await desk.vectors.of(["a", "b", "a"], "me", store=False)
        await desk.vectors.of(["c"], "me")
        return [first, await desk.vectors.of(["c"], "me", store=False)]

    first, second = desk.run(work)
    assert desk.resolver.apart == [["a", "b"], ["c"]]
    assert [is_right(text, one) for text, one in zip("aba", first.results, strict=True)] == [
        True, True, True,
    ]  # fmt: skip
    assert first.saved == Saved(duplicates=1, paid=2, tokens=7)
    assert second.saved.cached == 0
    assert desk.resolver.calls == [["c"]]


def test_who_goes_away_takes_nothing_from_those_who_wait() -> None:
    desk = Desk(window=0.02)

    async def work() -> Answer:
        gone = asyncio.create_task(desk.vectors.of(["a"], "gone"))
        stays = asyncio.create_task(desk.vectors.of(["a"], "stays"))
        await asyncio.sleep(0.005)
        gone.cancel()
        return await stays

    assert is_right("a", desk.run(work).results[0])


def test_a_cache_that_is_away_fails_those_who_look_and_no_others() -> None:
    desk = Desk()
    get = desk.cache.get

    def away(fingerprints: Sequence[str]) -> Mapping[str, Vector]:
        raise TransientError("Redis is away")

    async def work() -> Answer:
        desk.cache.get = away  # type: ignore[method-assign]
        with pytest.raises(TransientError):
            await desk.vectors.of(["a"], "me")
        desk.cache.get = get  # type: ignore[method-assign]
        return await desk.vectors.of(["a"], "me")

    assert is_right("a", desk.run(work).results[0])


def test_a_short_pause_of_the_api_is_waited_for() -> None:
    desk = Desk()
    desk.resolver.troubles = [RateLimited("a pause", 0.001), RateLimited("a pause", 0.002)]
    answer = desk.run(lambda: desk.vectors.of(["a"], "p"))
    assert is_right("a", answer.results[0])
    assert desk.resolver.calls == [["a"]] * 3


def test_a_long_pause_of_the_api_is_told() -> None:
    desk = Desk()
    desk.resolver.trouble = RateLimited("a pause", 60)
    with pytest.raises(RateLimited) as told:
        desk.run(lambda: desk.vectors.of(["a"], "p"))
    assert told.value.pause == 60
    assert desk.resolver.calls == [["a"]]

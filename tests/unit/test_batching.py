"""Batching the API: requests within limits, culprits narrowed down, every request counted."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.embedding.batching import (
    HARMLESS_TEXT,
    MAX_REQUEST_BYTES,
    Batching,
    Caller,
    Results,
    half_of_bytes,
    requests_of,
)
from enrich.embedding.client import Embedded
from enrich.errors import (
    EnrichError,
    Halt,
    InputRefused,
    RateLimited,
    RequestTooLarge,
    ServerUnavailable,
    TransientError,
)
from enrich.ratelimit.api_quota import Limits
from enrich.ratelimit.gcra import MAX_WAIT_SECONDS
from enrich.settings import MAX_INPUTS_PER_REQUEST
from enrich.text.extract import cut, fingerprint
from enrich.vectors import Vector

REPEATABLE = settings(deadline=None, max_examples=120, derandomize=True)


def vector_of(text: str) -> Vector:
    """A vector made from the words, so that a wrong one is told from a right one."""
    seed = hashlib.sha256(text.encode()).digest()[:8]
    return np.frombuffer(seed, np.uint8).astype(np.float32) + 1


Trouble = Callable[[Sequence[str]], EnrichError | None]


class WordEmbedder:
    """Embeds in memory; `trouble` says which requests fail."""

    def __init__(self, trouble: Trouble = lambda texts: None) -> None:
        self.trouble = trouble
        self.requests: list[list[str]] = []
        self.tokens: int | None = None
        self.invalid: set[str] = set()

    def embed(self, texts: Sequence[str]) -> Embedded:
        self.requests.append(list(texts))
        error = self.trouble(texts)
        if error is not None:
            raise error
        return Embedded(
            vectors=[None if text in self.invalid else vector_of(text) for text in texts],
            tokens=sum(len(t.split()) for t in texts) if self.tokens is None else self.tokens,
            limits=Limits(requests=60, tokens=1000),
        )


class Budget:
    """A budget that always has a turn."""

    def __init__(self) -> None:
        self.turns: list[int] = []
        #: How long each turn is waited for.
        self.seconds = 0.0
        self.limit = 0, 0
        self.room = math.inf
        self.pauses: list[float] = []
        self.learned: list[Limits] = []
        self.corrections: list[tuple[int, int]] = []

    def acquire(self, tokens: int, timeout: float = MAX_WAIT_SECONDS) -> float:
        self.turns.append(tokens)
        if self.seconds > timeout:
            raise RateLimited("no permit", self.seconds)
        return self.seconds

    def limits(self) -> tuple[int, int]:
        return self.limit

    def room_seconds(self) -> float:
        return self.room

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def learn(self, limits: Limits) -> None:
        self.learned.append(limits)

    def correct(self, tokens: int, billed: int) -> None:
        self.corrections.append((tokens, billed))


class Desk:
    """A `Batching` with all that it works with."""

    def __init__(self, trouble: Trouble = lambda texts: None) -> None:
        self.embedder = WordEmbedder(trouble)
        self.budget = Budget()
        self.counted: Counter[str] = Counter()
        self.kept: list[dict[str, Vector]] = []
        self.batching = Batching(self.embedder, self.budget)
        self.caller = Caller(occasion="run", meter=self)

    def count(self, **amounts: int) -> None:
        self.counted.update(amounts)

    def ask(self, texts: Sequence[str]) -> Results:
        return self.batching.embed(
            {fingerprint(t): t for t in texts}, self.caller, self.kept.append
        )

    @property
    def kept_fingerprints(self) -> list[str]:
        return [name for request in self.kept for name in request]


def texts_of(count: int, size: int = 0) -> list[str]:
    return [f"error number {n} " + "x" * size for n in range(count)]


def refuse(culprits: set[str]) -> Trouble:
    def trouble(texts: Sequence[str]) -> EnrichError | None:
        return InputRefused("refused (400)") if culprits & set(texts) else None

    return trouble


def assert_right(answers: Results, texts: Sequence[str]) -> None:
    assert answers.vectors.keys() == {fingerprint(text) for text in texts}
    for text in texts:
        assert np.array_equal(answers.vectors[fingerprint(text)], vector_of(text))


def test_one_request_gives_each_text_its_own_vector() -> None:
    desk = Desk()
    texts = texts_of(100)
    assert_right(desk.ask(texts), texts)
    assert desk.counted == {"api_requests": 1, "api_inputs": 100, "api_tokens": 300}
    assert len(desk.budget.turns) == len(desk.kept) == 1
    assert desk.budget.learned == [Limits(requests=60, tokens=1000)]


def test_no_text_no_request() -> None:
    desk = Desk()
    assert desk.ask([]).vectors == {}
    assert not desk.embedder.requests
    assert not desk.counted


@REPEATABLE
@given(st.integers(2, 300), st.randoms(use_true_random=False))
def test_one_culprit_costs_twice_the_logarithm(count: int, random: Any) -> None:
    texts = texts_of(count)
    culprit = random.choice(texts)
    desk = Desk(refuse({culprit}))
    answers = desk.ask(texts)
    assert answers.refused == {fingerprint(culprit): "text_refused"}
    assert_right(answers, [text for text in texts if text != culprit])
    # Beyond the one that is sent anyway: two halves a level, and the harmless text before the mark.
    extra = len(desk.embedder.requests) - 1
    assert extra <= 2 * math.ceil(math.log2(count)) + 1
    # No text that has its vector is paid for again.
    assert desk.counted["api_inputs"] == count - 1 + 1
    assert desk.counted["api_requests"] == len(desk.embedder.requests)


@REPEATABLE
@given(st.integers(1, 60), st.data())
def test_any_culprits_fail_and_all_others_succeed(count: int, data: st.DataObject) -> None:
    texts = texts_of(count)
    culprits = set(data.draw(st.lists(st.sampled_from(texts), max_size=5)))
    desk = Desk(refuse(culprits))
    answers = desk.ask(texts)
    assert answers.refused.keys() == {fingerprint(text) for text in culprits}
    assert_right(answers, [text for text in texts if text not in culprits])
    assert sorted(desk.kept_fingerprints) == sorted(answers.vectors)


def test_nothing_is_marked_before_a_harmless_text_went_through() -> None:
    desk = Desk(refuse({"poison"}))
    answers = desk.ask(["poison"])
    assert answers.refused == {fingerprint("poison"): "text_refused"}
    assert desk.embedder.requests == [["poison"], [HARMLESS_TEXT]]
    assert desk.counted["api_requests"] == 2


@pytest.mark.parametrize("count", [1, 2, 7, 256])
@pytest.mark.parametrize("kind", [InputRefused, RequestTooLarge])
def test_endpoint_that_refuses_everything_halts_and_marks_nothing(
    count: int, kind: type[EnrichError]
) -> None:
    desk = Desk(lambda texts: kind("refused (400)"))
    with pytest.raises(Halt, match="even a harmless text: check EMBEDDING_MODEL"):
        desk.ask(texts_of(count))
    assert desk.embedder.requests[-1] == [HARMLESS_TEXT]
    # Down to two neighbours, and no further.
    assert len(desk.embedder.requests) <= 5 + math.ceil(math.log2(count))


@pytest.mark.parametrize(
    ("requests", "tokens", "most"),
    [(0, 0, 600_000), (0, 1_000_000, 600_000), (0, 60_000, 40_000), (3, 60_000, 80_000),
     (0, 60, 40)],
)  # fmt: skip
def test_a_request_takes_some_seconds_of_the_token_limit(
    requests: int, tokens: int, most: int
) -> None:
    desk = Desk()
    desk.budget.limit = requests, tokens
    texts = texts_of(300, 8_000)
    desk.ask(texts)
    sizes = [sum(map(len, request)) for request in desk.embedder.requests]
    longest = max(map(len, texts))
    assert all(most - longest < size <= max(most, longest) for size in sizes[:-1])


@pytest.mark.parametrize(
    ("tokens", "room", "most"),
    # Two thirds of the room's worth, of four bytes a token; never more than without it.
    [(60_000, 3.0, 8_000), (60_000, 0.5, 1_332), (60_000, 100.0, 40_000), (60, 0.5, 4)],
)
def test_requests_are_smaller_while_others_go_first(tokens: int, room: float, most: int) -> None:
    desk = Desk()
    desk.budget.limit = 0, tokens
    desk.budget.room = room
    texts = texts_of(60, 700)
    desk.ask(texts)
    assert {text for request in desk.embedder.requests for text in request} == set(texts)
    longest = max(map(len, texts))
    sizes = [sum(map(len, request)) for request in desk.embedder.requests]
    assert all(most - longest < size <= max(most, longest) for size in sizes[:-1])


def test_tokens_are_estimated_where_the_endpoint_does_not_tell() -> None:
    desk = Desk()
    desk.embedder.tokens = 0
    desk.ask(["x" * 40, "y" * 40])
    assert desk.counted["api_tokens"] == 22
    assert desk.budget.corrections == [(22, 22)]


def test_trouble_while_probing_is_not_held_against_the_text() -> None:
    def trouble(texts: Sequence[str]) -> EnrichError:
        down = TransientError("in trouble (503)")
        return down if list(texts) == [HARMLESS_TEXT] else InputRefused("refused (400)")

    with pytest.raises(TransientError):
        Desk(trouble).ask(["poison"])


def test_probe_is_one_input_and_counted() -> None:
    desk = Desk()
    desk.batching.probe(desk.caller)
    assert desk.embedder.requests == [[HARMLESS_TEXT]]
    assert desk.counted == {"api_requests": 1, "api_inputs": 1, "api_tokens": 2}


@REPEATABLE
@given(st.lists(st.integers(0, 900), min_size=1, max_size=40), st.integers(400, 2000))
def test_too_large_is_split_until_it_fits(sizes: list[int], limit: int) -> None:
    def trouble(texts: Sequence[str]) -> EnrichError | None:
        size = sum(len(text) for text in texts)
        return RequestTooLarge("too large (413)") if size > limit else None

    texts = [f"{n} " + "x" * size for n, size in enumerate(sizes)]
    desk = Desk(trouble)
    answers = desk.ask(texts)
    assert answers.refused == {}
    assert answers.vectors.keys() == {fingerprint(text) for text in texts}
    sent = {text for request in desk.embedder.requests for text in request}
    for text in texts:
        # One that is too large by itself is cut until it fits.
        fitting = (
            [cut(text, size) for size in range(limit, 15, -1)] if len(text) > limit else [text]
        )
        vectors = [vector_of(each) for each in fitting if each in sent]
        assert any(np.array_equal(answers.vectors[fingerprint(text)], each) for each in vectors)


def test_too_large_is_split_by_size_not_by_number() -> None:
    texts = ["x" * 1000, *texts_of(9)]
    desk = Desk(lambda t: RequestTooLarge("too large (413)") if len(t) == 10 else None)
    assert_right(desk.ask(texts), texts)
    assert [len(request) for request in desk.embedder.requests] == [10, 1, 9]


@pytest.mark.parametrize(
    "error",
    [
        TransientError("in trouble (500)"),
        TransientError("in trouble (503)"),
        ServerUnavailable("did not answer in time"),
        RateLimited("asks for a pause (429)", 3.0),
        Halt("refused the key (401)"),
    ],
)
def test_nothing_is_split_for_trouble_that_is_not_the_texts(error: EnrichError) -> None:
    desk = Desk(lambda texts: error)
    with pytest.raises(type(error), match=str(error).replace("(", r"\(").replace(")", r"\)")):
        desk.ask(texts_of(64))
    assert [len(request) for request in desk.embedder.requests] == [64]
    assert desk.counted["api_requests"] == 1
    assert desk.counted["api_inputs"] == 0
    assert desk.kept == []


def test_how_many_inputs_an_endpoint_takes_is_learned_once() -> None:
    desk = Desk(lambda texts: InputRefused("too many inputs") if len(texts) > 10 else None)
    texts = texts_of(100)
    assert_right(desk.ask(texts), texts)
    assert len(desk.embedder.requests) == 31
    assert_right(desk.ask(texts), texts)
    assert max(map(len, desk.embedder.requests[31:])) == 7
    assert len(desk.embedder.requests) == 31 + 15


def test_a_culprit_does_not_make_requests_smaller() -> None:
    texts = texts_of(64)
    desk = Desk(refuse({texts[5]}))
    desk.ask(texts)
    before = len(desk.embedder.requests)
    desk.ask(texts[6:])
    assert len(desk.embedder.requests) == before + 1


@pytest.mark.parametrize(("asked", "held"), [(3.0, 3.0), (0.0, 0.0), (400.0, 400.0)])
def test_pause_asked_for_holds_everybody(asked: float, held: float) -> None:
    desk = Desk(lambda texts: RateLimited("asks for a pause (429)", asked))
    with pytest.raises(RateLimited) as limited:
        desk.ask(["boom"])
    assert desk.budget.pauses == [held]
    assert limited.value.retry_after == held
    assert desk.counted["rate_limited"] == 1


def test_pause_without_a_length_still_holds_everybody() -> None:
    desk = Desk(lambda texts: RateLimited("asks for a pause (429)"))
    with pytest.raises(RateLimited) as limited:
        desk.ask(["boom"])
    assert limited.value.retry_after == desk.budget.pauses[0] > 0


def test_no_turn_no_request() -> None:
    desk = Desk()

    desk.budget.seconds = 11.0
    with pytest.raises(RateLimited):
        desk.ask(["boom"])
    assert not desk.embedder.requests
    assert not desk.counted


def test_turns_of_one_task_are_waited_for_no_longer_than_one_alone() -> None:
    texts = texts_of(400, size=8_000)
    desk = Desk()
    desk.budget.seconds = 0.4 * MAX_WAIT_SECONDS
    with pytest.raises(RateLimited):
        desk.ask(texts)
    assert len(desk.embedder.requests) == len(desk.kept) == 2
    assert len(desk.budget.turns) == 3


@pytest.mark.parametrize("error", [TransientError("500"), RateLimited("429"), Halt("401")])
def test_what_was_paid_for_is_kept_before_a_later_request_fails(error: EnrichError) -> None:
    texts = texts_of(200, size=8_000)
    desk = Desk(lambda sent: error if texts[-1] in sent else None)
    with pytest.raises(type(error)):
        desk.ask(texts)
    assert len(desk.embedder.requests) == len(desk.kept) + 1 > 1
    assert len(desk.kept_fingerprints) == desk.counted["api_inputs"] > 0


def test_numbers_that_are_no_vector_are_neither_kept_nor_held_against_the_text() -> None:
    desk = Desk()
    texts = texts_of(5)
    desk.embedder.invalid = {texts[2]}
    answers = desk.ask(texts)
    assert answers.invalid == {fingerprint(texts[2])}
    assert answers.refused == {}
    assert_right(answers, [*texts[:2], *texts[3:]])
    assert fingerprint(texts[2]) not in desk.kept_fingerprints
    assert desk.counted["errors"] == 1
    assert desk.counted["api_inputs"] == 5


@REPEATABLE
@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 100))
def test_requests_hold_the_limit_and_the_order(sizes: list[int], limit: int) -> None:
    texts = [(str(n), "é" * size) for n, size in enumerate(sizes)]
    requests = requests_of(texts, limit)
    assert [text for request in requests for text in request] == texts
    for request in requests:
        assert request
        assert len(request) == 1 or sum(len(t.encode()) for _, t in request) <= limit


def test_request_holds_no_more_inputs_than_any_provider_takes() -> None:
    texts = [(str(n), "x") for n in range(2 * MAX_INPUTS_PER_REQUEST + 1)]
    assert [len(request) for request in requests_of(texts, MAX_REQUEST_BYTES)] == [
        MAX_INPUTS_PER_REQUEST, MAX_INPUTS_PER_REQUEST, 1,
    ]  # fmt: skip


@REPEATABLE
@given(st.lists(st.integers(0, 1000), min_size=2, max_size=50))
def test_neither_half_is_empty_and_both_are_lighter(sizes: list[int]) -> None:
    batch = [(str(n), "x" * size) for n, size in enumerate(sizes)]
    middle = half_of_bytes(batch)
    assert 0 < middle < len(batch)
    largest = max(sizes)
    for half in (sizes[:middle], sizes[middle:]):
        assert sum(half) <= sum(sizes) / 2 + largest

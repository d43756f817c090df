"""What a refusal means is shown by what goes through: any endpoint, any texts, any way of failing.

The endpoint is a model in memory: some texts it cannot take, some sizes neither, and it may turn to
refuse everything at any request.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.embedding.batching import (
    CONFIRMATIONS,
    HARMLESS_TEXT,
    PASSING,
    Batching,
    Caller,
    Results,
)
from enrich.embedding.client import Embedded
from enrich.embedding.in_memory import InMemoryQuota, InMemoryUsage
from enrich.embedding.limits import EndpointLimits, OwnLimits
from enrich.errors import (
    EnrichError,
    Halt,
    InputRefused,
    RequestTooLarge,
    ServerUnavailable,
    TransientError,
)
from enrich.text.extract import fingerprint
from enrich.vectors import Vector
from tests.unit.test_batching import vector_of

REPEATABLE = settings(deadline=None, max_examples=200, derandomize=True)

#: As the embedder raises them, by what it names the way.
KINDS: dict[str, type[EnrichError]] = {
    "400": InputRefused,
    "422": InputRefused,
    "403": Halt,
    "404": Halt,
    "413": RequestTooLarge,
    "200": TransientError,
    "408": TransientError,
    "424": TransientError,
    "500": TransientError,
    "503": TransientError,
    "answer": TransientError,
    "cut": ServerUnavailable,
}
WAYS = sorted(KINDS)
#: In which a request may fail for another reason than its text.
CAN_PASS = PASSING | {"200", "500"}


def failure(way: str) -> EnrichError:
    error = KINDS[way](f"as of {way}")
    error.failed_as = way
    return error


@dataclass
class Endpoint:
    """Fails as told; knows what it answered."""

    #: Texts that it cannot take, and how it fails for them.
    culprits: dict[str, str] = field(default_factory=dict)
    most_inputs: int = 10_000
    most_text: int = 10_000
    most_request: int = 10_000_000
    #: How it fails for what is too much.
    way: str = "413"
    #: From this request on everything fails, in this way.
    turns_after: int | None = None
    turns_to: str = "400"
    requests: list[tuple[list[str], bool]] = field(default_factory=list)

    def embed(self, texts: Sequence[str]) -> Embedded:
        error = self._fails(texts)
        self.requests.append((list(texts), error is None))
        if error is not None:
            raise error
        return Embedded(vectors=[vector_of(text) for text in texts], tokens=len(texts))

    def _fails(self, texts: Sequence[str]) -> EnrichError | None:
        if self.turns_after is not None and len(self.requests) >= self.turns_after:
            return failure(self.turns_to)
        sizes = [len(text.encode()) for text in texts]
        if len(texts) > self.most_inputs or sum(sizes) > self.most_request:
            return failure(self.way)
        if max(sizes) > self.most_text:
            return failure("413")
        ways = [self.culprits[text] for text in texts if text in self.culprits]
        return failure(ways[0]) if ways else None

    def close(self) -> None: ...


def batching_of(endpoint: Endpoint, limits: OwnLimits | None = None) -> Batching:
    return Batching(endpoint, InMemoryQuota(), limits)


def ask(batching: Batching, texts: Sequence[str], run: str = "run") -> Results:
    caller = Caller(occasion=run, meter=InMemoryUsage())
    wanted = {fingerprint(text): text for text in texts}
    return batching.embed(wanted, caller, lambda vectors: None)


def texts_of(count: int, size: int = 0) -> list[str]:
    return [f"error number {n} " + "x" * size for n in range(count)]


def is_of(vector: Vector, text: str) -> bool:
    return bool(np.array_equal(vector, vector_of(text)))


def harmless_was_taken_after(endpoint: Endpoint, text: str) -> bool:
    """Whether the harmless text went through after this one was refused by itself."""
    last = max(n for n, (sent, _) in enumerate(endpoint.requests) if sent == [text])
    return any(sent == [HARMLESS_TEXT] and taken for sent, taken in endpoint.requests[last:])


@pytest.mark.long
@REPEATABLE
@given(st.integers(1, 300), st.data())
def test_each_text_ends_with_its_vector_or_its_own_reason(count: int, data: st.DataObject) -> None:
    texts = texts_of(count)
    culprits = data.draw(
        st.dictionaries(st.sampled_from(texts), st.sampled_from(WAYS), max_size=4), label="culprits"
    )
    # Of those that are too large, the ones that no cut helps.
    endpoint = Endpoint({t: "400" if way == "413" else way for t, way in culprits.items()})

    batching = batching_of(endpoint)
    answers = ask(batching, texts)

    assert {*answers.vectors, *answers.refused, *answers.invalid} == set(map(fingerprint, texts))
    for text in texts:
        name = fingerprint(text)
        if text not in culprits:
            assert is_of(answers.vectors[name], text), "a neighbour has its vector"
        elif endpoint.culprits[text] in CAN_PASS:
            assert name in answers.invalid
            assert "fails for these texts alone" in answers.reasons[name]
        else:
            assert answers.refused[name] == "text_refused"
            assert harmless_was_taken_after(endpoint, text)
    levels = math.ceil(math.log2(count)) if count > 1 else 0
    assert len(endpoint.requests) - 1 <= len(culprits) * (2 * levels + 2)

    # The next run has those that were deferred. It says so at the second time only.
    left = [text for text in texts if fingerprint(text) in answers.invalid]
    for _ in range(2):
        endpoint.requests.clear()
        later = ask(batching, left, "later")
        assert later.refused == dict.fromkeys(map(fingerprint, left), "text_refused")
        assert all(harmless_was_taken_after(endpoint, text) for text in left)
        most = len(left) * (2 * (2 + 1) + 2 + 2 * CONFIRMATIONS)
        assert len(endpoint.requests) - 1 <= most


@REPEATABLE
@given(
    st.integers(1, 120),
    st.data(),
    st.integers(0, 25),
    st.sampled_from(WAYS),
    st.sampled_from([1, 8, 32, 1000]),
)
def test_nothing_is_marked_once_the_endpoint_refuses_everything(
    count: int, data: st.DataObject, turns_after: int, turns_to: str, most_inputs: int
) -> None:
    texts = texts_of(count)
    culprits = data.draw(
        st.dictionaries(st.sampled_from(texts), st.sampled_from(WAYS), max_size=3), label="culprits"
    )
    endpoint = Endpoint(
        culprits, most_inputs, way="400", turns_after=turns_after, turns_to=turns_to
    )
    try:
        answers = ask(batching_of(endpoint), texts)
    except (Halt, TransientError):
        return
    # It was done with all of them before.
    assert len(endpoint.requests) <= turns_after
    assert answers.refused.keys() <= {fingerprint(text) for text in culprits}
    assert answers.vectors.keys() >= {fingerprint(t) for t in texts if t not in culprits}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("count", [1, 2, 256])
def test_an_endpoint_that_fails_for_all_is_asked_little(way: str, count: int) -> None:
    endpoint = Endpoint(turns_after=0, turns_to=way)
    with pytest.raises((Halt, TransientError)) as raised:
        ask(batching_of(endpoint), texts_of(count))
    by_text = issubclass(KINDS[way], InputRefused)
    assert len(endpoint.requests) <= (10 + 2 if by_text else 3)
    assert endpoint.requests[-1][0] == [HARMLESS_TEXT]
    assert isinstance(raised.value, Halt) == (by_text or KINDS[way] is Halt)


# -- ways of failing that can pass


def test_a_run_that_is_tried_again_is_no_later_one() -> None:
    (text,) = texts_of(1)
    batching = batching_of(Endpoint({text: "500"}))
    for _ in range(5):
        assert ask(batching, [text]).refused == {}
    assert ask(batching, [text], "later").refused == {fingerprint(text): "text_refused"}


@pytest.mark.parametrize(("first", "then"), [("500", "cut"), ("cut", "503"), ("200", "500")])
def test_another_way_of_failing_begins_anew(first: str, then: str) -> None:
    (text,) = texts_of(1)
    endpoint = Endpoint({text: first})
    batching = batching_of(endpoint)
    ask(batching, [text], "1")
    endpoint.culprits[text] = then
    assert ask(batching, [text], "2").refused == {}
    assert ask(batching, [text], "3").refused == {fingerprint(text): "text_refused"}


def test_a_text_that_went_through_in_between_begins_anew() -> None:
    (text,) = texts_of(1)
    endpoint = Endpoint({text: "500"})
    batching = batching_of(endpoint)
    ask(batching, [text], "1")
    endpoint.culprits.clear()
    assert len(ask(batching, [text], "2").vectors) == 1
    endpoint.culprits[text] = "500"
    assert ask(batching, [text], "3").refused == {}


def test_a_text_that_goes_through_when_it_is_tried_once_more_has_its_vector() -> None:
    (text,) = texts_of(1)

    class Recovers(Endpoint):
        def _fails(self, texts: Sequence[str]) -> EnrichError | None:
            return super()._fails(texts) if sum(t == [text] for t, _ in self.requests) < 4 else None

    endpoint = Recovers({text: "500"})
    batching = batching_of(endpoint)
    ask(batching, [text], "1")
    answers = ask(batching, [text], "2")
    assert is_of(answers.vectors[fingerprint(text)], text)
    assert not answers.refused and not answers.invalid


@pytest.mark.parametrize("odds", [0.1, 0.3])
def test_a_server_that_fails_at_random_marks_no_healthy_text(odds: float) -> None:
    """In chunks of one and of two texts, where a failure is soon one text's own."""
    chance = random.Random(4)

    class Random(Endpoint):
        def _fails(self, texts: Sequence[str]) -> EnrichError | None:
            return failure("500") if chance.random() < odds else None

    batching = batching_of(Random())
    left = texts_of(1_500)
    deferred = 0
    for run in range(4):
        invalid = []
        for n in range(0, len(left), 1 + run % 2):
            chunk = left[n : n + 1 + run % 2]
            try:
                answers = ask(batching, chunk, str(run))
            except TransientError:
                invalid += chunk
                continue
            assert answers.refused == {}
            invalid += [text for text in chunk if fingerprint(text) in answers.invalid]
            deferred += len(answers.invalid)
        left = invalid
    assert deferred > 10


# -- what is learned


@pytest.mark.parametrize("way", ["400", "413", "500", "424", "200"])
def test_how_many_inputs_an_endpoint_takes_is_learned_whatever_its_status(way: str) -> None:
    """And then nothing is refused any more."""
    limits = OwnLimits()
    endpoint = Endpoint(most_inputs=32, way=way)
    batching = batching_of(endpoint, limits)
    for n in range(3):
        answers = ask(batching, [f"{n} {text}" for text in texts_of(256)])
        assert len(answers.vectors) == 256
    assert 16 <= limits.read().inputs <= 32
    endpoint.requests.clear()
    # Another worker of the same deployment.
    assert len(ask(batching_of(endpoint, limits), texts_of(300)).vectors) == 300
    assert all(taken for _, taken in endpoint.requests)


def test_one_failure_by_chance_teaches_nothing() -> None:
    class Once(Endpoint):
        def _fails(self, texts: Sequence[str]) -> EnrichError | None:
            return failure("500") if len(self.requests) == 0 else None

    limits = OwnLimits()
    endpoint = Once()
    batching = batching_of(endpoint, limits)
    for n in range(3):
        assert len(ask(batching, [f"{n} {text}" for text in texts_of(64)]).vectors) == 64
    assert limits.read() == EndpointLimits()
    assert [len(sent) for sent, _ in endpoint.requests] == [64, 1, 32, 32, 64, 64]


def test_how_many_bytes_a_request_may_have_is_learned() -> None:
    limits = OwnLimits()
    endpoint = Endpoint(most_request=100_000)
    batching = batching_of(endpoint, limits)
    # That many inputs go through when they are short.
    ask(batching, texts_of(256))
    answers = ask(batching, texts_of(256, 1_000))
    assert len(answers.vectors) == 256
    assert limits.read().inputs == 0
    assert 40_000 <= limits.read().request_bytes <= 100_000
    endpoint.requests.clear()
    assert len(ask(batching, texts_of(300, 1_001)).vectors) == 300
    assert all(taken for _, taken in endpoint.requests)


@pytest.mark.long
@REPEATABLE
@given(st.integers(200, 7_000), st.integers(1, 40), st.integers(1, 5))
def test_what_the_model_is_too_small_for_is_cut_and_not_failed(
    most_text: int, short: int, long: int
) -> None:
    limits = OwnLimits()
    endpoint = Endpoint(most_text=most_text)
    texts = [*texts_of(short), *(f"trace {n} " + "y" * 7_980 for n in range(long))]

    answers = ask(batching_of(endpoint, limits), texts)

    assert answers.vectors.keys() == {fingerprint(text) for text in texts}
    assert not answers.refused
    for text in texts[:short]:
        assert is_of(answers.vectors[fingerprint(text)], text), "a short one is not cut"
    sent = {text for batch, taken in endpoint.requests if taken for text in batch}
    for text in texts[short:]:
        mine = [each for each in sent if each.startswith(text.split("y")[0])]
        assert any(is_of(answers.vectors[fingerprint(text)], each) for each in mine)
    learned = limits.read().text_bytes
    # At least the quarter of it is left that the model takes, and never nearly nothing.
    assert max(500, most_text // 4) <= learned <= max(500, most_text)
    # Others are not cut in vain: within the limit, nothing is.
    endpoint.requests.clear()
    if most_text >= 500:
        more = [f"other {n} " + "z" * 7_980 for n in range(3)]
        assert len(ask(batching_of(endpoint, limits), more).vectors) == 3
        assert [taken for _, taken in endpoint.requests] == [True]


def test_a_text_is_cut_to_what_the_refusal_tells() -> None:
    endpoint = Endpoint(most_text=4_000)

    class Told(Endpoint):
        def _fails(self, texts: Sequence[str]) -> EnrichError | None:
            error = endpoint._fails(texts)
            if isinstance(error, RequestTooLarge):
                error.fits = 4_000 / max(map(len, texts))
            return error

    told = Told()
    text = "trace " + "y" * 7_900
    answers = ask(batching_of(told), [text])
    assert len(answers.vectors) == 1
    assert [len(sent[0]) > 3_500 for sent, _ in told.requests] == [True, True]


def test_a_text_that_no_cut_helps_is_refused_as_too_large() -> None:
    class Nothing(Endpoint):
        def _fails(self, texts: Sequence[str]) -> EnrichError | None:
            return None if HARMLESS_TEXT in texts else failure("413")

    endpoint = Nothing()
    text = "z" * 8_000
    limits = OwnLimits()
    answers = ask(batching_of(endpoint, limits), [text])
    assert answers.refused == {fingerprint(text): "text_too_large"}
    assert limits.read() == EndpointLimits()
    assert endpoint.requests[-1] == ([HARMLESS_TEXT], True)


def test_one_planted_text_does_not_shorten_all_others_to_nothing() -> None:
    limits = OwnLimits()
    ask(batching_of(Endpoint(most_text=70), limits), ["\N{SKULL}" * 1_000])
    assert limits.read().text_bytes >= 500


def test_a_text_the_endpoint_hangs_for_costs_few_time_outs_and_its_neighbours_nothing() -> None:
    class Hangs(Endpoint):
        def _fails(self, texts: Sequence[str]) -> EnrichError | None:
            error = ServerUnavailable("did not answer in time")
            error.failed_as = "time-out"
            return error if "error number 5 " in texts else None

    endpoint = Hangs()
    batching = batching_of(endpoint)
    left = texts_of(16)
    caller = Caller(occasion="run", meter=InMemoryUsage())
    for _ in range(4):
        kept: dict[str, Vector] = {}
        before = len(endpoint.requests)
        with pytest.raises(ServerUnavailable):
            wanted = {fingerprint(text): text for text in left}
            batching.embed(wanted, caller, kept.update)
        hung = [taken for _, taken in endpoint.requests[before:]].count(False)
        assert hung <= 2
        left = [text for text in left if fingerprint(text) not in kept]
    assert left == ["error number 5 "]


def test_a_setting_says_what_the_model_takes() -> None:
    endpoint = Endpoint(most_text=1_000)
    limits = OwnLimits()
    batching = Batching(endpoint, InMemoryQuota(), limits, 900)
    texts = [f"{n} " + "y" * 5_000 for n in range(20)]
    assert len(ask(batching, texts).vectors) == 20
    assert [taken for _, taken in endpoint.requests] == [True]

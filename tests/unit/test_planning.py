"""What a plan is reckoned from: distinct texts, tokens and money, hours, disk. No server."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.log_store.preflight import above_watermark
from enrich.planning.confirming import refusal
from enrich.planning.disk import bytes_by_node, fullest, vector_bytes
from enrich.planning.plan import (
    Billed,
    Bounds,
    Cost,
    Counted,
    Paid,
    Plan,
    Tokens,
    cost_of,
    disk_of,
    error_of,
    time_of,
    tokens_of,
)
from enrich.planning.speed import ASSUMED, Ran, duration_of, speed_of
from enrich.planning.texts import DistinctTexts


def digest(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


# -- texts


def test_texts_are_counted_once_with_all_projects_that_have_them() -> None:
    texts = DistinctTexts()
    for scope in ("shop", "pay", "shop"):
        for number in range(100):
            texts.add(digest(number), 10 + number, scope)
    assert (texts.count, texts.share, texts.error) == (100, 1, 0)
    assert {text.scopes for text in texts} == {frozenset({"shop", "pay"})}
    assert sum(text.size for text in texts) == sum(range(10, 110))


def test_beyond_its_memory_the_count_is_within_its_error() -> None:
    texts = DistinctTexts(most=2_000)
    for number in range(50_000):
        # One text in every second log: how often a text comes does not count.
        texts.add(digest(number), 100)
        texts.add(digest(0), 100)
    assert 1_000 <= len(texts) <= 2_000 and texts.share == 1 / 32
    assert abs(texts.count / 50_000 - 1) < texts.error < 0.06
    assert all(texts.get(text.fingerprint) for text in texts)


# -- tokens and money


def test_tokens_are_by_what_was_billed_a_byte() -> None:
    paid = Paid(texts=1_000, bytes=200_000)
    billed = Billed(requests=10, inputs=500, bytes=100_000, tokens=25_000)
    sent = tokens_of(paid, billed, texts_a_request=256)
    assert (sent.tokens, sent.basis, sent.per_byte, sent.texts_measured) == (
        50_000, "measured", 0.25, 500,
    )  # fmt: skip
    # Requests had 50 texts each.
    assert sent.requests == 20
    assert cost_of(sent, 400_000, 0.13) == Cost(
        usd=0.0065, batch_usd=0.00325, usd_without_savings=0.013, price_per_million_tokens=0.13
    )


@pytest.mark.parametrize(
    "billed", [Billed(), Billed(requests=1, inputs=2, bytes=4_000, tokens=1_000)]
)
def test_what_was_hardly_billed_is_an_assumption(billed: Billed) -> None:
    sent = tokens_of(Paid(texts=10, bytes=10_000), billed, texts_a_request=256)
    assert (sent.tokens, sent.basis, sent.texts_measured) == (3_000, "assumed", 0)


def test_without_a_price_there_is_no_cost_and_a_price_of_0_costs_0() -> None:
    sent = Tokens(texts=1, bytes=10, tokens=3)
    assert cost_of(sent, 10, None) == Cost()
    assert cost_of(sent, 10, 0.0).usd == 0.0


# -- hours


def test_two_mixes_show_what_a_log_and_what_a_text_takes() -> None:
    # 0.5 ms a log and 2 ms a text.
    runs = [
        Ran(vectors=n, inputs=m, seconds=0.0005 * n + 0.002 * m)
        for n, m in ((10_000, 10), (10_000, 3_000), (4_000, 4_000))
    ]
    speed = speed_of(runs)
    assert speed.a_log == pytest.approx(0.0005) and speed.a_text == pytest.approx(0.002)
    assert (speed.runs, speed.vectors) == (3, 24_000)
    assert speed.seconds(1_000_000, 50_000) == pytest.approx(600)


def test_what_runs_took_lately_counts_for_more() -> None:
    def mixes(a_log: float, a_text: float) -> list[Ran]:
        return [
            Ran(vectors=4_000, inputs=m, seconds=4_000 * a_log + a_text * m)
            for m in (1, 1_200, 4_000)
        ]

    before, since = mixes(0.002, 0.004) * 12, mixes(0.001, 0.002)
    told = [speed_of([*since * rounds, *before]).seconds(10_000, 5_000) for rounds in range(6)]
    assert told[0] == pytest.approx(40)
    assert told == sorted(told, reverse=True)
    # Each run more that took half of the time brings it nearer to that.
    assert told[5] == pytest.approx(20, rel=0.05)


def test_what_another_mix_took_is_known_for_a_while() -> None:
    # 0.5 ms a log and 2 ms a text, then twenty runs of one mix.
    same = [Ran(vectors=10_000, inputs=3_000, seconds=11.0)] * 20
    speed = speed_of([*same, Ran(vectors=4_000, inputs=4_000, seconds=10.0)])
    assert speed.a_text == pytest.approx(0.002, rel=0.01)


@pytest.mark.parametrize(
    ("runs", "a_log"),
    [
        # One mix: the sum is put on the logs.
        ([Ran(vectors=1_000, inputs=300, seconds=2.0)], 0.002),
        ([Ran(vectors=1_000 * n, inputs=300 * n, seconds=2.0 * n) for n in (1, 2)], 0.002),
        # Runs in which more texts took less time teach nothing of texts.
        (
            [
                Ran(vectors=1_000, inputs=1_000, seconds=1.0),
                Ran(vectors=1_000, inputs=0, seconds=1.0),
            ],
            0.001,
        ),
        # Too small, or without a time.
        ([Ran(vectors=499, inputs=1, seconds=9.0), Ran(vectors=900, inputs=1, seconds=0)], 0.002),
        ([], 0.002),
    ],
)
def test_what_runs_do_not_show_is_not_made_up(runs: Sequence[Ran], a_log: float) -> None:
    speed = speed_of(runs)
    assert speed.a_log == pytest.approx(a_log) and speed.a_text == 0
    assert (speed == ASSUMED) == (not any(r.vectors >= 500 and r.seconds for r in runs))


@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    st.lists(
        st.builds(
            Ran,
            vectors=st.integers(0, 10**6),
            inputs=st.integers(0, 10**6),
            seconds=st.floats(0, 10**6),
        ),
        max_size=6,
    )
)
def test_no_run_makes_time_go_backwards(runs: list[Ran]) -> None:
    speed = speed_of(runs)
    assert speed.a_log > 0 and speed.a_text >= 0


WORK = {"logs": 10_000, "texts": 3_000, "tokens": 600_000, "requests": 60, "speed": ASSUMED}


@pytest.mark.parametrize(
    ("bounds", "binding", "seconds"),
    [
        ({}, "working", 20),
        ({"requests_per_minute": 600, "tokens_per_minute": 10**7}, "working", 20),
        ({"requests_per_minute": 3, "tokens_per_minute": 100_000}, "requests_per_minute", 1_200),
        ({"requests_per_minute": 600, "tokens_per_minute": 100_000}, "tokens_per_minute", 360),
        ({"write_pace": 100}, "write_pace", 100),
        # Today's money, tomorrow's, and a part of the day after.
        ({"usd": 5.0, "usd_per_day": 2.0}, "cost_per_day", 129_600),
        ({"usd": 5.0, "usd_per_day": 6.0}, "working", 20),
        ({"logs_per_run": 1_000, "interval_seconds": 600}, "logs_per_run", 5_400),
    ],
)
def test_the_slowest_bound_decides(bounds: dict[str, float], binding: str, seconds: float) -> None:
    took = duration_of(**WORK, **bounds)  # type: ignore[arg-type]
    assert (took.binding, took.seconds) == (binding, pytest.approx(seconds))


def test_nothing_to_do_takes_no_time() -> None:
    took = time_of(0, Tokens(), Cost(), ASSUMED, Bounds())
    assert (took.seconds, took.binding, took.basis) == (0, "", "assumed")


@pytest.mark.parametrize(
    ("bounds", "basis"),
    [
        (Bounds(), ("assumed", "assumed")),
        (Bounds(requests_per_minute=3_000), ("measured", "assumed")),
        (Bounds(tokens_per_minute=10**6, tokens_set=True), ("assumed", "set")),
        (
            Bounds(requests_per_minute=3_000, requests_set=True, tokens_per_minute=10**6),
            ("set", "measured"),
        ),
    ],
)
def test_it_is_said_of_each_limit_where_it_comes_from(
    bounds: Bounds, basis: tuple[str, str]
) -> None:
    took = time_of(1_000, Tokens(texts=5, tokens=50, requests=1), Cost(usd=1.0), ASSUMED, bounds)
    assert (took.requests_basis, took.tokens_basis) == basis


def test_what_some_texts_show_of_all_has_an_error() -> None:
    # Every size twice: a deviation of 50 around 100, a hundred texts of ten thousand.
    sizes = [50, 150] * 50
    assert error_of(sizes, 0.01, 0.0) == pytest.approx(0.0995, abs=1e-4)
    assert error_of(sizes, 0.01, 0.004) == pytest.approx(0.0996, abs=1e-4)
    assert error_of(sizes, 1.0, 0.004) == 0.004
    assert error_of([], 0.1, 0.0) == error_of([0, 0], 0.1, 0.0) == 0.0


# -- disk


@dataclass(frozen=True)
class Shard:
    index: str
    shard: int
    node: str


@dataclass(frozen=True)
class Node:
    node: str
    name: str
    total: int
    available: int


def test_each_node_is_given_what_its_shards_take() -> None:
    copies = [
        *(Shard("a_2026_11", n, "one") for n in (0, 1)),
        *(Shard("a_2026_11", n, "two") for n in (0, 1)),
        Shard("b_2026_11", 0, "two"),
    ]
    given_to = bytes_by_node(
        {"a_2026_11": 1_000, "b_2026_11": 500}, {"a_2026_11": 6.0, "b_2026_11": 10.0}, copies
    )
    assert given_to == {"one": 6_000, "two": 11_000}
    disks = [Node("one", "first", 100_000, 30_000), Node("two", "second", 100_000, 60_000)]
    # The fullest afterwards, not the one that gets most.
    filled = fullest(disks, given_to)
    assert filled is not None
    assert (filled.name, filled.added) == ("first", 6_000)
    assert (filled.share_before, filled.share_after) == (0.7, 0.76)
    assert fullest([], given_to) is None
    told = disk_of(
        {"a_2026_11": 1_000}, {"a_2026_11": 6.0}, given_to, filled, "75%", above_watermark
    )
    assert told.fullest_node is not None
    assert told.fullest_node.above_high_watermark and told.bytes == 17_000


def test_a_source_with_the_numbers_takes_more() -> None:
    assert vector_bytes(1536, in_source=False) == 6_494
    assert vector_bytes(1536, in_source=True) == 15_710


# -- what somebody has to confirm


def planned(usd: float | None) -> Plan:
    return Plan(
        made_at=datetime(2026, 11, 28, tzinfo=UTC),
        counted=Counted(logs=12_000, indices=2, distinct_texts=3_000),
        sent=Tokens(texts=2_500, bytes=500_000, tokens=150_000),
        cost=Cost(usd=usd),
    )


@pytest.mark.parametrize(
    ("usd", "above", "confirmed", "begins"),
    [
        (4.99, 5.0, 0.0, True),
        (5.0, 5.0, 0.0, True),
        (5.01, 5.0, 0.0, False),
        (5.01, 5.0, 5.5, True),
        (5.51, 5.0, 5.5, False),
        (0.0, 5.0, 0.0, True),
        (None, 5.0, 0.0, True),
    ],
)
def test_a_backlog_above_the_sum_waits_for_a_word(
    usd: float | None, above: float, confirmed: float, begins: bool
) -> None:
    sentence = refusal(planned(usd), above, confirmed)
    assert (sentence == "") is begins
    if not begins:
        assert f"about ${usd:.2f} (12,000 logs, 2,500 texts)" in sentence
        assert "`python -m enrich confirm`" in sentence


def test_what_was_not_measured_is_said() -> None:
    said = " ".join(planned(1.0).assumptions)
    for part in ("0.3 tokens a byte", "300,000 tokens", "500 logs a second", "no limits"):
        assert part in said
    assert Plan(made_at=datetime(2026, 11, 28, tzinfo=UTC)).assumptions == []

"""Kinds of errors: which texts are of one, what k logs say of all, and how near that is."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from enrich.analysis import kinds
from enrich.analysis.kind_verdict import Tried, conclude, insights
from enrich.analysis.kinds import KindTruth, ScoredKind, compared, good_turing, of_hits, of_sample
from enrich.text.error_kind import MOST_OF_A_NAME, error_kind

# -- which texts are of one kind

TRACE = 'Order {} failed\nTraceback (most recent call last):\n  File "/srv/{}.py", line {}, in f\n'


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("timeout after 12 ms", "timeout after 900 ms"),
        ("user 5 is gone", "user 71 is gone  "),
        ("host 10.0.0.1:80 refused", "host 10.9.9.9:443 refused"),
        ("job 6f1f4c0e-1c97-4f02-8e5d-0b7f3961ac24", "job a83b64de-1c97-4f02-8e5d-0b7f3961ac24"),
        ("mail to ann@example.org bounced", "mail to bob@example.com bounced"),
        ("a  b", "a b"),
        ("at 2026-11-01T10:00:00Z: down", "at 2026-12-31T23:59:59Z: down"),
        (TRACE.format(1, "a", 3) + "KeyError: 'x'", TRACE.format(2, "b", 9) + "KeyError: 'x'"),
        ("E: top\n\tat a.B(C:1)\nCaused by: X: no 1", "E: top\n\tat d.E(F:9)\nCaused by: X: no 2"),
        ("only\n  indented 1", "only\n  indented and else"),
    ],
)
def test_one_kind(one: str, other: str) -> None:
    assert error_kind(one) == error_kind(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("timeout", "refused"),
        ("Order 1 failed", "Order 1 was paid"),
        (TRACE.format(1, "a", 3) + "KeyError: 'x'", TRACE.format(1, "a", 3) + "KeyError: 'y'"),
        ("E: top\nCaused by: A: a\nCaused by: B: b", "E: top\nCaused by: A: a\nCaused by: C: c"),
        ("a\nb", "a"),
    ],
)
def test_two_kinds(one: str, other: str) -> None:
    assert error_kind(one).id != error_kind(other).id


def test_a_kinds_name_is_one_masked_line() -> None:
    kind = error_kind("login of ann@example.org with password=hunter2 failed\n\nValueError: 7")
    assert (
        kind.name
        == "login of [masked email] with password=[masked credential] failed / ValueError: <number>"
    )
    assert len(error_kind("word " * 9000).name) <= MOST_OF_A_NAME
    assert len(kind.id) == 16


# -- what k logs say


def scored(counts: dict[str, int], *, last: float = 0.0) -> list[ScoredKind]:
    """So many logs of each kind, with scores from `last` on up."""
    row = [kind for kind, count in counts.items() for _ in range(count)]
    step = (1 - last) / (len(row) + 1)
    return [ScoredKind(last + n * step, kind) for n, kind in enumerate(row)]


@pytest.mark.parametrize(
    ("seen", "last", "total", "counts", "unseen"),
    [
        # 10 logs above 0.9: (10 - 1) / 0.1 = 90 in all, 9 for each that was drawn.
        ({"a": 5, "b": 5}, 0.9, 90, {"a": 45, "b": 45}, 0.0),
        ({"a": 9, "b": 1}, 0.9, 90, {"a": 81, "b": 9}, 0.1 * (1 - 10 / 90)),
        ({"a": 1, "b": 1, "c": 1, "d": 1}, 0.97, 100, {"a": 25, "b": 25, "c": 25, "d": 25}, 0.96),
        # Never fewer than were read.
        ({"a": 10}, 0.0, 10, {"a": 10}, 0.0),
        ({"a": 2}, 0.999, 1000, {"a": 1000}, 0.0),
    ],
)
def test_a_sample(
    seen: dict[str, int], last: float, total: int, counts: dict[str, int], unseen: float
) -> None:
    found = of_sample(scored(seen, last=last), sum(seen.values()))
    assert (found.total, found.counts, found.census) == (total, counts, False)
    assert found.unseen_share == pytest.approx(unseen)
    assert found.limits is not None and found.limits[0] <= total <= found.limits[1]
    # Logs of lower scores change nothing.
    more = [*scored(seen, last=last), ScoredKind(last / 2, "z")]
    assert last == 0 or of_sample(more, sum(seen.values())) == found


def test_fewer_logs_than_were_asked_for_are_a_census() -> None:
    found = of_sample(scored({"a": 3, "b": 1}), 5)
    assert (found.total, found.counts, found.limits) == (4, {"a": 3, "b": 1}, (4, 4))
    assert (found.census, found.unseen_share, found.share("a")) == (True, 0.0, 0.75)
    hits = of_hits(["a", "b", "a"], 4)
    assert (hits.census, hits.total, hits.counts) == (True, 3, {"a": 2, "b": 1})


def test_one_log_tells_its_kind_alone() -> None:
    found = of_sample([ScoredKind(0.99, "a"), ScoredKind(0.5, "b")], 1)
    assert (found.total, found.limits, found.counts, found.unseen_share) == (1, None, {"a": 1}, 1)
    with pytest.raises(ValueError, match="at least"):
        of_sample([], 0)


def test_hits_say_nothing_of_how_many_others_there_are() -> None:
    found = of_hits(["a", "a", "b", "c"], 4)
    assert (found.total, found.limits, found.census) == (4, None, False)
    assert found.unseen_share == 0.5


@pytest.mark.parametrize(
    ("seen", "share"),
    [
        ({}, 1),
        ({"a": 1}, 1),
        ({"a": 2}, 0),
        ({"a": 2, "b": 1}, 1 / 3),
        ({"a": 97, "b": 1, "c": 2}, 0.01),
    ],
)
def test_good_turing(seen: dict[str, int], share: float) -> None:
    assert good_turing(seen) == pytest.approx(share)


def test_estimates_are_right_on_average() -> None:
    """Of 2,000 logs of 60 kinds, Zipf's law; 200 samples of 100."""
    draw = random.Random(5)
    row = [str(n) for n in range(60) for _ in range(max(1, round(430 / (n + 1))))]
    truth = Counter(row)
    total = unseen = missed = first = held = 0.0
    rounds = 200
    for _ in range(rounds):
        found = of_sample([ScoredKind(draw.random(), kind) for kind in row], 100)
        assert found.limits is not None
        held += found.limits[0] <= len(row) <= found.limits[1]
        total += found.total / rounds
        first += found.counts.get("0", 0) / rounds
        unseen += found.unseen_share / rounds
        missed += compared(KindTruth(total=len(row), counts=truth), found).unseen_share / rounds
    assert total == pytest.approx(len(row), rel=0.03)
    assert first == pytest.approx(truth["0"], rel=0.04)
    assert 100 * unseen == pytest.approx(missed, abs=1)
    assert held / rounds >= 0.9


# -- how near that is

TRUTH = KindTruth(total=100, counts={"a": 60, "b": 30, "c": 10})


@pytest.mark.parametrize(
    ("hits", "total", "kind_match", "counts", "missed", "false", "unseen"),
    [
        ({"a": 60, "b": 30, "c": 10}, 100, 100, 100, (), (), 0),
        ({"a": 60, "b": 30}, 90, 200 / 3, 90, ("c",), (), 10),
        ({"a": 30, "b": 30, "c": 10}, 70, 100, 70, (), (), 0),
        ({"a": 60, "x": 5, "y": 7}, 72, 20, 60, ("b", "c"), ("y", "x"), 40),
        # Twice as many are as wrong as none.
        ({"a": 120, "b": 30, "c": 10}, 40, 100, 40, (), (), 0),
        ({"x": 100}, 100, 0, 0, ("a", "b", "c"), ("x",), 100),
        ({}, 0, 0, 0, ("a", "b", "c"), (), 100),
    ],
)
def test_estimates_beside_the_truth(
    hits: dict[str, int],
    total: float,
    kind_match: float,
    counts: float,
    missed: tuple[str, ...],
    false: tuple[str, ...],
    unseen: float,
) -> None:
    row = [kind for kind, count in hits.items() for _ in range(count)]
    near = compared(TRUTH, of_hits(row, 1000))
    assert near.total == pytest.approx(total)
    assert near.kind_match == pytest.approx(kind_match)
    assert near.counts == pytest.approx(counts)
    assert near.overall == pytest.approx(0.3 * total + 0.3 * kind_match + 0.4 * counts)
    assert (near.missed, near.false) == (missed, false)
    assert set(near.matched) | set(missed) == {"a", "b", "c"}
    assert near.unseen_share == pytest.approx(unseen)


def test_logs_without_a_vector_cost_the_total() -> None:
    truth = KindTruth(total=200, counts={"a": 100})
    near = compared(truth, of_hits(["a"] * 100, 1000))
    assert (near.total, near.kind_match, near.counts) == (50, 100, 100)
    assert near.overall == pytest.approx(85)
    assert sum(kinds.WEIGHTS.values()) == pytest.approx(1)


# -- what it comes to


def tried(k: int, hits: dict[str, int], ms: float, *, asked: int = 0) -> Tried:
    row = [kind for kind, count in hits.items() for _ in range(count)]
    found = of_hits(row, asked or len(row))
    return Tried(k=k, found=found, near=compared(TRUTH, found), milliseconds=ms)


@pytest.mark.parametrize(
    ("samples", "best", "feasible", "grade", "said", "price"),
    [
        ([tried(10, {"a": 6, "b": 4}, 5)], 10, False, "poor", "No: take", "2.5 × slower"),
        (
            [tried(10, {"a": 6}, 5), tried(95, {"a": 57, "b": 29, "c": 9}, 1)],
            *(95, True, "excellent", "comes near enough", "2.0 × faster"),
        ),
        # Of equals the smallest k.
        (
            [tried(200, dict(TRUTH.counts), 2), tried(100, dict(TRUTH.counts), 2)],
            *(100, True, "excellent", "comes near enough", "as fast as"),
        ),
        (
            [tried(500, dict(TRUTH.counts), 4, asked=500)],
            *(500, True, "excellent", "reads every log", "2.0 × slower"),
        ),
        # 0.3 × 90 + 0.3 × 66.7 + 0.4 × 90.
        ([tried(90, {"a": 60, "b": 30}, 2)], 90, False, "good", "No: take", "as fast as"),
    ],
)
def test_conclusions(
    samples: list[Tried], best: int, feasible: bool, grade: str, said: str, price: str
) -> None:
    told = conclude(TRUTH, samples, [], 2)
    assert (told.best_k, told.feasible, told.grade_english) == (best, feasible, grade)
    assert said in told.recommendation
    assert price in told.performance_vs_db
    assert len(told.key_findings) == len(samples) + 1
    assert "not compared" in told.key_findings[-1]


def test_a_census_is_no_ground_either() -> None:
    every = tried(500, dict(TRUTH.counts), 4, asked=500)
    told = conclude(TRUTH, [tried(10, {"a": 6, "b": 4}, 5), every], [every], 2)
    assert (told.best_k, told.feasible) == (10, False)
    assert "all logs read" in told.key_findings[1]


def test_hits_are_no_ground_to_conclude_from() -> None:
    bad, good = tried(10, {"a": 6, "b": 4}, 5), tried(10, dict(TRUTH.counts), 1)
    told = conclude(TRUTH, [bad], [good], 2)
    assert told.best_accuracy == bad.near.overall
    assert "better than the random sample at k=10" in told.key_findings[-1]
    told = conclude(TRUTH, [good], [bad], 2)
    assert "at no k better" in told.key_findings[-1]


@pytest.mark.parametrize(
    ("hits", "said"),
    [
        # Met once: none; and nothing is missing.
        ({"a": 6, "b": 4, "c": 2}, "knows how much it does not know"),
        # Met once: a third; of the logs 10 % are of the kind that is missing.
        ({"a": 2, "b": 1}, "misjudges"),
    ],
)
def test_insights_say_whether_a_sample_knows_what_it_missed(
    hits: dict[str, int], said: str
) -> None:
    told = insights(TRUTH, [tried(12, hits, 1)], [tried(12, {"a": 12}, 1)])
    assert said in told[1]
    assert "1 of 3 kinds" in told[2]

"""Estimates from a random sample: the numbers, their limits, and that nothing else gets in."""

from __future__ import annotations

import ast
import math
import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from enrich.analysis import sampling
from enrich.analysis.intervals import (
    beta_cdf,
    gamma_cdf,
    gamma_limits,
    poisson_limits,
    rank_limits,
    share_limits,
    size_limits,
)
from enrich.analysis.sampling import Estimates, Kind, estimate, estimate_strata
from enrich.log_store.level_counts import Drawn

ERROR, WARN, INFO, NONE = ({"error"}, {"warn"}, {"info"}, set[str]())


def sample(score: float, *of: tuple[int, set[str]]) -> list[Drawn]:
    """Logs above a score, so many of each kind, and one of none at it."""
    kinds = [frozenset(levels) for count, levels in of for _ in range(count)]
    step = (1 - score) / (len(kinds) + 2)
    above = [Drawn(score + step * (n + 1), levels) for n, levels in enumerate(kinds)]
    return [Drawn(score, frozenset()), *above]


# -- distributions, against values of scipy 1.17


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (gamma_cdf(100, 81.36399125092312), 0.025),
        (gamma_cdf(1, 2.995732273553991), 0.95),
        (gamma_cdf(0, 1), 1.0),
        (gamma_cdf(3, 0), 0.0),
        (beta_cdf(1, 1, 0.3), 0.3),
        (beta_cdf(2, 3, 0.25), 0.26171875),
        (beta_cdf(0, 5, 0.1), 1.0),
        (beta_cdf(5, 0, 0.1), 0.0),
        (beta_cdf(4, 4, 0.5), 0.5),
        (beta_cdf(2, 3, 1), 1.0),
    ],
)  # fmt: skip
def test_distributions(found: float, expected: float) -> None:
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("found", "low", "high"),
    [
        (poisson_limits(0), 0, 2.995732273553991),
        (poisson_limits(1), 0.05002034484533654, 4.931860524706771),
        (poisson_limits(5), 1.8319948085284172, 11.082415664991922),
        (poisson_limits(99), 80.88978858947007, 120.00553356482041),
        (poisson_limits(499), 456.63977997707315, 544.2547274939474),
        (gamma_limits(100), 81.36399125, 120.52894775),
        (share_limits(0, 99), 0, 0.02980667377335029),
        (share_limits(5, 99), 0.018737686410641455, 0.10837001328817532),
        (share_limits(99, 99), 0.9701933262266403, 1),
        (share_limits(2.5, 1000.5), 0.0005366759101000097, 0.0073746351244309526),
    ],
)
def test_limits(found: tuple[float, float], low: float, high: float) -> None:
    assert found == pytest.approx((low, high), rel=1e-6)


@pytest.mark.parametrize("seen", [0, 1, 7, 99, 499])
def test_limits_of_a_small_part_are_those_of_a_trickle(seen: int) -> None:
    assert size_limits(seen, 1e-6) == pytest.approx(
        [limit / 1e-6 for limit in poisson_limits(seen)], rel=1e-4
    )


@pytest.mark.parametrize("rank", [2, 10, 100, 500])
def test_limits_of_a_rank_hold_the_chance_that_they_say(rank: int) -> None:
    low, high = rank_limits(rank, 0.1)
    assert beta_cdf(rank, low - rank + 1, 0.1) == pytest.approx(0.025)
    assert beta_cdf(rank, high - rank + 1, 0.1) == pytest.approx(0.975)
    assert rank_limits(rank, 1e-6) == pytest.approx(
        [limit / 1e-6 for limit in gamma_limits(rank)], rel=2e-3
    )


@pytest.mark.parametrize("rank", [2, 10, 500])
def test_a_population_is_no_smaller_than_what_was_seen_of_it(rank: int) -> None:
    assert rank_limits(rank, 0.999999)[0] >= rank
    assert size_limits(rank, 0.999999)[0] >= rank - 1e-6


# -- one sample


@pytest.mark.parametrize(
    ("logs", "total", "error", "warn", "info", "rate"),
    [
        # (n - 1) / (1 - s), and e / (1 - s).
        (sample(0.99, (9, ERROR)), 900, 900, 0, 0, 100),
        (sample(0.99, (9, NONE)), 900, 0, 0, 0, 0),
        (sample(0.99, (3, ERROR), (6, INFO)), 900, 300, 0, 600, 100 / 3),
        (sample(0.9, (1, ERROR), (2, WARN), (6, INFO)), 90, 10, 20, 60, 100 / 9),
        (sample(0.5, (9, WARN)), 18, 0, 18, 0, 0),
        (sample(0.999, (20, ERROR), (79, INFO)), 99_000, 20_000, 0, 79_000, 2000 / 99),
        (sample(0.9999, (1, ERROR), (98, NONE)), 990_000, 10_000, 0, 0, 100 / 99),
        (sample(0.99999, (99, INFO)), 9_900_000, 0, 0, 9_900_000, 0),
        (sample(0.999, (250, ERROR), (249, INFO)), 499_000, 250_000, 0, 249_000, 25000 / 499),
        (sample(0.75, (49, ERROR)), 196, 196, 0, 0, 100),
        # A log may have two levels, such as a word and a number that differ.
        (sample(0.99, (4, {"error", "info"}), (5, INFO)), 900, 400, 0, 900, 400 / 9),
        (sample(0.99, (9, {"error", "warn", "info"})), 900, 900, 900, 900, 100),
        # Levels that are none of the three count among all logs.
        (sample(0.98, (1, ERROR), (8, {"debug"})), 450, 50, 0, 0, 100 / 9),
    ],
)  # fmt: skip
def test_estimates(
    logs: list[Drawn], total: float, error: float, warn: float, info: float, rate: float
) -> None:
    found = estimate(logs, len(logs))
    assert not found.census and found.read == len(logs)
    assert found.total.value == pytest.approx(total)
    assert found.error.value == pytest.approx(error)
    assert found.warn.value == pytest.approx(warn)
    assert found.info.value == pytest.approx(info)
    assert found.error_rate.value == pytest.approx(rate)
    for one in (found.total, found.error, found.warn, found.info, found.error_rate):
        assert one.low <= one.value <= one.high


@pytest.mark.parametrize(
    ("errors", "of", "distance", "low", "high"),
    [
        (0, 99, 0.001, 0, 2_995.73),
        (1, 99, 0.001, 50.02, 4_931.86),
        (5, 99, 0.001, 1_831.99, 11_082.42),
        (99, 99, 0.001, 80_889.79, 120_005.53),
        (499, 499, 0.005, 91_327.96, 108_850.95),
        # A tenth of all: narrower than a tenth of so many.
        (0, 99, 0.1, 0, 28.43),
        (99, 99, 0.1, 817.94, 1_189.07),
    ],
)
def test_limits_of_counts(errors: int, of: int, distance: float, low: float, high: float) -> None:
    found = estimate(sample(1 - distance, (errors, ERROR), (of - errors, INFO)), of + 1).error
    assert (found.low, found.high) == pytest.approx((low, high), rel=2e-4)
    assert found.kind is (Kind.INTERVAL if errors else Kind.UPPER_LIMIT)


@pytest.mark.parametrize(
    ("n", "distance", "low", "high"),
    [
        (100, 0.001, 81_363.99, 120_528.95),
        (100, 0.1, 822.72, 1_194.27),
        (10, 0.001, 4_795.39, 17_084.80),
        (2, 0.001, 242.21, 5_571.64),
    ],
)
def test_limits_of_all(n: int, distance: float, low: float, high: float) -> None:
    found = estimate(sample(1 - distance, (n - 1, INFO)), n).total
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-4)
    assert found.value == pytest.approx((n - 1) / distance)


@pytest.mark.parametrize(
    ("errors", "low", "high", "kind"),
    [
        (0, 0, 2.98, Kind.UPPER_LIMIT),
        (5, 1.87, 10.84, Kind.INTERVAL),
        (99, 97.02, 100, Kind.LOWER_LIMIT),
    ],
)
def test_limits_of_the_rate(errors: int, low: float, high: float, kind: Kind) -> None:
    found = estimate(sample(1 - 1e-6, (errors, ERROR), (99 - errors, WARN)), 100).error_rate
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.01)
    assert found.kind is kind


def test_much_of_a_small_population_says_more_of_its_rate() -> None:
    logs = ((20, ERROR), (79, WARN))
    of_few, of_many = (
        estimate(sample(1 - distance, *logs), 100).error_rate for distance in (0.5, 1e-6)
    )
    assert of_few.value == of_many.value
    assert of_few.high - of_few.low == pytest.approx(
        (of_many.high - of_many.low) * math.sqrt(0.5), rel=0.05
    )


@pytest.mark.parametrize(
    ("logs", "total", "error", "warn", "info", "rate"),
    [
        ([], 0, 0, 0, 0, 0),
        (sample(0.3), 1, 0, 0, 0, 0),
        (sample(0.3, (1, ERROR)), 2, 1, 0, 0, 50),
        (sample(0.0, (9, ERROR)), 10, 9, 0, 0, 90),
        (sample(0.7, (5, ERROR), (4, WARN), (30, INFO)), 40, 5, 4, 30, 12.5),
        (sample(0.99, (98, ERROR)), 99, 98, 0, 0, 9800 / 99),
    ],
)
def test_fewer_than_were_asked_for_are_a_census(
    logs: list[Drawn], total: int, error: int, warn: int, info: int, rate: float
) -> None:
    found = estimate(logs, 100)
    assert found.census and found.read == len(logs)
    assert [one.value for one in (found.total, found.error, found.warn, found.info)] == [
        total, error, warn, info,
    ]  # fmt: skip
    assert found.error_rate.value == pytest.approx(rate)
    for one in (found.total, found.error, found.warn, found.info, found.error_rate):
        assert one.kind is Kind.EXACT and one.low == one.value == one.high


@pytest.mark.parametrize(
    ("logs", "asked"),
    [
        (sample(0.5), 1),
        (sample(0.5), 0),
        (sample(0.5), -1),
        ([Drawn(1.0, frozenset())], 2),
        ([Drawn(-0.1, frozenset())], 2),
        ([Drawn(math.nan, frozenset()), Drawn(0.5, frozenset())], 2),
    ],
)
def test_what_is_no_sample_is_refused(logs: list[Drawn], asked: int) -> None:
    with pytest.raises(ValueError):
        estimate(logs, asked)


def test_a_score_of_nothing_leaves_nothing_unread() -> None:
    found = estimate([Drawn(0.0, frozenset()), Drawn(0.5, frozenset({"error"}))], 2)
    assert found.total.value == found.total.low == pytest.approx(2)
    assert found.total.high == pytest.approx(2)


# -- nothing but the sample


def population(size: int, seed: int) -> list[Drawn]:
    draw = random.Random(seed)
    kinds = (ERROR, WARN, INFO, NONE)
    return [
        # Few steps, so that some scores are equal.
        Drawn(draw.randrange(2000) / 2000, frozenset(draw.choices(kinds, (1, 2, 6, 1))[0]))
        for _ in range(size)
    ]


@pytest.mark.parametrize("seed", range(8))
def test_logs_below_the_last_that_was_drawn_change_nothing(seed: int) -> None:
    logs = population(1500, seed)
    draw = random.Random(seed)
    whole = estimate(logs, 60)
    last = sorted((log.score for log in logs), reverse=True)[59]
    below = [log for log in logs if log.score < last]
    drawn = [log for log in logs if log.score >= last]
    assert below and whole == estimate(drawn, 60)

    def changed(logs: Iterable[Drawn]) -> list[Drawn]:
        return [Drawn(log.score, frozenset(ERROR)) for log in logs]

    def shuffled(logs: list[Drawn]) -> list[Drawn]:
        return draw.sample(logs, len(logs))

    for rest in ([], below[:7], changed(below), below * 3, shuffled(below)):
        assert estimate(shuffled(drawn + rest), 60) == whole


def test_the_estimator_knows_no_client_and_no_count() -> None:
    for module in ("sampling", "intervals"):
        tree = ast.parse(Path(sampling.__file__).with_name(f"{module}.py").read_text("utf-8"))
        names = {
            name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in (
                [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else [alias.name for alias in node.names]
            )
        }
        assert names <= {
            *("__future__", "collections.abc", "dataclasses", "enum", "functools", "math"),
            *("typing", "enrich.analysis.intervals"),
        }


# -- parts that are sampled by themselves


def test_one_stratum_is_a_sample() -> None:
    logs = sample(0.99, (3, ERROR), (6, INFO))
    assert estimate_strata([(logs, 10)]) == estimate(logs, 10)


def test_strata_are_summed() -> None:
    found = estimate_strata(
        [
            (sample(0.99, (9, ERROR)), 10),
            (sample(0.9, (3, ERROR), (6, INFO)), 10),
            (sample(0.5, (2, WARN)), 10),
            ([], 10),
        ]
    )
    assert found.total.value == pytest.approx(900 + 90 + 3)
    assert found.error.value == pytest.approx(900 + 30)
    assert found.warn.value == 2
    assert found.info.value == pytest.approx(60)
    assert found.error_rate.value == pytest.approx(100 * 930 / 993)
    assert (found.read, found.census, found.strata) == (23, False, 4)
    # Almost all of the error is the first part's.
    alone = estimate(sample(0.99, (9, ERROR)), 10).total
    assert found.total.low - 93 == pytest.approx(alone.low, rel=0.2)
    assert found.total.high - 93 == pytest.approx(alone.high, rel=0.2)


def test_strata_that_are_all_read_are_a_census() -> None:
    found = estimate_strata([(sample(0.1, (2, ERROR)), 10), (sample(0.1, (1, INFO)), 10)])
    assert found.census and found.total.kind is Kind.EXACT
    assert (found.total.value, found.error.value, found.info.value) == (5, 2, 1)
    assert found.error_rate.value == 40


def test_of_strata_without_any_the_one_read_least_limits_all() -> None:
    found = estimate_strata([(sample(0.999, (9, INFO)), 10), (sample(0.99, (9, INFO)), 10)])
    assert found.error.kind is Kind.UPPER_LIMIT
    assert found.error.high == pytest.approx(2995.73, rel=1e-4)
    with pytest.raises(ValueError):
        estimate_strata([])
    # Of a part that was read whole some are known, so that it is no longer none that was seen.
    known = estimate_strata([(sample(0.999, (9, INFO)), 10), (sample(0.5, (2, ERROR)), 10)]).error
    assert (known.kind, known.value, known.low) == (Kind.INTERVAL, 2, 2)
    assert known.high == pytest.approx(2 + 2995.73, rel=1e-4)


def test_strata_of_which_nothing_is_unread_have_limits() -> None:
    whole = [(sample(0.0, (5, ERROR), (4, INFO)), 10)] * 2
    found = estimate_strata(whole)
    assert (found.error.low, found.error.value, found.error.high) == (10, 10, 10)
    assert found.total.low <= found.total.value <= found.total.high


# -- simulated


def drawn_of(generator: np.random.Generator, total: int, share: float, n: int) -> list[Drawn]:
    """The n highest of `total` uniform scores, of which each is of an ERROR log by chance."""
    steps = generator.standard_exponential(n) / np.arange(total, total - n, -1)
    scores = np.exp(-np.cumsum(steps))
    errors = generator.random(n) < share
    return [
        Drawn(float(score), frozenset(ERROR if error else INFO))
        for score, error in zip(scores, errors, strict=True)
    ]


@pytest.mark.parametrize("n", [10, 100, 500])
@pytest.mark.parametrize("total", [1_000, 100_000, 10_000_000])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_estimates_of_many_samples_are_right_on_average(n: int, total: int, share: float) -> None:
    generator = np.random.default_rng(n + total + int(100 * share))
    found = [_values(estimate(drawn_of(generator, total, share, n), n)) for _ in range(25)]
    totals, errors, rates = (np.array(each) for each in zip(*found, strict=True))
    # Four standard errors of the mean.
    assert np.mean(totals) == pytest.approx(total, rel=4 / math.sqrt(25 * max(1, n - 2)))
    if share:
        width = 4 / math.sqrt(25 * n * share)
        assert np.mean(errors) == pytest.approx(total * share, rel=1.3 * width)
        assert np.mean(rates) == pytest.approx(100 * share, rel=width)
    else:
        assert not errors.any() and not rates.any()


def _values(found: Estimates) -> tuple[float, float, float]:
    return found.total.value, found.error.value, found.error_rate.value


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    generator = np.random.default_rng(1)
    held: list[bool] = []
    for total, share in ((100_000, 0.02), (3_000_000, 0.3), (20_000, 0.9)):
        for _ in range(120):
            found = estimate(drawn_of(generator, total, share, 100), 100)
            for one, truth in (
                (found.total, total),
                (found.error, total * share),
                (found.info, total * (1 - share)),
                (found.error_rate, 100 * share),
            ):
                held.append(one.low <= truth <= one.high)
    assert 0.93 <= np.mean(held) <= 0.97


def test_strata_of_millions_hold_the_truth() -> None:
    generator = np.random.default_rng(2)
    sizes = [2_000_000 * (1 + n % 3) for n in range(24)]
    held = []
    for _ in range(60):
        found = estimate_strata((drawn_of(generator, size, 0.1, 10), 10) for size in sizes)
        held.append(found.total.low <= sum(sizes) <= found.total.high)
        held.append(found.error.low <= sum(sizes) / 10 <= found.error.high)
        held.append(found.error_rate.low <= 10 <= found.error_rate.high)
    assert np.mean(held) >= 0.9

"""What the service answers about a project's logs: models, verdicts, hours, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from enrich.analysis import comparing
from enrich.analysis.comparing import (
    WEIGHTS,
    Truth,
    accuracies,
    accuracy,
    confidence,
    expected_accuracy,
    grade_of,
    size_for,
)
from enrich.analysis.hours import Period, hours_of
from enrich.analysis.sampling import estimate
from enrich.api.last_hours import NoLogs
from enrich.api.statistics import compare, hourly
from enrich.log_store.level_counts import (
    Counted,
    Counts,
    Drawn,
)
from enrich.log_store.project_logs import ProjectRefused, require_project

NOW = datetime(2026, 11, 28, 10, 20, 30, 400_700, tzinfo=UTC)
SEOUL = ZoneInfo("Asia/Seoul")


# -- accuracy, grades, weights


@pytest.mark.parametrize(
    ("estimated", "true", "expected"),
    [
        (100, 100, 100), (92, 100, 92), (108, 100, 92), (0, 100, 0), (250, 100, 0), (200, 100, 0),
        (0, 0, 100), (1, 0, 0), (0.5, 0.25, 0), (0.2, 0.25, 80), (1, 3, 100 / 3),
    ],
)  # fmt: skip
def test_accuracy(estimated: float, true: float, expected: float) -> None:
    assert accuracy(estimated, true) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("overall", "grade", "english", "replaces"),
    [
        (100, "매우 우수", "excellent", True),
        (95, "매우 우수", "excellent", True),
        (94.99, "우수", "very good", True),
        (90, "우수", "very good", True),
        (89.99, "양호", "good", False),
        (80, "양호", "good", False),
        (79.99, "보통", "fair", False),
        (70, "보통", "fair", False),
        (69.99, "미흡", "poor", False),
        (0, "미흡", "poor", False),
    ],
)
def test_grades(overall: float, grade: str, english: str, replaces: bool) -> None:
    assert grade_of(overall) == (grade, english)
    assert (overall >= comparing.CAN_REPLACE) is replaces


@pytest.mark.parametrize(
    ("wrong", "weight"),
    [("total", 0.3), ("error", 0.3), ("error_rate", 0.2), ("warn", 0.1), ("info", 0.1)],
)
def test_weights(wrong: str, weight: float) -> None:
    truth = Truth(total=1000, error=100, warn=200, info=600)
    right = {"total": 1000.0, "error": 100.0, "warn": 200.0, "info": 600.0, "error_rate": 10.0}
    assert accuracies(truth, **right).overall == pytest.approx(100)
    found = accuracies(truth, **{**right, wrong: right[wrong] / 2})
    assert getattr(found, wrong) == pytest.approx(50)
    assert found.overall == pytest.approx(100 - 50 * weight)
    assert sum(WEIGHTS.values()) == pytest.approx(1)


def drawn(distance: float, **counts: int) -> list[Drawn]:
    """So many logs of each level above 1 - distance, and one of none at it."""
    levels = [level for level, count in counts.items() for _ in range(count)]
    step = distance / (len(levels) + 2)
    last = 1 - distance
    return [
        Drawn(last, frozenset()),
        *(Drawn(last + step * n, frozenset({level})) for n, level in enumerate(levels, 1)),
    ]


@pytest.mark.parametrize(
    ("logs", "low", "high"),
    [
        # All ERROR: total, errors and rate are as good as the total; none seen counts half.
        (drawn(1e-5, error=99), 0.3 * 92 + 0.3 * 92 + 0.2 * 100 + 0.1 * 50 + 0.1 * 50, 0.5),
        (drawn(1e-5, error=50, info=49), 0.3 * 92 + 0.3 * 88.7 + 0.2 * 92.1 + 0.1 * 88.6 + 5, 0.5),
        (drawn(1e-5, debug=99), 0.3 * 92 + 0.3 * 50 + 0.2 * 50 + 0.1 * 50 + 0.1 * 50, 0.5),
    ],
)
def test_confidence_is_the_accuracy_that_is_expected(
    logs: list[Drawn], low: float, high: float
) -> None:
    assert confidence(estimate(logs, len(logs))) == pytest.approx(low, abs=high)


def test_confidence_of_a_census_is_full() -> None:
    assert confidence(estimate(drawn(0.5, error=3), 100)) == pytest.approx(100)


@pytest.mark.parametrize(
    ("size", "truth", "expected"),
    [
        (100, Truth(total=10**9, error=10**9, warn=0, info=0), 0.6 * 92.02 + 40),
        (100, Truth(total=10**9, error=0, warn=0, info=10**9), 0.4 * 92.02 + 60),
        (255, Truth(total=10**9, error=0, warn=0, info=0), 0.3 * 95 + 70),
        (100, Truth(total=100, error=1, warn=0, info=0), 100),
        (10, Truth(total=10**9, error=10, warn=0, info=0), 0.3 * 74.77 + 20),
    ],
)
def test_expected_accuracy(size: int, truth: Truth, expected: float) -> None:
    assert expected_accuracy(size, truth) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("total", [50, 1000, 10**7])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_the_smallest_sample_that_earns_a_grade(total: int, share: float) -> None:
    error = int(total * share)
    truth = Truth(total=total, error=error, warn=(total - error) // 3, info=(total - error) // 2)
    needed = size_for(95, truth)
    assert 1 < needed <= total
    assert expected_accuracy(needed, truth) >= 95
    assert needed == 2 or expected_accuracy(needed - 1, truth) < 95


# -- hours


@pytest.mark.parametrize(
    ("zone", "end", "hours", "labels"),
    [
        ("UTC", "2026-11-28T10:00:00Z", 2, ["08:00:00+00:00", "09:00:00+00:00"]),
        ("UTC", "2026-11-28T10:20:00Z", 1, ["09:00:00+00:00", "10:00:00+00:00"]),
        ("Asia/Seoul", "2026-11-28T15:00:00Z", 2, ["22:00:00+09:00", "23:00:00+09:00"]),
        ("Asia/Kolkata", "2026-11-28T10:00:00Z", 1, ["14:00:00+05:30", "15:00:00+05:30"]),
        ("Asia/Kathmandu", "2026-11-28T10:15:00Z", 1, ["15:00:00+05:45"]),
        # Berlin has no 02:00 on 2026-03-29, and it twice on 2026-10-25.
        ("Europe/Berlin", "2026-03-29T02:00:00Z", 2, ["01:00:00+01:00", "03:00:00+02:00"]),
        ("Europe/Berlin", "2026-10-25T02:00:00Z", 3,
         ["01:00:00+02:00", "02:00:00+02:00", "02:00:00+01:00"]),
        ("America/New_York", "2026-11-01T07:00:00Z", 3,
         ["00:00:00-04:00", "01:00:00-04:00", "01:00:00-05:00"]),
        # By half an hour: 01:30 comes twice, and 02:00 is left out.
        ("Australia/Lord_Howe", "2026-04-04T16:30:00Z", 3,
         ["00:00:00+11:00", "01:00:00+11:00", "01:00:00+10:30", "02:00:00+10:30"]),
        ("Australia/Lord_Howe", "2026-10-03T16:00:00Z", 2,
         ["00:00:00+10:30", "01:00:00+10:30", "02:00:00+11:00"]),
    ],
)  # fmt: skip
def test_hours_are_those_of_the_clock(zone: str, end: str, hours: int, labels: list[str]) -> None:
    period = Period.before(datetime.fromisoformat(end), hours)
    found = hours_of(period, ZoneInfo(zone))
    assert [hour.label[11:] for hour in found] == labels


ZONES = ("UTC", "Asia/Seoul", "Asia/Kolkata", "Asia/Kathmandu", "America/St_Johns",
         "Australia/Lord_Howe", "Europe/Berlin", "Pacific/Apia", "America/New_York")  # fmt: skip


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("month", range(1, 13))
def test_hours_follow_each_other_without_gaps(zone: str, month: int) -> None:
    end = datetime(2026, month, 28, 3, 41, 7, 123_999, tzinfo=UTC)
    period = Period.before(end, 168)
    found = hours_of(period, ZoneInfo(zone))
    assert period.end == end.replace(microsecond=123_000)
    assert found[0].period.start == period.start and found[-1].period.end == period.end
    assert all(a.period.end == b.period.start for a, b in pairwise(found))
    assert len({hour.label for hour in found}) == len(found)
    for hour in found:
        start = hour.period.start.astimezone(ZoneInfo(zone))
        assert hour.label[:13] == start.isoformat()[:13]
        assert timedelta(0) < hour.period.end - hour.period.start <= timedelta(hours=1)


# -- what the service answers


@dataclass
class Store:
    """One project whose logs are known: scores, levels and times."""

    logs: list[tuple[Drawn, datetime]] = field(default_factory=list)
    asked: list[tuple[str, int]] = field(default_factory=list)

    def indices_of(self, project: str) -> list[str]:
        require_project(project)
        return [f"{project}_2026_11"]

    def sample(
        self, indices: Sequence[str], start: datetime, end: datetime, size: int, seed: int
    ) -> list[Drawn]:
        self.asked.append(("sample", size))
        found = [log for log, at in self.logs if start <= at < end]
        return sorted(found, key=lambda log: -log.score)[:size]

    def count(self, indices: Sequence[str], hours: Sequence[tuple[datetime, datetime]]) -> Counted:
        self.asked.append(("count", len(hours)))
        by_hour = []
        for start, end in hours:
            found = [log for log, at in self.logs if start <= at < end]
            of = [sum(level in log.levels for log in found) for level in ("error", "warn", "info")]
            by_hour.append(Counts(len(found), *of))
        return Counted(sum(by_hour, Counts(0, 0, 0, 0)), by_hour)


def store_of(total: int, errors: int, warns: int = 0, infos: int = 0) -> Store:
    """Logs of the last ten hours, evenly; scores and levels far from each other's order."""
    levels = ["error"] * errors + ["warn"] * warns + ["info"] * infos
    levels += [""] * (total - len(levels))
    golden = (math.sqrt(5) - 1) / 2
    return Store(
        [
            (
                Drawn((n * golden) % 1, frozenset({level} - {""})),
                NOW - timedelta(seconds=1 + 36_000 * n // total),
            )
            for n, level in enumerate(levels)
        ]
    )


@pytest.mark.parametrize(
    ("total", "errors", "warns", "infos"),
    [
        (20_000, 2_000, 4_000, 12_000), (20_000, 20_000, 0, 0), (20_000, 0, 0, 20_000),
        (5_000, 2_500, 2_500, 0), (5_000, 5, 0, 0), (600, 60, 120, 400), (20_000, 0, 20_000, 0),
    ],
)  # fmt: skip
def test_estimates_beside_the_counts(total: int, errors: int, warns: int, infos: int) -> None:
    store = store_of(total, errors, warns, infos)
    found = compare(store, SEOUL, "p", sample_size=500, seed=3, now=NOW)
    # The sample comes before the count, and is one search.
    assert store.asked == [("sample", 500), ("count", 25)]
    truth, guess = found.db_statistics, found.ai_statistics
    assert (truth.total_logs, truth.error_count) == (total, errors)
    assert (truth.warn_count, truth.info_count) == (warns, infos)
    assert truth.error_rate == round(100 * errors / total, 5)
    # These scores are more even than random ones.
    assert guess.estimated_total_logs == pytest.approx(total, rel=0.05)
    assert guess.estimated_error_count == pytest.approx(errors, rel=0.1, abs=0.01 * total)
    assert guess.estimated_error_rate == pytest.approx(truth.error_rate, abs=1.5)
    limits = guess.intervals
    assert limits.estimated_total_logs.low <= total <= limits.estimated_total_logs.high
    assert limits.estimated_error_count.low <= errors <= limits.estimated_error_count.high
    assert limits.estimated_info_count.low <= infos <= limits.estimated_info_count.high
    metrics = found.accuracy_metrics
    assert metrics.total_logs_accuracy == pytest.approx(
        accuracy(guess.estimated_total_logs, total), abs=0.01
    )
    assert metrics.overall_accuracy == pytest.approx(
        0.3 * metrics.total_logs_accuracy
        + 0.3 * metrics.error_count_accuracy
        + 0.2 * metrics.error_rate_accuracy
        + 0.1 * metrics.warn_count_accuracy
        + 0.1 * metrics.info_count_accuracy,
        abs=0.02,
    )
    assert metrics.ai_confidence == guess.confidence_score
    verdict = found.verdict
    assert (verdict.grade, verdict.grade_english) == grade_of(metrics.overall_accuracy)
    assert verdict.can_replace_db is (metrics.overall_accuracy >= 90)
    assert "saves nothing over counting" in " ".join(verdict.recommendations)
    assert (guess.method, guess.logs_read, guess.seed) == ("sample", 500, 3)
    assert found.analyzed_at.utcoffset() == timedelta(hours=9)
    assert (found.project_uuid, found.analysis_period_hours, found.sample_size) == ("p", 24, 500)


def test_none_seen_says_how_many_there_may_be() -> None:
    found = compare(store_of(20_000, 0, 0, 20_000), SEOUL, "p", seed=1, now=NOW).ai_statistics
    assert found.estimated_error_count == 0
    assert found.intervals.estimated_error_count.kind == "upper_limit"
    assert found.intervals.estimated_error_count.high == pytest.approx(600, rel=0.05)
    assert "None of those drawn is an ERROR log" in found.reasoning


@pytest.mark.parametrize(("total", "errors"), [(1, 0), (1, 1), (3, 2), (50, 7), (99, 99)])
def test_a_census_says_so(total: int, errors: int) -> None:
    found = compare(store_of(total, errors), SEOUL, "p", seed=1, now=NOW)
    assert found.ai_statistics.method == "census"
    assert found.ai_statistics.estimated_total_logs == total
    assert found.ai_statistics.estimated_error_count == errors
    assert found.accuracy_metrics.overall_accuracy == 100
    assert "nothing is estimated" in found.ai_statistics.reasoning
    assert "says nothing about sampling" in found.verdict.explanation
    assert found.ai_statistics.intervals.estimated_total_logs.kind == "exact"


def test_what_sample_would_earn_the_best_grade() -> None:
    store = store_of(20_000, 2_000, 4_000, 12_000)
    small = compare(store, SEOUL, "p", sample_size=10, seed=1, now=NOW).verdict.recommendations
    needed = size_for(95, Truth(total=20_000, error=2_000, warn=4_000, info=12_000))
    assert f"about {needed:,} logs on average; one request draws 500 at most" in " ".join(small)
    assert "ERROR and WARN logs are too rare for this sample" in " ".join(small)


def test_above_ten_million_each_hour_is_sampled_by_itself() -> None:
    logs = [
        (Drawn(1 - 1e-8 * (n + 1), frozenset({"info"})), NOW - timedelta(minutes=30 * n + 1))
        for n in range(48)
    ]
    store = Store(logs)
    found = compare(store, SEOUL, "p", time_hours=24, sample_size=40, seed=1, now=NOW)
    assert store.asked == [("sample", 40), *[("sample", 10)] * 25, ("count", 25)]
    # Here each hour has so few logs that they are all read.
    assert found.ai_statistics.estimated_total_logs == 48


def test_logs_by_the_hour() -> None:
    store = store_of(1000, 100, 200, 600)
    found = hourly(store, ZoneInfo("Asia/Kolkata"), "p", time_hours=12, now=NOW)
    assert found.total_logs == 1000 and found.error_rate == 10
    # 10:20:30 UTC is 15:50:30: twelve whole hours and two parts.
    hours = found.hourly_data
    assert len(hours) == 13
    assert [hours[0].hour, hours[-1].hour] == [
        "2026-11-28T03:00:00+05:30", "2026-11-28T15:00:00+05:30",
    ]  # fmt: skip
    assert hours[0].total == hours[1].total == 0
    assert sum(hour.total for hour in hours) == 1000
    assert [sum(getattr(h, level) for h in hours) for level in ("error", "warn", "info")] == [
        100, 200, 600,
    ]  # fmt: skip
    assert found.peak_count == max(hour.total for hour in hours) == 100
    # The first of several.
    assert found.peak_hour == next(hour.hour for hour in hours if hour.total == 100)
    assert hourly(store, SEOUL, "p", time_hours=1, now=NOW).analysis_period_hours == 1


@pytest.mark.parametrize("call", [compare, hourly])
def test_no_logs_in_the_period(call: object) -> None:
    with pytest.raises(NoLogs, match="no logs in this period"):
        call(Store(), SEOUL, "p", now=NOW)  # type: ignore[operator]
    store = store_of(10, 1)
    with pytest.raises(NoLogs):
        call(store, SEOUL, "p", now=NOW - timedelta(days=2))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("hours", "size"), [(0, 100), (169, 100), (-1, 100), (24, 9), (24, 501), (24, 0)]
)
def test_what_is_out_of_bounds_is_refused(hours: int, size: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        compare(store_of(10, 1), SEOUL, "p", time_hours=hours, sample_size=size, now=NOW)


@pytest.mark.parametrize(
    "project",
    ["", "*", "a*", "a,b", "a b", "a/b", "../a", ".a", "-a", "_all", "+a", "a?b", "a#b", "a:b",
     "a\\b", "a|b", "<a>", '"a"', "a\n", "a\x00", "x" * 256, "상" * 86, "\ud800"],
)  # fmt: skip
def test_what_can_be_no_project_is_refused(project: str) -> None:
    store = store_of(10, 1)
    for call in (compare, hourly):
        with pytest.raises(ProjectRefused, match="project_uuid") as refused:
            call(store, SEOUL, project, now=NOW)  # type: ignore[operator]
        assert not project or project not in str(refused.value).split("project_uuid")[0]
    assert store.asked == []


@pytest.mark.parametrize(
    "project", ["shop", "3f2a9c1e-77d0-4b8e-9d51-0c6a1f2b3e4d", "a.b", "상점", "a%2Cb", "SHOP"]
)
def test_what_may_be_one_is_looked_for(project: str) -> None:
    require_project(project)

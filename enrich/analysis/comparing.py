"""How near a sample's estimates came to the truth, and what to make of it. Pure.

The estimates are made before, in `sampling`; here they meet the numbers that were counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from enrich.analysis.sampling import Estimate, Estimates

#: The weight of each number in the overall accuracy.
WEIGHTS = {"total": 0.3, "error": 0.3, "error_rate": 0.2, "warn": 0.1, "info": 0.1}

#: From which overall accuracy on, in %: the grade, and the same in English.
GRADES = (
    (95.0, "매우 우수", "excellent"),
    (90.0, "우수", "very good"),
    (80.0, "양호", "good"),
    (70.0, "보통", "fair"),
    (0.0, "미흡", "poor"),
)

#: From here on the estimates may stand in for the counts.
CAN_REPLACE = 90.0

#: Mean error of a normal estimate, in standard errors.
_MEAN_ERROR = math.sqrt(2 / math.pi)

#: What is expected of an estimate of none: it is right, or of no use.
_NONE_SEEN = 50.0


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What was counted."""

    total: int
    error: int
    warn: int
    info: int

    @property
    def error_rate(self) -> float:
        """In %; 0 of none."""
        return 100 * self.error / self.total if self.total else 0.0


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """In %, each from 0 to 100."""

    total: float
    error: float
    warn: float
    info: float
    error_rate: float
    overall: float


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the comparison comes to."""

    grade: str
    grade_english: str
    can_replace: bool
    explanation: str
    recommendations: tuple[str, ...]


def accuracy(estimate: float, truth: float) -> float:
    """100 less the error in % of the truth, 0 at least. Of a truth of 0: whether it was told."""
    if truth == 0:
        return 100.0 if estimate == 0 else 0.0
    return max(0.0, 100.0 - 100.0 * abs(estimate - truth) / abs(truth))


def accuracies(
    truth: Truth, *, total: float, error: float, warn: float, info: float, error_rate: float
) -> Accuracy:
    """The accuracy of each estimate, and their weighted mean."""
    each = {
        "total": accuracy(total, truth.total),
        "error": accuracy(error, truth.error),
        "warn": accuracy(warn, truth.warn),
        "info": accuracy(info, truth.info),
        "error_rate": accuracy(error_rate, truth.error_rate),
    }
    return Accuracy(**each, overall=_weighted(each))


def grade_of(overall: float) -> tuple[str, str]:
    """The grade of an overall accuracy, and the same in English."""
    return next((name, english) for least, name, english in GRADES if overall >= least)


def confidence(estimates: Estimates) -> float:
    """The overall accuracy that estimates with such errors have on average, 0 to 100: from the
    sample alone."""
    return _weighted(
        {
            "total": _expected(estimates.total),
            "error": _expected(estimates.error),
            "warn": _expected(estimates.warn),
            "info": _expected(estimates.info),
            "error_rate": _expected(estimates.error_rate),
        }
    )


def expected_accuracy(size: int, truth: Truth) -> float:
    """The overall accuracy that samples of `size` logs have on average, in %, about."""
    if size >= truth.total:
        return 100.0
    unread = 1 - size / truth.total
    rate = truth.error / truth.total

    def of(count: int) -> float:
        # Of a level that is not there nothing is seen either.
        seen = size * count / truth.total
        return _mean_accuracy(math.sqrt(unread / seen)) if seen else 100.0

    of_rate = math.sqrt((1 - rate) * unread / (rate * size)) if rate else 0.0
    return _weighted(
        {
            "total": of(truth.total),
            "error": of(truth.error),
            "warn": of(truth.warn),
            "info": of(truth.info),
            "error_rate": _mean_accuracy(of_rate),
        }
    )


def size_for(overall: float, truth: Truth) -> int:
    """The smallest sample that has this overall accuracy on average; all logs at most."""
    low, high = 1, max(2, truth.total)
    while high - low > 1:
        middle = (low + high) // 2
        if expected_accuracy(middle, truth) >= overall:
            high = middle
        else:
            low = middle
    return high


def reasoning(estimates: Estimates) -> str:
    """How the numbers came about, from the sample alone."""
    if estimates.census:
        return (
            f"All {estimates.read:,} logs of the period were read, since there are fewer than were "
            "asked for: this is a count, and nothing is estimated."
        )
    parts = f" in {estimates.strata:,} parts, one for each hour" if estimates.strata > 1 else ""
    told = (
        f"{estimates.read:,} logs were drawn at random{parts}. How near the last of their scores "
        f"is to 1 says that there are about {estimates.total.value:,.0f} logs "
        f"({_limits(estimates.total)})"
    )
    share = estimates.error_rate
    if estimates.error.value == 0:
        return (
            f"{told}. None of those drawn is an ERROR log, so that there are at most "
            f"{estimates.error.high:,.0f}, or {share.high:.2f} % of all (95 % limit)."
        )
    return (
        f"{told}. Of those drawn {share.value:.1f} % are ERROR logs ({share.low:.1f} to "
        f"{share.high:.1f} %), which makes about {estimates.error.value:,.0f} "
        f"({_limits(estimates.error)})."
    )


def verdict_of(
    truth: Truth, estimates: Estimates, found: Accuracy, *, asked: int, most: int
) -> Verdict:
    """
    Args:
        asked: logs that were asked for.
        most: logs that may be asked for.
    """
    grade, english = grade_of(found.overall)
    can_replace = found.overall >= CAN_REPLACE
    if estimates.census:
        explanation = (
            f"All {truth.total:,} logs were read, so that the numbers are counted: "
            f"{found.overall:.1f} % says nothing about sampling."
        )
    else:
        explanation = (
            f"From {estimates.read:,} of {truth.total:,} logs the estimates come to "
            f"{found.overall:.1f} % of the truth: {found.total:.1f} % for all logs, "
            f"{found.error:.1f} % for ERROR logs, {found.error_rate:.1f} % for their rate. "
            f"Samples of this size have {expected_accuracy(estimates.read, truth):.1f} % on "
            f"average, so that this {'may' if can_replace else 'does not'} stand in for the counts"
            f"{', and the next one may come out otherwise' if can_replace else ''}."
        )
    return Verdict(
        grade=grade,
        grade_english=english,
        can_replace=can_replace,
        explanation=explanation,
        recommendations=tuple(_recommendations(truth, estimates, asked=asked, most=most)),
    )


def _recommendations(truth: Truth, estimates: Estimates, *, asked: int, most: int) -> list[str]:
    saves_nothing = (
        "Take the aggregation: to score the logs the sample reads every one that matches, and so "
        "saves nothing over counting them. It would where each log that is drawn costs much more "
        "than it costs to find, such as a question to a model about its text, or where logs come "
        "by without being kept."
    )
    if estimates.census:
        return [
            f"A sample needs more logs than it draws: {asked:,} were asked for, and there are "
            f"{truth.total:,}. A longer period or a smaller sample would make it one.",
            saves_nothing,
        ]
    best, name, english = GRADES[0]
    needed = size_for(best, truth)
    if needed <= estimates.read:
        size = (
            f"{estimates.read:,} logs are enough for {name} ({english}) on average: {needed:,} "
            "would do."
        )
    else:
        size = (
            f"For {name} ({english}, {best:.0f} %) a sample needs about {needed:,} logs on average"
        )
        size += "." if needed <= most else f"; one request draws {most:,} at most."
    found = [saves_nothing, size]
    rare = [
        level
        for level, count in (("ERROR", truth.error), ("WARN", truth.warn), ("INFO", truth.info))
        if count and count * estimates.read < _FEW * truth.total
    ]
    if rare:
        found.append(
            f"{' and '.join(rare)} logs are too rare for this sample, of which fewer than {_FEW} "
            "are such: search for them by their level, which finds each of them."
        )
    return found


#: Of fewer, the estimate is off by a third on average.
_FEW = 6


def _weighted(each: dict[str, float]) -> float:
    return sum(weight * each[name] for name, weight in WEIGHTS.items())


def _expected(estimate: Estimate) -> float:
    if math.isinf(estimate.relative_error):
        return _NONE_SEEN
    return _mean_accuracy(estimate.relative_error)


def _mean_accuracy(relative_error: float) -> float:
    return max(0.0, 100.0 * (1 - _MEAN_ERROR * relative_error))


def _limits(estimate: Estimate) -> str:
    return f"95 %: {estimate.low:,.0f} to {estimate.high:,.0f}"

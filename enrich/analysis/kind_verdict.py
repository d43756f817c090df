"""What trying several k comes to: which is best, whether that is near enough, and at what price, in
numbers and in words. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from enrich.analysis.comparing import grade_of
from enrich.analysis.kinds import KindAccuracy, KindEstimates, KindTruth

#: From which overall accuracy on, in %, k logs may stand in for the aggregation.
FEASIBLE = 85.0

#: Good and Turing's estimate is said to agree with what was missed up to so many points.
_AGREES = 5.0


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One k, one way."""

    k: int
    found: KindEstimates
    near: KindAccuracy
    milliseconds: float


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """What it comes to."""

    best_k: int
    best_accuracy: float
    feasible: bool
    grade: str
    grade_english: str
    recommendation: str
    performance_vs_db: str
    key_findings: tuple[str, ...]


def conclude(
    truth: KindTruth, samples: Sequence[Tried], nearest: Sequence[Tried], db_milliseconds: float
) -> Conclusion:
    """What the random samples come to, with the nearest logs beside them.

    Only a sample is a ground to conclude from: hits near one vector are right or wrong by luck.

    Args:
        samples: one at least.
        nearest: of the same k, or none.
    """
    # A census is right at any k, and says nothing of sampling.
    estimated = [one for one in samples if not one.found.census] or samples
    best = max(estimated, key=lambda one: (round(one.near.overall, 2), -one.k))
    grade, english = grade_of(best.near.overall)
    feasible = best.near.overall >= FEASIBLE
    return Conclusion(
        best_k=best.k,
        best_accuracy=best.near.overall,
        feasible=feasible,
        grade=grade,
        grade_english=english,
        recommendation=_recommendation(truth, best, feasible, db_milliseconds),
        performance_vs_db=_performance(best, db_milliseconds),
        key_findings=tuple(_findings(truth, samples, nearest)),
    )


def insights(truth: KindTruth, samples: Sequence[Tried], nearest: Sequence[Tried]) -> list[str]:
    """Why it came out as it did, in sentences."""
    told = sum(count for count in truth.counts.values())
    rare = sum(count == 1 for count in truth.counts.values())
    found = [
        f"{len(truth.counts):,} kinds in {told:,} logs, {rare:,} of them with a single log: a kind "
        "that is rare is missed by most samples, however right these are about the frequent ones."
    ]
    drawn = [one for one in samples if not one.found.census]
    if drawn:
        most = max(drawn, key=lambda one: one.k)
        unseen = 100 * most.found.unseen_share
        agrees = abs(unseen - most.near.unseen_share) <= _AGREES
        found.append(
            f"From k={most.k:,} Good and Turing's formula expects {unseen:.1f} % of the logs to be "
            f"of kinds that the sample missed; {most.near.unseen_share:.1f} % are. The sample "
            f"{'knows' if agrees else 'misjudges'} how much it does not know."
        )
    near = [one for one in nearest if not one.found.census]
    if near:
        worst = max(near, key=lambda one: one.k)
        found.append(
            f"The k-NN hits of k={worst.k:,} are the logs most like one log: "
            f"{len(worst.found.counts):,} of {len(truth.counts):,} kinds are among them, and their "
            "shares are those of a neighbourhood, not of the project."
        )
    return found


def _recommendation(truth: KindTruth, best: Tried, feasible: bool, db_milliseconds: float) -> str:
    price = (
        "it is exact, "
        + ("and faster here" if db_milliseconds <= best.milliseconds else "if slower here")
        + ", and a sample reads every log that matches to draw some of them"
    )
    if best.found.census:
        return (
            f"Take the aggregation. k={best.k:,} reads every log that has a vector, so that "
            f"nothing is estimated, and its {best.near.overall:.1f} % say nothing for sampling: "
            "ask for a longer period or for a smaller k."
        )
    if not feasible:
        return (
            f"No: take the aggregation. The best k tried, {best.k:,} of {truth.total:,} logs, "
            f"comes to {best.near.overall:.1f} % where {FEASIBLE:.0f} % would do; {price}."
        )
    return (
        f"k={best.k:,} of {truth.total:,} logs comes near enough ({best.near.overall:.1f} %) to "
        f"tell the frequent kinds and their shares. Take the aggregation all the same where there "
        f"is one: {price}. A sample pays where each log costs more to look at than to find, such "
        "as a question to a model about its text."
    )


def _performance(best: Tried, db_milliseconds: float) -> str:
    return (
        f"k={best.k:,} took {best.milliseconds:,.1f} ms, the aggregation over all logs "
        f"{db_milliseconds:,.1f} ms: {_times(best.milliseconds, db_milliseconds)}"
    )


def _times(mine: float, others: float) -> str:
    slow, fast = max(mine, others), min(mine, others)
    if fast <= 0 or slow / fast < 1.05:
        return "as fast as the aggregation"
    return f"{slow / fast:.1f} × {'slower' if mine > others else 'faster'} than the aggregation"


def _findings(truth: KindTruth, samples: Sequence[Tried], nearest: Sequence[Tried]) -> list[str]:
    found = [
        f"random sample, k={one.k:,}: {one.near.overall:.1f} % overall (total "
        f"{one.near.total:.1f} %, kinds {one.near.kind_match:.1f} %, counts "
        f"{one.near.counts:.1f} %); {len(one.near.matched):,} of {len(truth.counts):,} kinds met"
        + (", all logs read" if one.found.census else "")
        for one in samples
    ]
    if not nearest:
        return [*found, "k-NN hits: not compared, see limitations"]
    by_k = {one.k: one for one in samples}
    better = [one.k for one in nearest if one.near.overall > by_k[one.k].near.overall]
    most = max(nearest, key=lambda one: one.k)
    said = (
        f"k-NN hits, k={most.k:,}: {most.near.overall:.1f} % overall, "
        f"{len(most.near.matched):,} of {len(truth.counts):,} kinds met"
    )
    if not better:
        return [*found, f"{said}; at no k better than the random sample"]
    shown = ", ".join(f"{k:,}" for k in better)
    return [
        *found,
        f"{said}; better than the random sample at k={shown}, which another start need not repeat",
    ]

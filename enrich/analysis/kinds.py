"""From k logs to which kinds of errors there are and how many of each, and how near that is. Pure.

Two ways of choosing the k are told apart. A random sample (`sampling`) says how many logs there
are, which shares kinds have, and by Good and Turing's formula what share of the logs is of kinds
that it did not meet. The logs nearest to a vector are no random sample: they say what is near that
vector, and nothing of how much else there is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from enrich.analysis import sampling
from enrich.analysis.comparing import accuracy

#: The weight of each number in the overall accuracy.
WEIGHTS = {"total": 0.3, "kind_match": 0.3, "counts": 0.4}


@dataclass(frozen=True)
class ScoredKind:
    """A log of a random sample: its score, at least 0 and below 1, and its kind."""

    score: float
    kind: str

    @property
    def levels(self) -> frozenset[str]:
        return frozenset({self.kind})


@dataclass(frozen=True, kw_only=True)
class KindEstimates:
    """What k logs say of all.

    Attributes:
        read: logs that were read.
        census: whether these are all there are, so that nothing is estimated.
        total: of all logs; `limits` are those of its 95 % interval, None where nothing tells.
        counts: logs by kind, 1 at least.
        unseen_share: which part of all logs is of kinds that were not met, 0 to 1, estimated.
    """

    read: int
    census: bool
    total: int
    limits: tuple[float, float] | None
    counts: Mapping[str, int]
    unseen_share: float

    def share(self, kind: str) -> float:
        """0 to 1."""
        return self.counts.get(kind, 0) / self.total if self.total else 0.0


@dataclass(frozen=True, kw_only=True)
class KindTruth:
    """What was counted.

    Attributes:
        total: all ERROR logs.
        counts: logs by kind, of those whose kind can be told.
        unlisted: logs of texts beyond those that were listed.
    """

    total: int
    counts: Mapping[str, int]
    unlisted: int = 0

    @property
    def told(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True, kw_only=True)
class KindAccuracy:
    """How near estimates are to the truth; in % where nothing else is said.

    Attributes:
        kind_match: kinds that both have, of all that either has.
        counts: mean accuracy of the kinds' counts, each with the weight of its logs.
        matched, missed, false: kinds in both, in the truth alone, in the estimate alone; those with
            most logs first.
        unseen_share: which part of the logs is of kinds that were missed.
    """

    total: float
    kind_match: float
    counts: float
    overall: float
    matched: tuple[str, ...]
    missed: tuple[str, ...]
    false: tuple[str, ...]
    unseen_share: float


def of_sample(logs: Iterable[ScoredKind], asked: int) -> KindEstimates:
    """What the `asked` logs of the highest random scores say of all; fewer are a census.

    Raises:
        ValueError: a score is not of [0, 1), or none was asked for.
    """
    if asked < 1:
        raise ValueError("a sample needs a log at least")
    drawn = sorted(logs, key=lambda log: (-log.score, log.kind))[:asked]
    seen = Counter(log.kind for log in drawn)
    read = len(drawn)
    if read < asked:
        return _census(seen)
    if asked == 1:
        # One score is no measure of how many there are.
        return KindEstimates(
            read=1, census=False, total=1, limits=None, counts=dict(seen), unseen_share=1.0
        )
    total = sampling.estimate(drawn, asked).total
    return KindEstimates(
        read=read,
        census=False,
        total=round(total.value),
        limits=(total.low, total.high),
        counts={kind: max(1, round(n * total.value / read)) for kind, n in seen.items()},
        # Of the logs that were not read, Good and Turing's part is of kinds that were not met.
        unseen_share=good_turing(seen) * (1 - read / total.value),
    )


def of_hits(kinds: Sequence[str], asked: int) -> KindEstimates:
    """What the nearest logs to a vector say when they are taken for all there are: nothing in them
    tells how many others there might be."""
    seen = Counter(kinds[:asked])
    if len(kinds) < asked:
        return _census(seen)
    return KindEstimates(
        read=seen.total(),
        census=False,
        total=seen.total(),
        limits=None,
        counts=dict(seen),
        unseen_share=good_turing(seen),
    )


def good_turing(seen: Mapping[str, int]) -> float:
    """The chance that the next log of an endless row is of a kind that was not met: kinds met once,
    of all logs read (I. J. Good, "The population frequencies of species and the estimation of
    population parameters", Biometrika 1953). 1 where none was read."""
    read = sum(seen.values())
    return sum(n == 1 for n in seen.values()) / read if read else 1.0


def compared(truth: KindTruth, found: KindEstimates) -> KindAccuracy:
    """Estimates beside what was counted."""
    true, told = truth.counts, found.counts
    matched = [kind for kind in true if kind in told]
    missed = [kind for kind in true if kind not in told]
    false = [kind for kind in told if kind not in true]
    either = len(matched) + len(missed) + len(false)
    each = {
        "total": accuracy(found.total, truth.total),
        "kind_match": 100 * len(matched) / either if either else 100.0,
        "counts": (
            sum(count * accuracy(told.get(kind, 0), count) for kind, count in true.items())
            / truth.told
            if truth.told
            else 100.0
        ),
    }
    return KindAccuracy(
        **each,
        overall=sum(weight * each[name] for name, weight in WEIGHTS.items()),
        matched=_most_first(matched, true),
        missed=_most_first(missed, true),
        false=_most_first(false, told),
        unseen_share=(100 * sum(true[kind] for kind in missed) / truth.told if truth.told else 0.0),
    )


def _census(seen: Counter[str]) -> KindEstimates:
    total = seen.total()
    return KindEstimates(
        read=total,
        census=True,
        total=total,
        limits=(total, total),
        counts=dict(seen),
        unseen_share=0.0,
    )


def _most_first(kinds: Iterable[str], counts: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(sorted(kinds, key=lambda kind: (-counts[kind], kind)))

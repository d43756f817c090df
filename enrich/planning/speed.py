"""How long a backlog takes, by how long runs took. Pure.

Two things take time: a log that is written, and a text that is asked for. What each takes is fitted
to past runs, which differ in how often texts repeat. The API's limits are a bound of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: Of runs that wrote less, most of the time is their beginning and end.
LEAST_VECTORS = 500
#: What records of runs tell apart.
LEAST_SECONDS = 0.001

#: What a run says of the next is worth so much less with each run that came after it: a cluster is
#: given nodes, or other work. But something always: it may be the only one that had another mix.
FADING, LEAST_WORTH = 0.8, 0.02

#: Logs a second where no run has shown it: a quarter of what two cores with everything on them did
#: (docs/performance.md).
ASSUMED_RATE = 500.0


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a run that went well did, and in which time."""

    vectors: int
    inputs: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Seconds of the whole deployment."""

    a_log: float
    a_text: float
    #: Runs and vectors that this was learned from; 0 where it is an assumption.
    runs: int = 0
    vectors: int = 0

    def seconds(self, logs: float, texts: float) -> float:
        """To give so many logs their vectors, of which so many texts are asked for."""
        return self.a_log * logs + self.a_text * texts


ASSUMED = Speed(a_log=1 / ASSUMED_RATE, a_text=0.0)


def speed_of(runs: Sequence[Ran]) -> Speed:
    """What runs have shown; ASSUMED where none is large enough.

    Least squares of the relative error, each run with the weight of its vectors, which fades with
    age; neither time below 0. Runs that all have the same mix show only the sum, which is put on
    the logs then.

    Args:
        runs: the newest first.
    """
    told = [r for r in runs if r.vectors >= LEAST_VECTORS and r.seconds >= LEAST_SECONDS]
    if not told:
        return ASSUMED
    nn = nm = mm = n1 = m1 = 0.0
    for age, run in enumerate(told):
        n, m = run.vectors / run.seconds, run.inputs / run.seconds
        weight = run.vectors * max(LEAST_WORTH, FADING**age)
        nn, nm, mm = nn + weight * n * n, nm + weight * n * m, mm + weight * m * m
        n1, m1 = n1 + weight * n, m1 + weight * m
    learned = {"runs": len(told), "vectors": sum(run.vectors for run in told)}
    spread = nn * mm - nm * nm
    if spread > 1e-3 * nn * mm:
        a_log, a_text = (mm * n1 - nm * m1) / spread, (nn * m1 - nm * n1) / spread
        if a_log > 0 and a_text >= 0:
            return Speed(a_log=a_log, a_text=a_text, **learned)
    return Speed(a_log=n1 / nn, a_text=0.0, **learned)


@dataclass(frozen=True, kw_only=True)
class Duration:
    """Seconds that a backlog takes by each of its bounds; the largest is how long it takes."""

    by: Mapping[str, float]

    @property
    def seconds(self) -> float:
        return max(self.by.values(), default=0.0)

    @property
    def binding(self) -> str:
        """The bound that decides; "" where nothing is to be done."""
        return max(self.by, key=lambda name: self.by[name]) if self.seconds else ""


def duration_of(
    *,
    logs: float,
    texts: float,
    tokens: float,
    requests: float,
    speed: Speed,
    requests_per_minute: int = 0,
    tokens_per_minute: int = 0,
    write_pace: int = 0,
    usd: float = 0.0,
    usd_per_day: float = 0.0,
    logs_per_run: int = 0,
    interval_seconds: float = 0.0,
) -> Duration:
    """
    Args:
        texts: those that are asked for.
        requests_per_minute, tokens_per_minute: the API's limits; 0 where there is none.
        write_pace: logs a second; 0 for no limit.
        usd_per_day: what may be spent a day; 0 for no limit.
        logs_per_run: at most, every `interval_seconds`; 0 for no limit.
    """
    by = {"working": speed.seconds(logs, texts)}
    if requests_per_minute:
        by["requests_per_minute"] = 60 * requests / requests_per_minute
    if tokens_per_minute:
        by["tokens_per_minute"] = 60 * tokens / tokens_per_minute
    if write_pace:
        by["write_pace"] = logs / write_pace
    if usd_per_day and usd > usd_per_day:
        # A day's money may be used up at its beginning.
        by["cost_per_day"] = 86_400 * (usd / usd_per_day - 1)
    if logs_per_run and logs > logs_per_run:
        by["logs_per_run"] = interval_seconds * (logs / logs_per_run - 1)
    return Duration(by=by)

"""The vector experiment: can k logs with vectors stand in for an aggregation over kinds of errors?

The answer of `GET /api/v2-langgraph/experiments/vector-vs-db`. The aggregation is made
before and after the samples: the faster of the two is warm, as they are, and logs that arrive
meanwhile are noticed.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Protocol, TypeVar
from zoneinfo import ZoneInfo

from enrich.analysis import kind_verdict, kinds
from enrich.analysis.hours import Period
from enrich.analysis.kind_verdict import Tried
from enrich.analysis.kinds import KindEstimates, KindTruth, ScoredKind
from enrich.api.experiment_models import (
    ExperimentConclusion,
    GroundTruth,
    OneK,
    VectorExperiment,
    Way,
)
from enrich.api.last_hours import NoLogs, last_hours
from enrich.errors import TextUnusable
from enrich.log_store.error_kinds import MOST_TEXTS, DrawnText, TextCounts
from enrich.log_store.project_logs import AnswerInPart
from enrich.text.error_kind import ErrorKind, error_kind
from enrich.text.extract import text_of

#: Bounds of what may be asked.
LEAST_K, MOST_K, MOST_K_VALUES = 1, 10_000, 10
K_VALUES = "100,500,1000"

T = TypeVar("T")


class KindStore(Protocol):
    """What is asked of the log store."""

    def indices_of(self, project: str) -> list[str]: ...
    def count(self, indices: Sequence[str], start: datetime, end: datetime) -> TextCounts: ...
    def sample(
        self, indices: Sequence[str], start: datetime, end: datetime, size: int, seed: int
    ) -> list[DrawnText]: ...
    def vector_of(self, logs: Iterable[DrawnText]) -> list[float] | None: ...
    def nearest(
        self, indices: Sequence[str], start: datetime, end: datetime, vector: list[float], k: int
    ) -> list[str]: ...
    def messages(
        self, indices: Sequence[str], start: datetime, end: datetime, texts: Iterable[str]
    ) -> Iterable[tuple[str, str]]: ...


def read_k_values(given: str) -> tuple[int, ...]:
    """Numbers with commas between them, in order, each once.

    Raises:
        ValueError: one is out of bounds, or there are too many.
    """
    parts = [part.strip() for part in given.split(",")]
    if not all(re.fullmatch("[0-9]{1,6}", part) for part in parts):
        raise ValueError("k_values must be whole numbers with commas between them")
    found = tuple(sorted({int(part) for part in parts}))
    _require_k_values(found)
    return found


def vector_experiment(
    store: KindStore,
    zone: ZoneInfo,
    project_uuid: str,
    *,
    time_hours: int = 24,
    k_values: Sequence[int] = (100, 500, 1000),
    seed: int | None = None,
    now: datetime | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> VectorExperiment:
    """Count a project's ERROR logs of the last hours by kind, estimate the same from k of them for
    each k, and compare.

    Args:
        seed: of the samples; one at random if None.
        now: the end of the period; aware. The present if None.
        clock: seconds.

    Raises:
        ValueError: `time_hours` or `k_values` is out of bounds.
        NoLogs, ProjectUnknown: there is nothing to compare.
        ProjectRefused: `project_uuid` is the id of no project.
        AnswerInPart: a shard did not answer.
        EnrichError: as the log store.
    """
    _require_k_values(k_values)
    period = last_hours(time_hours, now)
    seed = secrets.randbelow(2**31) if seed is None else seed
    asking = _Asking(store, store.indices_of(project_uuid), period, clock)
    counted, first_ms = asking.count()
    _require_vectors(counted)
    samples, hits, why_no_hits = asking.each_way(sorted(set(k_values)), seed)
    again, second_ms = asking.count()
    db_ms = min(first_ms, second_ms)

    texts = {*counted.texts, *(one.text for drawn, _ in samples.values() for one in drawn)}
    texts.update(text for found, _ in hits.values() for text in found)
    named, naming_ms = asking.kinds_of(texts)
    ids = {text: kind.id for text, kind in named.items()}
    names = {kind.id: kind.name for kind in named.values()}
    truth = KindTruth(
        total=counted.total,
        counts=_by_kind(counted.texts, ids),
        unlisted=counted.unlisted,
    )

    def tried(k: int, found: KindEstimates, milliseconds: float) -> Tried:
        return Tried(k=k, found=found, near=kinds.compared(truth, found), milliseconds=milliseconds)

    random = [
        tried(k, kinds.of_sample([ScoredKind(one.score, ids[one.text]) for one in drawn], k), ms)
        for k, (drawn, ms) in samples.items()
    ]
    nearest = [
        tried(k, kinds.of_hits([ids[text] for text in found], k), ms)
        for k, (found, ms) in hits.items()
    ]
    nearest_of = {one.k: Way.of(one, names, db_ms, is_random=False) for one in nearest}
    return VectorExperiment(
        project_uuid=project_uuid,
        analysis_period_hours=time_hours,
        k_values=[one.k for one in random],
        seed=seed,
        analyzed_at=period.end.astimezone(zone),
        ground_truth=GroundTruth.of(counted, truth, names, db_ms),
        experiments=[
            OneK(
                k=one.k,
                random_sample=Way.of(one, names, db_ms, is_random=True),
                knn_hits=nearest_of.get(one.k),
            )
            for one in random
        ],
        conclusion=ExperimentConclusion.of(kind_verdict.conclude(truth, random, nearest, db_ms)),
        insights=kind_verdict.insights(truth, random, nearest),
        limitations=_limitations(
            counted,
            changed=again != counted,
            why_no_hits=why_no_hits,
            texts=len(texts),
            naming_ms=naming_ms,
        ),
    )


class _Asking:
    """Asks for one project's logs of one period, and takes the time."""

    def __init__(
        self,
        store: KindStore,
        indices: Sequence[str],
        period: Period,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._indices = indices
        self._within = (period.start, period.end)
        self._clock = clock

    def count(self) -> tuple[TextCounts, float]:
        return self._timed(partial(self._store.count, self._indices, *self._within))

    def each_way(
        self, k_values: Sequence[int], seed: int
    ) -> tuple[dict[int, tuple[list[DrawnText], float]], dict[int, tuple[list[str], float]], str]:
        """The random sample and the nearest logs of each k, with milliseconds; and why there are no
        nearest ones, or ""."""
        samples = {
            k: self._timed(partial(self._store.sample, self._indices, *self._within, k, seed))
            for k in k_values
        }
        # A log at random is where the nearest are looked for: nothing is paid for that.
        start = self._store.vector_of(samples[max(samples)][0])
        if start is None:
            return (
                samples,
                {},
                "no log that was drawn has a vector of EMBEDDING_MODEL to start from",
            )
        try:
            hits = {
                k: self._timed(partial(self._store.nearest, self._indices, *self._within, start, k))
                for k in k_values
            }
        except AnswerInPart as error:
            return samples, {}, str(error)
        return samples, hits, ""

    def kinds_of(self, texts: Iterable[str]) -> tuple[dict[str, ErrorKind], float]:
        """The kind of each text; one whose log has gone is a kind by itself."""

        def ask() -> dict[str, ErrorKind]:
            wanted = sorted(texts)
            found = self._store.messages(self._indices, *self._within, wanted)
            told = {text: _kind_of(text, message) for text, message in found}
            return {text: told.get(text) or _kind_of(text, None) for text in wanted}

        return self._timed(ask)

    def _timed(self, ask: Callable[[], T]) -> tuple[T, float]:
        begun = self._clock()
        answer = ask()
        return answer, 1000 * (self._clock() - begun)


def _kind_of(text: str, message: str | None) -> ErrorKind:
    try:
        return error_kind(text_of({"message": message}))
    except TextUnusable:
        return ErrorKind(text[:16], f"a text that cannot be read any more ({text[:16]})")


def _by_kind(texts: Mapping[str, int], ids: Mapping[str, str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for text, count in texts.items():
        counts[ids[text]] = counts.get(ids[text], 0) + count
    return counts


def _limitations(
    counted: TextCounts, *, changed: bool, why_no_hits: str, texts: int, naming_ms: float
) -> list[str]:
    found = [
        "Only ERROR logs have vectors: nothing is said of WARN and INFO logs, of error rates and "
        "of all logs.",
        f"{counted.without_vector:,} of {counted.total:,} ERROR logs have no vector now, and no "
        "vector can stand in for these.",
        "k-NN hits are no random sample: they are the logs nearest to one log, chosen at random, "
        "and do not tell how many others there are.",
        "The random sample needs no vector: it is drawn by a random score, which every log of the "
        "period is read for.",
        "Logs are of one kind where their first line and their last cause are the same after "
        "masking and normalising; a log counts under the text that it was embedded with.",
        "Both ways have to read one log of each text to tell its kind, which is in neither's time: "
        f"{naming_ms:,.0f} ms for {texts:,} texts here.",
    ]
    if counted.unlisted:
        found.append(
            f"The aggregation lists {MOST_TEXTS:,} texts; {counted.unlisted:,} logs have others. "
            "Kinds that only these have are missing in the truth, and count as false where k logs "
            f"meet them. A listed count may be too low by {counted.count_error:,}."
        )
    else:
        found.append("The aggregation lists every text, so that its counts are exact.")
    if changed:
        found.append(
            "Logs were written, changed or deleted meanwhile: two aggregations differ, and a part "
            "of the errors may come from that."
        )
    if why_no_hits:
        found.append(f"k-NN was not compared: {why_no_hits}.")
    return found


def _require_vectors(counted: TextCounts) -> None:
    if not counted.total:
        raise NoLogs(
            "the project has no ERROR logs in this period: ask for more hours, and check that its "
            "logs have their time where ENRICH_SCHEMA and ENRICH_TIMESTAMP_FIELD say"
        )
    if not counted.texts:
        raise NoLogs(
            f"none of the project's {counted.total:,} ERROR logs of this period has a vector yet: "
            "`python -m enrich run` gives them one"
        )


def _require_k_values(values: Sequence[int]) -> None:
    if not 1 <= len(set(values)) <= MOST_K_VALUES:
        raise ValueError(f"k_values must be 1 to {MOST_K_VALUES} numbers")
    if not all(LEAST_K <= k <= MOST_K for k in values):
        raise ValueError(f"k_values must be {LEAST_K} to {MOST_K:,}")

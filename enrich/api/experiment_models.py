"""What `GET /api/v2-langgraph/experiments/vector-vs-db` answers, and how numbers become it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from pydantic import BaseModel, Field

from enrich.analysis import kind_verdict
from enrich.analysis.kind_verdict import Conclusion, Tried
from enrich.analysis.kinds import KindAccuracy, KindTruth
from enrich.api.rounded import Hundredths
from enrich.log_store.error_kinds import TextCounts

#: Overall accuracy in % that would do.
FEASIBLE = kind_verdict.FEASIBLE

#: Kinds of which an answer says more than that they are there: those with most logs.
MOST_SHOWN = 20


class Cluster(BaseModel):
    """One kind of error."""

    kind: str = Field(description="The same id wherever the kind is met")
    name: str = Field(description="Its first line and its last cause, masked and normalised")
    count: int
    share: Hundredths = Field(description="In % of the logs that the counts are of")

    @classmethod
    def most(cls, counts: Mapping[str, int], names: Mapping[str, str], of: int) -> list[Cluster]:
        """The kinds with most logs.

        Args:
            counts: logs by kind.
            names: of each kind.
            of: logs that the counts are of.
        """
        most = sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:MOST_SHOWN]
        return [
            cls(kind=kind, name=names[kind], count=count, share=100 * count / of if of else 0.0)
            for kind, count in most
        ]


class GroundTruth(BaseModel):
    """What was counted, by aggregation."""

    total_errors: int = Field(description="All ERROR logs, with a vector or without")
    without_vector: int = Field(description="Those that no vector can find")
    kinds: int
    texts: int = Field(description="Distinct texts that make up the kinds")
    other_logs: int = Field(
        description="Logs of texts beyond those that the aggregation lists: their kinds are unknown"
    )
    count_error: int = Field(description="By so many at most a count may be too low")
    clusters: list[Cluster] = Field(description="The kinds with most logs")
    processing_time_ms: Hundredths = Field(description="Of the aggregation, the faster of two")

    @classmethod
    def of(
        cls, counted: TextCounts, truth: KindTruth, names: Mapping[str, str], milliseconds: float
    ) -> GroundTruth:
        return cls(
            total_errors=counted.total,
            without_vector=counted.without_vector,
            kinds=len(truth.counts),
            texts=len(counted.texts),
            other_logs=counted.unlisted,
            count_error=counted.count_error,
            clusters=Cluster.most(truth.counts, names, truth.told),
            processing_time_ms=milliseconds,
        )


class WayAccuracy(BaseModel):
    """How near the estimates are to the truth, in %."""

    total: Hundredths
    kind_match: Hundredths = Field(description="Kinds in both, of the kinds in either")
    counts: Hundredths = Field(description="Mean accuracy of the counts, weighted by the true ones")
    overall: Hundredths = Field(description="0.3 total + 0.3 kind_match + 0.4 counts")

    @classmethod
    def of(cls, near: KindAccuracy) -> WayAccuracy:
        return cls(
            total=near.total, kind_match=near.kind_match, counts=near.counts, overall=near.overall
        )


class NamedKinds(BaseModel):
    """How many kinds, and those with most logs by name."""

    count: int
    most: list[str]

    @classmethod
    def of(cls, kinds: Sequence[str], names: Mapping[str, str]) -> NamedKinds:
        """Args: kinds: those with most logs first."""
        return cls(count=len(kinds), most=[names[kind] for kind in kinds[:MOST_SHOWN]])


class Way(BaseModel):
    """What k logs say of all, chosen one way."""

    is_random: bool = Field(description="Only of a random sample do estimates hold")
    logs_read: int
    census: bool = Field(description="All logs were read: this is a count, no estimate")
    estimated_total: int
    total_low: Hundredths | None = Field(
        description="95 % interval of the total; null: nothing tells"
    )
    total_high: Hundredths | None
    estimated_kinds: int
    estimated_clusters: list[Cluster] = Field(description="The kinds with most logs")
    accuracy: WayAccuracy
    matched: NamedKinds
    missed: NamedKinds
    false: NamedKinds
    unseen_share_good_turing: Hundredths = Field(
        description=(
            "Good and Turing's estimate of the share of logs, in %, whose kind was not met; of "
            "hits that are not random it holds nothing"
        )
    )
    unseen_share: Hundredths = Field(description="The same, as counted")
    processing_time_ms: Hundredths
    times_db: Hundredths = Field(description="Time as a multiple of the aggregation's")

    @classmethod
    def of(
        cls, tried: Tried, names: Mapping[str, str], db_milliseconds: float, *, is_random: bool
    ) -> Way:
        found, near = tried.found, tried.near
        low, high = found.limits or (None, None)
        return cls(
            is_random=is_random,
            logs_read=found.read,
            census=found.census,
            estimated_total=found.total,
            total_low=low,
            total_high=high,
            estimated_kinds=len(found.counts),
            estimated_clusters=Cluster.most(found.counts, names, found.total),
            accuracy=WayAccuracy.of(near),
            matched=NamedKinds.of(near.matched, names),
            missed=NamedKinds.of(near.missed, names),
            false=NamedKinds.of(near.false, names),
            unseen_share_good_turing=100 * found.unseen_share,
            unseen_share=near.unseen_share,
            processing_time_ms=tried.milliseconds,
            times_db=tried.milliseconds / db_milliseconds if db_milliseconds > 0 else 0.0,
        )


class OneK(BaseModel):
    """Both ways with one k."""

    k: int
    random_sample: Way
    knn_hits: Way | None = Field(description="null where k-NN could not be asked: see limitations")


class ExperimentConclusion(BaseModel):
    """What it comes to."""

    best_k: int
    best_accuracy: Hundredths
    feasible: bool = Field(description="Whether that is 85 % or more")
    grade: str
    grade_english: str
    recommendation: str
    performance_vs_db: str
    key_findings: list[str]

    @classmethod
    def of(cls, found: Conclusion) -> ExperimentConclusion:
        return cls(
            best_k=found.best_k,
            best_accuracy=found.best_accuracy,
            feasible=found.feasible,
            grade=found.grade,
            grade_english=found.grade_english,
            recommendation=found.recommendation,
            performance_vs_db=found.performance_vs_db,
            key_findings=list(found.key_findings),
        )


class VectorExperiment(BaseModel):
    """The answer to `/experiments/vector-vs-db`."""

    project_uuid: str
    analysis_period_hours: int
    k_values: list[int]
    seed: int = Field(description="The same draws the same logs again")
    analyzed_at: datetime
    ground_truth: GroundTruth
    experiments: list[OneK]
    conclusion: ExperimentConclusion
    insights: list[str]
    limitations: list[str]

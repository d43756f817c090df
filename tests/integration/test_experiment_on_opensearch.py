"""The vector experiment on a real OpenSearch, with vectors of the built-in logs: the truth is what
was indexed, both ways find what is there, and nothing of another project."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dev.embedding_model import Model
from dev.failures import failures, ordinary
from dev.sample_logs import PROJECTS, generate
from enrich.api.experiment import vector_experiment
from enrich.api.last_hours import NoLogs
from enrich.log_store.project_logs import AnswerInPart, ProjectRefused, ProjectUnknown
from enrich.text.error_kind import error_kind
from enrich.text.extract import fingerprint, text_of
from tests.conftest import Search

NOW = datetime(2026, 11, 20, tzinfo=UTC)
HOURS = 168
PROJECT = next(iter(PROJECTS))


def at(document: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(document["timestamp"])


def test_the_experiment_on_the_built_in_logs(
    pipeline: Callable[..., Any], search: Search, enrich: Callable[..., Any], model: Model
) -> None:
    by_index: dict[str, list[dict[str, Any]]] = {}
    projects = (PROJECT, list(PROJECTS)[2])
    for log in generate(900, failures=failures(), ordinary=ordinary(), months=["2026-11"]):
        if log.index.startswith(projects):
            by_index.setdefault(log.index, []).append(log.document)
    for index, documents in by_index.items():
        search.create(index)
        search.index(index, documents)
    line = pipeline()
    line.run()
    mine = [
        document
        for document in by_index[f"{PROJECT}_2026_11"]
        if document["level"] == "ERROR" and NOW - timedelta(hours=HOURS) <= at(document) < NOW
    ]
    kinds = Counter(error_kind(text_of(document)).id for document in mine)
    # Without a vector: no vector can stand in for them.
    late = {"level": "ERROR", "message": "late", "timestamp": (NOW - timedelta(1)).isoformat()}
    search.index(f"{PROJECT}_2026_11", [{"_id": f"late-{n}", **late} for n in range(3)])
    # An index that has no vector yet, nor a field for one.
    search.create(f"{PROJECT}_2026_12", settings={"number_of_shards": 1})
    search.index(f"{PROJECT}_2026_12", [{**late, "level": "INFO"}])

    def run(project: str = PROJECT, **options: Any) -> Any:
        given = {"time_hours": HOURS, "k_values": (20, 5000), "seed": 3, "now": NOW, **options}
        return vector_experiment(line.store.error_kinds, line.settings.time_zone, project, **given)

    found = run()
    truth = found.ground_truth
    assert (truth.total_errors, truth.without_vector) == (len(mine) + 3, 3)
    assert (truth.kinds, truth.other_logs, truth.count_error) == (len(kinds), 0, 0)
    shown = {cluster.kind: cluster.count for cluster in truth.clusters}
    assert len(shown) == 20 and shown.items() <= kinds.items()
    assert min(shown.values()) >= max(n for kind, n in kinds.items() if kind not in shown)

    few, every = found.experiments
    for way in (every.random_sample, every.knn_hits):
        assert (way.census, way.logs_read) == (True, len(mine))
        assert (way.matched.count, way.missed.count, way.false.count) == (len(kinds), 0, 0)
        assert (way.accuracy.kind_match, way.accuracy.counts) == (100, 100)
        assert way.accuracy.total == pytest.approx(100 * len(mine) / (len(mine) + 3), abs=0.01)
        assert (way.unseen_share, way.unseen_share_good_turing) == (0, 0)
    for way in (few.random_sample, few.knn_hits):
        assert (way.census, way.logs_read, way.false.count) == (False, 20, 0)
        assert way.matched.count + way.missed.count == len(kinds)
        assert way.processing_time_ms > 0
    told = few.random_sample
    assert told.total_low < told.estimated_total < told.total_high
    assert few.knn_hits.estimated_total == 20
    # What the hits are: the nearest there are, as every cosine tells.
    texts = [text_of(document) for document in mine]
    vectors = model.embed(texts)
    cosines = vectors @ vectors[0]
    of_text = {fingerprint(text): cosine for text, cosine in zip(texts, cosines, strict=True)}
    kinds_of = line.store.error_kinds
    near = kinds_of.nearest(
        kinds_of.indices_of(PROJECT), NOW - timedelta(hours=HOURS), NOW, vectors[0].tolist(), 20
    )
    assert [of_text[text] for text in near] == pytest.approx(sorted(cosines)[:-21:-1], abs=1e-3)
    # A census is right, and says nothing of sampling.
    assert (found.conclusion.best_k, found.conclusion.feasible) == (20, False)
    assert "No: take the aggregation" in found.conclusion.recommendation
    assert all("not compared" not in sentence for sentence in found.limitations)

    # As shippers write it, and nothing of anybody else.
    again = run(PROJECT.replace("_", "-"), k_values=(20,))
    assert again.ground_truth.clusters == truth.clusters
    (same,) = again.experiments
    assert same.random_sample.estimated_clusters == few.random_sample.estimated_clusters
    assert same.knn_hits.estimated_clusters == few.knn_hits.estimated_clusters
    for project in ("*", f"{PROJECT},*", PROJECT[:-1] + "*", "../_all"):
        with pytest.raises(ProjectRefused):
            run(project)
    with pytest.raises(ProjectUnknown):
        run(PROJECT[:-1])
    with pytest.raises(NoLogs, match="no ERROR logs in this period"):
        run(now=NOW - timedelta(days=300))

    # As the command line has it: the same numbers.
    asked = (PROJECT, "--hours", str(HOURS), "--until", "2026-11-20T00:00Z", "--seed", "3")
    printed = enrich("experiment", *asked, "-k", "5000,20", "--json")
    assert printed.returncode == 0, printed.stderr
    answer = json.loads(printed.stdout)
    assert answer["ground_truth"]["clusters"] == [one.model_dump() for one in truth.clusters]
    for mine_, theirs in zip(answer["experiments"], found.experiments, strict=True):
        assert mine_["random_sample"]["accuracy"] == theirs.random_sample.accuracy.model_dump()
        assert mine_["knn_hits"]["accuracy"] == theirs.knn_hits.accuracy.model_dump()

    # An index that is red voids the experiment.
    nowhere = {"index.routing.allocation.require._name": "nobody"}
    search("PUT", f"/{PROJECT}_2026_10?wait_for_active_shards=0", {"settings": nowhere})
    with pytest.raises(AnswerInPart):
        run()

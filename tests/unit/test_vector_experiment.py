"""The vector experiment's answer, put together from what a log store says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from rich.cells import cell_len
from typer.testing import CliRunner, Result

from enrich import wiring
from enrich.api.experiment import read_k_values, vector_experiment
from enrich.api.experiment_models import MOST_SHOWN, VectorExperiment
from enrich.api.last_hours import NoLogs
from enrich.cli import app
from enrich.log_store.error_kinds import DrawnText, TextCounts
from enrich.log_store.project_logs import AnswerInPart, ProjectUnknown, require_project
from enrich.models import LogLocation
from enrich.settings import Settings

NOW = datetime(2026, 11, 28, 10, 20, 30, tzinfo=UTC)


def counted(texts: dict[str, int], **other: Any) -> TextCounts:
    total = sum(texts.values())
    told: dict[str, Any] = {"without_vector": 0, "unlisted": 0, "count_error": 0, **other}
    return TextCounts(total=total + told["without_vector"], texts=texts, **told)


@dataclass
class Store:
    """Logs by their text, with a message for each; asks are recorded."""

    counts: list[TextCounts]
    messages_of: dict[str, str]
    hits: Sequence[str] = ()
    start: list[float] | None = field(default_factory=lambda: [1.0])
    refuses: str = ""
    asked: list[str] = field(default_factory=list)
    ends: list[datetime] = field(default_factory=list)

    def indices_of(self, project: str) -> list[str]:
        require_project(project)
        if project == "nobody":
            raise ProjectUnknown("no index belongs to this project")
        return [f"{project}_2026_11"]

    @property
    def error_kinds(self) -> Store:
        return self

    def close(self) -> None:
        self.asked.append("close")

    def count(self, indices: Sequence[str], start: datetime, end: datetime) -> TextCounts:
        self.ends.append(end)
        self.asked.append(f"count {indices[0]} {(end - start).total_seconds() / 3600:g}")
        return self.counts.pop(0) if len(self.counts) > 1 else self.counts[0]

    def sample(
        self, indices: Sequence[str], start: datetime, end: datetime, size: int, seed: int
    ) -> list[DrawnText]:
        self.asked.append(f"sample {size} {seed}")
        row = [text for text, n in self.counts[0].texts.items() for _ in range(n)]
        scores = [1 - (n + 1) / (len(row) + 1) for n in range(len(row))]
        # Every seventh next, so that each text is drawn as often as it should be.
        order = sorted(range(len(row)), key=lambda n: (n * 7) % len(row))
        return [
            DrawnText(score, row[n], LogLocation("a", str(n), None))
            for score, n in zip(scores, order, strict=True)
        ][:size]

    def vector_of(self, logs: Iterable[DrawnText]) -> list[float] | None:
        return self.start

    def nearest(
        self, indices: Sequence[str], start: datetime, end: datetime, vector: list[float], k: int
    ) -> list[str]:
        if self.refuses:
            raise AnswerInPart(self.refuses)
        return list(self.hits[:k])

    def messages(
        self, indices: Sequence[str], start: datetime, end: datetime, texts: Iterable[str]
    ) -> Iterable[tuple[str, str]]:
        self.asked.append(f"messages {len(list(texts))}")
        return self.messages_of.items()


def store(**options: Any) -> Store:
    texts = {"t1": 50, "t2": 30, "t3": 15, "t4": 5}
    # Two texts of one kind, and one whose log has gone.
    messages = {"t1": "timeout after 5 s", "t2": "timeout after 7 s", "t3": "refused"}
    return replace(Store([counted(texts)], messages, hits=["t3"] * 15 + ["t1"] * 50), **options)


def run(of: Store, **options: Any) -> Any:
    ticks = count()
    given = {"k_values": (20, 200), "seed": 9, "now": NOW, **options}
    return vector_experiment(
        of, ZoneInfo("Asia/Seoul"), "shop", clock=lambda: next(ticks) / 1000, **given
    )


def test_an_answer() -> None:
    of = store()
    found = run(of)
    assert of.asked == [
        *("count shop_2026_11 24", "sample 20 9", "sample 200 9"),
        *("count shop_2026_11 24", "messages 4"),
    ]
    assert (found.project_uuid, found.k_values, found.seed) == ("shop", [20, 200], 9)
    assert found.analyzed_at.isoformat() == "2026-11-28T19:20:30+09:00"
    truth = found.ground_truth
    assert (truth.total_errors, truth.kinds, truth.texts) == (100, 3, 4)
    assert [(one.count, one.share) for one in truth.clusters] == [(80, 80), (15, 15), (5, 5)]
    assert truth.clusters[0].name == "timeout after <number> s"
    assert truth.clusters[2].name == "a text that cannot be read any more (t4)"
    assert truth.processing_time_ms == 1

    few, every = found.experiments
    # The 20th of 101 parts: 19 / (20 / 101).
    assert few.random_sample.estimated_total == 96
    assert few.random_sample.total_low < 96 < few.random_sample.total_high
    counts = [cluster.count for cluster in few.random_sample.estimated_clusters]
    # 17 and 3 of the 20; none of the third kind, which has 5 % of the logs.
    assert counts == [82, 14]
    assert few.random_sample.accuracy.total == 96
    assert few.random_sample.accuracy.kind_match == 66.67
    assert few.random_sample.accuracy.counts == pytest.approx(0.8 * 97.5 + 0.15 * 100 * 14 / 15)
    assert few.random_sample.unseen_share == 5
    assert few.random_sample.unseen_share_good_turing == 0
    assert (few.random_sample.processing_time_ms, few.random_sample.times_db) == (1, 1)
    # 15 of one kind and 5 of another, and none of the third.
    hits = few.knn_hits
    assert [(one.count, one.share) for one in hits.estimated_clusters] == [(15, 75), (5, 25)]
    assert (hits.is_random, hits.total_low, hits.estimated_total) == (False, None, 20)
    assert (hits.accuracy.total, hits.accuracy.kind_match) == (20, 66.67)
    assert hits.accuracy.counts == pytest.approx(0.8 * 100 * 5 / 80 + 0.15 * 100, abs=0.01)
    assert (hits.missed.count, hits.unseen_share) == (1, 5)
    assert every.random_sample.census and every.random_sample.accuracy.overall == 100
    assert every.knn_hits.census and every.knn_hits.estimated_total == 65
    assert (found.conclusion.best_k, found.conclusion.grade) == (20, "양호")
    assert found.conclusion.best_accuracy == few.random_sample.accuracy.overall
    assert any("every text" in sentence for sentence in found.limitations)


def many(number: int) -> Store:
    texts = {f"t{n}": number - n for n in range(number)}
    return Store(
        [counted(texts)], {text: f"kind {chr(97 + n)}{'x' * n}" for n, text in enumerate(texts)}
    )


def test_an_answer_names_the_most_frequent_kinds_and_counts_all() -> None:
    found = run(many(50), k_values=(2000,))
    assert found.ground_truth.kinds == 50
    assert len(found.ground_truth.clusters) == MOST_SHOWN
    way = found.experiments[0].random_sample
    assert (way.matched.count, len(way.matched.most)) == (50, MOST_SHOWN)
    assert (found.experiments[0].knn_hits.missed.count) == 50


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"start": None}, "k-NN was not compared: no log that was drawn has a vector"),
        ({"refuses": "a shard is away"}, "k-NN was not compared: a shard is away"),
        (
            {"counts": [counted({"t1": 5}), counted({"t1": 6})]},
            "Logs were written, changed or deleted meanwhile",
        ),
        (
            {"counts": [counted({"t1": 5}, unlisted=7, count_error=2)]},
            "7 logs have others",
        ),
        (
            {"counts": [counted({"t1": 5}, without_vector=3)]},
            "3 of 8 ERROR logs have no vector",
        ),
        ({}, "Only ERROR logs have vectors"),
        ({}, "k-NN hits are no random sample"),
    ],
)
def test_limitations(options: dict[str, Any], said: str) -> None:
    found = run(store(**options))
    assert any(said in sentence for sentence in found.limitations)
    refused = "start" in options or "refuses" in options
    assert (found.experiments[0].knn_hits is None) is refused


@pytest.mark.parametrize(
    ("texts", "without", "said"),
    [({}, 0, "no ERROR logs in this period"), ({}, 4, "none of the project's 4 ERROR logs")],
)
def test_nothing_to_compare(texts: dict[str, int], without: int, said: str) -> None:
    with pytest.raises(NoLogs, match=said):
        run(store(counts=[counted(texts, without_vector=without)]))


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("100,500,1000", (100, 500, 1000)),
        ("10000", (10000,)),
        ("5, 1,5", (1, 5)),
        ("1,2,3,4,5,6,7,8,9,10", tuple(range(1, 11))),
    ],
)
def test_k_values(given: str, read: tuple[int, ...]) -> None:
    assert read_k_values(given) == read


@pytest.mark.parametrize(
    "given",
    ["", "a", "1,", "-1", "1.5", "0", "10001", "1e3", "1;2", "1,2,3,4,5,6,7,8,9,10,11", "9" * 500],
)
def test_wrong_k_values(given: str) -> None:
    with pytest.raises(ValueError, match="k_values must be") as wrong:
        read_k_values(given)
    assert len(str(wrong.value)) < 80


@pytest.mark.parametrize(
    "options", [{"time_hours": 0}, {"time_hours": 169}, {"k_values": ()}, {"k_values": (0,)}]
)
def test_wrong_bounds(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        run(store(), **options)


# -- the command line


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Store:
    """What `python -m enrich experiment` asks."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("COLUMNS", "80")
    texts = {f"t{n}": 90 - n for n in range(60)}
    messages = {
        text: f"상품명의 문자 인코딩이 UTF-8이 아닙니다: {'x' * n}" for n, text in enumerate(texts)
    }
    made = Store([counted(texts, without_vector=2)], messages, hits=list(texts))
    monkeypatch.setattr(wiring, "build_store", lambda settings: made)
    return made


def command(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["experiment", *arguments])


def test_the_screen_has_a_chart_and_fits_80_columns(asking: Store) -> None:
    done = command("shop", "--seed", "4", "--until", "2026-11-28T00:00+09:00")
    assert done.exit_code == 0, done.output
    assert asking.asked[1] == "sample 100 4" and asking.asked[-1] == "close"
    assert {end.isoformat() for end in asking.ends} == {"2026-11-27T15:00:00+00:00"}
    rows = done.stdout.splitlines()
    chart = [row for row in rows if "━" in row]
    assert [row.split()[0] for row in chart] == [
        "k=100",
        "k-NN",
        "k=500",
        "k-NN",
        "k=1,000",
        "k-NN",
    ]
    # Forty columns are all of it, and the mark of 85 % is at the 34th.
    assert {row.index("|") for row in chart} == {26 + 34}
    start = rows.index("How near, in %, and how long")
    shown = rows[start : rows.index("Conclusion")]
    assert len(shown) > 15
    assert max(map(cell_len, [*chart, *shown])) <= 80
    assert "2 of 3,632 ERROR logs have no vector" in done.stdout
    assert "the same again: --seed 4 --until 2026-11-28T00:00:00+09:00" in done.stdout


def test_json_is_the_services_answer(asking: Store) -> None:
    done = command("shop", "--json", "-k", "20", "--seed", "9", "--hours", "168")
    answer = VectorExperiment.model_validate_json(done.stdout)
    assert (answer.k_values, answer.analysis_period_hours) == ([20], 168)
    assert answer.ground_truth.total_errors == 3632


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["shop", "-k", "0"], "k_values must be"),
        (["shop", "-k", "many"], "k_values must be"),
        (["shop", "--until", "yesterday"], "--until must be"),
        (["shop", "--until", "0001-01-01"], "--until must be"),
        (["nobody"], "no index belongs"),
        (["shop*"], "project_uuid has characters"),
        (["shop", "--hours", "169"], "168"),
    ],
)
def test_bad_use(asking: Store, arguments: list[str], said: str) -> None:
    done = command(*arguments)
    assert done.exit_code == 2
    assert said in done.output
    assert not asking.ends


def test_its_help_has_an_example(asking: Store) -> None:
    assert "python -m enrich experiment 3f2a9c1e" in command("--help").stdout

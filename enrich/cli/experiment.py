"""`experiment`: what k logs with vectors say of all errors, beside what an aggregation counts.

The same answer as the service's route, with a bar for each k and a table of the kinds.
"""

from __future__ import annotations

from datetime import UTC, datetime

from rich.console import Console
from rich.text import Text

from enrich import wiring
from enrich.api.experiment import read_k_values, vector_experiment
from enrich.api.experiment_models import FEASIBLE, OneK, VectorExperiment, Way
from enrich.api.last_hours import NoLogs
from enrich.cli import screen
from enrich.log_store.project_logs import ProjectRefused, ProjectUnknown
from enrich.settings import Settings

#: Columns of a whole bar, and kinds in the table.
_BAR, _KINDS = 40, 8

#: Years that a period may end in.
_YEARS = range(1971, 2201)


def show(
    settings: Settings,
    project: str,
    hours: int,
    k: str,
    *,
    until: str,
    seed: int | None,
    as_json: bool,
) -> int:
    """Run the experiment and print it. The exit status."""
    try:
        k_values, now = read_k_values(k), _moment(until, settings)
    except ValueError as error:
        screen.line(screen.err(), "bad", str(error))
        return 2
    store = wiring.build_store(settings)
    try:
        found = vector_experiment(
            store.error_kinds,
            settings.time_zone,
            project,
            time_hours=hours,
            k_values=k_values,
            seed=seed,
            now=now,
        )
    except (NoLogs, ProjectRefused, ProjectUnknown) as error:
        screen.line(screen.err(), "bad", str(error))
        return 2
    finally:
        store.close()
    if as_json:
        screen.print_json(found.model_dump(mode="json"))
    else:
        _print(screen.out(), found)
    return 0


def _moment(until: str, settings: Settings) -> datetime | None:
    """Raises ValueError."""
    if not until:
        return None
    try:
        moment = datetime.fromisoformat(until)
    except ValueError:
        raise ValueError("--until must be a time such as 2026-11-28T00:00") from None
    if moment.year not in _YEARS:
        raise ValueError("--until must be a time of this century or so")
    return (moment if moment.tzinfo else moment.replace(tzinfo=settings.time_zone)).astimezone(UTC)


def _print(console: Console, found: VectorExperiment) -> None:
    truth, conclusion = found.ground_truth, found.conclusion
    screen.heading(console, "Ground truth, by aggregation")
    screen.facts(
        console,
        f"{screen.plural(truth.total_errors, 'ERROR log')} in {found.analysis_period_hours:,} "
        f"hours, {truth.without_vector:,} without a vector",
        f"{screen.plural(truth.kinds, 'kind')} in {screen.plural(truth.texts, 'text')}, "
        f"{truth.processing_time_ms:,.1f} ms",
    )
    if truth.other_logs:
        screen.line(console, "warn", f"{truth.other_logs:,} logs of further texts are not listed")
    screen.heading(console, f"Overall accuracy (| is {FEASIBLE:.0f} %, what would do)")
    for one in found.experiments:
        console.print(_bar(f"k={one.k:,}", "random sample", one.random_sample), soft_wrap=True)
        if one.knn_hits is not None:
            console.print(_bar("", "k-NN hits", one.knn_hits), soft_wrap=True)
    screen.heading(console, "How near, in %, and how long")
    columns = ("k", "way", "total", "kinds", "counts", "overall", "unseen", "expected", "ms")
    rows = [row for one in found.experiments for row in _rows(one)]
    screen.put(console, screen.fitted(console, columns, rows, numbers=columns[2:]))
    best = next(one for one in found.experiments if one.k == conclusion.best_k)
    told = {kind.kind: kind.count for kind in best.random_sample.estimated_clusters}
    screen.heading(console, f"The most frequent kinds, and what the sample of {best.k:,} says")
    screen.put(
        console,
        screen.fitted(
            console,
            ("kind", "logs", "estimated"),
            # One that is not among the sample's most frequent may still be in it.
            [
                (kind.name, kind.count, told.get(kind.kind, "few"))
                for kind in truth.clusters[:_KINDS]
            ],
            numbers=("logs", "estimated"),
            shortens="kind",
            least=20,
        ),
    )
    screen.heading(console, "Conclusion")
    mark = "ok" if conclusion.feasible else "warn"
    screen.line(
        console,
        mark,
        f"best k {conclusion.best_k:,}: {conclusion.best_accuracy:.1f} %, "
        f"{conclusion.grade} ({conclusion.grade_english}), "
        f"{'' if conclusion.feasible else 'not '}feasible at {FEASIBLE:.0f} %",
    )
    screen.facts(console, conclusion.recommendation, conclusion.performance_vs_db)
    for title, sentences in (("Insights", found.insights), ("Limitations", found.limitations)):
        screen.heading(console, title)
        screen.facts(console, *(f"- {sentence}" for sentence in sentences))
    console.print()
    screen.facts(
        console, f"the same again: --seed {found.seed} --until {found.analyzed_at.isoformat()}"
    )


def _bar(k: str, way: str, of: Way) -> Text:
    """One way as a bar of 40 columns, with a mark at what would do."""
    full = round(_BAR * of.accuracy.overall / 100)
    mark = round(_BAR * FEASIBLE / 100)
    bar = "".join(
        "|" if column == mark else "━" if column < full else " " for column in range(_BAR + 1)
    )
    style = "green" if of.accuracy.overall >= FEASIBLE else "yellow"
    lead = Text(f"  {k:>9} {way:<14}")
    return lead + Text(bar, style=style) + Text(f" {of.accuracy.overall:5.1f}")


def _rows(one: OneK) -> list[tuple[object, ...]]:
    ways = [("sample", one.random_sample)]
    if one.knn_hits is not None:
        ways.append(("k-NN", one.knn_hits))
    return [
        (
            one.k,
            f"{name}, all" if way.census else name,
            f"{way.accuracy.total:.1f}",
            f"{way.accuracy.kind_match:.1f}",
            f"{way.accuracy.counts:.1f}",
            f"{way.accuracy.overall:.1f}",
            f"{way.unseen_share:.1f}",
            f"{way.unseen_share_good_turing:.1f}" if way.is_random else "-",
            f"{way.processing_time_ms:,.1f}",
        )
        for name, way in ways
    ]

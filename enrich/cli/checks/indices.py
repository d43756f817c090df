"""`check`: each index that matches: what a run would find there, or what keeps it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from enrich.cli.checks import shapes, texts
from enrich.cli.checks.findings import Findings
from enrich.cli.checks.seen import Seen
from enrich.cli.screen import MAX_NAMED, plural
from enrich.cli.template import outlook_lines
from enrich.log_store import LogStore
from enrich.log_store.backlog import Backlog
from enrich.log_store.stats import Counts
from enrich.settings import Settings

#: Healthy indices named one by one; the others are counted.
MAX_HEALTHY = 10


def look_at(settings: Settings, store: LogStore, findings: Findings, seen: Seen) -> None:
    backlog = store.backlog.count()
    counted = store.stats.counts()
    ready = store.preflight.inspect(seen.indices)
    fit = [name for name in backlog.counts if name not in ready.skipped]
    refused = store.wholeness.survey(fit, ready, backlog.unsorted)
    seen.ready = replace(ready, skipped=ready.skipped | refused)
    _tell_each(settings, findings, seen, backlog, counted, refused)
    _tell_all(findings, seen, backlog, counted)
    shapes.look_at(settings, store, findings, seen)
    for mark, sentence in outlook_lines(store, seen.indices):
        (findings.ok if mark == "ok" else findings.warn)(sentence)
    _tell_other_models(store, findings, counted)
    takes = [name for name in fit if name not in refused]
    texts.look_at(settings, store, takes, backlog.unsorted, findings, seen)


def _tell_each(
    settings: Settings,
    findings: Findings,
    seen: Seen,
    backlog: Backlog,
    counted: Counts,
    refused: Mapping[str, str],
) -> None:
    gaps, counts = counted.gaps, counted.by_index
    reasons = {**gaps.indices, **seen.ready.skipped, **backlog.unreadable}
    matching = plural(len({*seen.indices, *reasons}), "index")
    findings.ok(f"{matching} match {settings.index_expression}")
    healthy: list[str] = []
    undated: list[str] = []
    unfit: dict[tuple[str, bool, bool], list[str]] = {}
    for name in sorted({*seen.indices, *reasons}):
        of_index = counts.get(name, {})
        pending, errors = of_index.get("without_vector", 0), sum(of_index.values())
        told = f"{name}: {errors:,} ERROR logs, {pending:,} without a vector"
        if name in reasons:
            # One without a backlog is not looked at by a run, so nothing fails yet.
            wrong = bool(pending) or name in backlog.unreadable or name in gaps.indices
            unfit.setdefault((reasons[name], wrong, name in refused), []).append(name)
            continue
        if name in seen.ready.lacking:
            fields = ", ".join(seen.ready.lacking[name])
            told += f"; the first run will add to its mapping: {fields}"
        if name in seen.ready.update_only:
            told += "; has a final pipeline, so it is written by update, at half the speed"
        if name in backlog.unsorted:
            undated.append(told)
        else:
            healthy.append(told)
    for (reason, wrong, tried), names in unfit.items():
        for name in named(names):
            if wrong:
                findings.bad(f"{name}: {reason}", 3 if tried else 1)
            else:
                findings.warn(f"{name}: {reason}")
    time = " or ".join(settings.log_schema.timestamp_fields)
    for told in undated[:MAX_NAMED]:
        findings.warn(f"{told}; {time} is not a date, so its newest logs cannot go first")
    if len(undated) > MAX_NAMED:
        findings.warn(
            f"{len(undated) - MAX_NAMED} more whose {time} is not a date: their newest logs "
            "cannot go first"
        )
    for told in healthy[:MAX_HEALTHY]:
        findings.ok(told)
    if len(healthy) > MAX_HEALTHY:
        findings.ok(f"{len(healthy) - MAX_HEALTHY} more without a fault")


def _tell_all(findings: Findings, seen: Seen, backlog: Backlog, counted: Counts) -> None:
    gaps = seen.gaps = counted.gaps
    seen.pending = sum(
        count for name, count in backlog.counts.items() if name not in seen.ready.skipped
    )
    failed = sum(of_index["failed"] for of_index in counted.by_index.values())
    marked = (
        f"; {gaps.at_least(f'{failed:,}')} are marked failed, see `python -m enrich failures`"
        if failed
        else ""
    )
    told = f"{seen.pending_told} ERROR logs can be given a vector{marked}"
    if gaps.whole:
        findings.ok(told)
    elif gaps.unnamed or gaps.clusters:
        findings.bad(f"{told}; {gaps.sentence()}")
    else:
        # Each of these indices has its ✗ above.
        findings.warn(f"{told}; {gaps.sentence()}")


def _tell_other_models(store: LogStore, findings: Findings, counted: Counts) -> None:
    if others := sum(counted.of_other_models.values()):
        told_of = store.stats.other_models(list(counted.of_other_models))
        models = ", ".join(told_of.value) + ("" if told_of.gaps.whole else " and maybe others")
        told = counted.gaps.at_least(plural(others, "log"))
        findings.warn(
            f"{told} have vectors of other models ({models}): "
            "search does not find them; remove log_vector from these logs to have them made "
            "anew, or set EMBEDDING_MODEL and EMBEDDING_DIMENSIONS back"
        )


def named(indices: Sequence[str]) -> list[str]:
    """Indices of one fault, each to be told alone, or in one line where they are many. Pure."""
    if len(indices) <= MAX_NAMED:
        return list(indices)
    first = ", ".join(indices[:MAX_NAMED])
    return [f"{len(indices):,} indices ({first} and {len(indices) - MAX_NAMED:,} more)"]

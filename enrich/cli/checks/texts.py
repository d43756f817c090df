"""`check`: what the newest waiting logs say: texts of no use, and what normalising would save."""

from __future__ import annotations

from collections.abc import Sequence

from enrich.cli.checks.findings import Findings
from enrich.cli.checks.seen import Seen
from enrich.cli.screen import plural
from enrich.log_store import LogStore, text_probe
from enrich.settings import Settings, rewrite_of


def look_at(
    settings: Settings,
    store: LogStore,
    takes: Sequence[str],
    unsorted: frozenset[str],
    findings: Findings,
    seen: Seen,
) -> None:
    """
    Args:
        takes: indices that a run may enrich.
        unsorted: those whose newest logs cannot go first.
    """
    found = text_probe.texts_of(store.finder, takes, seen.ready, unsorted, rewrite_of(settings))
    newest = "" if found.looked_at >= (seen.pending or 0) else f" of the newest {found.looked_at:,}"
    if found.unusable:
        findings.warn(
            f"{found.unusable:,}{newest} have no usable text in "
            f"{settings.log_schema.texts_told}, so that a run marks them "
            "failed: `python -m enrich failures` will name them"
        )
    if 10 * (saved := found.distinct - found.normalised) >= max(10, found.distinct):
        findings.ok(
            f"of {plural(found.distinct, 'distinct text')}{newest} {found.normalised:,} are left "
            f"where numbers, ids, times, paths and addresses count as alike: "
            f"ENRICH_NORMALIZE=all would save {saved / found.distinct:.0%} of what is sent "
            "(docs/text.md)"
        )

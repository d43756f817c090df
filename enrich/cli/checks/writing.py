"""`check`: whether a run might write: an update under a version that cannot be, a mapping."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from enrich import wiring
from enrich.cli.checks.findings import Findings
from enrich.cli.checks.seen import Seen
from enrich.cli.screen import plural
from enrich.log_store import RequestRefused, write_probe
from enrich.settings import Settings


def look_at(settings: Settings, findings: Findings, seen: Seen) -> None:
    store = wiring.build_store(settings)
    takes = [name for name in seen.indices if name not in seen.ready.skipped]
    told = write_probe.try_writes(store, takes)
    refused = {name: reason for name, reason in told.items() if reason}
    for name, reason in refused.items():
        findings.bad(f"{name}: {reason}", 3)
    seen.ready = replace(seen.ready, skipped=seen.ready.skipped | refused)
    if len(told) > len(refused):
        findings.ok(
            f"an update would be allowed in {plural(len(told) - len(refused), 'index')} "
            "(tried under a version that cannot be: nothing was changed)"
        )
    if not told:
        findings.warn("whether an update is allowed is not known: there is no document to try it")
    with findings.or_unseen("what a run has written, at its end,"), suppress(RequestRefused):
        write_probe.try_refresh(store, [name for name, reason in told.items() if not reason])
    incomplete = sorted(seen.ready.lacking)
    reason = write_probe.try_mapping(store, incomplete)
    if reason:
        findings.bad(reason, 3)
    elif incomplete:
        findings.ok("missing fields may be added to mappings")

"""What a run did, in the lines of the log that its end writes."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from datetime import UTC, datetime

from enrich.ledger import Ledger
from enrich.models import RunRecord
from enrich.settings import Settings
from enrich.status.health import health_of
from enrich.status.report import read_status

log = logging.getLogger(__name__)

#: Reasons in a line of the log; the run record has more.
REASONS_SHOWN = 3


def log_summary(record: RunRecord, ledger: Ledger, settings: Settings) -> None:
    """Log what a run did, why, and when the next one is due."""
    log.info(
        "Cycle #%d step 2/3: embeddings generated: %d (%d by the API, %d from cache, "
        "%d reused, %d duplicates), none for %d (%d failed, %d deferred, %d had one already, "
        "%d gone); %d texts sent to the API in %d requests",
        record.number, record.embedded + record.cached + record.reused + record.duplicate,
        record.embedded, record.cached, record.reused, record.duplicate,
        record.failed + record.deferred + record.already_vectorized + record.gone,
        record.failed, record.deferred, record.already_vectorized, record.gone,
        record.api_inputs, record.api_requests,
    )  # fmt: skip
    log.info(
        "Cycle #%d step 3/3: documents updated: %d success, %d failed, %d deferred%s; "
        "%d retries%s",
        record.number, record.vectors_written, record.failed, record.deferred,
        _counted(record.deferral_reasons), record.retries, _counted(record.retry_reasons),
    )  # fmt: skip
    if record.written_by_others:
        log.warning(
            "Cycle #%d: %d logs were given a vector meanwhile by runs that this Redis does not "
            "know: does another deployment (another ENRICH_REDIS_PREFIX or REDIS_URL) enrich "
            "the same indices? Each pays for every text",
            record.number, record.written_by_others,
        )  # fmt: skip
    totals = ledger.records.totals()
    if record.settled != record.found:
        log.error(
            "Cycle #%d does not add up: %d found, %d accounted for",
            record.number, record.found, record.settled,
        )  # fmt: skip
    log.info(
        "Cycle #%d %s: duration %.1f s, vectors this cycle %d (%.1f/s), total vectors %d, "
        "average rate %.1f/s, total errors %d, cost $%.4f, next run %s%s",
        record.number, record.state, record.duration_seconds, record.vectors_written,
        record.rate_per_second, totals.vectors, totals.average_rate, totals.errors,
        record.estimated_cost_usd, next_run(record, ledger, settings.interval_seconds),
        f", halted: {record.halt_reason}" if record.halt_reason else "",
    )  # fmt: skip
    health = health_of(read_status(ledger, None, settings=settings))
    log.log(logging.INFO if health.well else logging.WARNING, "health: %s", health.line)


def next_run(record: RunRecord, ledger: Ledger, interval: float) -> str:
    """When the next tick after a run's start is due, as told to people."""
    if record.more and record.stopped_by == "time":
        return "now (more is waiting)"
    if record.more and record.stopped_by == "budget":
        return "after midnight UTC (ENRICH_MAX_COST_PER_DAY is used up)"
    assert record.started_at is not None
    # Beat ticks at its interval whatever a run lasts; ticks that a run was in the way of are
    # over.
    now = ledger.now()
    began = (ledger.controls.last_tick() or record.started_at).timestamp()
    due = began + interval * max(1, math.ceil((now - began) / interval))
    return datetime.fromtimestamp(due, UTC).strftime("%H:%M:%S UTC")


def _counted(reasons: Mapping[str, int]) -> str:
    """Reasons with their counts in brackets, the most frequent first, not all of them."""
    told = [f"{count}: {sentence}" for sentence, count in reasons.items()]
    if len(told) > REASONS_SHOWN:
        told[REASONS_SHOWN:] = [f"and {len(told) - REASONS_SHOWN} other reasons"]
    return f" ({'; '.join(told)})" if told else ""

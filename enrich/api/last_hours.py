"""The last hours of a project's logs, as several routes ask about them."""

from __future__ import annotations

from datetime import UTC, datetime

from enrich.analysis.hours import Period
from enrich.errors import EnrichError

#: That may be asked for: a week.
MOST_HOURS = 168


class NoLogs(EnrichError):
    """The project has no logs in the period that an answer could be made of."""


def last_hours(time_hours: int, now: datetime | None) -> Period:
    """
    Args:
        now: the end; aware. The present if None.

    Raises:
        ValueError: so many hours may not be asked for.
    """
    if not 1 <= time_hours <= MOST_HOURS:
        raise ValueError(f"time_hours must be 1 to {MOST_HOURS}")
    return Period.before(now or datetime.now(UTC), time_hours)

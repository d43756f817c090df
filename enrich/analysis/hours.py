"""The hours of a period as clocks show them in a time zone. Pure.

An hour ends where the clock shows the next full one, or where it is set: in zones that are half an
hour off, on days with 23 or 25 hours, and on those that Lord Howe Island sets its clocks by half an
hour.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo

_HOUR = timedelta(hours=1)
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class Period:
    """From `start` until before `end`; both aware."""

    start: datetime
    end: datetime

    @classmethod
    def before(cls, end: datetime, hours: int) -> Period:
        """The last `hours` before a moment, to the millisecond, as OpenSearch compares times."""
        end = end.astimezone(UTC)
        end = end.replace(microsecond=end.microsecond // 1000 * 1000)
        return cls(end - timedelta(hours=hours), end)


@dataclass(frozen=True)
class Hour:
    """A part of a period that lies within one hour of the clock.

    Attributes:
        label: the full hour with its offset from UTC, `2026-11-28T09:00:00+09:00`.
    """

    label: str
    period: Period


def hours_of(period: Period, zone: tzinfo) -> list[Hour]:
    """The period in hours, in order and without gaps; the first and the last may be cut."""
    return list(_hours(period, zone))


def _hours(period: Period, zone: tzinfo) -> Iterator[Hour]:
    start = period.start.astimezone(UTC)
    end = period.end.astimezone(UTC)
    while start < end:
        local = start.astimezone(zone)
        into = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
        until = min(_before_change(start, start + _HOUR - into, zone), end)
        # With the offset that holds now: at the full hour itself another one may have.
        full = local.replace(minute=0, second=0, microsecond=0, tzinfo=None)
        offset = timezone(local.utcoffset() or timedelta())
        yield Hour(full.replace(tzinfo=offset).isoformat(), Period(start, until))
        start = until


def _before_change(start: datetime, until: datetime, zone: tzinfo) -> datetime:
    """`until`, or the moment after `start` at which clocks are set before that."""
    offset = start.astimezone(zone).utcoffset()
    if until.astimezone(zone).utcoffset() == offset:
        return until
    before, after = start, until
    while after - before > _SECOND:
        middle = before + (after - before) / 2
        if middle.astimezone(zone).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return after.replace(microsecond=0)

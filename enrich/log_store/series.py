"""Names of indices that follow each other: which series a name belongs to, and what comes next.

Pure. Months, days, hours, weeks and years at the end of a name, and the numbers of a rollover.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta

#: Years that a name can mean; other numbers are those of a rollover.
_YEAR = r"(?P<year>20\d\d)"
_MONTH = r"(?P<month>0[1-9]|1[0-2])"
_DAY = r"(?P<day>0[1-9]|[12]\d|3[01])"
_HOUR = r"(?P<hour>[01]\d|2[0-3])"
_DATED = re.compile(
    rf"(?P<before>.*?)(?<!\d){_YEAR}(?:(?P<sep>[._-]?){_MONTH}(?:(?P=sep){_DAY}"
    rf"(?:(?P<sep_hour>[._-]?){_HOUR})?)?)?"
)
_WEEKLY = re.compile(rf"(?P<before>.*?)(?<!\d){_YEAR}(?P<sep>[._-]?[wW])(?P<week>[0-4]\d|5[0-3])")
_ROLLOVER = re.compile(r"(?P<before>.+-)(?P<number>\d{1,18})")


@dataclass(frozen=True)
class Series:
    """Indices that are called the same but for a time or a number at their end."""

    #: What all of them match.
    pattern: str
    #: What the one after a given index will be called.
    next: str


def series_of(index: str) -> Series | None:
    """The series of an index, or None where its name has no end that counts."""
    try:
        return _weekly(index) or _dated(index) or _numbered(index)
    except (OverflowError, ValueError):
        # Such as the 31st of February.
        return _numbered(index)


def _dated(index: str) -> Series | None:
    found = _DATED.fullmatch(index)
    if found is None:
        return None
    before, sep = found["before"], found["sep"] or ""
    year = int(found["year"])
    if found["month"] is None:
        return _series(before, f"{year + 1}")
    if found["day"] is None:
        then = date(year, int(found["month"]), 28) + timedelta(days=7)
        return _series(before, f"{then:%Y}{sep}{then:%m}")
    day = datetime(year, int(found["month"]), int(found["day"]), int(found["hour"] or 0))
    then_at = day + (timedelta(days=1) if found["hour"] is None else timedelta(hours=1))
    told = f"{then_at:%Y}{sep}{then_at:%m}{sep}{then_at:%d}"
    hour = "" if found["hour"] is None else f"{found['sep_hour']}{then_at:%H}"
    return _series(before, told + hour)


def _weekly(index: str) -> Series | None:
    found = _WEEKLY.fullmatch(index)
    if found is None:
        return None
    monday = date.fromisocalendar(int(found["year"]), int(found["week"]), 1) + timedelta(days=7)
    year, week, _ = monday.isocalendar()
    return _series(found["before"], f"{year}{found['sep']}{week:02}")


def _numbered(index: str) -> Series | None:
    found = _ROLLOVER.fullmatch(index)
    # As OpenSearch writes it: six digits at least.
    return None if found is None else _series(found["before"], f"{int(found['number']) + 1:06}")


def _series(before: str, end: str) -> Series:
    return Series(f"{before}*" if before else "20*", before + end)

"""Finds the time at the head of a log line, in whatever form programs write it.

No library is asked: those that accept any date read 17/06/09 (Spark's year first) and 03-17
(Android's month first) as other days without a word, and are slow on lines that have none.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

_MONTHS = {
    name: number
    for number, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), 1
    )
}
#: Hours east of UTC. Where two regions share a name, the one whose servers write it most.
_ZONES = {
    **dict.fromkeys(("Z", "UTC", "GMT", "WET", "UCT"), 0.0),
    **{"NST": -3.5, "NDT": -2.5, "AST": -4, "ADT": -3, "EST": -5, "EDT": -4, "CST": -6, "CDT": -5},
    **{"MST": -7, "MDT": -6, "PST": -8, "PDT": -7, "AKST": -9, "AKDT": -8, "HST": -10, "BRT": -3},
    **{"ART": -3, "CLT": -4, "COT": -5, "PET": -5, "WEST": 1, "BST": 1, "IST": 5.5, "CET": 1},
    **{"CEST": 2, "MET": 1, "MEST": 2, "EET": 2, "EEST": 3, "SAST": 2, "WAT": 1, "EAT": 3},
    **{"MSK": 3, "TRT": 3, "GST": 4, "PKT": 5, "NPT": 5.75, "ICT": 7, "WIB": 7, "SGT": 8},
    **{"HKT": 8, "AWST": 8, "PHT": 8, "JST": 9, "KST": 9, "ACST": 9.5, "AEST": 10, "AEDT": 11},
    **{"NZST": 12, "NZDT": 13},
}
_ZONE_NAMES = "|".join(sorted(_ZONES, key=len, reverse=True))
_ZONE = rf"(?: ?(?P<zone>[+-]\d\d(?::?\d\d)?|{_ZONE_NAMES})(?![\w:]))?"
_CLOCK = r"(?P<clock>\d{1,2}:\d\d:\d\d)(?:[.,](?P<fraction>\d{1,9}))?"
_HALF = r"(?:\s?(?P<half>[AaPp])\.?[Mm]\.?(?!\w))?"
_NAME = r"(?P<name>(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec))[a-z]*"
_WEEKDAY = r"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? )?"

_FORMS = tuple(
    re.compile(form)
    for form in (
        # 2026-11-22 10:11:12,345, 2026-11-22T10:11:12.345Z, 2026/11/22 10:11:12
        rf"(?P<year>\d{{4}})[-/.](?P<month>\d\d)[-/.](?P<day>\d\d)(?:[T _-]|, ){_CLOCK}{_ZONE}",
        # 22/Nov/2026:10:11:12 +0000, 22-Nov-2026 10:11:12.345, 22 Nov 2026 10:11:12.345
        rf"{_WEEKDAY}(?P<day>\d{{1,2}})[-/ ]{_NAME}[-/ ](?P<year>\d{{4}})[: ]{_CLOCK}{_ZONE}",
        # Sun Nov 22 10:11:12.345678 2026, and with a zone before the year
        rf"{_WEEKDAY}{_NAME} {{1,2}}(?P<day>\d{{1,2}}) {_CLOCK}{_ZONE} (?P<year>\d{{4}})(?!\d)",
        # Nov 22, 2026 10:11:12 AM
        rf"{_WEEKDAY}{_NAME} (?P<day>\d{{1,2}}), (?P<year>\d{{4}}),? {_CLOCK}{_HALF}{_ZONE}",
        # 2005-06-03-15.42.50.675872
        r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)-(?P<clock>\d\d\.\d\d\.\d\d)"
        r"(?:\.(?P<fraction>\d{1,9}))?",
        # 20261122-10:11:12:345, 20261122 10:11:12, 20261122T101112Z
        rf"(?P<year>(?:19|20)\d\d)(?P<month>\d\d)(?P<day>\d\d)[-T _]"
        rf"(?P<clock>\d{{1,2}}:\d{{1,2}}:\d{{1,2}}|\d{{6}})(?:[.,:](?P<fraction>\d{{1,9}}))?{_ZONE}",
        # 22.11.2026 10:11:12
        rf"(?P<day>\d{{1,2}})\.(?P<month>\d{{1,2}})\.(?P<year>\d{{4}}),? {_CLOCK}{_ZONE}",
        # 11/22/2026 10:11:12 AM, 22/11/2026 10:11:12
        rf"(?P<first>\d{{1,2}})[/-](?P<second>\d{{1,2}})[/-](?P<year>\d{{4}}),? "
        rf"{_CLOCK}{_HALF}{_ZONE}",
        # 2026. 11. 22. 오전 10:11:12
        rf"(?P<year>\d{{4}})\. ?(?P<month>\d{{1,2}})\. ?(?P<day>\d{{1,2}})\.? "
        rf"(?:(?P<half>오전|오후) )?{_CLOCK}",
        # Java in Korean: 11월 22, 2026 10:11:12 오전
        rf"(?P<month>\d{{1,2}})월 (?P<day>\d{{1,2}}), (?P<year>\d{{4}}) {_CLOCK} "
        r"(?P<half>오전|오후)",
        # WebSphere: 11/22/26 10:11:12:345 UTC
        rf"(?P<month>\d{{1,2}})/(?P<day>\d{{1,2}})/(?P<short>\d\d) "
        rf"(?P<clock>\d{{1,2}}:\d\d:\d\d):(?P<fraction>\d{{3}}){_ZONE}",
        # Spark: 26/11/22 10:11:12
        rf"(?P<short>\d\d)/(?P<month>\d\d)/(?P<day>\d\d) {_CLOCK}",
        # HDFS and older MySQL: 261122 101112, 261122 10:11:12
        r"(?P<short>\d\d)(?P<month>\d\d)(?P<day>\d\d) {1,2}(?P<clock>\d{1,2}:\d\d:\d\d|\d{6})",
        # Android: 11-22 10:11:12.345
        rf"(?P<month>\d\d)-(?P<day>\d\d) {_CLOCK}",
        # Nov 22 10:11:12
        rf"{_WEEKDAY}{_NAME} {{1,2}}(?P<day>\d{{1,2}}) {_CLOCK}{_ZONE}",
        # 10:11:12.345, 10:11:12
        _CLOCK,
        # 10:11AM
        r"(?P<clock>\d{1,2}:\d\d)\s?(?P<half>[AaPp])[Mm]",
        # 1795342272.345, 1795342272345
        r"(?P<epoch>\d{10}(?:[.,]\d{1,9})?|\d{13}|\d{16}|\d{19})",
    )
)
_END = re.compile(r"(?=[\s\])>|,;:#\"-]|$)")
_BEGINS = re.compile(r"[\d]|[A-Z][a-z]{2}")


def head_time(text: str, modified: datetime) -> tuple[datetime | None, str] | None:
    """The time that `text` begins with, and what follows it; None where it begins with none.

    Args:
        modified: the file's own time; forms without a year or a date take it from there, and lie
            before it.
    """
    if not _BEGINS.match(text):
        return None
    for form in _FORMS:
        if (match := form.match(text)) and _END.match(text, match.end()):
            return _build(match.groupdict(), modified), text[match.end() :]
    return None


def any_time(value: Any) -> datetime | None:
    """A time as a field of JSON has it: text, or seconds to nanoseconds since 1970."""
    if isinstance(value, str):
        text = value.strip()
        if match := re.fullmatch(r"/Date\((\d+)[^)]*\)/", text):
            return any_time(int(match[1]))
        if re.fullmatch(r"\d{9,20}(?:[.,]\d+)?", text):
            return any_time(float(text.replace(",", ".")))
        found = head_time(text.strip("[]"), datetime.now(UTC))
        return found[0] if found else None
    if isinstance(value, int | float) and not isinstance(value, bool):
        # Seconds reach 1e11 in the year 5138; what is above that counts in smaller units.
        for unit in (1, 1e3, 1e6, 1e9):
            if 0 < value / unit < 1e11:
                return datetime.fromtimestamp(value / unit, UTC)
    return None


def not_after(time: datetime | None, modified: datetime) -> datetime | None:
    """Formats without a year mean the latest one in which the time lies before the file's own."""
    if time is None or (time - modified).days < 1:
        return time
    try:
        return time.replace(year=time.year - 1)
    except ValueError:
        return None


def _build(parts: dict[str, str | None], modified: datetime) -> datetime | None:
    if epoch := parts.get("epoch"):
        return any_time(float(epoch.replace(",", ".")))
    year, month, day = _date(parts, modified)
    digits = re.sub(r"\D", " ", parts.get("clock") or "").split()
    if len(digits) == 1:
        digits = [digits[0][:2], digits[0][2:4], digits[0][4:]]
    hour, minute, second = (*map(int, digits), 0)[:3]
    if half := parts.get("half"):
        hour = hour % 12 + (12 if half in "pP오후" and half != "오전" else 0)
    fraction = f"{parts.get('fraction') or '0':0<6}"[:6]
    try:
        # A leap second counts as the second before.
        time = datetime(
            *(year, month, day, hour, minute, min(second, 59), int(fraction)),
            tzinfo=_zone(parts.get("zone")),
        ).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    if parts.get("year") or parts.get("short"):
        return time
    if not parts.get("month") and not parts.get("name"):
        # A time of day only: of the day on which the file was last written, or the one before.
        return time - timedelta(days=1) if time > modified + timedelta(hours=14) else time
    return not_after(time, modified)


def _date(parts: dict[str, str | None], modified: datetime) -> tuple[int, int, int]:
    year = int(
        parts.get("year") or (f"20{short}" if (short := parts.get("short")) else modified.year)
    )
    if first := parts.get("first"):
        one, two = int(first), int(parts["second"] or 0)
        # 11/22 has its month first, and so has what counts in halves of a day.
        return (
            (year, one, two) if two > 12 or (parts.get("half") and one <= 12) else (year, two, one)
        )
    if name := parts.get("name"):
        return year, _MONTHS[name.lower()], int(parts["day"] or 0)
    if month := parts.get("month"):
        return year, int(month), int(parts["day"] or 0)
    return year, modified.month, modified.day


def _zone(zone: str | None) -> timezone:
    if not zone:
        return UTC
    if zone in _ZONES:
        return timezone(timedelta(hours=_ZONES[zone]))
    minutes = int(zone[1:3]) * 60 + int(zone[-2:] if len(zone) > 3 else 0)
    return timezone(timedelta(minutes=-minutes if zone[0] == "-" else minutes))

"""The time that a log states, in the forms that programs write it. Pure.

Numbers count seconds, milliseconds, microseconds or nanoseconds since the epoch: their size says
which. A time without a zone is in UTC, as OpenSearch takes it.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Any

from enrich.schema.paths import flattened

#: The first second after the times that a log may have. A later one is a mistake of a unit or a
#: placeholder such as the year 9999, and its index would be one that nobody makes.
LATEST = datetime(2100, 1, 1, tzinfo=UTC).timestamp()

#: The end of the year 9999, which placeholders name in any unit. A number is in the first unit in
#: which it is before that: milliseconds, for instance, unless they were before 1978.
_END = 253402300800
_UNITS = (1, 10**3, 10**6, 10**9)

#: Fewer digits are a date without hyphens, or a year.
_DIGITS = re.compile(r"[+-]?\d{9,20}(?:\.\d{1,9})?", re.ASCII)

#: Go and nginx write `2026/11/28 12:00:00`.
_SLASHES = re.compile(r"(\d{4})/(\d{2})/(\d{2})", re.ASCII)

#: No form of a time is longer.
_LONGEST = 64


def seconds_of(value: Any) -> float | None:
    """A log's time as seconds since the epoch; None if the value is no time. It may be any time."""
    value = next(flattened(value), None)
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return _of_number(value)
    if not isinstance(value, str) or len(value) > _LONGEST:
        return None
    text = value.strip()
    if _DIGITS.fullmatch(text):
        return _of_number(float(text))
    try:
        moment = datetime.fromisoformat(_SLASHES.sub(r"\1-\2-\3", text).upper())
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def is_possible(seconds: float) -> bool:
    """Whether a log may have that time: not before 1970 and before LATEST."""
    return 0 <= seconds < LATEST


def _of_number(number: float) -> float | None:
    try:
        seconds = float(number)
    except OverflowError:
        return None
    if not math.isfinite(seconds):
        return None
    return seconds / next((unit for unit in _UNITS if abs(seconds) < _END * unit), 1)

"""Which levels are wanted: words in any case, numbers, and all numbers from one on. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from enrich.schema.paths import flattened

#: `>=17`, `> 16`.
_THRESHOLD = re.compile(r"(>=?)\s*(-?\d{1,9}(?:\.\d{1,9})?)", re.ASCII)

#: Numbers of OpenTelemetry's severities by their names (its logs data model, "Field:
#: SeverityNumber").
SEVERITY_NUMBERS = {
    "TRACE": range(1, 5),
    "DEBUG": range(5, 9),
    "INFO": range(9, 13),
    "WARN": range(13, 17),
    "WARNING": range(13, 17),
    "ERROR": range(17, 21),
    "FATAL": range(21, 25),
}


@dataclass(frozen=True, kw_only=True)
class Levels:
    """The levels that are wanted, as one shape of logs spells them."""

    #: Each spelling that counts, in order.
    words: tuple[str, ...] = ()
    #: Numbers that the words stand for.
    numbers: tuple[int, ...] = ()
    #: Every number from here on; None for no such threshold.
    at_least: float | None = None

    @cached_property
    def _words(self) -> frozenset[str]:
        return frozenset(self.words)

    def has_word(self, value: Any) -> bool:
        """Whether a value of a field of words is one of them; of an array, whether any is."""
        return any(
            str(one) in self._words
            for one in flattened(value)
            if isinstance(one, str | int | float) and not isinstance(one, bool)
        )

    def has_number(self, value: Any) -> bool:
        """Whether a value of a field of numbers is wanted; a number written as a text counts."""
        numbers = (number for one in flattened(value) if (number := _number(one)) is not None)
        return any(
            number in self.numbers or (self.at_least is not None and number >= self.at_least)
            for number in numbers
        )


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def levels_of(wanted: Sequence[str], *, exact: bool, severities: bool) -> Levels:
    """The levels of ENRICH_LEVELS.

    Args:
        exact: words count as they are spelt; otherwise also in capitals, in small letters, and with
            a capital first.
        severities: words stand for OpenTelemetry's numbers as well.

    Raises:
        ValueError: something begins as a comparison and is none.
    """
    words: dict[str, None] = {}
    numbers: dict[int, None] = {}
    thresholds = []
    for one in wanted:
        if one.startswith((">", "<", "=")):
            thresholds.append(_threshold(one))
            continue
        words |= dict.fromkeys(
            [one] if exact else [one, one.upper(), one.lower(), one.capitalize()]
        )
        if severities:
            numbers |= dict.fromkeys(SEVERITY_NUMBERS.get(one.upper(), ()))
    return Levels(
        words=tuple(words),
        numbers=tuple(numbers),
        at_least=min(thresholds) if thresholds else None,
    )


def check_levels(wanted: Iterable[str]) -> None:
    """Raises ValueError as `levels_of`."""
    levels_of(tuple(wanted), exact=True, severities=False)


def _threshold(text: str) -> float:
    match = _THRESHOLD.fullmatch(text)
    if match is None:
        raise ValueError("a comparison must be >= and a number, such as >=17")
    number = float(match[2])
    if match[1] == ">=":
        return number
    # Levels are whole numbers where they are numbers.
    return float(int(number // 1) + 1)

"""Normalising: what makes each log's text its own is replaced, so that such logs share one vector.

Each kind is a few patterns; what they find becomes `<number>` and so on. Off by default, because a
number may be what matters. Every pattern reads a text in a number of steps proportional to its
length: an unbounded run is possessive, and starts only where no run is under way. Pure.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from enrich.text.kinds import Replacing, Rule, chosen_of

#: In the order in which they are replaced: a time, an id, a path and an address have numbers.
KINDS = ("times", "ids", "paths", "addresses", "numbers")


class Normalizer(Replacing):
    """Replaces the chosen kinds in texts."""

    def __init__(self, kinds: Iterable[str]) -> None:
        """Raises ValueError for a kind that is not known."""
        super().__init__(expanded(kinds), _RULES)


def expanded(kinds: Iterable[str]) -> tuple[str, ...]:
    """The kinds in the order of KINDS, each once. Raises ValueError, as `chosen_of`."""
    return chosen_of(kinds, KINDS)


def normalizer_of(kinds: Iterable[str]) -> Normalizer | None:
    """A normalizer, or None where texts stay as they are."""
    chosen = expanded(kinds)
    return Normalizer(chosen) if chosen else None


def _by(mark: str, pattern: str) -> Rule:
    compiled = re.compile(pattern, re.ASCII | re.VERBOSE)
    return lambda text: compiled.sub(mark, text)


_CLOCK = r"[0-9]{1,2} : [0-9]{2} (?: : [0-9]{2} (?: [.,] [0-9]{1,9} )? )?"
_ZONE = r"(?: [ ]? (?: Z | [+-][0-9]{2}:?[0-9]{2} | UTC | GMT ) (?! \w ) )?"
_MONTH = r"(?: Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec )"

_TIMES = (
    # 2026-11-28T18:20:49.123Z, 2026/11/28 18:20, 2026-11-28
    _by(
        "<time>",
        rf"""
        (?<! [\w./-] ) [0-9]{{4}} (?P<by> [-/.] ) [0-9]{{2}} (?P=by) [0-9]{{2}}
        (?: [T ] [ ]? {_CLOCK} {_ZONE} )? (?! [\w/-] )
    """,
    ),
    # 28/Nov/2026:18:20:49 +0000
    _by("<time>", rf"(?<! [\w./-] ) [0-9]{{1,2}}/{_MONTH}/[0-9]{{4}}:{_CLOCK} {_ZONE}"),
    # Nov 28 18:20:49, Sat Nov 28 18:20:49 UTC 2026
    _by(
        "<time>",
        rf"""
        \b (?: (?: Mon|Tue|Wed|Thu|Fri|Sat|Sun ) ,? [ ] )? {_MONTH} [ ]{{1,2}} [0-9]{{1,2}}
        ,? [ ] (?: [0-9]{{4}} [ ] )? {_CLOCK} {_ZONE} (?: [ ] [0-9]{{4}} )? (?! \w )
    """,
    ),
    # 18:20:49,123
    _by(
        "<time>",
        rf"(?<! [\w.:-] ) [0-9]{{1,2}}:[0-9]{{2}}:[0-9]{{2}} (?: [.,][0-9]{{1,9}} )? {_ZONE}"
        r" (?! [\w:] )",
    ),
)

_IDS = (
    _by(
        "<id>",
        r"""
        (?<! [\w-] ) [0-9A-Fa-f]{8} - (?: [0-9A-Fa-f]{4} - ){3} [0-9A-Fa-f]{12} (?! [\w-] )
    """,
    ),
    _by("<id>", r"(?<! \w ) 0[xX] [0-9A-Fa-f]++ (?! \w )"),
    # What Kubernetes appends to the name of a ReplicaSet's pod.
    _by(
        "-<id>",
        r"(?<= [a-z0-9] ) - [bcdf-hj-np-tv-xz2-9]{8,10} - [bcdf-hj-np-tv-xz2-9]{5} (?! [\w-] )",
    ),
    # Hashes and trace ids; a number alone is a number, a word of a to f is a word.
    _by(
        "<id>",
        r"(?<! \w ) (?= [0-9]*+ [A-Fa-f] ) (?= [A-Fa-f]*+ [0-9] ) [0-9A-Fa-f]{8,}+ (?! \w )",
    ),
    # ULIDs.
    _by("<id>", r"(?<! \w ) [0-7] [0-9A-HJKMNP-TV-Z]{25} (?! \w )"),
)

_PATHS = (
    _by("<path>", r"(?<! [\w/.:<>-] ) (?: / [\w.@+~%=,-]++ ){2,}+ /?"),
    _by(
        "<path>",
        r"""(?<! \w ) [A-Za-z]:\\{1,2} (?: [^\\/\s"'<>|:*?]++ \\{0,2} )++""",
    ),
)


def _address(match: re.Match[str]) -> str:
    try:
        ipaddress.ip_address(match["host"].strip("[]"))
    except ValueError:
        return match[0]
    return "<address>"


def _addresses(text: str) -> str:
    return _ADDRESS.sub(_address, text)


_ADDRESS = re.compile(
    r"""
    (?<! [\w.:] ) (?P<host>
        (?: [0-9]{1,3} \. ){3} [0-9]{1,3}
      | \[? (?= [0-9A-Fa-f]{0,4} : [0-9A-Fa-f:]{2} ) (?= [A-Fa-f:]{0,39}+ [0-9] )
        [0-9A-Fa-f:]{3,39}+ \]?
    ) (?: : [0-9]{1,5} )? (?! \.? \w )
    """,
    re.ASCII | re.VERBOSE,
)

_NUMBERS = (
    # 12, -0.5, 1,234.5, 12ms, 3e10; not the 2 of http2 or of log4j.
    _by(
        "<number>",
        r"(?<! [\w.] ) [0-9]++ (?: [.,] [0-9]++ )*+ (?: [eE] [+-]? [0-9]++ )?",
    ),
)

_RULES: dict[str, tuple[Rule, ...]] = {
    "times": _TIMES,
    "ids": _IDS,
    "paths": _PATHS,
    "addresses": (_addresses,),
    "numbers": _NUMBERS,
}

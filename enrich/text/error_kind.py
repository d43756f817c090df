"""Which kind of error a text tells of: the same for logs that differ in what is of one log. Pure.

A kind is the text's first line and its last cause, after masking and with times, ids, paths,
addresses and numbers replaced, as ENRICH_NORMALIZE=all replaces them. The lines of a trace are left
out: they change with every release. Masking a template before anything else compares texts is what
most of the quality of log parsers comes from (Fu and others, arXiv 2412.05254).
"""

from __future__ import annotations

from dataclasses import dataclass

from enrich.text.extract import fingerprint
from enrich.text.kinds import ALL
from enrich.text.masking import Masker
from enrich.text.normalizing import Normalizer

#: Characters of the two lines that tell kinds apart, and of a kind's name.
MOST_OF_A_LINE, MOST_OF_A_NAME = 2_000, 160

#: Hex digits: two of a million kinds have the same with a chance of one to five hundred.
_DIGITS = 16

_CAUSED_BY = "Caused by"
_mask, _normalize = Masker([ALL]), Normalizer([ALL])


@dataclass(frozen=True)
class ErrorKind:
    """A kind of error.

    Attributes:
        id: 16 hex digits, the same wherever the kind is met.
        name: one line for people, masked.
    """

    id: str
    name: str


def error_kind(text: str) -> ErrorKind:
    """The kind that a text tells of.

    Args:
        text: as `enrich.text.extract.text_of` gives it, not empty.
    """
    told = " / ".join(
        " ".join(_normalize(_mask(line[:MOST_OF_A_LINE])).split()) for line in _telling(text)
    )
    return ErrorKind(fingerprint(told)[:_DIGITS], told[:MOST_OF_A_NAME])


def _telling(text: str) -> list[str]:
    """The first line and, of several, the last cause: of Java the last "Caused by", of Python the
    last line that is not indented."""
    lines = [line for line in text.splitlines() if line.strip()]
    causes = [line for line in lines[1:] if line.startswith(_CAUSED_BY)]
    causes = causes or [line for line in lines[1:] if not line[0].isspace()]
    return [*lines[:1], *causes[-1:]]

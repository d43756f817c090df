"""Other people's words made safe to show: on a terminal, in a log file, on a page.

Names of indices, error types, answers of servers and logs themselves may hold escape sequences,
line breaks, and marks that turn or hide text. Screens and logs pass all of them through here.
Imports nothing, so that every room may use it.
"""

from __future__ import annotations

import re

#: Control characters (C0 without line break and tab, DEL, C1), marks that turn the direction of
#: writing or show nothing (soft hyphen, zero width, bidirectional, variation of language, tags),
#: line and paragraph separators, and half surrogate pairs.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e0fff]"
)

#: Whole escape sequences: colours and the like (CSI), then titles, links and the other strings
#: (OSC, DCS, SOS, PM, APC). A string that is never ended is no sequence: only its first character
#: goes, and what follows stays to be seen.
_ESCAPES = re.compile("\x1b\\[[0-?]*[ -/]*[@-~]|\x1b[\\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\\\)")


def clean(text: object) -> str:
    """The text without anything that a terminal would obey or hide. Line breaks and tabs stay."""
    return _UNSAFE.sub("\ufffd", _ESCAPES.sub("", str(text)))


def one_line(text: object) -> str:
    r"""`clean` text in one line: a line break shows as `\n`, a tab as a blank."""
    whole = str(text).replace("\r\n", "\n").replace("\r", "\n")
    return clean(whole).replace("\n", "\\n").replace("\t", " ")

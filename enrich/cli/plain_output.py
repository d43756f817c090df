"""What goes to a terminal whose encoding knows only some characters, such as EUC-KR or ASCII.

Marks and lines become signs of ASCII that differ as they do, and anything else its code, which can
be told from any other: a question mark says neither.
"""

from __future__ import annotations

import codecs

#: The name under which streams use it.
NAME = "enrich-plain"

#: One sign for one, so that columns stay.
_SIGNS = {
    "✓": "+",
    "✗": "x",
    "…": "~",
    "━": "-",
    "─": "-",
    "╸": "-",
    "╺": "-",
    "—": "-",
    "·": ".",
    "→": ">",
    "\ufffd": "?",
}


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    part = error.object[error.start : error.end]
    signs = (_SIGNS.get(c) or c.encode("ascii", "backslashreplace").decode() for c in part)
    return "".join(signs), error.end


codecs.register_error(NAME, _replaced)

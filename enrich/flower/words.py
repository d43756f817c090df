"""How the pages put values into words: counts, money, times, and what others have written.

Names of indices, reasons and services come from whoever writes logs. They are cut, characters that
move or hide text are written out, and each stands by itself (`<bdi>`), so that none can change how
the rest of a page reads.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime
from html import escape

from enrich.status.durations import span

#: Characters of a name and of a sentence of others; more help nobody.
NAME_LENGTH = 120
SENTENCE_LENGTH = 400


def plain(text: object, most: int = SENTENCE_LENGTH) -> str:
    """A text of others as one line of bounded length, without characters that move, hide or command
    anything: those are written out, such as `\\u202e`."""
    cut = str(text)[: most + 1]
    shown = "".join(c if _is_harmless(c) else _written_out(c) for c in cut)
    line = " ".join(shown.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def name(text: object) -> str:
    """A name of others, cut."""
    return plain(text, NAME_LENGTH)


def beginner(trigger: str) -> str:
    """Who began a run."""
    return "hand" if trigger == "manual" else name(trigger)


def marked(text: object) -> str:
    """A sentence as HTML, escaped, with what stands between backticks as code."""
    parts = escape(plain(text, 2 * SENTENCE_LENGTH)).split("`")
    if len(parts) % 2 == 0:
        return "`".join(parts)
    return "".join(
        f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(parts)
    )


def sentence(text: str) -> str:
    """With a capital at its beginning."""
    return text[:1].upper() + text[1:]


def percent(part: float, whole: float) -> str:
    """Rounded down: 100 % is said only of all."""
    return f"{int(1000 * part / whole) / 10:g}" if whole else "0"


def usd(amount: float) -> str:
    # Small runs cost hundredths of a cent, and "$0.00" would read as "free".
    return f"${amount:,.2f}" if amount >= 1 else f"${amount:.4f}"


def money(amount: float) -> str:
    """As `usd`, short: for tiles."""
    if amount >= 1000:
        return f"${amount:,.0f}"
    if amount >= 0.095 or amount == 0:
        return f"${amount:,.2f}"
    return f"${amount:.4f}" if amount >= 0.0001 else "< $0.0001"


def rate(per_second: float) -> str:
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:,.3g}"


def clock(time: datetime | str | None) -> str:
    """To the second, in UTC."""
    moment = moment_of(time)
    if moment is None:
        return "–" if time is None else name(time)
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def moment_of(time: datetime | str | None) -> datetime | None:
    """A time as a moment in UTC; None for what is none."""
    if isinstance(time, str):
        try:
            time = datetime.fromisoformat(time)
        except ValueError:
            return None
    if time is None:
        return None
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


def age(time: datetime | str | None, now: datetime) -> str:
    """How long ago a moment was, in words; "" where it is not known."""
    moment = moment_of(time)
    if moment is None:
        return ""
    # Logs may come from hosts whose clock is ahead.
    return rough(max(0.0, (now - moment).total_seconds()))


def rough(seconds: float) -> str:
    """A length of time in one or two units: nobody reads tenths of a second from afar."""
    said = f"{seconds:.0f} s" if seconds < 10 else span(seconds)
    return re.sub(r"(?<=[a-z]) 0 (s|min|h)$", "", said)


def _is_harmless(character: str) -> bool:
    return character in "\n\t\r" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co")


def _written_out(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"

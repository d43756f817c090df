"""What is embedded: from a log's source to the text, its cut and its fingerprint. Pure.

The text is the message and nothing that is unique to one log: a trace id or a time in the text
would give every log a text of its own, and no vector could ever be reused. See docs/text.md.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from enrich.errors import TextUnusable

#: UTF-8 bytes. Byte-level BPE never makes more tokens than there are bytes, so that a text within
#: this limit is within the models' 8,192 tokens whatever it holds; 192 are left for special tokens.
MAX_TEXT_BYTES = 8_000

#: Of those, what the tail may take: the part from the last cause on, or the end.
TAIL_BYTES = 2_600

#: The shortest that a text is ever cut to.
LEAST_CUT_BYTES = 64

CUT_MARK = "\n[...]\n"

_CAUSED_BY = "Caused by"
_SURROGATE = re.compile("[\ud800-\udfff]")


def text_of(source: Mapping[str, Any], rewrite: Callable[[str], str] | None = None) -> str:
    """The text of a log, never empty, encodable, at most MAX_TEXT_BYTES of UTF-8.

    Args:
        rewrite: takes out what must not leave, and what texts may differ in; before the cut, which
            may part a secret in two.

    Raises:
        TextUnusable: `message_missing`, `message_not_text` or `message_empty`.
    """
    message = source.get("message")
    if message is None:
        raise TextUnusable("message_missing")
    if not isinstance(message, str):
        raise TextUnusable("message_not_text")
    # JSON can carry half a surrogate pair; UTF-8, and with it every API, cannot.
    text = (message if message.isascii() else _SURROGATE.sub("�", message)).strip()
    text = cut(text if rewrite is None else rewrite(text))
    if not text:
        raise TextUnusable("message_empty")
    return text


def cut(text: str, limit: int = MAX_TEXT_BYTES) -> str:
    """Keep the head and the last "Caused by" (or, without one, the end) of an over-long text.

    Args:
        limit: bytes of UTF-8 that are left at most; LEAST_CUT_BYTES or more.
    """
    if len(text) * 4 <= limit or len(text.encode()) <= limit:
        return text
    tail_bytes = TAIL_BYTES * limit // MAX_TEXT_BYTES
    cause = text.rfind(_CAUSED_BY)
    if len(text[: max(cause, 0)].encode()) > limit - 2 * tail_bytes:
        tail = _first_bytes(text[cause : cause + tail_bytes], tail_bytes)
    else:
        tail = _last_bytes(text[-tail_bytes:], tail_bytes)
    head = _first_bytes(text[:limit], limit - len(tail.encode()) - len(CUT_MARK.encode()))
    return (head.rstrip() + CUT_MARK + tail.strip()).strip()


def fingerprint(text: str) -> str:
    """SHA-256 of the text, 64 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def _first_bytes(text: str, limit: int) -> str:
    return text.encode()[:limit].decode(errors="ignore")


def _last_bytes(text: str, limit: int) -> str:
    return text.encode()[-limit:].decode(errors="ignore")

"""Answers of OpenSearch within bounds: as they are sent, of so many bytes, and within so long.

Whoever stands in OpenSearch's place could else fill a worker's memory with a few kilobytes of
gzip, or hold it for ever with one byte a second, which no time-out of a socket notices.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from urllib3 import Timeout

#: The largest answer is a read of one log, which OpenSearch lets be 100 MB by default
#: (http.max_content_length), and JSON may spell a byte in six.
MOST_BYTES = 640 * 1024 * 1024

#: Times the time-out of a silence that a whole answer may take.
MOST_TIMEOUTS = 4

_AT_ONCE = 256 * 1024


class AnswerOutOfBounds(Exception):
    """An answer that is not read; `str()` says why, to be put behind "OpenSearch …"."""


class AnswerTooSlow(AnswerOutOfBounds):
    """It came in drips."""


@dataclass(frozen=True)
class Answer:
    """What the client library needs of urllib3's answer."""

    status: int
    headers: Any
    data: bytes


class BoundedPool:
    """A pool of urllib3 whose answers are read here."""

    def __init__(self, pool: Any, timeout: float, connect_timeout: float | None = None) -> None:
        """
        Args:
            timeout: seconds of silence that end a request.
            connect_timeout: seconds that a connection may take to be made; None: as many.
        """
        self._pool = pool
        self._timeout = timeout
        self._connect_timeout = connect_timeout

    def urlopen(self, method: str, url: str, body: Any = None, **options: Any) -> Answer:
        """As urllib3's. Raises AnswerOutOfBounds, and whatever urllib3 does."""
        silence = float(options.get("timeout") or self._timeout)
        if self._connect_timeout is not None:
            options["timeout"] = Timeout(connect=min(self._connect_timeout, silence), read=silence)
        seconds = MOST_TIMEOUTS * silence
        until = time.monotonic() + seconds
        answer = self._pool.urlopen(
            method, url, body, preload_content=False, decode_content=False, **options
        )
        try:
            coding = answer.headers.get("content-encoding", "").strip().lower()
            if coding not in ("", "identity"):
                raise AnswerOutOfBounds("sent a compressed answer, which was not asked for")
            data = self._read(answer, until, seconds)
        except BaseException:
            # Whatever is still on the line is nobody's answer.
            answer.close()
            raise
        answer.release_conn()
        return Answer(answer.status, answer.headers, data)

    def close(self) -> None:
        self._pool.close()

    def _read(self, answer: Any, until: float, seconds: float) -> bytes:
        parts: list[bytes] = []
        size = 0
        # One `recv` at a time: `read` would wait until so many bytes are there.
        while part := answer.read1(_AT_ONCE):
            parts.append(part)
            size += len(part)
            if size > MOST_BYTES:
                raise AnswerOutOfBounds(f"sent an answer of more than {MOST_BYTES >> 20} MiB")
            if time.monotonic() > until:
                raise AnswerTooSlow(f"took longer than {seconds:g} s for one answer")
        return b"".join(parts)

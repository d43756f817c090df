"""One worker that was left with an old API key must not halt the others.

A refused key halts a run, unless another key brought vectors a short while ago: then this worker
alone is out of date, and others can do its work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from enrich.errors import Halt, TransientError

#: A success speaks for the key that brought it for so long, at least.
KEY_WORKS_SECONDS = 600.0


class WorkingKeys(Protocol):
    """Which keys brought vectors lately, told apart by `digest_of`."""

    def note(self, digest: str, seconds: float) -> None: ...
    def another_works(self, digest: str) -> bool: ...


class ApiKey:
    """The key of this process."""

    def __init__(self, keys: WorkingKeys, secret: str, *, interval_seconds: float) -> None:
        self._keys = keys
        self._digest = digest_of(secret)
        # Long enough for the next runs, in which another worker may be the first to ask.
        self._seconds = max(KEY_WORKS_SECONDS, 3 * interval_seconds)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Around requests: their success is noted, and a refusal is weighed.

        Raises:
            TransientError: in place of Halt, where another key works.
        """
        try:
            yield
        except Halt:
            if self._keys.another_works(self._digest):
                raise TransientError(
                    "the embeddings API refuses this worker's OPENAI_API_KEY, while another key "
                    "worked a short while ago: if this is the old one, restart the worker with "
                    "the new; if it is the new one, check it"
                ) from None
            raise
        self._keys.note(self._digest, self._seconds)


def digest_of(secret: str) -> str:
    """Tells API keys apart without saying anything about them."""
    return hashlib.sha256(b"enrich key " + secret.encode()).hexdigest()[:12]

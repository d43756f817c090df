"""Texts that failed by themselves in a way that can pass, while a harmless text was taken.

One run's word is not enough to mark a log for them: a server that answers 500 at random fails for
a healthy text as well. What one run has seen is kept for the next.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from enrich.errors import EnrichError, InputRefused
from enrich.models import LoneFailure

#: Ways of failing that come and go with the load of a server or a gateway.
LOAD = frozenset(
    {"time-out", "cut", "answer", "unread", "408", "409", "425", "499"}
    | {str(status) for status in (502, 503, 504, *range(520, 531))}
)

#: How a way is told to people, where it is no status.
_TOLD = {
    "cut": "a cut connection",
    "answer": "an answer without its vectors",
    "unread": "an answer that cannot be read",
}


class LoneFailures(Protocol):
    """Where it is kept, by fingerprint, for one endpoint and model."""

    def read(self, fingerprint: str) -> LoneFailure | None: ...
    def note(self, fingerprint: str, failure: LoneFailure) -> None: ...
    def forget(self, fingerprints: Iterable[str]) -> None: ...


class OwnLoneFailures:
    """Kept by one process, for itself."""

    def __init__(self) -> None:
        self._failures: dict[str, LoneFailure] = {}

    def read(self, fingerprint: str) -> LoneFailure | None:
        return self._failures.get(fingerprint)

    def note(self, fingerprint: str, failure: LoneFailure) -> None:
        self._failures[fingerprint] = failure

    def forget(self, fingerprints: Iterable[str]) -> None:
        for fingerprint in fingerprints:
            self._failures.pop(fingerprint, None)


def can_pass(error: EnrichError) -> bool:
    """Whether a request may have failed so for another reason than its text: a server's own
    trouble, a lost connection, an error that is told with status 200. What an endpoint says of the
    input, and 4xx, it says of the text."""
    way = error.failed_as
    if isinstance(error, InputRefused):
        return False
    return way in LOAD or way == "200" or (way.isdecimal() and int(way) >= 500)


def told(way: str) -> str:
    """A way of failing, for people."""
    return _TOLD.get(way, way)

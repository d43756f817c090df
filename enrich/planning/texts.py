"""Distinct texts of many logs, counted in bounded memory. Pure.

Up to MOST_KEPT texts the count is exact. Beyond, only texts whose fingerprint lies in a part of all
fingerprints are kept, half of it each time there are too many (adaptive sampling, Wegman; Flajolet,
Computing 43, 1990). Which texts are kept does not depend on how many logs have them, so that what
is seen of them holds for all. Distinct texts of a sample of logs would tell neither.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

#: Some 300 bytes each.
MOST_KEPT = 250_000

#: Of a fingerprint, as many bits as tell texts apart here.
_BITS = 64


@dataclass(frozen=True)
class KnownText:
    """A distinct text."""

    fingerprint: str
    #: Of UTF-8, as it is sent.
    size: int
    #: Projects that have logs with it.
    scopes: frozenset[str]


class DistinctTexts:
    """Takes texts, each as often as a log has it."""

    def __init__(self, most: int = MOST_KEPT) -> None:
        self._most = most
        self._halvings = 0
        self._texts: dict[str, KnownText] = {}
        #: The same sets of scopes come again and again.
        self._scopes: dict[frozenset[str], frozenset[str]] = {}

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._texts)

    def __iter__(self) -> Iterator[KnownText]:
        return iter(self._texts.values())

    def get(self, fingerprint: str) -> KnownText | None:
        return self._texts.get(fingerprint)

    def add(self, fingerprint: str, size: int, scope: str = "") -> None:
        """Args: fingerprint: 64 hex digits."""
        known = self._texts.get(fingerprint)
        if known is not None and scope in known.scopes:
            return
        if known is None and not self._is_kept(fingerprint):
            return
        scopes = frozenset((scope, *(known.scopes if known else ())))
        scopes = self._scopes.setdefault(scopes, scopes)
        self._texts[fingerprint] = KnownText(fingerprint, size, scopes)
        while len(self._texts) > self._most:
            self._halvings += 1
            self._texts = {f: t for f, t in self._texts.items() if self._is_kept(f)}

    @property
    def share(self) -> float:
        """The part of all texts that is kept; 1 while all are."""
        return float(2**-self._halvings)

    @property
    def count(self) -> float:
        """Distinct texts; exact while `share` is 1."""
        return len(self._texts) / self.share

    @property
    def error(self) -> float:
        """How far the count may be off, as a share of it: two standard errors; 0 where exact."""
        if not self._halvings or not self._texts:
            return 0.0
        return 2 * math.sqrt((1 - self.share) / len(self._texts))

    def _is_kept(self, fingerprint: str) -> bool:
        return int(fingerprint[: _BITS // 4], 16) >> (_BITS - self._halvings) == 0

"""The vector of words that somebody searches for, for callers that wait for one at a time.

It is had as every other vector is: from the cache, or bought under the quota and the day's budget,
and counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from enrich.embedding.budget import Usage
from enrich.embedding.resolver import Resolution, TextRequest
from enrich.errors import InputRefused, TransientError
from enrich.text.extract import fingerprint
from enrich.vectors import Vector


class Resolves(Protocol):
    """See `enrich.embedding.resolver.Resolver`."""

    def resolve(self, requests: Any, usage: Usage, *, owner: str, occasion: str) -> Resolution: ...


class WordVectors:
    """One for each caller."""

    def __init__(
        self,
        resolver: Resolves,
        usage: Usage,
        *,
        payer: str,
        owner: str,
        close: Callable[[], None],
    ) -> None:
        """
        Args:
            payer: who pays for what has to be bought.
            owner: a name for this process, see `Resolver.resolve`.
        """
        self._resolver = resolver
        self._usage = usage
        self._payer = payer
        self._owner = owner
        self.close = close

    def of(self, words: str) -> Vector:
        """
        Raises:
            InputRefused: the API does not take these words.
            TransientError: there is no vector now, also because the day's budget is used up; else
                as `Resolver.resolve`.
        """
        request = TextRequest(
            fingerprint=fingerprint(words), text=words, payers=frozenset({self._payer})
        )
        (found,) = self._resolver.resolve(
            [request], self._usage, owner=self._owner, occasion=self._owner
        ).results
        if found.vector is not None:
            return found.vector
        if found.failure:
            raise InputRefused(f"the embeddings API does not take these words ({found.failure})")
        raise TransientError(found.reason or "the embeddings API gave no vector for these words")

"""The vectors that logs have, as the resolver wants them: whose they are, and of which text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from enrich.embedding.resolver import StoredVector
from enrich.errors import TextUnusable
from enrich.log_store import StoredVector as VectorOfLog
from enrich.log_store.interfaces import VectorReader
from enrich.models import LogLocation
from enrich.text.extract import fingerprint, text_of
from enrich.text.rewriting import Rewrite


class VectorsOfLogs:
    """`enrich.embedding.resolver.StoredVectors` in OpenSearch."""

    def __init__(
        self,
        stored: VectorReader,
        *,
        model: str,
        dimensions: int,
        scope_of: Callable[[str], str],
        rewrite: Rewrite | None,
    ) -> None:
        self._stored = stored
        self._space = model, dimensions
        self._scope_of = scope_of
        self._rewrite = rewrite

    def read(self, places: Sequence[LogLocation]) -> list[StoredVector | None]:
        return [
            None if one is None else self._of(place, one)
            for place, one in zip(places, self._stored.read(places), strict=True)
        ]

    def _of(self, place: LogLocation, one: VectorOfLog) -> StoredVector:
        return StoredVector(
            fingerprint=one.fingerprint,
            vector=one.vector,
            scope=self._scope_of(place.index),
            of_its_text=self._is_of_its_text(one),
        )

    def _is_of_its_text(self, one: VectorOfLog) -> bool:
        """A log that was masked otherwise, or changed since, has another text now."""
        text = text_now(one, self._space, self._rewrite)
        return text is not None and one.fingerprint == fingerprint(text)


def text_now(one: VectorOfLog, space: tuple[str, int], rewrite: Rewrite | None) -> str | None:
    """The text that a log has now, if its vector is said to be of this model and width, and there
    is a text."""
    if (one.model, one.dimensions) != space:
        return None
    try:
        return text_of({"message": one.message}, rewrite)
    except TextUnusable:
        return None

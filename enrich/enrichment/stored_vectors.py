"""The vectors that logs have, as the resolver wants them: whose they are, and of which text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from enrich.embedding.resolver import StoredVector
from enrich.errors import TextUnusable
from enrich.log_store import StoredVector as VectorOfLog
from enrich.log_store.interfaces import VectorReader
from enrich.models import LogLocation
from enrich.text.extract import fingerprint, text_of
from enrich.text.masking import Masker


class VectorsOfLogs:
    """`enrich.embedding.resolver.StoredVectors` in OpenSearch."""

    def __init__(
        self,
        stored: VectorReader,
        *,
        model: str,
        dimensions: int,
        scope_of: Callable[[str], str],
        mask: Masker | None,
    ) -> None:
        self._stored = stored
        self._space = model, dimensions
        self._scope_of = scope_of
        self._mask = mask

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
            of_its_text=self.text_of(one) is not None,
        )

    def text_of(self, one: VectorOfLog) -> str | None:
        """The text that the log has now, if its vector is of the present model and of this text.

        A log that was masked otherwise, or changed since, has another text now.
        """
        if (one.model, one.dimensions) != self._space:
            return None
        try:
            text = text_of({"message": one.message}, self._mask)
        except TextUnusable:
            return None
        return text if one.fingerprint == fingerprint(text) else None

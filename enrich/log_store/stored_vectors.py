"""Reading vectors that logs already have, for others with the same text.

Nothing of these logs is written back, so that, unlike in `documents`, the numbers are decoded where
they stand: of what a vector from a log costs, most is reading its JSON.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from enrich.errors import TransientError
from enrich.log_store.connection import Connection, loads_leniently
from enrich.log_store.documents import address
from enrich.models import LogLocation
from enrich.vectors import BYTES, Vector, is_usable


@dataclass(frozen=True, kw_only=True)
class StoredVector:
    """A log's vector and what is told of it; all of it as somebody wrote it, and none is proven."""

    #: Of shape (dimensions,), finite and not zero.
    vector: Vector
    message: Any
    model: Any
    dimensions: Any
    #: "" where there is none.
    fingerprint: str


class _Source(msgspec.Struct):
    log_vector: list[float] = []
    message: Any = None
    ai_embedding_model: Any = None
    ai_embedding_dimensions: Any = None
    ai_text_sha256: Any = None


class _Got(msgspec.Struct):
    source: _Source = msgspec.field(name="_source", default_factory=_Source)


class _Answer(msgspec.Struct):
    docs: list[_Got]


class StoredVectors:
    """Reads vectors by reference."""

    def __init__(self, connection: Connection, dimensions: int) -> None:
        self._connection = connection
        self._dimensions = dimensions
        # Packs floats in a third of the time that numpy takes for a list.
        self._numbers = struct.Struct(f"<{dimensions}f")

    def read(self, places: Sequence[LogLocation]) -> list[StoredVector | None]:
        """What each gives, in their order; None where there is no log, or no whole vector."""
        if not places:
            return []
        wanted = {"docs": [address(place) for place in places]}
        body = self._connection.request("POST", "/_mget", wanted)
        try:
            got = msgspec.json.decode(body, type=_Answer).docs
        except (msgspec.DecodeError, RecursionError):
            # One of them has something else for a vector, or half a surrogate pair.
            try:
                got = _one_by_one(body)
            except RecursionError:
                # Or is nested too deep for either.
                if len(places) == 1:
                    return [None]
                middle = len(places) // 2
                return [*self.read(places[:middle]), *self.read(places[middle:])]
        if len(got) != len(places):
            raise TransientError("OpenSearch's answer has another number of documents")
        return [self._stored(one.source) for one in got]

    def _stored(self, source: _Source) -> StoredVector | None:
        if len(source.log_vector) != self._dimensions:
            return None
        try:
            numbers = self._numbers.pack(*source.log_vector)
        except OverflowError:
            return None
        vector = np.frombuffer(numbers, dtype=BYTES)
        if not is_usable(vector):
            return None
        known = source.ai_text_sha256
        return StoredVector(
            vector=vector,
            message=source.message,
            model=source.ai_embedding_model,
            dimensions=source.ai_embedding_dimensions,
            fingerprint=known if isinstance(known, str) else "",
        )


def _one_by_one(body: str) -> list[_Got]:
    """Raises RecursionError, TransientError."""
    try:
        rows = list(loads_leniently(body)["docs"])
    except (ValueError, KeyError, TypeError):
        raise TransientError("OpenSearch's answer was cut short or has another shape") from None
    return [_converted(row) for row in rows]


def _converted(row: Any) -> _Got:
    try:
        return msgspec.convert(row, _Got)
    except (msgspec.ValidationError, UnicodeEncodeError):
        return _Got()

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
from enrich.schema import LOGLENS, Schema
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


class _Marked(msgspec.Struct):
    log_vector: list[float] = []
    ai_embedding_model: Any = None
    ai_embedding_dimensions: Any = None
    ai_text_sha256: Any = None


class _Source(_Marked):
    message: Any = None


class _Got(msgspec.Struct):
    source: _Source = msgspec.field(name="_source", default_factory=_Source)


class _Answer(msgspec.Struct):
    docs: list[_Got]


class _Texts:
    """What is decoded of a document beside its vector, and how that becomes its text."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self.got: type[Any] = _Got
        self.answer: type[Any] = _Answer
        self._roots: dict[str, str] = {}
        if schema.is_message_alone:
            return
        # Names of attributes, which keys of JSON need not be.
        roots = [root for root in schema.message_roots if root not in _Marked.__struct_fields__]
        self._roots = {f"root_{n}": root for n, root in enumerate(roots)}
        fields = [
            (attribute, Any, msgspec.field(name=root, default=None))
            for attribute, root in self._roots.items()
        ]
        source: Any = msgspec.defstruct("_SourceOfShape", fields, bases=(_Marked,))
        whole = msgspec.field(name="_source", default_factory=source)
        self.got = msgspec.defstruct("_GotOfShape", [("source", source, whole)])
        self.answer = msgspec.defstruct("_AnswerOfShape", [("docs", list[self.got])])  # type: ignore[name-defined]

    def message(self, source: Any) -> Any:
        if not self._roots:
            return source.message
        values = {root: getattr(source, attribute) for attribute, root in self._roots.items()}
        return self._schema.message(values)


class StoredVectors:
    """Reads vectors by reference."""

    def __init__(self, connection: Connection, dimensions: int, schema: Schema = LOGLENS) -> None:
        self._connection = connection
        self._dimensions = dimensions
        self._texts = _Texts(schema)
        # Packs floats in a third of the time that numpy takes for a list.
        self._numbers = struct.Struct(f"<{dimensions}f")

    def read(self, places: Sequence[LogLocation]) -> list[StoredVector | None]:
        """What each gives, in their order; None where there is no log, or no whole vector."""
        if not places:
            return []
        wanted = {"docs": [address(place) for place in places]}
        body = self._connection.request("POST", "/_mget", wanted)
        try:
            got = msgspec.json.decode(body, type=self._texts.answer).docs
        except (msgspec.DecodeError, RecursionError):
            # One of them has something else for a vector, or half a surrogate pair.
            try:
                got = [_converted(row, self._texts.got) for row in _rows(body)]
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
            message=self._texts.message(source),
            model=source.ai_embedding_model,
            dimensions=source.ai_embedding_dimensions,
            fingerprint=known if isinstance(known, str) else "",
        )


def _rows(body: str) -> list[Any]:
    """Raises RecursionError, TransientError."""
    try:
        return list(loads_leniently(body)["docs"])
    except (ValueError, KeyError, TypeError):
        raise TransientError("OpenSearch's answer was cut short or has another shape") from None


def _converted(row: Any, type_: type[Any]) -> Any:
    try:
        return msgspec.convert(row, type_)
    except (msgspec.ValidationError, UnicodeEncodeError):
        return type_()

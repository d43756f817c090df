"""Which shapes of logs the indices have, whatever ENRICH_SCHEMA says; for `check`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from enrich.log_store.odd_answers import translates_odd_answers
from enrich.log_store.paths import parts
from enrich.log_store.queries import FieldCaps, Queries, Searched, by_level, spelt
from enrich.log_store.scope import Scope
from enrich.schema import PRESETS, Shape, schema_of

#: Names that fields of levels mostly have, as OpenSearch's patterns.
_LIKE_LEVELS = ("*level*", "*severity*", "*lvl*", "*priority*")

#: Types of a field that no text is in.
_NO_TEXTS = frozenset({"object", "nested", "boolean", "date", "date_nanos", "long", "integer"})


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """Indices that look like a shape other than ENRICH_SCHEMA's."""

    shape: Shape
    indices: Sequence[str]
    #: Logs without a vector that this shape finds, and neither the present schema nor those before.
    logs: int

    @property
    def fields(self) -> str:
        return f"{self.shape.level_field}, {self.shape.text_fields[0]}"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What `check` tells of shapes."""

    #: Shapes of which there are logs that the present schema does not find.
    others: Sequence[Recognised]
    #: Indices that have logs, and the level of no shape that is known.
    unknown: Sequence[str]
    #: Fields of those that may be the level.
    like_levels: Sequence[str]
    #: Spellings of wanted levels that are not among them, where that counts, and how many logs
    #: have one.
    spellings: Sequence[str]
    spelt_otherwise: int


class _Answer(Searched):
    aggregations: dict[str, Any] = msgspec.field(default_factory=dict)


@translates_odd_answers
class Recognition:
    """Looks at mappings and counts; changes nothing."""

    def __init__(self, scope: Scope, queries: Queries, levels: Sequence[str]) -> None:
        self._scope = scope
        self._schema = queries.schema
        self._queries = queries
        self._presets = [
            schema_of(name, levels).first
            for name in PRESETS
            if name not in {shape.name for shape in self._schema.shapes}
        ]

    def look(self) -> Seen:
        """Look at all indices."""
        shapes = (*self._presets, *self._schema.shapes)
        fields = {name for shape in shapes for name in shape.level_fields}
        fields |= {shape.text_fields[0] for shape in shapes}
        caps = self._scope.ask(
            FieldCaps,
            "GET",
            "_field_caps",
            params={
                "fields": ",".join(sorted({*fields, *_LIKE_LEVELS})),
                "include_unmapped": "true",
            },
        )
        known = _with_any(caps, self._schema.level_fields)
        seen = [clause for shape in self._schema.shapes for clause in by_level(shape)]
        others = []
        for shape in self._presets:
            known |= _with_any(caps, shape.level_fields)
            logs = self._count(_looks_like(caps, shape), by_level(shape), seen)
            if logs:
                others.append(
                    Recognised(shape=shape, indices=sorted(logs), logs=sum(logs.values()))
                )
                seen += by_level(shape)
        unknown = self._with_logs(sorted(set(caps.names()) - known))
        spellings, spelt_otherwise = self._spelt_otherwise(caps)
        return Seen(
            others=others,
            unknown=unknown,
            like_levels=sorted({name for index in unknown for name in _like_levels(caps, index)}),
            spellings=spellings,
            spelt_otherwise=spelt_otherwise,
        )

    def _spelt_otherwise(self, caps: FieldCaps) -> tuple[list[str], int]:
        (shape, *others) = self._schema.shapes
        if others or not shape.exact_level:
            return [], 0
        words = shape.levels.words
        spellings = {s for word in words for s in (word.upper(), word.lower(), word.capitalize())}
        indices = _looks_like(caps, shape)
        names = shape.level_field, f"{shape.level_field}.keyword"
        found: list[str] = []
        count = 0
        for word in sorted(spellings.difference(words)):
            if logs := self._count(indices, spelt(names, [word]), by_level(shape)):
                found.append(word)
                count += sum(logs.values())
        return found, count

    def _count(
        self, indices: Sequence[str], should: list[Any], must_not: list[Any]
    ) -> dict[str, int]:
        """Logs without a vector and a mark, by index; those without any are left out."""
        settled = self._queries.pending()["bool"]["must_not"]
        return self._by_index(
            indices,
            {
                "bool": {
                    "filter": [{"bool": {"should": should}}],
                    "must_not": [*settled, *must_not],
                }
            },
        )

    def _with_logs(self, indices: Sequence[str]) -> list[str]:
        """Those of the indices that have a document."""
        return sorted(self._by_index(indices, {"match_all": {}}))

    def _by_index(self, indices: Sequence[str], query: dict[str, Any]) -> dict[str, int]:
        found: dict[str, int] = {}
        for names in parts(indices):
            counted = self._scope.search(
                _Answer,
                {
                    "size": 0,
                    "query": query,
                    "aggs": {"by_index": {"terms": {"field": "_index", "size": len(names)}}},
                },
                index=",".join(names),
            )
            buckets = counted.value.aggregations.get("by_index", {}).get("buckets", [])
            found |= {str(bucket["key"]): int(bucket["doc_count"]) for bucket in buckets}
        return found


def _with_any(caps: FieldCaps, names: Sequence[str]) -> set[str]:
    return {index for name in names for index in caps.indices_with(name)}


def _with_text(caps: FieldCaps, name: str) -> set[str]:
    return {index for index, type_ in caps.types_of(name).items() if type_ not in _NO_TEXTS}


def _looks_like(caps: FieldCaps, shape: Shape) -> list[str]:
    """Indices that map the level and the text of a shape."""
    return sorted(_with_any(caps, shape.level_fields) & _with_text(caps, shape.text_fields[0]))


def _like_levels(caps: FieldCaps, index: str) -> list[str]:
    """Fields of an index that may be a level, by their names and types."""
    return sorted(
        name
        for name in caps.fields
        if not name.endswith(".keyword") and index in _with_text(caps, name)
    )

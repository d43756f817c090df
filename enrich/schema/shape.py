"""A shape of logs: the names of the fields that matter, and what a document has there. Pure.

Everything that looks for levels, texts, times, services and traces, in a query or in a document,
takes the names from here. A document is a dict as JSON gives it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from enrich.schema.levels import Levels
from enrich.schema.paths import roots_of, values_at

#: Parts of one text. An array may have any number of them, and each is held against the others.
MOST_PARTS = 16

#: Places at which a part is looked for in another: whoever writes logs decides how many there are.
MOST_PLACES = 1000


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One way in which logs are written."""

    #: Its name as a value of ENRICH_SCHEMA.
    name: str
    #: What people call it.
    title: str
    #: Where the level stands, as a word, or as a number where there is no `number_field`.
    level_field: str
    #: Where it stands as a number as well; "" for no such field.
    number_field: str = ""
    #: Joined in this order, each once.
    text_fields: tuple[str, ...]
    timestamp_field: str
    #: The first that a document has.
    service_fields: tuple[str, ...]
    trace_fields: tuple[str, ...]
    levels: Levels
    #: Whether the level counts only as it is spelt in ENRICH_LEVELS, at the top of a document.
    exact_level: bool = False
    #: Whether the text is the one field at the top, and must be a string.
    plain_text: bool = False

    @property
    def number_of(self) -> str:
        """The field of numbers."""
        return self.number_field or self.level_field

    @cached_property
    def level_fields(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.level_field, self.number_field)))

    def levels_in(self, source: Mapping[str, Any]) -> list[Any]:
        """The values of a document's level, the words before the numbers."""
        return [value for name in self.level_fields for value in values_at(source, name)]

    def is_wanted(self, source: Mapping[str, Any]) -> bool:
        """Whether the document's level is one of ENRICH_LEVELS."""
        by_word = any(map(self.levels.has_word, values_at(source, self.level_field)))
        return by_word or any(map(self.levels.has_number, values_at(source, self.number_of)))

    def message(self, source: Mapping[str, Any]) -> Any:
        """The text of a document before any cut: a string, or what stands in its place where that
        is none, or None."""
        if self.plain_text:
            return source.get(self.text_fields[0])
        values = [value for name in self.text_fields for value in values_at(source, name)]
        parts = [text for value in values if (text := _text(value)) is not None]
        if parts or not values:
            return joined(parts[:MOST_PARTS]) if parts else None
        return values[0]


@dataclass(frozen=True)
class Schema:
    """The shapes that logs may have: one, or with ENRICH_SCHEMA=auto all that are known.

    Where several are possible, a document has the first of those whose text it has: before others
    those whose level is wanted, then those whose level it has.
    """

    shapes: tuple[Shape, ...]

    def of(self, source: Mapping[str, Any]) -> Shape:
        """The shape of a document."""
        if len(self.shapes) == 1:
            return self.shapes[0]
        return max(self.shapes, key=lambda shape: _fit(shape, source))

    def has_fields_of(self, other: Schema) -> bool:
        """Whether both have the same fields, whatever levels are wanted."""
        return len(self.shapes) == len(other.shapes) and all(
            replace(mine, levels=theirs.levels) == theirs
            for mine, theirs in zip(self.shapes, other.shapes, strict=True)
        )

    @property
    def first(self) -> Shape:
        return self.shapes[0]

    @cached_property
    def is_plain(self) -> bool:
        """Whether a document's text is what one field at its top holds."""
        return len(self.shapes) == 1 and self.shapes[0].plain_text

    @cached_property
    def plain_field(self) -> str:
        """That field, "" where there is none: who reads many documents need not decode more."""
        return self.first.text_fields[0] if self.is_plain else ""

    @property
    def is_message_alone(self) -> bool:
        """Whether that field is `message`."""
        return self.plain_field == "message"

    def is_wanted(self, source: Mapping[str, Any]) -> bool:
        return any(shape.is_wanted(source) for shape in self.shapes)

    def may_be_wanted(self, source: Mapping[str, Any]) -> bool:
        """Whether a document that a search found may still be wanted: also where its level stands
        in the index alone, as an alias or a derived field, and not in the document."""
        if self.is_wanted(source):
            return True
        return not any(shape.exact_level or shape.levels_in(source) for shape in self.shapes)

    def level(self, source: Mapping[str, Any]) -> Any:
        return next(iter(self.of(source).levels_in(source)), None)

    def message(self, source: Mapping[str, Any]) -> Any:
        """As `Shape.message` of the document's shape."""
        return self.of(source).message(source)

    def time(self, source: Mapping[str, Any]) -> Any:
        """The time of a document as it is written there, or None."""
        return _first(source, (self.of(source).timestamp_field, *self.timestamp_fields))

    def service(self, source: Mapping[str, Any]) -> Any:
        return _first(source, self.of(source).service_fields)

    def trace(self, source: Mapping[str, Any]) -> Any:
        return _first(source, self.of(source).trace_fields)

    # -- names, for queries and for decoding no more than is needed

    @cached_property
    def level_fields(self) -> tuple[str, ...]:
        return _distinct(name for shape in self.shapes for name in shape.level_fields)

    @cached_property
    def timestamp_fields(self) -> tuple[str, ...]:
        return _distinct(shape.timestamp_field for shape in self.shapes)

    @cached_property
    def text_fields(self) -> tuple[str, ...]:
        return _distinct(name for shape in self.shapes for name in shape.text_fields)

    @cached_property
    def message_fields(self) -> tuple[str, ...]:
        """All that `message` looks at: where there are several shapes, the levels as well."""
        if len(self.shapes) == 1:
            return self.text_fields
        return _distinct((*self.text_fields, *self.level_fields))

    @cached_property
    def message_roots(self) -> tuple[str, ...]:
        """Keys at a document's top that `message` needs."""
        return _distinct(root for name in self.message_fields for root in roots_of(name))

    @cached_property
    def level_roots(self) -> tuple[str, ...]:
        """Keys at a document's top that `is_wanted` needs."""
        return _distinct(root for name in self.level_fields for root in roots_of(name))

    @cached_property
    def shown_fields(self) -> tuple[str, ...]:
        """All fields that have a part in what people are shown of a log."""
        return _distinct(
            (
                *self.message_fields,
                *self.level_fields,
                *self.timestamp_fields,
                *(name for shape in self.shapes for name in shape.service_fields),
                *(name for shape in self.shapes for name in shape.trace_fields),
            )
        )

    @cached_property
    def texts_told(self) -> str:
        """The text's fields as a sentence names them: "`message`", "`body` or `message`"."""
        firsts = _distinct(shape.text_fields[0] for shape in self.shapes)
        names = self.text_fields if len(self.shapes) == 1 else firsts
        return " or ".join(f"`{name}`" for name in names)


def joined(parts: Sequence[str]) -> str:
    """Texts under each other, each once: a part that another says in whole words, or that came
    before, is not said again. A stack trace mostly begins with its type and message."""
    kept: list[str] = []
    for part in map(str.strip, parts):
        if not part or any(_says(other, part) for other in kept):
            continue
        kept = [other for other in kept if not _says(part, other)]
        kept.append(part)
    return "\n".join(kept)


def _says(text: str, part: str) -> bool:
    """Whether a part stands in a text, and neither of its ends within a word or number there."""
    at = text.find(part)
    for _ in range(MOST_PLACES):
        if at < 0:
            return False
        if not (_parts_a_word(text, at) or _parts_a_word(text, at + len(part))):
            return True
        at = text.find(part, at + 1)
    return False


def _parts_a_word(text: str, at: int) -> bool:
    before, after = text[max(0, at - 2) : at], text[at : at + 2]
    if not before or not after:
        return False
    if _is_of_word(before[-1]) and _is_of_word(after[0]):
        return True
    # 1.5 is one number.
    return (before[-1].isdigit() and after[0] in ".," and after[1:].isdigit()) or (
        before[:-1].isdigit() and before[-1] in ".," and after[0].isdigit()
    )


def _is_of_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _text(value: Any) -> str | None:
    """A value as text, an array of lines as one; None for what is none."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        return "\n".join(value)
    return None


def _fit(shape: Shape, source: Mapping[str, Any]) -> tuple[bool, ...]:
    has_text = isinstance(shape.message(source), str)
    return has_text, shape.is_wanted(source), bool(shape.levels_in(source))


def _first(source: Mapping[str, Any], names: Iterable[str]) -> Any:
    return next((value for name in names for value in values_at(source, name)), None)


def _distinct(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))

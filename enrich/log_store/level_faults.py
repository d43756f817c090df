"""Which indices map their level so that a wanted one cannot be searched. Pure."""

from __future__ import annotations

from enrich.log_store.queries import FieldCaps
from enrich.schema import Schema, Shape

_NUMBERS = frozenset(
    {"byte", "short", "integer", "long", "unsigned_long", "half_float", "float", "double"}
    | {"scaled_float"}
)
_TEXTS = ("text", "match_only_text")

#: Types of a field that cannot hold a level's name.
_NO_WORDS = _NUMBERS | {"boolean", "date", "date_nanos", "ip", "binary", "object", "nested"}


def unreadable_levels(schema: Schema, caps: FieldCaps) -> dict[str, str]:
    """Indices whose level is mapped so that a wanted one cannot be searched, and why. Pure."""
    faults: dict[str, str] = {}
    searchable: set[str] = set()
    for shape in schema.shapes:
        of_words = _word_faults(shape, caps)
        of_numbers = _number_faults(shape, caps)
        for name, found in ((shape.level_field, of_words), (shape.number_of, of_numbers)):
            if found is not None:
                searchable |= caps.indices_with(name) - found.keys()
                faults |= found
    return {index: why for index, why in sorted(faults.items()) if index not in searchable}


def _word_faults(shape: Shape, caps: FieldCaps) -> dict[str, str] | None:
    """Indices in which no word of the shape can be searched; None if none is wanted."""
    if not shape.levels.words:
        return None
    name, word = shape.level_field, shape.levels.words[0]
    faults = {}
    if shape.exact_level:
        # Elsewhere small letters are wanted too, which is how such a field is searched.
        text_only = caps.indices_with(name, _TEXTS) - caps.indices_with(f"{name}.keyword")
        for index in text_only:
            faults[index] = (
                f"{name} is mapped as text without {name}.keyword, so {word} cannot be searched "
                "exactly"
            )
    digits = any(map(str.isdecimal, shape.levels.words))
    for index, type_ in caps.types_of(name).items():
        if type_ in _NO_WORDS and not (digits and type_ in _NUMBERS):
            faults[index] = f"{name} is mapped as {type_}, which holds no word such as {word}"
    return faults


def _number_faults(shape: Shape, caps: FieldCaps) -> dict[str, str] | None:
    """Indices in which no number of the shape can be searched; None if none is wanted."""
    name, least = shape.number_of, shape.levels.at_least
    if least is None and not shape.levels.numbers:
        return None
    return {
        index: (
            f"{name} is mapped as {type_}, which cannot be compared as a number with >={least:g}"
            if least is not None
            else f"{name} is mapped as {type_}, which holds no number of a level"
        )
        for index, type_ in caps.types_of(name).items()
        if type_ not in _NUMBERS and (least is not None or type_ in _NO_WORDS)
    }

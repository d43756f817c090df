"""Reading a field of a document by its name, as OpenSearch's mapping means the name. Pure.

`a.b.c` is the same field whether the document nests objects, has dots in its keys, or mixes both;
an array holds several values of one field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def values_at(source: Any, name: str) -> Iterator[Any]:
    """The values that a document has at a name; arrays of objects are looked into, `null` is none.

    An array that stands at the name itself is one value.
    """
    if isinstance(source, list):
        for one in source:
            yield from values_at(one, name)
        return
    if not isinstance(source, Mapping):
        return
    value = source.get(name)
    if value is not None:
        yield value
    dot = name.find(".")
    while dot > 0:
        inside = source.get(name[:dot])
        if isinstance(inside, Mapping | list):
            yield from values_at(inside, name[dot + 1 :])
        dot = name.find(".", dot + 1)


def roots_of(name: str) -> tuple[str, ...]:
    """Keys at a document's top under which a field may stand: of `a.b.c` `a`, `a.b` and `a.b.c`."""
    parts = name.split(".")
    return tuple(".".join(parts[: n + 1]) for n in range(len(parts)))

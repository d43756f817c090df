"""Reading a field of a document by its name, as OpenSearch's mapping means the name. Pure.

`a.b.c` is the same field whether the document nests objects, has dots in its keys, or mixes both;
an array holds several values of one field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def values_at(source: Mapping[str, Any], name: str) -> Iterator[Any]:
    """The values that a document has at a name; arrays of objects are looked into, `null` is none.

    An array that stands at the name itself is one value.
    """
    value = source.get(name)
    if value is not None:
        yield value
    dot = name.find(".")
    while dot > 0:
        for inside in flattened(source.get(name[:dot])):
            if isinstance(inside, Mapping):
                yield from values_at(inside, name[dot + 1 :])
        dot = name.find(".", dot + 1)


def flattened(value: Any) -> Iterator[Any]:
    """A value, or those of an array; arrays in arrays are one array, as OpenSearch has it. Without
    recursion: how deep they are is up to whoever writes logs."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting.extend(reversed(one))
        else:
            yield one


def roots_of(name: str) -> tuple[str, ...]:
    """Keys at a document's top under which a field may stand: of `a.b.c` `a`, `a.b` and `a.b.c`."""
    parts = name.split(".")
    return tuple(".".join(parts[: n + 1]) for n in range(len(parts)))

"""Names of indices in a request's path: percent-encoded, in parts that OpenSearch takes at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from urllib.parse import quote

from more_itertools import constrained_batches

from enrich.errors import Halt

#: Of the 4,096 bytes that OpenSearch takes as a request's first line by default
#: (http.max_initial_line_length); the rest is for the operation, its parameters and a proxy's path.
MOST_BYTES = 3_500

#: An answer tells about each of them.
MOST_NAMES = 40


def in_path(*names: str) -> str:
    """Names, patterns and exclusions, each alone or with commas between them, as a part of a path.

    Raises Halt where they are longer than a path may be.
    """
    expression = ",".join(names)
    encoded = _encoded(expression)
    if len(encoded) > MOST_BYTES:
        count = expression.count(",") + 1
        raise Halt(
            f"{count} names of indices are more than one request to OpenSearch has room for: use "
            "wildcards in ENRICH_INDEX_PATTERN and ENRICH_EXCLUDE_INDICES, in the latter also for "
            "indices that are blocked for reading, since each of them has to be left out by name"
        )
    return encoded


def parts(names: Sequence[str]) -> Iterator[list[str]]:
    """`names` in order, in parts of which each fits into one path."""
    batches = constrained_batches(
        names, MOST_BYTES, MOST_NAMES, get_len=lambda name: len(_encoded(name)) + 1, strict=False
    )
    return map(list, batches)


def holds(pattern: str, name: str) -> bool:
    """Whether a pattern takes a name in; only `*` means something in one."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name) is not None


def common_name(one: str, other: str) -> str | None:
    """A name that two patterns both take in; None where there is no such name. Pure."""
    # What is left of both patterns, from their ends on: the shortest name that both take in.
    rest: dict[tuple[int, int], str | None] = {(len(one), len(other)): ""}
    for i in range(len(one), -1, -1):
        for j in range(len(other), -1, -1):
            if (i, j) in rest:
                continue
            a, b = one[i : i + 1], other[j : j + 1]
            found: list[str | None] = []
            if a == "*":
                found.append(rest[i + 1, j])
                if b and b != "*":
                    found.append(_before(b, rest[i, j + 1]))
            if b == "*":
                found.append(rest[i, j + 1])
                if a and a != "*":
                    found.append(_before(a, rest[i + 1, j]))
            if a == b == "*":
                # A star is shown as a letter, so that the name looks like one.
                found = [_before("x", each) for each in found]
            elif a and a == b:
                found.append(_before(a, rest[i + 1, j + 1]))
            names = [each for each in found if each is not None]
            rest[i, j] = min(names, key=lambda name: (len(name), name)) if names else None
    return rest[0, 0]


def _before(letter: str, rest: str | None) -> str | None:
    return None if rest is None else letter + rest


def _encoded(expression: str) -> str:
    # A percent sign may be part of a name, and would else make it that of another index.
    return quote(expression, safe="*,")

"""What vectors take on the disks of OpenSearch's nodes, and which node they fill most. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

#: What a log gets besides the numbers, as Lucene writes it: the other fields (270 bytes were seen)
#: and neighbours in the graph (25 of 14,000 logs that are much alike, up to 130 with `m` 16).
BESIDES_BYTES = 350

#: A number of a vector in the source: eleven digits and a comma, compressed.
SOURCE_BYTES_A_NUMBER = 6.0


class Copy(Protocol):
    """A shard's copy on a node."""

    @property
    def index(self) -> str: ...
    @property
    def shard(self) -> int: ...
    @property
    def node(self) -> str: ...


class NodeDisk(Protocol):
    """A data node's disk, in bytes."""

    @property
    def node(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def total(self) -> int: ...
    @property
    def available(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Filling:
    """What a node has now and what it is given, in bytes."""

    name: str
    total: int
    used: int
    added: int

    @property
    def share_before(self) -> float:
        return self.used / self.total if self.total else 0.0

    @property
    def share_after(self) -> float:
        return (self.used + self.added) / self.total if self.total else 0.0


def vector_bytes(dimensions: int, *, in_source: bool) -> float:
    """Of one log's vector in one copy of its shard, once segments are merged.

    Args:
        in_source: whether the source keeps the numbers as well (k-NN's derived source is off, or
            not known to this version).
    """
    written = SOURCE_BYTES_A_NUMBER * dimensions if in_source else 0.0
    return 4.0 * dimensions + BESIDES_BYTES + written


def bytes_by_node(
    logs: Mapping[str, float], sizes: Mapping[str, float], copies: Sequence[Copy]
) -> dict[str, float]:
    """What each node is given, by its id.

    Args:
        logs: that get a vector, by index; they are spread evenly over its shards.
        sizes: bytes of a vector, by index.
    """
    shards: dict[str, set[int]] = {}
    for copy in copies:
        shards.setdefault(copy.index, set()).add(copy.shard)
    given: dict[str, float] = {}
    for copy in copies:
        part = logs.get(copy.index, 0.0) / len(shards[copy.index])
        given[copy.node] = given.get(copy.node, 0.0) + part * sizes.get(copy.index, 0.0)
    return given


def fullest(disks: Iterable[NodeDisk], given: Mapping[str, float]) -> Filling | None:
    """The node whose disk is the fullest afterwards; None where no disk is known."""
    fillings = [
        Filling(
            name=disk.name,
            total=disk.total,
            used=disk.total - disk.available,
            added=round(given.get(disk.node, 0.0)),
        )
        for disk in disks
        if disk.total
    ]
    return max(fillings, key=lambda one: one.share_after, default=None)

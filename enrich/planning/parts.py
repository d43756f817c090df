"""What a planner works with, as small interfaces, and the backlog that it plans."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from enrich.ledger import Ledger
from enrich.log_store.coverage import Counted
from enrich.log_store.distinct_texts import SampledText
from enrich.log_store.interfaces import RunStore
from enrich.log_store.placement import Disk, ShardCopy
from enrich.models import LogLocation
from enrich.settings import Settings

#: Backlogs up to this are read log by log.
EXACT_UP_TO = 200_000


class TextCounter(Protocol):
    """Lets OpenSearch count texts."""

    def distinct(self, indices: Sequence[str]) -> Counted[int]: ...
    def some(self, indices: Sequence[str], parts: int, most: int) -> Counted[list[SampledText]]: ...


class DiskReader(Protocol):
    """Tells where shards are."""

    def copies(self, indices: Sequence[str]) -> list[ShardCopy]: ...
    def disks(self) -> list[Disk]: ...
    def high_watermark(self) -> str: ...
    def vectors_in_source(self, indices: Sequence[str]) -> Mapping[str, bool]: ...


class KnownVectors(Protocol):
    """Texts whose vector is in Redis."""

    def known(self, fingerprints: Sequence[str]) -> set[str]: ...


class KnownPlaces(Protocol):
    """Texts whose vector was written into a log."""

    def find(self, fingerprints: Sequence[str]) -> Mapping[str, LogLocation]: ...


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """What a run would take."""

    counts: Mapping[str, int]
    unsorted: frozenset[str] = frozenset()
    #: Hits that an index gives at once, where fewer than others.
    windows: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def logs(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a planner works with."""

    settings: Settings
    store: RunStore
    #: Asks OpenSearch with more patience than the rest; None: all logs are read.
    text_counts: TextCounter | None
    placement: DiskReader | None
    cache: KnownVectors
    locations: KnownPlaces
    ledger: Ledger
    #: The API's requests and tokens a minute; 0 where none is known.
    limits: Callable[[], tuple[int, int]]
    #: The vector space's name.
    space: str
    #: Bytes put before each text.
    prefix_bytes: int = 0
    exact_up_to: int = EXACT_UP_TO


#: Takes what is being done, how much of it is done, and of how much; 0 where that is not known.
Tell = Callable[[str, int, int], None]


def untold(what: str, done: int, total: int) -> None:
    """Tells nobody."""

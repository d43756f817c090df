"""What a search left out: the one place that tells whether a number of logs is whole.

OpenSearch answers 200 and counts what it can. Shards that failed or have no copy, a search that ran
out of time, a remote cluster that was passed over and an index that may not be read are missing in
the number, and nothing but a few fields beside it says so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from enrich.log_store.queries import Searched

T = TypeVar("T")

#: Why an index is left out when its search is not complete.
NO_SHARD = "not every shard answers (red index)"

#: Why an index that was asked for by name is left out when it is closed.
CLOSED = "it is closed"

#: Indices that one sentence names.
MOST_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Gaps:
    """What was not counted, or not searched."""

    #: Indices of which a part or all is missing, and why.
    indices: Mapping[str, str] = field(default_factory=dict)
    #: Why something is missing whose index nobody can tell; "" where there is no such thing.
    unnamed: str = ""
    #: Remote clusters that were passed over.
    clusters: int = 0

    @property
    def whole(self) -> bool:
        return not self.indices and not self.unnamed and not self.clusters

    def __or__(self, other: Gaps) -> Gaps:
        return Gaps(
            indices={**self.indices, **other.indices},
            unnamed=self.unnamed or other.unnamed,
            clusters=max(self.clusters, other.clusters),
        )

    def within(self, indices: Collection[str]) -> Gaps:
        """What of it concerns these indices."""
        named = {name: why for name, why in self.indices.items() if name in indices}
        return Gaps(indices=named, unnamed=self.unnamed, clusters=self.clusters)

    def sentence(self, verb: str = "counted") -> str:
        """Such as "not counted: index a_2026_01 (not every shard answers (red index))"; "" where
        nothing is missing."""
        named = sorted(self.indices.items())
        parts = [f"index {name} ({why})" for name, why in named[:MOST_NAMED]]
        if len(named) > MOST_NAMED:
            parts.append(f"{len(named) - MOST_NAMED:,} more")
        if self.clusters:
            parts.append(f"{self.clusters:,} of the remote clusters (no answer)")
        if self.unnamed:
            parts.append(f"a part that OpenSearch does not name ({self.unnamed})")
        return f"not {verb}: {', '.join(parts)}" if parts else ""

    def at_least(self, number: str) -> str:
        """A number with its noun, as it may be said: where something is missing, "at least 5"."""
        return number if self.whole else f"at least {number}"


WHOLE = Gaps()


@dataclass(frozen=True)
class Counted(Generic[T]):
    """What a search gave, and what it left out."""

    value: T
    gaps: Gaps = WHOLE


def gaps_of(answer: Searched, red_indices: Callable[[], Iterable[str]]) -> Gaps:
    """What an answer left out.

    Args:
        red_indices: asked only where a shard is missing, since a shard without a copy names no
            index.
    """
    failing = {name: cannot_search(kind) for name, kind in answer.shards.failing_indices.items()}
    missing = answer.shards.total - answer.shards.successful
    red = dict.fromkeys(red_indices(), NO_SHARD) if missing > 0 else {}
    unnamed = ""
    if answer.timed_out:
        unnamed = "the search ran out of time"
    elif missing > 0 and not failing and not red:
        unnamed = "some shard does not answer"
    return Gaps(indices={**failing, **red}, unnamed=unnamed, clusters=answer.clusters.skipped)


def cannot_search(kind: str) -> str:
    """Why the index of a failing shard is left out; `kind` is OpenSearch's type of the error."""
    return f"it cannot be searched ({kind})"

"""Outcomes become counts, counts become committed offsets, in this order and never the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from enrich.ledger.realtime import Realtime
from enrich.realtime.gathering import Entry, Others, Track, portion_of

#: Topic and number of a partition.
Place = tuple[str, int]


class Committer(Protocol):
    """Commits offsets."""

    def commit(self, offsets: Mapping[Place, int]) -> bool: ...


class Settling:
    """For one group."""

    def __init__(self, realtime: Realtime, group: str) -> None:
        self._realtime = realtime
        self._group = group

    def count(self, tracks: Iterable[Track]) -> bool:
        """Count what is through of partitions; whether there was a log among it.

        Raises TransientError: Redis does not answer; nothing is lost.
        """
        left = [(track, done) for track in tracks if (done := track.through())]
        self._find_positions([track for track, _ in left])
        any_log = any(isinstance(one, Entry) for _, done in left for one in done)
        batches = int(any_log)
        while left := [pair for pair in left if not _is_counted(*pair)]:
            self._move(left, batches)
            batches = 0
        return any_log

    def _find_positions(self, tracks: Sequence[Track]) -> None:
        unknown = [track for track in tracks if not track.is_known]
        found = self._realtime.counted(self._group, [track.partition for track in unknown])
        for track, position in zip(unknown, found, strict=True):
            track.counted, track.is_known = position, True

    def _move(self, left: Sequence[tuple[Track, Sequence[Entry | Others]]], batches: int) -> None:
        portions = [portion_of(track, done, track.counted) for track, done in left]
        answers = self._realtime.settle(self._group, portions, batches=batches)
        for (track, _), portion, answer in zip(left, portions, answers, strict=True):
            # Where another consumer, or this one before, has counted further, the rest is counted
            # next.
            track.counted = portion.upto if answer.counted else answer.position
            if answer.counted:
                track.settle(portion.upto)


def commit(committer: Committer, tracks: Iterable[Track]) -> None:
    """Commit what is settled and not committed yet."""
    due = [
        track for track in tracks if track.settled is not None and track.settled != track.committed
    ]
    offsets = {
        (track.partition.topic, track.partition.number): track.settled
        for track in due
        if track.settled is not None
    }
    if offsets and committer.commit(offsets):
        for track in due:
            track.committed = track.settled


def _is_counted(track: Track, done: Sequence[Entry | Others]) -> bool:
    """Whether the ledger has counted all of it, by whomever."""
    upto = done[-1].last + 1
    if track.counted is None or track.counted < upto:
        return False
    if track.settled is None or track.settled < upto:
        track.settle(upto)
    return True

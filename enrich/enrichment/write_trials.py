"""Which indices of a chunk may be written to now: an index in doubt is tried with one log.

A write that is never answered holds a worker until its time-out, and memory of OpenSearch for
ever. So an index that may have a dead engine is given one log and a refresh by one worker, before
a text is bought for the rest of it, and then the rest of that chunk, before other workers write to
it. It is left alone for some minutes if it does not answer.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from enrich.ledger import IndexState, IndexStates
from enrich.log_store.interfaces import EngineProbe

log = logging.getLogger(__name__)

#: Why a dead index is left out.
DEAD = (
    "it does not answer writes, while OpenSearch answers: its k-NN engine cannot run, or a shard "
    "of it has died; OpenSearch's log says why. It is tried again after some minutes"
)


@dataclass(kw_only=True)
class Sorted:
    """Indices of a chunk by what may be done with them; all others may be written to."""

    #: Not to be written to.
    dead: set[str] = field(default_factory=set)
    #: Being tried by another worker.
    waiting: set[str] = field(default_factory=set)
    #: To be tried by this one, with one log.
    to_try: set[str] = field(default_factory=set)


class WriteTrials:
    """Tries indices; one for each worker process."""

    def __init__(self, engines: EngineProbe, states: IndexStates, owner: str) -> None:
        self._engines = engines
        self._states = states
        self._owner = owner
        #: Of those of the chunk at work that were to be tried: what took a log and a refresh.
        self._proven: set[str] = set()

    @contextmanager
    def sort(self, indices: Collection[str]) -> Iterator[Sorted]:
        """Sort the indices of a chunk; what is to be tried is leased for as long as this lasts."""
        sorted_ = Sorted()
        self._proven = set()
        states = self._states.of(sorted(indices))
        try:
            for index, state in states.items():
                if state is IndexState.DEAD:
                    sorted_.dead.add(index)
                elif state is IndexState.IN_DOUBT or (
                    state is IndexState.UNKNOWN and self._engines.is_native(index)
                ):
                    mine = self._states.lease(index, self._owner)
                    (sorted_.to_try if mine else sorted_.waiting).add(index)
            yield sorted_
            # One log may pass where many kill the engine: the others wait until the first chunk is
            # written as a whole.
            for index in self._proven:
                self._states.note(index, IndexState.WORKS)
        finally:
            for index in sorted_.to_try:
                self._states.release(index)

    def shown_by_refresh(self, index: str) -> bool:
        """Whether the index, to which one log has just been written, works."""
        works = self._engines.proves_itself(index)
        if works:
            self._proven.add(index)
        else:
            self._states.note(index, IndexState.DEAD)
        return works

    def unanswered(self, indices: Sequence[str], *, alone: bool) -> bool:
        """A write to these was not answered: whether that is the fault of one of them.

        Args:
            alone: it was one log of one index.
        """
        if not self._engines.server_answers():
            return False
        # What took one log and not the rest of its chunk is as dead as what took none.
        dead = alone or (len(indices) == 1 and indices[0] in self._proven)
        for index in indices:
            self._proven.discard(index)
            log.warning("index %s did not answer a write, while OpenSearch answers", index)
            self._states.note(index, IndexState.DEAD if dead else IndexState.IN_DOUBT)
        return True

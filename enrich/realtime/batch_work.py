"""A batch of wanted logs, from messages to outcomes: where their documents are, and what became of
them in the hands of the enricher that the backfill has as well."""

from __future__ import annotations

import hashlib
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from more_itertools import unique_everseen

from enrich.enrichment.comparing import Comparing
from enrich.enrichment.enricher import Enricher
from enrich.enrichment.index_check import check_indices, halt_if_unfit
from enrich.enrichment.outcomes import Tally
from enrich.errors import Halt, TransientError
from enrich.ledger import Lease, Ledger
from enrich.ledger.deployment import Configuration
from enrich.log_store import Arrival
from enrich.log_store.interfaces import LiveStore
from enrich.log_store.scope import finds
from enrich.models import (
    REALTIME_RUN,
    VECTOR_OUTCOMES,
    Chunk,
    LogLocation,
    Outcome,
    Reference,
    project_of,
)
from enrich.realtime.messages import WantedLog
from enrich.realtime.remembered import Remembered
from enrich.settings import Settings

log = logging.getLogger(__name__)

#: For so long it is believed what was found of an index, of a name, and of a name that was not
#: there; and that a vector may be written at all.
CHECKED_SECONDS = 600.0
BEHIND_SECONDS = 60.0
ABSENT_SECONDS = 1.0

#: A project counts as one that has logs for much longer, see `Spending.saw`.
SEEN_SECONDS = 3600.0

#: Logs younger than this are somebody's who is looking now: they are made visible at once, at most
#: once a second in each index.
LIVE_SECONDS = 60.0
REFRESH_SECONDS = 1.0

#: Errors of a bulk item that say what the document is, and not how OpenSearch fares.
_OF_THE_DOCUMENT = ("mapper_parsing_exception", "illegal_argument_exception", "parsing_exception")

#: A version that no document has: each is looked at as one that was changed.
_UNKNOWN_VERSION = (-2, 0)

#: A fault of this program, which must not stop a partition.
_NO_OUTCOME = Outcome.DEFERRED, "the enricher noted no outcome for it; please report it"

NOT_THERE = "its document was not there in time, or is of another level by now"


@dataclass(frozen=True, slots=True)
class End:
    """What became of a log, by a name of the ledger's counts."""

    outcome: str
    reason: str = ""
    #: Seconds from the log's time until its vector was written.
    latency: float | None = None


class BatchWork:
    """Works on batches; one for each consumer, on one thread."""

    def __init__(
        self,
        settings: Settings,
        store: LiveStore,
        ledger: Ledger,
        enricher: Enricher,
        comparing: Comparing,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            clock: seconds that only grow.
            now: seconds since the epoch.
        """
        self._store = store
        self._ledger = ledger
        self._enricher = enricher
        self._comparing = comparing
        self._clock, self._now = clock, now
        self._expression = settings.index_expression
        self._indexes = settings.enrich_consumer_mode == "index"
        self._configuration = Configuration.of(settings)
        self.run = run_of_group(settings.consumer_group_id)
        #: Tells the batches of this process from those of others of the group.
        self._process = random.randrange(10**9)
        self._batches = 0
        self._prepared_until = 0.0
        self._behind: Remembered[str, tuple[str, ...]] = Remembered(clock)
        #: Indices that were looked at: why they are left out, or "", and whether they are only
        #: written to by update.
        self._checked: Remembered[str, tuple[str, bool]] = Remembered(clock)
        self._seen: Remembered[str, bool] = Remembered(clock)
        self._refreshed: Remembered[str, bool] = Remembered(clock)

    def work(
        self, logs: Sequence[WantedLog], *, tried: bool, give_up: str = ""
    ) -> list[End | None]:
        """What became of each log; None while its document is not there.

        Args:
            tried: these were worked on before, and may have been written.
            give_up: why nothing more is bought and written, if so; what has no vector is left to
                the backfill.

        Raises:
            TransientError: to be tried again; what was written stays written.
            Halt: nothing can go on until somebody changes something.
        """
        self._prepare()
        ends: dict[int, End] = {}
        behind = {name: self._indices(name) for name in {one.index for one in logs}}
        excluded = End("excluded")
        for place, one in enumerate(logs):
            if not self._is_ours(one.index, behind[one.index]):
                ends[place] = excluded
        if self._indexes:
            self._index(logs, behind, ends)
        found = self._find([(n, one) for n, one in enumerate(logs) if n not in ends], behind)
        looked = self._look_at({location.index for location in found.values()})
        update_only = {index for index, (_, by_update) in looked.items() if by_update}
        for place, location in list(found.items()):
            if why := looked[location.index][0]:
                ends[place] = End("left", f"{location.index}: {why}")
                del found[place]
        # The same document twice, as after a producer's retry: one after the other.
        while found:
            some = {p: found[p] for p in unique_everseen(found, key=found.__getitem__)}
            found = {place: where for place, where in found.items() if place not in some}
            ends |= self._enrich(logs, some, update_only, tried=tried, give_up=give_up)
        return [ends.get(place) for place in range(len(logs))]

    def _prepare(self) -> None:
        """See that vectors may be written at all, and stand beside those that are there."""
        if self._clock() < self._prepared_until:
            return
        if reason := self._ledger.deployment.odd(self._configuration):
            raise Halt(reason)
        halt_if_unfit(self._store)
        self._comparing.look(self.run)
        self._prepared_until = self._clock() + CHECKED_SECONDS

    def prepare_again(self) -> None:
        """Forget what was found, since it did not hold."""
        self._prepared_until = 0.0
        self._checked.clear()
        self._behind.clear()

    # -- where documents are

    def _indices(self, name: str) -> tuple[str, ...]:
        indices = self._behind.get(name)
        if indices is None:
            indices = self._store.whereabouts.behind(name)
            self._behind.put(name, indices, BEHIND_SECONDS if indices else ABSENT_SECONDS)
        return indices

    def _is_ours(self, name: str, indices: Sequence[str]) -> bool:
        """Whether the backfill would find what is there, too."""
        return any(finds(self._expression, name, index) for index in indices or (name,))

    def _find(
        self,
        logs: Sequence[tuple[int, WantedLog]],
        behind: dict[str, tuple[str, ...]],
    ) -> dict[int, LogLocation]:
        """Where logs are, or would be; by their places."""
        found: dict[int, LogLocation] = {}
        doubtful = []
        for place, one in logs:
            indices = behind[one.index]
            if len(indices) == 1:
                found[place] = LogLocation(indices[0], one.id, one.routing)
            elif indices:
                doubtful.append((place, one))
        if doubtful:
            asked = [(behind[one.index], one.id, one.routing) for _, one in doubtful]
            for (place, _), location in zip(
                doubtful, self._store.whereabouts.holding(asked), strict=True
            ):
                if location is not None:
                    found[place] = location
        return found

    def _index(
        self,
        logs: Sequence[WantedLog],
        behind: dict[str, tuple[str, ...]],
        ends: dict[int, End],
    ) -> None:
        """Put logs into OpenSearch, each once, before anything else can fail."""
        ours = [place for place in range(len(logs)) if place not in ends]
        for name in {logs[place].index for place in ours}:
            if not behind[name]:
                self._store.arrivals.make_index(name)
        arrivals = [
            Arrival(
                place=LogLocation(logs[place].index, logs[place].id, logs[place].routing),
                source=logs[place].source,
            )
            for place in ours
        ]
        for place, kind in zip(ours, self._store.arrivals.create(arrivals), strict=True):
            if kind in _OF_THE_DOCUMENT:
                ends[place] = End("poison", "document_refused")
            elif kind:
                raise TransientError(f"OpenSearch did not take a log for now ({kind})")
        for name in {logs[place].index for place in ours}:
            if not behind[name]:
                self._behind.forget(name)
                behind[name] = self._indices(name)

    def _look_at(self, indices: set[str]) -> dict[str, tuple[str, bool]]:
        """Of each index why it cannot be given vectors, or "", and whether only by update."""
        looked = {index: known for index in indices if (known := self._checked.get(index))}
        if new := sorted(indices - looked.keys()):
            checked = check_indices(self._store, self._ledger.index_states, new)
            for index in new:
                why = checked.skipped.get(index, "")
                looked[index] = why, index in checked.ready.update_only
                self._checked.put(index, (why, looked[index][1]), CHECKED_SECONDS)
                if why:
                    log.warning("index %s is skipped: %s", index, why)
        return looked

    # -- vectors

    def _enrich(
        self,
        logs: Sequence[WantedLog],
        found: dict[int, LogLocation],
        update_only: set[str],
        *,
        tried: bool,
        give_up: str,
    ) -> dict[int, End]:
        indices = {location.index for location in found.values()}
        self._saw({project_of(index) for index in indices})
        self._batches = (self._batches + 1) % 10**9
        chunk = Chunk(
            id=f"{self.run}:{self._process}:{self._batches}",
            references=tuple(
                Reference(location.index, location.id, location.routing, *_UNKNOWN_VERSION)
                for location in found.values()
            ),
            update_only=tuple(sorted(indices & update_only)),
        )
        tally = self._tally(chunk, tried=tried, give_up=give_up)
        now = self._now()
        ends: dict[int, End] = {}
        for place, location in found.items():
            outcome, why = tally.ends.get((location.index, location.id), _NO_OUTCOME)
            if outcome is Outcome.DEFERRED:
                ends[place] = End("left", why or give_up)
            elif outcome in VECTOR_OUTCOMES:
                ends[place] = End(outcome.value, latency=max(0.0, now - logs[place].log_time))
            elif outcome is not Outcome.GONE:
                ends[place] = End(outcome.value)
        self._show({found[place].index for place, end in ends.items() if _is_live(end)})
        return ends

    def _tally(self, chunk: Chunk, *, tried: bool, give_up: str) -> Tally:
        if give_up:
            return self._enricher.account(chunk)
        return self._enricher.work(chunk, Lease("go", chunk.id, tried=tried))

    def _saw(self, projects: set[str]) -> None:
        if new := {one for one in projects if self._seen.get(one) is None}:
            self._ledger.spending.saw(new)
            for one in new:
                self._seen.put(one, True, SEEN_SECONDS)

    def _show(self, indices: set[str]) -> None:
        """Make vectors visible to searches now."""
        due = sorted(index for index in indices if self._refreshed.get(index) is None)
        for index in due:
            self._refreshed.put(index, True, REFRESH_SECONDS)
        if not due:
            return
        try:
            self._store.documents.refresh(due)
        except (TransientError, Halt) as error:
            # OpenSearch does it by itself, a little later.
            log.warning("indices were not refreshed: %s", error)


def run_of_group(group: str) -> str:
    """What `ai_enrichment_run` says of a group's writes: always the same, so that a batch which is
    worked on again knows its own."""
    return REALTIME_RUN + hashlib.sha256(group.encode()).hexdigest()[:8]


def _is_live(end: End) -> bool:
    return end.latency is not None and end.latency < LIVE_SECONDS

"""Enriching one chunk: read it again, get each text's vector, write, and account for every log.

The straight line is `work`: documents → distinct texts → vectors from the cheapest place
→ writes → outcomes. It settles nothing and publishes nothing; `backfill` does.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from enrich.embedding.locations import VectorLocation
from enrich.embedding.resolver import Resolver, Reusable
from enrich.enrichment.journal import Journal
from enrich.enrichment.outcomes import IN_DOUBT, OVERLOADED, UNREADABLE, Judge, Tally
from enrich.enrichment.slow_indices import SlowIndices
from enrich.enrichment.text_groups import TextGroup, text_groups
from enrich.enrichment.write_trials import DEAD, Sorted, WriteTrials
from enrich.enrichment.writer import IndexSilent, Writer
from enrich.errors import IndexBeingTried, IndexInTrouble, TransientError, place_of
from enrich.ledger import Lease, Ledger
from enrich.log_store import Document, Presence
from enrich.log_store.interfaces import RunStore
from enrich.models import VECTOR_OUTCOMES, Chunk, Outcome, Reference
from enrich.ratelimit.write_throttle import WriteThrottle
from enrich.settings import Settings, rewrite_of

log = logging.getLogger(__name__)

#: After so many lost workers a chunk goes text by text.
WORKERS_LOST_BEFORE_ALONE = 2

#: After so many more it is deferred unread: one of its logs must be more than a worker can hold.
MAX_WORKERS_LOST = 20

#: What Python raises where data is other than the code expects. A log that brings it about must not
#: take its neighbours along; named one by one, so that time limits and lost servers pass through.
UNFORESEEN = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError),
    *(RecursionError, TypeError, ValueError),
)

#: Logs of an index in doubt that are given a vector one by one, until one has it.
MOST_TRIED = 20

#: Before it is looked again whether another worker's try of an index is over.
TRIAL_SECONDS = 5.0


class Enricher:
    """Works on chunks; one for each worker process."""

    def __init__(
        self,
        settings: Settings,
        store: RunStore,
        resolver: Resolver,
        ledger: Ledger,
        throttle: WriteThrottle,
        trials: WriteTrials,
        slow_indices: SlowIndices,
        journal: Journal,
    ) -> None:
        self._store = store
        self._resolver = resolver
        self._journal = journal
        self._states = ledger.index_states
        self._trials = trials
        self._scope_of = settings.reuse_scope
        self._rewrite = rewrite_of(settings)
        self._schema = settings.log_schema
        self._judge = Judge(schema=self._schema)
        self._writer = Writer(
            settings,
            store,
            journal,
            ledger.refused,
            throttle,
            trials,
            self._judge,
            slow_indices,
        )
        #: The indices of the chunk at work.
        self._sorted = Sorted()
        #: Those of them that were in trouble before it.
        self._troubled: set[str] = set()

    def work(self, chunk: Chunk, lease: Lease) -> Tally:
        """Do what is still pending of a chunk; every document has one outcome in the answer.

        Raises:
            TransientError: try the chunk again later; what was written stays written.
            Halt: nothing can go on.
        """
        indices = {reference.index for reference in chunk.references}
        self._troubled = self._states.in_trouble(sorted(indices))
        with self._trials.sort(indices) as sorted_:
            self._sorted = sorted_
            tally = self._work_on(chunk, lease)
        self._states.note_trouble(sorted(tally.troubled))
        if tally.overloaded:
            raise IndexInTrouble(OVERLOADED)
        if tally.waiting:
            raise IndexBeingTried(
                "another worker is trying whether an index takes writes", TRIAL_SECONDS
            )
        if tally.unreadable and lease.tried:
            # A write whose answer was lost may have been carried out: the shards of a node that
            # has just started cannot be read yet.
            raise TransientError(IN_DOUBT)
        if tally.away:
            raise IndexInTrouble(UNREADABLE)
        self._journal.note_writers(chunk.run, tally.by_others)
        return tally

    def _work_on(self, chunk: Chunk, lease: Lease) -> Tally:
        tally = self._left_out(chunk)
        references = [
            reference
            for reference in chunk.references
            if reference.index not in self._sorted.dead | self._sorted.waiting
        ]
        reusable = self._reusable(chunk)
        to_try = [one for one in references if one.index in self._sorted.to_try]
        # A write to an index whose engine has died is waited for in vain.
        certain = [one for one in references if one.index not in self._sorted.to_try]
        self._carry_out(chunk, lease, certain, reusable, tally)
        tried = self._try(chunk, to_try, reusable, tally)
        self._carry_out(chunk, lease, tried, reusable, tally)
        return tally

    def _carry_out(
        self,
        chunk: Chunk,
        lease: Lease,
        references: Sequence[Reference],
        reusable: Reusable,
        tally: Tally,
    ) -> None:
        if not references:
            return
        if lease.workers_lost < WORKERS_LOST_BEFORE_ALONE:
            tally.include(self._together(chunk, references, reusable))
        else:
            # Each log is also read alone: reading all of them may be what a worker dies of. Should
            # it die of reading this one, the text before is not to blame.
            for reference in references:
                self._journal.note_alone(chunk.id, lease.owner, "")
                for group in self._texts(chunk, [reference], tally):
                    if group.fingerprint == lease.alone:
                        group.failure = "worker_lost"
                    else:
                        self._journal.note_alone(chunk.id, lease.owner, group.fingerprint)
                    self._do(chunk, [group], reusable, tally)

    def _left_out(self, chunk: Chunk) -> Tally:
        """What became of logs in indices that are not written to now."""
        tally = Tally(waiting=bool(self._sorted.waiting))
        for index in self._sorted.dead:
            self._journal.skip(chunk.run, index, DEAD)
        dead = [one for one in chunk.references if one.index in self._sorted.dead]
        if not dead:
            return tally
        tally.include(self._dead(chunk, dead))
        return tally

    def _dead(self, chunk: Chunk, references: Sequence[Reference]) -> Tally:
        """Defer logs of indices that take no writes, except those that were written before."""
        tally = Tally()
        try:
            found = self._store.documents.read(references)
        except TransientError:
            tally.defer(DEAD, *references)
            return tally
        # Such an index is still read, and what it took before its end counts.
        pending = self._pending(chunk, zip(found, references, strict=True), tally)
        tally.defer(DEAD, *(document.reference for document in pending))
        tally.unreadable = tally.away = False
        return tally

    def _try(
        self, chunk: Chunk, references: Sequence[Reference], reusable: Reusable, tally: Tally
    ) -> list[Reference]:
        """Give each index in doubt one vector and a refresh; the references still to be handled."""
        left: list[Reference] = []
        for index in sorted(self._sorted.to_try):
            of_index = [one for one in references if one.index == index]
            written = False
            for _ in range(min(MOST_TRIED, len(of_index))):
                # One that is marked failed or was written before shows nothing.
                single = self._tried_alone(chunk, of_index.pop(0), reusable)
                written = any(single.outcomes[outcome.value] for outcome in VECTOR_OUTCOMES)
                tally.include(single)
                if written or index in self._sorted.dead:
                    break
            if written and not self._trials.shown_by_refresh(index):
                self._sorted.dead.add(index)
            if index in self._sorted.dead:
                self._journal.skip(chunk.run, index, DEAD)
                if of_index:
                    tally.include(self._dead(chunk, of_index))
            else:
                left += of_index
        return left

    def _tried_alone(self, chunk: Chunk, reference: Reference, reusable: Reusable) -> Tally:
        try:
            return self._alone(chunk, reference, reusable)
        except IndexSilent:
            self._sorted.dead.add(reference.index)
        return self._dead(chunk, [reference])

    def _together(self, chunk: Chunk, references: Sequence[Reference], reusable: Reusable) -> Tally:
        try:
            return self._of(chunk, references, reusable)
        except UNFORESEEN as error:
            log.error(
                "chunk %s met an error that was not foreseen (%s): its logs are taken one by one",
                chunk.id, type(error).__name__,
            )  # fmt: skip
        tally = Tally()
        for reference in references:
            # What was written before shows as such when it is read again.
            tally.include(self._alone(chunk, reference, reusable))
        return tally

    def _alone(self, chunk: Chunk, reference: Reference, reusable: Reusable) -> Tally:
        try:
            return self._of(chunk, [reference], reusable)
        except UNFORESEEN as error:
            what = f"an error that was not foreseen ({type(error).__name__} at {place_of(error)})"
            log.error(
                "log %s in %s is deferred: it meets an error that was not foreseen (%s at %s); "
                "please report it",
                reference.id, reference.index, type(error).__name__, place_of(error),
            )  # fmt: skip
        tally = Tally(errors=1)
        tally.defer(f"{what}; please report it", reference)
        return tally

    def _of(self, chunk: Chunk, references: Sequence[Reference], reusable: Reusable) -> Tally:
        tally = Tally()
        self._do(chunk, self._texts(chunk, references, tally), reusable, tally)
        return tally

    def _reusable(self, chunk: Chunk) -> Reusable:
        try:
            return self._resolver.reusable(chunk.reusable)
        except UNFORESEEN as error:
            # Their texts are paid for once more.
            log.error(
                "chunk %s: no vector is reused, because reading them met an error that was not "
                "foreseen (%s at %s); please report it",
                chunk.id, type(error).__name__, place_of(error),
            )  # fmt: skip
            return {}

    def account(self, chunk: Chunk) -> Tally:
        """Count what this run has written of a chunk; the rest is deferred. Nothing is changed."""
        tally = Tally()
        found = self._store.documents.read(chunk.references)
        pending = self._pending(chunk, zip(found, chunk.references, strict=True), tally)
        tally.add(Outcome.DEFERRED, *(document.reference for document in pending))
        return tally

    # -- what is still pending

    def _texts(
        self, chunk: Chunk, references: Sequence[Reference], tally: Tally
    ) -> list[TextGroup]:
        found = self._store.documents.read(references)
        pending = self._pending(chunk, zip(found, references, strict=True), tally)
        doubts = self._store.wholeness.doubts(pending)
        for index, reason in doubts.items():
            self._journal.skip(chunk.run, index, reason)
        safe = [document for document in pending if document.reference.index not in doubts]
        for document in pending:
            if why := doubts.get(document.reference.index):
                tally.defer(f"{document.reference.index}: {why}", document.reference)
        return text_groups(safe, self._scope_of, self._rewrite, self._schema)

    def _pending(self, chunk: Chunk, pairs: Any, tally: Tally) -> list[Document]:
        pending = []
        # An index that refused the run's writes once is bought nothing more.
        skipped = self._journal.skipped(chunk.run)
        for document, reference in pairs:
            if document.presence is Presence.UNREADABLE:
                tally.unreadable = True
                tally.away |= not document.closed
                if not document.closed:
                    tally.troubled.add(reference.index)
            outcome = self._judge.settled(document, reference, chunk.run)
            if outcome is None and (why := skipped.get(reference.index)):
                tally.defer(why if why == DEAD else f"{reference.index}: {why}", reference)
            elif outcome is None:
                pending.append(document)
            elif outcome is Outcome.DEFERRED:
                tally.defer(UNREADABLE, reference)
            else:
                tally.add(outcome, reference)
                tally.note_writer(outcome, document)
        return pending

    def _do(self, chunk: Chunk, groups: list[TextGroup], reusable: Reusable, tally: Tally) -> None:
        self._resolve(chunk, [group for group in groups if not group.failure], reusable)
        self._writer.write(chunk, groups, tally, tried=self._sorted.to_try, troubled=self._troubled)
        self._resolver.remember(
            {
                group.fingerprint: VectorLocation.of(
                    group.documents[0].reference, group.fingerprint, group.vector
                )
                for group in groups
                if group.outcome is Outcome.EMBEDDED and group.vector is not None
            }
        )

    def _resolve(self, chunk: Chunk, groups: list[TextGroup], reusable: Reusable) -> None:
        resolution = self._resolver.resolve(
            [group.request() for group in groups],
            self._journal.usage(chunk.run),
            owner=chunk.id,
            occasion=chunk.run,
            reusable=reusable,
        )
        if resolution.out_of_budget:
            self._journal.out_of_budget(chunk.run)
        for group, resolved in zip(groups, resolution.results, strict=True):
            group.take(resolved)

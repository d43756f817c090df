"""The work on one chunk: read afresh, get each text's vector, write, and account for every log.

The straight line is `work`: documents → jobs (one for each distinct text) → vectors from the
cheapest place → writes → outcomes. It settles nothing and publishes nothing; `backfill` does.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from enrich.embedding.resolver import Given, Job, Resolver
from enrich.enrichment.write_trials import DEAD, Sorted, WriteTrials
from enrich.errors import NotYet, TransientError, place_of
from enrich.ledger import Claim, Ledger
from enrich.log_store import (
    APPEND_ONLY,
    DROPPED,
    MAPPING_FULL,
    PASSING,
    PIPELINE_MISSING,
    Addition,
    Document,
    LogStore,
    NoAnswerInTime,
    Presence,
    Verdict,
    Write,
    encode_vector,
)
from enrich.models import METHOD, VECTOR_OUTCOMES, Chunk, Outcome, Reference
from enrich.ratelimit.write_throttle import WriteThrottle
from enrich.settings import Settings

log = logging.getLogger(__name__)

#: After so many lost workers a chunk goes text by text.
LOSSES_BEFORE_ALONE = 2

#: After so many more it is put off unread: one of its logs must be more than a worker can hold.
MAX_LOSSES = 20

#: What Python raises where data is other than the code expects. A log that brings it about must not
#: take its neighbours along; named one by one, so that time limits and lost servers pass through.
UNFORESEEN = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError),
    *(RecursionError, TypeError, ValueError),
)

#: Why logs are deferred.
OVERLOADED = "OpenSearch is overloaded: it took only a part of the writes"
UNREADABLE = "logs cannot be read now: some shard of their index does not answer"
CHANGED = "somebody changed the logs while they were enriched"
NO_VECTOR = "the embeddings API gave no vector for these texts this time"

#: Logs of an index in doubt that are given a vector one by one, until one has it.
MOST_TRIED = 20

IN_DOUBT = "logs that may have been written cannot be read now (a shard does not answer)"


#: Before it is looked again whether another worker's try of an index is over.
TRIAL_SECONDS = 5.0


class IndexSilent(TransientError):
    """A write was not answered, while OpenSearch answers."""


@dataclass(kw_only=True)
class Tally:
    """What became of a chunk's documents so far."""

    outcomes: Counter[str] = field(default_factory=Counter)
    errors: int = 0
    #: Whether something passing kept documents from being written.
    overloaded: bool = False
    #: Whether another worker is trying if an index takes writes.
    waiting: bool = False
    #: Whether documents could not be read, so that nobody knows what this run wrote of them.
    unreadable: bool = False
    #: Whether that is so for a reason that passes, as while a node starts.
    away: bool = False
    #: Why documents are deferred, in sentences, and how many.
    reasons: Counter[str] = field(default_factory=Counter)
    #: Logs that another run had given a vector meanwhile, by that run.
    by_others: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: Outcome, n: int = 1) -> None:
        self.outcomes[outcome.value] += n

    def include(self, other: Tally) -> None:
        """Add what became of other documents."""
        self.outcomes.update(other.outcomes)
        self.errors += other.errors
        self.overloaded |= other.overloaded
        self.waiting |= other.waiting
        self.unreadable |= other.unreadable
        self.away |= other.away
        self.reasons.update(other.reasons)
        self.by_others.update(other.by_others)

    def defer(self, why: str, n: int = 1) -> None:
        self.add(Outcome.DEFERRED, n)
        self.reasons[why] += n

    def explain(self, why: str) -> None:
        """Say why all that is deferred is."""
        deferred = self.outcomes[Outcome.DEFERRED.value]
        self.reasons = Counter({why: deferred} if deferred else {})

    def note_writer(self, outcome: Outcome, document: Document) -> None:
        run = document.value("ai_enrichment_run")
        if outcome is Outcome.ALREADY_VECTORIZED and isinstance(run, str):
            self.by_others[run] += 1


class ChunkWork:
    """Works on chunks; one for each worker process."""

    def __init__(
        self,
        settings: Settings,
        store: LogStore,
        sources: Resolver,
        ledger: Ledger,
        throttle: WriteThrottle,
        trials: WriteTrials,
    ) -> None:
        self._settings = settings
        self._store = store
        self._sources = sources
        self._ledger = ledger
        self._throttle = throttle
        self._trials = trials
        #: The indices of the chunk at work.
        self._sorted = Sorted()

    def work(self, chunk: Chunk, claim: Claim) -> Tally:
        """Do what is still owed of a chunk; every document has one outcome in the answer.

        Raises:
            TransientError: try the chunk again later; what was written stays written.
            Halt: nothing can go on.
        """
        with self._trials.sort({reference.index for reference in chunk.references}) as sorted_:
            self._sorted = sorted_
            tally = self._work_on(chunk, claim)
        if tally.overloaded:
            raise TransientError(OVERLOADED)
        if tally.waiting:
            raise NotYet("another worker is trying whether an index takes writes", TRIAL_SECONDS)
        if tally.unreadable and claim.tried:
            # A write whose answer was lost may have been carried out: the shards of a node that
            # has just started cannot be read yet.
            raise TransientError(IN_DOUBT)
        if tally.away:
            raise TransientError(UNREADABLE)
        strangers = self._ledger.strangers(tally.by_others)
        if strangers:
            count = sum(tally.by_others[run] for run in strangers)
            self._ledger.count(chunk.run, written_by_others=count)
        return tally

    def _work_on(self, chunk: Chunk, claim: Claim) -> Tally:
        tally = self._left_out(chunk)
        references = [
            reference
            for reference in chunk.references
            if reference.index not in self._sorted.dead | self._sorted.waiting
        ]
        given = self._given(chunk)
        references = self._try(chunk, references, given, tally)
        if not references:
            return tally
        if claim.value < LOSSES_BEFORE_ALONE:
            tally.include(self._together(chunk, references, given))
        else:
            # Each log is also read alone: reading all of them may be what a worker dies of. Should
            # it die of reading this one, the text before is no suspect.
            for reference in references:
                self._ledger.suspect(chunk.id, claim.holder, "")
                for job in self._jobs(chunk, [reference], tally):
                    if job.fingerprint == claim.suspect:
                        job.failure = "worker_lost"
                    else:
                        self._ledger.suspect(chunk.id, claim.holder, job.fingerprint)
                    self._do(chunk, [job], given, tally)
        return tally

    def _left_out(self, chunk: Chunk) -> Tally:
        """What became of logs in indices that are not written to now."""
        tally = Tally(waiting=bool(self._sorted.waiting))
        for index in self._sorted.dead:
            self._ledger.skip(chunk.run, index, DEAD)
        dead = [one for one in chunk.references if one.index in self._sorted.dead]
        if not dead:
            return tally
        tally.include(self._dead(chunk, dead))
        return tally

    def _dead(self, chunk: Chunk, references: Sequence[Reference]) -> Tally:
        """Defer logs of indices that take no writes, but for those that were written before."""
        tally = Tally()
        try:
            found = self._store.documents.read(references)
        except TransientError:
            tally.defer(DEAD, len(references))
            return tally
        # Such an index is read all the same, and what it took before its end counts.
        owed = self._owed(chunk, zip(found, references, strict=True), tally)
        tally.defer(DEAD, len(owed))
        tally.unreadable = tally.away = False
        return tally

    def _try(
        self, chunk: Chunk, references: Sequence[Reference], given: Given, tally: Tally
    ) -> list[Reference]:
        """Give each index in doubt one vector and a refresh; the references still to be handled."""
        left = [one for one in references if one.index not in self._sorted.to_try]
        for index in sorted(self._sorted.to_try):
            of_index = [one for one in references if one.index == index]
            written = False
            for _ in range(min(MOST_TRIED, len(of_index))):
                # One that is marked failed or was written before shows nothing.
                single = self._tried_alone(chunk, of_index.pop(0), given)
                written = any(single.outcomes[outcome.value] for outcome in VECTOR_OUTCOMES)
                tally.include(single)
                if written or index in self._sorted.dead:
                    break
            if written and not self._trials.shown_by_refresh(index):
                self._sorted.dead.add(index)
            if index in self._sorted.dead:
                self._ledger.skip(chunk.run, index, DEAD)
                if of_index:
                    tally.include(self._dead(chunk, of_index))
            else:
                left += of_index
        return left

    def _tried_alone(self, chunk: Chunk, reference: Reference, given: Given) -> Tally:
        try:
            return self._alone(chunk, reference, given)
        except IndexSilent:
            self._sorted.dead.add(reference.index)
        return self._dead(chunk, [reference])

    def _together(self, chunk: Chunk, references: Sequence[Reference], given: Given) -> Tally:
        try:
            return self._of(chunk, references, given)
        except UNFORESEEN as error:
            log.error(
                "chunk %s met an error that nobody thought of (%s): its logs are taken one by one",
                chunk.id, type(error).__name__, extra={"run": chunk.run},
            )  # fmt: skip
        tally = Tally()
        for reference in references:
            # What was written before shows as such when it is read again.
            tally.include(self._alone(chunk, reference, given))
        return tally

    def _alone(self, chunk: Chunk, reference: Reference, given: Given) -> Tally:
        try:
            return self._of(chunk, [reference], given)
        except UNFORESEEN as error:
            what = f"an error that nobody thought of ({type(error).__name__} at {place_of(error)})"
            log.error(
                "log %s in %s is deferred: it meets an error that nobody thought of (%s at %s); "
                "please report it",
                reference.id, reference.index, type(error).__name__, place_of(error),
                extra={"run": chunk.run},
            )  # fmt: skip
        tally = Tally(errors=1)
        tally.defer(f"{what}; please report it")
        return tally

    def _of(self, chunk: Chunk, references: Sequence[Reference], given: Given) -> Tally:
        tally = Tally()
        self._do(chunk, self._jobs(chunk, references, tally), given, tally)
        return tally

    def _given(self, chunk: Chunk) -> Given:
        try:
            return self._sources.given(chunk.donors)
        except UNFORESEEN as error:
            # Their texts are paid for once more.
            log.error(
                "chunk %s: no vector is taken over, because reading them met an error that nobody "
                "thought of (%s at %s); please report it",
                chunk.id, type(error).__name__, place_of(error), extra={"run": chunk.run},
            )  # fmt: skip
            return {}

    def account(self, chunk: Chunk) -> Tally:
        """Count what this run has written of a chunk; the rest is deferred. Nothing is changed."""
        tally = Tally()
        found = self._store.documents.read(chunk.references)
        owed = self._owed(chunk, zip(found, chunk.references, strict=True), tally)
        tally.add(Outcome.DEFERRED, len(owed))
        return tally

    # -- what is still owed

    def _jobs(self, chunk: Chunk, references: Sequence[Reference], tally: Tally) -> list[Job]:
        found = self._store.documents.read(references)
        owed = self._owed(chunk, zip(found, references, strict=True), tally)
        doubts = self._store.wholeness.doubts(owed)
        for index, reason in doubts.items():
            self._ledger.skip(chunk.run, index, reason)
        safe = [document for document in owed if document.reference.index not in doubts]
        for document in owed:
            if why := doubts.get(document.reference.index):
                tally.defer(f"{document.reference.index}: {why}")
        return self._sources.jobs(safe)

    def _owed(self, chunk: Chunk, pairs: Any, tally: Tally) -> list[Document]:
        owed = []
        # An index that refused the run's writes once is bought nothing more.
        skipped = self._ledger.skipped(chunk.run)
        for document, reference in pairs:
            if document.presence is Presence.UNREADABLE:
                tally.unreadable = True
                tally.away |= not document.closed
            outcome = self._settled_already(document, reference, chunk.run)
            if outcome is None and reference.index in skipped:
                outcome = Outcome.DEFERRED
            if outcome is None:
                owed.append(document)
            elif outcome is Outcome.DEFERRED:
                tally.defer(UNREADABLE)
            else:
                tally.add(outcome)
                tally.note_writer(outcome, document)
        return owed

    def _settled_already(
        self, document: Document, reference: Reference, run: str
    ) -> Outcome | None:
        """The outcome of a document that is not owed (any more), or None."""
        if document.presence is Presence.GONE:
            return Outcome.GONE
        if document.presence is Presence.UNREADABLE:
            return Outcome.DEFERRED
        if document.reference == reference:
            return None
        return self._judged_anew(document, run)

    def _judged_anew(self, document: Document, run: str) -> Outcome | None:
        if document.failure:
            # Nothing more of it can be seen.
            return None
        if document.value("log_vector") is not None:
            source = document.value("ai_vector_source")
            if document.value("ai_enrichment_run") == run and source in VECTOR_OUTCOMES:
                # Written by this very chunk before it was delivered again.
                return Outcome(source)
            return Outcome.ALREADY_VECTORIZED
        if document.value("ai_enrichment_status") == "failed":
            return Outcome.FAILED
        if document.value("level") not in self._settings.enrich_levels:
            # Changed since it was found: no ERROR log any more.
            return Outcome.GONE
        return None

    def _do(self, chunk: Chunk, jobs: list[Job], given: Given, tally: Tally) -> None:
        self._sources.find(chunk.run, chunk.id, [job for job in jobs if not job.failure], given)
        self._write(chunk, jobs, tally)
        self._sources.written(jobs)

    # -- writing

    def _write(self, chunk: Chunk, jobs: list[Job], tally: Tally) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        planned: list[tuple[Outcome, Write]] = []
        # The same text in several projects has a job for each, and one vector.
        encoded: dict[int, bytes] = {}
        for job in jobs:
            if job.failure:
                code = {"ai_enrichment_error": job.failure}
                mark = {**self._marks(chunk.run, now), **code, "ai_enrichment_status": "failed"}
                failed = Addition(mark)
                planned += [
                    (Outcome.FAILED, self._write_of(chunk, document, failed))
                    for document in job.documents
                ]
            elif job.vector is None:
                tally.defer(job.put_off or NO_VECTOR, len(job.documents))
            else:
                vector = encoded.get(id(job.vector)) or encode_vector(job.vector)
                encoded[id(job.vector)] = vector
                fields = {
                    **self._marks(chunk.run, now),
                    "ai_enrichment_status": "success",
                    "ai_embedding_model": self._settings.embedding_model,
                    "ai_embedding_dimensions": self._settings.embedding_dimensions,
                    "ai_text_sha256": job.fingerprint,
                }
                first, *others = job.documents
                for source, documents in ((job.source, [first]), (Outcome.DUPLICATE, others)):
                    added = Addition({**fields, "ai_vector_source": source.value}, vector)
                    planned += [
                        (source, self._write_of(chunk, document, added)) for document in documents
                    ]
        again = self._write_once(chunk, planned, tally)
        if again:
            self._write_again(chunk, again, tally)

    def _marks(self, run: str, now: str) -> dict[str, Any]:
        return {
            "ai_enriched_at": now,
            "ai_enrichment_method": METHOD,
            "ai_enrichment_run": run,
        }

    def _write_of(self, chunk: Chunk, document: Document, addition: Addition) -> Write:
        by_update = document.reference.index in chunk.update_only
        return Write(document=document, addition=addition, by_update=by_update)

    def _write_once(
        self, chunk: Chunk, planned: list[tuple[Outcome, Write]], tally: Tally
    ) -> list[tuple[Outcome, Write]]:
        """Write and count; those that somebody changed meanwhile are given back."""
        changed: list[tuple[Outcome, Write]] = []
        verdicts: list[tuple[Verdict, str]] = []
        for batch in self._throttle.batches([write for _, write in planned]):
            verdicts += self._answered(batch)
        refused = _refused_as_a_whole([write for _, write in planned], verdicts)
        for (outcome, write), (verdict, kind) in zip(planned, verdicts, strict=True):
            reference = write.document.reference
            if verdict is Verdict.WRITTEN:
                tally.add(outcome)
            elif verdict is Verdict.CONFLICT:
                changed.append((outcome, write))
            elif verdict is Verdict.GONE:
                tally.add(Outcome.GONE)
            elif verdict is Verdict.BLOCKED:
                why = _why_blocked(kind)
                tally.defer(f"{reference.index}: {why}")
                self._ledger.skip(chunk.run, reference.index, why)
            elif verdict is Verdict.OVERLOADED:
                if reference.index in refused:
                    why = _why_blocked(kind)
                    tally.defer(f"{reference.index}: {why}")
                    self._ledger.skip(chunk.run, reference.index, why)
                else:
                    tally.defer(OVERLOADED)
                    tally.overloaded = True
            elif write.addition.vector is not None:
                # The mapping refuses the document with its vector; the mark alone may pass.
                self._mark_refused(chunk, write, tally)
            else:
                tally.add(Outcome.FAILED)
                code = str(write.addition.fields.get("ai_enrichment_error", kind))
                self._ledger.remember_refused(reference.index, reference.id, code)
        return changed

    def _answered(self, batch: Sequence[Write]) -> list[tuple[Verdict, str]]:
        try:
            return self._store.documents.write(batch)
        except NoAnswerInTime:
            indices = sorted({write.document.reference.index for write in batch})
            alone = len(batch) == 1 and indices[0] in self._sorted.to_try
            if self._trials.unanswered(indices, alone=alone):
                raise IndexSilent("an index did not answer a write") from None
            raise

    def _mark_refused(self, chunk: Chunk, write: Write, tally: Tally) -> None:
        kept = ("ai_enriched_at", "ai_enrichment_method", "ai_enrichment_run")
        fields = {name: write.addition.fields[name] for name in kept}
        fields |= {"ai_enrichment_status": "failed", "ai_enrichment_error": "mapping_refused"}
        mark = self._write_of(chunk, write.document, Addition(fields))
        for _ in self._write_once(chunk, [(Outcome.FAILED, mark)], tally):
            tally.defer(CHANGED)

    def _write_again(
        self, chunk: Chunk, changed: list[tuple[Outcome, Write]], tally: Tally
    ) -> None:
        """Read changed documents once more; write those still owed whose text is the same."""
        read = self._store.documents.read([write.document.reference for _, write in changed])
        planned = []
        for (outcome, write), document in zip(changed, read, strict=True):
            if document.presence is not Presence.FOUND:
                if document.presence is Presence.GONE:
                    tally.add(Outcome.GONE)
                else:
                    tally.defer(UNREADABLE)
                    tally.unreadable = True
                    tally.away |= not document.closed
                continue
            settled = self._judged_anew(document, chunk.run)
            if settled is not None:
                tally.add(settled)
                tally.note_writer(settled, document)
            elif document.value("message") != write.document.value("message"):
                # Another text now: the next run embeds it.
                tally.defer(CHANGED)
            else:
                planned.append((outcome, self._write_of(chunk, document, write.addition)))
        for _ in self._write_once(chunk, planned, tally):
            tally.defer(CHANGED)


def _refused_as_a_whole(
    writes: Sequence[Write], verdicts: Sequence[tuple[Verdict, str]]
) -> set[str]:
    """Indices that took none of several logs, for one reason that is not known to pass: trying
    again would not help, nor would buying more."""
    told: dict[str, list[tuple[Verdict, str]]] = {}
    for write, verdict in zip(writes, verdicts, strict=True):
        told.setdefault(write.document.reference.index, []).append(verdict)
    return {
        index
        for index, (first, *others) in told.items()
        if others
        and first[0] is Verdict.OVERLOADED
        and first[1] not in PASSING
        and all(other == first for other in others)
    }


_WHY_BLOCKED = {
    "security_exception": "OPENSEARCH_USER may not write to it (403), or sees only a part of it",
    "append_only": APPEND_ONLY,
    DROPPED: "its final pipeline drops logs that are written; the next run writes by update",
    PIPELINE_MISSING: "its final pipeline is missing; the next run writes by update",
    MAPPING_FULL: "its mapping is full: raise index.mapping.total_fields.limit or the like",
}


def _why_blocked(kind: str) -> str:
    if kind in _WHY_BLOCKED:
        return _WHY_BLOCKED[kind]
    return f"it stopped taking writes ({kind})"

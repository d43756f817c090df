"""What became of a chunk's logs: counts and reasons; and whether a changed log is still pending."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from enrich.log_store import Document, Presence
from enrich.models import VECTOR_OUTCOMES, Outcome, Reference
from enrich.schema import Schema

#: Why logs are deferred.
OVERLOADED = "OpenSearch is overloaded: it took only a part of the writes"
UNREADABLE = "logs cannot be read now: some shard of their index does not answer"
CHANGED = "somebody changed the logs while they were enriched"
NO_VECTOR = "the embeddings API gave no vector for these texts this time"
IN_DOUBT = "logs that may have been written cannot be read now (a shard does not answer)"


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
    #: Indices that refused writes for now, or could not be read.
    troubled: set[str] = field(default_factory=set)
    #: Why documents are deferred, in sentences, and how many.
    reasons: Counter[str] = field(default_factory=Counter)
    #: Logs that another run had given a vector meanwhile, by that run.
    by_others: Counter[str] = field(default_factory=Counter)
    #: What became of each log, by index and id, with the reason where it was deferred: for who has
    #: to answer for single ones.
    ends: dict[tuple[str, str], tuple[Outcome, str]] = field(default_factory=dict)

    def add(self, outcome: Outcome, *references: Reference, why: str = "") -> None:
        """Say what became of logs."""
        self.outcomes[outcome.value] += len(references)
        for reference in references:
            self.ends[reference.index, reference.id] = outcome, why

    def include(self, other: Tally) -> None:
        """Add what became of other documents."""
        self.outcomes.update(other.outcomes)
        self.errors += other.errors
        self.overloaded |= other.overloaded
        self.waiting |= other.waiting
        self.unreadable |= other.unreadable
        self.away |= other.away
        self.troubled |= other.troubled
        self.reasons.update(other.reasons)
        self.by_others.update(other.by_others)
        self.ends.update(other.ends)

    def defer(self, why: str, *references: Reference) -> None:
        self.add(Outcome.DEFERRED, *references, why=why)
        if references:
            self.reasons[why] += len(references)

    def explain(self, why: str) -> None:
        """Say why all that is deferred is."""
        deferred = self.outcomes[Outcome.DEFERRED.value]
        self.reasons = Counter({why: deferred} if deferred else {})

    def note_writer(self, outcome: Outcome, document: Document) -> None:
        run = document.value("ai_enrichment_run")
        if outcome is Outcome.ALREADY_VECTORIZED and isinstance(run, str):
            self.by_others[run] += 1


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Says of a document that was read whether it is settled already, and how."""

    #: Tells which levels are wanted.
    schema: Schema

    def settled(self, document: Document, reference: Reference, run: str) -> Outcome | None:
        """The outcome of a document that is not pending (any more), or None."""
        if document.presence is Presence.GONE:
            return Outcome.GONE
        if document.presence is Presence.UNREADABLE:
            return Outcome.DEFERRED
        if document.reference == reference:
            return None
        return self.judged_anew(document, run)

    def judged_anew(self, document: Document, run: str) -> Outcome | None:
        """The same of one that was changed since it was found."""
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
        if not self.schema.may_be_wanted(document.only(self.schema.level_roots)):
            # Changed since it was found: no ERROR log any more.
            return Outcome.GONE
        return None

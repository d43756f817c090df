"""Writing a chunk's vectors and marks, and what each answer means: written, changed, refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from datetime import UTC, datetime
from typing import Any

from enrich.enrichment.journal import Journal
from enrich.enrichment.outcomes import CHANGED, NO_VECTOR, OVERLOADED, UNREADABLE, Judge, Tally
from enrich.enrichment.slow_indices import SlowIndices
from enrich.enrichment.text_groups import TextGroup
from enrich.enrichment.write_trials import WriteTrials
from enrich.errors import TransientError
from enrich.ledger.refused import RefusedDocuments
from enrich.log_store import (
    APPEND_ONLY,
    DROPPED,
    MAPPING_FULL,
    PASSING,
    PIPELINE_MISSING,
    Addition,
    Document,
    NoAnswerInTime,
    Presence,
    Verdict,
    Write,
    encode_vector,
)
from enrich.log_store.interfaces import RunStore
from enrich.models import Chunk, Outcome
from enrich.ratelimit.write_throttle import WriteThrottle
from enrich.settings import Settings


class IndexSilent(TransientError):
    """A write was not answered, while OpenSearch answers."""


class Writer:
    """Writes to OpenSearch; one for each worker process."""

    def __init__(
        self,
        settings: Settings,
        store: RunStore,
        journal: Journal,
        refused: RefusedDocuments,
        throttle: WriteThrottle,
        trials: WriteTrials,
        judge: Judge,
        slow_indices: SlowIndices,
    ) -> None:
        self._settings = settings
        self._schema = settings.log_schema
        self._documents = store.documents
        self._journal = journal
        self._refused = refused
        self._throttle = throttle
        self._trials = trials
        self._judge = judge
        self._slow_indices = slow_indices
        #: Indices of the write at hand that are being tried.
        self._tried: Set[str] = frozenset()

    def write(
        self,
        chunk: Chunk,
        groups: list[TextGroup],
        tally: Tally,
        *,
        tried: Set[str] = frozenset(),
        troubled: Set[str] = frozenset(),
    ) -> None:
        """Write the vectors and failures of texts, and count what became of their documents.

        Args:
            tried: indices that get their first log by this.
            troubled: indices that are written behind the others, in requests of their own.

        Raises:
            IndexSilent: one of these did not answer.
            TransientError: nothing is known of what was sent; what was written before stays.
        """
        self._tried = tried
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        planned: list[tuple[Outcome, Write]] = []
        # The same text in several projects has a group for each, and one vector.
        encoded: dict[int, bytes] = {}
        for group in groups:
            if group.failure:
                code = {"ai_enrichment_error": group.failure}
                mark = {**self._marks(chunk.run, now), **code, "ai_enrichment_status": "failed"}
                failed = Addition(mark)
                planned += [
                    (Outcome.FAILED, self._write_of(chunk, document, failed))
                    for document in group.documents
                ]
            elif group.vector is None:
                of_group = [document.reference for document in group.documents]
                tally.defer(group.reason or NO_VECTOR, *of_group)
            else:
                vector = encoded.get(id(group.vector)) or encode_vector(group.vector)
                encoded[id(group.vector)] = vector
                fields = {
                    **self._marks(chunk.run, now),
                    "ai_enrichment_status": "success",
                    "ai_embedding_model": self._settings.embedding_model,
                    "ai_embedding_dimensions": self._settings.embedding_dimensions,
                    "ai_text_sha256": group.fingerprint,
                }
                first, *others = group.documents
                for source, documents in ((group.outcome, [first]), (Outcome.DUPLICATE, others)):
                    added = Addition({**fields, "ai_vector_source": source.value}, vector)
                    planned += [
                        (source, self._write_of(chunk, document, added)) for document in documents
                    ]
        # A request lasts as long as the slowest index in it.
        indices = {write.document.reference.index for _, write in planned}
        apart = self._slow_indices.to_part(indices)
        for written_now in _healthy_first(planned, apart, troubled):
            again = self._write_once(chunk, written_now, tally)
            if again:
                self._write_again(chunk, again, tally)

    def _message(self, document: Document) -> Any:
        return document.message(self._schema)

    def _marks(self, run: str, now: str) -> dict[str, Any]:
        return {
            "ai_enriched_at": now,
            "ai_enrichment_method": self._journal.method,
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
            batch_indices = {write.document.reference.index for write in batch}
            with self._slow_indices.watch(batch_indices, tally.troubled):
                verdicts += self._answered(batch)
        refused = _refused_as_a_whole([write for _, write in planned], verdicts)
        for (outcome, write), (verdict, kind) in zip(planned, verdicts, strict=True):
            reference = write.document.reference
            if verdict is Verdict.WRITTEN:
                tally.add(outcome, reference)
            elif verdict is Verdict.CONFLICT:
                changed.append((outcome, write))
            elif verdict is Verdict.GONE:
                tally.add(Outcome.GONE, reference)
            elif verdict is Verdict.BLOCKED:
                why = _why_blocked(kind)
                tally.defer(f"{reference.index}: {why}", reference)
                self._journal.skip(chunk.run, reference.index, why)
            elif verdict is Verdict.OVERLOADED:
                if reference.index in refused:
                    why = _why_blocked(kind)
                    tally.defer(f"{reference.index}: {why}", reference)
                    self._journal.skip(chunk.run, reference.index, why)
                else:
                    tally.defer(OVERLOADED, reference)
                    tally.overloaded = True
                    tally.troubled.add(reference.index)
            elif write.addition.vector is not None:
                # The mapping refuses the document with its vector; the mark alone may pass.
                self._mark_refused(chunk, write, tally)
            else:
                tally.add(Outcome.FAILED, reference)
                code = str(write.addition.fields.get("ai_enrichment_error", kind))
                self._refused.record(reference.index, reference.id, code)
        return changed

    def _answered(self, batch: Sequence[Write]) -> list[tuple[Verdict, str]]:
        try:
            return self._documents.write(batch)
        except NoAnswerInTime:
            indices = sorted({write.document.reference.index for write in batch})
            alone = len(batch) == 1 and indices[0] in self._tried
            if self._trials.unanswered(indices, alone=alone):
                raise IndexSilent("an index did not answer a write") from None
            raise

    def _mark_refused(self, chunk: Chunk, write: Write, tally: Tally) -> None:
        kept = ("ai_enriched_at", "ai_enrichment_method", "ai_enrichment_run")
        fields = {name: write.addition.fields[name] for name in kept}
        fields |= {"ai_enrichment_status": "failed", "ai_enrichment_error": "mapping_refused"}
        mark = self._write_of(chunk, write.document, Addition(fields))
        for _, changed in self._write_once(chunk, [(Outcome.FAILED, mark)], tally):
            tally.defer(CHANGED, changed.document.reference)

    def _write_again(
        self, chunk: Chunk, changed: list[tuple[Outcome, Write]], tally: Tally
    ) -> None:
        """Read changed documents once more; write those still pending whose text is the same."""
        read = self._documents.read([write.document.reference for _, write in changed])
        planned = []
        for (outcome, write), document in zip(changed, read, strict=True):
            reference = document.reference
            if document.presence is not Presence.FOUND:
                if document.presence is Presence.GONE:
                    tally.add(Outcome.GONE, reference)
                else:
                    tally.defer(UNREADABLE, reference)
                    tally.unreadable = True
                    tally.away |= not document.closed
                continue
            settled = self._judge.judged_anew(document, chunk.run)
            if settled is not None:
                tally.add(settled, reference)
                tally.note_writer(settled, document)
            elif self._message(document) != self._message(write.document):
                # Another text now: the next run embeds it.
                tally.defer(CHANGED, reference)
            else:
                planned.append((outcome, self._write_of(chunk, document, write.addition)))
        for _, write in self._write_once(chunk, planned, tally):
            tally.defer(CHANGED, write.document.reference)


def _healthy_first(
    planned: Sequence[tuple[Outcome, Write]], apart: Set[str], troubled: Set[str]
) -> Iterator[list[tuple[Outcome, Write]]]:
    """The writes to healthy indices, those to each index `apart`, and behind them those to indices
    in trouble."""
    parts: dict[tuple[bool, str], list[tuple[Outcome, Write]]] = {}
    for one in planned:
        index = one[1].document.reference.index
        part = index in troubled, index if index in apart - troubled else ""
        parts.setdefault(part, []).append(one)
    return (parts[part] for part in sorted(parts))


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

"""The work on one chunk: read afresh, get each text's vector, write, and account for every log.

The straight line is `work`: documents → jobs (one for each distinct text) → vectors from the
cheapest place → writes → outcomes. It settles nothing and publishes nothing; `backfill` does.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from enrich.asking import Asking
from enrich.embedder import Embedder, Vector
from enrich.errors import Halt, TextUnusable, TransientError
from enrich.ledger import Ledger
from enrich.log_store import Document, LogStore, Presence, Verdict, Write, encode_vector
from enrich.masking import masked_places, masker_of
from enrich.models import METHOD, VECTOR_OUTCOMES, Chunk, Outcome, Reference
from enrich.rate_budget import RateBudget
from enrich.settings import Settings
from enrich.text import fingerprint, text_of
from enrich.vector_cache import VectorCache
from enrich.write_pace import WritePace

log = logging.getLogger(__name__)

#: How long a text that another chunk is embedding is waited for.
MAX_WAIT_SECONDS = 10.0
CLAIM_SECONDS = 30.0
POLL_SECONDS = 0.05

#: After so many lost workers a chunk goes text by text.
LOSSES_BEFORE_ALONE = 2


@dataclass(kw_only=True)
class _Job:
    """One distinct text and the documents of the chunk that have it."""

    fingerprint: str
    text: str
    #: Project whose donors may serve it, or "" where any may.
    scope: str
    documents: list[Document] = field(default_factory=list)
    vector: Vector | None = None
    source: Outcome = Outcome.DEFERRED
    #: Why its documents fail, if they do.
    failure: str = ""


@dataclass(kw_only=True)
class Tally:
    """What became of a chunk's documents so far."""

    outcomes: Counter[str] = field(default_factory=Counter)
    errors: int = 0
    #: Whether something passing kept documents from being written.
    overloaded: bool = False

    def add(self, outcome: Outcome, n: int = 1) -> None:
        self.outcomes[outcome.value] += n


class ChunkWork:
    """Works on chunks; one for each worker process."""

    def __init__(
        self,
        settings: Settings,
        store: LogStore,
        embedder: Embedder,
        cache: VectorCache,
        ledger: Ledger,
        budget: RateBudget,
        pace: WritePace,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings = settings
        self._store = store
        self._cache = cache
        self._ledger = ledger
        self._pace = pace
        self._sleep = sleep
        self._price = settings.price_per_million_tokens
        self._key_hash = key_hash(settings)
        self._mask = masker_of(settings.enrich_mask)
        self.asking = Asking(embedder, budget, self._count)

    def work(self, chunk: Chunk, claimant: str, losses: int = 0, suspect: str = "") -> Tally:
        """Do what is still owed of a chunk; every document has one outcome in the answer.

        Args:
            losses: how often this chunk has taken its worker down.
            suspect: fingerprint of the text that was handled alone when that happened last.

        Raises:
            TransientError: try the chunk again later; what was written stays written.
            Halt: nothing can go on.
        """
        tally = Tally()
        documents = self._store.documents.read([*chunk.references, *chunk.donors])
        found, donors = documents[: len(chunk.references)], documents[len(chunk.references) :]
        owed = self._owed(chunk, zip(found, chunk.references, strict=True), tally)
        jobs = self._jobs(owed)
        given = self._donated(donors)
        if losses < LOSSES_BEFORE_ALONE:
            self._do(chunk, jobs, given, tally)
        else:
            for job in jobs:
                if job.fingerprint == suspect:
                    job.failure = "worker_lost"
                else:
                    self._ledger.suspect(chunk.id, claimant, job.fingerprint)
                self._do(chunk, [job], given, tally)
        if tally.overloaded:
            raise TransientError("OpenSearch is overloaded: it took only a part of the writes")
        return tally

    def account(self, chunk: Chunk) -> Tally:
        """Count what this run has written of a chunk; the rest is deferred. Nothing is changed."""
        tally = Tally()
        found = self._store.documents.read(chunk.references)
        owed = self._owed(chunk, zip(found, chunk.references, strict=True), tally)
        tally.add(Outcome.DEFERRED, len(owed))
        return tally

    # -- what is still owed

    def _owed(self, chunk: Chunk, pairs: Any, tally: Tally) -> list[Document]:
        owed = []
        for document, reference in pairs:
            outcome = self._settled_already(document, reference, chunk.run)
            if outcome is None:
                owed.append(document)
            else:
                tally.add(outcome)
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

    # -- texts and their vectors

    def _jobs(self, documents: Sequence[Document]) -> list[_Job]:
        jobs: dict[tuple[str, str], _Job] = {}
        for document in documents:
            try:
                text = text_of({"message": document.value("message")}, self._mask)
                digest, failure = fingerprint(text), ""
            except TextUnusable as error:
                text, failure = "", error.code
                digest = fingerprint(failure)
            scope = self._settings.donor_scope(document.reference.index)
            job = jobs.setdefault(
                (scope, digest),
                _Job(fingerprint=digest, text=text, scope=scope, failure=failure),
            )
            job.documents.append(document)
        return list(jobs.values())

    def _donated(self, donors: Sequence[Document]) -> dict[tuple[str, str], Vector]:
        """Vectors of donors, each under the fingerprint of the text that the donor has now."""
        given: dict[tuple[str, str], Vector] = {}
        for donor in donors:
            vector = donor.vector(self._settings.embedding_dimensions)
            same_space = (
                donor.value("ai_embedding_model") == self._settings.embedding_model
                and donor.value("ai_embedding_dimensions") == self._settings.embedding_dimensions
            )
            if vector is None or not same_space:
                continue
            try:
                text = text_of({"message": donor.value("message")}, self._mask)
            except TextUnusable:
                continue
            digest = fingerprint(text)
            # Its vector is of the text that it had then; masked otherwise, or changed since, it
            # has another now.
            if donor.value("ai_text_sha256") == digest:
                given[self._settings.donor_scope(donor.reference.index), digest] = vector
        return given

    def _do(
        self,
        chunk: Chunk,
        jobs: list[_Job],
        given: dict[tuple[str, str], Vector],
        tally: Tally,
    ) -> None:
        self._find_vectors(chunk, [job for job in jobs if not job.failure], given, tally)
        self._write(chunk, jobs, tally)

    def _find_vectors(
        self,
        chunk: Chunk,
        jobs: list[_Job],
        given: dict[tuple[str, str], Vector],
        tally: Tally,
    ) -> None:
        cached = self._cache.get(sorted({job.fingerprint for job in jobs}))
        missing: dict[str, str] = {}
        for job in jobs:
            if job.fingerprint in cached:
                job.vector, job.source = cached[job.fingerprint], Outcome.CACHED
            elif (job.scope, job.fingerprint) in given:
                job.vector = given[job.scope, job.fingerprint]
                job.source = Outcome.REUSED
            else:
                missing[job.fingerprint] = job.text
        if not missing:
            return
        if self._over_budget():
            return
        by_text: dict[str, tuple[Vector | None, Outcome, str]] = {}
        waiting = dict(missing)
        waited = 0.0
        while waiting:
            mine = self._cache.claim(sorted(waiting), chunk.id, CLAIM_SECONDS)
            if waited >= MAX_WAIT_SECONDS:
                mine = set(waiting)
            if mine:
                by_text |= self._embed(chunk, {f: waiting.pop(f) for f in sorted(mine)})
            for known, vector in self._cache.get(sorted(waiting)).items():
                del waiting[known]
                by_text[known] = vector, Outcome.CACHED, ""
            if waiting:
                self._sleep(POLL_SECONDS)
                waited += POLL_SECONDS
        first: set[str] = set()
        for job in jobs:
            if job.fingerprint in by_text and job.vector is None:
                job.vector, source, job.failure = by_text[job.fingerprint]
                # The same text in two projects of one chunk was sent once.
                job.source = Outcome.DUPLICATE if job.fingerprint in first else source
                first.add(job.fingerprint)

    def _embed(
        self, chunk: Chunk, texts: dict[str, str]
    ) -> dict[str, tuple[Vector | None, Outcome, str]]:
        run = chunk.run
        got: dict[str, tuple[Vector | None, Outcome, str]] = {}

        def keep(vectors: dict[str, Vector]) -> None:
            self._keep(vectors)
            masked = sum(masked_places(texts[digest]) for digest in vectors) if self._mask else 0
            if masked:
                self._count(run, masked=masked)

        try:
            answers = self.asking.ask(run, texts, keep)
            self._ledger.note_key_works(self._key_hash)
            for digest, vector in answers.vectors.items():
                got[digest] = vector, Outcome.EMBEDDED, ""
            for digest, code in answers.refused.items():
                got[digest] = None, Outcome.FAILED, code
            for digest in answers.invalid:
                got[digest] = None, Outcome.DEFERRED, ""
        except Halt:
            if self._ledger.another_key_works(self._key_hash):
                raise TransientError(
                    "the embeddings API refuses this worker's key while another's works: "
                    "restart the worker with the new OPENAI_API_KEY"
                ) from None
            raise
        finally:
            self._cache.unclaim(texts, chunk.id)
        return got

    def _keep(self, vectors: dict[str, Vector]) -> None:
        try:
            self._cache.put(vectors)
        except TransientError as error:
            # They are in hand and paid for: written all the same.
            log.warning("vectors were not cached: %s", error)

    def _over_budget(self) -> bool:
        limit = self._settings.enrich_max_cost_per_day
        return bool(limit) and self._ledger.spent_today_usd() >= limit

    def _count(self, run: str, **amounts: int) -> None:
        micro_usd = round(amounts.get("api_tokens", 0) * self._price)
        self._ledger.count(run, micro_usd=micro_usd, **amounts)

    # -- writing

    def _write(self, chunk: Chunk, jobs: list[_Job], tally: Tally) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        planned: list[tuple[Outcome, Write]] = []
        for job in jobs:
            if job.failure:
                code = {"ai_enrichment_error": job.failure}
                added = {**self._marks(chunk.run, now), **code, "ai_enrichment_status": "failed"}
                planned += [
                    (Outcome.FAILED, self._write_of(chunk, document, added, None))
                    for document in job.documents
                ]
            elif job.vector is None:
                tally.add(Outcome.DEFERRED, len(job.documents))
            else:
                encoded = encode_vector(job.vector)
                for nth, document in enumerate(job.documents):
                    source = job.source if nth == 0 else Outcome.DUPLICATE
                    added = {
                        **self._marks(chunk.run, now),
                        "ai_enrichment_status": "success",
                        "ai_embedding_model": self._settings.embedding_model,
                        "ai_embedding_dimensions": self._settings.embedding_dimensions,
                        "ai_text_sha256": job.fingerprint,
                        "ai_vector_source": source.value,
                    }
                    planned.append((source, self._write_of(chunk, document, added, encoded)))
        again = self._write_once(chunk, planned, tally)
        if again:
            self._write_again(chunk, again, tally)

    def _marks(self, run: str, now: str) -> dict[str, Any]:
        return {
            "ai_enriched_at": now,
            "ai_enrichment_method": METHOD,
            "ai_enrichment_run": run,
        }

    def _write_of(
        self, chunk: Chunk, document: Document, added: dict[str, Any], vector: bytes | None
    ) -> Write:
        by_update = document.reference.index in chunk.update_only
        return Write(document=document, added=added, vector=vector, by_update=by_update)

    def _write_once(
        self, chunk: Chunk, planned: list[tuple[Outcome, Write]], tally: Tally
    ) -> list[tuple[Outcome, Write]]:
        """Write and count; those that somebody changed meanwhile are given back."""
        changed: list[tuple[Outcome, Write]] = []
        verdicts: list[tuple[Verdict, str]] = []
        for portion in self._pace.portions([write for _, write in planned]):
            verdicts += self._store.documents.write(portion)
        for (outcome, write), (verdict, kind) in zip(planned, verdicts, strict=True):
            reference = write.document.reference
            if verdict is Verdict.WRITTEN:
                tally.add(outcome)
            elif verdict is Verdict.CONFLICT:
                changed.append((outcome, write))
            elif verdict is Verdict.GONE:
                tally.add(Outcome.GONE)
            elif verdict is Verdict.BLOCKED:
                tally.add(Outcome.DEFERRED)
                reason = f"it stopped taking writes ({kind})"
                self._ledger.skip(chunk.run, reference.index, reason)
            elif verdict is Verdict.OVERLOADED:
                tally.add(Outcome.DEFERRED)
                tally.overloaded = True
            elif write.vector is not None:
                # The mapping refuses the document with its vector; the mark alone may pass.
                self._mark_refused(chunk, write, tally)
            else:
                tally.add(Outcome.FAILED)
                code = str(write.added.get("ai_enrichment_error", kind))
                self._ledger.remember_refused(reference.index, reference.id, code)
        return changed

    def _mark_refused(self, chunk: Chunk, write: Write, tally: Tally) -> None:
        kept = ("ai_enriched_at", "ai_enrichment_method", "ai_enrichment_run")
        added = {name: write.added[name] for name in kept}
        added |= {"ai_enrichment_status": "failed", "ai_enrichment_error": "mapping_refused"}
        mark = self._write_of(chunk, write.document, added, None)
        for _ in self._write_once(chunk, [(Outcome.FAILED, mark)], tally):
            tally.add(Outcome.DEFERRED)

    def _write_again(
        self, chunk: Chunk, changed: list[tuple[Outcome, Write]], tally: Tally
    ) -> None:
        """Read changed documents once more; write those still owed whose text is the same."""
        read = self._store.documents.read([write.document.reference for _, write in changed])
        planned = []
        for (outcome, write), document in zip(changed, read, strict=True):
            if document.presence is not Presence.FOUND:
                gone = document.presence is Presence.GONE
                tally.add(Outcome.GONE if gone else Outcome.DEFERRED)
                continue
            settled = self._judged_anew(document, chunk.run)
            if settled is not None:
                tally.add(settled)
            elif document.value("message") != write.document.value("message"):
                # Another text now: the next run embeds it.
                tally.add(Outcome.DEFERRED)
            else:
                again = self._write_of(chunk, document, write.added, write.vector)
                planned.append((outcome, again))
        for _ in self._write_once(chunk, planned, tally):
            tally.add(Outcome.DEFERRED)


def key_hash(settings: Settings) -> str:
    """Tells API keys apart without saying anything about them."""
    secret = settings.openai_api_key.get_secret_value()
    return hashlib.sha256(b"enrich key " + secret.encode()).hexdigest()[:12]

"""Where a text's vector comes from: the cache, a log that has it, or the API; paid for once.

A log's vector is believed within its project, whose own it is, or where its digest shows that the
API gave it; then it may serve every project.

Two chunks that meet the same new text at once agree through a claim in the cache which of them
asks; the other waits for what it gets.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field

from enrich.embedding.batching import Batching, Results
from enrich.embedding.cache import VectorCache, space
from enrich.embedding.client import Embedder
from enrich.embedding.limits import SharedLimits
from enrich.embedding.locations import VectorLocation, VectorLocations
from enrich.errors import Halt, TextUnusable, TransientError
from enrich.ledger import Ledger
from enrich.log_store import Document, LogStore, StoredVector
from enrich.models import Donor, Outcome, project_of
from enrich.ratelimit.api_quota import ApiQuota
from enrich.settings import Settings
from enrich.text.extract import fingerprint, text_of
from enrich.text.masking import masked_places, masker_of
from enrich.vectors import Vector

log = logging.getLogger(__name__)

#: How long a text that another chunk is embedding is waited for.
MAX_WAIT_SECONDS = 10.0
CLAIM_SECONDS = 30.0
POLL_SECONDS = 0.05

#: A success speaks for the key that brought it for so long, and for three intervals at least.
KEY_WORKS_SECONDS = 600.0

#: Why logs wait for another day.
BUDGET_USED_UP = "the day's ENRICH_MAX_COST_PER_DAY is used up"


def share_used_up(project: str) -> str:
    """Why a project's logs wait for another day while other projects' do not."""
    return (
        f"project {project} has used its share of the day's ENRICH_MAX_COST_PER_DAY: it goes on "
        "after midnight UTC, or once ENRICH_MAX_PROJECT_SHARE is raised"
    )


#: Vectors of donors, by project and fingerprint; by the project "" those that may serve any.
Given = Mapping[tuple[str, str], Vector]


@dataclass(kw_only=True)
class Job:
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
    #: Why it has no vector this time, where that is known.
    put_off: str = ""


class Resolver:
    """Gives jobs their vectors; one for each worker process."""

    def __init__(
        self,
        settings: Settings,
        store: LogStore,
        embedder: Embedder,
        cache: VectorCache,
        written: VectorLocations,
        ledger: Ledger,
        quota: ApiQuota,
    ) -> None:
        self._settings = settings
        self._stored = store.stored_vectors
        self._cache = cache
        self._written = written
        self._ledger = ledger
        self._price = settings.price_per_million_tokens
        #: Who pays for what is asked just now: bytes by project.
        self._payers: Counter[str] = Counter()
        self._key_hash = _key_hash(settings)
        self._mask = masker_of(settings.enrich_mask)
        limits = SharedLimits(
            space(settings), ledger.endpoint_limits, ledger.remember_endpoint_limits
        )
        self._asking = Batching(
            embedder,
            quota,
            self._count,
            limits,
            settings.enrich_max_text_bytes,
            ledger.lone_failures(space(settings)),
        )

    def jobs(self, documents: Sequence[Document]) -> list[Job]:
        """One for each distinct text of the documents, or for each reason why there is none."""
        jobs: dict[tuple[str, str], Job] = {}
        for document in documents:
            try:
                if document.failure:
                    raise TextUnusable(document.failure)
                text = text_of({"message": document.value("message")}, self._mask)
                digest, failure = fingerprint(text), ""
            except TextUnusable as error:
                text, failure = "", error.code
                digest = fingerprint(failure)
            scope = self._settings.donor_scope(document.reference.index)
            job = jobs.setdefault(
                (scope, digest),
                Job(fingerprint=digest, text=text, scope=scope, failure=failure),
            )
            job.documents.append(document)
        return list(jobs.values())

    def given(self, donors: Sequence[Donor]) -> Given:
        """Vectors of donors that can be believed; those of locations perhaps for every project."""
        given: dict[tuple[str, str], Vector] = {}
        from_api: dict[str, Vector] = {}
        for donor, stored in zip(donors, self._stored.read(donors), strict=True):
            if stored is None:
                continue
            if isinstance(donor, VectorLocation) and donor.vouches_for(
                stored.fingerprint, stored.vector
            ):
                from_api[stored.fingerprint] = given["", stored.fingerprint] = stored.vector
            elif self._is_of_its_text(stored):
                scope = self._settings.donor_scope(donor.index)
                given[scope, stored.fingerprint] = stored.vector
        self._keep(from_api)
        return given

    def _is_of_its_text(self, stored: StoredVector) -> bool:
        """Whether what the log says of its vector fits, also the text that it has now."""
        settings = self._settings
        space = settings.embedding_model, settings.embedding_dimensions
        if (stored.model, stored.dimensions) != space:
            return False
        try:
            text = text_of({"message": stored.message}, self._mask)
        except TextUnusable:
            return False
        # Its vector is of the text that it had then; masked otherwise, or changed since, it has
        # another now.
        return stored.fingerprint == fingerprint(text)

    def find(self, run: str, chunk: str, jobs: Sequence[Job], given: Given) -> None:
        """Set vector, source and failure of jobs. A job left without a vector is put off.

        Raises:
            Halt, TransientError: from the API; vectors got before were kept.
        """
        cached = self._cache.get(sorted({job.fingerprint for job in jobs}))
        for job in jobs:
            if job.fingerprint in cached:
                job.vector, job.source = cached[job.fingerprint], Outcome.CACHED
        self._reuse(jobs, given)
        self._reuse(jobs, self._given_elsewhere(jobs))
        missing = {job.fingerprint: job.text for job in jobs if job.vector is None}
        if not missing:
            return
        if self._over_budget():
            self._ledger.out_of_budget(run)
            for job in jobs:
                job.put_off = BUDGET_USED_UP
            return
        spent = self._leave_spent_shares(jobs)
        missing = {
            job.fingerprint: job.text for job in jobs if job.vector is None and not job.put_off
        }
        owners = _owners(jobs, spent)
        by_text: dict[str, tuple[Vector | None, Outcome, str]] = {}
        waiting = dict(missing)
        waited = 0.0
        while waiting:
            mine = self._cache.claim(sorted(waiting), chunk, CLAIM_SECONDS)
            if waited >= MAX_WAIT_SECONDS:
                mine = set(waiting)
            if mine:
                by_text |= self._embed(
                    run, chunk, {f: waiting.pop(f) for f in sorted(mine)}, owners
                )
            for known, vector in self._cache.get(sorted(waiting)).items():
                del waiting[known]
                by_text[known] = vector, Outcome.CACHED, ""
            if waiting:
                time.sleep(POLL_SECONDS)
                waited += POLL_SECONDS
        first: set[str] = set()
        for job in jobs:
            if job.fingerprint in by_text and job.vector is None:
                job.vector, source, why = by_text[job.fingerprint]
                if source is Outcome.FAILED:
                    job.failure = why
                else:
                    job.put_off = why
                # The same text in two projects of one chunk was sent once.
                job.source = Outcome.DUPLICATE if job.fingerprint in first else source
                first.add(job.fingerprint)

    def written(self, jobs: Sequence[Job]) -> None:
        """Keep in mind where the vectors stand that the API gave for these jobs."""
        places: dict[str, VectorLocation] = {}
        for job in jobs:
            if job.source is Outcome.EMBEDDED and job.vector is not None:
                first = job.documents[0].reference
                places[job.fingerprint] = VectorLocation.of(first, job.fingerprint, job.vector)
        try:
            self._written.remember(places)
        except TransientError as error:
            # They are written all the same.
            log.warning("it was not kept in mind where vectors were written: %s", error)

    def _reuse(self, jobs: Sequence[Job], given: Given) -> None:
        for job in jobs:
            if job.vector is None:
                job.vector = given.get(
                    (job.scope, job.fingerprint), given.get(("", job.fingerprint))
                )
                if job.vector is not None:
                    job.source = Outcome.REUSED

    def _given_elsewhere(self, jobs: Sequence[Job]) -> Given:
        missing = sorted({job.fingerprint for job in jobs if job.vector is None})
        return self.given(list(self._written.find(missing).values()))

    def _embed(
        self, run: str, chunk: str, texts: dict[str, str], owners: Mapping[str, str]
    ) -> dict[str, tuple[Vector | None, Outcome, str]]:
        """Args: owners: the project of each text, which pays for it."""
        got: dict[str, tuple[Vector | None, Outcome, str]] = {}

        def keep(vectors: dict[str, Vector]) -> None:
            self._keep(vectors)
            masked = sum(masked_places(texts[digest]) for digest in vectors) if self._mask else 0
            if masked:
                self._count(run, masked=masked)

        for digest, text in texts.items():
            self._payers[owners[digest]] += len(text.encode(errors="replace"))
        try:
            answers = self.ask(run, texts, keep)
            for digest, vector in answers.vectors.items():
                got[digest] = vector, Outcome.EMBEDDED, ""
            for digest, code in answers.refused.items():
                got[digest] = None, Outcome.FAILED, code
            for digest in answers.invalid:
                got[digest] = None, Outcome.DEFERRED, answers.reasons.get(digest, "")
        finally:
            self._payers.clear()
            self._cache.unclaim(texts, chunk)
        return got

    def ask(
        self, run: str, texts: Mapping[str, str], keep: Callable[[dict[str, Vector]], None]
    ) -> Results:
        """As `Batching.ask`; one worker that was left with an old key does not halt the rest."""
        with self._key_in_doubt():
            return self._asking.ask(run, texts, keep)

    def probe(self, run: str) -> None:
        """As `Batching.probe`, and as `ask` for the key."""
        with self._key_in_doubt():
            self._asking.probe(run)

    @contextmanager
    def _key_in_doubt(self) -> Iterator[None]:
        try:
            yield
        except Halt:
            if self._ledger.another_key_works(self._key_hash):
                raise TransientError(
                    "the embeddings API refuses this worker's OPENAI_API_KEY, while another key "
                    "worked a short while ago: if this is the old one, restart the worker with "
                    "the new; if it is the new one, check it"
                ) from None
            raise
        # Long enough for the next runs, in which the other may be the first to ask.
        seconds = max(KEY_WORKS_SECONDS, 3 * self._settings.interval_seconds)
        self._ledger.note_key_works(self._key_hash, seconds)

    def _keep(self, vectors: dict[str, Vector]) -> None:
        try:
            self._cache.put(vectors)
        except TransientError as error:
            # They are in hand and paid for: written all the same.
            log.warning("vectors were not cached: %s", error)

    def _over_budget(self) -> bool:
        limit = self._settings.enrich_max_cost_per_day
        return bool(limit) and self._ledger.spent_today_usd() >= limit

    def _leave_spent_shares(self, jobs: Sequence[Job]) -> set[str]:
        """Put off the jobs that only projects have that may spend no more today; these."""
        wanting = [job for job in jobs if job.vector is None and not job.failure]
        spent = self.over_share({project for job in wanting for project in _projects(job)})
        for job in wanting:
            if _projects(job) <= spent:
                job.put_off = share_used_up(min(_projects(job)))
        return spent

    def over_share(self, projects: Collection[str]) -> set[str]:
        """Those of the projects that may spend no more today."""
        settings = self._settings
        limit = settings.enrich_max_cost_per_day * settings.enrich_max_project_share
        if not limit or settings.enrich_max_project_share == 1:
            return set()
        return self._ledger.spending.over_share(projects, limit)

    def _count(self, run: str, **amounts: int) -> None:
        micro_usd = round(amounts.get("api_tokens", 0) * self._price)
        self._ledger.count(
            run, micro_usd=micro_usd, paid_by=_split(micro_usd, self._payers), **amounts
        )


def _projects(job: Job) -> set[str]:
    return {project_of(document.reference.index) for document in job.documents}


def _owners(jobs: Sequence[Job], spent: Set[str]) -> dict[str, str]:
    """The project that pays for each text: of several, the first that may still spend."""
    owners: dict[str, str] = {}
    for job in jobs:
        if able := _projects(job) - spent:
            owners.setdefault(job.fingerprint, min(able))
    return owners


def _split(micro_usd: int, payers: Mapping[str, int]) -> dict[str, int]:
    """An amount in parts as large as those of the payers; the last one has what is left over."""
    whole = sum(payers.values())
    if not micro_usd or not whole:
        return {}
    parts = {payer: micro_usd * part // whole for payer, part in payers.items()}
    parts[max(parts)] += micro_usd - sum(parts.values())
    return parts


def _key_hash(settings: Settings) -> str:
    """Tells API keys apart without saying anything about them."""
    secret = settings.openai_api_key.get_secret_value()
    return hashlib.sha256(b"enrich key " + secret.encode()).hexdigest()[:12]

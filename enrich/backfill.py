"""The straight line of a run: tick → page → chunk → outcomes → end.

Decides what happens next and says it to a `Publisher`; knows nothing of Celery. Every move may be
delivered twice, late or never: the ledger admits each once, and the next tick picks up what was
lost. Errors are raised as they are; the tasks turn them into retries.
"""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

import numpy as np

from enrich.chunk_work import ChunkWork, Tally
from enrich.chunking import Found, fit_page
from enrich.embedder import Embedder
from enrich.errors import Halt, InputRefused, RunClosed, TextUnusable, TransientError
from enrich.ledger import Ledger, Scan, Standing
from enrich.log_store import IndexPage, LogStore
from enrich.models import Chunk, Donor, Outcome, RunRecord, outcome_line, project_of
from enrich.rate_budget import RateBudget
from enrich.settings import Settings
from enrich.text import fingerprint, text_of
from enrich.vector_cache import VectorCache

log = logging.getLogger(__name__)

#: Most documents of one round of searches.
PAGE_DOCUMENTS = 2000

#: Most indices searched in one round; the others have their turn in the next.
PAGE_INDICES = 50

#: Only one worker reads a page; should it die, another may after this many seconds.
PAGE_CLAIM_SECONDS = 30

#: Cosine between a stored vector and the same text embedded now, below which the endpoint has
#: another vector space. Providers' own noise stays above 0.999.
SAME_SPACE_COSINE = 0.99

#: Longest pause that open work waits for; asked for a longer one, the run halts.
MAX_PAUSE_SECONDS = 60.0


class Publisher(Protocol):
    """Sends the next moves to the workers."""

    def find_unvectorized(self, trigger: str) -> None: ...
    def scan_page(self, run: str, page: int) -> None: ...
    def embed_and_update(self, message: dict[str, Any]) -> None: ...
    def finish_run(self, run: str) -> None: ...


class ChunkBusy(TransientError):
    """Another delivery of this chunk is at work.

    Attributes:
        seconds: until its claim ends.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds

    def __str__(self) -> str:
        return "another delivery of this chunk is at work"


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a backfill works with; built once per process, after the fork."""

    settings: Settings
    store: LogStore
    embedder: Embedder
    cache: VectorCache
    ledger: Ledger
    budget: RateBudget
    publisher: Publisher


class Backfill:
    """The four moves, each called by the task of its name."""

    def __init__(self, parts: Parts) -> None:
        self._settings = parts.settings
        self._store = parts.store
        self._cache = parts.cache
        self._ledger = parts.ledger
        self._publisher = parts.publisher
        self._closable = (parts.store, parts.embedder, parts.cache, parts.ledger)
        self._work = ChunkWork(
            parts.settings, parts.store, parts.embedder, parts.cache, parts.ledger, parts.budget
        )

    def close(self) -> None:
        """Close the lines to all servers."""
        for part in self._closable:
            part.close()

    # -- tick

    def tick(self, trigger: str) -> str:
        """Begin a run and read its first page; or, with a run active, mend what stands still."""
        active = self._ledger.active_run()
        if active:
            self.mend(active)
        opened = self._ledger.open(trigger, self._settings.interval_seconds)
        if opened.verdict != "opened":
            return _SKIPPED[opened.verdict].format(opened.run)
        return self.scan(opened.run, 1)

    def mend(self, run: str) -> None:
        """Defer chunks past their deadline and publish whatever the run waits for."""
        try:
            expired, standing = self._ledger.expire(
                run, self._settings.enrich_chunk_deadline_seconds
            )
        except RunClosed:
            return
        if expired:
            log.warning(
                "%d chunks passed their deadline and were deferred", expired, extra={"run": run}
            )
        if standing.state:
            self._advance(run, standing)
        else:
            # Its record was lost while its name stayed.
            self._ledger.finish(run)

    def _advance(self, run: str, standing: Standing) -> None:
        """Publish the next move, if one is due. Doubles are harmless."""
        if standing.over:
            self._publisher.finish_run(run)
        elif not standing.scan_done and self._room(standing):
            self._publisher.scan_page(run, standing.page)

    def _room(self, standing: Standing) -> int:
        """Chunks that may be added; 0 below a quarter of the limit, so that pages stay large."""
        most = self._settings.enrich_max_chunks_in_flight
        room = most - standing.open_chunks
        return room if room >= max(1, most // 4) else 0

    # -- page

    def scan(self, run: str, page: int) -> str:
        """Read one page of logs that are owed and publish its chunks."""
        try:
            standing = self._ledger.standing(run)
        except RunClosed:
            return f"run {run} is over"
        if standing.state == "running" and standing.page == page + 1:
            # Delivered again: some of its messages may never have been sent.
            for message in self._ledger.outbox(run):
                self._publisher.embed_and_update(message)
        if standing.state != "running" or standing.scan_done:
            self._advance(run, standing)
            return f"run {run} is not scanning"
        if standing.page != page:
            return f"page {page} was read before"
        if self._ledger.paused():
            return "paused"
        room = self._room(standing)
        if not room:
            return "no room for more chunks"
        if not self._ledger.claim_page(run, page, PAGE_CLAIM_SECONDS):
            return f"page {page} is being read"
        try:
            line = self._read_page(run, page, room)
        except Halt as error:
            self.halt(run, str(error))
            return f"halted: {error}"
        finally:
            self._ledger.release_page(run, page)
        self._advance(run, self._ledger.standing(run))
        return line

    def _read_page(self, run: str, page: int, room: int) -> str:
        scan = self._ledger.scan(run)
        if scan is None:
            record = self._ledger.record(run)
            log.info("Cycle #%d started (%s)", record.number, record.trigger, extra={"run": run})
            scan = self._survey(run)
        skipped = self._ledger.skipped(run)
        pending = [(index, cursor) for index, cursor in scan.pending if index not in skipped]
        stop, most = self._limits(run, page)
        if stop or not pending:
            more = bool(stop and pending)
            self._ledger.register(
                run, page, scan=_with(scan, pending), scan_done=True, more=more,
                stopped_by=stop if more else "",
            )  # fmt: skip
            self._say_found(run, skipped)
            return f"nothing more to find{f' now ({stop})' if more else ''}"

        targets, later = pending[:PAGE_INDICES], pending[PAGE_INDICES:]
        wanted = min(PAGE_DOCUMENTS, room * self._settings.enrich_batch_size * 4, most)
        pages = self._store.finder.page(
            targets, math.ceil(wanted / len(targets)), frozenset(scan.unsorted)
        )
        troubled = {p.index: p.trouble for p in pages if p.trouble}
        rows = self._in_turn(pages)
        found = [row.found for row in rows if row.found is not None][: int(min(most, len(rows)))]
        taken, chunks = fit_page(found, room=room, texts=self._settings.enrich_batch_size)
        rest = _behind(pages, dict(targets), _reached(rows, len(taken)))
        pending = [*later, *rest]
        messages = self._messages(run, page, chunks, scan.update_only)
        self._ledger.register(
            run,
            page,
            scan=_with(scan, pending),
            chunks={m["id"]: len(m["references"]) for m in messages},
            messages=messages,
            indices=sorted({found.reference.index for found in taken}),
            skipped=troubled,
            scan_done=not pending,
        )
        for message in messages:
            self._publisher.embed_and_update(message)
        if not pending:
            self._say_found(run, {**skipped, **troubled})
        log.debug(
            "page %d: %d logs in %d chunks", page, len(taken), len(chunks), extra={"run": run}
        )
        return f"page {page}: {len(taken)} logs in {len(chunks)} chunks"

    def _in_turn(self, pages: Sequence[IndexPage]) -> list[_Row]:
        """Logs of all indices in turn, the newest of each first."""
        refused = self._ledger.refused()
        order = sorted(
            (nth, which) for which, page in enumerate(pages) for nth in range(len(page.hits))
        )
        rows = []
        for nth, which in order:
            hit = pages[which].hits[nth]
            found = None
            if (hit.reference.index, hit.reference.id) not in refused:
                try:
                    digest = fingerprint(text_of({"message": hit.message}))
                except TextUnusable:
                    digest = f"{_UNUSABLE} {which} {nth}"
                found = Found(reference=hit.reference, fingerprint=digest, size=hit.size)
            rows.append(_Row(which, nth, found))
        return rows

    def _messages(
        self, run: str, page: int, chunks: list[list[Found]], update_only: Iterable[str]
    ) -> list[dict[str, Any]]:
        donors = self._donors([found for chunk in chunks for found in chunk])
        messages = []
        for k, members in enumerate(chunks):
            wanted = {(self._scope(found.reference.index), found.fingerprint) for found in members}
            chunk = Chunk(
                id=f"{run}:{page}:{k}",
                references=tuple(found.reference for found in members),
                donors=tuple(donors[key] for key in sorted(wanted & donors.keys())),
                update_only=tuple(
                    sorted({found.reference.index for found in members}.intersection(update_only))
                ),
            )
            messages.append(chunk.to_message())
        return messages

    def _donors(self, page: Sequence[Found]) -> dict[tuple[str, str], Donor]:
        texts = sorted({f.fingerprint for f in page if not f.fingerprint.startswith(_UNUSABLE)})
        known = self._cache.known(texts)
        wanted: dict[str, set[str]] = {}
        for found in page:
            if found.fingerprint in known or found.fingerprint.startswith(_UNUSABLE):
                continue
            wanted.setdefault(self._scope(found.reference.index), set()).add(found.fingerprint)
        return self._store.finder.donors(wanted)

    def _scope(self, index: str) -> str:
        return "" if self._settings.enrich_reuse_across_projects else project_of(index)

    def _limits(self, run: str, page: int) -> tuple[str, float]:
        """Why the scan has to stop ("" if it need not), and how many logs it may still take."""
        settings = self._settings
        # Every run reads a page, so that runs which continue each other always get on.
        if page > 1 and self._ledger.scan_seconds_left(run) <= 0:
            return "time", 0
        cost = settings.enrich_max_cost_per_day
        if cost and self._ledger.spent_today_usd() >= cost:
            return "budget", 0
        if not settings.enrich_max_logs_per_run:
            return "", math.inf
        left = settings.enrich_max_logs_per_run - self._ledger.record(run).found
        return ("", left) if left > 0 else ("cap", 0)

    # -- what a run looks at before a token is spent

    def _survey(self, run: str) -> Scan:
        backlog = self._store.finder.backlog()
        for index, reason in backlog.unreadable.items():
            self._ledger.skip(run, index, reason)
        if not backlog.counts:
            return Scan(pending=[], update_only=[], unsorted=[])
        full = self._store.preflight.disk_obstacle()
        if full:
            raise Halt(full)
        # The smallest backlog first: it is done soon; within a page all have their turn anyway.
        indices = sorted(backlog.counts, key=lambda index: (backlog.counts[index], index))
        ready = self._store.preflight.inspect(indices)
        for index, reason in ready.skipped.items():
            log.warning("index %s is skipped: %s", index, reason, extra={"run": run})
            self._ledger.skip(run, index, reason)
        pending = [index for index in indices if index not in ready.skipped]
        if pending:
            self._check_endpoint(run)
        return Scan(
            pending=[(index, None) for index in pending],
            update_only=ready.update_only,
            unsorted=sorted(backlog.unsorted.intersection(pending)),
        )

    def _check_endpoint(self, run: str) -> None:
        """See that the endpoint gives the vectors it gave, where it changed; and, after a halt,
        that it works at all, with one input."""
        settings = self._settings
        now = {
            "url": settings.openai_base_url,
            "model": settings.embedding_model,
            "dimensions": str(settings.embedding_dimensions),
        }
        before = self._ledger.endpoint()
        if before and before.get("url") != now["url"] and self._space_changed(run):
            raise Halt(
                f"OPENAI_BASE_URL changed to {now['url']}, which gives other vectors for the same "
                "text: set it back, or remove log_vector from the logs so that they are made anew"
            )
        runs = self._ledger.last_runs(2)
        if len(runs) > 1 and runs[1].state == "halted" and runs[1].run_id != run:
            try:
                self._work.asking.probe(run)
            except InputRefused as error:
                raise Halt(f"{error}: check EMBEDDING_MODEL and OPENAI_BASE_URL") from None
        self._ledger.remember_endpoint(**now)

    def _space_changed(self, run: str) -> bool:
        stored = self._store.finder.stored_text()
        if stored is None:
            return False
        try:
            text = text_of(stored)
        except TextUnusable:
            return False
        digest = fingerprint(text)
        answers = self._work.asking.ask(run, {digest: text}, lambda vectors: None)
        if digest not in answers.vectors:
            return False
        now = answers.vectors[digest].astype(np.float64)
        then = np.asarray(stored["log_vector"], dtype=np.float64)
        cosine = now @ then / (np.linalg.norm(now) * np.linalg.norm(then))
        return bool(cosine < SAME_SPACE_COSINE)

    # -- chunk

    def embed_and_update(self, chunk: Chunk) -> str:
        """Work on one delivery of a chunk and settle it.

        Raises:
            ChunkBusy: another delivery is at it; look again when its claim has ended.
            TransientError: to be tried again; the claim was given back.
        """
        claimant = f"{socket.gethostname()}/{os.getpid()}"
        hard = self._settings.enrich_hard_time_limit_seconds
        claim = self._ledger.begin(chunk.id, claimant, hard)
        if claim.verdict == "busy" and _is_dead(claim.holder):
            claim = self._ledger.begin(chunk.id, claimant, hard, dead=claim.holder)
        if claim.verdict == "closed":
            return f"chunk {chunk.id} was settled before"
        if claim.verdict == "busy":
            raise ChunkBusy(claim.value / 1000)
        try:
            tally = self._work.work(chunk, claimant, claim.value, claim.suspect)
        except Halt as error:
            self.halt(chunk.run, str(error))
            return self._settle(chunk, self._accounted(chunk))
        except TransientError:
            self._ledger.count(chunk.run, retries=1)
            self._ledger.release(chunk.id, claimant)
            raise
        return self._settle(chunk, tally)

    def give_up(self, chunk: Chunk, why: str) -> str:
        """Settle a chunk that cannot be finished: what was written counts, the rest is deferred."""
        log.warning("chunk %s is deferred: %s", chunk.id, why, extra={"run": chunk.run})
        tally = self._accounted(chunk)
        tally.errors += 1
        return self._settle(chunk, tally)

    def _accounted(self, chunk: Chunk) -> Tally:
        try:
            return self._work.account(chunk)
        except (TransientError, Halt):
            tally = Tally()
            tally.add(Outcome.DEFERRED, len(chunk.references))
            return tally

    def _settle(self, chunk: Chunk, tally: Tally) -> str:
        line = outcome_line(tally.outcomes)
        verdict, standing = self._ledger.settle(chunk.id, tally.outcomes, tally.errors)
        log.debug("chunk %s %s: %s", chunk.id, verdict, line, extra={"run": chunk.run})
        if standing.state:
            self._advance(chunk.run, standing)
        return line

    def halt(self, run: str, reason: str) -> None:
        """End a run that cannot go on; its open work is deferred."""
        if self._ledger.halt(run, reason):
            log.error("run halted: %s", reason, extra={"run": run})
        self._publisher.finish_run(run)

    def active_run(self) -> str:
        return self._ledger.active_run()

    # -- end

    def finish(self, run: str) -> str:
        """Close a run that is through, say what it did, and go on where only time ended it."""
        indices = self._ledger.indices(run)
        try:
            if indices and self._ledger.standing(run).over:
                self._store.documents.refresh(indices)
        except RunClosed:
            pass
        except (TransientError, Halt) as error:
            # The refresh only makes vectors visible sooner; OpenSearch does it by itself later.
            log.warning("indices were not refreshed: %s", error, extra={"run": run})
        verdict = self._ledger.finish(run)
        if verdict != "finished":
            return f"run {run} is {verdict}"
        record = self._ledger.record(run)
        self._say_summary(record)
        if record.state == "finished" and record.more and self._ledger.stopped_by(run) == "time":
            self._publisher.find_unvectorized("continued")
        outcomes = {outcome.value: getattr(record, outcome.value) for outcome in Outcome}
        return f"cycle #{record.number} {record.state}: {outcome_line(outcomes)}"

    def _say_found(self, run: str, skipped: dict[str, str]) -> None:
        record = self._ledger.record(run)
        log.info(
            "Cycle #%d step 1/3: logs found without vectors: %d%s",
            record.number,
            record.found,
            f", {len(skipped)} indices skipped" if skipped else "",
            extra={"run": run},
        )

    def _say_summary(self, record: RunRecord) -> None:
        extra = {"run": record.run_id}
        say = log.info
        say(
            "Cycle #%d step 2/3: embeddings generated: %d (%d texts sent to the API, "
            "%d from cache, %d reused, %d duplicates)",
            record.number, record.embedded + record.cached + record.reused + record.duplicate,
            record.api_inputs, record.cached, record.reused, record.duplicate, extra=extra,
        )  # fmt: skip
        say(
            "Cycle #%d step 3/3: documents updated: %d success, %d failed, %d deferred",
            record.number, record.vectors_written, record.failed, record.deferred, extra=extra,
        )  # fmt: skip
        totals = self._ledger.totals()
        if record.settled != record.found:
            log.error(
                "Cycle #%d does not add up: %d found, %d accounted for",
                record.number, record.found, record.settled, extra=extra,
            )  # fmt: skip
        say(
            "Cycle #%d %s: duration %.1f s, vectors this cycle %d (%.1f/s), total vectors %d, "
            "average rate %.1f/s, total errors %d, cost $%.4f, next run %s%s",
            record.number, record.state, record.duration_seconds, record.vectors_written,
            record.rate_per_second, totals.vectors, totals.average_rate, totals.errors,
            record.estimated_cost_usd, self.next_run(record),
            f", halted: {record.halt_reason}" if record.halt_reason else "", extra=extra,
        )  # fmt: skip

    def next_run(self, record: RunRecord) -> str:
        """When the next tick after a run's start is due, as told to people."""
        if record.more and self._ledger.stopped_by(record.run_id) == "time":
            return "now (more is waiting)"
        assert record.started_at is not None
        due = record.started_at.timestamp() + self._settings.interval_seconds
        return datetime.fromtimestamp(due, UTC).strftime("%H:%M:%S UTC")


#: Stands in a fingerprint's place for a log without usable text, which shares it with no other.
_UNUSABLE = "unusable"

_SKIPPED = {
    "active": "skipped: run {} is active",
    "paused": "skipped: paused",
    "too_soon": "skipped: the last run began less than half an interval ago",
}


def _with(scan: Scan, pending: list[tuple[str, list[Any] | None]]) -> Scan:
    return Scan(pending=pending, update_only=scan.update_only, unsorted=scan.unsorted)


class _Row(NamedTuple):
    """One hit of a round of searches."""

    #: Which of the pages, and which hit of it.
    page: int
    nth: int
    #: None for a document that is passed over, because it is known to fail and cannot be marked.
    found: Found | None


def _reached(rows: Sequence[_Row], taken: int) -> dict[int, int]:
    """The last hit of each page that is done with, when so many logs were taken."""
    last: dict[int, int] = {}
    for row in rows:
        if row.found is not None:
            if taken == 0:
                break
            taken -= 1
        last[row.page] = row.nth
    return last


def _behind(
    pages: Sequence[IndexPage],
    cursors: Mapping[str, list[Any] | None],
    reached: Mapping[int, int],
) -> list[tuple[str, list[Any] | None]]:
    """The indices that have more, each with the cursor behind its last hit that is done with."""
    rest: list[tuple[str, list[Any] | None]] = []
    for which, page in enumerate(pages):
        last = reached.get(which, -1)
        if page.trouble or (page.exhausted and last == len(page.hits) - 1):
            continue
        rest.append((page.index, page.cursors[last] if last >= 0 else cursors[page.index]))
    return rest


def _is_dead(holder: str) -> bool:
    """Whether the holder of a claim was a process of this host that is no more."""
    host, _, pid = holder.rpartition("/")
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, ValueError):
        return False
    return False

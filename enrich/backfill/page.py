"""A run's pages: read by the schedule, registered with the ledger, published as chunks.

What happens to a chunk is not known here.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from enrich.backfill.chunking import Found
from enrich.backfill.schedule import Page, Pager, has_text
from enrich.backfill.survey import Survey
from enrich.embedding.resolver import Resolver
from enrich.ledger import Ledger
from enrich.log_store.interfaces import RunStore
from enrich.models import Chunk, LogLocation
from enrich.planning.confirming import Confirming
from enrich.planning.parts import Backlog
from enrich.settings import Settings, rewrite_of

log = logging.getLogger(__name__)


class ChunkPublisher(Protocol):
    """Sends chunks to the workers."""

    def embed_and_update(self, message: dict[str, Any]) -> None: ...


class Scanner:
    """Reads pages of runs; one for each worker process."""

    def __init__(
        self,
        settings: Settings,
        store: RunStore,
        ledger: Ledger,
        resolver: Resolver,
        survey: Survey,
        publisher: ChunkPublisher,
        confirming: Confirming | None = None,
    ) -> None:
        """Args: confirming: holds runs to ENRICH_CONFIRM_ABOVE_USD; None where that is 0."""
        self._scope_of = settings.reuse_scope
        #: Logs of a run; 0 for all.
        self._most = settings.enrich_max_logs_per_run
        self._store = store
        self._ledger = ledger
        self._resolver = resolver
        self._survey = survey
        self._publisher = publisher
        self._confirming = confirming
        self._pager = Pager(
            store.finder,
            texts_a_chunk=settings.enrich_batch_size,
            rewrite=rewrite_of(settings),
        )

    def read_page(self, run: str, page: int, slots: int) -> str:
        """Read, register and publish the run's next page; one line about it.

        Args:
            slots: chunks that the page may have at most.

        Raises:
            Halt: the run cannot go on.
            TransientError: to be tried again; nothing was registered.
        """
        scan = self._ledger.pages.scan(run)
        if scan is None:
            record = self._ledger.records.of(run)
            log.info("Cycle #%d started (%s)", record.number, record.trigger)
            # Kept by itself: a survey of many indices, or of a slow server, has the time limit of a
            # task for itself, and so has the first page.
            found = self._survey.of(run)
            if self._confirming is not None:
                self._confirming.check(
                    run,
                    Backlog(
                        counts=found.left,
                        unsorted=frozenset(found.unsorted),
                        windows=found.windows,
                    ),
                )
            scan = self._ledger.pages.begin(run, found)
        skipped = self._ledger.runs.skipped(run)
        skipped |= self._survey.leave_spent_shares(
            run, [index for index, _ in scan.pending if index not in skipped]
        )
        pending = [(index, cursor) for index, cursor in scan.pending if index not in skipped]
        # What is being tried takes no chunks from the others until that has shown something.
        tried = self._ledger.index_states.tried_now([index for index, _ in pending])
        pending.sort(key=lambda p: p[0] in tried)
        stop, most = self._limits(run, page)
        if stop or not pending:
            more = bool(stop and pending)
            self._ledger.pages.register(
                run, page, scan=replace(scan, pending=pending), scan_done=True, more=more,
                stopped_by=stop if more else "",
            )  # fmt: skip
            self._say_found(run, skipped)
            return f"nothing more to find{f' now ({stop})' if more else ''}"

        if page == 1:
            self._survey.check_endpoint(run)
        # An index in trouble is read behind the others: no chunk holds logs of both, and chunks
        # that are tried again take no slot that another index needs.
        troubled = self._ledger.index_states.in_trouble([index for index, _ in pending])
        behind = [p for p in pending if p[0] in troubled]
        if len(behind) == len(pending):
            behind = []
        now = [p for p in pending if p not in behind]
        read = self._pager.read(
            replace(scan, pending=now),
            page,
            slots=slots,
            most=most,
            late=troubled,
            refused=self._ledger.refused.all(),
        )
        self._ledger.index_states.note_trouble(sorted(read.late))
        pending = [*read.scan.pending, *behind]
        messages = self._messages(run, page, read, scan.update_only)
        verdict = self._ledger.pages.register(
            run,
            page,
            scan=replace(read.scan, pending=pending),
            chunks={m["id"]: len(m["references"]) for m in messages},
            messages=messages,
            indices=sorted({found.reference.index for found in read.found}),
            skipped=read.troubled,
            scan_done=not pending,
        )
        # Where the outbox is ours, this very call has registered it, and its first answer was lost.
        if verdict != "registered" and not (
            messages and _same(self._ledger.pages.outbox(run), messages)
        ):
            # Another reader was first: its chunks bear the same names and hold other logs.
            return f"page {page} is {verdict}"
        for message in messages:
            self._publisher.embed_and_update(message)
        self._ledger.pages.sent(run, page)
        if not pending:
            self._say_found(run, {**skipped, **read.troubled})
        line = f"page {page}: {len(read.found)} logs in {len(read.chunks)} chunks"
        log.debug("%s", line)
        return line

    def _messages(
        self, run: str, page: int, read: Page, update_only: Iterable[str]
    ) -> list[dict[str, Any]]:
        reusable = self._reusable(read.found)
        messages = []
        for k, members in enumerate(read.chunks):
            wanted = {
                (self._scope_of(found.reference.index), found.fingerprint) for found in members
            }
            chunk = Chunk(
                id=f"{run}:{page}:{k}",
                references=tuple(found.reference for found in members),
                reusable=tuple(reusable[key] for key in sorted(wanted & reusable.keys())),
                update_only=tuple(
                    sorted({found.reference.index for found in members}.intersection(update_only))
                ),
            )
            messages.append(chunk.to_message())
        return messages

    def _reusable(self, page: Sequence[Found]) -> dict[tuple[str, str], LogLocation]:
        texts = sorted({found.fingerprint for found in page if has_text(found)})
        # Those are found without a search.
        known = self._resolver.known(texts)
        wanted: dict[str, set[str]] = {}
        for found in page:
            if found.fingerprint in known or not has_text(found):
                continue
            wanted.setdefault(self._scope_of(found.reference.index), set()).add(found.fingerprint)
        return self._store.reusable.find(wanted)

    def _limits(self, run: str, page: int) -> tuple[str, float]:
        """Why the scan has to stop ("" if it need not), and how many logs it may still take."""
        # Every run reads a page, so that runs which continue each other always get on.
        if page > 1 and self._ledger.pages.seconds_left(run) <= 0:
            return "time", 0
        if self._resolver.budget.used_up():
            return "budget", 0
        if self._confirming is not None and self._confirming.used_up(run):
            return "confirm", 0
        if not self._most:
            return "", math.inf
        left = self._most - self._ledger.records.of(run).found
        return ("", left) if left > 0 else ("cap", 0)

    def _say_found(self, run: str, skipped: dict[str, str]) -> None:
        record = self._ledger.records.of(run)
        log.info(
            "Cycle #%d step 1/3: logs found without vectors: %d%s",
            record.number,
            record.found,
            f", {len(skipped)} indices skipped" if skipped else "",
        )


def _same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether messages are the same once they were sent."""
    return json.dumps(one) == json.dumps(other)

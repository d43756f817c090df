"""Writes what the history is owed: after each run that ends, all that was not written before.

No run fails or waits because of it: what cannot be written stays owed, the reason is said once in
the log and shown by every screen, and the next run that ends tries again.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from enrich.errors import EnrichError
from enrich.history.interfaces import RecordStore
from enrich.ledger import Ledger
from enrich.models import RunRecord

log = logging.getLogger(__name__)

#: Records that are written at once; they are of bounded size.
RECORDS_AT_ONCE = 200


class Recorder:
    """One for each process that closes runs."""

    def __init__(self, ledger: Ledger, store: RecordStore, days: int) -> None:
        """Args: days: for how many records are kept (ENRICH_HISTORY_DAYS)."""
        self._ledger = ledger
        self._store = store
        self._days = days

    def take_over(self) -> None:
        """Before the first run on a new or emptied Redis: go on with the totals and numbers of the
        runs before. Where they cannot be read, the end of the run does it."""
        try:
            self._take_over()
        except EnrichError as error:
            log.warning("the totals of runs before this Redis could not be read yet: %s", error)

    def catch_up(self) -> None:
        """Write all that is owed; nothing is raised."""
        debt = self._ledger.history
        known = ""
        try:
            known = debt.problem()
            self._take_over()
            self._write()
            self._forget()
        except EnrichError as error:
            sentence = str(error)
            if sentence != known:
                log.warning(
                    "records of runs stay in Redis alone until they can be written: %s", sentence
                )
            self._note(sentence)
            return
        if known:
            log.info("records of runs are written again")
            self._note("")

    def _note(self, sentence: str) -> None:
        try:
            self._ledger.history.note_problem(sentence)
        except EnrichError as error:
            log.warning("what became of records of runs could not be noted: %s", error)

    def _take_over(self) -> None:
        debt = self._ledger.history
        if not debt.taken_over():
            debt.take_over(self._store.totals())

    def _write(self) -> None:
        debt = self._ledger.history
        owed = debt.owed()
        while owed:
            part, owed = owed[:RECORDS_AT_ONCE], owed[RECORDS_AT_ONCE:]
            # Read after what was noted: whatever changes in between is owed once more.
            records = self._ledger.records.of_all([one.run for one in part])
            self._store.write(list(map(_closed, records)), debt.totals(), debt.spent_lately())
            debt.recorded(part)

    def _forget(self) -> None:
        debt = self._ledger.history
        if debt.cleaning_is_due():
            now = datetime.fromtimestamp(self._ledger.now()).astimezone()
            self._store.forget(now - timedelta(days=self._days))


def _closed(record: RunRecord) -> RunRecord:
    return record.model_copy(update={"chunks_open": 0})

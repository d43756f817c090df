"""Records of runs in memory, for tests and for trying things without servers.

It keeps what `RunHistory` promises on OpenSearch; tests/run_history_contract.py holds both to it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches

from enrich.errors import EnrichError
from enrich.log_store.run_history import bounded
from enrich.models import DaySums, RunRecord


class InMemoryRunHistory:
    """The records of one deployment."""

    def __init__(self) -> None:
        self.records: dict[str, RunRecord] = {}
        self.kept_totals: dict[str, int] = {}
        self.spent: dict[str, int] = {}
        #: Raised by every method, as by a server that refuses; None: it answers.
        self.failure: EnrichError | None = None
        #: How often it was asked for something.
        self.asked = 0

    def write(
        self,
        records: Sequence[RunRecord],
        totals: Mapping[str, int],
        days: Mapping[str, int],
    ) -> None:
        self._answer()
        for record in records:
            kept = RunRecord.model_validate(bounded(record.model_dump(mode="json")))
            self.records[record.run_id] = kept
        if sum(totals.values()) >= sum(self.kept_totals.values()):
            self.kept_totals = dict(totals)
        for day, micro in days.items():
            self.spent[day] = max(micro, self.spent.get(day, 0))

    def forget(self, before: datetime) -> int:
        self._answer()
        old = [run for run, record in self.records.items() if _start(record) < before]
        days = [day for day in self.spent if day < f"{before:%Y-%m-%d}"]
        for run in old:
            del self.records[run]
        for day in days:
            del self.spent[day]
        return len(old) + len(days)

    def page(
        self,
        count: int,
        *,
        before: RunRecord | None = None,
        without: Collection[str] = (),
        busy: bool = False,
    ) -> list[RunRecord]:
        self._answer()
        found = [
            record.model_copy(update={"skipped_indices": {}})
            for record in self._newest_first()
            if record.run_id not in without
            and not (busy and record.is_idle)
            and (before is None or _order(record) < _order(before))
        ]
        return found[:count]

    def of(self, run: str) -> RunRecord | None:
        self._answer()
        return self.records.get(run)

    def numbered(self, number: int) -> RunRecord | None:
        self._answer()
        return next((one for one in self._newest_first() if one.number == number), None)

    def like(self, run: str, count: int) -> list[str]:
        self._answer()
        starting = [name for name in self.records if run and name.startswith(run)]
        return [*starting, *get_close_matches(run, self.records, count)][:count]

    def count(self) -> int:
        self._answer()
        return len(self.records)

    def totals(self) -> dict[str, int]:
        self._answer()
        return dict(self.kept_totals)

    def days(self, first: datetime, *, without: Collection[str] = ()) -> dict[str, DaySums]:
        self._answer()
        since, sums = f"{first:%Y-%m-%d}", dict[str, DaySums]()
        for record in self.records.values():
            day = f"{_start(record):%Y-%m-%d}"
            if day >= since and record.run_id not in without:
                sums[day] = sums.get(day, DaySums()) + DaySums.of(record)
        for day, micro in self.spent.items():
            if day >= since:
                sums[day] = sums.get(day, DaySums()).spending_at_least(micro / 1e6)
        return sums

    def _newest_first(self) -> Iterator[RunRecord]:
        return iter(sorted(self.records.values(), key=_order, reverse=True))

    def _answer(self) -> None:
        self.asked += 1
        if self.failure is not None:
            raise self.failure


def _start(record: RunRecord) -> datetime:
    return (record.started_at or datetime.fromtimestamp(0, UTC)).astimezone(UTC)


def _order(record: RunRecord) -> tuple[datetime, str]:
    return _start(record), record.run_id

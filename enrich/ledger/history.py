"""What the history, which outlives this Redis, is owed: records of runs, totals, the day's money.

Redis knows which runs have ended since their record was last written elsewhere; `enrich/history/`
writes them. Whoever loses this Redis loses the records that were not written yet, and no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from enrich.ledger.keyspace import Keyspace, text
from enrich.redis_client import translated

#: Old records are looked for once in so long, and a refusal of the history is told for so long.
CLEANING_SECONDS, PROBLEM_SECONDS = 86_400, 7 * 86_400

#: Marks in the totals that are no count.
_MARKS = frozenset({"history"})


class Owed(NamedTuple):
    """A run whose record is to be written."""

    run: str
    #: What Redis noted of it: another one once the record was changed.
    noted: str

    @property
    def since(self) -> datetime:
        """When it was first owed."""
        return datetime.fromtimestamp(int(self.noted.split(" ")[0]) / 1000, UTC)


@dataclass(frozen=True)
class Lag:
    """How far the history is behind."""

    runs: int = 0
    #: Of the run that has waited longest; 0 without one.
    seconds: float = 0.0
    #: Why nothing could be written when it was last tried, in a sentence; "" if it could.
    problem: str = ""


class HistoryDebt:
    """What is to be written, and what is known of the writing."""

    def __init__(self, keys: Keyspace) -> None:
        self._keys = keys

    def owed(self) -> list[Owed]:
        """Those that have waited longest first."""
        with translated():
            raw = self._keys.redis.hgetall(self._keys.key("history:owed"))
        found = [Owed(text(run), text(noted)) for run, noted in raw.items()]
        return sorted(found, key=lambda one: (one.since, one.run))

    def recorded(self, written: Iterable[Owed]) -> None:
        """Take off what was written, unless it was changed meanwhile."""
        if pairs := [part for one in written for part in one]:
            self._keys.move("recorded", *pairs)

    def taken_over(self) -> bool:
        """Whether this Redis' totals hold what earlier ones counted."""
        with translated():
            return bool(self._keys.redis.hexists(self._keys.key("totals"), "history"))

    def take_over(self, totals: Mapping[str, int]) -> None:
        """Add the totals of earlier ones to this Redis', once; harmless when it was done."""
        self._keys.move("take_over", *(part for pair in totals.items() for part in pair))

    def totals(self) -> dict[str, int]:
        """This Redis' totals as they are counted."""
        with translated():
            raw = self._keys.redis.hgetall(self._keys.key("totals"))
        return {text(n): int(value) for n, value in raw.items() if text(n) not in _MARKS}

    def spent_micro_usd(self, day: datetime) -> int:
        """What all together spent on a day (UTC), as far as this Redis knows: two days back."""
        with translated():
            return int(self._keys.redis.get(self._keys.key(f"spent:{day:%Y-%m-%d}")) or 0)

    def spent_lately(self) -> dict[str, int]:
        """The same of today and yesterday, by day as `2026-11-29`; where it is more than 0."""
        now = datetime.now(UTC)
        days = (now - timedelta(days=1), now)
        spent = {f"{day:%Y-%m-%d}": self.spent_micro_usd(day) for day in days}
        return {day: micro for day, micro in spent.items() if micro}

    def cleaning_is_due(self) -> bool:
        """Whether old records should be looked for; true for one caller a day."""
        key = self._keys.key("history:cleaned")
        with translated():
            return bool(self._keys.redis.set(key, 1, nx=True, ex=CLEANING_SECONDS))

    def note_problem(self, sentence: str) -> None:
        """Note why nothing could be written; "" that it was."""
        key = self._keys.key("history:problem")
        with translated():
            if sentence:
                self._keys.redis.set(key, sentence, ex=PROBLEM_SECONDS)
            else:
                self._keys.redis.delete(key)

    def problem(self) -> str:
        with translated():
            return text(self._keys.redis.get(self._keys.key("history:problem")) or b"")

    def lag(self) -> Lag:
        """How far the history is behind."""
        owed = self.owed()
        waited = self._keys.now() - owed[0].since.timestamp() if owed else 0.0
        return Lag(len(owed), max(0.0, round(waited, 3)), self.problem())

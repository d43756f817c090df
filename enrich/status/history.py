"""What screens tell of the history: what runs cost and saved, and how far the writing is behind."""

from __future__ import annotations

from pydantic import BaseModel

from enrich.history.reader import History, Sums
from enrich.models import DaySums


class HistoryReport(BaseModel):
    """Of the runs that outlive Redis."""

    #: Whether any do (ENRICH_HISTORY).
    is_kept: bool = False
    #: Runs that ended and are in Redis alone, and for how many seconds the first of them has been.
    owed: int = 0
    lag_seconds: float = 0.0
    today: DaySums = DaySums()
    month: DaySums = DaySums()
    #: By day (UTC), as `2026-11-29`, the newest first: of this month and the last 31 days.
    days: dict[str, DaySums] = {}
    #: Why records could not be written when it was last tried, in a sentence; "" if they could.
    unwritten: str = ""
    #: What could not be read or written, in sentences.
    problems: list[str] = []


def read_history(history: History, sums: Sums | None = None) -> HistoryReport:
    """
    Args:
        sums: where they were read lately.

    Raises:
        EnrichError: Redis does not answer.
    """
    sums = sums or history.sums()
    lag = history.lag()
    return HistoryReport(
        is_kept=history.is_kept,
        owed=lag.runs,
        lag_seconds=lag.seconds,
        today=sums.today,
        month=sums.month,
        days=sums.days,
        unwritten=lag.problem,
        problems=[each for each in (_unwritten(lag.problem), sums.problem) if each],
    )


def _unwritten(problem: str) -> str:
    return f"records of runs could not be written into enrich-runs: {problem}" if problem else ""

"""What is counted on the way: requests, tokens, money, retries; into a run, its day, the totals."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from enrich.ledger.keyspace import Keyspace
from enrich.ledger.spending import today
from enrich.models import COUNTERS
from enrich.redis_client import translated

#: Characters of a counted reason, and where the counts stand in a run's hash.
REASON_LENGTH = 300
DEFERRED, RETRIED = "deferred|", "retried|"

#: Before a project, in the moves: what it pays.
PAID = "paid|"


class Counters:
    """Adds to counts; outcomes of logs are counted where their chunk is settled."""

    def __init__(self, keys: Keyspace) -> None:
        self._keys = keys

    def add(
        self,
        run: str,
        *,
        micro_usd: int = 0,
        paid_by: Mapping[str, int] | None = None,
        **amounts: int,
    ) -> None:
        """Add to a run's counters. A run that is unknown counts nothing; its money still counts
        into the day.

        Args:
            micro_usd: money, in millionths of a dollar.
            paid_by: how much of it each project pays.
            amounts: by the names of `COUNTERS`.

        Raises:
            ValueError: there is no such counter.
        """
        if unknown := amounts.keys() - COUNTERS.keys():
            raise ValueError(f"no field of RunRecord counts {', '.join(sorted(unknown))}")
        self._add(run, micro_usd, paid_by or {}, amounts)

    def add_retry(self, run: str, why: str) -> None:
        """Count that work of a run is tried again, and why."""
        self._add(run, 0, {}, {"retries": 1, f"{RETRIED}{as_reason(why)}": 1})

    def add_rejected_message(self) -> None:
        """Count a message of the broker that no task takes. It belongs to no run."""
        with translated():
            self._keys.redis.hincrby(self._keys.key("totals"), "messages_dropped", 1)

    def _add(
        self, run: str, micro_usd: int, paid_by: Mapping[str, int], amounts: Mapping[str, int]
    ) -> None:
        pairs: list[Any] = [part for pair in amounts.items() if pair[1] for part in pair]
        for project, part in paid_by.items():
            pairs += [f"{PAID}{project}", part]
        self._keys.move("count", run, today(), micro_usd, uuid.uuid4().hex, *pairs)


def as_reason(sentence: str) -> str:
    """A sentence as it is counted: one line, of bounded length."""
    line = " ".join(str(sentence).split())
    return line if len(line) <= REASON_LENGTH else line[: REASON_LENGTH - 1] + "…"

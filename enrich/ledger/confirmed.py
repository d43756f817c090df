"""The sum that somebody has confirmed where ENRICH_CONFIRM_ABOVE_USD asks for it.

It is money and no switch: what runs spend is taken off it, in the same move that counts the money,
and what is left ends after a week.
"""

from __future__ import annotations

from enrich.ledger.keyspace import Keyspace
from enrich.redis_client import translated

KEPT_SECONDS = 7 * 86_400


class Confirmed:
    """Written by `confirm`, spent by runs."""

    def __init__(self, keys: Keyspace) -> None:
        self._keys = keys

    def allow(self, usd: float) -> None:
        """Let runs spend so much; in place of what was left of an earlier sum."""
        with translated():
            self._keys.redis.set(
                self._keys.key("confirmed"), max(0, round(usd * 1e6)), ex=KEPT_SECONDS
            )

    def left_usd(self) -> float:
        """What is left of the sum; 0 where none was confirmed."""
        with translated():
            raw = self._keys.redis.get(self._keys.key("confirmed"))
        return max(0, int(raw or 0)) / 1e6

    def permit(self, run: str, usd: float) -> None:
        """Note how much a run may spend, as it was when it began."""
        self._keys.amend(run, "", {"permitted_micro_usd": round(usd * 1e6)})

    def permitted_usd(self, run: str) -> float | None:
        """How much a run may spend; None where nothing was noted."""
        with translated():
            raw = self._keys.redis.hget(self._keys.run_key(run), "permitted_micro_usd")
        return None if raw is None else int(raw) / 1e6

"""The embeddings API's quota as screens tell it: what it allows a minute, and how much is used."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Protocol

from pydantic import BaseModel


class QuotaReport(BaseModel):
    """The quota of the embeddings API, see `enrich.ratelimit.api_quota.QuotaUsage`."""

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    requests_learned: bool = False
    tokens_learned: bool = False
    requests_taken: float = 0.0
    tokens_taken: float = 0.0
    requests_used: float = 0.0
    tokens_used: float = 0.0
    paused_seconds: float = 0.0

    def told(self) -> str:
        """In words, such as "12 % of 3,000 requests and 80 % of 1,000,000 tokens"; "" where no
        limit is known."""
        parts = (
            f"{100 * used:.0f} % of {limit:,} {what}"
            for what, limit, used in (
                ("requests", self.requests_per_minute, self.requests_used),
                ("tokens", self.tokens_per_minute, self.tokens_used),
            )
            if limit
        )
        return " and ".join(parts)


class Quota(Protocol):
    def usage(self) -> Any: ...


def read_quota(quota: Quota) -> QuotaReport:
    """Raises EnrichError: Redis does not answer."""
    return QuotaReport(**asdict(quota.usage()))

"""What the routes work with, and what several of them do with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TypeVar
from zoneinfo import ZoneInfo

from enrich.api.experiment import KindStore
from enrich.api.keys import Key, Keys
from enrich.api.openai_form import Form
from enrich.api.opinions import Commentator
from enrich.api.outage import Outage
from enrich.api.refusals import Refusal, budget_spent
from enrich.api.statistics import CountStore
from enrich.api.vectors import Saved, Vectors
from enrich.embedding.resolver import Resolved
from enrich.log_store.frequent_texts import FrequentTextSearch
from enrich.log_store.stats import Stats
from enrich.text.extract import text_of
from enrich.text.rewriting import Rewrite

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the routes work with."""

    model: str
    dimensions: int
    keys: Keys
    vectors: Vectors
    form: Form
    rewrite: Rewrite | None
    #: What was spent today by a payer, in USD.
    spent: Callable[[str], float]
    #: Takes a permit of a key's own rate; raises RateLimited.
    admit: Callable[[Key], None]
    #: Of words that are searched for.
    word_vectors: Vectors
    #: What is known of OpenSearch, and where it is asked: one that hangs holds these threads, and
    #: none of those that keys and budgets are looked at in.
    opensearch: Outage
    searching: Executor
    stats: Stats
    frequent_texts: FrequentTextSearch
    #: Logs of one project by level, and the zone of the hours they are counted by.
    level_counts: CountStore
    zone: Callable[[], ZoneInfo]
    #: Says what it makes of a sample; CHAT_MODEL, or nobody.
    commentator: Commentator
    #: ERROR logs of one project by their text.
    error_kinds: KindStore
    #: Each server that is needed, and a call that raises if it is not there.
    servers: dict[str, Callable[[], object]]
    #: The metrics, as Prometheus reads them.
    metrics: Callable[[], bytes]
    close: Callable[[], None]

    async def searched(self, call: Callable[[], T]) -> T:
        """What a call gives that asks OpenSearch."""
        return await asyncio.get_running_loop().run_in_executor(self.searching, call)

    def text_of(self, message: str) -> str:
        """As the pipeline sends a log's message, so that both have one vector.

        Raises TextUnusable.
        """
        return text_of({"message": message}, self.rewrite)


def refusal_of_text(resolved: Resolved) -> Refusal:
    """Why a text has no vector."""
    if resolved.failure:
        told = f"the embeddings API does not take this text ({resolved.failure})"
        return Refusal(422, told, code=resolved.failure)
    if resolved.reason and "ENRICH_MAX_COST_PER_DAY" in resolved.reason:
        return budget_spent(resolved.reason)
    if resolved.reason:
        return Refusal(503, resolved.reason, code="deferred")
    told = "the embeddings API gave no vector for this text this time"
    return Refusal(503, told, code="deferred", headers={"Retry-After": "1"})


def savings(saved: Saved) -> dict[str, str]:
    """What one answer cost and did not, as headers."""
    return {
        "x-enrich-cached": str(saved.cached),
        "x-enrich-duplicates": str(saved.duplicates),
        "x-enrich-coalesced": str(saved.coalesced),
        "x-enrich-paid-inputs": str(saved.paid),
        "x-enrich-cost-usd": f"{saved.micro_usd / 1e6:.6f}",
    }

"""Where the parts are put together: settings in, working objects out. The only such place.

Called once per process and after the fork, because connections must not be shared between
processes.
"""

from __future__ import annotations

from enrich.backfill import Backfill, Parts, Publisher
from enrich.embedder import OpenAIEmbedder
from enrich.ledger import Ledger
from enrich.log_store import LogStore
from enrich.rate_budget import RateBudget
from enrich.redis_connection import connect
from enrich.settings import Settings
from enrich.vector_cache import VectorCache


def build_ledger(settings: Settings) -> Ledger:
    return Ledger(connect(settings.redis_url.get_secret_value()), settings.enrich_redis_prefix)


def build_backfill(settings: Settings, publisher: Publisher) -> Backfill:
    redis = connect(settings.redis_url.get_secret_value())
    return Backfill(
        Parts(
            settings=settings,
            store=LogStore(settings),
            embedder=OpenAIEmbedder(settings),
            cache=VectorCache(connect(settings.vector_cache_url), settings),
            ledger=Ledger(redis, settings.enrich_redis_prefix),
            budget=RateBudget(redis, settings),
            publisher=publisher,
        )
    )

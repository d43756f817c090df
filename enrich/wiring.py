"""Where the parts are put together: settings in, working objects out. The only such place.

Called once per process and after the fork, because connections must not be shared between
processes. Imports stand inside the functions, so that a screen which needs two parts does not wait
for the clients of all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from enrich.settings import Settings

if TYPE_CHECKING:
    from enrich.backfill.run import Backfill, Publisher
    from enrich.embedding.client import OpenAIEmbedder
    from enrich.ledger import Ledger
    from enrich.log_store import LogStore


def build_ledger(settings: Settings) -> Ledger:
    from enrich.ledger import Ledger
    from enrich.redis_client import connect

    return Ledger(connect(settings.redis_url.get_secret_value()), settings.enrich_redis_prefix)


def quick_ledger(settings: Settings, timeout: float, *, second_try: bool = False) -> Ledger:
    """A ledger that gives up on Redis after `timeout` seconds a command.

    Args:
        second_try: for a connection that is kept: a restart of Redis closes it unseen.
    """
    from enrich.ledger import Ledger
    from enrich.redis_client import connect

    url = settings.redis_url.get_secret_value()
    return Ledger(
        connect(url, timeout=timeout, second_try=second_try), settings.enrich_redis_prefix
    )


def build_store(settings: Settings) -> LogStore:
    from enrich.log_store import LogStore

    return LogStore(settings)


def build_embedder(settings: Settings) -> OpenAIEmbedder:
    from enrich.embedding.client import OpenAIEmbedder

    return OpenAIEmbedder(settings)


def build_backfill(settings: Settings, publisher: Publisher) -> Backfill:
    from enrich.backfill.run import Backfill, Parts
    from enrich.embedding.cache import VectorCache
    from enrich.embedding.locations import VectorLocations
    from enrich.ledger import Ledger
    from enrich.ratelimit.api_quota import ApiQuota
    from enrich.ratelimit.write_throttle import WriteThrottle
    from enrich.redis_client import connect

    redis = connect(settings.redis_url.get_secret_value())
    cache = connect(settings.vector_cache_url)
    return Backfill(
        Parts(
            settings=settings,
            store=build_store(settings),
            embedder=build_embedder(settings),
            cache=VectorCache(cache, settings),
            written=VectorLocations(cache, settings),
            ledger=Ledger(redis, settings.enrich_redis_prefix),
            quota=ApiQuota(redis, settings),
            throttle=WriteThrottle(redis, settings),
            publisher=publisher,
        )
    )

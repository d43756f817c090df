"""Where servers and settings become the parts that the rooms work with. The only such place.

Called once per process and after the fork, because connections must not be shared between
processes. Imports stand inside the functions, so that a screen which needs two parts does not wait
for the clients of all.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from enrich.settings import Settings

if TYPE_CHECKING:
    from redis import Redis

    from enrich.api.keys import Keys
    from enrich.api.opinions import Commentator
    from enrich.api.parts import Parts
    from enrich.backfill.publisher import Publisher
    from enrich.backfill.run import Backfill
    from enrich.embedding.batching import Quota
    from enrich.embedding.client import Embedder, OpenAIEmbedder
    from enrich.embedding.endpoint import Purpose
    from enrich.embedding.resolver import Cache, Locations, Resolver
    from enrich.embedding.word_vectors import WordVectors
    from enrich.history.reader import History
    from enrich.history.recorder import Recorder
    from enrich.ledger import Ledger
    from enrich.log_store import LogStore
    from enrich.log_store.interfaces import RunStore
    from enrich.planning.parts import KnownPlaces, KnownVectors
    from enrich.planning.planner import Planner
    from enrich.ratelimit.api_quota import ApiQuota
    from enrich.ratelimit.gcra import Priority
    from enrich.realtime.consumer import Consumer


#: How long a text is left to somebody else who wants to embed it and has not sent it yet: by a
#: consumer, whose logs should be searchable soon, and by a caller of the service.
REALTIME_WAIT_SECONDS, SERVICE_WAIT_SECONDS = 0.5, 5.0

#: How long Redis may take for a command that a caller waits for, of the service or of a search. A
#: worker has more patience.
SERVICE_REDIS_SECONDS = 3.0

#: Searches of the service that OpenSearch has to answer at a time; the others wait.
SEARCHES = 16

#: A provider counts requests: whether it is ready is looked at once within so many seconds, while
#: it answers.
LOOK_SECONDS = 10.0

#: How long OpenSearch may take to count the texts of a backlog: ten seconds a million logs, and
#: more where it has other work.
PATIENT_SECONDS = 900.0


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


def quick_quota(settings: Settings, timeout: float) -> ApiQuota:
    """As `quick_ledger`, for a look at the quota."""
    from enrich.redis_client import connect

    url = settings.redis_url.get_secret_value()
    return build_quota(connect(url, timeout=timeout, second_try=True), settings)


def build_store(settings: Settings) -> LogStore:
    from enrich.log_store import LogStore

    return LogStore(settings)


def build_history(settings: Settings, ledger: Ledger, store: LogStore | None) -> History:
    """Runs as screens show them.

    Args:
        store: None where OpenSearch is not to be asked.
    """
    from enrich.history.reader import History

    kept = settings.enrich_history and store is not None
    return History(ledger, store.history if kept and store is not None else None)


def build_recorder(settings: Settings, ledger: Ledger, store: LogStore) -> Recorder:
    """Writes records of runs into the history."""
    from enrich.history.recorder import Recorder

    return Recorder(ledger, store.history, settings.enrich_history_days)


def cache_counter(settings: Settings, timeout: float) -> Callable[[], int]:
    """Counts the vectors in the cache; gives up after `timeout` seconds with an EnrichError."""
    from enrich.embedding.cache import VectorCache
    from enrich.redis_client import connect

    cached = connect(settings.vector_cache_url, timeout=timeout, second_try=True)
    return VectorCache(cached, settings).entries


def build_embedder(settings: Settings) -> OpenAIEmbedder:
    """Embeds logs."""
    from enrich.embedding.client import OpenAIEmbedder

    return OpenAIEmbedder(settings)


def build_query_embedder(settings: Settings) -> OpenAIEmbedder:
    """Embeds words that logs are searched by: not every model takes them as it takes logs."""
    from enrich.embedding.client import OpenAIEmbedder
    from enrich.embedding.endpoint import Purpose

    return OpenAIEmbedder(settings, Purpose.QUERY)


def quota_of(settings: Settings) -> ApiQuota:
    """The API's quota, to look at and not to take of."""
    from enrich.redis_client import connect

    return build_quota(connect(settings.redis_url.get_secret_value()), settings)


def build_planner(settings: Settings, days: float | None = None) -> Planner:
    """Makes plans of the whole backlog, or of its last days."""
    from enrich.embedding.cache import VectorCache
    from enrich.embedding.locations import VectorLocations
    from enrich.redis_client import connect

    ledger, cached = build_ledger(settings), connect(settings.vector_cache_url)
    if days is not None:
        most = min(days, settings.enrich_max_age_days or days)
        settings = settings.model_copy(update={"enrich_max_age_days": most})
    return planner_of(
        settings,
        build_store(settings),
        ledger,
        VectorCache(cached, settings),
        VectorLocations(cached, settings),
        quota_of(settings).limits,
        patient=PATIENT_SECONDS,
    )


def planner_of(
    settings: Settings,
    store: RunStore,
    ledger: Ledger,
    cache: KnownVectors,
    locations: KnownPlaces,
    limits: Callable[[], tuple[int, int]],
    *,
    patient: float = 0.0,
) -> Planner:
    """A planner that works with these.

    Args:
        patient: seconds that OpenSearch may take to count the texts of a large backlog; 0 leaves
            OPENSEARCH_TIMEOUT_SECONDS.
    """
    from enrich.embedding.cache import space
    from enrich.embedding.endpoint import Endpoint
    from enrich.log_store import LogStore
    from enrich.planning.parts import Parts as PlannerParts
    from enrich.planning.planner import Planner

    counting = store
    if patient > settings.opensearch_timeout_seconds:
        counting = build_store(settings.model_copy(update={"opensearch_timeout_seconds": patient}))
    return Planner(
        PlannerParts(
            settings=settings,
            store=store,
            text_counts=counting.text_counts if isinstance(counting, LogStore) else None,
            placement=store.placement if isinstance(store, LogStore) else None,
            cache=cache,
            locations=locations,
            ledger=ledger,
            limits=limits,
            space=space(settings),
            prefix_bytes=len(Endpoint.of(settings).prefix.encode()),
        )
    )


def start_tracing(settings: Settings) -> None:
    """Record spans in this process, if that is asked for. After a fork: it starts a thread.

    Raises SettingsError: OpenTelemetry is not installed.
    """
    from enrich import tracing

    if settings.enrich_traces_url:
        from enrich.tracing.otel import recorder_to

        tracing.record_with(recorder_to(settings.enrich_traces_url))


def build_backfill(settings: Settings, publisher: Publisher) -> Backfill:
    from enrich.backfill.run import Backfill, Parts
    from enrich.embedding.cache import VectorCache
    from enrich.embedding.locations import VectorLocations
    from enrich.ledger import Ledger
    from enrich.ratelimit.write_throttle import WriteThrottle
    from enrich.redis_client import connect

    redis = connect(settings.redis_url.get_secret_value())
    cached = connect(settings.vector_cache_url)
    store = build_store(settings)
    ledger = Ledger(redis, settings.enrich_redis_prefix)
    recorder = build_recorder(settings, ledger, store) if settings.enrich_history else None
    embedder = build_embedder(settings)
    locations = VectorLocations(cached, settings)
    cache = VectorCache(cached, settings)
    quota = build_quota(redis, settings)
    return Backfill(
        Parts(
            settings=settings,
            store=store,
            resolver=resolver_of(settings, store, ledger, quota, embedder, cache, locations),
            locations=locations,
            ledger=ledger,
            throttle=WriteThrottle(redis, settings.enrich_redis_prefix, settings.enrich_write_pace),
            publisher=publisher,
            connections=(store, embedder, cache, ledger),
            recorder=recorder,
            planner=planner_of(settings, store, ledger, cache, locations, quota.limits)
            if settings.enrich_confirm_above_usd
            else None,
        )
    )


def build_consumer(settings: Settings, alive: Callable[[], None]) -> Consumer:
    """A consumer of messages, without its connection to Kafka.

    Args:
        alive: called again and again while it goes on.
    """
    from enrich.embedding.cache import VectorCache
    from enrich.embedding.locations import VectorLocations
    from enrich.enrichment.comparing import Comparing
    from enrich.enrichment.enricher import Enricher
    from enrich.enrichment.slow_indices import SlowIndices
    from enrich.enrichment.write_trials import WriteTrials
    from enrich.ledger import Ledger
    from enrich.ledger.owners import this_process
    from enrich.ratelimit.gcra import Priority
    from enrich.ratelimit.write_throttle import WriteThrottle
    from enrich.realtime.batch_work import BatchWork
    from enrich.realtime.consumer import Consumer
    from enrich.realtime.journal import ConsumerJournal
    from enrich.realtime.messages import MessageReader
    from enrich.redis_client import connect

    redis = connect(settings.redis_url.get_secret_value())
    cached = connect(settings.vector_cache_url)
    store = build_store(settings)
    ledger = Ledger(redis, settings.enrich_redis_prefix)
    locations = VectorLocations(cached, settings)
    quota = build_quota(redis, settings, priority=Priority.REALTIME)
    resolver = resolver_of(
        *(settings, store, ledger, quota, build_embedder(settings)),
        VectorCache(cached, settings),
        locations,
        max_wait_seconds=REALTIME_WAIT_SECONDS,
    )
    enricher = Enricher(
        *(settings, store, resolver, ledger),
        WriteThrottle(
            redis,
            settings.enrich_redis_prefix,
            settings.enrich_write_pace,
            priority=Priority.REALTIME,
        ),
        WriteTrials(store.engines, ledger.index_states, this_process()),
        SlowIndices(),
        ConsumerJournal(ledger, settings.consumer_group_id),
    )
    reader = MessageReader(
        settings.log_schema,
        id_fields=settings.kafka_id_fields,
        project_fields=settings.kafka_project_fields,
    )
    comparing = Comparing(settings, store, locations, ledger, resolver)
    work = BatchWork(settings, store, ledger, enricher, comparing)
    return Consumer(settings, reader, work, ledger, quota.announce, alive)


def build_service(settings: Settings, keys: Keys, metrics: Callable[[], bytes]) -> Parts:
    """What the routes of the HTTP service work with.

    Args:
        metrics: what `/metrics` answers.
    """
    from enrich.api.openai_form import Form
    from enrich.api.outage import Outage, WatchedEmbedder, WatchedThreads
    from enrich.api.parts import Parts
    from enrich.api.rates import KeyRates
    from enrich.api.vectors import Vectors
    from enrich.embedding.cache import VectorCache
    from enrich.embedding.endpoint import Purpose
    from enrich.embedding.locations import VectorLocations
    from enrich.enrichment.run_usage import RunUsage
    from enrich.ledger import Ledger
    from enrich.ratelimit.gcra import Priority
    from enrich.redis_client import connect, translated
    from enrich.settings import rewrite_of

    redis = connect(settings.redis_url.get_secret_value(), timeout=SERVICE_REDIS_SECONDS)
    cached = connect(settings.vector_cache_url, timeout=SERVICE_REDIS_SECONDS)
    store = build_store(settings)
    ledger = Ledger(redis, settings.enrich_redis_prefix)
    opensearch, api = Outage(), Outage()
    searching = WatchedThreads(SEARCHES, "search", opensearch)
    embedder, asker = build_embedder(settings), build_query_embedder(settings)
    usage, window_seconds = RunUsage(ledger, "api"), settings.enrich_coalesce_ms / 1000
    words = VectorCache(cached, settings, Purpose.QUERY)
    commentator = build_commentator(settings)
    cache = VectorCache(cached, settings)
    resolver = resolver_of(
        *(settings, store, ledger, build_quota(redis, settings, priority=Priority.REALTIME)),
        *(WatchedEmbedder(embedder, api), cache, VectorLocations(cached, settings)),
        max_wait_seconds=SERVICE_WAIT_SECONDS,
        cuts=False,
        asking=api.passed,
    )
    word_resolver = query_resolver_of(
        *(settings, store, ledger, redis, cached, WatchedEmbedder(asker, api), words),
        asking=api.passed,
    )

    servers: dict[str, Callable[[], object]] = {
        "redis": ledger.now,
        "opensearch": opensearch.looking(store.version),
        "embeddings": api.looking(embedder.look, LOOK_SECONDS),
    }
    if settings.vector_cache_url != settings.redis_url.get_secret_value():

        def look_at_cache() -> None:
            with translated():
                cached.ping()

        servers["cache"] = look_at_cache

    def close() -> None:
        searching.shutdown(wait=False, cancel_futures=True)
        for one in (store, embedder, asker, cache, ledger, commentator):
            one.close()

    return Parts(
        model=settings.embedding_model,
        dimensions=settings.embedding_dimensions,
        keys=keys,
        vectors=Vectors(resolver, cache, usage, window_seconds=window_seconds),
        word_vectors=Vectors(word_resolver, words, usage, window_seconds=window_seconds),
        form=Form(model=settings.embedding_model, dimensions=settings.embedding_dimensions),
        rewrite=rewrite_of(settings),
        spent=ledger.spending.today_usd_of,
        admit=KeyRates(redis, settings.enrich_redis_prefix).admit,
        opensearch=opensearch,
        searching=searching,
        stats=store.stats,
        frequent_texts=store.frequent_texts,
        level_counts=store.level_counts,
        zone=lambda: settings.time_zone,
        commentator=commentator,
        error_kinds=store.error_kinds,
        servers=servers,
        metrics=metrics,
        close=close,
    )


def build_word_vectors(settings: Settings, payer: str) -> WordVectors:
    """Vectors of words that are searched for, for a program that waits for each.

    Args:
        payer: who pays, as the day's spending names it.
    """
    from enrich.embedding.cache import VectorCache
    from enrich.embedding.endpoint import Purpose
    from enrich.embedding.word_vectors import WordVectors
    from enrich.enrichment.run_usage import RunUsage
    from enrich.ledger import Ledger
    from enrich.ledger.owners import this_process
    from enrich.redis_client import connect

    redis = connect(settings.redis_url.get_secret_value(), timeout=SERVICE_REDIS_SECONDS)
    cached = connect(settings.vector_cache_url, timeout=SERVICE_REDIS_SECONDS)
    store, embedder = build_store(settings), build_query_embedder(settings)
    ledger = Ledger(redis, settings.enrich_redis_prefix)
    cache = VectorCache(cached, settings, Purpose.QUERY)

    def close() -> None:
        for one in (store, embedder, cache, ledger):
            one.close()

    return WordVectors(
        query_resolver_of(settings, store, ledger, redis, cached, embedder, cache),
        RunUsage(ledger, payer),
        payer=payer,
        owner=this_process(),
        close=close,
    )


def query_resolver_of(
    settings: Settings,
    store: RunStore,
    ledger: Ledger,
    redis: Redis,
    cached: Redis,
    embedder: Embedder,
    cache: Cache,
    asking: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Resolver:
    """A resolver of words that are searched for: whoever asks waits for it, so that it goes before
    a backlog.

    Args:
        asking: see `Resolver`.
    """
    from enrich.embedding.endpoint import Purpose
    from enrich.embedding.locations import VectorLocations
    from enrich.ratelimit.gcra import Priority

    return resolver_of(
        *(settings, store, ledger, build_quota(redis, settings, priority=Priority.REALTIME)),
        *(embedder, cache, VectorLocations(cached, settings, Purpose.QUERY)),
        max_wait_seconds=SERVICE_WAIT_SECONDS,
        purpose=Purpose.QUERY,
        asking=asking,
    )


def build_commentator(settings: Settings) -> Commentator:
    """CHAT_MODEL, or nobody. Raises SettingsError: what is said of a proxy is wrong."""
    from enrich.api.chat_model import ChatAddress, ChatModel
    from enrich.api.opinions import NOBODY
    from enrich.setting_forms.embeddings_api import Address, headers_object

    if not (model := settings.chat_model):
        return NOBODY
    own = bool(settings.chat_base_url)
    address = Address.of(settings.chat_base_url or settings.openai_base_url)
    key = settings.chat_api_key.get_secret_value() or settings.openai_api_key.get_secret_value()
    headers = {} if own else headers_object(settings.openai_extra_headers.get_secret_value())
    names = {name.lower() for name in headers}
    if address.azure and "api-key" not in names:
        headers["api-key"] = key
    return ChatModel(
        ChatAddress(
            model=model,
            base_url=address.of_model(model) if own else address.of_other_model(model),
            key=key,
            query=address.query,
            headers=headers,
            bearer=not address.azure or "authorization" in names,
            proxy=settings.openai_proxy.get_secret_value(),
        ),
        seconds=settings.chat_timeout_seconds,
    )


def build_quota(
    connection: Redis,
    settings: Settings,
    sleep: Callable[[float], None] = time.sleep,
    priority: Priority | None = None,
) -> ApiQuota:
    """Args: priority: of the caller; that of a backlog if None."""
    from enrich.ratelimit.api_quota import ApiQuota
    from enrich.ratelimit.gcra import Priority

    return ApiQuota(
        connection,
        settings.enrich_redis_prefix,
        requests_per_minute=settings.enrich_requests_per_minute,
        tokens_per_minute=settings.enrich_tokens_per_minute,
        priority=priority or Priority.BACKGROUND,
        sleep=sleep,
    )


def resolver_of(
    settings: Settings,
    store: RunStore,
    ledger: Ledger,
    quota: Quota,
    embedder: Embedder,
    cache: Cache,
    locations: Locations,
    *,
    max_wait_seconds: float = 10.0,
    cuts: bool = True,
    purpose: Purpose | None = None,
    asking: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Resolver:
    """A resolver that works with these.

    Args:
        purpose: what `embedder` and `cache` are for; documents if None.
        max_wait_seconds: how long a text is left to another caller that has not sent it yet; it
            may be waiting for a permit, behind one that goes first.
        cuts: whether a text that is too long is cut; otherwise it is refused.
        asking: see `Resolver`.
    """
    from enrich.embedding.api_key import ApiKey
    from enrich.embedding.batching import Batching
    from enrich.embedding.budget import Budget
    from enrich.embedding.cache import space
    from enrich.embedding.endpoint import Endpoint, Purpose
    from enrich.embedding.limits import EndpointLimits, SharedLimits
    from enrich.embedding.resolver import Resolver
    from enrich.enrichment.stored_vectors import VectorsOfLogs
    from enrich.ledger.measurements import Usage
    from enrich.settings import rewrite_of

    purpose = purpose or Purpose.DOCUMENT
    of_space = space(settings, purpose)
    endpoint = Endpoint.of(settings, purpose)
    return Resolver(
        batching=Batching(
            embedder,
            quota,
            SharedLimits(of_space, ledger.endpoint.limits, ledger.endpoint.record_limits),
            settings.enrich_max_text_bytes,
            ledger.lone_failures(of_space),
            most=EndpointLimits(
                inputs=settings.enrich_max_request_inputs,
                request_bytes=settings.enrich_max_request_bytes,
            ),
            prefix_bytes=len(endpoint.prefix.encode()),
            cuts=cuts,
            measured=lambda used: ledger.measurements.add_usage(
                of_space, Usage(**dataclasses.asdict(used))
            ),
        ),
        cache=cache,
        stored=VectorsOfLogs(
            store.stored_vectors,
            model=settings.embedding_model,
            dimensions=settings.embedding_dimensions,
            scope_of=settings.reuse_scope,
            rewrite=rewrite_of(settings),
        ),
        locations=locations,
        budget=Budget(
            spending=ledger.spending,
            usd_per_day=settings.enrich_max_cost_per_day,
            share=settings.enrich_max_project_share,
        ),
        key=ApiKey(
            ledger.api_keys,
            endpoint.credentials,
            interval_seconds=settings.interval_seconds,
        ),
        usd_per_million_tokens=settings.price_per_million_tokens,
        masks=bool(settings.enrich_mask),
        max_wait_seconds=max_wait_seconds,
        asking=asking,
    )

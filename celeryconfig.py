"""Celery's settings: broker, schedule, routes, delivery guarantees. Nothing but settings.

Each that differs from Celery's default says which failure it answers; docs/delivery.md tells the
whole story. Everything an operator may change comes from the environment, see enrich/settings.py.
"""

import sys
from typing import Any

from kombu.entity import Exchange, Queue

from enrich.errors import SettingsError
from enrich.redis_client import broker_address, broker_options
from enrich.settings import load_settings
from enrich.worker.capacity import default_processes

_settings = load_settings()


def _broker_address() -> tuple[str, dict[str, Any] | bool]:
    try:
        url, tls = broker_address(_settings.redis_url.get_secret_value())
    except SettingsError as error:
        print(f"enrich: {error}", file=sys.stderr)
        sys.exit(2)
    return url, tls or False


# -- broker
# With TLS the certificate is checked, which kombu's transport would not do by itself.
broker_url, broker_use_ssl = _broker_address()
broker_connection_retry_on_startup = True
broker_connection_max_retries = None  # keep trying; an operator stops a worker, an outage does not
# A Redis that refuses to write is a broker that is away, not the worker's end (worker/transport).
broker_channel_error_retry = True
broker_pool_acquire_timeout = 30
broker_transport_options = {
    "global_keyprefix": _settings.enrich_redis_prefix + "broker:",
    "visibility_timeout": _settings.enrich_visibility_timeout_seconds,
    # Scanning before embedding: a tick never waits behind a thousand chunks.
    "queue_order_strategy": "priority",
    # Half-open connections are noticed, not waited on for ever.
    "socket_timeout": 30,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 10,
    # Of Sentinels, where there are any.
    **broker_options(_settings.redis_url.get_secret_value()),
    # A killed worker's chunks come back within seconds of the visibility time-out.
    "unacked_restore_interval": 10,
    "unacked_restore_throttle": 1,
}
task_publish_retry_policy = {
    "max_retries": 5,
    "interval_start": 0.1,
    "interval_step": 0.5,
    "interval_max": 3,
}

# -- what travels
task_serializer = "json"
result_serializer = "json"
event_serializer = "json"
accept_content = ["json"]
worker_consumer = "enrich.worker.consumer:CheckedConsumer"  # rejects and counts hostile messages
task_ignore_result = True
result_backend = None
timezone = "UTC"
enable_utc = True

# -- delivery: a message is gone when its work is done, not when it was taken
task_acks_late = True
task_reject_on_worker_lost = True
task_acks_on_timeout = False
worker_prefetch_multiplier = 1
task_soft_time_limit = _settings.enrich_soft_time_limit_seconds
task_time_limit = _settings.enrich_hard_time_limit_seconds

# -- a deploy loses nothing: running chunks finish, or go back to the queue
worker_soft_shutdown_timeout = min(20.0, _settings.enrich_soft_time_limit_seconds)
worker_enable_soft_shutdown_on_idle = True
worker_cancel_long_running_tasks_on_connection_loss = False

# -- processes: most of them wait, for the API or for OpenSearch
worker_concurrency = default_processes()
worker_send_task_events = True
task_send_sent_event = True
worker_hijack_root_logger = False
worker_redirect_stdouts = False
beat_enable_remote_control = True

# -- queues and tasks
imports = ("tasks.enrichment",)
_exchange = Exchange("enrich", type="direct")
task_default_queue = "enrich.embed"
task_default_exchange = "enrich"
task_default_routing_key = "enrich.embed"
# In this order: the first is emptied first, see queue_order_strategy.
task_queues = tuple(
    Queue(name, _exchange, routing_key=name) for name in ("enrich.scan", "enrich.embed")
)
task_routes = {
    "enrich.find_unvectorized": {"queue": "enrich.scan"},
    "enrich.scan_page": {"queue": "enrich.scan"},
    "enrich.finish_run": {"queue": "enrich.scan"},
    "enrich.embed_and_update": {"queue": "enrich.embed"},
}

# No `expires`: it is compared with the worker's own clock. A tick that comes too late or too often
# is counted as skipped by the ledger, which looks at Redis' clock.
beat_scheduler = "enrich.worker.scheduler:SteadyScheduler"  # no file, and no clock that is set
beat_schedule = {
    "find-unvectorized": {
        "task": "enrich.find_unvectorized",
        "schedule": _settings.interval_seconds,
        "args": ("beat",),
    },
}

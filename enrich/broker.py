"""The broker's transport: kombu's for Redis, which bytes that are no message cannot stop.

Whoever can write to a queue could end every worker otherwise: kombu reads the bytes outside of any
task, and what it raises there ends the process. So could a Redis that goes away while messages are
held.
"""

from __future__ import annotations

import logging
from typing import Any

from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis
from redis.exceptions import ConnectionError as RedisConnectionError

log = logging.getLogger(__name__)


class Channel(kombu_redis.Channel):
    """Reads queues; what is no message is gone and does no more harm."""

    def _connparams(self, *args: Any, **kwargs: Any) -> Any:
        # Where a new connection begins. A channel may be asked to acknowledge or to put back what
        # it held after its connection was lost and given up; kombu has nothing to build on then,
        # and raises what Celery does not take for a lost connection.
        if self.connection is None or self.connection.client is None:
            raise RedisConnectionError("the connection to the broker was given up")
        return super()._connparams(*args, **kwargs)

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except (ValueError, KeyError, TypeError) as error:
            # Only the kind is told: the bytes may be anything.
            log.error("bytes that are no message were dropped (%s)", type(error).__name__)
            return True


class Transport(kombu_redis.Transport):
    """Celery's way to Redis."""

    Channel = Channel


def install() -> None:
    """Let redis:// and rediss:// mean this transport, under their own names, in this process."""
    TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), f"{__name__}:Transport"))

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

log = logging.getLogger(__name__)


class QoS(kombu_redis.QoS):
    """What this process took and has not finished."""

    def restore_unacked(self, client: Any = None) -> Any:
        if self.channel.connection.client is None:
            # The connection was lost and given up in the middle of this channel's closing, which
            # is tried once more. What it held comes back after the visibility time-out.
            self._delivered.clear()
            return None
        return super().restore_unacked(client)


class Channel(kombu_redis.Channel):
    """Reads queues; what is no message is gone and does no more harm."""

    QoS = QoS

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

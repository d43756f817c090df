"""The broker's transport: kombu's for Redis, which neither bytes nor refused writes can stop.

Whoever can write to a queue could end every worker otherwise, and so could a Redis that is full or
has become a replica: kombu reads queues and notes what it took outside of any task, and what it
raises there ends the process. With `broker_channel_error_retry` a refused write begins the
connection anew, and a connection stands only when Redis takes writes: until then Celery tries
again, as for a Redis that is away, and the worker goes on by itself.
"""

from __future__ import annotations

import logging
from typing import Any

from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

log = logging.getLogger(__name__)

#: Messages that were taken from their queue and could not be noted as taken, each as (message,
#: exchange, routing key). Only this process has them; it puts them back when Redis takes writes.
_taken: list[tuple[dict[str, Any], str, str]] = []


class QoS(kombu_redis.QoS):
    """What this process took and has not finished, noted in Redis."""

    def append(self, message: Any, delivery_tag: str) -> None:
        try:
            super().append(message, delivery_tag)
        except RedisError:
            # Perhaps it was noted after all; delivered twice, it is done once.
            route = message.delivery_info
            _taken.append((message._raw, route["exchange"], route["routing_key"]))
            raise

    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)
        except RedisError:
            self._free(delivery_tag)
            raise

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        try:
            super().reject(delivery_tag, requeue)
        except RedisError:
            self._free(delivery_tag)
            raise

    def _free(self, delivery_tag: str) -> None:
        # The message comes back after the visibility time-out. Until then it must not count
        # towards what this process may hold: with that used up, no other would ever be taken.
        self._quick_ack(delivery_tag)


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

    def prove_writable(self) -> None:
        """Write something, and put back what could not be noted. Raises redis' ResponseError."""
        with self.conn_or_acquire() as client:
            client.set("writable", 1, px=1000)
            while _taken:
                with client.pipeline() as pipe:
                    self._do_restore_message(*_taken[-1], pipe)
                    pipe.execute()
                _taken.pop()


class Transport(kombu_redis.Transport):
    """Celery's way to Redis."""

    Channel = Channel

    def establish_connection(self) -> Any:
        connection = super().establish_connection()
        try:
            self._avail_channels[-1].prove_writable()
        except ResponseError as error:
            self.close_connection(connection)
            raise RedisConnectionError(f"Redis refuses to write: {error}") from None
        return connection


def install() -> None:
    """Let redis:// and rediss:// mean this transport, under their own names, in this process."""
    TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), f"{__name__}:Transport"))

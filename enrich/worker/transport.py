"""The broker's transport: kombu's for Redis, which neither bytes nor refused writes can stop.

Whoever can write to a queue could end every worker otherwise, and so could a Redis that is full or
has become a replica: kombu reads queues and notes what it took outside of any task, and what it
raises there ends the process. With `broker_channel_error_retry` a refused write begins the
connection again, and a connection stands only when Redis takes writes: until then Celery tries
again, as for a Redis that is away, and the worker goes on by itself.

What was taken is noted with Redis' clock, not the host's: the messages of a killed host whose clock
is an hour ahead would come back an hour late otherwise, and it would fetch others' too early.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from kombu.exceptions import ContentDisallowed, DecodeError
from kombu.transport import TRANSPORT_ALIASES, virtual
from kombu.transport import redis as kombu_redis
from kombu.utils.json import dumps
from redis import exceptions

from enrich.errors import Halt
from enrich.redis_client import at_once, refused
from enrich.worker.envelope import UNREADABLE, check_envelope, why_unreadable
from enrich.worker.reject import drop

#: Messages that were taken from their queue and could not be noted as taken, each as (message,
#: exchange, routing key). Only this process has them; it puts them back when Redis takes writes.
_taken: list[tuple[dict[str, Any], str, str]] = []

#: Redis refused, or did not answer.
_NOT_DONE = (exceptions.ResponseError, exceptions.ConnectionError, exceptions.TimeoutError)


class Message(virtual.Message):
    """A message of the form that ours have; anything else raises NotOurs."""

    def __init__(self, payload: Any, channel: Any = None, **kwargs: Any) -> None:
        check_envelope(payload)
        super().__init__(payload, channel=channel, **kwargs)


class QoS(kombu_redis.QoS):
    """What this process took and has not finished, noted in Redis."""

    #: Seconds that this host's clock is ahead of Redis', as seen last.
    ahead = 0.0

    def append(self, message: Any, delivery_tag: str) -> None:
        # kombu notes the host's time. Put right afterwards, the message of a host that is killed
        # between the two would come back an hour late after all.
        route = message.delivery_info
        taken = (message._raw, route["exchange"], route["routing_key"])
        try:
            with self.pipe_or_acquire() as pipe:
                pipe.zadd(self.unacked_index_key, {delivery_tag: time.time() - QoS.ahead})
                pipe.hset(self.unacked_key, delivery_tag, dumps(taken))
                pipe.execute()
        except _NOT_DONE:
            # Perhaps it was noted after all; delivered twice, it is done once.
            _taken.append(taken)
            raise
        virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)
        except _NOT_DONE:
            self._free(delivery_tag)
            raise

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        try:
            super().reject(delivery_tag, requeue)
        except _NOT_DONE:
            self._free(delivery_tag)
            raise

    @property
    def visibility_timeout(self) -> float:
        """Seconds, by this host's clock, after which what was noted has waited long enough."""
        return float(self.channel.visibility_timeout + QoS.ahead)

    def restore_visible(self, *args: Any, **kwargs: Any) -> None:
        with self.channel.conn_or_acquire() as client:
            see_clock(client)
        super().restore_visible(*args, **kwargs)

    def _free(self, delivery_tag: str) -> None:
        # The message comes back after the visibility time-out. Until then it must not count
        # towards what this process may hold: with that used up, no other would ever be taken.
        self._quick_ack(delivery_tag)


def see_clock(client: Any) -> None:
    """See how far this host's clock is from Redis'."""
    seconds, micros = client.time()
    QoS.ahead = time.time() - (seconds + micros / 1e6)


class Channel(kombu_redis.Channel):
    """Reads queues; what is no message is gone and does no more harm."""

    QoS = QoS
    Message = Message

    def _connparams(self, *args: Any, **kwargs: Any) -> Any:
        # Where a new connection begins. A channel may be asked to acknowledge or to put back what
        # it held after its connection was lost and given up; kombu has nothing to build on then,
        # and raises what Celery does not take for a lost connection.
        if self.connection is None or self.connection.client is None:
            raise exceptions.ConnectionError("the connection to the broker was given up")
        return super()._connparams(*args, **kwargs)

    def _brpop_read(self, **options: Any) -> Any:
        return _dropping(super()._brpop_read, **options)

    def _receive(self) -> Any:
        return _dropping(super()._receive)

    def prove_writable(self) -> None:
        """Write something, and put back what could not be noted. Raises redis' ResponseError."""
        with self.conn_or_acquire() as client:
            client.set("writable", 1, px=1000)
            see_clock(client)
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
        except exceptions.ResponseError as error:
            self.close_connection(connection)
            named = refused(error)
            if isinstance(named, Halt):
                # Trying again gives nobody a right; enrich/worker/consumer.py ends the worker.
                raise named from None
            raise exceptions.ConnectionError(f"Redis refuses to write: {error}") from None
        return connection


class SentinelChannel(Channel, kombu_redis.SentinelChannel):
    """The same, where Sentinels name the primary."""

    sentinel_kwargs: dict[str, Any] | None = None

    def _sentinel_managed_pool(self, asynchronous: bool = False) -> Any:
        # Not among the transport's options, which Flower hands to another client.
        self.sentinel_kwargs = {**(self.sentinel_kwargs or {}), "retry": at_once()}
        return super()._sentinel_managed_pool(asynchronous)


class SentinelTransport(Transport, kombu_redis.SentinelTransport):
    """Celery's way to Redis through Sentinels."""

    Channel = SentinelChannel


def _dropping(read: Callable[..., Any], **options: Any) -> Any:
    try:
        return read(**options)
    except (*UNREADABLE, ContentDisallowed, DecodeError) as error:
        drop(why_unreadable(error))
        return True


def install() -> None:
    """Let redis://, rediss:// and sentinel:// mean these transports, under their own names, in this
    process; redis+socket:// is of redis."""
    TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), f"{__name__}:Transport"))
    TRANSPORT_ALIASES["sentinel"] = f"{__name__}:SentinelTransport"

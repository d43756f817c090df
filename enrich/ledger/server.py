"""What the Redis must be, and must allow its user, for a ledger and a broker to live on it.

Looked at by `check` and by a worker that starts. Everything is tried with commands of the kinds
that a run uses, under names of this deployment, and leaves nothing behind.
"""

from __future__ import annotations

import re
import uuid
from typing import Any

import redis
from redis import exceptions

from enrich.errors import AccessRefused, Halt
from enrich.redis_client import CLUSTER, TOO_OLD, refused, translated

#: The oldest Redis: before it ZMSCORE is missing. Valkey began after it.
MINIMUM = (6, 2)


def look(connection: redis.Redis) -> dict[str, Any]:
    """INFO of a server that will do; empty where the user may not ask for it.

    Raises:
        Halt: it is too old, or a Cluster.
        AccessRefused, ServerUnavailable
    """
    with translated():
        connection.ping()
    try:
        with translated():
            info: dict[str, Any] = connection.info()
    except AccessRefused:
        return {}
    # `server_mode` is Valkey's.
    mode = str(info.get("redis_mode") or info.get("server_mode") or "")
    if mode == "cluster" or int(info.get("cluster_enabled", 0)) == 1:
        raise Halt(CLUSTER)
    if mode == "sentinel":
        raise Halt(
            "REDIS_URL and CACHE_URL: this is a Sentinel, which keeps no data: write sentinel:// "
            "in place of redis://, with ?master_name="
        )
    found = re.match(r"(\d+)\.(\d+)", str(info.get("redis_version", "")))
    if "valkey_version" not in info and found and tuple(map(int, found.groups())) < MINIMUM:
        raise Halt(f"{TOO_OLD}; this is Redis {info['redis_version']}")
    return info


def version(info: dict[str, Any]) -> str:
    # Valkey calls itself Redis 7.2 for the sake of old clients.
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info['redis_version']}" if "redis_version" in info else "Redis"


def try_rights(connection: redis.Redis, prefix: str) -> None:
    """Do what a run and its broker do, once.

    Args:
        prefix: ENRICH_REDIS_PREFIX.

    Raises:
        AccessRefused: names the command, or the pattern that is missing.
        Halt: it is too old, or a Cluster.
        ServerUnavailable
    """
    key = f"{prefix}try:{uuid.uuid4().hex}"
    script = (
        "redis.call('ZADD', KEYS[1], 1, 'x') redis.call('PEXPIRE', KEYS[1], 10000) "
        "redis.call('TIME') return redis.call('ZMSCORE', KEYS[1], 'x')"
    )
    broker = f"{prefix}broker:"
    # kombu puts it into the names of its channels.
    database = connection.connection_pool.connection_kwargs.get("db") or 0
    with translated():
        connection.eval(script, 1, key)
        connection.zrevrangebyscore(key, "+inf", "-inf", start=0, num=1, withscores=True)
        with connection.pipeline(transaction=True) as pipe:
            pipe.delete(key)
            pipe.hset(key, "a", "1")
            pipe.hget(key, "a")
            pipe.hdel(key, "a")
            pipe.lpush(key, "a")
            pipe.llen(key)
            pipe.sadd(f"{key}:s", "a")
            pipe.smembers(f"{key}:s")
            pipe.unlink(key, f"{key}:s")
            pipe.execute()
        connection.brpop([f"{broker}try:{uuid.uuid4().hex}"], timeout=0.01)
    _try_channels(
        connection,
        [f"{broker}/{database}.celery.pidbox"],
        [f"{broker}/{database}.celeryev/*", f"{broker}/{database}.celeryev/worker.*"],
    )


def _try_channels(connection: redis.Redis, names: list[str], patterns: list[str]) -> None:
    listener: Any = connection.pubsub()  # type: ignore[no-untyped-call]
    try:
        for listen, channel in (
            *((listener.subscribe, name) for name in names),
            *((listener.psubscribe, pattern) for pattern in patterns),
        ):
            try:
                listen(channel)
                listener.get_message(timeout=5)
            except exceptions.ResponseError as error:
                missing = refused(error)
                if isinstance(missing, AccessRefused) and "channel" in str(missing):
                    raise AccessRefused(
                        f"Redis does not allow its user the channel {channel}: add &{channel} to "
                        'its ACL; see "Rights in Redis" in docs/security.md'
                    ) from None
                raise missing or error from None
    finally:
        listener.close()

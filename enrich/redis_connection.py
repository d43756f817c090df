"""How this process reaches Redis: one way to build a connection, one translation of its errors.

The ledger, the vector cache and the rate budget share it, so that a Redis which is down, full or
locked gives the same sentence everywhere.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis import exceptions
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

from enrich.errors import AccessRefused, EnrichError, Halt, ServerUnavailable, cause_of

CONNECT_TIMEOUT_SECONDS = 5
SOCKET_TIMEOUT_SECONDS = 30


def connect(
    url: str, *, timeout: float = SOCKET_TIMEOUT_SECONDS, second_try: bool = True
) -> redis.Redis:
    """A client for the URL; it connects at the first command. Answers are bytes.

    Args:
        timeout: seconds that one command may take.
        second_try: at once, for a connection that a restart of Redis has closed; any further
            try is the caller's.
    """
    return redis.Redis.from_url(
        url,
        socket_connect_timeout=min(CONNECT_TIMEOUT_SECONDS, timeout),
        socket_timeout=timeout,
        socket_keepalive=True,
        health_check_interval=10,
        retry=Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), int(second_try)),
    )


@contextmanager
def translated() -> Iterator[None]:
    """Raise Redis trouble as this project's errors."""
    try:
        yield
    except (exceptions.AuthenticationError, exceptions.NoPermissionError):
        raise AccessRefused("Redis refused the password: check REDIS_URL and CACHE_URL") from None
    except (exceptions.ConnectionError, exceptions.TimeoutError) as error:
        raise _unreachable(error) from None
    except exceptions.ReadOnlyError:
        raise ServerUnavailable(
            "Redis is a read-only replica: point REDIS_URL at the primary"
        ) from None
    except exceptions.OutOfMemoryError:
        raise ServerUnavailable(
            "Redis is full: raise its maxmemory, or give CACHE_URL its own"
        ) from None
    except exceptions.BusyLoadingError:
        raise ServerUnavailable("Redis is loading its data: try again shortly") from None


def _unreachable(error: Exception) -> EnrichError:
    # The client quotes the host; only the kind is looked at.
    cause = cause_of(error, ssl.SSLError)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Halt(
            "Redis: the TLS connection was refused: its certificate is not trusted or is for "
            "another host name; check REDIS_URL and CACHE_URL, and name its authority there "
            "(?ssl_ca_certs=/path/ca.pem)"
        )
    if cause is not None:
        return ServerUnavailable(
            "Redis: the TLS connection failed: check redis:// and rediss:// in REDIS_URL and "
            "CACHE_URL, and that it runs"
        )
    return ServerUnavailable(
        f"Redis cannot be reached ({type(error).__name__}): check REDIS_URL and that it runs"
    )

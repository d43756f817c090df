"""How this process reaches Redis: one way to build a connection, one translation of its errors.

The ledger, the vector cache and the API quota share it, and the broker's transport takes the same
URL from here, so that a Redis which is down, full, locked or of the wrong kind gives the same
sentence everywhere. Where there are Sentinels, each new connection asks them for the primary.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlsplit

import redis
from redis import exceptions
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.connection import parse_url
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool

from enrich.errors import (
    AccessRefused,
    EnrichError,
    Halt,
    ServerUnavailable,
    SettingsError,
    cause_of,
)
from enrich.setting_forms.redis_url import RedisAddress, read_redis_url

CONNECT_TIMEOUT_SECONDS = 5
SOCKET_TIMEOUT_SECONDS = 30

#: What the rights are that Redis' user needs, and where they are written down.
ACL_PLACE = 'see "Rights in Redis" in docs/security.md'

CLUSTER = (
    "Redis is a Cluster, which keeps the keys of one deployment apart: point REDIS_URL and "
    "CACHE_URL at a Redis that is none"
)
TOO_OLD = "Redis is too old: 6.2 or newer is needed, or any Valkey"

#: Spellings of `ssl_cert_reqs`: redis-py's, and Celery's.
_CERT_REQS = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}


def connect(
    url: str, *, timeout: float = SOCKET_TIMEOUT_SECONDS, second_try: bool = True
) -> redis.Redis:
    """A client for the URL; it connects at the first command. Results are bytes.

    Args:
        timeout: seconds that one command may take.
        second_try: at once, for a connection that a restart of Redis has closed; any further
            try is the caller's. A command that was not answered in time is not sent again: it may
            have been done, and a Redis that hangs would be waited for twice.

    Raises:
        SettingsError: a file that the URL names cannot be used.
    """
    address = _address(url)
    options = {
        "socket_connect_timeout": min(CONNECT_TIMEOUT_SECONDS, timeout),
        "socket_timeout": timeout,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "retry": Retry(
            ExponentialWithJitterBackoff(base=0.05, cap=0.5),
            int(second_try),
            supported_errors=(exceptions.ConnectionError,),
        ),
        **_options(address),
    }
    if address.is_socket:
        del options["socket_keepalive"]
    connection_class = options.pop("connection_class", redis.Connection)
    if address.sentinels:
        del options["host"], options["port"]
        sentinels: Any = _Sentinels(  # type: ignore[no-untyped-call]
            address.sentinels,
            sentinel_kwargs={**_of_sentinels(address, timeout), "retry": at_once()},
            **options,
        )
        client: redis.Redis = sentinels.master_for(
            address.master, connection_pool_class=_SentinelPool, ssl=address.is_secured
        )
        return client
    pool = redis.ConnectionPool(connection_class=connection_class, **options)
    return redis.Redis.from_pool(pool)


def at_once() -> Retry:
    """No second try: the next Sentinel is asked. By default redis-py would try one that is gone for
    some seconds."""
    return Retry(NoBackoff(), 0)


class _Sentinels(Sentinel):
    """redis-py's, which says what it was that no Sentinel knew."""

    def discover_master(self, service_name: str) -> Any:
        """
        Raises:
            Halt: the Sentinels know no such name.
            AccessRefused: they want a login.
            MasterNotFoundError: there is no primary now, or none of them answers.
        """
        try:
            return super().discover_master(service_name)  # type: ignore[no-untyped-call]
        except MasterNotFoundError:
            known = self._known()
            if known and service_name not in known:
                raise Halt(
                    "Sentinel knows no primary of this name: set ?master_name= in REDIS_URL and "
                    f"CACHE_URL; it knows {', '.join(sorted(known))[:200]}"
                ) from None
            raise

    def _known(self) -> set[str]:
        known: set[str] = set()
        for each in self.sentinels:
            try:
                known.update(map(str, each.sentinel_masters()))
            except exceptions.AuthenticationError:
                raise AccessRefused(
                    "Sentinel asks for a login or refuses it: set ?sentinel_password= (and "
                    "sentinel_username=) in REDIS_URL and CACHE_URL"
                ) from None
            except (exceptions.ConnectionError, exceptions.TimeoutError):
                continue
        return known


class _SentinelPool(SentinelConnectionPool):
    """redis-py's, which closes the connections to the Sentinels with its own."""

    def disconnect(self, inuse_connections: bool = True) -> None:
        super().disconnect(inuse_connections)
        if inuse_connections:
            self.sentinel_manager.close()


def _of_sentinels(address: RedisAddress, timeout: float) -> dict[str, Any]:
    """What the connections to the Sentinels themselves are made with."""
    user, password = address.sentinel_login
    quick = min(CONNECT_TIMEOUT_SECONDS, timeout)
    options: dict[str, Any] = {"socket_timeout": quick, "socket_connect_timeout": quick}
    options |= {"username": user} if user else {}
    options |= {"password": password} if password else {}
    if address.is_secured:
        tls = {n: v for n, v in _options(address).items() if n.startswith("ssl_")}
        options |= {"ssl": True, **tls}
    return options


def broker_address(url: str) -> tuple[str, dict[str, Any] | None]:
    """The same server as kombu wants it: a URL without options, and those of TLS or None.

    kombu and redis-py read the options of a URL each in its own way, and each passes over some.
    """
    address = _address(url)
    options = _options(address)
    tls = {name: value for name, value in options.items() if name.startswith("ssl_")}
    if not (address.sentinels or address.is_socket or urlsplit(url).query):
        return url, tls if address.is_secured else None
    name, password = options.get("username"), options.get("password")
    login = f"{quote(name or '', safe='')}:{quote(password or '', safe='')}@"
    login = login if name or password else ""
    database = options.get("db", 0)
    if address.is_socket:
        path = quote(str(options["path"]))
        return f"redis+socket://{login}{path}?virtual_host={database}", None
    hosts = address.sentinels or (
        (str(options.get("host", "localhost")), int(options.get("port", 6379))),
    )
    secured = "rediss" if address.is_secured else "redis"
    scheme = "sentinel" if address.sentinels else secured
    whole = ";".join(
        f"{scheme}://{login}{f'[{host}]' if ':' in host else host}:{port}/{database}"
        for host, port in hosts
    )
    return whole, tls if address.is_secured else None


def broker_options(url: str) -> dict[str, Any]:
    """Options of kombu's transport for this server; only Sentinels need any.

    Raises SettingsError.
    """
    address = _address(url)
    if not address.sentinels:
        return {}
    sentinel_kwargs = _of_sentinels(address, CONNECT_TIMEOUT_SECONDS)
    return {"master_name": address.master, "sentinel_kwargs": sentinel_kwargs}


def _address(url: str) -> RedisAddress:
    try:
        return read_redis_url(url)
    except ValueError as error:
        raise SettingsError(f"REDIS_URL or CACHE_URL: {error}") from None


def _options(address: RedisAddress) -> dict[str, Any]:
    """What the URL says, in the types that both clients take. Raises SettingsError."""
    try:
        options: dict[str, Any] = dict(parse_url(address.plain))  # type: ignore[no-untyped-call]
    except ValueError as error:
        # The client names the option, and quotes no value.
        raise SettingsError(f"REDIS_URL or CACHE_URL: {error}") from None
    if not address.is_secured:
        return options
    reqs = str(options.get("ssl_cert_reqs", "required")).lower().removeprefix("cert_")
    if reqs not in _CERT_REQS:
        raise SettingsError(
            "REDIS_URL or CACHE_URL: ssl_cert_reqs must be required, optional or none"
        )
    options["ssl_cert_reqs"] = _CERT_REQS[reqs]
    # Without this kombu's transport would encrypt and believe any name.
    options["ssl_check_hostname"] = reqs != "none" and options.get("ssl_check_hostname", True)
    _try_files(options)
    return options


def _try_files(options: dict[str, Any]) -> None:
    """Load the files of TLS once, for a sentence about them. Raises SettingsError."""
    context = ssl.create_default_context()
    certificates, folder = options.get("ssl_ca_certs"), options.get("ssl_ca_path")
    if certificates or folder:
        what = "ssl_ca_certs" if certificates else "ssl_ca_path"
        with _named(what, certificates or folder):
            context.load_verify_locations(cafile=certificates, capath=folder)
    if own := options.get("ssl_certfile"):
        with _named("ssl_certfile or ssl_keyfile", own):
            context.load_cert_chain(
                own, options.get("ssl_keyfile"), options.get("ssl_password") or ""
            )


@contextmanager
def _named(what: str, path: Any) -> Iterator[None]:
    try:
        yield
    except ssl.SSLError:
        reason = "does not hold what it should, in PEM form"
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
    else:
        return
    raise SettingsError(f"REDIS_URL or CACHE_URL: {what}: {path} {reason}")


@contextmanager
def translated() -> Iterator[None]:
    """Raise Redis trouble as this project's errors."""
    try:
        yield
    except exceptions.AuthenticationError as error:
        raise _login_refused(error) from None
    except exceptions.BusyLoadingError:
        raise ServerUnavailable("Redis is loading its data: try again shortly") from None
    except (exceptions.ConnectionError, exceptions.TimeoutError) as error:
        raise _unreachable(error) from None
    except exceptions.RedisClusterException:
        raise Halt(CLUSTER) from None
    except exceptions.ResponseError as error:
        if named := refused(error):
            raise named from None
        raise


def _login_refused(error: Exception) -> EnrichError:
    if re.search("NOAUTH|Authentication required|HELLO must be called", str(error)):
        return AccessRefused(
            "Redis asks for a password: add it to REDIS_URL and CACHE_URL "
            "(redis://:PASSWORD@host:6379/0)"
        )
    return AccessRefused("Redis refused the password: check REDIS_URL and CACHE_URL")


#: Words of a refusal, and what it means. A script's error quotes that of the command which failed
#: in it, in another form in each version, so that the whole text is looked at.
_REFUSALS: tuple[tuple[re.Pattern[str], type[EnrichError], str], ...] = tuple(
    (re.compile(words), kind, sentence)
    for words, kind, sentence in (
        (
            r"\bMASTERDOWN\b",
            ServerUnavailable,
            "Redis is a replica that has lost its primary: point REDIS_URL at the primary",
        ),
        (
            r"\b(MOVED|ASK|CROSSSLOT|CLUSTERDOWN|TRYAGAIN)\b|access to a non local key|"
            r"in cluster mode|cluster support disabled",
            Halt,
            CLUSTER,
        ),
        (
            r"\bREADONLY\b|[Rr]ead[- ]?only replica|write against a read only",
            ServerUnavailable,
            "Redis is a read-only replica: point REDIS_URL at the primary",
        ),
        (
            r"\bOOM\b|maxmemory",
            ServerUnavailable,
            "Redis is full: raise its maxmemory, or give CACHE_URL its own",
        ),
        (
            r"\bMISCONF\b",
            ServerUnavailable,
            "Redis takes no writes, because it cannot save to its disk (MISCONF): free space "
            "there, and look at its own log",
        ),
        (
            r"\bNOREPLICAS\b",
            ServerUnavailable,
            "Redis takes no writes, because too few replicas follow it (NOREPLICAS): see its "
            "min-replicas-to-write",
        ),
        (r"\bLOADING\b", ServerUnavailable, "Redis is loading its data: try again shortly"),
        (
            r"\b(BUSY|UNKILLABLE)\b",
            ServerUnavailable,
            "Redis is busy with somebody's script (BUSY): it takes no command until that ends",
        ),
        (
            r"\bWRONGTYPE\b",
            Halt,
            "a key that begins with ENRICH_REDIS_PREFIX holds what another program wrote "
            "(WRONGTYPE): give ENRICH_REDIS_PREFIX a value of its own",
        ),
        (
            r"DB index is out of range|invalid DB index",
            Halt,
            "Redis has no such database: check the number at the end of REDIS_URL and CACHE_URL",
        ),
    )
)

#: What the client takes from a text that it has a class for.
_CODES: tuple[tuple[type[Exception], str], ...] = (
    (exceptions.ReadOnlyError, "READONLY"),
    (exceptions.OutOfMemoryError, "OOM"),
    (exceptions.AskError, "MOVED"),
    (exceptions.TryAgainError, "TRYAGAIN"),
    (exceptions.ClusterCrossSlotError, "CROSSSLOT"),
    (exceptions.ClusterDownError, "CLUSTERDOWN"),
    (exceptions.MasterDownError, "MASTERDOWN"),
)

_UNKNOWN_COMMAND = re.compile(r"[Uu]nknown (?:Redis )?(?:command|subcommand)")
_NO_PERMISSION = re.compile(
    r"NOPERM|no permissions? to|user executing the script can't|ACL failure", re.I
)
_COMMAND = re.compile(r"(?:run|execute) the '([a-z0-9_.|-]+)' (?:sub)?command", re.I)


def refused(error: Exception) -> EnrichError | None:
    """What an error that Redis answered means; None for one that nobody foresaw.

    The client quotes keys and values: only what is named here leaves this module.
    """
    told = str(error)
    if isinstance(error, exceptions.NoPermissionError) or _NO_PERMISSION.search(told):
        return _right_missing(told)
    # The client takes the code away where it has a class for it.
    told += "".join(f" {code}" for kind, code in _CODES if isinstance(error, kind))
    for words, kind, sentence in _REFUSALS:
        if words.search(told):
            return kind(sentence)
    if _UNKNOWN_COMMAND.search(told):
        return Halt(f"{TOO_OLD}; or it does not know a command that was renamed or is not allowed")
    return None


def _right_missing(told: str) -> AccessRefused:
    user = "Redis does not allow its user"
    if found := _COMMAND.search(told):
        command = found[1].lower()
        return AccessRefused(
            f"{user} the command {command.upper()}: add +{command} to its ACL; {ACL_PLACE}"
        )
    if "channel" in told:
        return AccessRefused(
            f"{user} a channel of the broker: add the & patterns to its ACL; {ACL_PLACE}"
        )
    if "key" in told:
        return AccessRefused(
            f"{user} a key: add ~ENRICH_REDIS_PREFIX* (~enrich:* by default) to its ACL; "
            f"{ACL_PLACE}"
        )
    return AccessRefused(f"{user} a command that a script runs: {ACL_PLACE}")


def _unreachable(error: Exception) -> EnrichError:
    if isinstance(error, MasterNotFoundError):
        return ServerUnavailable(
            "no Sentinel names a primary of Redis that is up: check the Sentinels in REDIS_URL and "
            "CACHE_URL, and that Redis runs"
        )
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
    if "max number of clients" in str(error):
        return ServerUnavailable("Redis has too many clients: raise its maxclients")
    if cause_of(error, FileNotFoundError) or cause_of(error, PermissionError):
        return ServerUnavailable(
            "Redis: a file that REDIS_URL or CACHE_URL names cannot be read: check the socket's "
            "path and rights, ssl_ca_certs, ssl_certfile and ssl_keyfile"
        )
    return ServerUnavailable(
        f"Redis cannot be reached ({type(error).__name__}): check REDIS_URL and that it runs"
    )

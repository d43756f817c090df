"""REDIS_URL and CACHE_URL: one Redis over TCP, over a unix socket, or found through Sentinels.

Each is spelt as one of its two clients has it (redis-py, and kombu for the broker); both are given
the same from here. Pure. A ValueError is one sentence that goes behind the name of a setting; it
quotes no value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from enrich.setting_forms.url_parts import url_parts, url_without_password, without_passwords

#: Options that both clients can be given (enrich/redis_client.py).
_OPTIONS = frozenset(
    {
        *("db", "username", "password", "protocol", "client_name", "max_connections"),
        *("socket_timeout", "socket_connect_timeout", "socket_keepalive", "retry_on_timeout"),
        *("health_check_interval", "ssl_cert_reqs", "ssl_ca_certs", "ssl_ca_path", "ssl_ciphers"),
        *("ssl_certfile", "ssl_keyfile", "ssl_password", "ssl_check_hostname", "ssl_min_version"),
    }
)

_NUMBERS = frozenset(
    {
        *("db", "protocol", "max_connections", "socket_timeout", "socket_connect_timeout"),
        *("health_check_interval", "ssl_min_version"),
    }
)

_OF_SENTINEL = frozenset({"master_name", "sentinel_username", "sentinel_password"})

_SOCKETS = ("unix", "redis+socket", "redis+unix", "socket")
#: And whether Redis and Sentinels are spoken to over TLS.
_SENTINELS = {"sentinel": False, "redis+sentinel": False, "rediss+sentinel": True}

#: What Sentinel's own example and most charts call it.
USUAL_MASTER = "mymaster"
SENTINEL_PORT = 26379


@dataclass(frozen=True, kw_only=True)
class RedisAddress:
    """Where Redis is.

    Attributes:
        plain: a URL that redis-py takes, `redis://`, `rediss://` or `unix://`; with Sentinels its
            host is that of the first of them, and means nothing.
        sentinels: hosts and ports; empty where Redis is asked directly.
        master: what Sentinels call the primary.
        sentinel_login: user and password of the Sentinels themselves.
    """

    plain: str
    sentinels: tuple[tuple[str, int], ...] = ()
    master: str = ""
    sentinel_login: tuple[str, str] = ("", "")

    @property
    def is_socket(self) -> bool:
        return self.plain.startswith("unix:")

    @property
    def is_secured(self) -> bool:
        return self.plain.startswith("rediss:")


def read_redis_url(url: str) -> RedisAddress:
    """Raises ValueError."""
    scheme = url.partition("://")[0].lower()
    if scheme in _SOCKETS:
        return _socket(url)
    if scheme in _SENTINELS:
        return _sentinels(url, secured=_SENTINELS[scheme])
    hosts = re.split(r"[/?#]", url.partition("://")[2])[0].rpartition("@")[2]
    if scheme in ("redis", "rediss") and "," in hosts:
        raise ValueError(
            "several hosts are Sentinels, sentinel://a:26379,b:26379/0; Redis Cluster is not "
            "supported"
        )
    parts = url_parts(url)
    if parts is None or scheme not in ("redis", "rediss"):
        raise ValueError(
            "must be a URL that starts with redis:// or rediss:// (or unix://, sentinel://); "
            "special characters in its password have to be percent-encoded"
        )
    if not re.fullmatch(r"/?|/[0-9]{1,5}", parts.path):
        raise ValueError("must end with the number of a database, such as /0")
    _check_options(parse_qsl(parts.query, keep_blank_values=True), secured=scheme == "rediss")
    return RedisAddress(plain=url)


def _socket(url: str) -> RedisAddress:
    parts = urlsplit("unix://" + url.partition("://")[2])
    login, at, host = parts.netloc.rpartition("@")
    if host or len(parts.path) < 2 or parts.fragment or "@" in parts.path + parts.query:
        raise ValueError(
            "must name a socket, unix:///run/redis/redis.sock?db=0; special characters in its "
            "password have to be percent-encoded"
        )
    # `virtual_host` is kombu's word.
    options = [
        ("db" if name == "virtual_host" else name, value)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
    ]
    _check_options(options, secured=False)
    numbers = {value for name, value in options if name == "db"}
    if len(numbers) > 1:
        raise ValueError("names two databases: keep db or virtual_host")
    database = next(iter(numbers), "0")
    rest = [(n, v) for n, v in options if n not in ("db", "socket_keepalive")]
    query = urlencode([("db", database), *rest])
    return RedisAddress(plain=f"unix://{login}{at}{parts.path}?{query}")


def _sentinels(url: str, *, secured: bool) -> RedisAddress:
    before, _, query = url.partition("?")
    hosts: list[tuple[str, int]] = []
    logins: set[str] = set()
    paths: set[str] = set()
    for part in re.split("[;,]", before):
        # kombu repeats the scheme.
        bare = part.strip().partition("://")[2] if "://" in part else part.strip()
        if not bare:
            continue
        parts = url_parts(f"redis://{bare}")
        if parts is None or not parts.hostname or parts.fragment:
            raise ValueError(
                "must be sentinel://host:26379,host:26379/0?master_name=NAME; special characters "
                "in a password have to be percent-encoded"
            )
        hosts.append((parts.hostname, parts.port or SENTINEL_PORT))
        if login := parts.netloc.rpartition("@")[0]:
            logins.add(login)
        if path := parts.path.strip("/"):
            paths.add(path)
    found = re.fullmatch(r"(?:([A-Za-z0-9_.-]*[A-Za-z_.-][A-Za-z0-9_.-]*)/?)?([0-9]{1,5})?",
                         next(iter(paths), ""))  # fmt: skip
    if not hosts or len(logins) > 1 or len(paths) > 1 or found is None or "#" in query:
        raise ValueError(
            "must be sentinel://user:password@host:26379,host:26379/0?master_name=NAME, with one "
            "login and one database: those of Redis, not of the Sentinels"
        )
    options = parse_qsl(query, keep_blank_values=True)
    _check_options([o for o in options if o[0] not in _OF_SENTINEL], secured=secured)
    given = {name: value for name, value in options if name in _OF_SENTINEL}
    if found[1] and given.get("master_name", found[1]) != found[1]:
        raise ValueError("names two primaries: keep master_name, or the name in the path")
    login = next(iter(logins), "")
    host, port = hosts[0]
    host = f"[{host}]" if ":" in host else host
    rest = [option for option in options if option[0] not in _OF_SENTINEL]
    plain = urlunsplit(
        (
            "rediss" if secured else "redis",
            f"{login}{'@' if login else ''}{host}:{port}",
            f"/{found[2] or 0}",
            urlencode(rest, quote_via=quote),
            "",
        )
    )
    return RedisAddress(
        plain=plain,
        sentinels=tuple(dict.fromkeys(hosts)),
        master=given.get("master_name") or found[1] or USUAL_MASTER,
        sentinel_login=(given.get("sentinel_username", ""), given.get("sentinel_password", "")),
    )


def _check_options(options: list[tuple[str, str]], *, secured: bool) -> None:
    for name, value in options:
        if name not in _OPTIONS:
            known = ", ".join(sorted(_OPTIONS))
            raise ValueError(f"has an option that is not known; known are {known}")
        if name == "ssl_cert_reqs" and not re.fullmatch(
            r"(cert_)?(none|optional|required)", value.lower()
        ):
            raise ValueError("ssl_cert_reqs must be required, optional or none")
        if name in _NUMBERS and not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", value):
            raise ValueError(f"{name} must be a number")
        if name.startswith("ssl_") and not secured:
            raise ValueError(
                f"{name} needs rediss:// or rediss+sentinel://: the others are not encrypted"
            )


def without_password(url: str) -> str:
    """The URL with its password, if any, replaced by `***`."""
    if url.partition("://")[0].lower() in _SENTINELS:
        before, mark, query = url.partition("?")
        before = re.sub(r"(^|://|[;,])([^:/@;,]*):(?!//)[^;,]*@", r"\1\2:***@", before)
        return before + mark + without_passwords(query)
    return url_without_password(url)

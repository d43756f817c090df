"""REDIS_URL in each of its forms, as redis-py and kombu are given it; no server."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from kombu import Connection
from redis.sentinel import SentinelManagedSSLConnection

from enrich.redis_client import broker_address, broker_options, connect
from enrich.setting_forms.redis_url import read_redis_url, without_password
from enrich.worker import transport

UNIX = {"path": "/run/a b.sock", "db": 3, "username": "u", "password": "p/w"}


@pytest.mark.parametrize(
    "url",
    [
        "unix://u:p%2Fw@/run/a%20b.sock?db=3",
        "redis+socket://u:p%2Fw@/run/a%20b.sock?virtual_host=3",
        "redis+unix://u:p%2Fw@/run/a%20b.sock?db=3&socket_keepalive=true",
        "socket://u:p%2Fw@/run/a%20b.sock?db=3&virtual_host=3",
    ],
)
def test_a_socket_is_the_same_for_both_clients(url: str) -> None:
    with connect(url) as client:
        ours = client.connection_pool.connection_kwargs
        assert UNIX.items() <= ours.items()
        client.connection_pool.make_connection()
    address, tls = broker_address(url)
    assert (address, tls) == ("redis+socket://u:p%2Fw@/run/a%20b.sock?virtual_host=3", None)
    assert broker_options(url) == {}
    transport.install()
    theirs = _parameters(Connection(address))
    assert UNIX.items() <= theirs.items()


def _parameters(connection: Any) -> dict[str, Any]:
    """What kombu would hand to redis-py."""
    channel = transport.Channel.__new__(transport.Channel)
    channel.connection = type("Established", (), {"client": connection, "default_port": 6379})()
    parameters: dict[str, Any] = channel._connparams()
    return parameters


HOSTS = (("a", 26379), ("b", 26380), ("::1", 26379))


@pytest.mark.parametrize(
    "url",
    [
        "sentinel://u:p%2Fw@a,b:26380,[::1]/3?master_name=prime&sentinel_password=s%26x",
        "sentinel://u:p%2Fw@a:26379/3;sentinel://u:p%2Fw@b:26380/3;sentinel://u:p%2Fw@[::1]"
        "?master_name=prime&sentinel_password=s%26x",
        "redis+sentinel://u:p%2Fw@a:26379; b:26380 ,[::1]:26379/prime/3?sentinel_password=s%26x",
    ],
)
def test_sentinels_are_the_same_for_both_clients(url: str) -> None:
    address = read_redis_url(url)
    assert address.sentinels == HOSTS and address.master == "prime"
    client = connect(url)
    pool: Any = client.connection_pool
    assert pool.service_name == "prime"
    of_redis = {"username": "u", "password": "p/w", "db": 3}
    assert of_redis.items() <= pool.connection_kwargs.items()
    for each in pool.sentinel_manager.sentinels:
        options = each.connection_pool.connection_kwargs
        assert options["password"] == "s&x" and not options["username"]
        assert options["socket_timeout"] <= 5
    client.close()

    broker, tls = broker_address(url)
    assert tls is None
    transport.install()
    theirs = Connection(broker, transport_options=broker_options(url))
    assert isinstance(theirs.transport, transport.SentinelTransport)
    assert [f"{'[::1]' if h == '::1' else h}:{p}/3" for h, p in HOSTS] == [
        each.rpartition("@")[2] for each in theirs.alt
    ]
    assert (theirs.userid, theirs.password, theirs.virtual_host) == ("u", "p/w", "3")
    assert theirs.transport_options["master_name"] == "prime"
    assert theirs.transport_options["sentinel_kwargs"]["password"] == "s&x"
    assert "p/w" not in theirs.as_uri() and "p%2Fw" not in theirs.as_uri()


def test_a_sentinel_without_a_name_has_the_usual_one() -> None:
    assert read_redis_url("sentinel://a").master == "mymaster"
    assert read_redis_url("sentinel://a/5").plain == "redis://a:26379/5"
    assert read_redis_url("sentinel://a/1x").master == "1x"


def test_tls_is_that_of_redis_and_of_the_sentinels() -> None:
    url = "rediss+sentinel://a,b/0?master_name=m&ssl_cert_reqs=none"
    pool: Any = connect(url).connection_pool
    assert pool.connection_class is SentinelManagedSSLConnection
    _, tls = broker_address(url)
    sentinel = broker_options(url)["sentinel_kwargs"]
    assert tls is not None and sentinel["ssl"] is True
    for options in (pool.connection_kwargs, tls, sentinel):
        assert options["ssl_cert_reqs"] == ssl.CERT_NONE
        assert options["ssl_check_hostname"] is False


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("unix://:qqq@/x.sock?db=1", "unix://:***@/x.sock?db=1"),
        ("redis+socket://u:qqq@/x?virtual_host=1", "redis+socket://u:***@/x?virtual_host=1"),
        ("sentinel://:qqq@a,b/0?sentinel_password=qqq&master_name=m",
         "sentinel://:***@a,b/0?sentinel_password=***&master_name=m"),
        ("sentinel://u:qqq@a;sentinel://u:qqq@b:1/0", "sentinel://u:***@a;sentinel://u:***@b:1/0"),
        ("sentinel://a:26379,u:qqq@b/0", "sentinel://a:26379,u:***@b/0"),
        ("sentinel://a:26379,b:26379/0", "sentinel://a:26379,b:26379/0"),
        # A comma parts the addresses of Sentinels, and is a part of other passwords.
        ("redis://u:qqq,qqq@a:6379/0", "redis://u:***@a:6379/0"),
    ],
)  # fmt: skip
def test_all_but_the_passwords_is_shown(url: str, shown: str) -> None:
    read_redis_url(url)
    assert without_password(url) == shown

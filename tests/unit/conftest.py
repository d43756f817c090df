"""A fake Redis and a real one: what is tested on the first is tested on the second too."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import fakeredis
import pytest
import redis

from dev.redis_server import RedisUnavailable, server_argv
from enrich.ledger.in_memory import InMemoryRedis


@pytest.fixture(scope="session", autouse=True)
def threads_take_turns_quickly() -> Iterator[None]:
    """A server in a thread of a test's own process answers at once, not when the switch is due."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0002)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(autouse=True)
def redis_is_empty(request: pytest.FixtureRequest) -> None:
    """Nothing that one test leaves in Redis decides about the next, whatever their order."""
    if "connection" in request.fixturenames:
        request.getfixturevalue("connection").flushall()


@pytest.fixture(scope="module", params=["fakeredis", "valkey"])
def connection(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    yield from connection_to(request.param)


def connection_to(kind: str) -> Iterator[redis.Redis]:
    """A connection to a fake Redis, to a real one, or to the ledger's memory."""
    if kind == "memory":
        yield InMemoryRedis()  # type: ignore[misc]
        return
    if kind == "fakeredis":
        yield fakeredis.FakeRedis()
        return
    folder = Path(tempfile.mkdtemp(prefix="valkey-"))
    try:
        argv = server_argv(port=0, folder=folder, appendonly=False)
    except RedisUnavailable as error:
        pytest.skip(str(error))
    socket = folder / "socket"
    server = subprocess.Popen([*argv, "--unixsocket", str(socket)], stdout=subprocess.DEVNULL)
    client = redis.Redis(unix_socket_path=str(socket))
    try:
        for _ in range(500):
            if socket.exists():
                break
            with pytest.raises(subprocess.TimeoutExpired):
                server.wait(0.01)
        client.ping()
        yield client
    finally:
        client.close()
        server.terminate()
        server.wait(10)
        shutil.rmtree(folder)

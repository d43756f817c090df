"""Connections that say nothing, or half of something, are closed; all others are left alone."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.server import ServerState

from enrich.api import connections, guard
from enrich.api.guard import Guard
from tests.conftest import wait_for

#: Of an answer: more than the buffers of two sockets hold.
LARGE = 40 * 1024 * 1024

GET = b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[uvicorn.Server]:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(connections, "TAKE_SECONDS", 0.5)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            await asyncio.sleep(0.6)
        told = "x" * LARGE if scope["path"] == "/large" else scope["path"]
        await PlainTextResponse(told)(scope, receive, send)

    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http=connections.PunctualProtocol, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    wait_for(lambda: server.started)
    yield server
    server.should_exit = True
    thread.join(10)
    listener.close()


@pytest.fixture
def port(server: uvicorn.Server) -> int:
    return int(server.servers[0].sockets[0].getsockname()[1])


def until_closed(connection: socket.socket) -> bytes:
    got = b""
    while part := connection.recv(65536):
        got += part
    return got


@pytest.mark.parametrize("begun", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: "])
def test_who_sends_no_head_is_cut_off(port: int, begun: bytes) -> None:
    with closing(socket.create_connection(("127.0.0.1", port), timeout=30)) as connection:
        connection.sendall(begun)
        assert until_closed(connection) == b""


def test_a_later_request_has_to_come_in_time_too(port: int) -> None:
    with closing(socket.create_connection(("127.0.0.1", port), timeout=30)) as connection:
        connection.sendall(GET % b"one" + b"GET /two HTTP/1.1\r\n")
        got = until_closed(connection)
        assert got.count(b"HTTP/1.1 200") == 1 and got.endswith(b"/one")


def test_an_answer_that_takes_long_is_not_cut(port: int) -> None:
    with closing(socket.create_connection(("127.0.0.1", port), timeout=30)) as connection:
        # The next request has begun meanwhile.
        connection.sendall(GET % b"slow" + b"GET /two HTTP/1.1\r\n")
        assert until_closed(connection).endswith(b"/slow")


def test_who_takes_nothing_of_an_answer_is_cut_off(server: uvicorn.Server, port: int) -> None:
    with closing(socket.create_connection(("127.0.0.1", port), timeout=30)) as connection:
        connection.sendall(GET % b"large")
        wait_for(lambda: server.server_state.total_requests == 1)
        wait_for(lambda: not server.server_state.connections)
        # What the kernel still had of it.
        assert len(until_closed(connection)) < LARGE


def test_who_takes_some_of_an_answer_is_waited_for() -> None:
    """By hand, since how much is taken in a while is a matter of clocks."""
    waits: list[Callable[[], None]] = []
    waiting, aborted = [900], []
    loop = SimpleNamespace(call_later=lambda _, call, *given: waits.append(partial(call, *given)))
    config = uvicorn.Config(PlainTextResponse(""), log_config=None)
    config.load()
    protocol = connections.PunctualProtocol(config, ServerState(), {}, _loop=cast(Any, loop))
    protocol.transport = cast(
        Any,
        SimpleNamespace(
            get_write_buffer_size=lambda: waiting[-1], abort=lambda: aborted.append(True)
        ),
    )
    protocol.flow = FlowControl(protocol.transport)
    protocol.pause_writing()
    for left in (500, 499):
        waiting.append(left)
        waits.pop()()
        assert waits and not aborted
    waits.pop()()
    assert aborted and not waits


def test_more_requests_than_can_be_under_way_are_told_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guard, "MOST_REQUESTS", 2)
    told: list[Any] = []

    async def play() -> None:
        free = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await free.wait()
            await PlainTextResponse("")(scope, receive, send)

        async def send(message: Any) -> None:
            told.append(message)

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        guarded = Guard(app, hosts=None)
        scope = {"type": "http", "method": "GET", "path": "/api/v1/search", "headers": []}
        first = [asyncio.create_task(guarded(scope, receive, send)) for _ in range(2)]
        await asyncio.sleep(0)
        await guarded(scope, receive, send)
        free.set()
        await asyncio.gather(*first)
        await guarded(scope, receive, send)

    asyncio.run(play())
    starts = [one for one in told if one["type"] == "http.response.start"]
    assert [one["status"] for one in starts] == [503, 200, 200, 200]
    headers = dict(starts[0]["headers"])
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"retry-after"] == b"1"

"""The proxy that alters answers: what it passes on, what it changes, and how it hangs up."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest

from dev.http_proxy import Answered, Asked, Forward, HttpProxy, unaltered
from dev.services import free_ports


@pytest.fixture
def proxies() -> Iterator[tuple[HttpProxy, httpx2.Client]]:
    """A server (itself a proxy that says what it was asked), before which a proxy stands; and a
    client of the latter."""

    def say(asked: Asked, _: Forward) -> Answered:
        words = [asked.method, asked.path, asked.content_type, asked.body.decode()]
        return Answered(status=201, content_type="text/plain", body=" ".join(words).encode())

    with (
        HttpProxy("http://127.0.0.1:1") as server,
        HttpProxy(f"http://127.0.0.1:{server.port}") as proxy,
        httpx2.Client(base_url=f"http://127.0.0.1:{proxy.port}") as client,
    ):
        server.alter = say
        yield proxy, client


def test_it_passes_on_what_it_is_not_told_to_alter(
    proxies: tuple[HttpProxy, httpx2.Client],
) -> None:
    _, client = proxies
    for _ in range(3):
        answer = client.post("/a?b=c", content=b"{}", headers={"content-type": "x/y"})
        assert (answer.status_code, answer.text) == (201, "POST /a?b=c x/y {}")
        assert answer.headers["content-type"] == "text/plain"
    assert client.head("/").status_code == 201


def test_it_alters_requests_and_answers(proxies: tuple[HttpProxy, httpx2.Client]) -> None:
    proxy, client = proxies

    def other(asked: Asked, forward: Forward) -> Answered:
        changed = Asked(method="PUT", path="/other", content_type="", body=b"body")
        return Answered(status=429, body=forward(changed).body)

    proxy.alter = other
    answer = client.get("/")
    assert (answer.status_code, answer.text.split()) == (429, ["PUT", "/other", "body"])
    proxy.alter = unaltered
    assert client.get("/").status_code == 201


def test_it_hangs_up_in_the_body(proxies: tuple[HttpProxy, httpx2.Client]) -> None:
    proxy, client = proxies
    proxy.alter = lambda asked, forward: Answered(body=b"0123456789", hang_up=True)
    with pytest.raises(httpx2.RemoteProtocolError):
        client.get("/")
    proxy.alter = unaltered
    assert client.get("/").status_code == 201


def test_without_its_server_it_answers_as_gateways_do() -> None:
    (port,) = free_ports(1)
    with HttpProxy(f"http://127.0.0.1:{port}") as proxy:
        answer = httpx2.get(f"http://127.0.0.1:{proxy.port}/")
    assert (answer.status_code, answer.headers["content-type"]) == (502, "text/html")

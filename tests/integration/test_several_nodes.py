"""OpenSearch under a path and by several addresses, one of them dead, one silent, one of another
cluster: the real node behind proxies stands for all of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from typer.testing import CliRunner

from dev.embedding_model import Model
from dev.http_proxy import Alter, Answered, Asked, Forward, HttpProxy
from dev.services import Services, free_ports
from dev.tcp_proxy import TcpProxy
from enrich.cli import app
from enrich.errors import Halt
from enrich.log_store import connection as connections
from enrich.settings import Settings
from enrich.worker import start
from tests.conftest import Pipeline, Search
from tests.integration.test_cycle import INDEX, assert_adds_up, assert_right_vectors, logs

PATH = "/search/v1"


def under_a_path(seen: list[str]) -> Alter:
    """As a proxy that has OpenSearch at PATH and a page everywhere else."""

    def alter(asked: Asked, forward: Forward) -> Answered:
        seen.append(f"{asked.method} {asked.path}")
        if not asked.path.startswith(f"{PATH}/"):
            return Answered(status=404, content_type="text/html", body=b"<h1>Not here</h1>")
        return forward(
            Asked(
                method=asked.method,
                path=asked.path.removeprefix(PATH),
                content_type=asked.content_type,
                body=asked.body,
            )
        )

    return alter


def of_another_cluster(asked: Asked, forward: Forward) -> Answered:
    answered = forward(asked)
    if asked.path != "/":
        return answered
    root = json.loads(answered.body) | {"cluster_name": "other", "cluster_uuid": "another-uuid"}
    return Answered(body=json.dumps(root).encode())


@pytest.fixture
def proxy(clean: Services) -> Iterator[Callable[..., HttpProxy]]:
    with ExitStack() as stack:

        def make(alter: Alter) -> HttpProxy:
            made = stack.enter_context(HttpProxy(clean.opensearch.url))
            made.alter = alter
            return made

        yield make


@pytest.fixture
def at(settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets OPENSEARCH_URL, in place of the host and the port of the stack."""

    def set_url(*urls: str) -> None:
        for name in ("OPENSEARCH_HOST", "OPENSEARCH_PORT", "OPENSEARCH_USE_SSL"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("OPENSEARCH_URL", ",".join(urls))

    return set_url


def check() -> str:
    return CliRunner().invoke(app, ["check"], env={"COLUMNS": "400"}).output


def test_a_run_goes_over_a_path_past_nodes_that_are_dead_or_silent(
    clean: Services, search: Search, model: Model, pipeline: Callable[..., Pipeline],
    proxy: Callable[..., HttpProxy], at: Callable[..., None], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    search.create(INDEX)
    search.index(INDEX, logs(300, 60))
    seen: list[str] = []
    alive = proxy(under_a_path(seen))
    monkeypatch.setattr(connections, "PROBE_SECONDS", 0.5)
    with TcpProxy(clean.opensearch.port) as silent:
        silent.set("hang")
        urls = [
            f"http://127.0.0.1:{free_ports(1)[0]}",
            f"http://127.0.0.1:{silent.port}",
            f"http://127.0.0.1:{alive.port}{PATH}",
        ]
        at(*urls)
        record = pipeline().run()
        told = check()

    assert_adds_up(record)
    assert record.vectors_written == assert_right_vectors(search, INDEX, model) == 300
    assert seen and all(line.partition(" ")[2].startswith(f"{PATH}/") for line in seen)
    assert f"node {urls[0]} is left out until it answers: OpenSearch at {urls[0]} cannot" in told
    assert f"node {urls[1]} is left out until it answers: OpenSearch at {urls[1]} did not" in told
    assert f"node {urls[2]} answers" in told


def test_a_node_of_another_cluster_ends_the_start_and_each_run(
    clean: Services, search: Search, pipeline: Callable[..., Pipeline],
    settings: Callable[..., Settings], proxy: Callable[..., HttpProxy], at: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    search.create(INDEX)
    search.index(INDEX, logs(5, 5))
    own, stranger = proxy(lambda asked, forward: forward(asked)), proxy(of_another_cluster)
    at(f"http://127.0.0.1:{own.port}", f"http://127.0.0.1:{stranger.port}")
    sentence = "OPENSEARCH_URL names nodes of two clusters"

    one = pipeline()
    with pytest.raises(Halt, match=sentence):
        one.store.version()
    assert sentence in check()
    with pytest.raises(SystemExit) as ended:
        start.end_if_impossible(settings(), parts=True)
    assert ended.value.code == start.REFUSED
    assert capsys.readouterr().err.startswith(f"enrich: {sentence}")
    assert sentence in one.run().halt_reason
    assert not any("log_vector" in source for source in search.sources(INDEX).values())


def test_a_wrong_path_is_one_sentence(
    search: Search, proxy: Callable[..., HttpProxy], at: Callable[..., None],
    settings: Callable[..., Settings],
) -> None:  # fmt: skip
    at(f"http://127.0.0.1:{proxy(under_a_path([])).port}/other")
    told = check()
    assert "web page came instead of its answer (404): check the path in OPENSEARCH_URL" in told
    assert "Traceback" not in told

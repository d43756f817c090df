"""The service while a server behind it is away or hangs: what needs that server says so, the rest
goes on, nothing is told that is not for callers, and all comes back by itself.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dev.api_control import ApiControl
from dev.http_proxy import Answered, Asked, Forward, HttpProxy
from dev.service import Service
from dev.services import Services
from enrich.api.keys import new_entry
from enrich.api.vectors import ENOUGH_TEXTS
from tests.conftest import Search, running, wait_for
from tests.served import MODEL, Served

#: Of a caller without limits, of one with a rate and of one with a budget.
KEYS = ("key-free", "key-slow", "key-poor")

V2 = "/api/v2-langgraph"

SERVERS = ("redis", "opensearch", "embeddings")

#: Routes that give vectors of texts.
OF_TEXTS = ("/v1/embeddings", "/api/v1/embedding", "/api/v1/embedding/batch")

#: Routes that ask OpenSearch alone.
OF_OPENSEARCH = (
    "/api/v1/groups",
    f"{V2}/statistics/compare?project_uuid=shop",
    f"{V2}/statistics/hourly?project_uuid=shop",
)


@pytest.fixture(scope="module")
def others() -> Iterator[Services]:
    """A Redis and an embeddings API that may be ended."""
    with running("tests-outages", opensearch=False) as services:
        yield services


@pytest.fixture
def api(others: Services) -> Iterator[ApiControl]:
    control = ApiControl(others.embeddings.url, others.control_key)
    control.reset()
    yield control
    control.close()


@pytest.fixture
def service(
    serve: Callable[..., Served], others: Services, search: Search, tmp_path: Path
) -> Iterator[Served]:
    search.create("shop_2026_11")
    now = f"{datetime.now(UTC):%FT%TZ}"
    search.index("shop_2026_11", [{"level": "INFO", "message": "m", "timestamp": now}] * 20)
    free, slow, poor = (new_entry(key.removeprefix("key-"), key) for key in KEYS)
    entries = [free, {**slow, "requests_per_minute": 1000}, {**poor, "usd_per_day": 9.0}]
    (tmp_path / "keys.json").write_text(json.dumps(entries))
    own = {**others.environment(), "OPENAI_TIMEOUT_SECONDS": "5"}
    yield serve(ENRICH_API_KEYS_FILE=str(tmp_path / "keys.json"), **own)
    for one in (others.redis, others.embeddings):
        well_again(one)


def well_again(server: Service) -> None:
    if server.running:
        os.killpg(server.pid, signal.SIGCONT)
    server.start()


def asked(service: Served, path: str, text: str = "", key: str = KEYS[0]) -> httpx2.Response:
    """Args: text: posted in the form of that route; without one the route is got."""
    headers = {"authorization": f"Bearer {key}"}
    if not text:
        return service.http.get(path, headers=headers)
    body: Any = {
        "/v1/embeddings": {"model": MODEL, "input": text},
        "/api/v1/embedding": {"text": text},
        "/api/v1/embedding/batch": {"logs": [{"log_id": "1", "message": text}]},
    }[path]
    return service.http.post(path, json=body, headers=headers)


def all_well(service: Served, text: str) -> None:
    all_ready = {"ready": True, "servers": dict.fromkeys(SERVERS, "ok")}
    wait_for(lambda: asked(service, "/readyz").json() == all_ready)
    for path in (*OF_TEXTS, f"/api/v1/search?q={text}", *OF_OPENSEARCH):
        of_texts = path in OF_TEXTS
        assert asked(service, path, f"{text} {path}" if of_texts else "").status_code == 200, path
    for key in KEYS:
        assert asked(service, "/v1/models", key=key).status_code == 200


def outage(service: Served, away: str) -> dict[str, httpx2.Response]:
    """What every route answers then. Asked at once, so that a server that hangs is waited for once.

    Args:
        away: the server; a text of its own for each route has its name.
    """
    routes = {
        "/healthz": "", "/readyz": "", "/metrics": "", "/v1/models": "",
        f"/api/v1/search?q=words+{away}": "",
        **{path: f"sekret {away} {path}" for path in OF_TEXTS},
        **dict.fromkeys(OF_OPENSEARCH, ""),
    }  # fmt: skip
    with ThreadPoolExecutor(len(routes)) as pool:
        answers = pool.map(lambda path: asked(service, path, routes[path]), routes)
        return dict(zip(routes, answers, strict=True))


def up(answer: httpx2.Response) -> dict[str, float]:
    """Of /metrics."""
    return {
        sample.labels["server"]: sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if sample.name == "enrich_up"
    }


def assert_told(answer: httpx2.Response, path: str, server: str) -> None:
    """That a server is away: in the route's form, when to come again, and not where it is."""
    assert answer.status_code == 503, path
    assert int(answer.headers["retry-after"]) >= 1
    if path.startswith("/v1/"):
        error = answer.json()["error"]
        assert (error["type"], set(error)) == ("server_error", {"message", "type", "param", "code"})
        sentence = error["message"]
    else:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["title"] == "Service Unavailable"
        sentence = answer.json()["detail"]
    assert server in sentence
    assert "127.0.0.1" not in answer.text and "sekret" not in answer.text


def assert_nothing_told(service: Served) -> None:
    told = service.told()
    assert "Traceback" not in told
    assert not any(secret in told for secret in ("sekret", "words", "before", "after", *KEYS))


def hang(server: Service) -> None:
    os.killpg(server.pid, signal.SIGSTOP)


@pytest.mark.parametrize("end", [Service.kill, hang])
def test_without_redis_nothing_is_bought_and_what_opensearch_knows_is_told(
    service: Served, others: Services, api: ApiControl, end: Callable[[Service], None]
) -> None:
    all_well(service, "before")
    bought = api.seen["inputs"]
    end(others.redis)
    answers = outage(service, "redis")
    for path in (*OF_TEXTS, "/api/v1/search?q=words+redis"):
        assert_told(answers[path], path, "Redis")
    for path in ("/healthz", "/v1/models", *OF_OPENSEARCH):
        assert answers[path].status_code == 200, path
    assert answers["/readyz"].status_code == 503
    assert answers["/readyz"].json()["servers"]["redis"] != "ok"
    assert answers["/metrics"].status_code == 200
    assert up(answers["/metrics"]) == {"redis": 0, "opensearch": 1}
    # Of these it has to be looked up there what they have used.
    for key in KEYS[1:]:
        assert_told(asked(service, "/v1/models", key=key), "/v1/models", "Redis")
    with pytest.raises(openai.InternalServerError) as refused:
        service.openai(KEYS[0]).embeddings.create(model=MODEL, input="sekret, and new")
    assert refused.value.status_code == 503
    assert api.seen["inputs"] == bought

    well_again(others.redis)
    all_well(service, "after")
    assert_nothing_told(service)


@pytest.mark.parametrize("end", [Service.kill, hang])
def test_without_the_embeddings_api_what_is_known_is_given(
    service: Served, others: Services, api: ApiControl, end: Callable[[Service], None]
) -> None:
    all_well(service, "before")
    end(others.embeddings)
    answers = outage(service, "api")
    for path in (*OF_TEXTS, "/api/v1/search?q=words+api"):
        assert_told(answers[path], path, "the embeddings API")
    for path in ("/healthz", "/v1/models", "/metrics", *OF_OPENSEARCH):
        assert answers[path].status_code == 200, path
    for path in OF_TEXTS:
        known = asked(service, path, f"before {path}")
        assert (known.status_code, known.headers["x-enrich-paid-inputs"]) == (200, "0"), path
    assert asked(service, "/api/v1/search?q=before").status_code == 200
    known, new = "before /api/v1/embedding/batch", "sekret, and new"
    logs = [{"log_id": str(n), "message": text} for n, text in enumerate((new, known, new, " "))]
    batch = service.http.post(
        "/api/v1/embedding/batch",
        json={"logs": logs},
        headers={"authorization": f"Bearer {KEYS[0]}"},
    )
    assert (batch.status_code, batch.json()["count"]) == (207, 1)
    first, second, third, empty = batch.json()["embeddings"]
    assert len(second["embedding"]) == 1536
    for item in (first, third):
        assert item["error"]["code"] == "deferred"
        assert item["error"]["message"].startswith("the embeddings API ")
    assert empty["error"]["code"] == "message_empty"
    assert "127.0.0.1" not in batch.text
    with pytest.raises(openai.InternalServerError) as refused:
        service.openai(KEYS[0]).embeddings.create(model=MODEL, input="sekret, and new")
    assert refused.value.status_code == 503

    well_again(others.embeddings)
    all_well(service, "after")
    assert_nothing_told(service)


class Hanging:
    """A server before which requests to some path are taken and not answered."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.hangs = False
        self.taken = 0
        self.ended = threading.Event()

    def __call__(self, asked: Asked, forward: Forward) -> Answered:
        if not self.hangs or self._path not in asked.path:
            return forward(asked)
        self.taken += 1
        self.ended.wait(60)
        return Answered(status=503)


#: More than there are threads that ask a server, and what is sent of them before one is given up,
#: with some tries whether it answers again.
CALLERS, SENT = 60, 40


@pytest.mark.parametrize("away", ["embeddings", "opensearch"])
def test_who_comes_after_those_that_waited_in_vain_is_told_at_once(
    serve: Callable[..., Served], clean: Services, search: Search, away: str
) -> None:
    search.create("shop_2026_11")
    server = Hanging("/embeddings" if away == "embeddings" else "_search")
    target = clean.environment()
    url = clean.embeddings.url if away == "embeddings" else search.url
    with HttpProxy(url) as proxy:
        proxy.alter = server
        seconds = {"OPENAI_TIMEOUT_SECONDS": "3", "OPENSEARCH_TIMEOUT_SECONDS": "3"}
        through = {"OPENSEARCH_PORT": str(proxy.port)}
        if away == "embeddings":
            path = urlsplit(target["OPENAI_BASE_URL"]).path
            through = {"OPENAI_BASE_URL": f"http://127.0.0.1:{proxy.port}{path}"}
        service = serve(**seconds, **through)
        assert asked(service, "/api/v1/search?q=known").status_code == 200

        def ask(number: int) -> int:
            if away == "opensearch":
                return asked(service, "/api/v1/search?q=known").status_code
            # So many that they are a request of their own.
            texts = [f"sekret {number} {n}" for n in range(ENOUGH_TEXTS)]
            told = service.http.post("/v1/embeddings", json={"model": MODEL, "input": texts})
            return told.status_code

        server.hangs = True
        with ThreadPoolExecutor(CALLERS) as callers:
            assert set(callers.map(ask, range(CALLERS))) == {503}
        assert 0 < server.taken < SENT
        server.hangs = False
        server.ended.set()
        wait_for(lambda: ask(CALLERS) == 200)
        assert {ask(number) for number in range(3)} == {200}
    assert_nothing_told(service)


def test_it_is_not_ready_while_the_embeddings_api_is_away(
    service: Served, others: Services
) -> None:
    others.embeddings.kill()
    away = {"embeddings": "the embeddings API cannot be reached: check OPENAI_BASE_URL"}
    told = {"ready": False, "servers": {**dict.fromkeys(SERVERS, "ok"), **away}}
    wait_for(lambda: asked(service, "/readyz").json() == told)
    assert asked(service, "/readyz").status_code == 503
    others.embeddings.start()
    wait_for(lambda: asked(service, "/readyz").status_code == 200)

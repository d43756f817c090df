"""The service's application over HTTP, with what its routes work with in memory: forms and statuses
of answers, and that no server which hangs, no caller who goes and no fault of ours costs others.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import Mock
from zoneinfo import ZoneInfo

import httpx2
import pytest
from starlette.testclient import TestClient

from enrich.api import callers
from enrich.api.app import build_app, build_asgi
from enrich.api.keys import Key, Keys
from enrich.api.openai_form import Form
from enrich.api.opinions import NOBODY
from enrich.api.outage import Outage
from enrich.api.parts import Parts
from enrich.api.routes import operations
from enrich.errors import ServerUnavailable
from enrich.log_store.project_logs import ProjectUnknown
from tests.unit.test_statistics import Store, store_of

COMPARE = "/api/v2-langgraph/statistics/compare"
HOURLY = "/api/v2-langgraph/statistics/hourly"
MODEL = "text-embedding-3-large"


class OneProject(Store):
    """Knows `shop` alone; its logs are of the last ten hours."""

    def indices_of(self, project: str) -> list[str]:
        found = super().indices_of(project)
        if project != "shop":
            raise ProjectUnknown("no index belongs to this project")
        return found


@pytest.fixture
def parts() -> Iterator[Callable[..., Parts]]:
    threads = ThreadPoolExecutor(2)

    def made(**other: Any) -> Parts:
        given: dict[str, Any] = {
            **dict.fromkeys(Parts.__dataclass_fields__, Mock()),
            "model": MODEL,
            "dimensions": 8,
            "keys": Keys({}),
            "form": Form(model=MODEL, dimensions=8),
            "rewrite": None,
            "opensearch": Outage(),
            "searching": threads,
            "zone": lambda: ZoneInfo("Asia/Seoul"),
            "commentator": NOBODY,
            "servers": {"redis": lambda: None},
        }
        return Parts(**{**given, **other})

    yield made
    threads.shutdown(cancel_futures=True)


def asked(of: Parts) -> TestClient:
    return TestClient(build_asgi(of), base_url="http://localhost", raise_server_exceptions=False)


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> OneProject:
    logs = store_of(2000, 200, 400, 1200).logs
    late = datetime.now(UTC) - max(at for _, at in logs) - timedelta(minutes=1)
    return OneProject([(log, at + late) for log, at in logs])


def test_statistics_have_the_fields_that_were_agreed_on(
    parts: Callable[..., Parts], shop: OneProject
) -> None:
    with asked(parts(level_counts=shop)) as http:
        both = http.get(COMPARE, params={"project_uuid": "shop"}).json()
        hours = http.get(HOURLY, params={"project_uuid": "shop", "time_hours": 12}).json()
    assert list(both) == [
        "project_uuid", "analysis_period_hours", "sample_size", "analyzed_at", "db_statistics",
        "ai_statistics", "accuracy_metrics", "verdict",
    ]  # fmt: skip
    assert (both["analysis_period_hours"], both["sample_size"]) == (24, 100)
    assert list(both["db_statistics"]) == [
        "total_logs", "error_count", "warn_count", "info_count", "error_rate", "peak_hour",
        "peak_count",
    ]  # fmt: skip
    estimates = [
        "estimated_total_logs", "estimated_error_count", "estimated_warn_count",
        "estimated_info_count", "estimated_error_rate",
    ]  # fmt: skip
    ai = both["ai_statistics"]
    assert {*estimates, "confidence_score", "reasoning"} <= ai.keys()
    assert list(ai["intervals"]) == estimates
    assert all(
        limits["low"] <= ai[name] <= limits["high"] for name, limits in ai["intervals"].items()
    )
    assert list(both["accuracy_metrics"]) == [
        "total_logs_accuracy", "error_count_accuracy", "warn_count_accuracy",
        "info_count_accuracy", "error_rate_accuracy", "overall_accuracy", "ai_confidence",
    ]  # fmt: skip
    assert {"grade", "can_replace_db", "explanation", "recommendations"} <= both["verdict"].keys()
    assert list(hours) == [
        "project_uuid", "analysis_period_hours", "total_logs", "error_rate", "peak_hour",
        "peak_count", "hourly_data",
    ]  # fmt: skip
    assert {tuple(hour) for hour in hours["hourly_data"]} == {
        ("hour", "total", "error", "warn", "info")
    }
    assert (hours["total_logs"], hours["error_rate"]) == (2000, 10.0)


@pytest.mark.parametrize("route", [COMPARE, HOURLY])
def test_what_is_no_project_or_out_of_bounds_is_a_problem(
    parts: Callable[..., Parts], shop: OneProject, route: str
) -> None:
    wrong: list[tuple[dict[str, Any], int]] = [
        *(({"project_uuid": id_}, 422) for id_ in (
            "", "*", "sho*", "shop,other", "-shop", "_all", "..", "shop/_search", "%2A", "shop%2Cx",
            "shop?x", "shop#x", "shop x", "shop\n", "<shop>", "x" * 300, "shop\x00", "상점",
        )),
        ({}, 422),
        *(({"project_uuid": "shop", "time_hours": n}, 422) for n in (0, 169, -1, "a", "1.5", "")),
        *(({"project_uuid": id_}, 404) for id_ in ("other", "sho", "SHOP", "shop_2026_11")),
    ]  # fmt: skip
    if route == COMPARE:
        wrong += [({"project_uuid": "shop", "sample_size": n}, 422) for n in (9, 501, 0, "x")]
    with asked(parts(level_counts=shop)) as http:
        for params, status in wrong:
            answer = http.get(route, params=params)
            assert answer.status_code == status, params
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["detail"]
        # None of them was asked for; nor are these, whatever they put behind the id.
        assert shop.asked == []
        for injected in ("shop&project_uuid=*", "*&project_uuid=shop%2C*", "shop%26x=*"):
            assert http.get(f"{route}?project_uuid={injected}").status_code in (404, 422), injected
        assert shop.asked == []
        shop.logs.clear()
        none = http.get(route, params={"project_uuid": "shop"})
    assert none.status_code == 404
    assert "no logs in this period" in none.json()["detail"]


def test_a_fault_that_nobody_foresaw_is_a_problem_document(parts: Callable[..., Parts]) -> None:
    broken = Mock()
    broken.most.side_effect = broken.read.side_effect = KeyError("a secret text")
    with asked(parts(frequent_texts=broken, form=broken)) as http:
        for answer in (http.get("/api/v1/groups"), http.post("/v1/embeddings", content=b"{}")):
            assert answer.status_code == 500
            assert "fault of the service" in answer.text and "secret" not in answer.text
            assert answer.json()


def test_no_page_of_another_origin_may_read_answers(parts: Callable[..., Parts]) -> None:
    origin = {"origin": "http://localhost:3000"}
    preflight = {**origin, "access-control-request-method": "POST"}
    with asked(parts()) as http:
        for answer in (
            http.options("/v1/embeddings", headers=preflight),
            http.get("/healthz", headers=origin),
        ):
            assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_body_that_is_cut_off_is_no_fault(parts: Callable[..., Parts]) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    for path in ("/v1/embeddings", "/api/v1/embedding"):
        received = iter([{"type": "http.request", "body": b"{", "more_body": True}])

        async def receive(messages: Iterator[Any] = received) -> Any:
            return next(messages, {"type": "http.disconnect"})

        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {
            "type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b"",
        }  # fmt: skip
        asyncio.run(build_asgi(parts())(scope, receive, send))
    assert [one["status"] for one in sent if "status" in one] == [400, 400]


def test_a_server_that_hangs_is_looked_at_once_however_many_ask(
    parts: Callable[..., Parts], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "READY_SECONDS", 0.05)
    over, looked = threading.Event(), []

    def hangs() -> None:
        looked.append(1)
        over.wait(60)

    def away() -> None:
        raise ServerUnavailable("OpenSearch at https://10.0.0.7:9200 cannot be reached")

    with asked(parts(servers={"redis": hangs, "opensearch": away})) as http:
        for _ in range(3):
            answer = http.get("/readyz")
            assert (answer.status_code, answer.json()["servers"]) == (503, {
                "redis": "it did not answer within 0.05 s",
                "opensearch": "OpenSearch cannot be reached",
            })  # fmt: skip
        assert len(looked) == 1
        over.set()
        monkeypatch.setattr(operations, "READY_SECONDS", 60)
        assert http.get("/readyz").json()["servers"]["redis"] == "ok"


def test_who_has_a_key_with_a_rate_does_not_wait_for_all_who_came_before(
    parts: Callable[..., Parts], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callers, "ADMIT_SECONDS", 0.05)
    over = threading.Event()
    digest = hashlib.sha256(b"k").hexdigest()
    keys = Keys({digest: Key(name="desk", sha256=digest, requests_per_minute=10)})
    of = parts(keys=keys, admit=lambda key: over.wait(60))
    with asked(of) as http, ThreadPoolExecutor(40) as many:
        answers = [
            many.submit(http.get, "/v1/models", headers={"authorization": "Bearer k"})
            for _ in range(40)
        ]
        # None of them is let through by time: Redis hangs until all were answered.
        statuses = {one.result().status_code for one in answers}
        over.set()
        assert statuses == {503}
        monkeypatch.setattr(callers, "ADMIT_SECONDS", 60)
        assert http.get("/v1/models", headers={"authorization": "Bearer k"}).status_code == 200


def test_who_searches_where_opensearch_hangs_keeps_nobody_else_waiting(
    parts: Callable[..., Parts], shop: OneProject
) -> None:
    over, begun = threading.Event(), threading.Event()

    def hangs(*_: Any) -> None:
        begun.set()
        over.wait(60)
        raise ServerUnavailable("OpenSearch did not answer")

    hanging = Mock()
    hanging.most.side_effect = hanging.nearest.side_effect = hangs
    hanging.indices_of.side_effect = hangs
    key = Key(name="a", sha256=hashlib.sha256(b"k").hexdigest(), requests_per_minute=9)
    of = parts(
        frequent_texts=hanging,
        level_counts=hanging,
        error_kinds=hanging,
        keys=Keys({key.sha256: key}),
    )

    async def play() -> int:
        transport = httpx2.ASGITransport(app=build_app(of))
        headers = {"authorization": "Bearer k"}
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://localhost", headers=headers, timeout=120
        ) as http:
            waiting = [
                asyncio.create_task(http.get(route, params={"project_uuid": "shop"}))
                for route in (
                    "/api/v1/groups", HOURLY, COMPARE,
                    "/api/v2-langgraph/experiments/vector-vs-db",
                )
                for _ in range(40)
            ]  # fmt: skip
            while not begun.is_set():
                await asyncio.sleep(0.01)
            try:
                # Its rate is looked at in a thread too.
                answer = await asyncio.wait_for(http.get("/v1/models"), 30)
                assert not any(one.done() for one in waiting)
            finally:
                over.set()
            assert {one.status_code for one in await asyncio.gather(*waiting)} == {503}
        return answer.status_code

    assert asyncio.run(play()) == 200

"""The HTTP service as an OpenSearch user of its own, who may read what it needs and write nothing:
with its role every route answers, and without any right of it one of them does not.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from enrich import wiring
from enrich.api.app import build_app
from enrich.api.keys import read_keys
from enrich.api.parts import Parts
from enrich.log_store import LogStore
from enrich.log_store.refusals import RightMissing
from enrich.status.metrics import EnrichCollector
from enrich.status.reader import build_reader
from tests.conftest import PREFIX, ROOT
from tests.secured import PASSWORD, SecuredCluster, User

INDEX = "shop_logs_2026_11"
BY_PROJECT = "/api/v2-langgraph"


def role() -> dict[str, Any]:
    return dict(json.loads((ROOT / "deploy" / "opensearch-role-service.json").read_text()))


def rights() -> list[str]:
    """Those of an index with its name before them, but for indices of logs."""
    given = role()
    of_logs, of_runs = (each["allowed_actions"] for each in given["index_permissions"])
    return [*given["cluster_permissions"], *of_logs, *(f"enrich-runs {right}" for right in of_runs)]


def user(secured: SecuredCluster, without: str = "") -> User:
    """Someone with the service's role, but for one right, as `rights` names it."""
    given = role()
    of_logs, of_runs = (each["allowed_actions"] for each in given["index_permissions"])
    for prefix, allowed in (
        ("", given["cluster_permissions"]),
        ("", of_logs),
        ("enrich-runs ", of_runs),
    ):
        allowed[:] = [right for right in allowed if prefix + right != without]
    # A role may not be empty of them.
    given["index_permissions"] = [
        each for each in given["index_permissions"] if each["allowed_actions"]
    ]
    secured.api("PUT", "roles/service", given)
    secured.api("PUT", "internalusers/service", {"password": PASSWORD})
    secured.api("PUT", "rolesmapping/service", {"users": ["service"]})
    return User(name="service", password=PASSWORD)


def answers(secured: SecuredCluster, of: User) -> dict[str, tuple[int, str]]:
    """Status and body by route, with nothing of them that differs from one time to the next."""
    settings = secured.settings(of, enrich_redis_prefix=PREFIX, enrich_history=True)
    registry = CollectorRegistry()
    registry.register(EnrichCollector(build_reader(settings).read))
    parts = wiring.build_service(settings, read_keys(""), lambda: generate_latest(registry))
    try:
        return asyncio.run(_asked(parts))
    finally:
        parts.close()


async def _asked(parts: Parts) -> dict[str, tuple[int, str]]:
    project = {"project_uuid": "shop_logs", "seed": "1"}
    found = {}
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=build_app(parts)), base_url="http://localhost"
    ) as http:
        for route, params in (
            ("/readyz", {}),
            ("/api/v1/search", {"q": "payment 3 declined", "k": "1"}),
            ("/api/v1/groups", {"k": "3"}),
            (f"{BY_PROJECT}/statistics/compare", {**project, "sample_size": "10"}),
            (f"{BY_PROJECT}/statistics/hourly", project),
            (f"{BY_PROJECT}/experiments/vector-vs-db", {**project, "k_values": "3"}),
            ("/metrics", {}),
        ):
            answer = await http.get(route, params=params)
            found[route] = answer.status_code, answer.text
        embedded = await http.post("/api/v1/embedding", json={"text": "payment 3 declined"})
        found["/api/v1/embedding"] = embedded.status_code, embedded.text
    return found


def whole(found: dict[str, tuple[int, str]]) -> dict[str, bool]:
    """Which routes answered with all that they have."""
    told = {route: status == 200 for route, (status, _) in found.items()}
    for route in ("/api/v1/search", "/api/v1/groups"):
        told[route] &= '"left_out":[]' in found[route][1]
    experiment = f"{BY_PROJECT}/experiments/vector-vs-db"
    told[experiment] &= "k-NN was not compared" not in found[experiment][1]
    told["/metrics"] &= 'enrich_up{server="opensearch"} 1.0' in found["/metrics"][1]
    told["/metrics"] &= "enrich_backlog" in found["/metrics"][1]
    return told


@pytest.fixture
def logs(secured: SecuredCluster) -> Iterator[None]:
    secured.search.create(INDEX)
    now = datetime.now(UTC) - timedelta(minutes=5)
    documents = [
        {"level": "ERROR", "message": f"payment {n} declined", "timestamp": now.isoformat()}
        for n in range(12)
    ]
    secured.search.index(INDEX, documents)
    writer = secured.user()
    assert secured.pipeline(writer, enrich_history=True).run().vectors_written == 12
    yield


def test_the_services_role_suffices_for_each_route_and_writes_nothing(
    secured: SecuredCluster, logs: None
) -> None:
    of = user(secured)
    found = answers(secured, of)
    assert all(whole(found).values()), found
    store = LogStore(secured.settings(of))
    try:
        for method, path, body in (
            ("PUT", f"/{INDEX}/_doc/x", {"level": "ERROR"}),
            ("POST", f"/{INDEX}/_update/{INDEX}-1", {"doc": {"level": "INFO"}}),
            ("DELETE", f"/{INDEX}/_doc/{INDEX}-1", None),
            ("PUT", "/enrich-runs/_doc/x", {"run": "x"}),
            ("PUT", f"/{INDEX}/_mapping", {"properties": {"x": {"type": "keyword"}}}),
            ("DELETE", f"/{INDEX}", None),
            ("PUT", "/other_logs", None),
        ):
            with pytest.raises(RightMissing):
                store.connection.request(method, path, body)
    finally:
        store.close()


#: Without the first two an answer that leaves out indices, red or blocked, says it of none by name;
#: without the last the metrics know the runs that Redis knows.
MISSED_BY_NO_ROUTE = {
    "cluster:monitor/health",
    "cluster:monitor/state",
    "enrich-runs indices:data/read/search*",
}


@pytest.mark.apart
def test_each_right_of_the_services_role_is_needed(secured: SecuredCluster, logs: None) -> None:
    useless = {
        right for right in rights() if all(whole(answers(secured, user(secured, right))).values())
    }
    assert useless == MISSED_BY_NO_ROUTE

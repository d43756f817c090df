"""`celery -A enrich flower` as operators run it, on real servers: what it shows, to whom, and what
it refuses.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from dev.service import Service
from dev.services import Services, free_ports
from enrich.api.keys import new_entry
from enrich.status.report import Status
from tests.conftest import ROOT, Pipeline, Search, start_worker, wait_for
from tests.served import MODEL, Served

INDEX = "a_b_2026_11"
ARGV = [sys.executable, "-m", "celery", "-A", "enrich", "flower"]
HOSTILE = "<script>alert('reason')</script>"

Start = Callable[..., tuple[str, Service]]


@pytest.fixture
def flower(clean: Services, tmp_path: Path) -> Iterator[Start]:
    """Starts a Flower in a folder without flowerconfig.py; gives its address."""
    with ExitStack() as exits:

        def start(*options: str, **env: str) -> tuple[str, Service]:
            (port,) = free_ports(1)
            service = clean.spawn(
                f"flower-{port}",
                [*ARGV, f"--port={port}", *options],
                env={"PYTHONPATH": str(ROOT), "ENRICH_LOG_FILE": "none", **env},
                cwd=tmp_path,
            )
            exits.callback(service.stop)
            url = f"http://127.0.0.1:{port}"
            wait_for(lambda: answers(url), service)
            return url, service

        yield start


def answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/healthcheck").status_code == 200
    except httpx2.TransportError:
        return False


def metrics(url: str) -> dict[tuple[str, str], float]:
    answer = httpx2.get(f"{url}/metrics", timeout=30)
    assert answer.status_code == 200
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if sample.name.startswith("enrich_")
    }


def some_logs(count: int) -> list[dict[str, Any]]:
    return [
        {"level": "ERROR", "message": f"disk {n} is gone", "timestamp": "2026-11-20T10:00:00Z"}
        for n in range(count)
    ]


def test_the_page_the_json_and_the_metrics_tell_of_the_run(
    flower: Start, search: Search, pipeline: Callable[..., Pipeline]
) -> None:
    search.create(INDEX)
    search.index(INDEX, [*some_logs(11), {"level": "ERROR", "message": ""}])
    search.create(
        "a_float_2026_11",
        mappings={"properties": {"level": {"type": "keyword"}, "log_vector": {"type": "float"}}},
        settings={"index.knn": True},
    )
    search.index("a_float_2026_11", some_logs(2))
    line = pipeline(enrich_redis_prefix="enrich:")
    first = line.run("beat")
    second = line.ledger.runs.open("manual", 600)
    assert second.verdict == "opened"
    line.ledger.runs.halt(second.run, HOSTILE)

    url, _ = flower()
    status = Status.model_validate(httpx2.get(f"{url}/enrichment.json", timeout=30).json())
    assert status.totals.vectors == 11
    assert status.totals.runs == 2
    assert [run.number for run in status.last_runs] == [2, 1]
    assert status.last_runs[1] == first
    assert status.backlog is not None
    backlog = status.backlog
    assert (backlog.with_vector, backlog.without_vector, backlog.failed) == (11, 2, 1)

    page = httpx2.get(f"{url}/enrichment", timeout=30).text
    assert "halted" in page and "a_float_2026_11" in page and INDEX in page
    assert HOSTILE not in page
    assert "&lt;script&gt;alert(&#x27;reason&#x27;)&lt;/script&gt;" in page.replace(
        "&#39;", "&#x27;"
    )
    assert 'href="/enrichment"' in httpx2.get(f"{url}/workers").text

    samples = metrics(url)
    assert samples["enrich_up", "redis"] == samples["enrich_up", "opensearch"] == 1
    assert samples["enrich_vectors_total", ""] == 11
    assert samples["enrich_runs_total", ""] == 2
    assert samples["enrich_run_halted", ""] == 1
    assert samples["enrich_backlog_logs", f"{INDEX},with_vector"] == 11
    assert samples["enrich_backlog_logs", f"{INDEX},failed"] == 1
    assert samples["enrich_backlog_logs", "a_float_2026_11,without_vector"] == 2
    assert samples["enrich_oldest_unvectorized_age_seconds", ""] > 0


def test_what_each_key_of_the_service_spends_is_named(
    flower: Start, serve: Callable[..., Served], tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps([new_entry(name, f"key-{name}") for name in ("bi", "desk")]))
    price = {"ENRICH_PRICE_PER_MILLION_TOKENS": "1000", "ENRICH_REDIS_PREFIX": "enrich:"}
    service = serve(ENRICH_API_KEYS_FILE=str(keys), **price)
    for key, path, body in (
        ("key-bi", "/v1/embeddings", {"model": MODEL, "input": ["three words long", "two words"]}),
        ("key-bi", "/api/v1/embedding", {"text": "one more"}),
        ("key-desk", "/api/v1/embedding", {"text": "one more"}),
        ("key-desk", "/api/v1/embedding", {"text": "and another"}),
    ):
        headers = {"authorization": f"Bearer {key}"}
        assert service.http.post(path, json=body, headers=headers).status_code == 200
    own = service.http.get("/metrics", headers={"authorization": "Bearer key-bi"}).text
    url, _ = flower()
    samples = metrics(url)
    name = "enrich_spent_today_by_project_usd"
    spent = {payer: samples[name, payer] for payer in ("api:bi", "api:desk")}
    # What was known already cost the second caller nothing.
    assert spent["api:bi"] > spent["api:desk"] > 0
    assert sum(spent.values()) == pytest.approx(samples["enrich_spent_today_usd", ""])
    page = httpx2.get(f"{url}/enrichment", timeout=30).text
    for payer, usd in spent.items():
        assert f'{name}{{project="{payer}"}} {usd}' in own
        assert f"Spent today by <bdi>{payer}</bdi>" in page


def test_it_answers_while_the_servers_are_down(flower: Start) -> None:
    first, second = free_ports(2)
    url, _ = flower(OPENSEARCH_PORT=str(first), REDIS_URL=f"redis://127.0.0.1:{second}/0")
    assert metrics(url) == {("enrich_up", "redis"): 0, ("enrich_up", "opensearch"): 0}
    answer = httpx2.get(f"{url}/enrichment", timeout=30)
    assert answer.status_code == 200
    assert "Redis cannot be reached" in answer.text
    assert "OpenSearch at http://127.0.0.1" in answer.text


def test_with_a_login_nothing_is_shown_without_it(flower: Start) -> None:
    # Beyond loopback, as in a container; the login is what makes it permissible.
    url, _ = flower(FLOWER_ADDRESS="0.0.0.0", FLOWER_BASIC_AUTH="ada:secret-word")
    paths = ("/enrichment", "/enrichment.json", "/metrics", "/workers", "/api/workers")
    for path in paths:
        assert httpx2.get(url + path).status_code == 401, path
        assert httpx2.get(url + path, auth=("ada", "wrong")).status_code == 401, path
        assert httpx2.get(url + path, auth=("ada", "secret-word")).status_code == 200, path


def test_it_is_read_only_unless_told_otherwise(flower: Start) -> None:
    login = base64.b64encode(b"ada:word").decode()

    def send(url: str) -> httpx2.Response:
        return httpx2.post(
            f"{url}/api/task/send-task/enrich.unknown",
            headers={"Authorization": f"Basic {login}"},
            content=b'{"args": "not an array"}',
        )

    url, _ = flower(FLOWER_BASIC_AUTH="ada:word")
    assert send(url).status_code == 403
    url, _ = flower(FLOWER_BASIC_AUTH="ada:word", FLOWER_READ_ONLY="false")
    assert send(url).status_code == 400


@pytest.mark.parametrize(
    ("options", "env", "dotenv"),
    [
        (["--address=0.0.0.0"], {}, ""),
        ([], {"FLOWER_ADDRESS": "0.0.0.0"}, ""),
        ([], {"FLOWER_ADDRESS": "::", "FLOWER_BASIC_AUTH": ""}, ""),
        ([], {}, "FLOWER_ADDRESS=0.0.0.0\n"),
        (["--basic-auth="], {"FLOWER_ADDRESS": "0.0.0.0", "FLOWER_BASIC_AUTH": "a:b"}, ""),
    ],
)
def test_it_does_not_open_to_others_without_a_login(
    options: list[str], env: dict[str, str], dotenv: str, clean: Services, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(dotenv)
    ended = subprocess.run(
        [*ARGV, f"--port={free_ports(1)[0]}", *options],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "ENRICH_LOG_FILE": "none"}
        | clean.environment()
        | env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert "set FLOWER_BASIC_AUTH=user:password" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_workers_show_the_counters_and_no_password_shows_anywhere(
    flower: Start, clean: Services, pipeline: Callable[..., Pipeline], search: Search
) -> None:
    search.create(INDEX)
    search.index(INDEX, some_logs(3))
    pipeline(enrich_redis_prefix="enrich:").run("beat")
    secret = "s3cr3t-of-redis"
    connection = redis.Redis.from_url(clean.environment()["REDIS_URL"])
    connection.acl_setuser(
        "flw", enabled=True, passwords=[f"+{secret}"], keys=["*"], channels=["*"],
        categories=["+@all"],
    )  # fmt: skip
    with ExitStack() as exits:
        exits.callback(connection.close)
        exits.callback(connection.acl_deluser, "flw")
        host = clean.environment()["REDIS_URL"].removeprefix("redis://")
        env = {"REDIS_URL": f"redis://flw:{secret}@{host}", "FLOWER_BASIC_AUTH": "ada:word"}
        worker = start_worker(clean, "shown", **env)
        exits.callback(worker.stop)
        url, service = flower(**env)
        client = httpx2.Client(base_url=url, auth=("ada", "word"), timeout=30)
        exits.callback(client.close)

        def known() -> bool:
            names = [name for name in client.get("/api/workers?refresh=1").json()]
            return any(name.startswith("shown@") for name in names)

        wait_for(known, service)
        workers = client.get("/api/workers?refresh=1").json()
        (name,) = (name for name in workers if name.startswith("shown@"))
        page = client.get(f"/worker/{name}").text
        assert "1 runs, 3 vectors, 0 errors" in page
        assert "#1 finished: 3 found: 3 embedded, 0 failed" in page
        shown = [page, json.dumps(workers)]
        shown += [client.get(path).text for path in ("/", "/broker", "/tasks", "/enrichment")]
        shown += [service.log.read_text(), worker.log.read_text()]
        assert "redis://flw:**@" in "".join(shown)
        for text in shown:
            assert secret not in text
            assert clean.environment()["OPENAI_API_KEY"] not in text

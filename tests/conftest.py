"""Fixtures: real services started once, emptied before each test, and two ways to run a cycle.

`pipeline(...)` runs the real backfill on the real services inside the test's process, each message
through JSON, in order: quick, and any step can be observed. `worker` is a real Celery worker.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import redis

from dev.api_control import ApiControl
from dev.embedding_model import Model
from dev.opensearch_releases import OPENSEARCH_2_SECURED, OPENSEARCH_3, release_of
from dev.service import Service
from dev.services import Services
from enrich.backfill.chunk import ChunkBusy
from enrich.backfill.in_memory import InMemoryPublisher
from enrich.errors import RateLimited, ServerUnavailable, TransientError
from enrich.log_store import LogStore, index_template
from enrich.models import Chunk, RunRecord
from enrich.settings import Settings, load_settings
from enrich.wiring import build_backfill, build_ledger

if TYPE_CHECKING:
    from tests.secured import SecuredCluster
    from tests.served import Served
    from tests.topics import Topics

# Tests that stand in no test file, since several of those run them.
pytest.register_assert_rewrite("tests.embedder_contract", "tests.log_store_contract")

ROOT = Path(__file__).parent.parent
DIMENSIONS = 1536

#: Of the pipelines in this process: a worker that other tests keep running may still have a tick to
#: try again, and would begin a run among theirs.
PREFIX = "pipeline:"


#: What takes longest begins first, so that no process is left working alone at the end.
LONGEST = (
    "secured",
    "test_bad_input",
    "test_processes",
    "test_cycle",
    "test_delivery",
    "test_command_line",
    "test_installs",
    "test_redis_rights",
    "test_dev_services",
    "test_refusals_over_http",
)


@cache
def share(file: Path) -> str:
    """What one process runs of the tests: a file; all files that need the secured cluster, whose
    node is started once then."""
    return "secured" if "secured" in file.read_text(encoding="utf-8") else file.stem


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest share first; within a share the order is that of pytest-randomly."""

    def rank(item: pytest.Item) -> int:
        name = share(item.path)
        if name in LONGEST:
            return LONGEST.index(name)
        return len(LONGEST) + (item.path.parent.name == "unit")

    items.sort(key=rank)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand each process one share after the other."""
    from xdist.scheduler import LoadScopeScheduling

    class Shares(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return share(ROOT / nodeid.partition("::")[0])

    return Shares(config, log)


class Search:
    """OpenSearch asked directly, not through the product: the independent witness."""

    def __init__(self, url: str, **client: Any) -> None:
        self.url = url
        self.http = httpx2.Client(base_url=url, timeout=60, **client)

    def __call__(self, method: str, path: str, body: Any = None, *, ok: bool = True) -> Any:
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        for _ in range(120):
            answer = self.http.request(
                method, path, content=content, headers={"content-type": "application/json"}
            )
            # A small node that has just been loaded asks for patience; whoever tests, has it.
            if answer.status_code != 429:
                break
            time.sleep(0.5)
        if ok and answer.status_code >= 300:
            raise AssertionError(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        return answer.json()

    @property
    def version(self) -> tuple[int, ...]:
        """Such as (3, 5, 0): what an older one does not know is left out of a test."""
        return tuple(map(int, self("GET", "/")["version"]["number"].split(".")))

    def create(self, index: str, **body: Any) -> None:
        """Create an index; without a body from the product's own template."""
        self("PUT", f"/{index}", body or index_template(DIMENSIONS, [index])["template"])

    def index(self, index: str, documents: list[dict[str, Any]], **action: Any) -> list[str]:
        """Index documents as `{index}-{n}`; `_raw` gives a source's exact bytes."""
        rows: list[bytes] = []
        ids = []
        for n, document in enumerate(documents):
            ids.append(str(document.pop("_id", f"{index}-{n}")))
            rows.append(json.dumps({"index": {"_index": index, "_id": ids[-1], **action}}).encode())
            rows.append(document.get("_raw") or json.dumps(document).encode())
        answer = self("POST", "/_bulk?refresh=true", b"\n".join(rows) + b"\n")
        assert not answer["errors"], [i for i in answer["items"] if "error" in i["index"]][:3]
        return ids

    def source(self, index: str, id: str, routing: str | None = None) -> dict[str, Any]:
        suffix = f"?routing={routing}" if routing else ""
        return dict(self("GET", f"/{index}/_doc/{id}{suffix}")["_source"])

    def raw(self, index: str, id: str) -> str:
        """The stored source, byte for byte."""
        return self.http.get(f"/{index}/_source/{id}").text

    def sources(self, index: str) -> dict[str, dict[str, Any]]:
        self("POST", f"/{index}/_refresh")
        found = self("GET", f"/{index}/_search?size=10000")
        return {hit["_id"]: hit["_source"] for hit in found["hits"]["hits"]}

    def count(self, index: str, query: dict[str, Any]) -> int:
        self("POST", f"/{index}/_refresh")
        return int(self("POST", f"/{index}/_count", {"query": query})["count"])


class Pipeline(InMemoryPublisher):
    """The product in this process: real parts, messages in a list instead of a broker."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.ledger = build_ledger(settings)
        self.store = LogStore(settings)
        self.backfill = build_backfill(settings, self)
        self.lines: list[str] = []
        #: Called before each message; may change the world.
        self.before: Callable[[str, Any], None] = lambda name, arguments: None

    def close(self) -> None:
        self.ledger.close()
        self.store.close()
        self.backfill.close()

    def deliver(self) -> None:
        """Handle the first message; an overload is tried again shortly, as the tasks do."""
        name, arguments = self.messages.popleft()
        self.before(name, arguments)
        for last in (*[False] * 12, True):
            try:
                return self._handle(name, arguments)
            except ServerUnavailable:
                raise
            except TransientError:
                if last:
                    raise
                time.sleep(1)

    def _handle(self, name: str, arguments: Any) -> None:
        if name == "find_unvectorized":
            line = self.backfill.tick(*arguments)
        elif name == "scan_page":
            line = self.backfill.scan(*arguments)
        elif name == "finish_run":
            line = self.backfill.finish(*arguments)
        else:
            line = self._deliver_chunk(Chunk.from_message(arguments[0]))
        self.lines.append(line)

    def _deliver_chunk(self, chunk: Chunk) -> str:
        for last in (False, False, True):
            try:
                return self.backfill.embed_and_update(chunk)
            except ChunkBusy:
                return "busy"
            except (RateLimited, TransientError) as error:
                if last:
                    return self.backfill.give_up(chunk, str(error))
                time.sleep(0.2)
        raise AssertionError("not reached")

    def run(self, trigger: str = "manual") -> RunRecord:
        """One run (and those that continue it), to its end; the record of the last."""
        self.find_unvectorized(trigger)
        while self.messages:
            self.deliver()
        return self.ledger.records.last(1)[0]


# Few tests are about the history of runs, and switch it on; the others are spared an index each.
os.environ.setdefault("ENRICH_HISTORY", "off")


@contextmanager
def running(name: str, **options: Any) -> Iterator[Services]:
    """Services in a folder of this process, which is removed at the end."""
    folder = ROOT / ".dev" / f"{name}-{os.getpid()}"
    services = Services(folder, **options)
    services.start()
    try:
        yield services
    finally:
        services.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def stack() -> Iterator[Services]:
    """OpenSearch, Valkey and the embeddings server, started once.

    TEST_OPENSEARCH names another version of OpenSearch, such as 2.19.1.
    """
    # More heap than the demo's: a test here sends a gigabyte through this node, and what comes
    # after must not wait until that is collected.
    with running(
        "tests",
        heap="2g",
        release=release_of(os.environ.get("TEST_OPENSEARCH") or OPENSEARCH_3.version),
        opensearch_settings={"action.auto_create_index": "false"},
    ) as services:
        yield services


@pytest.fixture(scope="session")
def search(stack: Services) -> Iterator[Search]:
    witness = Search(stack.opensearch.url)
    yield witness
    witness.http.close()


@pytest.fixture(scope="session")
def secured_stack() -> Iterator[Services]:
    """OpenSearch 2.19.1 with the security plugin, and the rest, started once."""
    with running(
        "tests-secured",
        release=OPENSEARCH_2_SECURED,
        opensearch_settings={"action.auto_create_index": "false"},
    ) as services:
        yield services


@pytest.fixture(scope="session")
def kafka_stack() -> Iterator[Services]:
    """A Kafka broker without logins, started once, by itself: few tests need one."""
    alone = {"opensearch": False, "redis": False, "embeddings": False}
    with running("tests-kafka", kafka=True, **alone) as services:
        yield services


@pytest.fixture(scope="session")
def topics(kafka_stack: Services) -> Topics:
    """Topics on the broker; tests/topics.py says how to use it."""
    from tests.topics import Topics

    return Topics(kafka_stack.kafka.url)


@pytest.fixture
def secured(secured_stack: Services) -> Iterator[SecuredCluster]:
    """A cluster with users and roles, emptied; tests/secured.py says how to use it."""
    from tests.secured import SecuredCluster

    cluster = SecuredCluster(secured_stack)
    cluster.empty()
    yield cluster
    cluster.close()


@pytest.fixture(scope="session")
def embeddings(stack: Services) -> Iterator[ApiControl]:
    control = ApiControl(stack.embeddings.url, stack.control_key)
    yield control
    control.close()


@pytest.fixture(scope="session")
def model() -> Model:
    """Knows the right vector of every text."""
    return Model()


@pytest.fixture
def clean(stack: Services, search: Search, embeddings: ApiControl) -> Services:
    """The stack with nothing left in it from another test."""
    empty_stack(stack, search, embeddings)
    return stack


def empty_stack(stack: Services, search: Search, embeddings: ApiControl) -> None:
    """Remove what somebody has left on the servers."""
    embeddings.reset()
    for index in search("GET", "/_cat/indices?format=json&expand_wildcards=all"):
        if not index["index"].startswith("."):
            search("DELETE", f"/{index['index']}")
    search("DELETE", "/_index_template/*", ok=False)
    empty_redis(stack.environment()["REDIS_URL"])


def empty_redis(url: str) -> None:
    """Remove what the product and the pipelines of the tests have left in Redis."""
    connection = redis.Redis.from_url(url)
    # All but the broker's keys: a worker that listens has bound its queues there.
    keys = [k for k in connection.scan_iter("enrich:*") if not k.startswith(b"enrich:broker:")]
    keys += connection.scan_iter(PREFIX + "*")
    if keys:
        connection.delete(*keys)
    connection.close()


@pytest.fixture
def stream(clean: Services, search: Search) -> Iterator[str]:
    """A data stream of ours."""
    template = {**index_template(DIMENSIONS, ["pay_core*"]), "data_stream": {}}
    search("PUT", "/_index_template/pay_core", template)
    search("PUT", "/_data_stream/pay_core")
    yield "pay_core"
    search("DELETE", "/_data_stream/pay_core")


@pytest.fixture
def settings(clean: Services, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Settings]:
    """Settings that reach the clean stack; keyword arguments override them."""
    monkeypatch.chdir(clean.folder)
    for name, value in clean.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ENRICH_LOG_FILE", "none")
    # So that a few hundred logs are several chunks.
    monkeypatch.setenv("ENRICH_BATCH_SIZE", "100")
    return load_settings


@pytest.fixture
def pipeline(settings: Callable[..., Settings]) -> Iterator[Callable[..., Pipeline]]:
    """Builds a pipeline in this process; keyword arguments are settings."""
    built: list[Pipeline] = []

    def build(**overrides: Any) -> Pipeline:
        built.append(Pipeline(settings(**{"enrich_redis_prefix": PREFIX, **overrides})))
        return built[-1]

    yield build
    for each in built:
        each.close()


@pytest.fixture
def serve(settings: Any, clean: Services) -> Iterator[Callable[..., Served]]:
    """Starts the HTTP service as a process; tests/served.py says how to use it."""
    from tests.served import Served

    with ExitStack() as exits:
        numbers = itertools.count()
        yield lambda **env: Served(clean, next(numbers), exits, **env)


@pytest.fixture
def enrich(settings: Any) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Calls `python -m enrich …`; keyword arguments are environment variables."""

    def call(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        told = subprocess.run(
            [sys.executable, "-m", "enrich", *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT), **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert "Traceback" not in told.stderr, told.stderr
        return told

    return call


@pytest.fixture(scope="session")
def worker(stack: Services) -> Service:
    """A real Celery worker with two processes."""
    return start_worker(stack, "worker")


def start_worker(stack: Services, name: str, *options: str, **env: str) -> Service:
    """Start a worker and wait until it answers."""
    service = stack.spawn(
        name,
        [
            *(sys.executable, "-m", "celery", "-A", "enrich", "worker"),
            *("-c", "2", "-n", f"{name}@%h", *options),
        ],
        env={"PYTHONPATH": str(ROOT), "ENRICH_LOG_FILE": "none", **env},
    )
    wait_for(lambda: "ready" in service.log.read_text(), service)
    return service


def wait_for(condition: Callable[[], bool], service: Service | None = None) -> None:
    """Until the condition holds; gives up after minutes, with the service's log."""
    for _ in range(2400):
        if condition():
            return
        if service is not None and not service.running:
            break
        time.sleep(0.1)
    told = service.log.read_text()[-3000:] if service is not None else ""
    raise AssertionError(f"what was waited for did not happen\n{told}")


@pytest.fixture
def redis_emptied(clean: Services) -> Callable[[], None]:
    """Empties Redis when called."""

    def empty() -> None:
        connection = redis.Redis.from_url(clean.environment()["REDIS_URL"])
        connection.flushall()
        connection.close()

    return empty


@pytest.fixture(scope="session")
def opensearch_url(stack: Services) -> str:
    return stack.opensearch.url


@pytest.fixture(scope="session")
def redis_url(stack: Services) -> str:
    return stack.environment()["REDIS_URL"]

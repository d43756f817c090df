"""The house rules that a reader relies on: who imports whom, and what Celery is told."""

from __future__ import annotations

import ast
import runpy
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import enrich
import tasks
from enrich.settings import Settings

CHECKOUT = Path(enrich.__file__).parents[1]
ENRICH = sorted(Path(enrich.__file__).parent.rglob("*.py"))
TASKS = sorted(Path(tasks.__file__).parent.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(CHECKOUT).as_posix()


@cache
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@cache
def imported(path: Path) -> set[str]:
    """Full names of the modules that a file imports, at its head or inside a function."""
    found: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} imports relatively"
            found.add(node.module or "")
    return found


def imports(path: Path, package: str) -> bool:
    return any(name == package or name.startswith(package + ".") for name in imported(path))


@pytest.mark.parametrize("path", ENRICH, ids=name_of)
@pytest.mark.parametrize("package", ["tasks", "dev", "tests"])
def test_domain_imports_nothing_from_above(path: Path, package: str) -> None:
    assert not imports(path, package)


#: Any room may import these: values without a server.
GROUND = {
    *("errors", "log_context", "models", "schema", "setting_forms", "settings", "text"),
    *("tracing", "vectors"),
}

#: What each room may import besides: docs/architecture.md draws it. Downward only.
FLOORS = {
    "redis_client": set(),
    "ratelimit": {"redis_client"},
    "ledger": {"redis_client"},
    "log_store": set(),
    "analysis": set(),
    "embedding": {"ratelimit", "redis_client"},
    "history": {"ledger", "log_store"},
    "status": {"history", "ledger", "log_store", "wiring"},
    "enrichment": {"embedding", "ledger", "log_store", "ratelimit"},
    "backfill": {
        "embedding",
        "enrichment",
        "history",
        "ledger",
        "log_store",
        "planning",
        "ratelimit",
        "status",
    },
    "wiring": {
        "api",
        "backfill",
        "embedding",
        "enrichment",
        "history",
        "ledger",
        "log_store",
        "planning",
        "ratelimit",
        "realtime",
        "redis_client",
    },
    "api": {"analysis", "embedding", "ledger", "log_store", "ratelimit"},
    "realtime": {"embedding", "enrichment", "ledger", "log_store", "ratelimit"},
    "planning": {"embedding", "ledger", "log_store"},
    "reindexing": {"log_store"},
    "flower": {"backfill", "history", "ledger", "log_store", "status", "wiring"},
    "cli": {
        "api",
        "embedding",
        "history",
        "ledger",
        "log_store",
        "planning",
        "realtime",
        "reindexing",
        "redis_client",
        "status",
        "wiring",
        "worker",
    },
    "worker": {"flower", "ledger", "redis_client", "wiring"},
}


def room_of(path: Path) -> str:
    inside = path.relative_to(CHECKOUT / "enrich")
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


def rooms_imported(path: Path) -> set[str]:
    """Rooms of ours that a file imports, its own left out."""
    found = set()
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "enrich" and len(parts) > 1:
            found.add(parts[1])
    for node in nodes(path):
        if isinstance(node, ast.ImportFrom) and node.module == "enrich":
            found.update(alias.name for alias in node.names if alias.name != "__version__")
    return found - {room_of(path)}


@pytest.mark.parametrize("path", [p for p in ENRICH if room_of(p) in FLOORS], ids=name_of)
def test_rooms_import_downward_only(path: Path) -> None:
    allowed = GROUND | FLOORS[room_of(path)]
    assert rooms_imported(path) <= allowed


def test_the_ground_knows_no_room() -> None:
    ground = [path for path in ENRICH if room_of(path) in GROUND]
    assert ground and all(rooms_imported(path) <= GROUND for path in ground)


def test_every_module_is_in_a_room() -> None:
    rooms = {*GROUND, *FLOORS, "__init__", "__main__"}
    assert {room_of(path) for path in ENRICH} <= rooms


@pytest.mark.parametrize("path", TASKS, ids=name_of)
def test_tasks_reach_no_server_by_themselves(path: Path) -> None:
    for package in ("dev", "openai", "opensearchpy", "redis", "requests", "httpx2"):
        assert not imports(path, package)


@pytest.mark.parametrize(
    ("package", "owners"),
    [
        ("opensearchpy", {"enrich/log_store/connection.py"}),
        ("boto3", {"enrich/log_store/aws.py"}),
        ("openai", {"enrich/api/chat_model.py", "enrich/embedding/client.py"}),
        ("httpx2", {"enrich/embedding/transport.py"}),
        ("opentelemetry", {"enrich/tracing/otel.py"}),
        ("confluent_kafka", {"enrich/realtime/broker.py", "enrich/realtime/inspection.py"}),
        ("pydantic_settings", {"enrich/settings.py", "enrich/setting_forms/kafka.py"}),
    ],
)
def test_each_client_has_one_importer(package: str, owners: set[str]) -> None:
    assert {name_of(path) for path in [*ENRICH, *TASKS] if imports(path, package)} == owners


@pytest.mark.parametrize("package", ["pickle", "marshal", "shelve", "dill"])
def test_nothing_is_pickled(package: str) -> None:
    assert not [name_of(path) for path in [*ENRICH, *TASKS] if imports(path, package)]


def test_settings_are_read_in_one_place() -> None:
    # Screens look at the terminal, and Flower's own variables are Flower's.
    readers = {
        name_of(path)
        for path in [*ENRICH, *TASKS]
        if not name_of(path).startswith(("enrich/cli/", "enrich/flower/"))
        for node in nodes(path)
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
    }
    assert readers <= {"enrich/settings.py"}


def test_who_reads_one_or_two_settings_is_handed_these() -> None:
    """Whoever takes the settings as a whole reads three of them, or hands them on."""
    takers = set()
    for path in ENRICH:
        taken = any(
            isinstance(node, ast.arg) and node.arg == "settings" and node.annotation is not None
            for node in nodes(path)
        )
        read = {
            node.attr
            for node in nodes(path)
            if isinstance(node, ast.Attribute)
            and (getattr(node.value, "id", "") or getattr(node.value, "attr", "")).strip("_")
            == "settings"
        }
        handed_on = any(
            (getattr(value, "id", "") or getattr(value, "attr", "")).strip("_") == "settings"
            for node in nodes(path)
            if isinstance(node, ast.Call)
            for value in [*node.args, *(keyword.value for keyword in node.keywords)]
        )
        if taken and not handed_on and len(read) < 3:
            takers.add(name_of(path))
    # The first writes down all of them.
    assert takers <= {"enrich/ledger/deployment.py", "enrich/settings.py"}


def test_domain_knows_nothing_of_celery() -> None:
    modules = (
        "backfill.run",
        "enrichment.enricher",
        "embedding.resolver",
        "embedding.batching",
        "embedding.client",
        "ledger",
        "log_store",
        "status.report",
    )
    imported_all = "; ".join(f"import enrich.{module}" for module in modules)
    program = f"import sys; {imported_all}; sys.exit('celery' in sys.modules)"
    environment = {"PYTHONPATH": str(CHECKOUT)}
    assert subprocess.run([sys.executable, "-c", program], env=environment).returncode == 0


@pytest.mark.parametrize(
    "module",
    [
        *("text/extract", "backfill/chunking", "models", "errors"),
        *("planning/plan", "planning/texts", "planning/speed", "planning/disk", "planning/reading"),
    ],
)
def test_pure_modules_know_no_server(module: str) -> None:
    path = CHECKOUT / "enrich" / f"{module}.py"
    for package in ("redis", "openai", "opensearchpy", "enrich.settings", "enrich.ledger"):
        assert not imports(path, package)


@pytest.mark.parametrize("path", [*ENRICH, *TASKS], ids=name_of)
def test_every_module_opens_with_what_lives_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.strip() == "" or ast.get_docstring(ast.parse(text))


# -- what Celery is told


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.chdir(tmp_path)
    yield monkeypatch


def celery_settings() -> dict[str, Any]:
    return runpy.run_path(str(CHECKOUT / "celeryconfig.py"))


@pytest.mark.usefixtures("clean")
def test_only_json_travels() -> None:
    config = celery_settings()
    assert config["accept_content"] == ["json"]
    assert {v for n, v in config.items() if n.endswith("_serializer")} == {"json"}
    assert "result_accept_content" not in config
    for word in ("pickle", "yaml", "msgpack"):
        assert word not in (CHECKOUT / "celeryconfig.py").read_text(encoding="utf-8")


@pytest.mark.usefixtures("clean")
def test_a_message_is_gone_when_its_work_is_done() -> None:
    config = celery_settings()
    assert config["task_acks_late"] is True
    assert config["task_reject_on_worker_lost"] is True
    assert config["task_acks_on_timeout"] is False
    assert config["worker_prefetch_multiplier"] == 1
    assert config["task_ignore_result"] is True
    assert config["result_backend"] is None


def times(config: dict[str, Any], deadline: float) -> list[float]:
    return [
        config["worker_soft_shutdown_timeout"],
        config["task_soft_time_limit"],
        config["task_time_limit"],
        config["broker_transport_options"]["visibility_timeout"],
        deadline,
    ]


def test_time_limits_are_in_order(clean: pytest.MonkeyPatch) -> None:
    assert all(a < b for a, b in pairwise(times(celery_settings(), 420)))
    for name, value in (
        ("ENRICH_SOFT_TIME_LIMIT_SECONDS", "3"),
        ("ENRICH_HARD_TIME_LIMIT_SECONDS", "4"),
        ("ENRICH_VISIBILITY_TIMEOUT_SECONDS", "8"),
        ("ENRICH_CHUNK_DEADLINE_SECONDS", "12"),
    ):
        clean.setenv(name, value)
    scaled = times(celery_settings(), 12)
    assert scaled[1:] == [3, 4, 8, 12]
    assert scaled[0] <= scaled[1]


@pytest.mark.usefixtures("clean")
def test_scanning_comes_before_embedding() -> None:
    config = celery_settings()
    assert [queue.name for queue in config["task_queues"]] == ["enrich.scan", "enrich.embed"]
    # "round_robin", the default, would let a tick wait behind a thousand chunks.
    assert config["broker_transport_options"]["queue_order_strategy"] == "priority"


@pytest.mark.usefixtures("clean")
def test_every_task_has_a_queue_that_is_read() -> None:
    config = celery_settings()
    queues = {queue.name for queue in config["task_queues"]}
    routes = {task: route["queue"] for task, route in config["task_routes"].items()}
    assert set(routes.values()) == queues
    declared = {
        keyword.value.value
        for path in TASKS
        for node in nodes(path)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "shared_task"
        for keyword in node.keywords
        if keyword.arg == "name" and isinstance(keyword.value, ast.Constant)
    }
    assert routes.keys() == declared
    assert routes["enrich.embed_and_update"] == "enrich.embed"
    assert config["task_default_queue"] in queues


def test_beat_ticks_at_the_interval_and_nothing_expires(clean: pytest.MonkeyPatch) -> None:
    clean.setenv("ENRICH_INTERVAL_MINUTES", "2.5")
    config = celery_settings()
    (entry,) = config["beat_schedule"].values()
    assert entry["task"] == "enrich.find_unvectorized"
    assert entry["schedule"] == 150
    assert tuple(entry["args"]) == ("beat",)
    # `expires` is compared with the worker's own clock, which may be an hour off.
    for path in (CHECKOUT / "celeryconfig.py", *TASKS):
        for node in nodes(path):
            names = {k.arg for k in node.keywords} if isinstance(node, ast.Call) else set()
            keys = (
                {getattr(k, "value", None) for k in node.keys}
                if isinstance(node, ast.Dict)
                else set()
            )
            assert "expires" not in names | keys
    assert not [name for name in config if "expires" in name]


@pytest.mark.usefixtures("clean")
def test_no_line_to_the_broker_waits_for_ever() -> None:
    config = celery_settings()
    options = config["broker_transport_options"]
    assert 0 < options["socket_connect_timeout"] <= 10
    assert 0 < options["socket_timeout"] <= 60
    assert 0 < options["health_check_interval"] <= 30
    assert options["socket_keepalive"] is True
    assert 0 < config["broker_pool_acquire_timeout"] <= 60
    assert config["task_publish_retry_policy"]["max_retries"] is not None
    assert config["broker_connection_max_retries"] is None
    assert config["broker_connection_retry_on_startup"] is True


def test_broker_is_the_ledgers_redis_under_its_prefix(clean: pytest.MonkeyPatch) -> None:
    clean.setenv("REDIS_URL", "rediss://:secret@redis:6380/3")
    clean.setenv("CACHE_URL", "redis://cache:6379/0")
    clean.setenv("ENRICH_REDIS_PREFIX", "mine:")
    config = celery_settings()
    assert config["broker_url"] == "rediss://:secret@redis:6380/3"
    assert config["broker_transport_options"]["global_keyprefix"].startswith("mine:")


@pytest.mark.parametrize(
    "names", [["OPENAI_API_KEY"], ["OPENAI_API_KEY", "REDIS_URL", "ENRICH_BATCH_SIZE"]]
)
def test_wrong_setting_stops_the_start_with_one_sentence(
    clean: pytest.MonkeyPatch, names: list[str], tmp_path: Path
) -> None:
    environment = {"PYTHONPATH": str(CHECKOUT), "OPENAI_API_KEY": "sk-test"}
    environment |= dict.fromkeys(names, "qqq\n")
    if names == ["OPENAI_API_KEY"]:
        environment["OPENAI_API_KEY"] = " "
    done = subprocess.run(
        [sys.executable, "-c", "import enrich.worker.app"],
        env=environment, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("enrich: ")
    assert done.stderr.count("\n") == 1
    assert "qqq" not in done.stderr

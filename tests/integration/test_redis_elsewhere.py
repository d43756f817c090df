"""A run on a Redis found through Sentinels, and over a unix socket: real servers of each."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dev.api_control import ApiControl
from dev.embedding_model import Model
from dev.services import Services
from enrich.errors import ServerUnavailable
from enrich.redis_client import connect, translated
from enrich.settings import Settings
from tests.conftest import ROOT, Pipeline, Search, start_worker
from tests.integration.test_cycle import INDEX, assert_right_vectors, logs
from tests.redis_servers import running_redis
from tests.sentinels import MASTER, OF_SENTINELS, Sentinels

#: Short, so that what a fail-over loses comes back within a test.
TIMES = {
    "ENRICH_SOFT_TIME_LIMIT_SECONDS": "20",
    "ENRICH_HARD_TIME_LIMIT_SECONDS": "25",
    "ENRICH_VISIBILITY_TIMEOUT_SECONDS": "40",
    "ENRICH_CHUNK_DEADLINE_SECONDS": "80",
}


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[Sentinels]:
    with Sentinels(tmp_path) as running:
        yield running


@pytest.mark.apart
def test_a_run_goes_on_over_a_fail_over_and_loses_nothing(
    clean: Services, search: Search, embeddings: ApiControl, model: Model, sentinels: Sentinels,
    settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    settings()
    search.create(INDEX)
    search.index(INDEX, logs(600, 300))
    embeddings.set(latency_ms=400)
    times = {**TIMES, "ENRICH_BATCH_SIZE": "20", "REDIS_URL": sentinels.url}
    for name, value in times.items():
        monkeypatch.setenv(name, value)
    worker = start_worker(clean, "sentinels", **times)
    try:
        run = [sys.executable, "-m", "enrich", "run", "--wait", "--json"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        first = subprocess.Popen(
            run, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        sentinels.until(lambda: embeddings.seen["inputs"] >= 60, "the run is under way")
        before = sentinels.kill_primary()
        assert embeddings.seen["inputs"] < 300, "the primary went in the middle of the run"
        told = first.communicate(timeout=180)
        sentinels.until(lambda: sentinels.primary() != before, "another is the primary")
        for _ in range(3):
            pending = search.count(
                INDEX, {"bool": {"must_not": {"exists": {"field": "log_vector"}}}}
            )
            if not pending:
                break
            subprocess.run(run, env=environment, capture_output=True, text=True, timeout=180)
        assert "Traceback" not in told[1]
        # In a process of its own: in this one, Celery may have another test's broker.
        check = [sys.executable, "-m", "enrich", "check"]
        checked = subprocess.run(
            check, env={**environment, "COLUMNS": "400"}, capture_output=True, text=True, timeout=60
        ).stdout
    finally:
        worker.stop()

    assert assert_right_vectors(search, INDEX, model) == 600
    # At most what was at work when the primary went is paid for twice: two processes, a chunk each.
    assert embeddings.seen["inputs"] <= 300 + 2 * 20 * 2
    assert f"at sentinel://:***@{sentinels.hosts}/2?master_name={MASTER}" in checked
    assert "1 worker with 2 processes answers" in checked
    for text in (worker.log.read_text(), checked, *told):
        assert "of%2Fredis" not in text and OF_SENTINELS not in text


@pytest.mark.parametrize("scheme", ["unix", "redis+socket"])
def test_a_run_and_its_broker_over_a_unix_socket(
    search: Search, model: Model, pipeline: Callable[..., Pipeline], scheme: str
) -> None:
    search.create(INDEX)
    search.index(INDEX, logs(60, 20))
    with tempfile.TemporaryDirectory(prefix="sock ") as folder:
        socket = Path(folder) / "r.sock"
        with running_redis(
            Path(folder), "--unixsocket", str(socket), "--requirepass", "p/w"
        ) as port:
            path = str(socket).replace(" ", "%20")
            number = "db=3" if scheme == "unix" else "virtual_host=3"
            url = f"{scheme}://:p%2Fw@{path}?{number}"
            record = pipeline(redis_url=url).run()
            assert record.vectors_written == assert_right_vectors(search, INDEX, model) == 60

            # Celery's own connection, from the same URL, in the same database.
            code = (
                "from enrich.worker.app import app\n"
                "with app.connection_for_write() as broker:\n"
                "    with broker.Producer() as producer:\n"
                "        producer.publish({'a': 1}, routing_key='try', exchange='')\n"
                "    print(broker.as_uri(), broker.default_channel.client.llen('try'))"
            )
            done = subprocess.run(
                [sys.executable, "-c", code],
                env={**os.environ, "PYTHONPATH": str(ROOT), "REDIS_URL": url},
                capture_output=True, text=True, timeout=60,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            assert "p/w" not in done.stdout and "p%2Fw" not in done.stdout
            assert done.stdout.strip().endswith(" 1")
            with connect(f"redis://:p%2Fw@127.0.0.1:{port}/3") as client:
                assert client.llen("enrich:broker:try") == 1
        with connect(url) as client, pytest.raises(ServerUnavailable, match="Redis"), translated():
            client.ping()

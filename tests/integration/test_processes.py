"""The product as operators run it: `celery -A enrich worker` and `beat` as real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
import redis

from dev.api_control import ApiControl
from dev.embedding_model import Model
from dev.service import Service
from dev.services import Services
from enrich.ledger import Ledger
from enrich.settings import Settings
from enrich.wiring import build_ledger
from tests.conftest import ROOT, Search, start_worker, wait_for
from tests.integration.test_cycle import assert_right_vectors, logs
from tests.traces import Receiver, told

INDEX = "a_b_2026_11"

#: A deployment of its own: a worker that other tests keep running must not take its messages.
PREFIX = "processes:"


class Deployment:
    """Starts workers and beat beside a clean stack, and ends them."""

    def __init__(self, stack: Services, folder: Path, exits: ExitStack) -> None:
        self._stack = stack
        self._exits = exits
        self._number = 0
        self.folder = folder
        self.log = folder / "periodic_enrichment.log"
        self.env = {
            "PYTHONPATH": str(ROOT),
            "ENRICH_LOG_FILE": str(self.log),
            "ENRICH_REDIS_PREFIX": PREFIX,
        }

    def worker(self, *options: str, **env: str) -> Service:
        self._number += 1
        name = f"{self.folder.name}-w{self._number}"
        service = start_worker(self._stack, name, *options, **{**self.env, **env})
        self._exits.callback(service.stop)
        return service

    def beat(self, **env: str) -> Service:
        self._number += 1
        service = self._stack.spawn(
            f"{self.folder.name}-b{self._number}",
            [sys.executable, "-m", "celery", "-A", "enrich", "beat", "-s", "schedule"],
            env={**self.env, **env},
            cwd=self.folder,
        )
        self._exits.callback(service.stop)
        return service

    def run(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Any command to its end, with only these settings."""
        return subprocess.run(
            [sys.executable, "-m", *words],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **env},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
        )


@pytest.fixture
def deployment(clean: Services, tmp_path: Path) -> Iterator[Deployment]:
    with ExitStack() as exits:
        yield Deployment(clean, tmp_path, exits)
    connection = redis.Redis.from_url(clean.environment()["REDIS_URL"])
    if keys := list(connection.scan_iter(PREFIX + "*")):
        connection.delete(*keys)
    connection.close()


@pytest.fixture
def ledger(settings: Callable[..., Settings]) -> Iterator[Ledger]:
    opened = build_ledger(settings(enrich_redis_prefix=PREFIX))
    yield opened
    opened.close()


def test_worker_and_beat_enrich_everything_from_the_first_moment_on(
    deployment: Deployment, search: Search, model: Model, embeddings: ApiControl, ledger: Ledger
) -> None:
    search.create(INDEX)
    search.index(INDEX, logs(1200, 300))
    with closing(Receiver()) as receiver:
        deployment.worker(ENRICH_TRACES_URL=receiver.url)
        deployment.beat()
        wait_for(lambda: bool(ledger.records.last(1)) and not ledger.runs.active())
        wait_for(lambda: "run" in {span.name for span in receiver.spans()})
        run = ledger.records.last(1)[0].run_id
        spans = [span for span in receiver.spans() if told(span).get("enrich.run") in (run, None)]
    assert len({span.trace_id for span in spans}) == 1, "one trace, whichever process it was"
    assert {"run", "page", "chunk", "end", "opensearch", "embeddings"} <= {s.name for s in spans}
    assert not any(
        log["message"].encode() in body for log in logs(3, 3) for body in receiver.bodies
    )

    record = ledger.records.last(1)[0]
    assert (record.trigger, record.state) == ("beat", "finished")
    assert record.found == record.settled == record.vectors_written == 1200
    assert assert_right_vectors(search, INDEX, model) == 1200
    assert embeddings.seen["inputs"] <= 1.02 * 300
    wait_for(lambda: "Cycle #1 finished" in deployment.log.read_text())
    # The file holds everything, each line with its run; the cycle speaks in three steps.
    text = deployment.log.read_text()
    cycle = [line for line in text.splitlines() if "Cycle #1" in line]
    assert [part in line for part, line in zip(
        ["started (beat)", "step 1/3: logs found without vectors: 1200", "step 2/3", "step 3/3",
         "total vectors 1200"], cycle, strict=True)] == [True] * 5  # fmt: skip
    assert all(f"run={record.run_id}" in line for line in cycle)
    assert "Traceback" not in text


def test_beat_sends_a_tick_each_interval(
    deployment: Deployment, search: Search, ledger: Ledger
) -> None:
    search.create(INDEX)
    env = {"ENRICH_INTERVAL_MINUTES": "0.05"}
    deployment.worker(**env)
    deployment.beat(**env)
    wait_for(lambda: ledger.records.totals().runs >= 3)
    assert [run.trigger for run in ledger.records.last(3)] == ["beat"] * 3


@pytest.mark.apart
def test_a_restart_of_beat_begins_no_second_run(
    deployment: Deployment, search: Search, ledger: Ledger
) -> None:
    """Its tick at once comes sooner than half an interval after the last run began."""
    search.create(INDEX)
    deployment.worker()
    first = deployment.beat()
    wait_for(lambda: bool(ledger.records.last(1)) and not ledger.runs.active())
    first.stop()
    deployment.beat()
    wait_for(lambda: ledger.records.totals().ticks_skipped == 1)
    assert ledger.records.totals().runs == 1


def test_a_worker_killed_in_work_loses_nothing(
    deployment: Deployment, search: Search, model: Model, embeddings: ApiControl, ledger: Ledger
) -> None:
    search.create(INDEX)
    search.index(INDEX, logs(600, 600))
    embeddings.set(latency_ms=400)
    # Time-outs scaled down, in their order, so that the redelivery comes soon.
    env = {
        "ENRICH_SOFT_TIME_LIMIT_SECONDS": "3",
        "ENRICH_HARD_TIME_LIMIT_SECONDS": "4",
        "ENRICH_VISIBILITY_TIMEOUT_SECONDS": "6",
        "ENRICH_CHUNK_DEADLINE_SECONDS": "20",
    }
    worker = deployment.worker(**env)
    opened = ledger.runs.open("manual", 600)
    publish(deployment, "enrich.scan_page", opened.run, 1)
    wait_for(lambda: ledger.records.of(opened.run).vectors_written > 0)
    worker.kill()
    assert ledger.records.of(opened.run).chunks_open > 0
    deployment.worker(**env)

    wait_for(lambda: not ledger.runs.active())

    record = ledger.records.of(opened.run)
    assert record.found == record.settled == 600
    assert (record.state, record.vectors_written) == ("finished", 600)
    assert_right_vectors(search, INDEX, model)
    assert search.count(INDEX, {"term": {"ai_enrichment_run": opened.run}}) == 600


def test_a_deploy_finishes_or_hands_back_its_chunks(
    deployment: Deployment, search: Search, model: Model, embeddings: ApiControl, ledger: Ledger
) -> None:
    search.create(INDEX)
    search.index(INDEX, logs(600, 600))
    embeddings.set(latency_ms=400)
    old = deployment.worker()
    opened = ledger.runs.open("manual", 600)
    publish(deployment, "enrich.scan_page", opened.run, 1)
    wait_for(lambda: ledger.records.of(opened.run).vectors_written > 0)
    os.kill(old.pid, signal.SIGTERM)
    wait_for(lambda: not old.running)
    deployment.worker()

    wait_for(lambda: not ledger.runs.active())

    record = ledger.records.of(opened.run)
    assert (record.found, record.vectors_written, record.failed) == (600, 600, 0)
    assert_right_vectors(search, INDEX, model)
    assert record.api_inputs == embeddings.seen["inputs"] == 600


def test_opensearch_killed_in_work_loses_nothing(
    deployment: Deployment, search: Search, model: Model, embeddings: ApiControl, ledger: Ledger,
    clean: Services,
) -> None:  # fmt: skip
    search.create(INDEX)
    search.index(INDEX, logs(600, 600))
    embeddings.set(latency_ms=300)
    deployment.worker()
    opened = ledger.runs.open("manual", 600)
    publish(deployment, "enrich.scan_page", opened.run, 1)
    wait_for(lambda: ledger.records.of(opened.run).vectors_written > 0)
    clean.opensearch.kill()
    wait_for(lambda: ledger.records.of(opened.run).retries > 0)
    clean.opensearch.start()

    wait_for(lambda: not ledger.runs.active())

    record = ledger.records.of(opened.run)
    assert (record.found, record.failed) == (600, 0)
    assert record.found == record.settled
    assert record.vectors_written + record.deferred == 600
    # It was away for less than is waited for.
    assert record.deferred == 0
    assert_right_vectors(search, INDEX, model)
    assert embeddings.seen["inputs"] == 600, "every text was paid for once"


@pytest.mark.apart
def test_a_tick_does_not_wait_behind_a_thousand_chunks(
    deployment: Deployment, search: Search, ledger: Ledger
) -> None:
    search.create(INDEX)
    code = (
        "from enrich.worker.app import app\n"
        "for n in range(1000):\n"
        "    chunk = {'id': f'no-such-run:1:{n}', 'references': [['i', 'd', None, 0, 1]]}\n"
        "    app.send_task('enrich.embed_and_update', [chunk])\n"
        "app.send_task('enrich.find_unvectorized', ['beat'])\n"
    )
    env = {**os.environ, **deployment.env}
    subprocess.run([sys.executable, "-c", code], env=env, check=True, cwd=deployment.folder)
    deployment.worker()

    wait_for(lambda: deployment.log.read_text().count("embed_and_update") > 100)

    wait_for(lambda: "enrich.find_unvectorized" in deployment.log.read_text())
    before = deployment.log.read_text().partition("enrich.find_unvectorized")[0]
    assert before.count("embed_and_update") < 20


def test_hostile_messages_are_rejected_and_the_worker_goes_on(
    deployment: Deployment, search: Search, ledger: Ledger
) -> None:
    search.create(INDEX)
    search.index(INDEX, logs(5, 5))
    worker = deployment.worker()
    for arguments in ([], ["text"], [{"id": "x:1:1"}], [{"id": 1, "references": "all"}], [None]):
        publish(deployment, "enrich.embed_and_update", *arguments)
    publish(deployment, "enrich.unknown", 1)
    publish(deployment, "enrich.scan_page", "no-such-run", 7)
    publish(deployment, "enrich.finish_run", "no-such-run")
    opened = ledger.runs.open("manual", 600)
    publish(deployment, "enrich.scan_page", opened.run, 1)

    wait_for(lambda: not ledger.runs.active(), worker)

    assert ledger.records.of(opened.run).vectors_written == 5
    assert "a message was dropped: not a chunk" in deployment.log.read_text()


def test_no_secret_and_no_log_text_is_left_behind(
    deployment: Deployment, search: Search, ledger: Ledger, clean: Services, embeddings: ApiControl
) -> None:
    """Everything a run leaves is searched for the key, the password and a mark in the logs."""
    mark = "MARKED-LOG-TEXT-7431"
    search.create(INDEX)
    documents = logs(30, 30)
    for document in documents:
        document["message"] += f" {mark}"
    search.index(INDEX, documents)
    embeddings.faults({"kind": "status", "status": 500, "body": f"oops {mark}"},
                      {"kind": "poison", "match": "number 7 ", "times": 0})  # fmt: skip
    env = {"OPENSEARCH_PASSWORD": "hunter2-secret"}
    worker = deployment.worker("--loglevel", "DEBUG", **env)
    beat = deployment.beat(**env)
    connection = redis.Redis.from_url(clean.environment()["REDIS_URL"])
    seen: list[bytes] = []

    def done() -> bool:
        for queue in connection.scan_iter(PREFIX + "broker:*"):
            kind = connection.type(queue)
            if kind == b"list":
                seen.extend(connection.lrange(queue, 0, -1))
            elif kind == b"hash":
                seen.extend(connection.hvals(queue))
        return bool(ledger.records.last(1)) and not ledger.runs.active()

    wait_for(done)
    assert ledger.records.last(1)[0].found == 30
    processes = "\n".join(
        " ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"])
    )
    left = {
        "log file": deployment.log.read_text(),
        "worker": worker.log.read_text(),
        "beat": beat.log.read_text(),
        "broker": b"\n".join(seen).decode(errors="replace"),
        "processes": processes,
        "ledger": json.dumps([r.model_dump(mode="json") for r in ledger.records.last(5)]),
    }
    connection.close()
    secrets = [mark, "hunter2-secret", clean.environment()["OPENAI_API_KEY"]]
    for place, text in left.items():
        for secret in secrets:
            assert secret not in text, f"{secret} in {place}"
    assert "OPENAI_API_KEY=***" in left["log file"]
    assert "OPENSEARCH_PASSWORD=***" in left["log file"]


@pytest.mark.parametrize("program", ["worker", "beat", "flower"])
@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ({}, "enrich: OPENAI_API_KEY is not set: set it in the environment or in .env"),
        (
            {"OPENAI_API_KEY": "sk-x", "ENRICH_BATCH_SIZE": "0"},
            "enrich: ENRICH_BATCH_SIZE: Input should be greater than or equal to 1",
        ),
        (
            {"OPENAI_API_KEY": "sk-x", "ENRICH_HARD_TIME_LIMIT_SECONDS": "900"},
            "enrich: ENRICH_HARD_TIME_LIMIT_SECONDS must be shorter than "
            "ENRICH_VISIBILITY_TIMEOUT_SECONDS",
        ),
    ],
)
def test_a_wrong_setting_stops_the_start_with_one_sentence(
    deployment: Deployment, program: str, env: dict[str, str], sentence: str
) -> None:
    ended = deployment.run("celery", "-A", "enrich", program, **env)
    assert ended.returncode == 2
    assert ended.stderr.strip() == sentence
    assert ended.stdout == ""


@pytest.mark.parametrize(
    ("options", "most", "advised"),
    [
        (("--concurrency", "3"), "5", "6"),
        (("--autoscale", "4,1"), "5", "8"),
        (("--concurrency", "3"), "6", None),
    ],
)
def test_a_worker_with_too_few_chunks_for_its_processes_says_so(
    deployment: Deployment, options: tuple[str, ...], most: str, advised: str | None
) -> None:
    deployment.worker(*options, ENRICH_MAX_CHUNKS_IN_FLIGHT=most)
    warnings = [line for line in deployment.log.read_text().splitlines() if "WARNING" in line]
    if advised is None:
        assert warnings == []
    else:
        assert len(warnings) == 1
        assert f"ENRICH_MAX_CHUNKS_IN_FLIGHT={most}: " in warnings[0]
        assert f"set it to {advised}, " in warnings[0]


@pytest.mark.apart
def test_check_adds_up_the_processes_of_all_workers(
    deployment: Deployment, clean: Services
) -> None:
    """Alone each has enough chunks."""
    deployment.worker("--concurrency", "2")
    deployment.worker("--autoscale", "3,1")

    def check(most: str) -> str:
        env = {**clean.environment(), **deployment.env, "ENRICH_MAX_CHUNKS_IN_FLIGHT": most}
        return deployment.run("enrich", "check", **env).stdout

    told = check("9")
    assert "2 workers with 5 processes answer\n" in told
    assert "5 processes with ENRICH_MAX_CHUNKS_IN_FLIGHT=9: " in told and "set it to 10, " in told
    told = check("10")
    assert "2 workers with 5 processes answer\n" in told
    assert "some will wait" not in told


def test_json_logs_are_one_object_a_line(
    deployment: Deployment, search: Search, ledger: Ledger
) -> None:
    search.create(INDEX)
    search.index(INDEX, logs(5, 5))
    deployment.worker(ENRICH_LOG_FORMAT="json")
    opened = ledger.runs.open("manual", 600)
    publish(deployment, "enrich.scan_page", opened.run, 1)
    wait_for(lambda: not ledger.runs.active())
    wait_for(lambda: "Cycle #1 finished" in deployment.log.read_text())
    rows = [json.loads(line) for line in deployment.log.read_text().splitlines()]
    assert any("Cycle #1 finished" in row["message"] for row in rows)
    assert {row["run"] for row in rows if "Cycle #" in row["message"]} == {opened.run}


def publish(deployment: Deployment, task: str, *arguments: Any) -> None:
    """Send a message as any client could: through Celery, from another process."""
    code = (
        "import json, sys; from enrich.worker.app import app; "
        "app.send_task(sys.argv[1], json.loads(sys.argv[2]), "
        "queue='enrich.embed' if 'chunk' in sys.argv[1] or 'embed' in sys.argv[1] else None)"
    )
    env = {**os.environ, **deployment.env}
    words = [sys.executable, "-c", code, task, json.dumps(arguments)]
    subprocess.run(words, env=env, check=True, cwd=deployment.folder)

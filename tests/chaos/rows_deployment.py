"""Rows of the chaos matrix about one deployment, one model and one space of vectors."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from typing import Any

import httpx2
import numpy as np

from dev.http_proxy import Answered, Asked, Forward, HttpProxy
from tests.chaos.matrix import IN_FLIGHT, row
from tests.chaos.rows_search import another_index, some_logs
from tests.chaos.world import BANK, BATCH, SHOP, Stuck, World
from tests.conftest import ROOT

SMALL = "text-embedding-3-small"

#: An index that comes later.
LATE = "late_web_2026_11"


@row("workers", "a second worker with another EMBEDDING_MODEL: it takes no work")
def odd_worker(w: World) -> None:
    w.start()
    w.under_way()
    odd = w.worker(EMBEDDING_MODEL=SMALL)
    w.until(
        lambda: "this worker takes no work: EMBEDDING_MODEL is" in odd.log.read_text(),
        "the odd worker said that it takes no work",
    )
    more_logs(w)
    w.through()
    if n := w.search.count(f"{SHOP},{BANK},{LATE}", {"term": {"ai_embedding_model": SMALL}}):
        raise Stuck(f"{n} logs have a vector of the odd worker's model")


class OtherSpace:
    """An endpoint that knows the same models by another space: each vector reversed."""

    def __init__(self, w: World) -> None:
        environment = w.stack.environment()
        self._url = environment["OPENAI_BASE_URL"].removesuffix("/v1")
        self._key = environment["OPENAI_API_KEY"]
        #: Results all requests with this status, if it is not 200.
        self.status = 200
        self.inputs = 0

    def __call__(self, asked: Asked, forward: Forward) -> Answered:
        if self.status != 200:
            message = "Incorrect API key provided" if self.status == 401 else "overloaded"
            error = {"message": message, "type": "error", "param": None, "code": None}
            return Answered(status=self.status, body=json.dumps({"error": error}).encode())
        answer = httpx2.request(
            asked.method,
            self._url + asked.path,
            content=asked.body,
            headers={"content-type": "application/json", "authorization": f"Bearer {self._key}"},
            timeout=30,
        )
        body = answer.json()
        for each in body.get("data", ()):
            each["embedding"] = _reversed(each["embedding"])
            self.inputs += 1
        return Answered(status=answer.status_code, body=json.dumps(body).encode())


def _reversed(embedding: Any) -> Any:
    if isinstance(embedding, str):
        numbers = np.frombuffer(base64.b64decode(embedding), dtype="<f4")
        return base64.b64encode(numbers[::-1].tobytes()).decode()
    return embedding[::-1]


@row("workers", "another endpoint's space, behind runs that were cancelled and halted; then mended")
def space_changed(w: World) -> None:
    other = OtherSpace(w)
    proxy = w.until_judged(HttpProxy(w.stack.embeddings.url))
    proxy.alter = other
    elsewhere = {"OPENAI_BASE_URL": f"http://127.0.0.1:{proxy.port}/v1"}

    w.start()
    w.under_way(3 * BATCH)
    # Perhaps the run was faster; what follows has logs of its own.
    cancel(w, must=False)
    leave(w)
    more_logs(w)

    # A key that is wrong there, then a model that no stored vector has: neither compares a vector.
    other.status = 401
    w.worker(**elsewhere)
    w.until(w.halted, "a run was halted for the key", 60.0)
    cancel(w, must=False)
    leave(w)
    other.status = 503
    w.worker(EMBEDDING_MODEL=SMALL, **elsewhere)
    cancel(w)
    leave(w)

    # The right model: what stands in the logs decides, whatever happened in between.
    other.status = 200
    w.worker(**elsewhere)
    w.told("gives other vectors for the same text")
    leave(w)
    w.truth.cut_inputs += other.inputs + IN_FLIGHT
    w.worker()


def more_logs(w: World) -> None:
    """Another index of logs that are owed from now on."""
    w.until_judged(another_index(w, LATE, some_logs("late", 60)))


def cancel(w: World, *, must: bool = True) -> None:
    """Cancel the run that is active; with `must` there has to be one, or it is waited for."""
    if must:
        w.until(lambda: bool(w.active_run()), "a run was active", 60.0)
    environment = {
        **os.environ,
        **w.stack.environment(),
        "PYTHONPATH": str(ROOT),
        "ENRICH_REDIS_PREFIX": w.prefix,
        "ENRICH_LOG_FILE": "none",
    }
    done = subprocess.run(
        [sys.executable, "-m", "enrich", "cancel"],
        cwd=w.stack.folder, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    if must and done.returncode:
        raise Stuck(f"the run could not be cancelled: {done.stderr.strip()}")


def leave(w: World) -> None:
    """End the worker as a deploy does."""
    worker = w.workers[-1]
    os.kill(worker.pid, signal.SIGTERM)
    w.until(lambda: not worker.running, "the worker has ended")

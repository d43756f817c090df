"""The HTTP service beside the embeddings endpoint itself, and what one answer costs beyond it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx2
import numpy as np

from benchmarks.peers import litellm_proxy
from benchmarks.rounds import (
    Figure,
    alternate,
    at_least,
    at_most,
    median,
    not_measured,
    percentile,
    stated,
)
from benchmarks.served import served, until_ready
from benchmarks.stage import Stage, StageFailed
from dev.embedding_model import Model
from dev.services import CHECKOUT

#: Callers at a time, and texts that all of them know.
_CALLERS, _KNOWN = 50, 200
_SINGLES, _PACE = 5_000, 1_000
#: Distinct texts, by a hundred in a request and eight requests at a time.
_DISTINCT, _INPUTS, _AT_ONCE = 8_000, 100, 8
#: Of an endpoint as providers have it, and of one so near that the processors bind, which it shares
#: with service and callers here.
_LATENCY_MS, _NEAR_MS = 500.0, 150.0
#: Requests a minute of an endpoint that binds, and texts of which nine in ten are known.
_REQUESTS_PER_MINUTE, _REPEATED = 1_200, 1_500
_BATCHES = 30
#: Beside LiteLLM: single inputs, and batches of mixed texts.
_BESIDE, _MIXED, _MIXED_TEXTS = 1_000, 200, 1_000


@dataclass(frozen=True)
class Called:
    """What callers saw."""

    seconds: float
    milliseconds: Sequence[float]

    @property
    def per_second(self) -> float:
        return len(self.milliseconds) / self.seconds


def measure(stage: Stage) -> list[Figure]:
    stage.cluster.clear()
    endpoint = stage.stack.embeddings.url
    with served(stage) as ours:
        return [*_distinct(stage, ours, endpoint), *_cached(stage, ours, endpoint),
                *_repeats(stage, ours, endpoint), *_batches(stage, ours),
                *_beside_litellm(stage, ours)]  # fmt: skip


def _distinct(stage: Stage, ours: str, endpoint: str) -> list[Figure]:
    number = iter(range(1_000))

    def ask(url: str) -> float:
        name = next(number)
        texts = [f"error {name} of kind {n} in component {n % 97}" for n in range(_DISTINCT)]
        bodies = [_body(texts[at : at + _INPUTS]) for at in range(0, _DISTINCT, _INPUTS)]
        return _INPUTS * _call(stage, f"{url}/v1/embeddings", _AT_ONCE, bodies).per_second

    def both(latency_ms: float) -> tuple[float, float]:
        stage.api.reset(latency_ms=latency_ms)
        rates = alternate(
            {"service": lambda: ask(ours), "endpoint": lambda: ask(endpoint)},
            stage.rounds(3, 5),
            stage.say,
        )
        stage.data[f"service distinct, {latency_ms:g} ms"] = rates
        return median(rates["service"]), median(rates["endpoint"])

    of_us, of_it = both(_LATENCY_MS)
    near_us, near_it = both(_NEAR_MS)
    return [
        stated("service", f"distinct texts, an endpoint of {_LATENCY_MS:g} ms", of_it, "/s"),
        at_least("service", "distinct texts, of the endpoint's own", of_us / of_it, 0.9),
        stated("service", f"distinct texts, an endpoint of {_NEAR_MS:g} ms", near_it, "/s"),
        stated("service", "distinct texts, of this endpoint's own", near_us / near_it),
    ]


def _cached(stage: Stage, ours: str, endpoint: str) -> list[Figure]:
    stage.api.reset()
    bodies = [_body([f"a known error {n % _KNOWN}"]) for n in range(_SINGLES)]
    url = f"{ours}/v1/embeddings"
    _call(stage, url, _CALLERS, bodies[:_KNOWN])
    seen = [_call(stage, url, _CALLERS, bodies) for _ in range(stage.rounds(3, 5))]
    rate = median([one.per_second for one in seen])
    p99 = median([percentile(one.milliseconds, 0.99) for one in seen])
    # As fast as it has to be, so that what is measured is the service and no queue before it.
    paced = [_call(stage, url, _CALLERS, bodies, per_second=_PACE) for _ in seen]
    steady = [percentile(one.milliseconds, 0.99) for one in paced]
    # More than a process remembers: each comes from Redis.
    many = [f"one of many known errors {n}" for n in range(_SINGLES)]
    _call(stage, url, 1, [_body(many[at : at + _INPUTS]) for at in range(0, _SINGLES, _INPUTS)])
    fetched = _call(stage, url, _CALLERS, [_body([text]) for text in many])
    return [
        at_least("service", "single inputs that are known", rate, 1_000, "/s"),
        stated("service", f"p99 of these, {_CALLERS} callers at their fastest", p99, "ms"),
        at_most(
            "service", f"p99 at {_PACE:,} a second, {_CALLERS} callers", median(steady), 13, "ms"
        ),
        stated("service", "single inputs that Redis alone knows", fetched.per_second, "/s"),
    ]


def _repeats(stage: Stage, ours: str, endpoint: str) -> list[Figure]:
    limit: dict[str, Any] = {"requests_per_minute": _REQUESTS_PER_MINUTE, "burst_seconds": 1.0}
    known = [f"a known error {n % _KNOWN}" for n in range(_REPEATED)]
    texts = [
        f"never seen {time.monotonic_ns()}" if n % 10 == 0 else text for n, text in enumerate(known)
    ]
    stage.api.reset(**limit)
    through = _call(stage, f"{ours}/v1/embeddings", _CALLERS, [_body([t]) for t in texts])
    stage.api.reset(**limit)
    few = [_body([text]) for text in texts[: _REPEATED // 10]]
    bare = _call(stage, f"{endpoint}/v1/embeddings", 1, few, retry=True)
    return [
        at_least(
            "service",
            "nine in ten known, of the endpoint's own",
            through.per_second / bare.per_second,
            10,
            note=f"an endpoint of {_REQUESTS_PER_MINUTE:,} requests a minute",
        )
    ]


def _batches(stage: Stage, ours: str) -> list[Figure]:
    stage.api.reset(latency_ms=_LATENCY_MS)
    bodies = [
        json.dumps(
            {
                "logs": [
                    {"log_id": str(n), "message": f"batch {number}: error {n % 500} happened"}
                    for n in range(1_000)
                ]
            }
        ).encode()
        for number in range(_BATCHES)
    ]
    seen = _call(stage, f"{ours}/api/v1/embedding/batch", 1, bodies)
    return [
        stated("service", "batch of 1,000 logs, p99", percentile(seen.milliseconds, 0.99), "ms"),
        stated("service", "batch of 1,000 logs, median", median(list(seen.milliseconds)), "ms"),
    ]


def _body(texts: Sequence[str]) -> bytes:
    return json.dumps({"model": "text-embedding-3-large", "input": list(texts),
                       "dimensions": 1536, "encoding_format": "base64"}).encode()  # fmt: skip


def _call(
    stage: Stage,
    url: str,
    connections: int,
    bodies: Sequence[bytes],
    *,
    retry: bool = False,
    per_second: float = 0,
) -> Called:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.callers", url, str(connections)],
        input=b"\n".join(bodies),
        env={
            **os.environ,
            "PYTHONPATH": str(CHECKOUT),
            "CALLERS_KEY": stage.stack.environment()["OPENAI_API_KEY"],
            "CALLERS_RETRY": "1" if retry else "",
            "CALLERS_PER_SECOND": str(per_second),
        },
        capture_output=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.decode().strip() or "no word").splitlines()[-1]
        raise StageFailed(f"the callers ended with status {done.returncode}: {last}")
    told = json.loads(done.stdout)
    if set(told["statuses"]) != {"200"}:
        raise StageFailed(f"{url} answered {told['statuses']}")
    return Called(told["seconds"], told["milliseconds"])


def _beside_litellm(stage: Stage, ours: str) -> list[Figure]:
    if not litellm_proxy.is_there():
        return [not_measured("service", "of LiteLLM's", "`make endpoints` installs it")]
    stage.api.reset()
    proxy, theirs = litellm_proxy.start(stage.stack, stage.folder)
    try:
        until_ready(proxy, f"{theirs}/health/liveliness")
        bodies = [_body([f"a known error {n % _KNOWN}"]) for n in range(_BESIDE)]
        for url in (ours, theirs):
            _call(stage, f"{url}/v1/embeddings", _CALLERS, bodies[:_KNOWN])

        def ask(url: str) -> float:
            return _call(stage, f"{url}/v1/embeddings", _CALLERS, bodies).per_second

        rates = alternate(
            {"service": lambda: ask(ours), "litellm": lambda: ask(theirs)},
            stage.rounds(2, 5),
            stage.say,
        )
        us, them = median(rates["service"]), median(rates["litellm"])
        figures = [
            stated("service", "LiteLLM: single inputs that are known", them, "/s"),
            stated("service", "the service's, of LiteLLM's", us / them, "×"),
        ]
        for name, url in (("the service", ours), ("LiteLLM", theirs)):
            texts, paid, wrong, refused = _mixed(stage, url, name)
            figures += [
                stated("service", f"{name}: inputs paid for {texts} texts", paid),
                stated("service", f"{name}: wrong vectors", wrong),
                stated("service", f"{name}: requests that were not answered", refused),
            ]
        return figures
    finally:
        proxy.stop()


def _mixed(stage: Stage, url: str, name: str) -> tuple[int, int, int, int]:
    """Batches of known, new and repeated texts, some of them at once.

    Returns: how many texts there were, inputs that were paid for, vectors that were not those of
    their texts, and requests that were not answered.
    """
    chance = random.Random(1)
    texts = [f"{name}, a mixed error {n} of {time.monotonic_ns()}" for n in range(_MIXED_TEXTS)]
    right = dict(zip(texts, Model().embed(texts), strict=True))
    stage.api.reset()
    key = stage.stack.environment()["OPENAI_API_KEY"]
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    wrong = refused = 0
    with (
        httpx2.Client(base_url=url, headers=headers, timeout=60) as http,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        asked = [chance.choices(texts, k=chance.randint(1, 40)) for _ in range(_MIXED)]
        for batch, answer in zip(
            asked, pool.map(lambda one: http.post("/v1/embeddings", content=_body(one)), asked),
            strict=True,
        ):  # fmt: skip
            if answer.status_code != 200:
                refused += 1
                continue
            rows = [np.frombuffer(b64decode(one["embedding"]), "<f4")
                    if isinstance(one["embedding"], str) else np.float32(one["embedding"])
                    for one in answer.json()["data"]]  # fmt: skip
            wrong += abs(len(rows) - len(batch))
            wrong += sum(
                not np.allclose(row, right[text], atol=1e-6)
                for text, row in zip(batch, rows, strict=False)
            )
    distinct = len({text for batch in asked for text in batch})
    return distinct, stage.api.counts()["inputs"], wrong, refused

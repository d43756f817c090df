"""An embeddings service which speaks the OpenAI protocol and computes real vectors offline.

The demo, the tests and the benchmarks point the `openai` package at it. Under `/control` it can be
slowed down, rationed and made to fail in every way that the product must survive, and says what it
served.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import math
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import msgspec
import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from dev.api_faults import Faults, fail_early, fail_late
from dev.chat_stand_in import chat_answer, read_chat
from dev.embedding_model import NATIVE_DIMENSIONS, Model
from dev.embeddings_protocol import (
    Ask,
    Base64Support,
    Refusal,
    check_model,
    read_request,
    render,
)


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """What `POST /control` sets."""

    #: Added to every answer that computes vectors.
    latency_ms: float = 0.0
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    #: How many seconds' worth of a limit may be taken at once; some services enforce less than a
    #: minute's.
    burst_seconds: float = 60.0
    #: None accepts any key, and none.
    api_key: str | None = None
    #: Answer with the model's native length whatever `dimensions` says, as some services do.
    dimensions_ignored: bool = False
    #: The one length that the model has; `dimensions` is refused, as many services do.
    only_dimensions: int | None = None
    base64_support: Base64Support = "served"
    #: Refuse everything as an account without credit is refused.
    quota_exhausted: bool = False


class Bucket:
    """A rate limit as the real service keeps it: full at first, refilled evenly over a minute."""

    def __init__(self, limit: int, burst_seconds: float) -> None:
        self.limit = limit
        #: The most that it holds; one request, if it would be less.
        self.full = max(1.0, limit * burst_seconds / 60)
        self._level = self.full
        self._at = time.monotonic()

    def level(self) -> float:
        """How much may be taken now."""
        now = time.monotonic()
        self._level = min(self.full, self._level + (now - self._at) * self.limit / 60)
        self._at = now
        return self._level

    def take(self, amount: int) -> None:
        """Take `amount`; the caller has looked at `level` before."""
        self._level = self.level() - amount

    def wait_for(self, amount: float) -> float:
        """Seconds until `amount` is there."""
        return max(0.0, (min(amount, self.full) - self.level()) * 60 / self.limit)


@dataclass
class State:
    """All that changes while the server runs."""

    #: What the server was started with, and returns to at a reset.
    initial: Settings
    settings: Settings = field(init=False)
    faults: Faults = field(init=False)
    limits: dict[str, Bucket] = field(init=False)
    requests: int = field(init=False)
    inputs: int = field(init=False)
    tokens: int = field(init=False)
    #: Requests of chats, and the texts of the last one.
    chats: int = field(init=False)
    last_chat: list[str] = field(init=False)
    refused: Counter[int] = field(init=False)
    distinct: set[bytes] = field(init=False)
    in_flight: int = 0
    in_flight_max: int = field(init=False)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Back to the state after the start. Requests in flight stay in flight."""
        self.apply(msgspec.structs.replace(self.initial))
        self.faults = Faults()
        self.requests = self.inputs = self.tokens = self.chats = 0
        self.last_chat = []
        self.refused = Counter()
        self.distinct = set()
        self.in_flight_max = self.in_flight

    def apply(self, settings: Settings) -> None:
        """Take over new settings; rate limits begin full."""
        self.settings = settings
        self.limits = {}
        if settings.requests_per_minute is not None:
            self.limits["requests"] = Bucket(settings.requests_per_minute, settings.burst_seconds)
        if settings.tokens_per_minute is not None:
            self.limits["tokens"] = Bucket(settings.tokens_per_minute, settings.burst_seconds)

    def count_paid(self, texts: list[str], tokens: int) -> None:
        """Count what the real service would charge for: everything that was computed."""
        self.inputs += len(texts)
        self.tokens += tokens
        # Digests, because the texts of a long benchmark would fill the memory.
        self.distinct.update(
            hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
            for text in texts
        )

    def limit_headers(self) -> dict[str, str]:
        """The x-ratelimit headers of the limits that are set."""
        headers = {}
        for name, bucket in self.limits.items():
            headers[f"x-ratelimit-limit-{name}"] = str(bucket.limit)
            headers[f"x-ratelimit-remaining-{name}"] = str(max(0, math.floor(bucket.level())))
            headers[f"x-ratelimit-reset-{name}"] = _duration(bucket.wait_for(bucket.full))
        return headers

    def report(self) -> dict[str, Any]:
        """The answer to `GET /control`; keys are not given away."""
        settings = msgspec.to_builtins(self.settings)
        settings["api_key"] = None if self.settings.api_key is None else "set"
        return {
            "requests": self.requests,
            "inputs": self.inputs,
            "tokens": self.tokens,
            "chats": self.chats,
            "last_chat": self.last_chat,
            "distinct_inputs": len(self.distinct),
            "refused": {str(status): count for status, count in sorted(self.refused.items())},
            "in_flight_max": self.in_flight_max,
            "strikes_left": self.faults.strikes_left,
            "settings": settings,
        }


def create_app(
    *, api_key: str | None = None, control_key: str | None = None, model: Model | None = None
) -> Starlette:
    """The whole service. Loads the model unless one is given.

    Args:
        api_key: None accepts any key.
        control_key: what `/control` asks for; None leaves it open, "" shuts it for everybody.
    """
    service = Service(State(Settings(api_key=api_key)), model or Model(), control_key)
    return Starlette(
        routes=[
            Route("/v1/embeddings", service.create_embeddings, methods=["POST"]),
            Route("/v1/chat/completions", service.create_chat, methods=["POST"]),
            Route("/v1/models", service.list_models),
            Route("/v1/models/{model}", service.show_model),
            Route("/control", service.show_control),
            Route("/control", service.set_control, methods=["POST"]),
            Route("/control/reset", service.reset_control, methods=["POST"]),
            Route("/control/faults", service.add_faults, methods=["POST"]),
            Route("/control/faults", service.drop_faults, methods=["DELETE"]),
        ]
    )


class Service:
    """The endpoints."""

    def __init__(self, state: State, model: Model, control_key: str | None = None) -> None:
        self.state = state
        self.model = model
        self._control_key = control_key

    async def create_embeddings(self, request: Request) -> Response:
        state = self.state
        state.requests += 1
        state.in_flight += 1
        state.in_flight_max = max(state.in_flight_max, state.in_flight)
        try:
            response = await self._embed(request)
        except Refusal as refusal:
            response = _json(refusal.body, refusal.status, refusal.headers)
        except ClientDisconnect:
            # The client left before its request was complete; nobody reads this.
            return Response(status_code=499)
        finally:
            state.in_flight -= 1
        if response.status_code != 200:
            state.refused[response.status_code] += 1
        for name, value in state.limit_headers().items():
            response.headers.setdefault(name, value)
        return response

    async def create_chat(self, request: Request) -> Response:
        self.state.chats += 1
        try:
            self._check_key(request)
            texts = read_chat(await request.body())
            self.state.last_chat = texts
            fault = self.state.faults.choose(texts, "chat")
            early = await fail_early(fault, request) if fault else None
            return early or _json(chat_answer(texts, fault))
        except Refusal as refusal:
            return _json(refusal.body, refusal.status, refusal.headers)
        except ClientDisconnect:
            return Response(status_code=499)

    async def list_models(self, request: Request) -> Response:
        try:
            self._check_key(request)
        except Refusal as refusal:
            return _json(refusal.body, refusal.status)
        return _json({"object": "list", "data": [_describe(name) for name in NATIVE_DIMENSIONS]})

    async def show_model(self, request: Request) -> Response:
        name = request.path_params["model"]
        try:
            self._check_key(request)
            check_model(name)
        except Refusal as refusal:
            return _json(refusal.body, refusal.status)
        return _json(_describe(name))

    async def show_control(self, request: Request) -> Response:
        if refused := self._refuse_control(request):
            return refused
        return _json(self.state.report())

    async def set_control(self, request: Request) -> Response:
        if refused := self._refuse_control(request):
            return refused
        try:
            changes = msgspec.json.decode(await request.body(), type=dict[str, Any])
            merged = msgspec.to_builtins(self.state.settings) | changes
            settings = msgspec.convert(merged, Settings)
            for limit in (settings.requests_per_minute, settings.tokens_per_minute):
                if limit is not None and limit < 1:
                    raise msgspec.ValidationError("a limit must be at least 1, or null")
        except msgspec.MsgspecError as error:
            return _json(Refusal(400, str(error)).body, 400)
        self.state.apply(settings)
        return _json(self.state.report())

    async def reset_control(self, request: Request) -> Response:
        if refused := self._refuse_control(request):
            return refused
        self.state.reset()
        return _json(self.state.report())

    async def add_faults(self, request: Request) -> Response:
        if refused := self._refuse_control(request):
            return refused
        try:
            self.state.faults.add(await request.body())
        except msgspec.MsgspecError as error:
            return _json(Refusal(400, str(error)).body, 400)
        return _json(self.state.report())

    async def drop_faults(self, request: Request) -> Response:
        if refused := self._refuse_control(request):
            return refused
        self.state.faults = Faults()
        return _json(self.state.report())

    def _refuse_control(self, request: Request) -> Response | None:
        """Any user of the host can reach the port; only who started the server may steer it."""
        if self._control_key is None:
            return None
        _, _, given = request.headers.get("authorization", "").partition(" ")
        if self._control_key and hmac.compare_digest(given.encode(), self._control_key.encode()):
            return None
        return _json(Refusal(401, "Wrong or missing key of /control.").body, 401)

    async def _embed(self, request: Request) -> Response:
        state = self.state
        self._check_key(request)
        if state.settings.quota_exhausted:
            raise Refusal(
                429,
                "You exceeded your current quota, please check your plan and billing details.",
                kind="insufficient_quota",
                code="insufficient_quota",
            )
        body = await request.body()
        ask = await run_in_threadpool(
            read_request,
            body,
            self.model,
            dimensions_ignored=state.settings.dimensions_ignored,
            only_dimensions=state.settings.only_dimensions,
            base64_support=state.settings.base64_support,
        )
        fault = state.faults.choose(ask.texts)
        if fault is not None:
            early = await fail_early(fault, request)
            if early is not None:
                return early
        self._check_limits(ask)
        if state.settings.latency_ms:
            await asyncio.sleep(state.settings.latency_ms / 1000)
        vectors = await run_in_threadpool(self.model.vectors, ask.readings, ask.dimensions)
        state.count_paid(ask.texts, ask.token_count)
        if fault is not None:
            return fail_late(fault, ask, vectors)
        unanswered = ask.base64 and state.settings.base64_support == "unanswered"
        rows = [] if unanswered else list(enumerate(vectors))
        return _json_bytes(await run_in_threadpool(render, ask, rows))

    def _check_key(self, request: Request) -> None:
        expected = self.state.settings.api_key
        if expected is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not given:
            raise Refusal(401, "You didn't provide an API key in an Authorization: Bearer header.")
        if not hmac.compare_digest(given.encode(), expected.encode()):
            raise Refusal(401, "Incorrect API key provided.", code="invalid_api_key")

    def _check_limits(self, ask: Ask) -> None:
        limits = self.state.limits
        amounts = {"requests": 1, "tokens": ask.token_count}
        for name, bucket in limits.items():
            if amounts[name] > bucket.level():
                wait = bucket.wait_for(amounts[name])
                used = math.ceil(bucket.full - bucket.level())
                raise Refusal(
                    429,
                    f"Rate limit reached for {ask.model} on {name} per min: Limit "
                    f"{bucket.limit}, Used {used}, Requested {amounts[name]}. Please try again "
                    f"in {_duration(wait)}.",
                    kind=name,
                    code="rate_limit_exceeded",
                    headers={
                        "Retry-After": str(max(1, math.ceil(wait))),
                        "retry-after-ms": str(max(1, math.ceil(wait * 1000))),
                    },
                )
        for name, bucket in limits.items():
            bucket.take(amounts[name])


def _describe(model: str) -> dict[str, Any]:
    return {"id": model, "object": "model", "created": 1705953180, "owned_by": "system"}


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), status, headers, media_type="application/json")


def _json_bytes(body: bytes) -> Response:
    return Response(body, media_type="application/json")


def _duration(seconds: float) -> str:
    """`120ms`, `7.5s`, `6m0s`: the way the service writes a time to wait."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    if seconds < 60:
        return f"{math.ceil(seconds * 1000) / 1000:g}s"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s"


def main(argv: list[str] | None = None) -> int:
    """Serve on 127.0.0.1 until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m dev.embeddings_server", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument(
        "--api-key",
        default=os.environ.get("EMBEDDINGS_API_KEY") or None,
        help="the only key accepted; better given as EMBEDDINGS_API_KEY, because arguments are "
        "seen in the process list; without one any key is accepted",
    )
    options = parser.parse_args(argv)
    # One process among several on a small machine: threads of its own would only compete.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # In the environment only: without one, /control is shut.
    control_key = os.environ.get("EMBEDDINGS_CONTROL_KEY", "")
    app = create_app(api_key=options.api_key, control_key=control_key)
    print(f"embeddings answer on http://127.0.0.1:{options.port}/v1", flush=True)
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=options.port,
        # No access log: it would be the busiest writer of the stack.
        access_log=False,
        log_level="warning",
        lifespan="off",
        # Longer than clients keep idle connections, so that it is never the server that closes
        # one just as a request is being written into it.
        timeout_keep_alive=120,
        timeout_graceful_shutdown=1,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

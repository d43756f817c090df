"""An embeddings service which speaks the OpenAI protocol and computes real vectors offline.

The demo, the tests and the benchmarks point the `openai` package at it. Its vectors come from the
static model in the `wordllama` wheel, so related messages really are near each other, and they are
bit for bit the same for a text in any batch, process or machine. Under `/control` it can be slowed
down, rationed and made to fail in every way that the product must survive, and says what it served.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import hmac
import importlib.util
import json
import math
import os
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import orjson
import uvicorn
from safetensors.numpy import load_file
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from tokenizers import Tokenizer

Vectors = npt.NDArray[np.float32]

DEFAULT_DIMENSIONS = 1536
#: Native length by model: the most that `dimensions` may ask for. The real text-embedding-3-large
#: also answers 3,072 when nothing is asked; here every model answers 1,536 then.
NATIVE_DIMENSIONS = {
    "text-embedding-3-large": 3072,
    "text-embedding-3-small": 1536,
    "text-embedding-ada-002": 1536,
}
#: The real service's limits on one request.
MAX_INPUTS = 2048
MAX_TOKENS_PER_INPUT = 8192
MAX_TOKENS_PER_REQUEST = 300_000


class Model:
    """The static model; safe to use from several threads.

    Every step is exact arithmetic, which is what makes a text's vector independent of its
    neighbours in the batch and of the order in which a processor adds: the table holds float16
    values, whose float64 sums are exact; the pooled sums are rounded to 15-bit integers; and the
    projection consists of plus and minus ones, so that its float32 products are integers below
    2**24. Only the last division rounds, once for each element.
    """

    def __init__(self) -> None:
        # Reading the files of the wheel directly avoids importing wordllama, which would
        # reconfigure the root logger.
        spec = importlib.util.find_spec("wordllama")
        if spec is None or spec.origin is None:
            raise RuntimeError(
                "The package wordllama is missing: install the dev requirements, which bring it."
            )
        folder = Path(spec.origin).parent
        weights = load_file(folder / "weights" / "l2_supercat_256.safetensors")
        self._table: npt.NDArray[np.float32] = weights["embedding.weight"].astype(np.float32)
        self._tokenizer: Any = Tokenizer.from_file(
            str(folder / "tokenizers" / "l2_supercat_tokenizer_config.json")
        )
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._projection = _projection(self._table.shape[1], max(NATIVE_DIMENSIONS.values()))

    def tokenize(self, texts: list[str]) -> list[list[int]]:
        """The token ids of each text."""
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def count_tokens(self, texts: list[str]) -> list[int]:
        """The number of tokens of each text, as `usage` counts them."""
        return [len(ids) for ids in self.tokenize(texts)]

    def embed(self, texts: list[str], dimensions: int = DEFAULT_DIMENSIONS) -> Vectors:
        """Unit vectors of shape (len(texts), dimensions)."""
        return self.embed_tokens(self.tokenize(texts), dimensions)

    def embed_tokens(
        self, tokens: list[list[int]], dimensions: int = DEFAULT_DIMENSIONS
    ) -> Vectors:
        """As `embed`, for texts already tokenized."""
        if not tokens:
            return np.zeros((0, dimensions), np.float32)
        pooled = np.stack([self._table[ids].sum(axis=0, dtype=np.float64) for ids in tokens])
        # A text without any token must have a direction too.
        pooled[~pooled.any(axis=1), 0] = 1.0
        _, exponents = np.frexp(np.abs(pooled).max(axis=1, keepdims=True))
        integers = np.rint(np.ldexp(pooled, 15 - exponents)).astype(np.float32)
        projected = (integers @ self._projection[:, :dimensions]).astype(np.float64)
        lengths = np.sqrt((projected * projected).sum(axis=1, keepdims=True))
        vectors: Vectors = (projected / lengths).astype(np.float32)
        return vectors


def _projection(rows: int, columns: int) -> npt.NDArray[np.float32]:
    """A fixed (rows, columns) matrix of ±1 whose rows are orthogonal, so that angles are kept.

    Hadamard matrices side by side, each with its rows' signs drawn anew: the rows of each are
    orthogonal, hence those of the whole, and of its first `rows`, 2·`rows`, … columns.
    """
    hadamard = np.ones((1, 1), np.float32)
    while len(hadamard) < rows:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    # Python's generator, whose sequence is promised to stay, unlike numpy's.
    source = random.Random(1536)
    blocks = []
    for _ in range(columns // rows):
        signs = np.array([source.choice((-1.0, 1.0)) for _ in range(rows)], np.float32)
        blocks.append(signs[:, np.newaxis] * hadamard)
    return np.ascontiguousarray(np.hstack(blocks))


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """What `POST /control` sets."""

    #: Added to every answer that computes vectors.
    latency_ms: float = 0.0
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    #: None accepts any key, and none.
    api_key: str | None = None
    #: Answer with the model's native length whatever `dimensions` says, as some services do.
    dimensions_ignored: bool = False
    #: Refuse everything as an account without credit is refused.
    quota_exhausted: bool = False


class Fault(msgspec.Struct, forbid_unknown_fields=True):
    """One way to fail, for some requests; see `FAULT_KINDS`."""

    kind: str
    #: How many requests it strikes; 0 is for ever. By default 1, and for ever for "poison".
    times: int | None = None
    #: How many requests it lets pass first.
    after: int = 0
    #: Only requests with an input that contains this text; also which inputs nan, inf, zeros hit.
    match: str | None = None
    #: status, html: the answer to give.
    status: int | None = None
    headers: dict[str, str] = {}
    body: Any = None
    content_type: str | None = None
    #: hang: how long; trickle: how long the whole body takes.
    seconds: float = 30.0
    #: nan, inf, zeros: strike every input rather than the first (or those that match).
    all: bool = False
    #: wrong_dimension: the length to answer with; one too short by default.
    dimension: int | None = None


#: status        answer `status` (500) with `headers`, `body` (an error body), `content_type`
#: html          answer an HTML page with `status` (200), as a proxy or a captive portal does
#: hang          keep the request open for `seconds`, then answer it
#: poison        answer 400 without saying which input is at fault
#: reset         close the connection in the middle of the body
#: trickle       send the body in small pieces over `seconds`
#: cut_json      answer 200 with a complete response whose JSON ends half-way
#: wrong_dimension, nan, inf, zeros          vectors that must not be stored
#: too_few, too_many, duplicate_index, shuffled_index, empty_data   an answer that does not line up
FAULT_KINDS = frozenset(
    {"status", "html", "hang", "poison", "reset", "trickle", "cut_json"}
    | {"wrong_dimension", "nan", "inf", "zeros"}
    | {"too_few", "too_many", "duplicate_index", "shuffled_index", "empty_data"}
)


class Bucket:
    """A rate limit as the real service keeps it: full at first, refilled evenly over a minute."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._level = float(limit)
        self._at = time.monotonic()

    def level(self) -> float:
        """How much may be taken now."""
        now = time.monotonic()
        self._level = min(self.limit, self._level + (now - self._at) * self.limit / 60)
        self._at = now
        return self._level

    def take(self, amount: int) -> None:
        """Take `amount`; the caller has looked at `level` before."""
        self._level = self.level() - amount

    def wait_for(self, amount: int) -> float:
        """Seconds until `amount` is there."""
        return max(0.0, (min(amount, self.limit) - self.level()) * 60 / self.limit)


@dataclass
class State:
    """All that changes while the server runs."""

    #: What the server was started with, and returns to at a reset.
    initial: Settings
    settings: Settings = field(init=False)
    faults: list[Fault] = field(init=False)
    limits: dict[str, Bucket] = field(init=False)
    requests: int = field(init=False)
    inputs: int = field(init=False)
    tokens: int = field(init=False)
    refused: Counter[int] = field(init=False)
    distinct: set[bytes] = field(init=False)
    in_flight: int = 0
    in_flight_max: int = field(init=False)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Back to the state after the start. Requests in flight stay in flight."""
        self.apply(msgspec.structs.replace(self.initial))
        self.faults = []
        self.requests = self.inputs = self.tokens = 0
        self.refused = Counter()
        self.distinct = set()
        self.in_flight_max = self.in_flight

    def apply(self, settings: Settings) -> None:
        """Take over new settings; rate limits begin full."""
        self.settings = settings
        self.limits = {}
        if settings.requests_per_minute is not None:
            self.limits["requests"] = Bucket(settings.requests_per_minute)
        if settings.tokens_per_minute is not None:
            self.limits["tokens"] = Bucket(settings.tokens_per_minute)

    def choose_fault(self, texts: list[str]) -> Fault | None:
        """The first fault that is due for a request with these inputs."""
        chosen = None
        for fault in list(self.faults):
            if fault.match is not None and not any(fault.match in text for text in texts):
                continue
            if fault.after > 0:
                fault.after -= 1
            elif chosen is None:
                chosen = fault
                if fault.times == 1:
                    self.faults.remove(fault)
                elif fault.times:
                    fault.times -= 1
        return chosen

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
            headers[f"x-ratelimit-reset-{name}"] = _duration(bucket.wait_for(bucket.limit))
        return headers

    def report(self) -> dict[str, Any]:
        """The answer to `GET /control`; keys are not given away."""
        settings = msgspec.to_builtins(self.settings)
        settings["api_key"] = None if self.settings.api_key is None else "set"
        return {
            "requests": self.requests,
            "inputs": self.inputs,
            "tokens": self.tokens,
            "distinct_inputs": len(self.distinct),
            "refused": {str(status): count for status, count in sorted(self.refused.items())},
            "in_flight_max": self.in_flight_max,
            "faults": len(self.faults),
            "settings": settings,
        }


class Refusal(Exception):
    """A request the service does not serve, as the error body that says so."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A valid request."""

    model: str
    texts: list[str]
    tokens: list[list[int]]
    dimensions: int
    base64: bool

    @property
    def token_count(self) -> int:
        return sum(len(ids) for ids in self.tokens)


class CutResponse(Response):
    """Announces the whole body, sends half of it, and hangs up."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        body = bytes(self.body)
        half = body[: len(body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": True})
        # Returning here without the rest makes the server close the connection.


def create_app(*, api_key: str | None = None, model: Model | None = None) -> Starlette:
    """The whole service; `api_key` None accepts any key. Loads the model unless one is given."""
    service = Service(State(Settings(api_key=api_key)), model or Model())
    return Starlette(
        routes=[
            Route("/v1/embeddings", service.create_embeddings, methods=["POST"]),
            Route("/v1/models", service.list_models),
            Route("/v1/models/{model}", service.show_model),
            Route("/control", service.show_control),
            Route("/control", service.set_control, methods=["POST"]),
            Route("/control/reset", service.reset_control, methods=["POST"]),
            Route("/control/faults", service.add_faults, methods=["POST"]),
        ]
    )


class Service:
    """The endpoints."""

    def __init__(self, state: State, model: Model) -> None:
        self.state = state
        self.model = model

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
            _check_model(name)
        except Refusal as refusal:
            return _json(refusal.body, refusal.status)
        return _json(_describe(name))

    async def show_control(self, _: Request) -> Response:
        return _json(self.state.report())

    async def set_control(self, request: Request) -> Response:
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

    async def reset_control(self, _: Request) -> Response:
        self.state.reset()
        return _json(self.state.report())

    async def add_faults(self, request: Request) -> Response:
        try:
            faults = msgspec.json.decode(await request.body(), type=list[Fault])
            for fault in faults:
                if fault.kind not in FAULT_KINDS:
                    raise msgspec.ValidationError(f"{fault.kind!r} is not a kind of fault")
                if fault.kind == "poison" and not fault.match:
                    raise msgspec.ValidationError("poison needs a text to match")
                if fault.times is None:
                    fault.times = 0 if fault.kind == "poison" else 1
        except msgspec.MsgspecError as error:
            return _json(Refusal(400, str(error)).body, 400)
        self.state.faults += faults
        return _json(self.state.report())

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
        ask = await run_in_threadpool(self._read, body)
        fault = state.choose_fault(ask.texts)
        if fault is not None:
            early = await self._fail_early(fault, request)
            if early is not None:
                return early
        self._check_limits(ask)
        if state.settings.latency_ms:
            await asyncio.sleep(state.settings.latency_ms / 1000)
        vectors = await run_in_threadpool(self.model.embed_tokens, ask.tokens, ask.dimensions)
        state.count_paid(ask.texts, ask.token_count)
        if fault is not None:
            return _fail_late(fault, ask, vectors)
        return _json_bytes(await run_in_threadpool(_render, ask, list(enumerate(vectors))))

    def _check_key(self, request: Request) -> None:
        expected = self.state.settings.api_key
        if expected is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not given:
            raise Refusal(401, "You didn't provide an API key in an Authorization: Bearer header.")
        if not hmac.compare_digest(given.encode(), expected.encode()):
            raise Refusal(401, "Incorrect API key provided.", code="invalid_api_key")

    def _read(self, body: bytes) -> Ask:
        """Parse and check a request as the real service does."""
        try:
            fields = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise Refusal(400, "We could not parse the JSON body of your request.") from error
        if not isinstance(fields, dict):
            raise Refusal(400, "The body of the request must be a JSON object.")

        name = fields.get("model")
        if not isinstance(name, str) or not name:
            raise Refusal(400, "you must provide a model parameter", param="model")
        _check_model(name)

        texts = _check_input(fields.get("input"))
        dimensions = self._check_dimensions(name, fields.get("dimensions"))
        encoding = fields.get("encoding_format", "float")
        if encoding not in ("float", "base64"):
            raise Refusal(
                400,
                "Invalid value for 'encoding_format': expected 'float' or 'base64'.",
                param="encoding_format",
                code="invalid_value",
            )

        tokens = self.model.tokenize(texts)
        longest = max(len(ids) for ids in tokens)
        if longest > MAX_TOKENS_PER_INPUT:
            raise Refusal(
                400,
                f"This model's maximum context length is {MAX_TOKENS_PER_INPUT} tokens, however "
                f"you requested {longest} tokens ({longest} in your prompt; 0 for the "
                "completion). Please reduce your prompt; or completion length.",
            )
        ask = Ask(
            model=name,
            texts=texts,
            tokens=tokens,
            dimensions=dimensions,
            base64=encoding == "base64",
        )
        if ask.token_count > MAX_TOKENS_PER_REQUEST:
            raise Refusal(
                400,
                f"Requested {ask.token_count} tokens, max {MAX_TOKENS_PER_REQUEST} tokens per "
                "request",
                kind="max_tokens_per_request",
                code="max_tokens_per_request",
            )
        return ask

    def _check_dimensions(self, model: str, dimensions: object) -> int:
        native = NATIVE_DIMENSIONS[model]
        if self.state.settings.dimensions_ignored:
            return native
        if dimensions is None:
            return DEFAULT_DIMENSIONS
        if isinstance(dimensions, bool) or not isinstance(dimensions, int) or dimensions < 1:
            raise Refusal(
                400,
                "Invalid value for 'dimensions': expected an integer of at least 1.",
                param="dimensions",
                code="invalid_value",
            )
        if model == "text-embedding-ada-002":
            raise Refusal(400, "This model does not support specifying dimensions.")
        if dimensions > native:
            raise Refusal(
                400,
                f"Invalid value for 'dimensions' = {dimensions}. Must be less than or equal to "
                f"{native}.",
                param="dimensions",
                code="invalid_value",
            )
        return dimensions

    def _check_limits(self, ask: Ask) -> None:
        limits = self.state.limits
        amounts = {"requests": 1, "tokens": ask.token_count}
        for name, bucket in limits.items():
            if amounts[name] > bucket.level():
                wait = bucket.wait_for(amounts[name])
                used = bucket.limit - math.floor(bucket.level())
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

    async def _fail_early(self, fault: Fault, request: Request) -> Response | None:
        """The faults that strike before anything is computed."""
        if fault.kind == "status":
            status = fault.status or 500
            error_body = Refusal(status, "The server had an error.", kind="server_error").body
            return _as_given(fault, status, error_body, "application/json")
        if fault.kind == "html":
            page = "<html><body><h1>Please sign in</h1></body></html>"
            return _as_given(fault, fault.status or 200, page, "text/html")
        if fault.kind == "poison":
            raise Refusal(
                400, "'$.input' is invalid. Please check the API reference.", param="input"
            )
        if fault.kind == "hang":
            deadline = time.monotonic() + fault.seconds
            while (left := deadline - time.monotonic()) > 0:
                if await request.is_disconnected():
                    raise ClientDisconnect
                await asyncio.sleep(min(0.05, left))
        return None


def _as_given(fault: Fault, status: int, body: Any, content_type: str) -> Response:
    """The answer a fault describes, with defaults for what it leaves open."""
    body = body if fault.body is None else fault.body
    content = body.encode() if isinstance(body, str) else orjson.dumps(body)
    return Response(content, status, fault.headers, media_type=fault.content_type or content_type)


def _fail_late(fault: Fault, ask: Ask, vectors: Vectors) -> Response:
    """The faults of an answer that was computed, and would be paid for."""
    kind = fault.kind
    rows: list[tuple[int, Vectors]] = list(enumerate(vectors))
    if kind in ("nan", "inf", "zeros"):
        struck = [i for i, text in enumerate(ask.texts) if fault.match and fault.match in text]
        for index in range(len(rows)) if fault.all else (struck or [0]):
            if kind == "zeros":
                vectors[index] = 0.0
            else:
                vectors[index, 0] = math.nan if kind == "nan" else math.inf
    elif kind == "wrong_dimension":
        rows = [(i, np.resize(row, fault.dimension or ask.dimensions - 1)) for i, row in rows]
    elif kind == "too_few":
        rows.pop()
    elif kind == "too_many":
        rows.append((len(rows), vectors[0]))
    elif kind == "duplicate_index":
        # The count still agrees, unless there is only one row to be doubled.
        if len(rows) == 1:
            rows.append((0, vectors[0]))
        else:
            rows[-1] = (0, vectors[-1])
    elif kind == "shuffled_index":
        rows.reverse()
    elif kind == "empty_data":
        rows = []

    body = _render(ask, rows)
    if kind == "reset":
        return CutResponse(body, media_type="application/json")
    if kind == "cut_json":
        return _json_bytes(body[: len(body) // 2])
    if kind == "trickle":
        return StreamingResponse(_trickle(body, fault.seconds), media_type="application/json")
    return _json_bytes(body)


async def _trickle(body: bytes, seconds: float, pieces: int = 40) -> Any:
    step = math.ceil(len(body) / pieces)
    for start in range(0, len(body), step):
        yield body[start : start + step]
        await asyncio.sleep(seconds / pieces)


def _check_model(name: str) -> None:
    if name not in NATIVE_DIMENSIONS:
        raise Refusal(
            404,
            f"The model `{name}` does not exist or you do not have access to it.",
            code="model_not_found",
        )


def _check_input(given: object) -> list[str]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts:
        raise Refusal(
            400, "'$.input' is invalid: expected a text or a list of texts.", param="input"
        )
    if len(texts) > MAX_INPUTS:
        raise Refusal(
            400,
            f"Invalid 'input': array too long. Expected an array with maximum length "
            f"{MAX_INPUTS}, but got an array with length {len(texts)} instead.",
            param="input",
            code="array_above_max_length",
        )
    for text in texts:
        if not isinstance(text, str):
            raise Refusal(
                400, "'$.input' is invalid: token arrays are not served here.", param="input"
            )
        if not text:
            raise Refusal(400, "'$.input' is invalid: input cannot be empty.", param="input")
    return texts


def _render(ask: Ask, rows: list[tuple[int, Vectors]]) -> bytes:
    if ask.base64:
        # The protocol's byte order, whatever this machine's is.
        encoded: list[Any] = [
            base64.b64encode(row.astype("<f4").tobytes()).decode() for _, row in rows
        ]
    else:
        encoded = [row for _, row in rows]
    answer = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": vector}
            for (index, _), vector in zip(rows, encoded, strict=True)
        ],
        "model": ask.model,
        "usage": {"prompt_tokens": ask.token_count, "total_tokens": ask.token_count},
    }
    if not ask.base64 and not all(np.isfinite(row).all() for _, row in rows):
        # JSON has no such numbers; services that leak them write them as Python does.
        return json.dumps(answer, default=lambda row: row.tolist()).encode()
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


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
    app = create_app(api_key=options.api_key)
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

"""The ways in which the embeddings service can be made to fail, and what each of them does.

A fault is described in JSON (`POST /control/faults`), waits in a list until a request comes that it
fits, and strikes before anything was computed or after; what it spoils after was paid for.
"""

from __future__ import annotations

import asyncio
import gzip
import math
import re
import time
from typing import Any, Literal

import msgspec
import numpy as np
import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from dev.embedding_model import Vectors
from dev.embeddings_protocol import Ask, Refusal, render


class Fault(msgspec.Struct, forbid_unknown_fields=True):
    """One way to fail, for some requests; see `FAULT_KINDS`."""

    kind: str
    #: Which requests it is for.
    route: Literal["embeddings", "chat"] = "embeddings"
    #: How many requests it strikes; 0 is for ever. By default 1, and for ever for "poison".
    times: int | None = None
    #: How many requests it lets pass first.
    after: int = 0
    #: Only requests with an input that contains this text; also which inputs nan, inf, zeros hit.
    match: str | None = None
    #: Only requests with more inputs, with an input of more bytes, with more bytes in all.
    inputs_above: int | None = None
    text_above: int | None = None
    bytes_above: int | None = None
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
    #: bomb: bytes of the answer once it is decompressed; huge: bytes of it as it is.
    size: int = 100_000_000

    def fits(self, texts: list[str]) -> bool:
        """Whether it strikes a request with these inputs."""
        if self.match is not None and not any(self.match in text for text in texts):
            return False
        sizes = [len(text.encode("utf-8", "surrogatepass")) for text in texts]
        amounts = (
            (self.inputs_above, len(texts)),
            (self.text_above, max(sizes, default=0)),
            (self.bytes_above, sum(sizes)),
        )
        return all(most is None or amount > most for most, amount in amounts)


#: status        answer `status` (500) with `headers`, `body` (an error body), `content_type`
#: html          answer an HTML page with `status` (200), as a proxy or a captive portal does
#: hang          keep the request open for `seconds`, then answer it
#: poison        answer 400 without saying which input is at fault
#: reset         close the connection in the middle of the body
#: trickle       send the body in small pieces over `seconds`
#: cut_json      answer 200 with a complete response whose JSON ends half-way
#: wrong_dimension, nan, inf, zeros          vectors that must not be stored
#: too_few, too_many, duplicate_index, shuffled_index, empty_data   an answer that does not line up
#: without_index, without_index_0      rows that do not name their index, or only the first does not
#: usage         answer with `body` in place of the count of tokens, as it stands
#: bomb          answer gzip of `size` zeros though nobody asked for it
#: huge          answer `size` blanks
#: deep          answer JSON nested 100,000 deep
#: words         of a chat: say `body` in place of an opinion
#: refusal       of a chat: refuse, as structured output does
FAULT_KINDS = frozenset(
    {"status", "html", "hang", "poison", "reset", "trickle", "cut_json"}
    | {"wrong_dimension", "nan", "inf", "zeros"}
    | {"too_few", "too_many", "duplicate_index", "shuffled_index", "empty_data"}
    | {"without_index", "without_index_0"}
    | {"usage", "bomb", "huge", "deep"}
    | {"words", "refusal"}
)


class Faults:
    """The faults that wait for their requests."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []

    @property
    def strikes_left(self) -> int:
        """How many requests are still to be struck; those that strike for ever count nothing."""
        return sum(fault.times or 0 for fault in self._waiting)

    def add(self, body: bytes) -> None:
        """Take over a JSON list of faults, all or none.

        Raises:
            msgspec.MsgspecError: what is wrong with it.
        """
        faults = msgspec.json.decode(body, type=list[Fault])
        for fault in faults:
            if fault.kind not in FAULT_KINDS:
                raise msgspec.ValidationError(f"{fault.kind!r} is not a kind of fault")
            if fault.kind == "poison" and not fault.match:
                raise msgspec.ValidationError("poison needs a text to match")
            if fault.times is None:
                fault.times = 0 if fault.kind == "poison" else 1
        self._waiting += faults

    def choose(self, texts: list[str], route: str = "embeddings") -> Fault | None:
        """The first fault that is due for a request with these inputs."""
        chosen = None
        for fault in list(self._waiting):
            if fault.route != route or not fault.fits(texts):
                continue
            if fault.after > 0:
                fault.after -= 1
            elif chosen is None:
                chosen = fault
                if fault.times == 1:
                    self._waiting.remove(fault)
                elif fault.times:
                    fault.times -= 1
        return chosen


async def fail_early(fault: Fault, request: Request) -> Response | None:
    """What a fault that strikes before anything is computed answers; None goes on.

    Raises:
        Refusal: poison.
        ClientDisconnect: the client left while the request was kept open.
    """
    if fault.kind == "status":
        status = fault.status or 500
        error_body = Refusal(status, "The server had an error.", kind="server_error").body
        return _as_given(fault, status, error_body, "application/json")
    if fault.kind == "html":
        page = "<html><body><h1>Please sign in</h1></body></html>"
        return _as_given(fault, fault.status or 200, page, "text/html")
    if fault.kind == "bomb":
        packed = gzip.compress(bytes(fault.size), 1)
        return Response(packed, 200, {"content-encoding": "gzip"}, media_type="application/json")
    if fault.kind == "huge":
        return StreamingResponse(_blanks(fault.size), media_type="application/json")
    if fault.kind == "deep":
        return Response(b'{"data":' + b"[" * 100_000, media_type="application/json")
    if fault.kind == "poison":
        raise Refusal(400, "'$.input' is invalid. Please check the API reference.", param="input")
    if fault.kind == "hang":
        deadline = time.monotonic() + fault.seconds
        while (left := deadline - time.monotonic()) > 0:
            if await request.is_disconnected():
                raise ClientDisconnect
            await asyncio.sleep(min(0.05, left))
    return None


def fail_late(fault: Fault, ask: Ask, vectors: Vectors) -> Response:
    """The faults of an answer that was computed, and would be paid for."""
    kind = fault.kind
    rows: list[tuple[int | None, Vectors]] = list(enumerate(vectors))
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
    elif kind.startswith("without_index"):
        rows = [(None if kind == "without_index" or i == 0 else i, row) for i, row in rows]
    elif kind == "empty_data":
        rows = []

    body = render(ask, rows)
    if kind == "usage":
        body = re.sub(
            rb'"prompt_tokens":\s*\d+', b'"prompt_tokens":' + str(fault.body).encode(), body
        )
    if kind == "reset":
        return CutResponse(body, media_type="application/json")
    if kind == "cut_json":
        body = body[: len(body) // 2]
    if kind == "trickle":
        return StreamingResponse(_trickle(body, fault.seconds), media_type="application/json")
    return Response(body, media_type="application/json")


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


def _as_given(fault: Fault, status: int, body: Any, content_type: str) -> Response:
    """The answer a fault describes, with defaults for what it leaves open."""
    body = body if fault.body is None else fault.body
    content = body.encode() if isinstance(body, str) else orjson.dumps(body)
    return Response(content, status, fault.headers, media_type=fault.content_type or content_type)


async def _blanks(size: int) -> Any:
    for _ in range(size // 100_000):
        yield b" " * 100_000


async def _trickle(body: bytes, seconds: float, pieces: int = 40) -> Any:
    step = math.ceil(len(body) / pieces)
    for start in range(0, len(body), step):
        yield body[start : start + step]
        await asyncio.sleep(seconds / pieces)

"""The routes of the service, and what stands between them and the rooms that do the work."""

# Annotations are read as they stand: those of routes name what is only known in a function.
import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from enrich import __version__
from enrich.api import problems, statistics
from enrich.api.guard import Guard
from enrich.api.keys import Key, Keys
from enrich.api.models import (
    BatchIn,
    BatchItem,
    BatchOut,
    EmbeddingOut,
    HitOut,
    ReadyOut,
    Reason,
    SearchOut,
    TextIn,
)
from enrich.api.openai_form import MOST_INPUTS, Form, Refusal
from enrich.api.problems import ProblemError
from enrich.api.statistics import CountStore
from enrich.api.vectors import Answer, Saved, Vectors
from enrich.embedding.resolver import Resolved
from enrich.errors import EnrichError, RateLimited, TextUnusable
from enrich.log_store.level_counts import ProjectRefused, ProjectUnknown
from enrich.log_store.stats import Stats
from enrich.setting_forms import loopback
from enrich.text.extract import text_of
from enrich.text.rewriting import Rewrite

log = logging.getLogger(__name__)

#: Seconds within which a server has to say that it is there.
READY_SECONDS = 1.0

JSON = "application/json"

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the routes work with."""

    model: str
    dimensions: int
    keys: Keys
    vectors: Vectors
    form: Form
    rewrite: Rewrite | None
    #: What was spent today by a payer, in USD.
    spent: Callable[[str], float]
    #: Takes a permit of a key's own rate; raises RateLimited.
    admit: Callable[[Key], None]
    #: A vector of words that are searched for.
    embed_query: Callable[[str], list[float]]
    stats: Stats
    #: Logs of one project by level, and the zone of the hours they are counted by.
    level_counts: CountStore
    zone: Callable[[], ZoneInfo]
    #: Each server that is needed, and a call that raises if it is not there.
    servers: dict[str, Callable[[], object]]
    #: The metrics, as Prometheus reads them.
    metrics: Callable[[], bytes]
    close: Callable[[], None]


def build_app(parts: Parts) -> FastAPI:
    """The application."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        parts.vectors.close()
        parts.close()

    app = FastAPI(
        title="enrich",
        version=__version__,
        summary="Vectors of texts, with everything that is known already for nothing.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(
        Guard,
        hosts=None if parts.keys.by_digest else loopback.NAMES,
    )
    app.include_router(_embeddings(parts))
    app.include_router(_openai(parts))
    app.include_router(_search(parts))
    app.include_router(_statistics(parts))
    app.include_router(_operations(parts))
    app.add_exception_handler(EnrichError, _expected)  # type: ignore[arg-type]
    app.add_exception_handler(ProblemError, _problem)  # type: ignore[arg-type]
    app.add_exception_handler(Refusal, _refusal)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, _invalid)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, _http)  # type: ignore[arg-type]
    return app


# -- errors


async def _expected(request: Request, error: EnrichError) -> Response:
    status, headers = problems.status_of(error)
    if request.url.path.startswith("/v1/"):
        return _openai_error(error)
    return problems.response(status, str(error), headers)


async def _problem(request: Request, error: ProblemError) -> Response:
    return problems.response(error.status, error.detail, error.headers)


async def _refusal(request: Request, error: Refusal) -> Response:
    return JSONResponse(error.body, error.status, error.headers)


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    # Where and what was expected; never what was given.
    told = "; ".join(
        f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()[:5]
    )
    return problems.response(422, told)


async def _http(request: Request, error: HTTPException) -> Response:
    if request.url.path.startswith("/v1/"):
        refusal = Refusal(error.status_code, str(error.detail))
        return JSONResponse(refusal.body, error.status_code, error.headers)
    return problems.response(error.status_code, str(error.detail), error.headers)


def _openai_error(error: EnrichError) -> Response:
    status, headers = problems.status_of(error)
    kind, code = "server_error", None
    if isinstance(error, RateLimited):
        kind, code = "requests", "rate_limit_exceeded"
    refusal = Refusal(status, str(error), type=kind, code=code, headers=headers)
    return JSONResponse(refusal.body, status, refusal.headers)


# -- who asks


def _caller_of(parts: Parts) -> Callable[..., Awaitable[Key]]:
    async def caller(
        request: Request,
        authorization: Annotated[str | None, Header(include_in_schema=False)] = None,
    ) -> Key:
        scheme, _, given = (authorization or "").partition(" ")
        key = parts.keys.holder(given.strip() if scheme.lower() == "bearer" else "")
        openai = request.url.path.startswith("/v1/")
        if key is None:
            if openai:
                raise Refusal(
                    401,
                    "Incorrect API key provided.",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )
            raise ProblemError(
                401, "a key is needed: Authorization: Bearer …", {"WWW-Authenticate": "Bearer"}
            )
        request.state.caller = key.name
        await _admitted(parts, key, openai=openai)
        return key

    return caller


async def _admitted(parts: Parts, key: Key, *, openai: bool) -> None:
    """Raises Refusal or ProblemError: the key's rate or its day's budget is used up."""
    if key.requests_per_minute:
        try:
            await asyncio.to_thread(parts.admit, key)
        except RateLimited as error:
            limit = str(key.requests_per_minute)
            headers = {
                "Retry-After": str(max(1, round(error.pause))),
                "x-ratelimit-limit-requests": limit,
                "x-ratelimit-remaining-requests": "0",
            }
            told = f"this key may send {limit} requests a minute"
            if openai:
                raise Refusal(
                    429, told, type="requests", code="rate_limit_exceeded", headers=headers
                ) from None
            raise ProblemError(429, told, headers) from None
    if key.usd_per_day:
        spent = await asyncio.to_thread(parts.spent, key.payer)
        if spent >= key.usd_per_day:
            told = (
                f"this key has spent its {key.usd_per_day:g} USD of today; it goes on at 00:00 UTC"
            )
            if openai:
                raise Refusal(429, told, type="insufficient_quota", code="insufficient_quota")
            raise ProblemError(429, told)


def _savings(saved: Saved) -> dict[str, str]:
    """What one answer cost and did not, as headers."""
    return {
        "x-enrich-cached": str(saved.cached),
        "x-enrich-duplicates": str(saved.duplicates),
        "x-enrich-coalesced": str(saved.coalesced),
        "x-enrich-paid-inputs": str(saved.paid),
        "x-enrich-cost-usd": f"{saved.micro_usd / 1e6:.6f}",
    }


def _stores(x_enrich_cache: str | None) -> bool:
    return "no-store" not in (x_enrich_cache or "").lower()


CacheHeader = Annotated[
    str | None,
    Header(description="`no-store`: buy the vectors, keep none of them.", examples=["no-store"]),
]


# -- /api/v1


def _embeddings(parts: Parts) -> APIRouter:
    router = APIRouter(prefix="/api/v1", tags=["embeddings"], responses=problems.RESPONSES)
    caller = _caller_of(parts)

    @router.post("/embedding", summary="The vector of one text")
    async def embedding(
        given: TextIn,
        response: Response,
        key: Annotated[Key, Depends(caller)],
        x_enrich_cache: CacheHeader = None,
    ) -> EmbeddingOut:
        try:
            text = _text_for(parts, given.text)
        except TextUnusable:
            raise ProblemError(422, "text: there is nothing in it to embed") from None
        answer = await parts.vectors.of([text], key.payer, store=_stores(x_enrich_cache))
        (resolved,) = answer.results
        response.headers.update(_savings(answer.saved))
        if resolved.vector is None:
            raise ProblemError(*_why(resolved))
        return EmbeddingOut(embedding=resolved.vector.tolist(), dimension=len(resolved.vector))

    @router.post(
        "/embedding/batch",
        summary="The vectors of up to 1,000 logs",
        response_model=BatchOut,
        responses={207: {"model": BatchOut, "description": "Some logs have a reason instead."}},
    )
    async def batch(
        given: BatchIn,
        key: Annotated[Key, Depends(caller)],
        x_enrich_cache: CacheHeader = None,
    ) -> Response:
        texts: list[str] = []
        places: list[int] = []
        items: list[BatchItem] = []
        for place, one in enumerate(given.logs):
            item = BatchItem(log_id=one.log_id)
            items.append(item)
            try:
                texts.append(_text_for(parts, one.message))
                places.append(place)
            except TextUnusable as error:
                item.error = Reason(code=error.code, message="the message has no text")
        stores = _stores(x_enrich_cache)
        answer = (
            await parts.vectors.of(texts, key.payer, store=stores)
            if texts
            else Answer(results=[], saved=Saved())
        )
        for place, resolved in zip(places, answer.results, strict=True):
            if resolved.vector is not None:
                items[place].embedding = resolved.vector.tolist()
            else:
                status, told, _ = _why(resolved)
                code = resolved.failure or ("deferred" if status == 503 else "refused")
                items[place].error = Reason(code=code, message=told)
        count = sum(item.embedding is not None for item in items)
        body = BatchOut(embeddings=items, count=count, model=parts.model)
        return Response(
            body.model_dump_json(exclude_none=True),
            200 if count == len(items) else 207,
            _savings(answer.saved),
            JSON,
        )

    return router


def _text_for(parts: Parts, message: str) -> str:
    """As the pipeline sends a log's message, so that both have one vector. Raises TextUnusable."""
    return text_of({"message": message}, parts.rewrite)


def _why(resolved: Resolved) -> tuple[int, str, dict[str, str]]:
    """Status, sentence and headers of a text that has no vector."""
    if resolved.failure:
        return 422, f"the embeddings API does not take this text ({resolved.failure})", {}
    if resolved.reason:
        budget = "ENRICH_MAX_COST_PER_DAY" in resolved.reason
        return (429 if budget else 503), resolved.reason, {}
    return 503, "the embeddings API gave no vector for this text this time", {"Retry-After": "1"}


# -- /v1, as OpenAI has it


def _openai(parts: Parts) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["openai"], responses=_OPENAI_RESPONSES)
    caller = _caller_of(parts)

    @router.post(
        "/embeddings",
        summary="Embeddings in OpenAI's own form",
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {JSON: {"schema": _openai_request(parts.dimensions)}},
            }
        },
    )
    async def embeddings(
        request: Request,
        key: Annotated[Key, Depends(caller)],
        x_enrich_cache: CacheHeader = None,
    ) -> Response:
        asked = parts.form.read(await request.body())
        answer = await parts.vectors.of(asked.texts, key.payer, store=_stores(x_enrich_cache))
        vectors = []
        for place, resolved in enumerate(answer.results):
            if resolved.vector is None:
                raise _refused(place, resolved)
            vectors.append(resolved.vector)
        body = parts.form.answer(asked, vectors, answer.saved.tokens)
        return Response(body, 200, _savings(answer.saved), JSON)

    @router.get("/models", summary="The one model of this service")
    async def models(key: Annotated[Key, Depends(caller)]) -> dict[str, Any]:
        return parts.form.models()

    return router


def _refused(place: int, resolved: Resolved) -> Refusal:
    status, told, headers = _why(resolved)
    if resolved.failure == "text_too_large":
        return Refusal(
            400, f"input[{place}] is longer than the model's maximum context length.", param="input"
        )
    if resolved.failure:
        return Refusal(400, f"input[{place}]: {told}", param="input")
    if status == 429:
        return Refusal(429, told, type="insufficient_quota", code="insufficient_quota")
    return Refusal(503, told, type="server_error", headers=headers)


_OPENAI_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}

_OPENAI_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": described["description"], "content": {JSON: {"schema": _OPENAI_ERROR}}}
    for status, described in {
        **problems.RESPONSES,
        404: {"description": "There is no such model."},
    }.items()
    if status != 403
}


def _openai_request(dimensions: int) -> dict[str, Any]:
    """Args: dimensions: of the vectors that are kept."""
    text = {"type": "string", "minLength": 1}
    return {
        "type": "object",
        "required": ["model", "input"],
        "properties": {
            "model": {"type": "string", "minLength": 1},
            "input": {
                "anyOf": [
                    text,
                    {"type": "array", "items": text, "minItems": 1, "maxItems": MOST_INPUTS},
                ]
            },
            "dimensions": {"type": ["integer", "null"], "minimum": 1, "maximum": dimensions},
            "encoding_format": {"enum": ["float", "base64", None]},
            "user": {"type": ["string", "null"]},
        },
        "example": {"model": "text-embedding-3-large", "input": ["connection refused"]},
    }


# -- search


def _search(parts: Parts) -> APIRouter:
    router = APIRouter(prefix="/api/v1", tags=["search"], responses=problems.RESPONSES)
    caller = _caller_of(parts)

    @router.get("/search", summary="The ERROR logs nearest in meaning to some words")
    async def search(
        key: Annotated[Key, Depends(caller)],
        q: Annotated[str, Query(min_length=1, max_length=8000, examples=["database is locked"])],
        k: Annotated[int, Query(ge=1, le=100)] = 10,
        index: Annotated[
            str | None,
            Query(
                max_length=1000,
                pattern=r"^[^-_+\s\"\\/?#<>|%][^\s\"\\/?#<>|%]*$",
                description="Names or patterns of indices, separated by commas.",
            ),
        ] = None,
    ) -> SearchOut:
        try:
            text = _text_for(parts, q)
        except TextUnusable:
            raise ProblemError(422, "q: there is nothing in it to search for") from None
        found = await asyncio.to_thread(
            lambda: parts.stats.nearest(parts.embed_query(text), k, index)
        )
        hits = [
            HitOut(
                cosine=hit["cosine"],
                index=hit["index"],
                id=hit["id"],
                logs=hit["logs"],
                indices=list(hit["indices"]),
                message=_told(hit.get("message")),
                service_name=_told(hit.get("service_name")),
                timestamp=_told(hit.get("timestamp")),
            )
            for hit in found.value
        ]
        left_out = [] if found.gaps.whole else [found.gaps.sentence("searched")]
        return SearchOut(hits=hits, left_out=left_out)

    return router


def _told(value: Any) -> str | None:
    return None if value is None else str(value)


# -- statistics

Project = Annotated[
    str,
    Query(
        max_length=255,
        pattern="^[A-Za-z0-9][A-Za-z0-9_-]*$",
        examples=["3f2a9c1e-77d0-4b8e-9d51-0c6a1f2b3e4d"],
    ),
]
Hours = Annotated[int, Query(ge=1, le=statistics.MOST_HOURS)]


def _statistics(parts: Parts) -> APIRouter:
    router = APIRouter(
        prefix="/api/v2-langgraph/statistics",
        tags=["statistics"],
        responses={
            **problems.RESPONSES,
            404: problems.described("There is no such project, or it has no logs in the period."),
        },
    )
    caller = _caller_of(parts)

    @router.get("/compare", summary="A sample's estimates of a project's logs beside the counts")
    async def compare(
        key: Annotated[Key, Depends(caller)],
        project_uuid: Project,
        time_hours: Hours = 24,
        sample_size: Annotated[
            int, Query(ge=statistics.LEAST_SAMPLE, le=statistics.MOST_SAMPLE)
        ] = 100,
        seed: Annotated[
            int | None, Query(ge=0, lt=2**31, description="Draws the same sample again.")
        ] = None,
    ) -> statistics.Comparison:
        return await _counted(
            lambda: statistics.compare(
                parts.level_counts,
                parts.zone(),
                project_uuid,
                time_hours=time_hours,
                sample_size=sample_size,
                seed=seed,
            )
        )

    @router.get("/hourly", summary="A project's logs by the hour")
    async def hourly(
        key: Annotated[Key, Depends(caller)], project_uuid: Project, time_hours: Hours = 24
    ) -> statistics.Hourly:
        return await _counted(
            lambda: statistics.hourly(
                parts.level_counts, parts.zone(), project_uuid, time_hours=time_hours
            )
        )

    return router


async def _counted(call: Callable[[], T]) -> T:
    try:
        return await asyncio.to_thread(call)
    except (statistics.NoLogs, ProjectUnknown) as error:
        raise ProblemError(404, str(error)) from None
    except ProjectRefused as error:
        raise ProblemError(422, str(error)) from None


# -- operations


def _operations(parts: Parts) -> APIRouter:
    router = APIRouter(tags=["operations"], responses=problems.RESPONSES)

    @router.get("/healthz", summary="Whether this process lives")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @router.get(
        "/readyz",
        summary="Whether each server that is needed answers",
        response_model=ReadyOut,
        responses={503: {"model": ReadyOut, "description": "One of them does not."}},
    )
    async def readyz() -> Response:
        names = list(parts.servers)
        told = await asyncio.gather(*(_look(parts.servers[name]) for name in names))
        servers = dict(zip(names, told, strict=True))
        ready = all(one == "ok" for one in told)
        body = ReadyOut(ready=ready, servers=servers)
        return Response(body.model_dump_json(), 200 if ready else 503, media_type=JSON)

    caller = _caller_of(parts)

    @router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
    async def metrics(key: Annotated[Key, Depends(caller)]) -> Response:
        return Response(
            await asyncio.to_thread(parts.metrics), media_type="text/plain; version=0.0.4"
        )

    return router


async def _look(call: Callable[[], object]) -> str:
    try:
        await asyncio.wait_for(asyncio.to_thread(call), READY_SECONDS)
    except TimeoutError:
        return f"it did not answer within {READY_SECONDS:g} s"
    except EnrichError as error:
        return str(error)
    return "ok"

"""`/v1/embeddings` and `/v1/models`, as clients of OpenAI's API know them."""

# Annotations are read as they stand: those of routes name what is only known in a function.
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from enrich.api.callers import caller_of
from enrich.api.keys import Key
from enrich.api.openai_form import MOST_INPUTS
from enrich.api.parts import Parts, refusal_of_text, savings
from enrich.api.refusals import OPENAI_ERRORS, Refusal
from enrich.api.routes.embeddings import CACHE_HEADER, stores
from enrich.embedding.resolver import Resolved


def embeddings_of(parts: Parts) -> Callable[[Request], Awaitable[Response]]:
    """The function of `POST /v1/embeddings`. It reads the request by itself: see `direct`."""
    caller = caller_of(parts)

    async def embeddings(request: Request) -> Response:
        key = await caller(request, request.headers.get("authorization"))
        asked = parts.form.read(await request.body())
        store = stores(request.headers.get("x-enrich-cache"))
        answer = await parts.vectors.of(asked.texts, key.payer, store=store)
        vectors = []
        for place, resolved in enumerate(answer.results):
            if resolved.vector is None:
                raise _refusal_of(place, resolved)
            vectors.append(resolved.vector)
        body = parts.form.answer(asked, vectors, answer.saved.tokens)
        return Response(body, 200, savings(answer.saved), "application/json")

    return embeddings


def router(parts: Parts) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["openai"], responses=OPENAI_ERRORS)
    caller = caller_of(parts)
    routes.add_api_route(
        "/embeddings",
        embeddings_of(parts),
        methods=["POST"],
        summary="Embeddings in OpenAI's own form",
        response_model=None,
        openapi_extra={
            "parameters": [
                {
                    "name": "x-enrich-cache",
                    "in": "header",
                    "required": False,
                    "schema": {"type": "string"},
                    "description": CACHE_HEADER,
                    "example": "no-store",
                }
            ],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": _request(parts.dimensions)}},
            },
        },
    )

    @routes.get("/models", summary="The one model of this service")
    async def models(key: Annotated[Key, Depends(caller)]) -> dict[str, Any]:
        return parts.form.models()

    return routes


def _refusal_of(place: int, resolved: Resolved) -> Refusal:
    """With the input that it is about, as OpenAI refuses one."""
    refusal = refusal_of_text(resolved)
    if resolved.failure == "text_too_large":
        told = f"input[{place}] is longer than the model's maximum context length."
        return Refusal(400, told, param="input")
    if resolved.failure:
        return Refusal(400, f"input[{place}]: {refusal.sentence}", param="input")
    return refusal


def _request(dimensions: int) -> dict[str, Any]:
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

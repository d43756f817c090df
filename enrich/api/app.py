"""The application: its routes, what becomes of errors, and what stands before both."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.types import ASGIApp

from enrich import __version__
from enrich.api.direct import Direct
from enrich.api.guard import Guard
from enrich.api.parts import Parts
from enrich.api.refusals import FAULT, RAISED, Refusal, answer_to
from enrich.api.routes import embeddings, experiments, openai, operations, search, statistics
from enrich.setting_forms import loopback

log = logging.getLogger(__name__)


def build_asgi(parts: Parts) -> ASGIApp:
    """What a server runs."""
    direct = Direct(build_app(parts), {("POST", "/v1/embeddings"): openai.embeddings_of(parts)})
    return Guard(direct, hosts=None if parts.keys.by_digest else loopback.NAMES)


def build_app(parts: Parts) -> FastAPI:
    """The routes, with their description."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        parts.vectors.close()
        parts.word_vectors.close()
        parts.close()

    app = FastAPI(
        title="enrich",
        version=__version__,
        summary="Vectors of texts, with everything that is known already for nothing.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    for routes in (embeddings, openai, search, statistics, experiments, operations):
        app.include_router(routes.router(parts))
    for kind in RAISED:
        app.add_exception_handler(kind, _raised)
    app.add_exception_handler(RequestValidationError, _invalid)  # type: ignore[arg-type]
    # The answer alone: it is raised on, and logged by the server.
    app.add_exception_handler(Exception, _unforeseen)
    return app


async def _raised(request: Request, error: Exception) -> Response:
    return answer_to(error, request.url.path)


async def _unforeseen(request: Request, error: Exception) -> Response:
    return Refusal(500, FAULT).response(request.url.path)


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    # Where and what was expected; never what was given.
    told = "; ".join(
        f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()[:5]
    )
    return Refusal(422, told).response(request.url.path)

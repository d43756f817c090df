"""`/healthz`, `/readyz` and `/metrics`: for those who run the service."""

# Annotations are read as they stand: those of routes name what is only known in a function.
import asyncio
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import Response

from enrich.api.callers import caller_of
from enrich.api.keys import Key
from enrich.api.models import ReadyOut
from enrich.api.parts import Parts
from enrich.api.refusals import PROBLEMS, for_callers
from enrich.errors import EnrichError

#: Seconds within which a server has to say that it is there.
READY_SECONDS = 1.0


def router(parts: Parts) -> APIRouter:
    routes = APIRouter(tags=["operations"], responses=PROBLEMS)

    @routes.get("/healthz", summary="Whether this process lives")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @routes.get(
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
        return Response(
            body.model_dump_json(), 200 if ready else 503, media_type="application/json"
        )

    caller = caller_of(parts)

    @routes.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
    async def metrics(key: Annotated[Key, Depends(caller)]) -> Response:
        return Response(
            await asyncio.to_thread(parts.metrics), media_type="text/plain; version=0.0.4"
        )

    return routes


async def _look(call: Callable[[], object]) -> str:
    try:
        await asyncio.wait_for(asyncio.to_thread(call), READY_SECONDS)
    except TimeoutError:
        return f"it did not answer within {READY_SECONDS:g} s"
    except EnrichError as error:
        return for_callers(str(error))
    return "ok"

"""`/healthz`, `/readyz` and `/metrics`: for those who run the service."""

# Annotations are read as they stand: those of routes name what is only known in a function.
import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
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
    looks = _Looks(parts.servers)

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
        servers = await looks.told()
        ready = all(told == "ok" for told in servers.values())
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


class _Looks:
    """At each server one at a time: where it hangs, however many ask, one thread waits for it."""

    def __init__(self, servers: Mapping[str, Callable[[], object]]) -> None:
        self._servers = servers
        self._threads = ThreadPoolExecutor(len(servers), "ready")
        self._under_way: dict[str, asyncio.Future[object]] = {}

    async def told(self) -> dict[str, str]:
        """Of each server "ok", or why not."""
        names = list(self._servers)
        return dict(zip(names, await asyncio.gather(*map(self._look, names)), strict=True))

    async def _look(self, name: str) -> str:
        look = self._under_way.get(name)
        if look is None or look.done():
            loop = asyncio.get_running_loop()
            look = loop.run_in_executor(self._threads, self._servers[name])
            # Whoever asked may be gone by then.
            look.add_done_callback(lambda one: one.cancelled() or one.exception())
            self._under_way[name] = look
        done, _ = await asyncio.wait({look}, timeout=READY_SECONDS)
        if not done:
            return f"it did not answer within {READY_SECONDS:g} s"
        try:
            look.result()
        except EnrichError as error:
            return for_callers(str(error))
        return "ok"

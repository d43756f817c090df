"""`/api/v2-langgraph/statistics`: counts of a project's logs, and estimates beside them."""

# Annotations are read as they stand: those of routes name what is only known in a function.
import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Query

from enrich.api import statistics
from enrich.api.callers import caller_of
from enrich.api.keys import Key
from enrich.api.parts import Parts
from enrich.api.refusals import PROBLEMS, Refusal, described
from enrich.log_store.level_counts import ProjectRefused, ProjectUnknown

T = TypeVar("T")

#: Callers that wait for the chat model at a time.
MOST_WAITING = 16

Project = Annotated[
    str,
    Query(
        max_length=255,
        pattern="^[A-Za-z0-9][A-Za-z0-9_-]*$",
        examples=["3f2a9c1e-77d0-4b8e-9d51-0c6a1f2b3e4d"],
    ),
]
Hours = Annotated[int, Query(ge=1, le=statistics.MOST_HOURS)]


def router(parts: Parts) -> APIRouter:
    routes = APIRouter(
        prefix="/api/v2-langgraph/statistics",
        tags=["statistics"],
        responses={
            **PROBLEMS,
            404: described("There is no such project, or it has no logs in the period."),
        },
    )
    caller = caller_of(parts)
    # Who waits for a chat model waits for seconds, and none of the threads that all others need.
    waiting = ThreadPoolExecutor(MOST_WAITING, "chat") if parts.commentator.model else None

    @routes.get("/compare", summary="A sample's estimates of a project's logs beside the counts")
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
                commentator=parts.commentator,
            ),
            waiting,
        )

    @routes.get("/hourly", summary="A project's logs by the hour")
    async def hourly(
        key: Annotated[Key, Depends(caller)], project_uuid: Project, time_hours: Hours = 24
    ) -> statistics.Hourly:
        return await _counted(
            lambda: statistics.hourly(
                parts.level_counts, parts.zone(), project_uuid, time_hours=time_hours
            )
        )

    return routes


async def _counted(call: Callable[[], T], threads: Executor | None = None) -> T:
    try:
        return await asyncio.get_running_loop().run_in_executor(threads, call)
    except (statistics.NoLogs, ProjectUnknown) as error:
        raise Refusal(404, str(error)) from None
    except ProjectRefused as error:
        raise Refusal(422, str(error)) from None

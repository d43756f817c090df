"""`/api/v2-langgraph/statistics`: counts of a project's logs, and estimates beside them."""

# Annotations are read as they stand: those of routes name what is only known in a function.
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from enrich.api import statistics
from enrich.api.callers import caller_of
from enrich.api.keys import Key
from enrich.api.outage import WatchedThreads
from enrich.api.parts import Parts
from enrich.api.routes.projects import PROJECT_PROBLEMS, Hours, Project, Seed, counted
from enrich.api.statistics_models import Comparison, Hourly

#: Callers that wait for the chat model at a time.
MOST_WAITING = 16


def router(parts: Parts) -> APIRouter:
    routes = APIRouter(
        prefix="/api/v2-langgraph/statistics",
        tags=["statistics"],
        responses=PROJECT_PROBLEMS,
    )
    caller = caller_of(parts)
    # Who waits for a chat model waits for seconds, and none of the threads that all others need.
    chatting = parts.commentator.model
    waiting = (
        WatchedThreads(MOST_WAITING, "chat", parts.opensearch) if chatting else parts.searching
    )

    @routes.get("/compare", summary="A sample's estimates of a project's logs beside the counts")
    async def compare(
        key: Annotated[Key, Depends(caller)],
        project_uuid: Project,
        time_hours: Hours = 24,
        sample_size: Annotated[
            int, Query(ge=statistics.LEAST_SAMPLE, le=statistics.MOST_SAMPLE)
        ] = 100,
        seed: Seed = None,
    ) -> Comparison:
        return await counted(
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
    ) -> Hourly:
        return await counted(
            lambda: statistics.hourly(
                parts.level_counts, parts.zone(), project_uuid, time_hours=time_hours
            ),
            parts.searching,
        )

    return routes

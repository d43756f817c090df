"""What routes about one project's logs have in common: its id, the hours, what is not there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Annotated, Any, TypeVar

from fastapi import Query

from enrich.api.last_hours import MOST_HOURS, NoLogs
from enrich.api.refusals import PROBLEMS, Refusal, described
from enrich.log_store.project_logs import ProjectRefused, ProjectUnknown

T = TypeVar("T")

Project = Annotated[
    str,
    Query(
        max_length=255,
        pattern="^[A-Za-z0-9][A-Za-z0-9_-]*$",
        examples=["3f2a9c1e-77d0-4b8e-9d51-0c6a1f2b3e4d"],
    ),
]
Hours = Annotated[int, Query(ge=1, le=MOST_HOURS)]
Seed = Annotated[int | None, Query(ge=0, lt=2**31, description="Draws the same sample again.")]

#: For the OpenAPI document.
PROJECT_PROBLEMS: dict[int | str, dict[str, Any]] = {
    **PROBLEMS,
    404: described("There is no such project, or it has no logs in the period."),
}


async def counted(call: Callable[[], T], threads: Executor) -> T:
    """What a call gives that searches a project's logs.

    Args:
        threads: where it is made.

    Raises Refusal: there are none, or the project's id is none.
    """
    try:
        return await asyncio.get_running_loop().run_in_executor(threads, call)
    except (NoLogs, ProjectUnknown) as error:
        raise Refusal(404, str(error)) from None
    except ProjectRefused as error:
        raise Refusal(422, str(error)) from None

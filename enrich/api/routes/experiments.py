"""`/api/v2-langgraph/experiments`: whether vectors can stand in for an aggregation."""

# Annotations are read as they stand: those of routes name what is only known in a function.
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from enrich.api.callers import caller_of
from enrich.api.experiment import K_VALUES, read_k_values, vector_experiment
from enrich.api.experiment_models import VectorExperiment
from enrich.api.keys import Key
from enrich.api.parts import Parts
from enrich.api.routes.projects import PROJECT_PROBLEMS, Hours, Project, Seed, counted

_K = "([1-9][0-9]{0,3}|10000)"


def router(parts: Parts) -> APIRouter:
    routes = APIRouter(
        prefix="/api/v2-langgraph/experiments",
        tags=["experiments"],
        responses=PROJECT_PROBLEMS,
    )
    caller = caller_of(parts)

    @routes.get(
        "/vector-vs-db", summary="Kinds of errors from k logs beside those of an aggregation"
    )
    async def vector_vs_db(
        key: Annotated[Key, Depends(caller)],
        project_uuid: Project,
        time_hours: Hours = 24,
        k_values: Annotated[
            str,
            Query(
                pattern=f"^{_K}(,{_K}){{0,9}}$",
                description="1 to 10 numbers from 1 to 10,000, with commas between them.",
                examples=[K_VALUES],
            ),
        ] = K_VALUES,
        seed: Seed = None,
    ) -> VectorExperiment:
        return await counted(
            lambda: vector_experiment(
                parts.error_kinds,
                parts.zone(),
                project_uuid,
                time_hours=time_hours,
                k_values=read_k_values(k_values),
                seed=seed,
            ),
            parts.searching,
        )

    return routes

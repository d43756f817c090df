"""What `--json` prints, command by command: docs/json-schemas.json is made of these.

Fields are added; none is taken away or changes its meaning without a new version.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter

from enrich.api.experiment_models import VectorExperiment
from enrich.cli.run_follower import RunSum
from enrich.models import RunRecord
from enrich.planning.plan import Plan
from enrich.status.health import Health
from enrich.status.overview import WorkerReport
from enrich.status.report import Status


class StatusJson(Status):
    """`status`: the report, and how it is judged."""

    health: Health


class RunsJson(BaseModel):
    """`runs`: the newest first."""

    runs: list[RunRecord]
    #: For `--before`, to go on; "" at the end.
    next: str
    #: How many there are in all; null where that cannot be told.
    recorded: int | None
    #: Why some may be missing.
    problems: list[str]


class FailedLog(BaseModel):
    """A log that is marked failed."""

    index: str
    id: str
    routing: str | None
    #: A code, see `python -m enrich failures`.
    error: str
    since: str
    run: str


class Hit(BaseModel):
    """A text that was found, and the nearest log with it, without the fields that the log lacks."""

    model_config = ConfigDict(extra="allow")

    #: −1 to 1.
    cosine: float
    #: How many have the text, and in which indices some of them are.
    logs: int
    indices: list[str]
    index: str
    id: str
    message: Any = None
    level: Any = None
    timestamp: Any = None
    service_name: Any = None
    trace_id: Any = None


FORMS: dict[str, Any] = {
    "status": StatusJson,
    "run": RunSum,
    "runs": RunsJson,
    "runs show": RunRecord,
    "workers": list[WorkerReport],
    "failures": list[FailedLog],
    "search": list[Hit],
    "plan": Plan,
    "experiment": VectorExperiment,
}


def schemas() -> dict[str, Any]:
    """JSON Schema by command."""
    return {
        command: TypeAdapter(form).json_schema(mode="serialization")
        for command, form in FORMS.items()
    }

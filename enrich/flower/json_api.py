"""GET /enrichment/api/…: each part of the page as JSON, for scripts and other screens.

docs/page.md describes them. Trouble is an object with `error`, a sentence, under the right status.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel
from tornado import web

from enrich.flower.page import ROWS, Page, find_run, runs_of
from enrich.flower.view import View
from enrich.flower.words import percent
from enrich.status.health import as_json
from enrich.status.overview import Overview

#: Most runs of one answer.
MOST_RUNS = 500


def _backlog(overview: Overview) -> Any:
    backlog = overview.status.backlog
    if backlog is None:
        return None
    rows = [
        {
            "index": index,
            **counts.model_dump(),
            "coverage_percent": float(
                percent(
                    counts.with_vector,
                    counts.with_vector + counts.without_vector + counts.failed,
                )
            ),
        }
        for index, counts in View(overview.status, overview).all_indices
    ]
    return {**backlog.model_dump(mode="json", exclude={"by_index"}), "indices": rows}


def _dumped(models: Any) -> Any:
    return [model.model_dump(mode="json") for model in models]


def _dumped_if_read(model: BaseModel | None) -> Any:
    return None if model is None else model.model_dump(mode="json")


#: What each part is made of.
PARTS: dict[str, Callable[[Overview], Any]] = {
    "status": lambda overview: as_json(overview.status),
    "health": lambda overview: as_json(overview.status)["health"],
    "backlog": _backlog,
    "failures": lambda overview: _dumped(overview.failures),
    "workers": lambda overview: _dumped(overview.workers),
    "quota": lambda overview: _dumped_if_read(overview.status.quota),
    "money": lambda overview: overview.sums.model_dump(mode="json"),
    "schedule": lambda overview: overview.schedule.model_dump(mode="json"),
    "realtime": lambda overview: _dumped(overview.status.realtime),
}


#: Those that are null while Redis does not answer, as `backlog` is without OpenSearch.
OF_REDIS = ("workers", "quota", "money", "schedule", "realtime")


class Json(Page):
    """What the answers share."""

    def give(self, value: Any) -> None:
        self.set_header("Content-Type", "application/json; charset=utf-8")
        # ASCII only: safe on any terminal.
        self.finish(json.dumps(value))

    def write_error(self, status_code: int, **told: Any) -> None:
        if status_code == 401:
            super().write_error(status_code, **told)
            return
        error = told.get("exc_info", (None, None))[1]
        sentence = error.log_message if isinstance(error, web.HTTPError) else None
        self.set_status(status_code)
        self.give({"error": (sentence or "the request could not be answered").replace("%%", "%")})


class ApiPart(Json):
    """GET /enrichment/api/ lists the parts, /enrichment/api/NAME is one of them."""

    @web.authenticated
    async def get(self, name: str) -> None:
        if not name:
            base = str(self.reverse_url("enrichment-api", ""))
            self.give({part: base + part for part in (*PARTS, "runs", "settings")})
        elif name == "settings":
            self.give(self.room.shown_settings)
        elif name in PARTS:
            overview = await self.room.latest.fresh()
            unread = overview.status.redis_unread and name in OF_REDIS
            self.give(None if unread else PARTS[name](overview))
        else:
            raise web.HTTPError(404, "There is no such part: /enrichment/api/ lists them")


class ApiRuns(Json):
    """GET /enrichment/api/runs?limit=50&before=ID&empty=1"""

    @web.authenticated
    async def get(self) -> None:
        limit = min(self.number("limit") or ROWS, MOST_RUNS)
        page = await runs_of(self.room, limit, self.query("before"), self.query("empty") == "1")
        if page.problem and not page.runs:
            self.set_status(503)
        self.give({"runs": _dumped(page.runs), "next": page.next, "problem": page.problem})


class ApiRun(Json):
    """GET /enrichment/api/runs/ID: the record, and the chunks of an active run."""

    @web.authenticated
    async def get(self, id: str) -> None:
        overview = await self.room.latest.fresh()
        run = await find_run(self.room, overview, id)
        active = overview.status.active_run
        at_work = active is not None and active.run_id == run.run_id
        chunks = overview.chunks if at_work else []
        self.give({**run.model_dump(mode="json"), "chunks_under_way": _dumped(chunks)})

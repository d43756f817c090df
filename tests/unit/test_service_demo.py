"""The demo's curl lines: one for each route of the service, with values of the demo's own."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from dev import demo
from dev.sample_logs import PROJECTS, project_with_most_logs
from dev.service_demo import Call, calls_of

DESCRIPTION: dict[str, Any] = json.loads(
    (Path(demo.__file__).parents[1] / "docs" / "openapi.json").read_text(encoding="utf-8")
)
VALUES = {"model": "wordllama", "project_uuid": "p-1", "q": 'it\'s "down" & slow', "k": 3}


def test_every_route_has_a_line_that_says_what_is_asked() -> None:
    calls = list(calls_of(DESCRIPTION, VALUES))
    routes = [
        (method.upper(), path)
        for path, methods in DESCRIPTION["paths"].items()
        for method in methods
    ]

    assert [(call.method, call.path) for call in calls] == routes
    by_path = {call.path: call for call in calls}
    assert by_path["/v1/embeddings"].body["model"] == "wordllama"
    assert by_path["/api/v1/embedding/batch"].body == {
        "logs": [{"log_id": "5d2c7b1e", "message": "connection refused by the database"}]
    }
    assert by_path["/api/v2-langgraph/statistics/hourly"].query == {"project_uuid": "p-1"}
    # A shell hands curl one address, and the body as it is.
    line = shlex.split(by_path["/api/v1/search"].curl("http://127.0.0.1:1"))
    assert line[:2] == ["curl", "-s"]
    assert line[2:] == ["http://127.0.0.1:1/api/v1/search?q=it%27s+%22down%22+%26+slow&k=3"]
    body = shlex.split(by_path["/v1/embeddings"].curl("http://127.0.0.1:1"))[-1]
    assert json.loads(body) == by_path["/v1/embeddings"].body


def test_a_value_without_an_example_is_named() -> None:
    wanted = {"name": "x", "in": "query", "required": True, "schema": {"type": "string"}}
    description = {"paths": {"/a": {"get": {"parameters": [wanted]}}}}

    with pytest.raises(ValueError, match="no example of x"):
        list(calls_of(description, {}))
    assert list(calls_of(description, {"x": 1})) == [Call(method="GET", path="/a", query={"x": 1})]


def test_the_project_is_that_of_most_live_logs() -> None:
    assert PROJECTS[project_with_most_logs().replace("-", "_")] == max(PROJECTS.values())

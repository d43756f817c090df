"""The HTTP service in the demo: a process on loopback, and a curl line for each of its routes.

Which routes there are and what they take is read from the service's own description, so that none
is forgotten. Each is asked once in the way that its line says, and the answer is told in a line.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import httpx2

from dev.service import Service, ServiceFailed
from dev.services import CHECKOUT, Services, free_ports

#: Seconds until it has to answer, and for each of its answers.
START_SECONDS = 60.0
ANSWER_SECONDS = 30.0
#: Of an answer, in its line.
MOST_CHARACTERS = 120

_JSON = "application/json"

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request to the service."""

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None

    @property
    def target(self) -> str:
        return f"{self.path}?{urlencode(self.query)}" if self.query else self.path

    def curl(self, url: str) -> str:
        """The line for a shell. Args: url: of the service, without a slash at its end."""
        words = ["curl", "-s", url + self.target]
        if self.body is not None:
            words += ["-H", f"content-type: {_JSON}"]
            words += ["-d", json.dumps(self.body, ensure_ascii=False)]
        return shlex.join(words)


def calls_of(description: Mapping[str, Any], values: Mapping[str, Any]) -> Iterator[Call]:
    """A request for each route of an OpenAPI document.

    Args:
        values: of parameters and of fields of bodies by their name; where there is none, required
            ones have that of the document's example, and the others are left out.

    Raises:
        ValueError: the document has no example for a value that is required.
    """
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            query = {}
            for parameter in operation.get("parameters", []):
                name = parameter["name"]
                if parameter["in"] == "query" and (name in values or parameter.get("required")):
                    query[name] = _value(description, name, parameter["schema"], values)
            body = None
            if wanted := operation.get("requestBody"):
                body = _value(description, "body", wanted["content"][_JSON]["schema"], values)
            yield Call(method=method.upper(), path=path, query=query, body=body)


def _value(
    description: Mapping[str, Any], name: str, schema: Mapping[str, Any], values: Mapping[str, Any]
) -> Any:
    if name in values:
        return values[name]
    if "$ref" in schema:
        schema = description["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if example := schema.get("example") or next(iter(schema.get("examples", [])), None):
        if isinstance(example, dict):
            return {part: values.get(part, of_part) for part, of_part in example.items()}
        return example
    if "properties" in schema:
        return {
            part: _value(description, part, of_part, values)
            for part, of_part in schema["properties"].items()
            if part in values or part in schema.get("required", [])
        }
    if "items" in schema:
        return [_value(description, name, schema["items"], values)]
    raise ValueError(f"the service's description has no example of {name}")


class ServiceDemo:
    """The service's process."""

    def __init__(self, stack: Services, environment: Mapping[str, str]) -> None:
        """Start it, with the settings of `environment`; see `show`."""
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self._process: Service = stack.spawn(
            "api",
            [sys.executable, "-m", "enrich", "serve"],
            env={"PYTHONPATH": str(CHECKOUT), **environment, "ENRICH_API_PORT": str(port)},
        )

    def show(self, values: Mapping[str, Any], say: Say) -> None:
        """Tell a curl line for each route, and what it answers.

        Args:
            values: see `calls_of`.

        Raises:
            ServiceFailed: the service does not start, or a route does not answer as it should.
        """
        say(f"the HTTP service: {self.url}; in another terminal, a line for each of its routes:")
        # Not by a proxy that the environment may name.
        with httpx2.Client(base_url=self.url, timeout=ANSWER_SECONDS, trust_env=False) as http:
            self._wait(http)
            for call in calls_of(http.get("/openapi.json").json(), values):
                say(f"  {call.curl(self.url)}")
                try:
                    answer = http.request(call.method, call.target, json=call.body)
                except httpx2.HTTPError as error:
                    raise ServiceFailed(
                        f"{call.path} did not answer ({type(error).__name__}); see "
                        f"{self._process.log}"
                    ) from None
                say(f"    {answer.status_code} {_shortened(answer.text)}")
                if answer.is_error:
                    raise ServiceFailed(
                        f"{call.path} answered {answer.status_code}; see {self._process.log}"
                    )

    def _wait(self, http: httpx2.Client) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            if not self._process.running:
                raise self._process.failure("it ended at once")
            with suppress(httpx2.TransportError):
                if http.get("/healthz").is_success:
                    return
            if time.monotonic() > deadline:
                raise self._process.failure(f"it did not answer within {START_SECONDS:.0f} s")
            time.sleep(0.1)


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MOST_CHARACTERS else f"{line[: MOST_CHARACTERS - 1]}…"

"""The logs of one project: its indices, those of its logs that a period takes in, and searches of
all of them, which are whole or fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from enrich.errors import EnrichError, TransientError
from enrich.log_store.connection import LENIENT, Connection
from enrich.log_store.odd_answers import translates_odd_answers
from enrich.log_store.paths import in_path, parts
from enrich.log_store.queries import Searched
from enrich.log_store.refusals import RequestRefused
from enrich.log_store.scope import Scope
from enrich.models import project_of
from enrich.schema import Schema

S = TypeVar("S", bound=Searched)

#: Bytes in the name of an index.
_MOST_BYTES = 255

#: Of random scores.
_STEPS = 2**24

#: What no name of an index has; OpenSearch refuses these itself.
_NEVER_IN_A_NAME = frozenset('\\/*?"<>| ,#:')


class ProjectRefused(EnrichError):
    """What was given cannot be the name of a project."""


class ProjectUnknown(EnrichError):
    """No index of ENRICH_INDEX_PATTERN belongs to the project."""


class AnswerInPart(TransientError):
    """Not every shard of the project answered: a sample or a count of the rest would be wrong."""


class _Index(msgspec.Struct):
    name: str


class _Resolved(msgspec.Struct):
    indices: list[_Index] = []


@translates_odd_answers
class ProjectLogs:
    """Searches of one project's logs; changes nothing."""

    def __init__(self, connection: Connection, scope: Scope, schema: Schema) -> None:
        self._connection = connection
        self._scope = scope
        self._schema = schema

    def indices_of(self, project: str) -> list[str]:
        """The open indices of ENRICH_INDEX_PATTERN that belong to a project.

        They are picked from a list of all, so that no part of the name gets into a request. A
        project whose indices are called by its id with `_` for `-`, as shippers do with UUIDs, is
        found by either.

        Raises:
            ProjectRefused, ProjectUnknown
        """
        require_project(project)
        answer = self._connection.ask(
            _Resolved,
            "GET",
            f"/_resolve/index/{in_path(self._scope.expression)}",
            params={"expand_wildcards": "open", "filter_path": "indices.name"},
        )
        names = [index.name for index in answer.indices]
        for name in dict.fromkeys((project, project.replace("-", "_").lower())):
            if found := sorted(index for index in names if project_of(index) == name):
                return found
        raise ProjectUnknown(
            "no index belongs to this project: check project_uuid, and that "
            "ENRICH_INDEX_PATTERN takes its indices in"
        )

    def searches(self, type_: type[S], indices: Sequence[str], body: dict[str, Any]) -> list[S]:
        """The answers of as many searches as the names need, each whole."""
        answers = []
        for names in parts(indices):
            path = f"/{in_path(*names)}/_search"
            # An index that has gone since its name was read is missed and not passed over.
            params = {**LENIENT, "ignore_unavailable": "false", "request_cache": "false"}
            try:
                answer = self._connection.ask(type_, "POST", path, body, params)
            except RequestRefused as error:
                raise AnswerInPart(
                    "an index of the project cannot be searched now "
                    f"({error.error_type or error.status}), so that nothing can be said of all its "
                    "logs; `python -m enrich check` names such indices"
                ) from None
            if not answer.whole:
                gaps = self._scope.gaps(answer, index=",".join(names))
                raise AnswerInPart(
                    f"nothing can be said of all logs of the project: {gaps.sentence('searched')}; "
                    "ask again when it answers"
                )
            answers.append(answer)
        return answers

    def within(self, start: datetime, end: datetime) -> dict[str, Any]:
        """Logs whose time, in the first field that they have one in, is in a period."""
        during = {"gte": millis(start), "lt": millis(end), "format": "epoch_millis"}
        return {
            "bool": {
                "should": [
                    {"bool": {"filter": [only, {"range": {name: during}}]}}
                    for name, only in self.by_time()
                ],
                "minimum_should_match": 1,
            }
        }

    def by_time(self) -> list[tuple[str, dict[str, Any]]]:
        """Each field of times, and the logs that have no other before it."""
        names = self._schema.timestamp_fields
        return [
            (
                name,
                {
                    "bool": {
                        "filter": [{"exists": {"field": name}}],
                        "must_not": [{"exists": {"field": other}} for other in names[:n]],
                    }
                },
            )
            for n, name in enumerate(names)
        ]


def require_project(project: str) -> None:
    """Raises ProjectRefused for what no index could be called by."""
    # Its name is not said again: whoever asks may write anything there.
    if not project:
        raise ProjectRefused("project_uuid is empty: give the id that the project's indices have")
    if len(project.encode("utf-8", "surrogatepass")) > _MOST_BYTES:
        raise ProjectRefused(f"project_uuid is longer than {_MOST_BYTES} bytes, and no index is")
    if (
        set(project) & _NEVER_IN_A_NAME
        or not project.isprintable()
        or project.startswith(("-", "_", "+", "."))
    ):
        raise ProjectRefused(
            "project_uuid has characters that the name of no index has: give the id of one "
            "project, without wildcards, commas, blanks and slashes"
        )


def millis(moment: datetime) -> str:
    return str(round(moment.timestamp() * 1000))


def at_random(query: dict[str, Any], seed: int) -> dict[str, Any]:
    """The logs of a query, each with a random score: the same with the same seed."""
    return {
        "function_score": {
            "query": query,
            "random_score": {"seed": seed, "field": "_seq_no"},
            "boost_mode": "replace",
        }
    }


def exact(score: float) -> float:
    """A score as it was drawn, in 24 bits (RandomScoreFunction): its decimals in the answer are
    those that tell it from other numbers of single precision, and no more."""
    return round(score * _STEPS) / _STEPS

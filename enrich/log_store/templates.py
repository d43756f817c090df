"""The index template for new indices, and whether another stands in its way.

OpenSearch applies one template to a new index, that of the highest priority, and merges none; where
it applies one of these, those of the older kind (`/_template`) are not heard at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from enrich.log_store.connection import Connection
from enrich.log_store.mapping import index_mapping
from enrich.log_store.odd_answers import translates_odd_answers
from enrich.log_store.paths import holds
from enrich.schema import LOGLENS, Schema
from enrich.settings import without_exclusions

#: What of `*_*` a template is for: `{project}_{YYYY}_{MM}`.
MONTHLY_INDICES = "*_20*_*"


@translates_odd_answers
class Templates:
    """Puts the template."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def other(
        self, name: str, patterns: Iterable[str], indices: Iterable[str]
    ) -> tuple[str, str] | None:
        """A template of another name that holds for some of the same indices.

        Args:
            patterns: of the template called `name`.
            indices: that are there; the next ones of their kind are called much the same.

        Returns:
            its name, and an index, there or made up, for which it holds as well; None if no such
            template is there.
        """
        names = [*sorted(indices), *(pattern.replace("*", "x") for pattern in patterns)]
        composable = self._connection.ask(dict[str, Any], "GET", "/_index_template")
        older = self._connection.ask(dict[str, Any], "GET", "/_template")
        theirs: dict[str, list[str]] = {
            each: template["index_patterns"] for each, template in older.items()
        } | {
            each["name"]: each["index_template"]["index_patterns"]
            for each in composable["index_templates"]
        }
        theirs.pop(name, None)
        return next(
            (
                (other, index)
                for other, held in sorted(theirs.items())
                for index in names
                if any(holds(pattern, index) for pattern in held)
            ),
            None,
        )

    def put(self, name: str, template: dict[str, Any]) -> None:
        """Create the template of this name, or put it in the place of the one that is there."""
        self._connection.request("PUT", f"/_index_template/{name}", template)


def index_template(
    dimensions: int, patterns: Sequence[str], schema: Schema = LOGLENS
) -> dict[str, Any]:
    """An index template that gives new indices a right `log_vector`."""
    return {
        "index_patterns": [
            # Templates know no exclusions, and `*_*` would take in `.kibana_1`.
            MONTHLY_INDICES if pattern == "*_*" else pattern
            for pattern in without_exclusions(patterns)
        ],
        # Low, so that a template made later for some of these indices takes precedence.
        "priority": 1,
        "template": {
            "settings": {"index.knn": True},
            "mappings": {
                "properties": {
                    **_fields_of(schema),
                    **index_mapping(dimensions),
                }
            },
        },
    }


def _fields_of(schema: Schema) -> dict[str, Any]:
    """How the fields of a shape are mapped. Where there are several shapes, one index has only one
    of them, and OpenSearch maps what it meets."""
    if len(schema.shapes) > 1:
        return {}
    shape = schema.first
    number = {shape.number_field: {"type": "long"}} if shape.number_field else {}
    log_id = {"log_id": {"type": "keyword"}} if shape.plain_text else {}
    return {
        shape.level_field: {"type": "keyword"},
        **number,
        **{name: {"type": "text"} for name in shape.text_fields},
        shape.timestamp_field: {"type": "date"},
        **{name: {"type": "keyword"} for name in (*shape.service_fields, *shape.trace_fields)},
        **log_id,
    }

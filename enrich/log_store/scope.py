"""The indices of ENRICH_INDEX_PATTERN as one target; one that may not be read is left out.

OpenSearch refuses a request to a thousand indices when a single one of them is blocked for reading.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from enrich.log_store.connection import LENIENT, Connection, RequestRefused
from enrich.log_store.paths import in_path
from enrich.log_store.queries import NO_PIPELINE
from enrich.settings import Settings

T = TypeVar("T")

#: OpenSearch's number for the block of a closed index, which no pattern finds anyway.
_CLOSED = "4"


class Scope:
    """Requests to all indices at once."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._connection = connection
        self._all = settings.index_expression
        #: Indices that the last request left out, and why.
        self.left_out: dict[str, str] = {}

    @property
    def expression(self) -> str:
        """The target in OpenSearch's syntax, without what was left out."""
        return ",".join((self._all, *(f"-{name}" for name in self.left_out)))

    def ask(
        self,
        type_: type[T],
        method: str,
        operation: str,
        body: Any = None,
        params: Mapping[str, Any] | None = None,
        *,
        index: str | None = None,
    ) -> T:
        """As `Connection.ask`, for an operation such as `_search` on all indices, or on `index`."""

        def ask() -> T:
            path = f"/{in_path(index or self.expression)}/{operation}"
            return self._connection.ask(type_, method, path, body, {**LENIENT, **(params or {})})

        if operation == "_search":
            body = {**body, **NO_PIPELINE}
        self.left_out = {}
        try:
            return ask()
        except RequestRefused as error:
            if index or error.error_type != "cluster_block_exception":
                raise
            self.left_out = {
                name: f"it cannot be searched: {why}" for name, why in self._unreadable().items()
            }
            if not self.left_out:
                raise
        return ask()

    def _unreadable(self) -> dict[str, str]:
        """Open indices that take no reads, and how OpenSearch says it."""
        answer = self._connection.ask(dict[str, Any], "GET", "/_cluster/state/blocks")
        return {
            index: block["description"]
            for index, blocks in answer["blocks"].get("indices", {}).items()
            for number, block in blocks.items()
            if number != _CLOSED and "read" in block["levels"]
        }

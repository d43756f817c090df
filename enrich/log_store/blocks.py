"""Which indices OpenSearch itself blocks: by a setting of theirs, or by what they are."""

from __future__ import annotations

from typing import Any

from enrich.log_store.connection import Connection

#: OpenSearch's number for the block of a closed index, which no pattern finds anyway.
_CLOSED = "4"


def blocked(connection: Connection, level: str) -> dict[str, str]:
    """Open indices that take no reads or no writes, and how OpenSearch says it.

    Args:
        level: "read" or "write".
    """
    answer = connection.ask(dict[str, Any], "GET", "/_cluster/state/blocks")
    return {
        index: block["description"]
        for index, blocks in answer["blocks"].get("indices", {}).items()
        for number, block in blocks.items()
        if number != _CLOSED and level in block["levels"]
    }

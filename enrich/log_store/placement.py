"""Where the copies of shards lie, and how full the disks of these nodes are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from enrich.log_store.cluster import high_watermark, settings_of
from enrich.log_store.connection import LENIENT, Connection
from enrich.log_store.odd_answers import translates_odd_answers
from enrich.log_store.paths import in_path, parts

_DERIVED = "index.knn.derived_source.enabled"


@dataclass(frozen=True)
class ShardCopy:
    """A copy of a shard, by the id of the node that has it."""

    index: str
    shard: int
    node: str


@dataclass(frozen=True, kw_only=True)
class Disk:
    """The disk of a data node, in bytes."""

    node: str
    name: str
    total: int
    available: int


@translates_odd_answers
class Placement:
    """Asks the cluster; changes nothing. All raise RightMissing where that may not be seen."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def copies(self, indices: Sequence[str]) -> list[ShardCopy]:
        """The started copies of each index' shards."""
        found = []
        for names in parts(indices):
            answer = self._connection.ask(
                dict[str, Any],
                "GET",
                f"/_cluster/state/routing_table/{in_path(*names)}",
                params={**LENIENT, "filter_path": "routing_table.indices"},
            )
            described = answer.get("routing_table", {}).get("indices", {})
            for index, table in described.items():
                for number, copies in table["shards"].items():
                    found += [
                        ShardCopy(index, int(number), str(copy["node"]))
                        for copy in copies
                        if copy.get("node") and copy.get("state") == "STARTED"
                    ]
        return found

    def disks(self) -> list[Disk]:
        """Of each data node."""
        nodes = self._connection.ask(dict[str, Any], "GET", "/_nodes/data:true/stats/fs")
        return [
            Disk(
                node=id,
                name=str(node.get("name", id)),
                total=int(node["fs"]["total"]["total_in_bytes"]),
                available=int(node["fs"]["total"]["available_in_bytes"]),
            )
            for id, node in nodes["nodes"].items()
        ]

    def high_watermark(self) -> str:
        """Above which OpenSearch moves shards away, such as "90%"."""
        return high_watermark(settings_of(self._connection))

    def vectors_in_source(self, indices: Sequence[str]) -> Mapping[str, bool]:
        """Whether the source of logs keeps the numbers of a vector, by index: where k-NN's derived
        source is off, or this version does not have it."""
        found: dict[str, bool] = {}
        for names in parts(indices):
            answer = self._connection.ask(
                dict[str, Any],
                "GET",
                f"/{in_path(*names)}/_settings",
                params={
                    **LENIENT,
                    "flat_settings": "true",
                    "include_defaults": "true",
                    "filter_path": f"*.settings.{_DERIVED.replace('.', '*')},"
                    f"*.defaults.{_DERIVED.replace('.', '*')}",
                },
            )
            for index in names:
                told = answer.get(index, {})
                merged = {**told.get("defaults", {}), **told.get("settings", {})}
                found[index] = str(merged.get(_DERIVED, "false")).lower() != "true"
        return found

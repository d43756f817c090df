"""What the cluster says of an index and its copy, and the note in the copy's mapping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from enrich.errors import TransientError
from enrich.log_store.cluster import disks_of, high_watermark, settings_of
from enrich.log_store.connection import Connection
from enrich.log_store.paths import in_path
from enrich.log_store.preflight import above_watermark
from enrich.log_store.refusals import RequestRefused, RightMissing
from enrich.reindexing.plan import NOTE, Refused, Source


@dataclass(kw_only=True)
class Note:
    """How far a copy is, as its mapping says; written at once with each change."""

    connection: Connection
    target: str
    #: The rest of the mapping's `_meta`.
    beside: Mapping[str, Any]
    values: dict[str, Any]

    def get(self, name: str, default: Any = None) -> Any:
        return self.values.get(name, default)

    def write(self, **changes: Any) -> None:
        self.values |= changes
        meta = {**self.beside, NOTE: self.values}
        self.connection.request("PUT", f"/{in_path(self.target)}/_mapping", {"_meta": meta})


class Indices:
    """Asks about indices; changes nothing."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def resolved(self, index: str) -> dict[str, Any] | None:
        """What a name is; None for an alias. Raises Refused where there is no such thing."""
        try:
            answer = self._connection.ask(
                dict[str, list[dict[str, Any]]],
                "GET",
                f"/_resolve/index/{in_path(index)}",
                params={"expand_wildcards": "all"},
            )
        except RequestRefused as error:
            if error.status != 404:
                raise
            answer = {}
        for stream in answer.get("data_streams", []):
            if stream["name"] == index:
                return {"data_stream": index}
        if any(alias["name"] == index for alias in answer.get("aliases", [])):
            return None
        for each in answer.get("indices", []):
            if each["name"] == index:
                return each
        raise Refused(f"no index is called {index}")

    def source(self, index: str) -> Source:
        path = in_path(index)
        ask = self._connection.ask
        try:
            settings = ask(
                dict[str, Any], "GET", f"/{path}/_settings", params={"flat_settings": "true"}
            )[index]["settings"]
            mapping = ask(dict[str, Any], "GET", f"/{path}/_mapping")[index]["mappings"]
            aliases = ask(dict[str, Any], "GET", f"/{path}/_alias")[index]["aliases"]
        except RequestRefused as error:
            if error.error_type != "cluster_block_exception":
                raise
            raise Refused(
                f"{index} is not copied: index.blocks.metadata or a block on reads is set: remove "
                "that first"
            ) from None
        writable = []
        for alias, how in aliases.items():
            shared = ask(dict[str, Any], "GET", f"/_alias/{in_path(alias)}")
            if how.get("is_write_index") or (
                len(shared) == 1 and how.get("is_write_index") is not False
            ):
                writable.append(alias)
        return Source(
            name=index, settings=settings, mapping=mapping, aliases=aliases, writable=writable
        )

    def note(self, target: str) -> dict[str, Any] | None:
        """The note in a copy's mapping; {} for an index that is no copy; None where none is."""
        try:
            answer = self._connection.ask(dict[str, Any], "GET", f"/{in_path(target)}/_mapping")
        except RequestRefused as error:
            if error.status == 404:
                return None
            raise
        for index in answer.values():
            meta: dict[str, Any] = index.get("mappings", {}).get("_meta", {})
            return dict(meta.get(NOTE, {}))
        return None

    def marks(self, index: str, shards: int) -> list[int]:
        """The highest sequence number of each shard that a search sees now; -1 for none."""
        path = in_path(index)
        self._connection.request("POST", f"/{path}/_refresh")
        marks = []
        for shard in range(shards):
            answer = self._connection.ask(
                dict[str, Any],
                "POST",
                f"/{path}/_search",
                {"size": 0, "aggs": {"last": {"max": {"field": "_seq_no"}}}},
                {"preference": f"_shards:{shard}"},
            )
            last = answer["aggregations"]["last"]["value"]
            marks.append(-1 if last is None else int(last))
        return marks

    def extent(self, index: str) -> tuple[int, int]:
        """Bytes and logs without replicas; 0 where they may not be seen."""
        try:
            answer = self._connection.ask(
                dict[str, Any], "GET", f"/{in_path(index)}/_stats/store,docs"
            )
        except RightMissing:
            return 0, 0
        primaries = answer["_all"]["primaries"]
        return int(primaries["store"]["size_in_bytes"]), int(primaries["docs"]["count"])

    def count(self, index: str) -> int:
        """Logs that a search sees, after a refresh."""
        path = in_path(index)
        self._connection.request("POST", f"/{path}/_refresh")
        answer = self._connection.ask(
            dict[str, Any], "POST", f"/{path}/_search", {"size": 0, "track_total_hits": True}
        )
        if answer["_shards"]["successful"] != answer["_shards"]["total"]:
            raise TransientError(f"not every shard of {index} answers")
        return int(answer["hits"]["total"]["value"])

    def was_deleted_from(self, index: str) -> bool:
        """Whether a log was ever deleted there; true where that may not be seen."""
        try:
            answer = self._connection.ask(
                dict[str, Any], "GET", f"/{in_path(index)}/_stats/indexing"
            )
        except RightMissing:
            return True
        return int(answer["_all"]["primaries"]["indexing"]["delete_total"]) > 0

    def disk_refusal(self, source: Source, size: int) -> str:
        """Why the disks have no room for a copy, or ""."""
        with suppress(RightMissing):
            mark = high_watermark(settings_of(self._connection))
            copies = 1 + int(source.settings.get("index.number_of_replicas", 0))
            return disk_refusal(disks_of(self._connection), mark, size, copies)
        return ""


def disk_refusal(disks: Sequence[tuple[int, int]], mark: str, size: int, copies: int) -> str:
    """Why the disks have no room for an index, or "". Pure.

    Args:
        disks: of each data node, all and available bytes.
        mark: the high watermark.
        size: of the index, in bytes, without replicas.
    """
    copies = min(copies, max(1, len(disks)))
    fit = [disk for disk in disks if not above_watermark(mark, disk[0], max(0, disk[1] - size))]
    if len(fit) >= copies:
        return ""
    return (
        f"a copy takes about {size * copies / 2**20:,.0f} MB, and would put the disks above their "
        f"high watermark ({mark}): free or add disk"
    )

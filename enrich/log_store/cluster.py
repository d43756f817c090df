"""What the cluster as a whole says: its settings, and the disks of its data nodes."""

from __future__ import annotations

from typing import Any

from enrich.log_store.connection import Connection

_DISK = "cluster.routing.allocation.disk."


def settings_of(connection: Connection) -> dict[str, Any]:
    """The cluster's settings by their whole names, defaults included.

    Raises RightMissing where they may not be seen.
    """
    answer = connection.ask(
        dict[str, dict[str, Any]],
        "GET",
        "/_cluster/settings",
        params={"include_defaults": "true", "flat_settings": "true"},
    )
    return answer["defaults"] | answer["persistent"] | answer["transient"]


def high_watermark(cluster: dict[str, Any]) -> str:
    return str(cluster.get(_DISK + "watermark.high", "90%"))


def heeds_watermarks(cluster: dict[str, Any]) -> bool:
    return str(cluster.get(_DISK + "threshold_enabled", "true")) != "false"


def disks_of(connection: Connection) -> list[tuple[int, int]]:
    """All and available bytes of each data node. Raises RightMissing."""
    nodes = connection.ask(dict[str, Any], "GET", "/_nodes/data:true/stats/fs")
    totals = [node["fs"]["total"] for node in nodes["nodes"].values()]
    return [(int(each["total_in_bytes"]), int(each["available_in_bytes"])) for each in totals]

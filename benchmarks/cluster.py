"""The OpenSearch under measurement, asked directly and cheaply: not through the product.

Bodies go out as bytes that are ready, so that what a ceiling measures is OpenSearch's work.
"""

from __future__ import annotations

import time
from typing import Any

import orjson
import psutil  # type: ignore[import-untyped]
import urllib3

from enrich.log_store.paths import in_path, parts

#: Counting by ourselves must not count ourselves; these are the only handlers asked while the
#: product runs, and the product uses neither.
OWN_HANDLERS = frozenset({"indices_stats_action", "nodes_usage_action"})

#: After minutes of writing Java's heap may be full of what was not yet collected. To wait for that,
#: half a minute at most, is part of what OpenSearch can take, and every client does. Nothing else
#: is tried again.
_WHILE_BUSY = urllib3.Retry(
    total=None,
    connect=False,
    read=False,
    redirect=False,
    other=False,
    status=30,
    status_forcelist=(429,),
    allowed_methods=None,
    backoff_factor=0.2,
    backoff_max=1.0,
    raise_on_status=False,
)


class ClusterRefused(RuntimeError):
    """OpenSearch did not do what a benchmark needs; the text says what it answered."""


class Cluster:
    """Plain HTTP to one node, safe to use from a few threads."""

    def __init__(self, url: str, pid: int) -> None:
        self.url = url
        self._process = psutil.Process(pid)
        self._pool = urllib3.connection_from_url(
            url, maxsize=8, retries=_WHILE_BUSY, timeout=urllib3.Timeout(300)
        )

    def close(self) -> None:
        self._pool.close()

    def another(self) -> Cluster:
        """The same node over connections of its own."""
        return Cluster(self.url, self._process.pid)

    def __call__(self, method: str, path: str, body: Any = None, *, ok: bool = True) -> Any:
        """The answer, decoded. Raises ClusterRefused for a status of 300 and above if `ok`."""
        content = body if isinstance(body, bytes | None) else orjson.dumps(body)
        try:
            answer = self._pool.request(
                method, path, body=content, headers={"content-type": "application/json"}
            )
        except urllib3.exceptions.HTTPError as error:
            raise ClusterRefused(
                f"OpenSearch at {self.url} does not answer any more ({type(error).__name__}): "
                "its log says why"
            ) from None
        if ok and answer.status >= 300:
            told = answer.data[:300].decode(errors="replace")
            raise ClusterRefused(f"OpenSearch answered {answer.status} to {method} {path}: {told}")
        return orjson.loads(answer.data)

    def bulk(self, body: bytes, fields: str = "errors") -> Any:
        """Send one body; `fields` of the answer. Raises ClusterRefused if any item failed."""
        answer = self("POST", f"/_bulk?filter_path={fields},items.*.error.type", body)
        if answer["errors"]:
            kinds = {
                each["error"]["type"]
                for item in answer["items"]
                for each in item.values()
                if "error" in each
            }
            raise ClusterRefused(f"OpenSearch refused items of a bulk: {', '.join(sorted(kinds))}")
        return answer

    def names(self) -> list[str]:
        """Every index but the system's."""
        rows = self("GET", "/_cat/indices?format=json&h=index&expand_wildcards=all")
        return sorted(row["index"] for row in rows if not row["index"].startswith("."))

    def clear(self) -> None:
        """Delete every index and wait until the node has come to rest."""
        names = self.names()
        for some in parts(names):
            self("DELETE", f"/{in_path(*some)}")
        self.rest()

    def rest(self, below: float = 0.15, patience: float = 60.0) -> None:
        """Wait until the node uses less than `below` of one core, merges of graphs included."""
        deadline = time.monotonic() + patience
        while self._process.cpu_percent(0.3) / 100 > below and time.monotonic() < deadline:
            continue

    def cpu_seconds(self) -> float:
        """User and system time of the node since it started."""
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def with_vector(self, *indices: str) -> int:
        """How many logs have a vector now."""
        target = ",".join(indices) or "*_*"
        self("POST", f"/{target}/_refresh")
        query = {"query": {"exists": {"field": "log_vector"}}}
        return int(self("POST", f"/{target}/_count", query)["count"])

    def written(self) -> int:
        """Index operations since the indices were made: cheap, and without a refresh."""
        answer = self("GET", "/_stats/indexing?filter_path=_all.primaries.indexing.index_total")
        return int(answer["_all"]["primaries"]["indexing"]["index_total"])

    def merges(self) -> int:
        """Merges of segments since the indices were made; one costs a second of CPU or two."""
        answer = self("GET", "/_stats/merge?filter_path=_all.primaries.merges.total")
        return int(answer["_all"]["primaries"]["merges"]["total"])

    def requests(self) -> dict[str, int]:
        """Requests since the node started, by handler, without those asked from here."""
        nodes = self("GET", "/_nodes/usage/rest_actions")["nodes"]
        (node,) = nodes.values()
        counts = node["rest_actions"]
        return {name: int(n) for name, n in counts.items() if name not in OWN_HANDLERS}

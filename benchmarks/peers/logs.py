"""What the peers share: reading the logs that are owed, and telling what was done.

Settings come from the same variables that the product reads. A peer runs in an environment of its
own, so this imports nothing else of the project.
"""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Iterable, Iterator
from typing import Any

from opensearchpy import OpenSearch, helpers

MODEL = "text-embedding-3-large"
DIMENSIONS = 1536
INDICES = "*_*"

#: ERROR logs without a vector.
OWED = {
    "query": {
        "bool": {
            "filter": [{"term": {"level": "ERROR"}}],
            "must_not": [{"exists": {"field": "log_vector"}}],
        }
    }
}

#: In UTF-8 bytes: what surely stays within the model's 8,192 tokens.
_LONGEST_TEXT = 8000


def client() -> OpenSearch:
    """As the documentation of opensearch-py makes one."""
    return OpenSearch(
        hosts=[{"host": os.environ["OPENSEARCH_HOST"], "port": int(os.environ["OPENSEARCH_PORT"])}],
        http_auth=(os.environ["OPENSEARCH_USER"], os.environ["OPENSEARCH_PASSWORD"]),
        timeout=300,
    )


def text_of(source: dict[str, Any]) -> str:
    return str(source["message"]).strip().encode()[:_LONGEST_TEXT].decode(errors="ignore")


def owed(opensearch: OpenSearch, batch: int) -> Iterator[list[dict[str, Any]]]:
    """All logs that are owed, in lists of `batch` hits."""
    gathered: list[dict[str, Any]] = []
    for hit in helpers.scan(opensearch, OWED, index=INDICES, size=batch, _source=["message"]):
        gathered.append(hit)
        if len(gathered) == batch:
            yield gathered
            gathered = []
    if gathered:
        yield gathered


def write(
    opensearch: OpenSearch, hits: Iterable[dict[str, Any]], vectors: Iterable[list[float]]
) -> int:
    """Partial updates through helpers.bulk, 500 a request; how many were written."""
    actions = (
        {
            "_op_type": "update",
            "_index": hit["_index"],
            "_id": hit["_id"],
            "doc": {"log_vector": vector},
        }
        for hit, vector in zip(hits, vectors, strict=True)
    )
    written, _ = helpers.bulk(opensearch, actions, chunk_size=500)
    return int(written)


class Clock:
    """Times the work, without the imports before it."""

    def __init__(self) -> None:
        self._cpu = _cpu_seconds()
        self._begun = time.perf_counter()

    def report(self, written: int) -> None:
        """Print the one line."""
        told = {
            "written": written,
            "seconds": time.perf_counter() - self._begun,
            "cpu_seconds": _cpu_seconds() - self._cpu,
            "start_cpu_seconds": self._cpu,
        }
        print(json.dumps(told), flush=True)


def _cpu_seconds() -> float:
    own, children = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime

"""Whether two indices hold the same logs: a count, and a checksum over ids, routing and sources.

The checksum is a sum of the SHA-256 of each log, so that the order does not matter and memory is
bounded by one page. Each shard is read by its own sequence numbers, which are unique there; the
index must take no writes meanwhile. A source counts byte for byte, except where it has a vector:
there OpenSearch writes the JSON anew (architecture.md, decision 8), and its values count.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from enrich.errors import TransientError
from enrich.log_store.connection import Connection
from enrich.log_store.paths import in_path

#: What an answer should hold, in bytes, and logs at most.
_PAGE_BYTES = 4 * 2**20
_MOST = 1000

_MODULUS = 2**128


@dataclass(frozen=True)
class Digest:
    """What an index holds."""

    logs: int
    checksum: int


class _Hit(msgspec.Struct):
    id: str = msgspec.field(name="_id")
    sort: list[int]
    source: msgspec.Raw = msgspec.field(name="_source", default=msgspec.Raw(b""))
    routing: str = msgspec.field(name="_routing", default="")


class _Hits(msgspec.Struct):
    hits: list[_Hit]


class _Shards(msgspec.Struct):
    total: int
    successful: int


class _Answer(msgspec.Struct):
    hits: _Hits
    shards: _Shards = msgspec.field(name="_shards")
    timed_out: bool = False


def digest_of(
    connection: Connection,
    index: str,
    shards: int,
    *,
    without: Sequence[str] = (),
    seen: Callable[[int], None] = lambda logs: None,
) -> Digest:
    """Read an index whole.

    Args:
        without: fields that do not count.
        seen: told how many logs were read, after each page.

    Raises TransientError where some of it does not answer.
    """
    logs = checksum = 0
    for shard in range(shards):
        after: list[int] = []
        size = 100
        while True:
            body: dict[str, Any] = {
                "size": size,
                "sort": [{"_seq_no": "asc"}],
                "track_total_hits": False,
                "_source": {"excludes": list(without)} if without else True,
            }
            if after:
                body["search_after"] = after
            try:
                hits = _page(connection, index, shard, body)
            except TransientError:
                if size == 1:
                    raise
                # Perhaps it was too much at once.
                size = max(1, size // 10)
                continue
            if not hits:
                break
            for hit in hits:
                checksum = (checksum + _of_log(hit)) % _MODULUS
            logs += len(hits)
            after = hits[-1].sort
            seen(logs)
            average = sum(len(bytes(hit.source)) for hit in hits) / len(hits)
            size = max(1, min(_MOST, int(_PAGE_BYTES / max(1.0, average))))
    return Digest(logs, checksum)


def _page(connection: Connection, index: str, shard: int, body: dict[str, Any]) -> list[_Hit]:
    params = {"preference": f"_shards:{shard}", "search_pipeline": "_none"}
    answer = connection.ask(_Answer, "POST", f"/{in_path(index)}/_search", body, params)
    if answer.timed_out or answer.shards.successful != answer.shards.total:
        raise TransientError(f"not every shard of {index} answers")
    return answer.hits.hits


def _of_log(hit: _Hit) -> int:
    parts = (hit.id.encode(), hit.routing.encode(), _counted(bytes(hit.source)))
    told = hashlib.sha256()
    for part in parts:
        told.update(struct.pack(">Q", len(part)))
        told.update(part)
    return int.from_bytes(told.digest()[:16], "big")


def _counted(source: bytes) -> bytes:
    """What of a source counts."""
    if b'"log_vector"' not in source:
        return source
    document = json.loads(source, parse_int=_number, parse_float=_number)
    vector = document.get("log_vector") if isinstance(document, dict) else None
    if isinstance(vector, list):
        document["log_vector"] = struct.pack(f">{len(vector)}f", *map(float, vector)).hex()
    return json.dumps(document, sort_keys=True).encode()


def _number(text: str) -> float | str:
    number = float(text)
    return number if abs(number) < 2**53 else text

"""Whether each log of an index stands in another as well: its id, its routing and its source.

Logs are read by the sequence numbers of each shard, which every change of a log raises: what was
compared up to a number need not be read again, but for what has a higher one now. A source counts
byte for byte, except where it has a vector: there OpenSearch writes the JSON anew (architecture.md,
decision 8), and its values count.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from enrich.errors import TransientError
from enrich.log_store.connection import Connection
from enrich.log_store.paths import in_path

#: What an answer should hold, in bytes, and logs at most.
_PAGE_BYTES = 4 * 2**20
_MOST = 1000


class _Log(msgspec.Struct):
    id: str = msgspec.field(name="_id")
    sort: list[int] = []
    source: msgspec.Raw = msgspec.field(name="_source", default=msgspec.Raw(b""))
    routing: str = msgspec.field(name="_routing", default="")
    found: bool = True
    error: Any = None


class _Hits(msgspec.Struct):
    hits: list[_Log]


class _Shards(msgspec.Struct):
    total: int
    successful: int


class _Page(msgspec.Struct):
    hits: _Hits
    shards: _Shards = msgspec.field(name="_shards")
    timed_out: bool = False


class _Got(msgspec.Struct):
    docs: list[_Log]


class Comparison:
    """Holds the logs of indices against each other."""

    def __init__(self, connection: Connection, shards: int, without: Sequence[str] = ()) -> None:
        """
        Args:
            shards: of each index.
            without: fields that do not count.
        """
        self._connection = connection
        self._shards = shards
        self._without = list(without)

    def hold(
        self,
        index: str,
        against: str,
        *,
        above: Sequence[int] = (),
        up_to: Sequence[int] = (),
        seen: Callable[[int], None] = lambda logs: None,
    ) -> bool:
        """Look for each log of an index in another one: whether all are there, and the same.

        Args:
            above, up_to: of each shard, the sequence numbers to look at; without, all.
            seen: told how many logs were compared, after each page.

        Raises TransientError where some of it does not answer.
        """
        logs = 0
        for shard in range(self._shards):
            bounds = {
                **({"gt": above[shard]} if above else {}),
                **({"lte": up_to[shard]} if up_to else {}),
            }
            after: list[int] = []
            size = 100
            while True:
                try:
                    page = self._page(index, shard, bounds, after, size)
                    if not page:
                        break
                    if not self._is_in(page, against):
                        return False
                except TransientError:
                    if size == 1:
                        raise
                    # Perhaps it was too much at once.
                    size = max(1, size // 10)
                    continue
                logs += len(page)
                after = page[-1].sort
                seen(logs)
                average = sum(len(bytes(log.source)) for log in page) / len(page)
                size = max(1, min(_MOST, int(_PAGE_BYTES / max(1.0, average))))
        return True

    def _page(
        self, index: str, shard: int, bounds: dict[str, int], after: list[int], size: int
    ) -> list[_Log]:
        body: dict[str, Any] = {
            "size": size,
            "sort": [{"_seq_no": "asc"}],
            "track_total_hits": False,
            "_source": {"excludes": self._without} if self._without else True,
        }
        if bounds:
            body["query"] = {"range": {"_seq_no": bounds}}
        if after:
            body["search_after"] = after
        params = {"preference": f"_shards:{shard}", "search_pipeline": "_none"}
        path = f"/{in_path(index)}/_search"
        answer = self._connection.ask(_Page, "POST", path, body, params)
        if answer.timed_out or answer.shards.successful != answer.shards.total:
            raise TransientError(f"not every shard of {index} answers")
        return answer.hits.hits

    def _is_in(self, page: Sequence[_Log], against: str) -> bool:
        wanted = [
            {"_id": log.id, **({"routing": log.routing} if log.routing else {})} for log in page
        ]
        params = {"_source_excludes": ",".join(self._without)} if self._without else {}
        path = f"/{in_path(against)}/_mget"
        answer = self._connection.ask(_Got, "POST", path, {"docs": wanted}, params)
        for log, other in zip(page, answer.docs, strict=True):
            if other.error is not None:
                raise TransientError(f"not every shard of {against} answers")
            same = (log.id, log.routing) == (other.id, other.routing) and other.found
            if not same or self._counted(log.source) != self._counted(other.source):
                return False
        return True

    def _counted(self, raw: msgspec.Raw) -> bytes:
        """What of a source counts."""
        source = bytes(raw)
        if b'"log_vector"' not in source and not self._without:
            return source
        document = json.loads(source, parse_int=_number, parse_float=_number)
        vector = document.get("log_vector") if isinstance(document, dict) else None
        if isinstance(vector, list):
            document["log_vector"] = struct.pack(f">{len(vector)}f", *map(float, vector)).hex()
        return json.dumps(document, sort_keys=True).encode()


def _number(text: str) -> float | str:
    number = float(text)
    return number if abs(number) < 2**53 else text

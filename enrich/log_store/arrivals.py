"""Logs that enrich itself puts into OpenSearch, where no shipper does; each once, by its id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import orjson

from enrich.log_store.connection import Connection
from enrich.log_store.documents import Documents, address
from enrich.log_store.mapping import index_mapping
from enrich.log_store.paths import in_path
from enrich.log_store.refusals import RequestRefused
from enrich.models import LogLocation


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A log as it came."""

    place: LogLocation
    #: One JSON object.
    source: bytes


class Arrivals:
    """Creates documents, and indices for them."""

    def __init__(self, connection: Connection, documents: Documents, dimensions: int) -> None:
        self._connection = connection
        self._documents = documents
        self._dimensions = dimensions

    def make_index(self, name: str) -> None:
        """Make an index that takes vectors, on top of what its template says. One that is there
        already, and a name that a template keeps for data streams, is left as it is."""
        body = {
            "settings": {"index.knn": True},
            "mappings": {"properties": index_mapping(self._dimensions)},
        }
        try:
            self._connection.request("PUT", f"/{in_path(name)}", body)
        except RequestRefused as error:
            kept = ("resource_already_exists_exception", "illegal_argument_exception")
            if error.error_type not in kept:
                raise

    def create(self, arrivals: Sequence[Arrival]) -> list[str]:
        """Create documents; for each "" if it is there now, by this or before, else the type of
        OpenSearch's error."""
        rows = [
            row
            for arrival in arrivals
            for row in (
                orjson.dumps({"create": address(arrival.place)}),
                _one_line(without_metadata(arrival.source)),
            )
        ]
        return self._documents.create(rows) if rows else []


def without_metadata(source: bytes) -> bytes:
    """A document without keys at its top that OpenSearch keeps for itself, such as `_id`: a message
    may carry them, and no document is taken with them."""
    if b'"_' not in source:
        return source
    fields = msgspec.json.decode(source, type=dict[str, msgspec.Raw])
    kept = {name: value for name, value in fields.items() if name not in _METADATA}
    return source if len(kept) == len(fields) else msgspec.json.encode(kept)


_METADATA = frozenset({"_id", "_index", "_routing", "_source", "_type", "_version", "_seq_no"})


def _one_line(source: bytes) -> bytes:
    """A bulk's lines end where a line does; outside of texts, white space means nothing in JSON."""
    return source.replace(b"\r", b" ").replace(b"\n", b" ")

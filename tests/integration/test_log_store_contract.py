"""OpenSearch keeps what a log store promises, and the form in memory answers as it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from enrich.log_store import LogStore, index_template
from enrich.models import Reference
from enrich.settings import Settings
from tests.conftest import Search
from tests.log_store_contract import DIMENSIONS, LogStoreContract, random_walk
from tests.unit.test_in_memory_log_store import MemoryWorld


class RealWorld:
    """`tests.log_store_contract.World` on OpenSearch."""

    def __init__(self, settings: Settings, search: Search) -> None:
        self.settings = settings
        self.store = LogStore(settings)
        self._search = search

    def create(self, index: str, *, refused_fields: frozenset[str] = frozenset()) -> None:
        body: dict[str, Any] = index_template(DIMENSIONS, [index])["template"]
        # Searches see what the tests refresh, and no more.
        body["settings"]["index.refresh_interval"] = "-1"
        if self._search.version >= (3,):
            # Else OpenSearch encodes a source anew, see docs/architecture.md.
            body["settings"]["index.knn.derived_source.enabled"] = "false"
        properties = body["mappings"]["properties"]
        if "log_vector" in refused_fields:
            properties["log_vector"]["dimension"] = DIMENSIONS + 1
        for name in refused_fields - {"log_vector"}:
            properties[name] = {"type": "integer"}
        self._search.create(index, **body)

    def put(self, index: str, id: str, source: Any, routing: str | None = None) -> Reference:
        path = f"/{index}/_doc/{id}" + (f"?routing={routing}" if routing else "")
        answer = self._search("PUT", path, source)
        return Reference(index, id, routing, answer["_seq_no"], answer["_primary_term"])

    def delete(self, index: str, id: str) -> None:
        self._search("DELETE", f"/{index}/_doc/{id}", ok=False)

    def alias(self, name: str, *indices: str) -> None:
        for index in indices:
            self._search("PUT", f"/{index}/_alias/{name}")

    def drop(self, index: str) -> None:
        self._search("DELETE", f"/{index}")

    def block_writes(self, index: str) -> None:
        self._search("PUT", f"/{index}/_block/write")

    def block_reads(self, index: str) -> None:
        self._search("PUT", f"/{index}/_block/read")

    def close(self, index: str) -> None:
        self._search("POST", f"/{index}/_close")


@pytest.fixture
def world(settings: Callable[..., Settings], search: Search) -> Iterator[RealWorld]:
    real = RealWorld(settings(embedding_dimensions=DIMENSIONS), search)
    yield real
    real.store.close()


class TestOpenSearch(LogStoreContract):
    """All of it."""


@pytest.mark.parametrize("seed", range(2))
def test_any_changes_are_answered_alike(world: RealWorld, seed: int) -> None:
    expected = random_walk(MemoryWorld(), seed, 120)
    for told, wanted in zip(random_walk(world, seed, 120), expected, strict=True):
        assert told == wanted

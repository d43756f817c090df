"""The log store in memory keeps what a log store promises."""

from __future__ import annotations

import pytest

from enrich.log_store.in_memory import BLOCKED, InMemoryLogStore
from enrich.models import Reference
from enrich.settings import load_settings
from tests.log_store_contract import DIMENSIONS, LogStoreContract


class MemoryWorld:
    """`tests.log_store_contract.World` in memory."""

    def __init__(self) -> None:
        self.settings = load_settings(
            _env_file=None, openai_api_key="k", embedding_dimensions=DIMENSIONS
        )
        self.store = InMemoryLogStore(self.settings, lambda: 1_795_000_000)

    def create(self, index: str, *, refused_fields: frozenset[str] = frozenset()) -> None:
        self.store.create(index, refused_fields=refused_fields)

    def put(self, index: str, id: str, source: object, routing: str | None = None) -> Reference:
        return self.store.put(index, id, source, routing)  # type: ignore[arg-type]

    def delete(self, index: str, id: str) -> None:
        self.store.delete(index, id)

    def alias(self, name: str, *indices: str) -> None:
        self.store.aliases[name] = tuple(reversed(indices))

    def drop(self, index: str) -> None:
        del self.store.indices[index]

    def block_writes(self, index: str) -> None:
        self.store.indices[index].answer = lambda write: BLOCKED

    def block_reads(self, index: str) -> None:
        self.store.indices[index].unreadable = "cluster_block_exception"

    def close(self, index: str) -> None:
        self.store.indices[index].closed = True


@pytest.fixture
def world() -> MemoryWorld:
    return MemoryWorld()


class TestInMemory(LogStoreContract):
    """All of it."""

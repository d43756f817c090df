"""The client of the embeddings API keeps what an embedder promises, over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from dev.api_control import ApiControl
from enrich.embedding.client import OpenAIEmbedder
from enrich.settings import Settings
from tests.embedder_contract import DIMENSIONS, EmbedderContract


class TestOverHttp(EmbedderContract):
    @pytest.fixture
    def embedder(self, settings: Callable[..., Settings]) -> Iterator[OpenAIEmbedder]:
        client = OpenAIEmbedder(settings(embedding_dimensions=DIMENSIONS))
        yield client
        client.close()

    @pytest.fixture
    def fail(self, embeddings: ApiControl) -> Callable[[int], None]:
        return lambda status: embeddings.faults({"kind": "status", "status": status})

    @pytest.fixture
    def spoil(self, embeddings: ApiControl) -> Callable[[str], None]:
        return lambda text: embeddings.faults({"kind": "nan", "match": text})

"""The embedder in memory keeps what an embedder promises."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from enrich.embedding.in_memory import InMemoryEmbedder
from enrich.errors import AccessRefused, EnrichError, InputRefused, RateLimited, ServerUnavailable
from tests.embedder_contract import DIMENSIONS, TEXTS, EmbedderContract

ERRORS: dict[int, EnrichError] = {
    429: RateLimited("too many (429)", 5),
    401: AccessRefused("the key is refused (401)"),
    400: InputRefused("an input is refused (400)"),
    503: ServerUnavailable("it is away (503)"),
}


class TestInMemory(EmbedderContract):
    @pytest.fixture
    def embedder(self) -> InMemoryEmbedder:
        return InMemoryEmbedder(DIMENSIONS)

    @pytest.fixture
    def fail(self, embedder: InMemoryEmbedder) -> Callable[[int], None]:
        def fail(status: int) -> None:
            errors = [ERRORS[status]]
            embedder.trouble = lambda texts: errors.pop() if errors else None

        return fail

    @pytest.fixture
    def spoil(self, embedder: InMemoryEmbedder) -> Callable[[str], None]:
        return embedder.invalid.add

    def test_requests_are_recorded_those_that_failed_too(
        self, embedder: InMemoryEmbedder, fail: Callable[[int], None]
    ) -> None:
        fail(503)
        with pytest.raises(ServerUnavailable):
            embedder.embed(TEXTS[:1])
        embedder.embed(TEXTS[:2])
        assert embedder.requests == [TEXTS[:1], TEXTS[:2]]

"""What an embedder promises, as tests that run on a real server and in memory alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from enrich.errors import Halt, InputRefused, RateLimited, TransientError
from enrich.vectors import is_usable

DIMENSIONS = 1536
TEXTS = ["connection refused", "disk full", "größer als 7 €", "x" * 5000]


class EmbedderContract:
    """A subclass gives `embedder`, `fail` (the next request fails with this HTTP status) and
    `spoil` (the next request has no vector for this text)."""

    def test_each_text_has_its_own_vector_in_their_order(self, embedder: Any) -> None:
        answer = embedder.embed(TEXTS)
        assert len(answer.vectors) == len(TEXTS)
        for vector in answer.vectors:
            assert (vector.shape, vector.dtype) == ((DIMENSIONS,), np.float32)
            assert is_usable(vector)
        assert len({vector.tobytes() for vector in answer.vectors}) == len(TEXTS)
        back = embedder.embed(TEXTS[::-1]).vectors
        for one, other in zip(answer.vectors, back[::-1], strict=True):
            assert np.array_equal(one, other)

    def test_what_was_used_is_told(self, embedder: Any) -> None:
        one, two = embedder.embed(TEXTS[:1]), embedder.embed(TEXTS[:2])
        assert 0 < one.tokens < two.tokens
        assert (one.requests, two.requests) == (1, 1)

    def test_the_same_text_twice_has_the_same_vector_twice(self, embedder: Any) -> None:
        one, other = embedder.embed([TEXTS[0]] * 2).vectors
        assert np.array_equal(one, other)

    def test_numbers_that_are_no_vector_are_none(
        self, embedder: Any, spoil: Callable[[str], None]
    ) -> None:
        spoil(TEXTS[1])
        answer = embedder.embed(TEXTS[:3])
        assert [vector is None for vector in answer.vectors] == [False, True, False]

    @pytest.mark.parametrize(
        ("status", "error"),
        [(429, RateLimited), (401, Halt), (400, InputRefused), (503, TransientError)],
    )
    def test_a_failure_is_raised_in_our_words_and_the_next_request_goes_through(
        self, embedder: Any, fail: Callable[[int], None], status: int, error: type[Exception]
    ) -> None:
        fail(status)
        with pytest.raises(error):
            embedder.embed(TEXTS[:1])
        assert len(embedder.embed(TEXTS[:1]).vectors) == 1

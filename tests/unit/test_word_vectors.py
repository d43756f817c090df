"""Words that are searched for are paid for, once, and what the API says of them is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from enrich.embedding.budget import USED_UP
from enrich.embedding.resolver import Resolution, Resolved, Source
from enrich.embedding.word_vectors import WordVectors
from enrich.errors import InputRefused, TransientError

VECTOR = np.ones(4, dtype="<f4")


class Resolver:
    def __init__(self, answer: Resolved) -> None:
        self.answer = answer
        self.asked: list[Any] = []

    def resolve(self, requests: Any, usage: Any, *, owner: str, occasion: str) -> Resolution:
        self.asked += requests
        return Resolution(results=[self.answer])


class NoUsage:
    def count(self, **amounts: Any) -> None:
        pass


def words_of(answer: Resolved) -> tuple[WordVectors, Resolver]:
    resolver = Resolver(answer)
    vectors = WordVectors(resolver, NoUsage(), payer="cli:search", owner="me", close=lambda: None)
    return vectors, resolver


def test_who_searches_pays() -> None:
    vectors, resolver = words_of(Resolved(vector=VECTOR, source=Source.EMBEDDED))

    assert np.array_equal(vectors.of("disk is full"), VECTOR)
    (asked,) = resolver.asked
    assert (asked.text, asked.payers, asked.scope) == (
        "disk is full", frozenset({"cli:search"}), "",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (Resolved(failure="text_too_large"), InputRefused, "text_too_large"),
        (Resolved(reason=USED_UP), TransientError, "ENRICH_MAX_COST_PER_DAY"),
        (Resolved(), TransientError, "gave no vector"),
    ],
)
def test_why_there_is_no_vector(answer: Resolved, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        words_of(answer)[0].of("disk is full")

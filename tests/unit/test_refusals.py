"""The table of refusals: real bodies are told apart, hostile ones do no harm, docs show them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import enrich
from enrich.embedding.refusals import (
    TABLE,
    Meaning,
    meaning_of,
    part_that_fits,
    pause_told,
    read_body,
)
from tests.unit.refusal_bodies import SEEN

REPEATABLE = settings(deadline=None, max_examples=150, derandomize=True)
DOCS = Path(enrich.__file__).parents[1] / "docs"


def content(body: Any) -> bytes:
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


@pytest.mark.parametrize(
    ("provider", "status", "body", "meaning"),
    SEEN,
    ids=[f"{provider}-{status}-{n}" for n, (provider, status, _, _) in enumerate(SEEN)],
)
def test_what_a_provider_answers_is_understood(
    provider: str, status: int, body: Any, meaning: Meaning
) -> None:
    read = read_body(content(body))
    assert meaning_of(read.status or status if status == 200 else status, read) is meaning


@pytest.mark.parametrize(
    "provider",
    ["OpenAI", "Azure", "Gemini", "Mistral", "Cohere", "Voyage", "Jina", "OpenRouter", "vLLM",
     "TEI", "Ollama", "llama.cpp", "LM Studio", "LiteLLM"],
)  # fmt: skip
def test_each_provider_is_known_by_its_own_words_and_told_to_operators(provider: str) -> None:
    assert any(provider in known.providers for known in TABLE)
    assert any(provider == name for name, *_ in SEEN)
    assert provider in (DOCS / "endpoints.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("known", TABLE, ids=lambda known: " ".join(known.words))
def test_no_row_is_hidden_by_one_before_it(known: Any) -> None:
    status = min(known.statuses, default=400)
    body = read_body(content({"error": {"message": " ... ".join(known.words)}}))
    assert meaning_of(status, body) is known.meaning
    assert all(word == word.lower() for word in known.words)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (
            "This model's maximum context length is 512 tokens. However, you requested 1024 tokens "
            "in the input",
            0.5,
        ),
        (
            "This model's maximum context length is 8192 tokens, however you requested 16384",
            0.5,
        ),
        (
            "input (1024 tokens) is too large to process. increase the physical batch size "
            "(current batch size: 512)",
            0.5,
        ),
        ("request (1024 tokens) exceeds the available context size (256 tokens)", 0.25),
        ("`inputs` must have less than 512 tokens. Given: 2048", 0.25),
        ("Requested tokens (1024) exceed context window of 512", 0.5),
        ("Input id 0 has 16384 tokens, exceeding max 8192 tokens.", 0.5),
        (
            "The input token count (4096) exceeds the maximum number of tokens allowed (2048).",
            0.5,
        ),
        ("the input length exceeds the context length", None),
        ("maximum context length is 512 tokens, however you requested 0 tokens", None),
        ("maximum context length is 0 tokens, however you requested 9 tokens", None),
        (f"maximum context length is {'9' * 5000} tokens, however you requested 1 tokens", None),
    ],
)
def test_which_part_of_a_text_fits_is_read_where_it_is_told(words: str, part: float | None) -> None:
    assert part_that_fits(read_body(content({"error": {"message": words}}))) == part


def test_when_to_come_back_is_read_from_geminis_body() -> None:
    body = {"error": {"details": [{"retryDelay": "35.5s"}]}}
    assert pause_told(read_body(content(body))) == 35.5
    # As a gateway hands it on, as text within a text.
    assert pause_told(read_body(content({"error": {"message": json.dumps(body)}}))) == 35.5
    assert pause_told(read_body(b"{}")) is None


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000,
        b'{"error":' * 100_000,
        b'{"error":' * 100 + b"1" + b"}" * 100,
        b'{"error": {"code": ' + b"9" * 5_000 + b"}}",
        b'{"error": {"code": {"a": 1}, "param": [1], "message": null}}',
        b"\xff\xfe\x00",
        b'{"error": {"code": "\xed\xa0\x80"}}',
        b'[[[{"error": {"code": 400}}]]]',
        b"",
    ],
)
@pytest.mark.parametrize("status", [200, 400, 403, 429, 500])
def test_a_hostile_body_means_no_more_than_its_status(status: int, body: bytes) -> None:
    assert isinstance(meaning_of(status, read_body(body)), Meaning)


@REPEATABLE
@given(st.integers(200, 599), st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_body_has_a_meaning(status: int, body: bytes) -> None:
    assert isinstance(meaning_of(status, read_body(body)), Meaning)

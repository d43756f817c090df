"""How an endpoint is asked: forms of its address, headers, options, documents and queries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from dev.http_proxy import Alter, Answered, Asked, Forward, HttpProxy
from enrich import wiring
from enrich.cli.check import Check
from enrich.cli.checks.embeddings import endpoint_lines
from enrich.embedding.batching import Batching, Caller, requests_of
from enrich.embedding.cache import space
from enrich.embedding.client import OpenAIEmbedder
from enrich.embedding.endpoint import Endpoint, Purpose
from enrich.embedding.in_memory import InMemoryEmbedder, InMemoryQuota
from enrich.embedding.limits import EndpointLimits
from enrich.errors import Halt, ServerUnavailable, TransientError
from enrich.ledger.deployment import Configuration
from enrich.setting_forms.embeddings_api import Address, prefix
from enrich.settings import Settings, load_settings
from tests.memory_pipeline import MemoryPipeline, logs

KEY = "sk-test"
SECRET = "hunter2"
AZURE = "https://acme.openai.azure.com"
DOCUMENT, QUERY = Purpose.DOCUMENT, Purpose.QUERY


def settings_with(**values: Any) -> Settings:
    return load_settings(_env_file=None, **{"openai_api_key": KEY, **values})


# -- addresses


@pytest.mark.parametrize(
    ("url", "asked", "told"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com/v1", "OpenAI's form"),
        ("https://api.openai.com/v1/embeddings", "https://api.openai.com/v1", "OpenAI's form"),
        ("http://tei:8080", "http://tei:8080", "OpenAI's form"),
        (
            f"{AZURE}/openai/deployments/emb-1/embeddings?api-version=2024-10-21",
            f"{AZURE}/openai/deployments/emb-1",
            "Azure OpenAI, deployment emb-1, api-version 2024-10-21",
        ),
        (
            "https://acme.cognitiveservices.azure.com/openai/deployments/e/embeddings?api-version=1",
            "https://acme.cognitiveservices.azure.com/openai/deployments/e",
            "Azure OpenAI, deployment e, api-version 1",
        ),
        (
            f"{AZURE}/openai/deployments/emb-1/?api-version=1",
            f"{AZURE}/openai/deployments/emb-1",
            "Azure OpenAI, deployment emb-1, api-version 1",
        ),
        (
            f"{AZURE}/openai?api-version=1",
            f"{AZURE}/openai/deployments/my%20model",
            "Azure OpenAI, deployment my model (EMBEDDING_MODEL), api-version 1",
        ),
        (
            f"{AZURE}?api-version=1",
            f"{AZURE}/openai/deployments/my%20model",
            "Azure OpenAI, deployment my model (EMBEDDING_MODEL), api-version 1",
        ),
        (
            f"{AZURE}/",
            f"{AZURE}/openai/v1",
            "Azure OpenAI, deployment my model (EMBEDDING_MODEL), v1",
        ),
        (
            f"{AZURE}/openai/v1/",
            f"{AZURE}/openai/v1",
            "Azure OpenAI, deployment my model (EMBEDDING_MODEL), v1",
        ),
        (
            f"{AZURE}/openai/v1/embeddings?api-version=preview",
            f"{AZURE}/openai/v1",
            "Azure OpenAI, deployment my model (EMBEDDING_MODEL), api-version preview",
        ),
        (
            "https://acme.services.ai.azure.com/models/embeddings?api-version=2024-05-01-preview",
            "https://acme.services.ai.azure.com/models",
            "Azure OpenAI, deployment my model (EMBEDDING_MODEL), api-version 2024-05-01-preview",
        ),
        # A gateway of one's own before Azure.
        (
            "https://gateway.example/team/openai/deployments/e/embeddings?api-version=1",
            "https://gateway.example/team/openai/deployments/e",
            "Azure OpenAI, deployment e, api-version 1",
        ),
        (
            "https://acme.openai.azure.us/openai/deployments/e/embeddings?api-version=1",
            "https://acme.openai.azure.us/openai/deployments/e",
            "Azure OpenAI, deployment e, api-version 1",
        ),
        # Nobody's Azure: its path may have what it likes.
        ("https://x.example/deployments/e", "https://x.example/deployments/e", "OpenAI's form"),
    ],
)
def test_address_is_read_as_it_was_pasted(url: str, asked: str, told: str) -> None:
    endpoint = Endpoint.of(settings_with(openai_base_url=url, embedding_model="my model"))
    assert endpoint.base_url == asked
    assert endpoint.told() == f"requests go to {asked}/embeddings: {told}"
    assert endpoint.address.azure is told.startswith("Azure")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"{AZURE}/openai/deployments/embeddings?api-version=1", "names no deployment"),
        (f"{AZURE}/openai/deployments", "names no deployment"),
        (f"{AZURE}/openai/deployments/e/embeddings", "names a deployment and no api-version"),
        (f"{AZURE}/openai/deployments/e/chat/completions?api-version=1", "another operation"),
        ("https://api.openai.com/v1/responses", "another operation"),
        (f"{AZURE}/openai/deployments/<name>/embeddings?api-version=1", "has a placeholder"),
        ("https://api.cohere.com/v2/embed", "https://api.cohere.ai/compatibility/v1"),
        ("http://localhost:11434/api/embed", "Ollama"),
        ("https://bedrock-runtime.us-east-1.amazonaws.com", "LiteLLM proxy before Bedrock"),
        (
            "https://generativelanguage.googleapis.com/v1beta/models/x:embedContent",
            "https://generativelanguage.googleapis.com/v1beta/openai",
        ),
    ],
)
def test_address_that_cannot_be_it_is_told_with_what_to_set(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Address.of(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://api.cohere.ai/compatibility/v1",
        "https://generativelanguage.googleapis.com/v1beta/openai",
        "http://localhost:11434/v1",
        "https://chat.example/api/embeddings",
    ],
)
def test_addresses_of_openais_form_are_taken(url: str) -> None:
    assert Address.of(url).base == url.removesuffix("/embeddings")


# -- prefixes


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("passage: ", "passage: "),
        ('"passage: "', "passage: "),
        ("passage:", "passage:"),
        (r'"Instruct: find errors\nQuery:"', "Instruct: find errors\nQuery:"),
        ('"', '"'),
        ("찾기: ", "찾기: "),
    ],
)
def test_prefix_keeps_its_blank_and_its_line_break(given: str, kept: str) -> None:
    assert prefix(given) == kept
    assert settings_with(enrich_document_prefix=given).enrich_document_prefix == kept


# -- spaces


def test_space_of_the_defaults_is_that_of_earlier_versions() -> None:
    defaults = settings_with()
    assert space(defaults) == space(defaults, QUERY) == "d0e04214b7d1"


CHANGES_VECTORS = [
    {"enrich_document_prefix": "passage: "},
    {"enrich_document_prefix": "passage:"},
    {"openai_extra_body": '{"input_type": "passage"}'},
    {"enrich_document_extra_body": '{"input_type": "document"}'},
]
LEAVES_VECTORS: list[dict[str, Any]] = [
    {"enrich_query_prefix": "query: "},
    {"enrich_query_extra_body": '{"input_type": "query"}'},
    {"openai_extra_headers": '{"X-Team": "logs"}'},
    {"openai_proxy": "http://proxy:3128"},
    {"enrich_send_dimensions": "false"},
    {"enrich_encoding_format": "float"},
    {"enrich_max_request_inputs": 32},
    {"enrich_document_extra_body": "{}"},
]


@pytest.mark.parametrize("change", CHANGES_VECTORS)
def test_what_changes_vectors_changes_their_space_and_tells_workers_apart(
    change: dict[str, Any],
) -> None:
    changed, before = settings_with(**change), settings_with()
    assert space(changed) != space(before)
    assert Configuration.of(changed).differing(Configuration.of(before)) == [
        name.upper() for name in change
    ]


@pytest.mark.parametrize("change", LEAVES_VECTORS)
def test_what_leaves_vectors_leaves_their_space(change: dict[str, Any]) -> None:
    changed, before = settings_with(**change), settings_with()
    assert space(changed) == space(before)
    assert not Configuration.of(changed).differing(Configuration.of(before))


@pytest.mark.parametrize(
    "query",
    [
        {"enrich_query_prefix": "query: "},
        {"enrich_query_extra_body": '{"input_type": "query"}'},
        {"enrich_document_prefix": "passage: "},
        # Beside what logs have, the same bytes in another place.
        {"enrich_document_prefix": "a", "enrich_query_prefix": "b"},
        {"enrich_document_extra_body": '{"t": 1}', "enrich_query_extra_body": '{"t": 2}'},
    ],
)
def test_query_that_is_sent_otherwise_shares_no_entry_with_a_document(
    query: dict[str, Any],
) -> None:
    wanted = settings_with(**query)
    assert space(wanted, QUERY) != space(wanted, DOCUMENT)


def test_bodies_that_differ_in_white_space_and_order_are_one() -> None:
    one = settings_with(openai_extra_body='{"a":1,"b":{"d":2,"c":3}}')
    other = settings_with(openai_extra_body=' {"b": {"c": 3, "d": 2}, "a": 1} ')
    assert space(one) == space(other)
    assert not Configuration.of(one).differing(Configuration.of(other))


# -- secrets


HEADERS = json.dumps({"Authorization": f"Bearer {SECRET}", "X-Team": SECRET})


def test_no_header_is_shown_anywhere() -> None:
    wanted = settings_with(
        openai_extra_headers=HEADERS, openai_proxy=f"http://me:{SECRET}@proxy:3128"
    )
    endpoint = Endpoint.of(wanted)
    shown = [
        repr(wanted), str(wanted), repr(endpoint), endpoint.told(), *endpoint_lines(wanted),
        json.dumps(wanted.redacted()), Configuration.of(wanted).to_json(), space(wanted),
    ]  # fmt: skip
    assert not [text for text in shown if SECRET in text or KEY in text]
    assert wanted.redacted()["OPENAI_EXTRA_HEADERS"] == '{"Authorization": "***", "X-Team": "***"}'
    assert wanted.redacted()["OPENAI_PROXY"] == "http://me:***@proxy:3128"
    assert endpoint.all_headers["X-Team"] == SECRET


def test_a_header_that_is_the_key_tells_keys_apart() -> None:
    """One worker that was left with an old one must be seen."""
    old, new = (
        Endpoint.of(settings_with(openai_extra_headers=json.dumps({"Authorization": value})))
        for value in ("old", "new")
    )
    assert old.credentials != new.credentials
    assert Endpoint.of(settings_with()).credentials == KEY


# -- what `check` says


def test_check_says_how_the_endpoint_is_asked() -> None:
    wanted = settings_with(
        openai_base_url=f"{AZURE}/openai/deployments/e/embeddings?api-version=1",
        openai_extra_headers='{"X-Team": "logs"}',
        openai_extra_body='{"user": "enrich"}',
        openai_proxy="none",
        enrich_document_prefix="passage: ",
        enrich_query_extra_body='{"input_type": "query"}',
    )
    assert list(endpoint_lines(wanted)) == [
        f"requests go to {AZURE}/openai/deployments/e/embeddings: Azure OpenAI, deployment e, "
        "api-version 1",
        "without a proxy",
        'with headers {"X-Team": "***"}',
        'logs are sent with "passage: " before each and with {"user": "enrich"}',
        'queries are sent with {"user": "enrich", "input_type": "query"}',
    ]
    assert len(list(endpoint_lines(settings_with()))) == 1


# -- requests


class Recorder:
    """Answers as told; keeps what it was asked."""

    def __init__(self, proxy: HttpProxy) -> None:
        self.url = f"http://127.0.0.1:{proxy.port}"
        self.asked: list[Asked] = []
        self.refuse: dict[str, tuple[int, str]] = {}
        proxy.alter = self._alter

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(asked.body) for asked in self.asked]

    def _alter(self, asked: Asked, _: Forward) -> Answered:
        self.asked.append(asked)
        body = json.loads(asked.body)
        for option, (status, refusal) in self.refuse.items():
            if option in body:
                return Answered(status=status, body=refusal.encode())
        rows = [{"index": n, "embedding": [n + 1.0, 0.5]} for n in range(len(body["input"]))]
        return Answered(body=json.dumps({"data": rows, "usage": {"prompt_tokens": 3}}).encode())


@pytest.fixture(scope="module")
def server() -> Iterator[HttpProxy]:
    with HttpProxy("http://127.0.0.1:1") as proxy:
        yield proxy


@pytest.fixture
def recorder(server: HttpProxy) -> Recorder:
    return Recorder(server)


def embed(recorder: Recorder, purpose: Purpose = DOCUMENT, **values: Any) -> Asked:
    wanted = settings_with(
        **{"openai_base_url": f"{recorder.url}/v1", "embedding_dimensions": 2, **values}
    )
    with closing(OpenAIEmbedder(wanted, purpose)) as embedder:
        got = embedder.embed(["boom", "disk full"])
    assert [vector is not None for vector in got.vectors] == [True, True]
    return recorder.asked[-1]


def test_without_these_settings_a_request_is_as_it_was(recorder: Recorder) -> None:
    asked = embed(recorder)
    assert json.loads(asked.body) == {
        "input": ["boom", "disk full"],
        "model": "text-embedding-3-large",
        "dimensions": 2,
        "encoding_format": "base64",
    }
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert "api-key" not in asked.headers


def test_documents_and_queries_are_told_apart(recorder: Recorder) -> None:
    ways: dict[str, Any] = {
        "openai_extra_body": '{"user": "enrich", "input_type": "none"}',
        "enrich_document_prefix": "passage: ",
        "enrich_query_prefix": '"Instruct: x\\nQuery:"',
        "enrich_document_extra_body": '{"input_type": "document"}',
        "enrich_query_extra_body": '{"input_type": "query", "task": "retrieval.query"}',
    }
    embed(recorder, DOCUMENT, **ways)
    embed(recorder, QUERY, **ways)
    document, query = recorder.bodies
    assert document["input"] == ["passage: boom", "passage: disk full"]
    assert (document["user"], document["input_type"]) == ("enrich", "document")
    assert query["input"] == ["Instruct: x\nQuery:boom", "Instruct: x\nQuery:disk full"]
    assert (query["user"], query["input_type"], query["task"]) == (
        "enrich", "query", "retrieval.query",
    )  # fmt: skip
    assert "task" not in document


def test_headers_go_along_and_may_be_the_key(recorder: Recorder) -> None:
    asked = embed(recorder, openai_extra_headers='{"X-Team": "logs"}')
    assert (asked.headers["x-team"], asked.headers["authorization"]) == ("logs", f"Bearer {KEY}")
    asked = embed(recorder, openai_extra_headers='{"authorization": "Bearer entra"}')
    assert asked.headers["authorization"] == "Bearer entra"


@pytest.mark.parametrize("path", ["/v1", "/openai/deployments/e?api-version=1"])
def test_no_header_is_logged_however_much_is(
    recorder: Recorder, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    for name in ("", "openai", "httpx2", "httpcore2"):
        caplog.set_level("DEBUG", name)
    embed(recorder, openai_base_url=recorder.url + path, openai_extra_headers=HEADERS)
    assert recorder.asked[-1].headers["x-team"] == SECRET
    assert caplog.records
    assert SECRET not in caplog.text and KEY not in caplog.text


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, {"api-key": KEY}),
        ({"Authorization": "Bearer entra"}, {"authorization": "Bearer entra"}),
        ({"API-Key": "other"}, {"api-key": "other"}),
        (
            {"Ocp-Apim-Subscription-Key": "apim"},
            {"api-key": KEY, "ocp-apim-subscription-key": "apim"},
        ),
    ],
)
def test_azure_gets_the_key_in_its_header_alone(
    recorder: Recorder, headers: dict[str, str], expected: dict[str, str]
) -> None:
    asked = embed(
        recorder,
        openai_base_url=f"{recorder.url}/openai/deployments/e/embeddings?api-version=1",
        openai_extra_headers=json.dumps(headers),
    )
    names = ("api-key", "authorization", "ocp-apim-subscription-key")
    assert {name: asked.headers[name] for name in names if name in asked.headers} == expected
    assert asked.path == "/openai/deployments/e/embeddings?api-version=1"


@pytest.mark.parametrize(
    ("values", "sent"),
    [
        ({"enrich_send_dimensions": "true"}, {"dimensions": 2, "encoding_format": "base64"}),
        ({"enrich_send_dimensions": "FALSE"}, {"encoding_format": "base64"}),
        ({"enrich_encoding_format": "float"}, {"dimensions": 2, "encoding_format": "float"}),
        ({"enrich_encoding_format": "base64"}, {"dimensions": 2, "encoding_format": "base64"}),
        ({"enrich_encoding_format": "none", "enrich_send_dimensions": "false"}, {}),
    ],
)
def test_options_that_are_set_are_not_guessed(
    recorder: Recorder, values: dict[str, Any], sent: dict[str, Any]
) -> None:
    embed(recorder, **values)
    (body,) = recorder.bodies
    assert {name: body[name] for name in body if name not in ("input", "model")} == sent


def test_option_that_is_set_is_not_taken_back(recorder: Recorder) -> None:
    """Two guesses of the default would be made here."""
    recorder.refuse = {"dimensions": (400, '{"error": {"message": "no dimensions, no base64"}}')}
    with pytest.raises(Exception, match="refused a request of 2 texts"):
        embed(recorder, enrich_send_dimensions="true", enrich_encoding_format="base64")
    assert len(recorder.asked) == 1
    assert embed(recorder) and len(recorder.asked) > 2


@pytest.mark.parametrize("proxy", ["", "none"])
def test_proxy_of_the_environment_is_taken_unless_none_is_set(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    if proxy:
        assert embed(recorder, openai_proxy=proxy)
        return
    with pytest.raises(ServerUnavailable, match=r"cannot be reached: check OPENAI_BASE_URL$"):
        embed(recorder)


def test_requests_go_through_the_proxy_that_is_set(recorder: Recorder) -> None:
    asked = embed(
        recorder, openai_proxy=recorder.url, openai_base_url="http://nowhere.invalid/v1/embeddings"
    )
    assert asked.path == "http://nowhere.invalid/v1/embeddings"


def test_proxy_that_is_away_is_named() -> None:
    wanted = settings_with(openai_proxy="http://127.0.0.1:1", openai_base_url="http://api.invalid")
    with (
        closing(OpenAIEmbedder(wanted)) as embedder,
        pytest.raises(ServerUnavailable, match="check OPENAI_BASE_URL and OPENAI_PROXY"),
    ):
        embedder.embed(["boom"])


def test_deployment_that_is_not_there_is_named(server: HttpProxy, recorder: Recorder) -> None:
    refusal = b'{"error": {"code": "DeploymentNotFound", "message": "does not exist"}}'
    server.alter = answering(404, "application/json", refusal)
    url = f"{recorder.url}/openai/deployments/emb-1/embeddings?api-version=1"
    with pytest.raises(Halt, match=r"does not know deployment emb-1 \(404\): .*OPENAI_BASE_URL"):
        embed(recorder, openai_base_url=url)


def answering(status: int, kind: str, body: bytes) -> Alter:
    return lambda asked, forward: Answered(status=status, content_type=kind, body=body)


@pytest.mark.parametrize(("status", "error"), [(200, TransientError), (404, Halt)])
def test_path_that_answers_a_web_page_names_the_setting(
    server: HttpProxy, recorder: Recorder, status: int, error: type[Exception]
) -> None:
    server.alter = answering(status, "text/html", b"<!doctype html><title>Sign in</title>")
    with pytest.raises(error, match=r"a web page answers .*OPENAI_BASE_URL"):
        embed(recorder, openai_base_url=f"{recorder.url}/docs")


# -- what a request may have


@pytest.mark.parametrize(
    ("most", "prefix_bytes", "sizes"),
    [
        (EndpointLimits(), 0, [7]),
        (EndpointLimits(inputs=3), 0, [3, 3, 1]),
        (EndpointLimits(request_bytes=250), 0, [2, 2, 2, 1]),
        (EndpointLimits(request_bytes=250), 50, [1] * 7),
        (EndpointLimits(inputs=1, request_bytes=250), 0, [1] * 7),
    ],
)
def test_a_request_has_no_more_than_is_set(
    most: EndpointLimits, prefix_bytes: int, sizes: list[int]
) -> None:
    class Counting(InMemoryEmbedder):
        def embed(self, texts: Any) -> Any:
            counted.append(len(texts))
            return super().embed(texts)

    class Nobody:
        def count(self, **amounts: int) -> None:
            """Nothing is billed."""

    counted: list[int] = []
    batching = Batching(Counting(8), InMemoryQuota(), most=most, prefix_bytes=prefix_bytes)
    texts = {str(n): f"{n}" * 100 for n in range(7)}
    results = batching.embed(texts, Caller(occasion="x", meter=Nobody()), lambda vectors: None)
    assert results.vectors.keys() == texts.keys()
    assert counted == sizes


@pytest.mark.parametrize(
    ("values", "requests"),
    [
        ({}, 1),
        ({"enrich_max_request_inputs": 2}, 4),
        ({"enrich_max_request_bytes": 100}, 4),
        ({"enrich_max_request_bytes": 100, "enrich_document_prefix": "x" * 30}, 7),
    ],
)
def test_a_run_asks_within_what_is_set(values: dict[str, Any], requests: int) -> None:
    one = MemoryPipeline(**values)
    one.put("p_2026_11", logs(7, 7))
    record = one.run()
    assert (record.embedded, record.api_requests) == (7, requests)


def test_a_prefix_counts_among_the_bytes_of_a_request() -> None:
    texts = [(str(n), "x" * 10) for n in range(4)]
    assert [len(batch) for batch in requests_of(texts, 40)] == [4]
    assert [len(batch) for batch in requests_of(texts, 40, prefix_bytes=10)] == [2, 2]


# -- commands


def looked_at(recorder: Recorder, **values: Any) -> tuple[Check, str]:
    console = Console(file=StringIO(), width=300)
    wanted = settings_with(openai_base_url=f"{recorder.url}/v1", embedding_dimensions=2, **values)
    check = Check(wanted, console)
    check._look_at_embeddings()
    assert isinstance(console.file, StringIO)
    return check, console.file.getvalue()


def test_check_tries_a_query_where_it_is_sent_otherwise(recorder: Recorder) -> None:
    check, told = looked_at(recorder, enrich_query_prefix='"query: "')
    assert "OpenAI's form" in told and 'queries are sent with "query: " before each' in told
    assert "a query, sent as `search` sends it: 2 dimensions" in told
    assert recorder.bodies[-1]["input"] == ["query: connection refused by upstream"]
    assert check.status == 0
    asked = len(recorder.asked)
    _, told = looked_at(recorder)
    assert "a query" not in told
    assert len(recorder.asked) == 2 * asked - 1


def test_check_names_the_settings_of_a_query_that_is_refused(recorder: Recorder) -> None:
    recorder.refuse = {"input_type": (422, '{"detail": "input_type is not permitted"}')}
    check, told = looked_at(recorder, enrich_query_extra_body='{"input_type": "query"}')
    assert "check ENRICH_QUERY_PREFIX and ENRICH_QUERY_EXTRA_BODY" in told
    assert check.status == 1


def test_search_asks_as_queries_do(recorder: Recorder) -> None:
    wanted = settings_with(
        openai_base_url=f"{recorder.url}/v1", embedding_dimensions=2,
        enrich_document_prefix="passage: ", enrich_query_prefix="query: ",
    )  # fmt: skip
    with closing(wiring.build_query_embedder(wanted)) as embedder:
        embedder.embed(["disk full"])
    assert recorder.bodies[-1]["input"] == ["query: disk full"]

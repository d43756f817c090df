"""The embeddings server through the real `openai` package: protocol, refusals, faults, counters."""

from __future__ import annotations

import base64
import math
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
import uvicorn
from starlette.testclient import TestClient

from dev.embedding_model import Model
from dev.embeddings_server import _duration, create_app

LARGE = "text-embedding-3-large"
KEY = "sk-test"


@pytest.fixture(scope="module")
def model() -> Model:
    return Model()


@pytest.fixture(scope="module")
def url(model: Model) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(api_key=KEY, model=model),
            log_level="critical",
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listener.close()


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=url) as client:
        yield client


@pytest.fixture
def control(client: httpx2.Client) -> Iterator[httpx2.Client]:
    client.post("/control/reset")
    yield client
    client.post("/control/reset")


@pytest.fixture(scope="module")
def openai_client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=10) as client:
        yield client


@pytest.fixture
def api(openai_client: openai.OpenAI, control: httpx2.Client) -> openai.OpenAI:
    return openai_client


def add_fault(control: httpx2.Client, **fault: Any) -> None:
    control.post("/control/faults", json=[fault]).raise_for_status()


def configure(control: httpx2.Client, **settings: Any) -> None:
    control.post("/control", json=settings).raise_for_status()


def vectors(answer: openai.types.CreateEmbeddingResponse) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array([item.embedding for item in answer.data], np.float32)


def test_vector_does_not_depend_on_the_batch(model: Model) -> None:
    texts = [f"ERROR order {n}: " + "timeout " * (n % 40) for n in range(300)]
    together = model.embed(texts)
    assert together.dtype == np.float32
    assert together.shape == (300, 1536)
    assert np.array_equal(together, np.vstack([model.embed([text]) for text in texts]))
    assert np.array_equal(together[::-1], model.embed(texts[::-1]))
    assert np.allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-6)


def test_related_texts_are_nearer_than_unrelated(model: Model) -> None:
    timeout, same, cat = model.embed(
        ["connection to the database timed out", "database timeout", "a picture of a cat"]
    )
    assert timeout @ same > timeout @ cat + 0.3


def test_base64_and_float_carry_the_models_bits(api: openai.OpenAI, model: Model) -> None:
    texts = ["disk full on node 7", "naïve café ☕", "disk full on node 7", " "]
    expected = model.embed(texts)
    # The package asks for base64 by itself, and decodes it.
    assert np.array_equal(vectors(api.embeddings.create(model=LARGE, input=texts)), expected)
    plain = api.embeddings.create(model=LARGE, input=texts, encoding_format="float")
    assert np.array_equal(vectors(plain), expected)
    raw = api.embeddings.create(model=LARGE, input=texts[0], encoding_format="base64")
    encoded: Any = raw.data[0].embedding
    assert np.array_equal(np.frombuffer(base64.b64decode(encoded), "<f4"), expected[0])


def test_answer_names_index_model_and_usage(api: openai.OpenAI, model: Model) -> None:
    answer = api.embeddings.create(model="text-embedding-3-small", input=["one", "two words"])
    assert [item.index for item in answer.data] == [0, 1]
    assert answer.model == "text-embedding-3-small"
    assert answer.usage.prompt_tokens == sum(model.count_tokens(["one", "two words"]))
    assert {LARGE, "text-embedding-3-small"} <= {item.id for item in api.models.list()}


def test_dimensions_truncate_and_renormalise(api: openai.OpenAI, model: Model) -> None:
    full = model.embed(["boom"])[0]
    short = vectors(api.embeddings.create(model=LARGE, input="boom", dimensions=100))[0]
    assert np.allclose(short, full[:100] / np.linalg.norm(full[:100]), atol=1e-6)
    longest = api.embeddings.create(model=LARGE, input="boom", dimensions=3072)
    assert vectors(longest).shape == (1, 3072)
    with pytest.raises(openai.BadRequestError) as refused:
        api.embeddings.create(model=LARGE, input="boom", dimensions=3073)
    assert refused.value.param == "dimensions"


def test_dimensions_may_be_ignored(api: openai.OpenAI, control: httpx2.Client) -> None:
    configure(control, dimensions_ignored=True)
    answer = api.embeddings.create(model=LARGE, input="boom", dimensions=1536)
    assert vectors(answer).shape == (1, 3072)


@pytest.mark.parametrize(
    "given",
    [
        pytest.param("", id="empty text"),
        pytest.param([], id="empty list"),
        pytest.param(["fine", ""], id="one empty text"),
        pytest.param([1, 2, 3], id="tokens"),
        pytest.param([[1, 2], [3]], id="lists of tokens"),
        pytest.param(["x"] * 2049, id="too many inputs"),
        pytest.param("word " * 8200, id="too long an input"),
        pytest.param(["word " * 8000] * 38, id="too many tokens"),
    ],
)
def test_input_refused(api: openai.OpenAI, control: httpx2.Client, given: Any) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        api.embeddings.create(model=LARGE, input=given)
    assert isinstance(refused.value.body, dict)
    assert set(refused.value.body) == {"message", "type", "param", "code"}
    report = control.get("/control").json()
    assert report["refused"] == {"400": 1}
    assert report["inputs"] == 0


def test_limits_are_inclusive(api: openai.OpenAI) -> None:
    assert len(api.embeddings.create(model=LARGE, input=["x"] * 2048).data) == 2048


def test_unknown_model_refused(api: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        api.embeddings.create(model="nonesuch", input="x")
    assert refused.value.code == "model_not_found"


def test_wrong_key_refused(api: openai.OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError) as refused:
        api.with_options(api_key="sk-wrong").embeddings.create(model=LARGE, input="x")
    assert refused.value.code == "invalid_api_key"


def test_rate_limit_tells_when_to_come_back(api: openai.OpenAI, control: httpx2.Client) -> None:
    configure(control, requests_per_minute=1, tokens_per_minute=10_000)
    # So many tokens that they are not there again before the answer is written.
    first = api.embeddings.with_raw_response.create(model=LARGE, input="disk is full " * 500)
    assert first.headers["x-ratelimit-limit-requests"] == "1"
    assert first.headers["x-ratelimit-remaining-requests"] == "0"
    assert int(first.headers["x-ratelimit-remaining-tokens"]) < 10_000
    with pytest.raises(openai.RateLimitError) as refused:
        api.embeddings.create(model=LARGE, input="x")
    assert refused.value.code == "rate_limit_exceeded"
    assert 1 <= int(refused.value.response.headers["retry-after"]) <= 60
    assert refused.value.response.headers["x-ratelimit-reset-requests"]


def test_a_limit_may_give_less_than_a_minute_s_worth_at_once(
    api: openai.OpenAI, control: httpx2.Client
) -> None:
    configure(control, requests_per_minute=30, burst_seconds=6)
    for _ in range(3):
        api.embeddings.create(model=LARGE, input="x")
    with pytest.raises(openai.RateLimitError) as refused:
        api.embeddings.create(model=LARGE, input="x")
    assert 1 <= int(refused.value.response.headers["retry-after"]) <= 2


def ask_for_base64(control: httpx2.Client) -> httpx2.Response:
    return control.post(
        "/v1/embeddings",
        json={"model": LARGE, "input": "x", "encoding_format": "base64"},
        headers={"Authorization": f"Bearer {KEY}"},
    )


def test_base64_ignored(control: httpx2.Client, model: Model) -> None:
    configure(control, base64_support="ignored")
    row = ask_for_base64(control).json()["data"][0]
    assert np.array_equal(np.float32(row["embedding"]), model.embed(["x"])[0])


def test_base64_refused_or_unanswered_and_numbers_served(
    api: openai.OpenAI, control: httpx2.Client
) -> None:
    configure(control, base64_support="refused")
    assert ask_for_base64(control).status_code == 400
    configure(control, base64_support="unanswered")
    assert ask_for_base64(control).json()["data"] == []
    assert api.embeddings.create(model=LARGE, input="x", encoding_format="float").data


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0, "0ms"), (0.12, "120ms"), (7.5, "7.5s"), (10, "10s"), (60, "1m0s"), (359.2, "6m0s")],
)
def test_time_to_wait_is_written_as_the_service_does(seconds: float, written: str) -> None:
    assert _duration(seconds) == written


def test_exhausted_quota(api: openai.OpenAI, control: httpx2.Client) -> None:
    configure(control, quota_exhausted=True)
    with pytest.raises(openai.RateLimitError) as refused:
        api.embeddings.create(model=LARGE, input="x")
    assert refused.value.code == "insufficient_quota"


def test_status_fault_strikes_after_and_times(api: openai.OpenAI, control: httpx2.Client) -> None:
    add_fault(control, kind="status", status=503, headers={"Retry-After": "7"}, after=1, times=2)
    api.embeddings.create(model=LARGE, input="x")
    for _ in range(2):
        with pytest.raises(openai.InternalServerError) as failed:
            api.embeddings.create(model=LARGE, input="x")
        assert failed.value.response.headers["retry-after"] == "7"
    api.embeddings.create(model=LARGE, input="x")
    report = control.get("/control").json()
    assert report["refused"] == {"503": 2}
    assert (report["requests"], report["inputs"], report["distinct_inputs"]) == (4, 2, 1)


def test_poison_strikes_only_its_text(api: openai.OpenAI, control: httpx2.Client) -> None:
    add_fault(control, kind="poison", match="skull")
    for _ in range(2):
        with pytest.raises(openai.BadRequestError):
            api.embeddings.create(model=LARGE, input=["fine", "a skull here"])
    assert len(api.embeddings.create(model=LARGE, input=["fine"]).data) == 1


def test_cut_connection_was_paid(api: openai.OpenAI, control: httpx2.Client) -> None:
    add_fault(control, kind="reset")
    with pytest.raises(openai.APIConnectionError):
        api.embeddings.create(model=LARGE, input=["a", "b"])
    assert control.get("/control").json()["inputs"] == 2


def test_hang_outlasts_a_clients_patience(api: openai.OpenAI, control: httpx2.Client) -> None:
    add_fault(control, kind="hang", seconds=30)
    with pytest.raises(openai.APITimeoutError):
        api.with_options(timeout=0.2).embeddings.create(model=LARGE, input="x")
    # The request ends with its client, so that nothing stays in flight.
    while control.get("/control").json()["requests"] != 1:
        time.sleep(0.01)
    assert len(api.embeddings.create(model=LARGE, input="x").data) == 1
    assert control.get("/control").json()["inputs"] == 1


def test_trickle_arrives_whole(api: openai.OpenAI, control: httpx2.Client, model: Model) -> None:
    add_fault(control, kind="trickle", seconds=0.2)
    answer = api.embeddings.create(model=LARGE, input="x")
    assert np.array_equal(vectors(answer), model.embed(["x"]))


@pytest.mark.parametrize("encoding", ["base64", "float"])
@pytest.mark.parametrize(
    ("kind", "check"),
    [("nan", np.isnan), ("inf", np.isinf), ("zeros", lambda rows: rows == 0)],
)
def test_numbers_not_to_be_stored(
    url: str, control: httpx2.Client, kind: str, check: Any, encoding: str
) -> None:
    add_fault(control, kind=kind, match="bad")
    answer = control.post(
        "/v1/embeddings",
        json={"model": LARGE, "input": ["good", "bad"], "encoding_format": encoding},
        headers={"Authorization": f"Bearer {KEY}"},
    ).json()
    rows = [item["embedding"] for item in answer["data"]]
    if encoding == "base64":
        rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]
    struck = check(np.array(rows, np.float32))
    assert not struck[0].any()
    assert struck[1].any()


@pytest.mark.parametrize(
    ("kind", "indexes"),
    [
        ("too_few", [0, 1]),
        ("too_many", [0, 1, 2, 3]),
        ("duplicate_index", [0, 1, 0]),
        ("shuffled_index", [2, 1, 0]),
        ("without_index", [None, None, None]),
        ("without_index_0", [None, 1, 2]),
    ],
)
def test_answers_that_do_not_line_up(
    api: openai.OpenAI, control: httpx2.Client, model: Model, kind: str, indexes: list[int | None]
) -> None:
    add_fault(control, kind=kind)
    answer = api.embeddings.create(model=LARGE, input=["a", "b", "c"])
    assert [item.index for item in answer.data] == indexes
    if kind == "shuffled_index":
        assert np.array_equal(vectors(answer)[::-1], model.embed(["a", "b", "c"]))


def test_wrong_dimension(api: openai.OpenAI, control: httpx2.Client) -> None:
    add_fault(control, kind="wrong_dimension", dimension=8)
    assert vectors(api.embeddings.create(model=LARGE, input=["a", "b"])).shape == (2, 8)


def test_empty_data(control: httpx2.Client) -> None:
    add_fault(control, kind="empty_data")
    answer = control.post(
        "/v1/embeddings",
        json={"model": LARGE, "input": "x"},
        headers={"Authorization": f"Bearer {KEY}"},
    )
    assert answer.json()["data"] == []


@pytest.mark.parametrize("kind", ["cut_json", "html"])
def test_answers_that_are_no_json(control: httpx2.Client, kind: str) -> None:
    add_fault(control, kind=kind)
    answer = control.post(
        "/v1/embeddings",
        json={"model": LARGE, "input": "x"},
        headers={"Authorization": f"Bearer {KEY}"},
    )
    assert answer.status_code == 200
    with pytest.raises(ValueError):
        answer.json()


def test_control_refuses_what_it_does_not_know(control: httpx2.Client) -> None:
    assert control.post("/control", json={"latency": 3}).status_code == 400
    assert control.post("/control", json={"requests_per_minute": 0}).status_code == 400
    assert control.post("/control/faults", json=[{"kind": "flood"}]).status_code == 400


def test_control_keeps_the_key_to_itself(control: httpx2.Client) -> None:
    assert KEY not in control.get("/control").text
    assert math.isclose(control.get("/control").json()["settings"]["latency_ms"], 0)


@pytest.mark.parametrize("expected", ["k3y", ""])
def test_control_is_shut_without_its_key(model: Model, expected: str) -> None:
    app = create_app(control_key=expected, model=model)
    asks = [("GET", "/control"), ("POST", "/control"), ("POST", "/control/reset")]
    asks += [("POST", "/control/faults"), ("DELETE", "/control/faults")]
    with TestClient(app) as client:
        for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer "}):
            for method, path in asks:
                assert client.request(method, path, headers=given).status_code == 401
        opened = client.get("/control", headers={"Authorization": "Bearer k3y"})
        assert opened.status_code == (200 if expected else 401)

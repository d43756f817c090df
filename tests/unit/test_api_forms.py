"""What the service reads and writes, without a server: OpenAI's form, keys, problems."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse

from enrich.api.guard import Guard
from enrich.api.keys import NOBODY, Keys, new_entry, read_keys
from enrich.api.openai_form import MOST_INPUTS, Form, shortened
from enrich.api.refusals import Refusal, budget_spent, for_callers, rate_limited, refusal_of
from enrich.errors import (
    Halt,
    InputRefused,
    NoPermit,
    RateLimited,
    ServerUnavailable,
    SettingsError,
    TransientError,
)
from enrich.setting_forms import loopback

MODEL = "text-embedding-3-large"
FORM = Form(model=MODEL, dimensions=8)
VECTORS = [np.arange(1, 9, dtype="<f4"), np.full(8, 0.5, dtype="<f4")]


def body(**fields: Any) -> bytes:
    return json.dumps({"model": MODEL, "input": "a", **fields}).encode()


@pytest.mark.parametrize(
    ("given", "texts"),
    [("a", ["a"]), (["a", "b", "a"], ["a", "b", "a"]), (["x" * 100_000], ["x" * 100_000])],
)
def test_strings_and_lists_are_read_in_their_order(given: Any, texts: list[str]) -> None:
    asked = FORM.read(body(input=given, user="someone"))
    assert (asked.texts, asked.dimensions, asked.encoding) == (texts, 8, "float")


@pytest.mark.parametrize(
    ("content", "status", "param"),
    [
        (b"", 400, None),
        (b"{", 400, None),
        (b"[]", 400, None),
        (b"\xff", 400, None),
        (b"[" * 100_000, 400, None),
        (b'{"input": "a"}', 400, "model"),
        (body(model=""), 400, "model"),
        (body(model=7), 400, "model"),
        (body(model="gpt-4"), 404, "model"),
        (body(input=None), 400, "input"),
        (body(input=""), 400, "input"),
        (body(input=[]), 400, "input"),
        (body(input=["a", ""]), 400, "input"),
        (body(input=["a", 7]), 400, "input"),
        (body(input=[1, 2]), 400, "input"),
        (body(input=[[1, 2]]), 400, "input"),
        (body(input={"a": 1}), 400, "input"),
        (body(input=["a"] * (MOST_INPUTS + 1)), 400, "input"),
        (body(dimensions=0), 400, "dimensions"),
        (body(dimensions=9), 400, "dimensions"),
        (body(dimensions="8"), 400, "dimensions"),
        (body(dimensions=True), 400, "dimensions"),
        (body(user={}), 400, "user"),
        (body(encoding_format="int8"), 400, "encoding_format"),
        (body(encoding_format=[1]), 400, "encoding_format"),
    ],
)
def test_what_cannot_be_served_is_refused_as_openai_does(
    content: bytes, status: int, param: str | None
) -> None:
    with pytest.raises(Refusal) as refused:
        FORM.read(content)
    error = refused.value.openai_body()["error"]
    assert (refused.value.status, error["param"]) == (status, param)
    assert error["type"] == "invalid_request_error"
    assert set(error) == {"message", "type", "param", "code"}


def test_a_model_of_one_size_is_not_cut() -> None:
    with pytest.raises(Refusal, match="one size"):
        Form(model="bge-m3", dimensions=8).read(
            json.dumps({"model": "bge-m3", "input": "a", "dimensions": 4}).encode()
        )


@given(st.binary(max_size=200) | st.from_regex(rb'\{"(model|input)": ?.{0,30}\}'))
def test_any_body_is_read_or_refused(content: bytes) -> None:
    try:
        FORM.read(content)
    except Refusal as refusal:
        assert refusal.status in (400, 404)


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_an_answer_has_each_vector_at_its_place(encoding: str) -> None:
    asked = FORM.read(body(input=["a", "b"], encoding_format=encoding))
    answer = orjson.loads(FORM.answer(asked, VECTORS, 12))
    assert [row["index"] for row in answer["data"]] == [0, 1]
    for row, vector in zip(answer["data"], VECTORS, strict=True):
        got = row["embedding"]
        numbers = (
            np.frombuffer(base64.b64decode(got), "<f4") if encoding == "base64" else np.float32(got)
        )
        assert np.array_equal(numbers, vector)
    assert answer["usage"] == {"prompt_tokens": 12, "total_tokens": 12}
    assert answer["model"] == MODEL


def test_fewer_dimensions_are_the_first_of_them_as_a_unit_vector() -> None:
    asked = FORM.read(body(dimensions=3))
    (row,) = orjson.loads(FORM.answer(asked, VECTORS[:1], 0))["data"]
    first = np.array([1.0, 2.0, 3.0])
    assert np.allclose(row["embedding"], first / np.linalg.norm(first))
    assert np.linalg.norm(row["embedding"]) == pytest.approx(1)
    assert shortened(np.zeros(8, "<f4"), 3).tolist() == [0, 0, 0]


# -- keys


def keys_file(path: Path, content: Any) -> str:
    file = path / "keys.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(file)


def test_a_key_is_known_by_its_hash(tmp_path: Path) -> None:
    entries = [new_entry("search", "secret-1"), {**new_entry("bi", "secret-2"), "usd_per_day": 5}]
    keys = read_keys(keys_file(tmp_path, entries))
    assert "secret" not in json.dumps(entries)
    holder = keys.holder("secret-2")
    assert holder is not None
    assert (holder.name, holder.usd_per_day, holder.payer) == ("bi", 5, "api:bi")
    assert keys.holder("secret-3") is None
    assert keys.holder("") is None
    assert keys.holder("\ud800") is None


def test_without_keys_everybody_is_nobody() -> None:
    assert read_keys("") == Keys({})
    assert Keys({}).holder("anything") is NOBODY


@pytest.mark.parametrize(
    "content",
    [
        "", "{}", "[]", "[1]", '[{"name": "a"}]', '[{"name": "a", "sha256": "qqq"}]',
        [{**new_entry("a b", "k")}], [{**new_entry("a", "k"), "odd": 1}],
        [new_entry("a", "k"), new_entry("a", "l")],
        [{**new_entry("a", "k"), "sha256": hashlib.sha256(b"k").hexdigest().upper()}],
    ],
)  # fmt: skip
def test_a_file_of_keys_that_is_none_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(SettingsError, match=r"^ENRICH_API_KEYS_FILE: ") as refused:
        read_keys(keys_file(tmp_path, content))
    assert "qqq" not in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        read_keys(str(tmp_path / "none.json"))


# -- problems


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (NoPermit("none left", 3.2), 429, "3"),
        (RateLimited("asked for a pause"), 429, "5"),
        (InputRefused("a text"), 422, None),
        (Halt("the key is refused"), 502, None),
        (ServerUnavailable("away"), 503, "1"),
    ],
)
def test_an_expected_failure_has_its_status(error: Any, status: int, retry: str | None) -> None:
    refusal = refusal_of(error)
    assert (refusal.status, refusal.headers.get("Retry-After")) == (status, retry)


@pytest.mark.parametrize(
    ("path", "media_type", "body"),
    [
        (
            "/api/v1/embedding",
            "application/problem+json",
            {
                "type": "about:blank",
                "title": "Request Entity Too Large",
                "status": 413,
                "detail": "the body is too large",
            },
        ),
        (
            "/v1/embeddings",
            "application/json",
            {
                "error": {
                    "message": "the body is too large",
                    "type": "invalid_request_error",
                    "param": None,
                    "code": None,
                }
            },
        ),
    ],
)
def test_a_refusal_has_the_form_that_the_callers_of_its_route_know(
    path: str, media_type: str, body: Any
) -> None:
    answer = Refusal(413, "the body is too large").response(path)
    assert (answer.status_code, answer.headers["content-type"]) == (413, media_type)
    assert json.loads(bytes(answer.body)) == body


def test_a_spent_budget_and_a_used_up_rate_say_when_to_come_again() -> None:
    late = datetime(2026, 11, 29, 8, 58, 59, tzinfo=timezone(timedelta(hours=9)))
    spent = budget_spent("spent", late)
    assert (spent.status, spent.headers["Retry-After"]) == (429, "61")
    limited = rate_limited("too many", 46.6, {"x-ratelimit-limit-requests": "10"})
    assert (limited.status, limited.headers) == (
        429,
        {
            "Retry-After": "47",
            "x-ratelimit-limit-requests": "10",
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "47s",
        },
    )


@pytest.mark.parametrize("path", ["/v1/embeddings", "/api/v1/search"])
def test_a_fault_of_ours_has_the_form_of_a_refusal_and_is_raised_on(path: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("a text")

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": []}
    with pytest.raises(KeyError):
        asyncio.run(Guard(app, hosts=None)(scope, AsyncMock(), send))
    assert sent[0]["status"] == 500
    body = json.loads(sent[1]["body"])
    assert set(body) == (
        {"error"} if path.startswith("/v1/") else {"type", "title", "status", "detail"}
    )
    assert "a text" not in str(sent)


# -- by which name a service without keys is asked


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("localhost:8000", "", 200),
        ("127.0.0.1", "", 200),
        ("[::1]:8000", "", 200),
        ("localhost", "http://localhost", 200),
        ("localhost:8000", "http://127.0.0.1:3000", 200),
        ("localhost:8000", "http://[::1]", 200),
        ("LOCALHOST:8000", "", 200),
        ("evil.example:8000", "", 403),
        ("", "", 403),
        ("localhost.evil.example", "", 403),
        ("localhost:8000", "https://evil.example", 403),
        ("localhost:8000", "https://evil.example:8000", 403),
        ("localhost:8000", "null", 403),
        ("::1:x", "", 403),
    ],
)
def test_only_names_of_this_machine_are_answered(host: str, origin: str, status: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("")(scope, receive, send)

    told: list[int] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            told.append(message["status"])

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    headers = [(b"host", host.encode())] + [(b"origin", origin.encode())] * bool(origin)
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers}
    asyncio.run(Guard(app, hosts=loopback.NAMES)(scope, receive, send))
    assert told == [status]


@pytest.mark.parametrize(
    ("sentence", "told"),
    [
        (
            "OpenSearch at https://10.0.0.7:9200 cannot be reached: check OPENSEARCH_HOST",
            "OpenSearch cannot be reached: check OPENSEARCH_HOST",
        ),
        (
            "OpenSearch at https://a.internal:9200, https://b.internal:9200 did not answer in time",
            "OpenSearch did not answer in time",
        ),
        (
            "the embeddings API at http://10.0.0.8:4000/v1 is in trouble (500)",
            "the embeddings API is in trouble (500)",
        ),
        ("Redis cannot be reached", "Redis cannot be reached"),
    ],
)
def test_callers_are_not_told_where_our_servers_are(sentence: str, told: str) -> None:
    assert for_callers(sentence) == told
    for error in (TransientError(sentence), Halt(sentence), InputRefused(sentence)):
        body = json.loads(bytes(refusal_of(error).response("/api/v1/search").body))
        assert body["detail"] == told

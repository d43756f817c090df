"""The service as operators run it, as a process on real servers, asked over real HTTP.

Asked by OpenAI's own package, by hand over sockets, and by schemathesis from its description.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from dev.api_control import ApiControl
from dev.embedding_model import Model
from dev.services import free_ports
from enrich.api.keys import new_entry
from tests.conftest import ROOT, Search, wait_for
from tests.served import MODEL, Served


def raw(port: int, content: bytes, seconds: float = 60) -> bytes:
    """What comes back for bytes on a socket, until it is closed."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=seconds)) as connection:
        connection.sendall(content)
        got = b""
        while part := connection.recv(65536):
            got += part
        return got


def test_openais_package_gets_its_vectors(
    serve: Callable[..., Served], model: Model, embeddings: ApiControl
) -> None:
    service = serve()
    client = service.openai()
    texts = ["connection refused", "disk is full", "connection refused", "  spaces stay  "]
    right = model.embed(texts)
    for _ in range(2):
        rows = client.embeddings.create(model=MODEL, input=texts).data
        for row, vector in zip(rows, right, strict=True):
            assert np.array_equal(np.float32(row.embedding), vector)
    answer = client.embeddings.with_raw_response.create(model=MODEL, input=texts)
    assert answer.headers["x-enrich-cached"] == "3"
    assert answer.headers["x-enrich-paid-inputs"] == "0"
    assert answer.parse().usage.total_tokens == 0
    assert embeddings.seen["inputs"] == 3
    short = client.embeddings.create(model=MODEL, input=texts[0], dimensions=256).data[0].embedding
    cut = right[0][:256] / np.linalg.norm(right[0][:256])
    assert np.allclose(short, cut, atol=1e-6)
    floats = service.http.post(
        "/v1/embeddings", json={"model": MODEL, "input": texts[1], "encoding_format": "float"}
    ).json()["data"][0]["embedding"]
    assert np.array_equal(np.float32(floats), right[1])
    in_base64 = service.http.post(
        "/v1/embeddings", json={"model": MODEL, "input": texts[1], "encoding_format": "base64"}
    ).json()["data"][0]["embedding"]
    assert np.array_equal(np.frombuffer(base64.b64decode(in_base64), "<f4"), right[1])
    assert [one.id for one in client.models.list()] == [MODEL]
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="other", input="a")
    with pytest.raises(openai.BadRequestError, match="tokens"):
        client.embeddings.create(model=MODEL, input=[1, 2, 3])
    # Too long for the model: refused, and never cut in silence.
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        client.embeddings.create(model=MODEL, input="word " * 9000)
    # Longer than the service waits by itself.
    embeddings.faults({"kind": "status", "status": 429, "headers": {"retry-after": "47"}})
    with pytest.raises(openai.RateLimitError) as limited:
        client.embeddings.create(model=MODEL, input="something new")
    assert int(limited.value.response.headers["retry-after"]) >= 1


def test_a_batch_answers_each_log_by_itself(
    serve: Callable[..., Served], model: Model, search: Search, embeddings: ApiControl
) -> None:
    service = serve()
    logs = [{"log_id": f"l{n}", "message": f"text {n % 40}"} for n in range(1000)]
    logs[10]["message"] = "   "
    logs[20]["message"] = ""
    answer = service.http.post("/api/v1/embedding/batch", json={"logs": logs})
    assert answer.status_code == 207
    body = answer.json()
    assert [item["log_id"] for item in body["embeddings"]] == [one["log_id"] for one in logs]
    assert (body["count"], body["model"]) == (998, MODEL)
    texts = [f"text {n}" for n in range(40)]
    right = dict(zip(texts, model.embed(texts), strict=True))
    for one, item in zip(logs, body["embeddings"], strict=True):
        if one["message"].strip():
            assert np.array_equal(np.float32(item["embedding"]), right[one["message"]])
        else:
            assert item["error"]["code"] == "message_empty"
            assert "embedding" not in item
    assert embeddings.seen["inputs"] == 40
    one = service.http.post("/api/v1/embedding", json={"text": " text 1\n"}).json()
    assert one["dimension"] == 1536
    assert np.array_equal(np.float32(one["embedding"]), right["text 1"])
    assert embeddings.seen["inputs"] == 40


def test_callers_of_two_processes_pay_once(
    serve: Callable[..., Served], model: Model, embeddings: ApiControl
) -> None:
    services = [serve(ENRICH_COALESCE_MS="20") for _ in range(2)]
    texts = [f"an error of kind {n}" for n in range(60)]
    embeddings.set(latency_ms=300)

    def ask(number: int) -> bool:
        some = texts[number % 20 :] + texts[: number % 20]
        rows = services[number % 2].openai().embeddings.create(model=MODEL, input=some).data
        right = dict(zip(texts, vectors, strict=True))
        return all(
            np.array_equal(np.float32(row.embedding), right[text])
            for row, text in zip(rows, some, strict=True)
        )

    vectors = model.embed(texts)
    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(16)))
    assert embeddings.seen["inputs"] == 60


def test_keys_have_names_budgets_and_rates(
    serve: Callable[..., Served], tmp_path: Path, embeddings: ApiControl
) -> None:
    file = tmp_path / "keys.json"
    entries = [
        new_entry("free", "key-1"),
        {**new_entry("slow", "key-2"), "requests_per_minute": 10},
        {**new_entry("poor", "key-3"), "usd_per_day": 0.000001},
    ]
    file.write_text(json.dumps(entries))
    service = serve(ENRICH_API_KEYS_FILE=str(file), ENRICH_PRICE_PER_MILLION_TOKENS="1000")
    for key in ("", "key-4"):
        with pytest.raises(openai.AuthenticationError):
            service.openai(key or "none").embeddings.create(model=MODEL, input="a")
    assert service.http.post("/api/v1/embedding", json={"text": "a"}).status_code == 401
    assert service.http.get("/metrics").status_code == 401
    assert service.http.get("/readyz").status_code == 200
    # Another name than localhost is fine where keys are.
    named = {"host": "enrich.example.org", "authorization": "Bearer key-1"}
    assert service.http.get("/v1/models", headers=named).status_code == 200
    service.openai("key-1").embeddings.create(model=MODEL, input="one")
    slow = service.openai("key-2")
    with pytest.raises(openai.RateLimitError) as limited:
        for _ in range(20):
            slow.models.list()
    assert limited.value.response.headers["x-ratelimit-limit-requests"] == "10"
    poor = service.openai("key-3")
    poor.embeddings.create(model=MODEL, input="two")
    with pytest.raises(openai.RateLimitError) as spent:
        poor.embeddings.create(model=MODEL, input="three")
    assert spent.value.code == "insufficient_quota"
    told = service.told()
    assert "free" in told and "poor" in told
    assert not any(secret in told for secret in ("key-1", "key-2", "key-3", "two"))


def test_search_finds_logs_by_meaning(
    serve: Callable[..., Served],
    search: Search,
    pipeline: Callable[..., Any],
    embeddings: ApiControl,
    tmp_path: Path,
) -> None:
    index = "shop_2026_11"
    search.create(index)
    texts = ["the database is locked by a transaction", "the payment was declined by the bank"]
    search.index(
        index,
        [
            {"level": "ERROR", "message": text, "timestamp": "2025-11-20T10:00:00Z"}
            for text in texts
        ],
    )
    # Of now, so that the last hour has it; the others are of another year.
    search.create("till_2026_11")
    now = {
        "level": "ERROR",
        "message": "till 7 is open",
        "timestamp": f"{datetime.now(UTC):%FT%TZ}",
    }
    search.index("till_2026_11", [now, {**now, "message": "till 8 is open"}])
    pipeline().run()
    file = tmp_path / "keys.json"
    file.write_text(json.dumps([{**new_entry("desk", "key-1"), "usd_per_day": 0.008}]))
    service = serve(ENRICH_API_KEYS_FILE=str(file), ENRICH_PRICE_PER_MILLION_TOKENS="1000")
    service.http.headers["authorization"] = "Bearer key-1"
    paid = embeddings.seen["inputs"]
    for bought in ("1", "0"):
        found = service.http.get("/api/v1/search", params={"q": "locked database", "k": 1})
        assert [hit["message"] for hit in found.json()["hits"]] == texts[:1]
        assert found.json()["left_out"] == []
        assert found.headers["x-enrich-paid-inputs"] == bought
    assert embeddings.seen["inputs"] == paid + 1
    listed = service.http.get("/api/v1/groups", params={"similarity": 1, "index": index}).json()
    assert [(g["logs"], g["texts"], g["indices"]) for g in listed["groups"]] == [
        (1, 1, [index])
    ] * 2
    assert {g["message"] for g in listed["groups"]} == set(texts)
    assert {g["first_seen"] for g in listed["groups"]} == {"2025-11-20T10:00:00.000Z"}
    one = service.http.get("/api/v1/groups", params={"similarity": 0.5, "k": 1, "index": "shop*"})
    assert one.json()["groups"][0]["logs"] + one.json()["logs_of_other_groups"] == 2
    nothing = service.http.get("/api/v1/groups", params={"index": "nope_2026_11"}).json()
    assert (nothing["groups"], nothing["logs_of_rarer_texts"]) == ([], 0)
    experiment = "/api/v2-langgraph/experiments/vector-vs-db"
    tried = service.http.get(experiment, params={"project_uuid": "till", "k_values": "1,3"}).json()
    assert tried["ground_truth"]["clusters"][0]["name"] == "till <number> is open"
    assert (tried["ground_truth"]["kinds"], tried["k_values"]) == (1, [1, 3])
    assert tried["experiments"][1]["knn_hits"]["accuracy"]["overall"] == 100
    for project in ("shop", "nobody", "sho", "till_2026_11"):
        none = service.http.get(experiment, params={"project_uuid": project})
        assert none.status_code == 404, project
    for wrong in ({"k_values": "0"}, {"k_values": "10001"}, {"k_values": ""}, {"time_hours": 169}):
        refused = service.http.get(experiment, params={"project_uuid": "till", **wrong})
        assert refused.status_code == 422, wrong
    for hostile in ("*", "till*", "till,shop", "-x", "..", "till/_search", "%74ill", ""):
        refused = service.http.get(experiment, params={"project_uuid": hostile})
        assert refused.status_code == 422, hostile
    for bad in ("-x", "a b", "a/../b", "a?b", "a#b", "%2e", "_all", "<a>"):
        for route in ("search", "groups"):
            wrong = service.http.get(f"/api/v1/{route}", params={"q": "x", "index": bad})
            assert wrong.status_code == 422, bad
    # What a search costs is the key's, and its budget ends it.
    many = {"q": "the payment of some order was declined by its bank once more", "k": 1}
    assert service.http.get("/api/v1/search", params=many).status_code == 200
    spent = service.http.get("/api/v1/search", params={"q": "anything else"})
    assert (spent.status_code, spent.json()["title"]) == (429, "Too Many Requests")
    assert "locked" not in service.told()


def test_a_chat_model_speaks_beside_the_statistics(
    serve: Callable[..., Served], search: Search, embeddings: ApiControl
) -> None:
    search.create("shop_2026_11")
    now = datetime.now(UTC) - timedelta(minutes=1)
    search.index(
        "shop_2026_11",
        [
            {"level": level, "message": f"sekret {n}", "timestamp": now.isoformat()}
            for n, level in enumerate(("ERROR", "INFO", "INFO", "DEBUG") * 100)
        ],
    )
    service = serve(CHAT_MODEL="gpt-9", CHAT_TIMEOUT_SECONDS="2")

    def compared() -> Any:
        path = "/api/v2-langgraph/statistics/compare"
        asked = {"project_uuid": "shop", "sample_size": 50, "seed": 1}
        return service.http.get(path, params=asked).raise_for_status().json()["ai_statistics"]

    told = compared()
    chat = told.pop("chat_model")
    assert chat["status"] == "answered" and chat["overall_accuracy"] > 0
    assert chat["estimated_total_logs"] == told["estimated_total_logs"]
    assert told["reasoning"].startswith("The sample of 50 logs speaks for")
    sent = " ".join(embeddings.seen["last_chat"])
    assert "sekret" not in sent and "shop" not in sent
    told["reasoning"] = told["statistical_reasoning"]
    for fault, status in (
        ({"kind": "words", "body": "I like turtles"}, "unusable"),
        ({"kind": "refusal"}, "refused"),
        ({"kind": "status", "status": 500}, "failed"),
        ({"kind": "html"}, "unusable"),
        ({"kind": "hang"}, "late"),
    ):
        embeddings.faults({"route": "chat", **fault})
        spoilt = compared()
        assert spoilt.pop("chat_model")["status"] == status
        assert spoilt == told


def test_bad_requests_are_answered_and_nobody_else_waits(
    serve: Callable[..., Served], embeddings: ApiControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve()
    head = f"POST /api/v1/embedding HTTP/1.1\r\nHost: localhost:{service.port}\r\n"
    json_head = head + "Content-Type: application/json\r\n"
    large = json_head + f"Content-Length: {50 * 1024 * 1024}\r\n\r\n"
    assert b" 413 " in raw(service.port, large.encode() + b"{" * 1000).splitlines()[0]
    assert raw(service.port, b"\x16\x03\x01\x00\xa5 nothing\r\n\r\n")
    other = service.http.post(
        "/api/v1/embedding", json={"text": "a"}, headers={"host": "evil.example"}
    )
    assert other.status_code == 403
    page = service.http.post(
        "/api/v1/embedding", json={"text": "a"}, headers={"origin": "https://evil.example"}
    )
    assert page.status_code == 403
    for content in (b"", b"{", b"[]", b'{"text": 7}', b'{"text": ""}', b'{"text": null}'):
        answer = service.http.post(
            "/api/v1/embedding", content=content, headers={"content-type": "application/json"}
        )
        assert answer.status_code == 422, content
        assert answer.headers["content-type"] == "application/problem+json"
        assert set(answer.json()) == {"type", "title", "status", "detail"}
    many = {"logs": [{"log_id": str(n), "message": "a"} for n in range(1001)]}
    assert service.http.post("/api/v1/embedding/batch", json=many).status_code == 422
    # Connections that say nothing keep nobody from being answered.
    with ExitStack() as silent:
        for _ in range(500):
            silent.enter_context(
                closing(socket.create_connection(("127.0.0.1", service.port), timeout=30))
            )
        assert service.http.post("/api/v1/embedding", json={"text": "b"}).status_code == 200
    embeddings.faults({"kind": "status", "status": 401, "times": 0})
    refused = service.http.post("/api/v1/embedding", json={"text": "never seen"})
    assert (refused.status_code, refused.json()["title"]) == (502, "Bad Gateway")
    assert "never seen" not in service.told()


def test_a_body_that_does_not_come_is_cut_off(serve: Callable[..., Served]) -> None:
    service = serve()
    head = f"POST /api/v1/embedding HTTP/1.1\r\nHost: localhost:{service.port}\r\n"
    slow = head + "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    assert b" 408 " in raw(service.port, slow.encode()).splitlines()[0]


def test_servers_that_are_away_are_named(
    serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    (nobody,) = free_ports(1)
    service = serve(OPENSEARCH_HOST="127.0.0.1", OPENSEARCH_PORT=str(nobody))
    ready = service.http.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["servers"]["redis"] == "ok"
    assert "cannot be reached" in ready.json()["servers"]["opensearch"]
    assert service.http.get("/api/v1/search", params={"q": "x"}).status_code == 503


def test_it_ends_in_order(serve: Callable[..., Served], embeddings: ApiControl) -> None:
    service = serve()
    embeddings.set(latency_ms=1500)
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(
            service.http.post, "/api/v1/embedding", json={"text": "the last one"}
        )
        wait_for(lambda: embeddings.seen["requests"] > 0)
        os.kill(service.process.pid, signal.SIGTERM)
        assert under_way.result().status_code == 200
    wait_for(lambda: not service.process.running)
    assert service.process.returncode == 0


def test_its_description_is_true(serve: Callable[..., Served]) -> None:
    service = serve()
    given = service.http.get("/openapi.json").json()
    kept = json.loads((ROOT / "docs" / "openapi.json").read_text(encoding="utf-8"))
    assert given == kept, "docs/openapi.json is of another version: make openapi writes it"
    # Whatever is asked is answered as it says, in form and status.
    played = subprocess.run(
        [
            *(str(Path(sys.executable).parent / "schemathesis"), "run"),
            *(f"{service.url}/openapi.json", "--max-examples", "8", "--seed", "1", "--no-color"),
            *("--phases", "examples,coverage,fuzzing", "--generation-database", "none"),
        ],
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert played.returncode == 0, played.stdout[-6000:]
    assert "Traceback" not in service.told()

"""Prefixes, fields and headers of the embeddings API on real servers: who gets which, and what a
change of them does to a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from dev.embedding_model import Model
from dev.http_proxy import Answered, Asked, Forward, HttpProxy
from dev.services import Services
from enrich.cli.search import show
from tests.conftest import Pipeline, Search

INDEX = "proj_2026_11"
MESSAGES = [
    *("connection refused by upstream", "disk is full", "certificate expired", "out of memory"),
    *("deadlock in the database", "no route to host", "permission denied"),
]


def test_logs_are_sent_as_documents_and_words_as_queries(
    pipeline: Callable[..., Pipeline],
    search: Search,
    clean: Services,
    model: Model,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[Asked] = []

    def note(request: Asked, forward: Forward) -> Answered:
        asked.append(request)
        return forward(request)

    search.create(INDEX)
    search.index(INDEX, [{"level": "ERROR", "message": message} for message in MESSAGES])
    with HttpProxy(clean.embeddings.url) as front:
        front.alter = note
        ways: dict[str, Any] = {
            "openai_base_url": f"http://127.0.0.1:{front.port}/v1/embeddings",
            "openai_extra_headers": '{"X-Team": "hunter2"}',
            "enrich_document_prefix": '"passage: "',
            "enrich_query_prefix": '"query: "',
            "enrich_document_extra_body": '{"user": "logs"}',
            "enrich_query_extra_body": '{"user": "words"}',
            "enrich_max_request_inputs": 3,
        }
        one = pipeline(**ways)
        record = one.run()
        assert (record.state, record.embedded, record.api_requests) == ("finished", 7, 3)
        bodies = [json.loads(request.body) for request in asked]
        assert sorted(len(body["input"]) for body in bodies) == [1, 3, 3]
        assert {text for body in bodies for text in body["input"]} == {
            f"passage: {message}" for message in MESSAGES
        }
        assert {body["user"] for body in bodies} == {"logs"}
        assert {request.headers["x-team"] for request in asked} == {"hunter2"}
        for source in search.sources(INDEX).values():
            (expected,) = model.embed([f"passage: {source['message']}"])
            assert source["log_vector"] == pytest.approx(expected.tolist(), abs=1e-6)
            assert "passage" not in source["message"]

        asked.clear()
        assert show(one.settings, "certificate expired", None, 1, as_json=True) == 0
        (hit,) = json.loads(capsys.readouterr().out)
        (query,), (document,) = (
            model.embed([f"query: {hit['message']}"]),
            model.embed([f"passage: {hit['message']}"]),
        )
        assert hit["message"] == "certificate expired"
        assert hit["cosine"] == pytest.approx(float(query @ document), abs=0.001)
        (request,) = asked
        assert json.loads(request.body)["input"] == ["query: certificate expired"]
        assert json.loads(request.body)["user"] == "words"

        # What is set for queries may change; what is set for logs may not, while vectors are there.
        search.index(INDEX, [{"_id": "late", "level": "ERROR", "message": "late"}])
        assert pipeline(**{**ways, "enrich_query_prefix": ""}).run().embedded == 1
        search.index(INDEX, [{"_id": "later", "level": "ERROR", "message": "later"}])
        other = pipeline(**{**ways, "enrich_document_prefix": ""}).run()
        assert (other.state, other.vectors_written) == ("halted", 0)
        assert other.halt_reason.startswith("ENRICH_DOCUMENT_PREFIX, or an extra body, changed")
        assert pipeline(**ways).run().vectors_written == 1

"""What an endpoint refuses, over the whole way: one text, too much at once, everything from now on.

The answers are those that llama.cpp, Ollama, vLLM, TEI, OpenRouter, LiteLLM and firewalls give.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dev.api_control import ApiControl
from dev.embedding_model import Model
from enrich.cli.status import show
from enrich.status.report import read_status
from enrich.text.extract import cut
from tests.conftest import Pipeline, Search
from tests.integration.test_cycle import assert_adds_up, assert_right_vectors, logs

INDEX = "a_b_2026_11"
Build = Callable[..., Pipeline]


def error(message: str, kind: str = "x", code: Any = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


FIREWALL = "<html><title>Attention Required!</title><h1>Sorry, you have been blocked</h1></html>"
LLAMA = error(
    "input (825 tokens) is too large to process. increase the physical batch size (current batch "
    "size: 512)",
    "server_error",
    500,
)
OLLAMA = error("the input length exceeds the context length", "invalid_request_error")

ONE_TEXT: dict[str, dict[str, Any]] = {
    "OpenRouter": {
        "status": 200,
        "body": {"error": {"message": "Provider returned error", "code": 400}},
    },
    "a firewall": {"status": 403, "body": FIREWALL},
    "a forbidding API": {"status": 403, "body": error("no")},
    "TEI": {"status": 424, "body": {"message": "Inference failed", "type": "Backend"}},
    "a validator": {"status": 422, "body": {"detail": [{"msg": "invalid"}]}},
    "words of a key": {"status": 400, "body": error("API key not valid. Pass a valid API key.")},
    "not found": {"status": 404, "body": "nothing here"},
}


#: In which a server may also fail by itself.
CAN_PASS: dict[str, dict[str, Any]] = {
    "Ollama's NaN": {"status": 500, "body": error("json: unsupported value: NaN", "api_error")},
    "a gateway": {"status": 200, "body": {"error": {"message": "Provider returned error"}}},
    "one that dies of it": {"kind": "reset"},
}


@pytest.mark.parametrize("answer", CAN_PASS.values(), ids=CAN_PASS)
def test_one_text_that_fails_in_a_way_that_can_pass_is_marked_by_the_second_run(
    pipeline: Build, search: Search, embeddings: ApiControl, model: Model, answer: dict[str, Any]
) -> None:
    search.create(INDEX)
    search.index(INDEX, logs(100, 100))
    embeddings.faults({"kind": "status", "match": "host number 77", "times": 0, **answer})

    one = pipeline()
    record = one.run()

    assert_adds_up(record)
    assert (record.vectors_written, record.failed, record.deferred) == (99, 0, 1)
    assert record.api_requests - 1 <= 2 * math.ceil(math.log2(100)) + 2
    ((why, count),) = record.deferral_reasons.items()
    assert count == 1 and "fails for these texts alone" in why

    # Another worker has the next run: what the first one saw is not its own.
    again = pipeline().run()
    assert_adds_up(again)
    assert (again.found, again.failed, again.deferred) == (1, 1, 0)
    assert one.run().found == 0
    (marked,) = (s for s in search.sources(INDEX).values() if "ai_enrichment_error" in s)
    assert marked["ai_enrichment_error"] == "text_refused"
    assert "host number 77" in marked["message"]


@pytest.mark.parametrize("answer", ONE_TEXT.values(), ids=ONE_TEXT)
def test_one_text_that_is_refused_costs_its_neighbours_nothing(
    pipeline: Build, search: Search, embeddings: ApiControl, model: Model, answer: dict[str, Any]
) -> None:
    search.create(INDEX)
    search.index(INDEX, logs(100, 100))
    embeddings.faults({"kind": "status", "match": "host number 77", "times": 0, **answer})

    one = pipeline()
    record = one.run()

    assert_adds_up(record)
    assert (record.state, record.retries) == ("finished", 0)
    assert (record.vectors_written, record.failed, record.deferred) == (99, 1, 0)
    assert record.api_requests - 1 <= 2 * math.ceil(math.log2(100)) + 2
    assert one.run().found == 0
    sources = search.sources(INDEX)
    (marked,) = (id for id, source in sources.items() if "ai_enrichment_error" in source)
    assert sources[marked]["ai_enrichment_error"] == "text_refused"
    assert "host number 77" in sources[marked]["message"]
    search("DELETE", f"/{INDEX}/_doc/{marked}?refresh=true")
    assert assert_right_vectors(search, INDEX, model) == 99


def test_one_text_that_cuts_the_connection_is_left_to_a_later_run(
    pipeline: Build, search: Search, embeddings: ApiControl
) -> None:
    """As a server does that dies of it; or a network, which is why it is not marked."""
    search.create(INDEX)
    search.index(INDEX, logs(100, 100))
    embeddings.faults({"kind": "reset", "match": "host number 77", "times": 0})
    one = pipeline()
    record = one.run()
    assert_adds_up(record)
    assert (record.vectors_written, record.failed, record.deferred) == (99, 0, 1)
    embeddings.heal()
    assert one.run().vectors_written == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, LLAMA), (400, OLLAMA), (413, "<html>"), (413, {"message": "must have less than 512 "
      "tokens. Given: 700", "type": "Validation"})],
    ids=["llama.cpp", "Ollama", "nginx", "TEI"],
)  # fmt: skip
def test_what_the_model_is_too_small_for_is_cut_and_learned_once(
    pipeline: Build,
    search: Search,
    embeddings: ApiControl,
    model: Model,
    capsys: pytest.CaptureFixture[str],
    status: int,
    body: Any,
) -> None:
    search.create(INDEX)
    traces = [f"trace {n}\n" + f"  at frame {n} of Main.java\n" * 290 for n in range(10)]
    short = logs(290, 290)
    search.index(INDEX, [*short, *({**logs(1, 1)[0], "message": text} for text in traces)])
    embeddings.faults(
        {"kind": "status", "status": status, "body": body, "text_above": 2_048, "times": 0}
    )

    one = pipeline()
    record = one.run()

    assert_adds_up(record)
    assert (record.vectors_written, record.failed, record.deferred) == (300, 0, 0)
    found = [s for s in search.sources(INDEX).values() if s["message"].startswith("trace")]
    for source in found:
        # The vector is that of the text as it was cut; the name of the text, that of the whole.
        fitting = {cut(cut(source["message"].strip()), size) for size in range(500, 2_049)}
        vectors = model.embed(sorted(fitting))
        assert min(np.abs(vectors - np.float32(source["log_vector"])).max(axis=1)) < 1e-6

    # Whoever asks now is told, and nothing is refused any more.
    reported = read_status(one.ledger, None).endpoint_limits
    (limits,) = reported.values()
    assert 500 <= limits.text_bytes <= 2_048
    show(one.settings, as_json=False)
    assert f"{limits.text_bytes:,} bytes a text" in " ".join(capsys.readouterr().out.split())
    before = embeddings.counts()["refused"]
    search.index(INDEX, [{**logs(1, 1)[0], "_id": "new", "message": traces[0] + "at the end"}])
    other_worker = pipeline()
    assert other_worker.run().vectors_written == 1
    assert embeddings.counts()["refused"] == before


@pytest.mark.parametrize("answered", [4, 11])
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (error("Budget has been exceeded! Current cost: 10.01", "budget_exceeded"), "the quota is"),
        (error("Your key has expired."), "even a harmless text"),
    ],
    ids=["budget", "key"],
)
def test_nothing_is_marked_by_an_endpoint_that_turns_bad_in_the_middle(
    pipeline: Build,
    search: Search,
    embeddings: ApiControl,
    answered: int,
    body: Any,
    words: str,
) -> None:
    """It takes few inputs a request, so that some of a chunk went through before."""
    search.create(INDEX)
    search.index(INDEX, logs(400, 400))
    embeddings.faults(
        {"kind": "status", "status": 400, "inputs_above": 32, "times": 0},
        {"kind": "status", "status": 400, "body": body, "after": answered, "times": 0},
    )
    one = pipeline()
    record = one.run()
    assert record.state == "halted"
    assert words in record.halt_reason
    assert record.found == record.settled
    assert record.failed == 0
    assert not search.count(INDEX, {"exists": {"field": "ai_enrichment_error"}})
    embeddings.heal()
    one.run()
    assert search.count(INDEX, {"exists": {"field": "log_vector"}}) == 400


@pytest.mark.parametrize("status", [413, 400, 500])
def test_how_many_inputs_a_request_takes_is_learned_by_all_workers(
    pipeline: Build, search: Search, embeddings: ApiControl, status: int
) -> None:
    search.create(INDEX)
    search.index(INDEX, logs(300, 300))
    embeddings.faults({"kind": "status", "status": status, "inputs_above": 16, "times": 0})
    record = pipeline().run()
    assert_adds_up(record)
    assert (record.vectors_written, record.failed) == (300, 0)
    refused = embeddings.counts()["refused"]
    search.index(INDEX, [{**log, "_id": f"new-{n}"} for n, log in enumerate(logs(900, 900)[400:])])
    assert pipeline().run().vectors_written == 500
    assert embeddings.counts()["refused"] == refused


def test_a_redirect_halts_and_carries_no_text_away(
    pipeline: Build, search: Search, embeddings: ApiControl
) -> None:
    search.create(INDEX)
    search.index(INDEX, logs(5, 5))
    headers = {"location": "/v1/embeddings"}
    embeddings.faults({"kind": "status", "status": 308, "headers": headers, "times": 0})
    record = pipeline().run()
    assert (record.state, record.failed) == ("halted", 0)
    assert "redirects to another address (308)" in record.halt_reason
    assert embeddings.counts()["inputs"] == 0


def test_a_bill_is_no_higher_than_what_was_sent(
    pipeline: Build, search: Search, embeddings: ApiControl
) -> None:
    search.create(INDEX)
    search.index(INDEX, logs(100, 100))
    embeddings.faults({"kind": "usage", "body": "1" + "0" * 17, "times": 0})
    record = pipeline().run()
    assert record.vectors_written == 100
    assert 0 < record.estimated_cost_usd < 0.01

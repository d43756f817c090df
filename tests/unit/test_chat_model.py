"""The chat model beside the statistics, asked over HTTP: what it is told, and what becomes of each
kind of answer. The other end is a server of this file, which answers as it is told."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from enrich.analysis.sampling import estimate
from enrich.api.chat_model import ChatAddress, ChatModel
from enrich.api.opinions import NOBODY, NoOpinion, Opinion, Status, told_of
from enrich.api.statistics import compare
from enrich.log_store.level_counts import Counted, Counts, Drawn
from enrich.settings import load_settings
from enrich.wiring import build_commentator
from tests.unit.test_statistics import NOW, Store, store_of

UTC = ZoneInfo("UTC")
KEY = "sk-chat-secret"
RIGHT = {
    "reasoning": "The sample is small, so that errors are known to a fifth.",
    "estimated_total_logs": 20_000,
    "estimated_error_count": 2_000,
    "estimated_warn_count": 4_000,
    "estimated_info_count": 12_000,
}
STATISTICS = store_of(20_000, 2_000, 4_000, 12_000)


@dataclass
class Endpoint:
    """A server for `/v1/chat/completions`, and what it was sent."""

    url: str
    #: Answers one request each; the last one all further ones.
    answers: list[Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def model(self, **options: Any) -> ChatModel:
        given = {"seconds": 5.0, "pause_seconds": 0.0, **options}
        return ChatModel(ChatAddress(model="gpt-9", base_url=f"{self.url}/v1", key=KEY), **given)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.requests.append(json.loads(body))
            found.headers.append({k.lower(): v for k, v in self.headers.items()})
            found.paths.append(self.path)
            answer = found.answers[0] if len(found.answers) == 1 else found.answers.pop(0)
            answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Endpoint(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()


def sending(
    body: bytes, status: int = 200, **headers: str
) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        named = {"content-type": "application/json", "content-length": str(len(body)), **headers}
        for name, value in named.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def message(**parts: Any) -> Callable[[BaseHTTPRequestHandler], None]:
    choice = {"index": 0, "finish_reason": "stop", **parts.pop("choice", {})}
    body = {"id": "1", "choices": [{**choice, "message": {"role": "assistant", **parts}}]}
    return sending(json.dumps(body).encode())


def saying(**changes: Any) -> Callable[[BaseHTTPRequestHandler], None]:
    return message(content=json.dumps({**RIGHT, **changes}))


def slowly(handler: BaseHTTPRequestHandler) -> None:
    """Never a second without a byte, and never done."""
    handler.send_response(200)
    handler.send_header("content-length", "100000")
    handler.end_headers()
    try:
        for _ in range(200):
            handler.wfile.write(b" ")
            time.sleep(0.02)
    except OSError:
        handler.close_connection = True


def cutting(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


def test_it_writes_the_reasoning_and_has_estimates_beside_the_statistical_ones(
    endpoint: Endpoint,
) -> None:
    endpoint.answers = [saying(estimated_total_logs=22_000)]
    model = endpoint.model()
    found = compare(STATISTICS, UTC, "p", sample_size=500, seed=3, now=NOW, commentator=model)
    alone = compare(STATISTICS, UTC, "p", sample_size=500, seed=3, now=NOW)
    told = found.ai_statistics

    assert told.reasoning == RIGHT["reasoning"]
    assert told.statistical_reasoning == alone.ai_statistics.reasoning
    # Of the statistical ones nothing is otherwise, nor of what is made of them.
    same = {"reasoning", "chat_model"}
    assert told.model_dump(exclude=same) == alone.ai_statistics.model_dump(exclude=same)
    assert found.model_dump(exclude={"ai_statistics"}) == alone.model_dump(
        exclude={"ai_statistics"}
    )
    chat = told.chat_model
    assert (chat.status, chat.model) == (Status.ANSWERED, "gpt-9")
    assert (chat.estimated_total_logs, chat.estimated_error_count) == (22_000, 2_000)
    assert (chat.estimated_warn_count, chat.estimated_info_count) == (4_000, 12_000)
    assert chat.estimated_error_rate == round(100 * 2 / 22, 5)
    assert chat.overall_accuracy == pytest.approx(
        0.3 * 90 + 0.3 * 100 + 0.2 * (100 * 20 / 22) + 0.1 * 100 + 0.1 * 100, abs=0.01
    )
    (request,) = endpoint.requests
    assert request["model"] == "gpt-9"
    form = request["response_format"]["json_schema"]
    assert form["strict"] is True and set(form["schema"]["required"]) == set(RIGHT)
    assert endpoint.headers[0]["authorization"] == f"Bearer {KEY}"
    assert endpoint.paths == ["/v1/chat/completions"]


def test_what_it_is_told_does_not_depend_on_the_truth(endpoint: Endpoint) -> None:
    """Other counts, other hours, other logs below the sample: the same bytes go out. Nor is it
    asked after the counting, when somebody could tell it."""

    class Lying(Store):
        def count(self, indices: Any, hours: Any) -> Counted:
            assert len(endpoint.requests) == len(seen) + 1
            counted = super().count(indices, hours)
            if not self.asked_before:
                return counted
            return Counted(Counts(7, 5, 1, 1), list(reversed(counted.hours)))

        asked_before = False

    seen: list[Any] = []
    endpoint.answers = [saying()]
    model = endpoint.model()
    sampled = sorted(STATISTICS.logs, key=lambda log: -log[0].score)[:100]
    below = [
        (replace(log, levels=frozenset({"error"})), at) for log, at in STATISTICS.logs[200:900]
    ]
    lowest = sampled[-1][0].score
    stores: list[Store] = [
        Lying(list(STATISTICS.logs)),
        Lying(
            [*sampled, *((Drawn(min(log.score, lowest / 2), log.levels), at) for log, at in below)]
        ),
        Lying(sampled),
    ]
    stores[1].asked_before = True  # type: ignore[attr-defined]
    for store in stores:
        compare(store, UTC, "secret-project", sample_size=100, seed=3, now=NOW, commentator=model)
        seen.append(endpoint.requests[-1])

    assert seen[0] == seen[1] == seen[2]
    # All of it comes from the estimator, which gets the sample alone.
    told = told_of(estimate([log for log, _ in sampled], 100))
    assert seen[0]["messages"][1] == {"role": "user", "content": told}
    assert "secret-project" not in json.dumps(seen[0])


CASES: dict[str, tuple[Callable[[BaseHTTPRequestHandler], None], Status, str]] = {
    "words": (message(content="I like turtles."), Status.UNUSABLE, "not of the form"),
    "nothing": (message(content=None), Status.UNUSABLE, "not of the form"),
    "empty": (message(content=""), Status.UNUSABLE, "not of the form"),
    "no choice": (sending(b'{"choices": []}'), Status.UNUSABLE, "not of the form"),
    "no object": (message(content="[1, 2]"), Status.UNUSABLE, "not of the form"),
    "deep": (message(content='{"a":' * 5000), Status.UNUSABLE, "not of the form"),
    "a field lacks": (message(content='{"reasoning": "a"}'), Status.UNUSABLE, "not of the form"),
    "words for a number": (saying(estimated_total_logs="many"), Status.UNUSABLE, "not of the form"),
    "a truth value": (saying(estimated_error_count=True), Status.UNUSABLE, "not of the form"),
    "a part of a log": (saying(estimated_error_count=1.5), Status.UNUSABLE, "not of the form"),
    "below none": (saying(estimated_warn_count=-1), Status.UNUSABLE, "not of the form"),
    "beyond all": (saying(estimated_total_logs=10**30), Status.UNUSABLE, "not of the form"),
    "blank words": (saying(reasoning=" \x07\x1b "), Status.UNUSABLE, "not of the form"),
    "more than all": (saying(estimated_info_count=20_001), Status.UNUSABLE, "of one level"),
    "fewer than read": (
        saying(**{name: 3 for name in RIGHT if name != "reasoning"}), Status.UNUSABLE, "were read",
    ),
    "a page": (sending(b"<html>sign in</html>"), Status.UNUSABLE, "as it should"),
    "no JSON": (sending(b'{"choices": [{"mess'), Status.UNUSABLE, "as it should"),
    "other types": (sending(b'{"choices": [{"message": 7}]}'), Status.UNUSABLE, "as it should"),
    "an error within": (sending(b'{"error": {"message": "no"}}'), Status.UNUSABLE, "the form"),
    "refusal": (message(content=None, refusal="I must not."), Status.REFUSED, "refuses"),
    "filtered": (
        message(content="", choice={"finish_reason": "content_filter"}), Status.REFUSED, "refuses",
    ),
    "401": (sending(b"{}", 401), Status.FAILED, "answered 401"),
    "404": (sending(b"{}", 404), Status.FAILED, "answered 404"),
    "429": (sending(b"{}", 429, retry_after="9"), Status.FAILED, "answered 429"),
    "500": (sending(b"oops", 500), Status.FAILED, "answered 500"),
    "elsewhere": (sending(b"", 302, location="http://127.0.0.1:1/"), Status.FAILED, "302"),
    "cut": (cutting, Status.FAILED, "no whole answer"),
    "compressed": (sending(b"x", content_encoding="gzip"), Status.FAILED, "no whole answer"),
    "too large": (sending(b" " * 300_000), Status.FAILED, "no whole answer"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_statistical_estimates_stand_whatever_it_does(
    endpoint: Endpoint, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer, status, words = CASES[name]
    endpoint.answers = [answer]
    alone = compare(STATISTICS, UTC, "p", seed=3, now=NOW)
    with caplog.at_level(logging.WARNING):
        model = endpoint.model()
        found = compare(STATISTICS, UTC, "p", seed=3, now=NOW, commentator=model)

    chat = found.ai_statistics.chat_model
    assert chat.status is status
    assert words in chat.note and chat.note.endswith("The statistical estimates stand alone.")
    assert chat.estimated_total_logs is None and chat.overall_accuracy is None
    assert found.ai_statistics.reasoning == alone.ai_statistics.reasoning
    same = {"ai_statistics": {"chat_model"}}
    assert found.model_dump(exclude=same) == alone.model_dump(exclude=same)
    # An operator is told; nothing of what was sent or answered is.
    (line,) = [one.getMessage() for one in caplog.records if one.name.startswith("enrich")]
    assert line.startswith("chat model gpt-9: ")
    for secret in (KEY, "turtles", "I must not", "sign in", "oops", "Bearer"):
        assert secret not in line + chat.note


@pytest.mark.parametrize("answer", [slowly, lambda handler: time.sleep(2)])
def test_who_is_late_is_not_waited_for_nor_asked_again_at_once(
    endpoint: Endpoint, answer: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    endpoint.answers = [answer, saying()]
    model = endpoint.model(seconds=0.2, pause_seconds=60.0)
    first, second = (
        compare(STATISTICS, UTC, "p", seed=3, now=NOW, commentator=model).ai_statistics
        for _ in range(2)
    )

    assert (first.chat_model.status, second.chat_model.status) == (Status.LATE, Status.LATE)
    assert "within 0.2 s" in first.chat_model.note and "lately" in second.chat_model.note
    assert len(endpoint.requests) == 1


def test_it_is_asked_again_after_the_pause(endpoint: Endpoint) -> None:
    endpoint.answers = [slowly, saying()]
    model = endpoint.model(seconds=0.2)
    estimates = estimate([log for log, _ in STATISTICS.logs], 100)

    assert isinstance(model.opinion(estimates), NoOpinion)
    assert isinstance(endpoint.model().opinion(estimates), Opinion)


def test_a_server_without_structured_output_is_asked_without(endpoint: Endpoint) -> None:
    fenced = f"Here you are:\n```json\n{json.dumps(RIGHT)}\n```"
    endpoint.answers = [sending(b'{"error": {}}', 400), message(content=fenced)]
    model = endpoint.model()
    estimates = estimate([log for log, _ in STATISTICS.logs], 100)

    for _ in range(2):
        found = model.opinion(estimates)
        assert isinstance(found, Opinion) and found.estimated_total_logs == 20_000
    assert ["response_format" in one for one in endpoint.requests] == [True, False, False]


def test_words_are_shortened_and_lose_what_a_terminal_obeys(endpoint: Endpoint) -> None:
    endpoint.answers = [saying(reasoning="\x1b[2Ja\u202eb\n" + "c" * 5000)]
    found = endpoint.model().opinion(estimate([log for log, _ in STATISTICS.logs], 100))

    assert isinstance(found, Opinion)
    assert found.reasoning == "[2Jab\n" + "c" * 1994


def test_without_one_the_answer_says_so() -> None:
    found = compare(STATISTICS, UTC, "p", seed=3, now=NOW).ai_statistics
    assert found.chat_model.status is Status.NOT_SET and found.chat_model.model is None
    assert "CHAT_MODEL" in found.chat_model.note
    assert found.reasoning == found.statistical_reasoning


@pytest.mark.parametrize(
    ("given", "url", "headers"),
    [
        ({}, "https://api.openai.com/v1/", {"authorization": "Bearer sk-embed"}),
        (
            {"openai_base_url": "https://gw/v1", "openai_extra_headers": '{"X-Team": "logs"}'},
            "https://gw/v1/", {"authorization": "Bearer sk-embed", "x-team": "logs"},
        ),
        # Another address gets neither the key nor the headers of the first.
        (
            {
                "chat_base_url": "http://llm:11434/v1/chat/completions", "chat_api_key": "none",
                "openai_extra_headers": '{"X-Team": "logs"}',
            },
            "http://llm:11434/v1/", {"authorization": "Bearer none", "x-team": None},
        ),
        (
            {
                "openai_base_url":
                "https://me.openai.azure.com/openai/deployments/emb/embeddings?api-version=1"
            },
            "https://me.openai.azure.com/openai/deployments/gpt-9/",
            {"api-key": "sk-embed"},
        ),
        (
            {
                "chat_base_url":
                "https://me.openai.azure.com/openai/deployments/mine/chat/completions?api-version=1",
                "chat_api_key": "sk-own",
            },
            "https://me.openai.azure.com/openai/deployments/mine/",
            {"api-key": "sk-own"},
        ),
        (
            {"openai_base_url": "https://me.openai.azure.com/openai/v1"},
            "https://me.openai.azure.com/openai/v1/", {"api-key": "sk-embed"},
        ),
    ],
)  # fmt: skip
def test_where_it_is_asked_and_with_which_key(
    given: dict[str, str], url: str, headers: dict[str, str | None]
) -> None:
    options: Any = {"openai_api_key": "sk-embed", "chat_model": "gpt-9", **given}
    model = build_commentator(load_settings(**options))
    assert isinstance(model, ChatModel)
    assert str(model._client.base_url) == url
    given_headers = {**model._client.auth_headers, **model._client.default_headers}
    sent = {name.lower(): value for name, value in given_headers.items()}
    assert {name: sent.get(name) for name in headers} == headers
    assert model._bearer is ("api-key" not in headers)
    model.close()


def test_nobody_is_asked_without_a_name() -> None:
    assert build_commentator(load_settings(openai_api_key="sk-embed")) is NOBODY

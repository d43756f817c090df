"""The embedder: nothing of an answer is trusted, refusals are told apart, no text is quoted."""

from __future__ import annotations

import base64
import json
import math
import re
import socket
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import chain, repeat
from typing import Any

import numpy as np
import pytest
import uvicorn
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dev.api_control import ApiControl
from dev.embedding_model import Model
from dev.embeddings_server import create_app
from dev.services import free_ports
from enrich.embedding.client import (
    MAX_RETRY_AFTER_SECONDS,
    Embedded,
    Limits,
    OpenAIEmbedder,
    _limits,
    read_answer,
    retry_after,
)
from enrich.embedding.refusals import Meaning
from enrich.errors import (
    EnrichError,
    Halt,
    InputRefused,
    RateLimited,
    RequestTooLarge,
    ServerUnavailable,
    TransientError,
)
from enrich.settings import Settings, load_settings
from tests.unit.refusal_bodies import SEEN

REPEATABLE = settings(deadline=None, max_examples=150, derandomize=True)
DIMENSIONS = 3


def encoded(*numbers: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def row(index: int, embedding: Any = None) -> dict[str, Any]:
    if embedding is None:
        embedding = encoded(index + 1, 0.5, -0.25)
    return {"object": "embedding", "index": index, "embedding": embedding}


def answer(*rows: Any, **fields: Any) -> bytes:
    usage = {"prompt_tokens": 7, "total_tokens": 7}
    body = {"object": "list", "data": list(rows), "model": "m", "usage": usage, **fields}
    return json.dumps(body).encode()


def assert_verdict(body: bytes, count: int) -> None:
    """Either checked vectors, or one of two errors; never anything else, never quoting."""
    try:
        vectors, tokens = read_answer(body, count, DIMENSIONS)
    except (TransientError, Halt) as error:
        assert "QQQ" not in str(error)
        return
    assert len(vectors) == count
    assert tokens >= 0
    for vector in vectors:
        if vector is not None:
            assert vector.shape == (DIMENSIONS,)
            assert vector.dtype == np.float32
            assert np.isfinite(vector).all()
            assert vector.any()


# -- answers


def unnamed(index: int) -> dict[str, Any]:
    return {name: value for name, value in row(index).items() if name != "index"}


@pytest.mark.parametrize(
    "rows",
    [
        [row(0), row(1), row(2)],
        [row(2), row(1), row(0)],
        [row(1), row(2), row(0)],
        [unnamed(0), row(1), row(2)],
        [unnamed(0), unnamed(1), unnamed(2)],
        [{**row(0), "index": None}, row(2), row(1)],
    ],
)
def test_vectors_are_put_by_index_and_without_one_in_order(rows: list[Any]) -> None:
    vectors, tokens = read_answer(answer(*rows), 3, DIMENSIONS)
    assert tokens == 7
    for index, vector in enumerate(vectors):
        assert vector is not None
        assert vector.tolist() == [index + 1, 0.5, -0.25]


def test_float_and_base64_are_the_same() -> None:
    plain, packed = row(0, [0.1, 1e-30, -3]), row(0, encoded(0.1, 1e-30, -3))
    a, b = (read_answer(answer(r), 1, DIMENSIONS)[0][0] for r in (plain, packed))
    assert a is not None
    assert b is not None
    assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize(
    "embedding",
    [
        encoded(math.nan, 1, 1),
        encoded(1, math.inf, 1),
        encoded(1, 1, -math.inf),
        encoded(0, 0, 0),
        encoded(0, -0.0, 0),
        [0, 0, 0],
        [0.0, -0.0, 0],
        [None, 1, 1],
        [None, None, None],
        [1e39, 1, 1],
        [-1e300, 1, 1],
        [1e-60, 0, 0],
        "QQQ no base64 !",
        encoded(1, 1, 1)[:-2],
        base64.b64encode(b"12345").decode(),
        "é",
    ],
)
def test_vector_that_fails_alone_leaves_its_neighbours(embedding: Any) -> None:
    vectors, _ = read_answer(answer(row(0), row(1, embedding), row(2)), 3, DIMENSIONS)
    assert [vector is None for vector in vectors] == [False, True, False]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"QQQ",
        b"<html>QQQ</html>",
        b"null",
        b"[]",
        b"{}",
        b'{"error":{"message":"QQQ"}}',
        b'{"data":null}',
        b'{"data":{}}',
        answer(row(0), row(1))[:-1],
        answer(row(0), row(1))[: len(answer(row(0), row(1))) // 2],
        answer(),
        answer(row(0)),
        answer(row(0), row(1), row(2)),
        answer(row(0), row(0)),
        answer(row(1), row(1)),
        answer(row(0), row(2)),
        answer(row(1), row(2)),
        answer(row(0), row(-1)),
        answer(row(0), row(1), row(1)),
        answer(row(0), row(2**80)),
        answer(row(1), unnamed(0)),
        answer(unnamed(0), row(0)),
        answer(unnamed(0)),
        answer(unnamed(0), unnamed(1), unnamed(2)),
        answer(row(0), {"index": 1}),
        answer(row(0), row(1, {"QQQ": 1})),
        answer(row(0), row(1, ["QQQ"])),
        answer(row(0), row(1, [[1, 2, 3]])),
        answer(row(0), row(1, [math.nan, 1, 1])),
        answer(row(0), {**row(1), "index": "1"}),
        answer(row(0), {**row(1), "index": 1.5}),
        answer(row(0), {**row(1), "index": True}),
        answer(row(0), "QQQ"),
        answer(row(0), None),
        answer(row(0), row(1), usage="QQQ"),
    ],
)
def test_answer_that_does_not_line_up_is_tried_again(body: bytes) -> None:
    with pytest.raises(TransientError) as refused:
        read_answer(body, 2, DIMENSIONS)
    assert "QQQ" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    "embedding", [encoded(1, 1), encoded(1, 1, 1, 1), [1, 1], [1, 1, 1, 1], [], [None]]
)
def test_another_dimension_halts_and_names_both(embedding: Any) -> None:
    size = len(embedding) if isinstance(embedding, list) else len(base64.b64decode(embedding)) // 4
    expected = f"{size} dimensions, not {DIMENSIONS}: set EMBEDDING_DIMENSIONS"
    with pytest.raises(Halt, match=expected):
        read_answer(answer(row(0), row(1, embedding)), 2, DIMENSIONS)


@pytest.mark.parametrize("bits", [[0, 1, 1, 0] * 16, [-1, 1] * 32, [1] * 64])
def test_vectors_of_bits_halt_and_name_the_setting(bits: list[int]) -> None:
    with pytest.raises(Halt, match="set ENRICH_ENCODING_FORMAT=float"):
        read_answer(answer(row(0, bits)), 1, 64)


@pytest.mark.parametrize("numbers", [[0] * 64, [0.5] + [1] * 63, [1] * 63 + [0.5]])
def test_vectors_that_are_not_all_bits_are_taken_or_none(numbers: list[float]) -> None:
    ((vector,), _) = read_answer(answer(row(0, numbers)), 1, 64)
    assert (vector is not None) is any(numbers)


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 9, "total_tokens": 11}, 9),
        ({"prompt_tokens": 9}, 9),
        ({"total_tokens": 11}, 11),
        ({"prompt_tokens": None, "total_tokens": 11}, 11),
        ({"prompt_tokens": None, "total_tokens": None}, 0),
        ({}, 0),
        (None, 0),
        # Would take money back.
        ({"prompt_tokens": -9}, 0),
        ({"prompt_tokens": 9.7}, 9),
        ({"prompt_tokens": "9", "total_tokens": 11}, 11),
        ({"prompt_tokens": True}, 0),
        ({"prompt_tokens": [9]}, 0),
        ({"prompt_tokens": {"a": 1}}, 0),
        ({"prompt_tokens": math.nan, "total_tokens": 11}, 11),
        ({"prompt_tokens": math.inf}, 0),
        ({"prompt_tokens": -math.inf, "total_tokens": math.nan}, 0),
        ({"prompt_tokens": 10**17}, 10**17),
    ],
)
def test_tokens_are_those_billed_or_none(usage: Any, tokens: int) -> None:
    assert read_answer(answer(row(0), usage=usage), 1, DIMENSIONS)[1] == tokens
    without = json.dumps({"data": [row(0)]}).encode()
    assert read_answer(without, 1, DIMENSIONS)[1] == 0


@REPEATABLE
@given(st.binary(max_size=200), st.integers(0, 3))
def test_random_bytes_are_refused_or_read(body: bytes, count: int) -> None:
    assert_verdict(body, count)


GOOD = answer(row(0), row(1), row(2, [1.5, 2.5, -3]))


@REPEATABLE
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=4))
def test_answer_with_some_bytes_changed_is_refused_or_read(changes: list[tuple[int, int]]) -> None:
    body = bytearray(GOOD)
    for place, value in changes:
        body[place] = value
    assert_verdict(bytes(body), 3)


@REPEATABLE
@given(st.integers(0, len(GOOD)), st.integers(0, len(GOOD)), st.binary(max_size=6))
def test_answer_with_a_part_cut_out_is_refused_or_read(a: int, b: int, between: bytes) -> None:
    assert_verdict(GOOD[: min(a, b)] + between + GOOD[max(a, b) :], 3)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
EMBEDDINGS = (
    st.lists(SCALARS, max_size=5)
    | st.lists(st.floats(), min_size=DIMENSIONS, max_size=DIMENSIONS)
    | st.binary(max_size=20).map(lambda raw: base64.b64encode(raw).decode())
    | st.lists(st.floats(width=32), min_size=3, max_size=3).map(lambda n: encoded(*n))
    | SCALARS
)
ROWS = st.fixed_dictionaries({"index": st.integers(-1, 3) | SCALARS, "embedding": EMBEDDINGS})


@REPEATABLE
@given(
    st.lists(ROWS | SCALARS, max_size=4),
    SCALARS | st.dictionaries(st.just("prompt_tokens"), SCALARS),
)
@example([{"index": 0, "embedding": encoded(1, 1, 1)}], {"prompt_tokens": -1})
def test_answer_of_any_values_is_refused_or_read(rows: list[Any], usage: Any) -> None:
    assert_verdict(answer(*rows, usage=usage), len(rows))


# -- pauses


NOW = datetime(2026, 7, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": " 7 "}, 7.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e400"}, None),
        ({"retry-after": "1e300"}, MAX_RETRY_AFTER_SECONDS),
        ({"retry-after": "99999999999999"}, MAX_RETRY_AFTER_SECONDS),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "nan", "retry-after": "9"}, 9.0),
        # The three forms of an HTTP date, and two that are not quite.
        ({"retry-after": "Wed, 01 Jul 2026 12:01:30 GMT"}, 90.0),
        ({"retry-after": "Wednesday, 01-Jul-26 12:01:30 GMT"}, 90.0),
        ({"retry-after": "Wed Jul  1 12:01:30 2026"}, 90.0),
        ({"retry-after": "Wed, 01 Jul 2026 12:01:30"}, 90.0),
        ({"retry-after": "Wed, 01 Jul 2026 12:01:30 -0000"}, 90.0),
        ({"retry-after": "Wed, 01 Jul 2026 14:01:30 +0200"}, 90.0),
        ({"retry-after": "Wed, 01 Jul 2020 12:00:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 01 Jul 2999 12:00:00 GMT"}, MAX_RETRY_AFTER_SECONDS),
        ({"retry-after": "Wed, 99 Jul 2026 12:00:00 GMT"}, None),
        ({"retry-after": "Wed, 01 Jul 99999999999 12:00:00 GMT"}, None),
    ],
)
def test_pause_that_a_provider_asks_for(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == seconds


@REPEATABLE
@given(st.text(max_size=30) | st.floats().map(str) | st.integers().map(str), st.booleans())
@example("Wed, 01 Jul 2026 12:01:30 +9999", False)
@example("Mon, 01 Jan 0001 00:00:00 +2359", False)
def test_any_pause_is_bounded_or_none(value: str, milliseconds: bool) -> None:
    name = "retry-after-ms" if milliseconds else "retry-after"
    seconds = retry_after({name: value}, NOW)
    assert seconds is None or 0 <= seconds <= MAX_RETRY_AFTER_SECONDS


@REPEATABLE
@given(
    st.sampled_from(["Wed, 01 Jul 2026 12:01:30 GMT", "Wed Jul  1 12:01:30 2026"]),
    st.integers(0, 28),
    st.text("0123456789:+- ,JulGMT", max_size=4),
)
def test_almost_a_date_is_a_pause_or_none(date: str, place: int, between: str) -> None:
    seconds = retry_after({"retry-after": date[:place] + between + date[place + 1 :]}, NOW)
    assert seconds is None or 0 <= seconds <= MAX_RETRY_AFTER_SECONDS


# -- over a real line


KEY = "sk-test"
TEXTS = ["QQQ first log text", "QQQ second log text"]


@pytest.fixture(scope="module")
def model() -> Model:
    return Model()


@pytest.fixture(scope="module")
def url(model: Model) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    app = create_app(api_key=KEY, model=model)
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    for embedder in EMBEDDERS.values():
        embedder._client.close()
    EMBEDDERS.clear()
    server.should_exit = True
    thread.join()
    listener.close()


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[ApiControl]:
    client = ApiControl(url)
    yield client
    client.close()


@pytest.fixture
def control(client: ApiControl) -> Iterator[ApiControl]:
    client.reset()
    yield client
    client.reset()


def settings_for(url: str, **values: Any) -> Settings:
    wanted: dict[str, Any] = {
        "_env_file": None,
        "openai_api_key": KEY,
        "openai_base_url": f"{url}/v1",
        "openai_timeout_seconds": 60,
        "embedding_model": "text-embedding-3-large",
        "embedding_dimensions": 16,
        **values,
    }
    return load_settings(**wanted)


#: Built once for each combination of settings; each reads the system's certificates.
EMBEDDERS: dict[str, OpenAIEmbedder] = {}


def embed(url: str, texts: list[str] = TEXTS, **values: Any) -> Embedded:
    wanted = settings_for(url, **values)
    key = repr(sorted(values.items())) + url
    if key not in EMBEDDERS:
        EMBEDDERS[key] = OpenAIEmbedder(wanted)
    return EMBEDDERS[key].embed(texts)


def refusal(url: str, **values: Any) -> EnrichError:
    with pytest.raises(EnrichError) as refused:
        embed(url, **values)
    error = refused.value
    assert "QQQ" not in str(error)
    assert KEY not in str(error)
    # The client's own exception quotes bodies, and with them inputs.
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__
    return error


def requests_served(control: ApiControl) -> int:
    return control.counts()["requests"]


def test_vectors_are_those_of_the_texts(url: str, control: ApiControl, model: Model) -> None:
    got = embed(url, [*TEXTS, "a third", TEXTS[0]])
    expected = model.embed([*TEXTS, "a third", TEXTS[0]], 16)
    assert np.array_equal(np.vstack([v for v in got.vectors if v is not None]), expected)
    assert got.tokens == sum(model.count_tokens([*TEXTS, "a third", TEXTS[0]]))
    assert got.limits == Limits()
    assert requests_served(control) == 1


def test_limits_are_read_from_the_headers(url: str, control: ApiControl) -> None:
    control.set(requests_per_minute=500, tokens_per_minute=90_000)
    assert embed(url).limits == Limits(requests=500, tokens=90_000)


@pytest.mark.parametrize("told", ["", "-1", "many", "1.5", "²", "9" * 5000])
def test_limits_that_are_no_numbers_are_none(told: str) -> None:
    headers = {"x-ratelimit-limit-requests": told, "x-ratelimit-limit-tokens": "5"}
    assert _limits(headers) == Limits(requests=None, tokens=5)


@pytest.mark.parametrize(
    ("values", "control_settings", "kind", "words"),
    [
        ({"openai_api_key": "sk-other"}, {}, Halt, "refused the key .401.: check OPENAI_API_KEY"),
        ({"embedding_model": "no-model"}, {}, Halt, "check EMBEDDING_MODEL"),
        ({"embedding_dimensions": 4000}, {}, Halt, "check EMBEDDING_DIMENSIONS"),
        ({}, {"quota_exhausted": True}, Halt, "quota is exhausted"),
        ({}, {"dimensions_ignored": True}, Halt, "dimensions, not 16"),
    ],
)
def test_what_an_operator_has_to_mend_halts(
    url: str,
    control: ApiControl,
    values: dict[str, Any],
    control_settings: dict[str, Any],
    kind: type[EnrichError],
    words: str,
) -> None:
    control.set(**{"api_key": KEY, **control_settings})
    error = refusal(url, **values)
    assert type(error) is kind
    assert re.search(words, str(error))


def quoting(**fields: Any) -> dict[str, Any]:
    """An error body that quotes the input, as real ones do."""
    return {"error": {"message": f"cannot embed {TEXTS[0]}", "type": "x", **fields}}


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, quoting(), InputRefused),
        (400, quoting(param="input"), InputRefused),
        (422, quoting(), InputRefused),
        (422, {"detail": [{"msg": TEXTS[0]}]}, InputRefused),
        (400, quoting(code="context_length_exceeded"), RequestTooLarge),
        (
            400,
            {"error": {"message": "QQQ: maximum context length is 8192 tokens"}},
            RequestTooLarge,
        ),
        (400, {"error": {"message": "QQQ max 300000 tokens per request"}}, RequestTooLarge),
        (413, quoting(), RequestTooLarge),
        (413, "<html>QQQ</html>", RequestTooLarge),
        (400, quoting(param="dimensions"), Halt),
        (400, quoting(param="model"), Halt),
        (400, quoting(code="model_not_found"), Halt),
        (401, quoting(), Halt),
        (401, "QQQ", Halt),
        (402, quoting(), Halt),
        (403, quoting(), Halt),
        (404, quoting(code="model_not_found"), Halt),
        (404, "<html>QQQ</html>", Halt),
        (405, quoting(), Halt),
        (429, quoting(code="insufficient_quota"), Halt),
        (429, quoting(code="billing_hard_limit_reached"), Halt),
        (429, quoting(code="rate_limit_exceeded"), RateLimited),
        (429, "<html>QQQ</html>", RateLimited),
        (429, {"error": TEXTS[0]}, RateLimited),
        (408, quoting(), TransientError),
        (409, quoting(), TransientError),
        (500, quoting(), TransientError),
        (500, {"error": None}, TransientError),
        (500, ["QQQ"], TransientError),
        (502, "<html>QQQ</html>", TransientError),
        (503, "QQQ", TransientError),
        (504, "", TransientError),
        (529, quoting(), TransientError),
    ],
)
def test_status_is_told_apart_by_who_mends_it(
    url: str, control: ApiControl, status: int, body: Any, kind: type[EnrichError]
) -> None:
    control.faults({"kind": "status", "status": status, "body": body})
    error = refusal(url)
    assert type(error) is kind
    assert str(status) in str(error)
    # The client itself must not have tried again.
    assert requests_served(control) <= 1
    assert control.seen["strikes_left"] == 0


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"retry-after": "7"}, 7, 7),
        ({"retry-after-ms": "1500"}, 1.5, 1.5),
        ({"retry-after": "Sun Nov  6 08:49:37 1994"}, 0, 0),
    ],
)
def test_pause_is_handed_on(
    url: str, control: ApiControl, headers: dict[str, str], least: float, most: float
) -> None:
    control.faults({"kind": "status", "status": 429, "headers": headers})
    error = refusal(url)
    assert isinstance(error, RateLimited)
    assert error.retry_after is not None
    assert least <= error.retry_after <= most


def test_a_pause_until_a_date_is_handed_on(url: str, control: ApiControl) -> None:
    asked = datetime.now(UTC)
    headers = {"retry-after": format_datetime(asked + timedelta(hours=2), True)}
    control.faults({"kind": "status", "status": 429, "headers": headers})
    error = refusal(url)
    assert isinstance(error, RateLimited)
    assert error.retry_after is not None
    passed = (datetime.now(UTC) - asked).total_seconds()
    # HTTP dates are whole seconds.
    assert 7200 - passed - 1 <= error.retry_after <= 7200


def test_pause_without_a_length_is_none(url: str, control: ApiControl) -> None:
    control.faults({"kind": "status", "status": 429})
    error = refusal(url)
    assert isinstance(error, RateLimited)
    assert error.retry_after is None


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"kind": "reset"}, TransientError),
        ({"kind": "cut_json"}, TransientError),
        ({"kind": "html"}, TransientError),
        ({"kind": "html", "status": 503}, TransientError),
        ({"kind": "too_few"}, TransientError),
        ({"kind": "too_many"}, TransientError),
        ({"kind": "duplicate_index"}, TransientError),
        ({"kind": "empty_data", "times": 2}, TransientError),
        ({"kind": "wrong_dimension"}, Halt),
        ({"kind": "poison", "match": "second", "times": 1}, InputRefused),
    ],
)
def test_broken_answer_is_never_taken(
    url: str, control: ApiControl, fault: dict[str, Any], kind: type[EnrichError]
) -> None:
    control.faults(fault)
    assert isinstance(refusal(url), kind)
    # And the next request is served as if nothing had been.
    assert all(vector is not None for vector in embed(url).vectors)


@pytest.mark.parametrize("kind", ["nan", "inf", "zeros"])
def test_numbers_that_are_no_vector_are_left_out(url: str, control: ApiControl, kind: str) -> None:
    control.faults({"kind": kind, "match": "second"})
    assert [vector is None for vector in embed(url).vectors] == [False, True]


def test_shuffled_answer_is_put_in_order(url: str, control: ApiControl, model: Model) -> None:
    control.faults({"kind": "shuffled_index"})
    got = embed(url)
    assert np.array_equal(
        np.vstack([v for v in got.vectors if v is not None]), model.embed(TEXTS, 16)
    )


def test_slow_answer_is_given_up(url: str, control: ApiControl) -> None:
    control.faults({"kind": "hang", "seconds": 5})
    error = refusal(url, openai_timeout_seconds=0.1)
    assert isinstance(error, ServerUnavailable)
    assert "did not answer in time" in str(error)


def test_nobody_there_names_the_setting() -> None:
    (port,) = free_ports(1)
    error = refusal(f"http://127.0.0.1:{port}")
    assert isinstance(error, ServerUnavailable)
    assert "check OPENAI_BASE_URL" in str(error)


@pytest.mark.parametrize("status", [200, 401, 403, 404, 429, 500])
def test_whoever_answers_is_there_and_is_paid_nothing(status: int) -> None:
    head = f"HTTP/1.1 {status} x\r\ncontent-length: 2\r\n\r\n".encode()
    with Raw([head, b"{}"], end=b"\r\n\r\n") as server:
        embedder = OpenAIEmbedder(settings_for(server.url))
        embedder.look()
        embedder.close()
    assert server.asked.startswith(b"GET /v1/models ")


def test_whoever_does_not_answer_is_not_there() -> None:
    drip = chain([HEAD + b"x: "], repeat(b"y"))
    with Raw(drip, between=0.02, end=b"\r\n\r\n") as server:
        embedder = OpenAIEmbedder(settings_for(server.url, openai_timeout_seconds=0.3))
        with pytest.raises(ServerUnavailable, match="did not answer in time"):
            embedder.look()
    with pytest.raises(ServerUnavailable, match="cannot be reached: check OPENAI_BASE_URL"):
        embedder.look()
    embedder.close()


@pytest.mark.parametrize(
    ("name", "told"),
    [("text-embedding-ada-002", {}), ("text-embedding-3-large", {"only_dimensions": 1536})],
)
def test_model_of_one_size_is_asked_for_dimensions_once(
    url: str, control: ApiControl, name: str, told: dict[str, Any]
) -> None:
    control.set(**told)
    with closing(
        OpenAIEmbedder(settings_for(url, embedding_model=name, embedding_dimensions=1536))
    ) as embedder:
        got = embedder.embed(TEXTS)
        assert all(vector is not None for vector in got.vectors)
        assert (got.requests, requests_served(control)) == (2, 2)
        assert embedder.embed(TEXTS).requests == 1
    assert (requests_served(control), control.counts()["refused"]) == (3, 1)


@pytest.mark.parametrize("support", ["refused", "unanswered"])
def test_endpoint_without_base64_is_asked_for_it_once(
    url: str, control: ApiControl, model: Model, support: str
) -> None:
    control.set(base64_support=support)
    with closing(OpenAIEmbedder(settings_for(url))) as embedder:
        got = embedder.embed(TEXTS)
        assert np.array_equal(got.vectors, model.embed(TEXTS, 16))
        assert (got.requests, requests_served(control)) == (2, 2)
        assert embedder.embed(TEXTS).requests == 1


def test_endpoint_with_neither_base64_nor_a_choice_of_size(url: str, control: ApiControl) -> None:
    control.set(base64_support="refused", only_dimensions=16)
    with closing(OpenAIEmbedder(settings_for(url))) as embedder:
        assert [embedder.embed(TEXTS).requests for _ in range(2)] == [3, 1]


def test_model_of_another_size_halts(url: str, control: ApiControl) -> None:
    control.set(only_dimensions=1024)
    assert "1024 dimensions, not 16" in str(refusal(url))


@pytest.mark.parametrize("text", ["dimension mismatch", "invalid base64 in a cookie"])
def test_text_with_the_words_of_an_option_that_is_refused_is_refused(
    url: str, control: ApiControl, text: str
) -> None:
    """The refusal quotes the text."""
    quoted = {"error": {"message": f"cannot embed '{text}'", "type": "x"}}
    control.faults({"kind": "status", "status": 400, "body": quoted, "times": 2})
    assert isinstance(refusal(url), InputRefused)
    assert embed(url).requests == 1, "it is still asked for"


# -- what an answer may do


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_redirect_is_never_followed(
    url: str, control: ApiControl, status: int, scheme: str
) -> None:
    """It would carry the texts to a host that nobody set."""
    elsewhere = f"{scheme}://127.0.0.1:{url.rpartition(':')[2]}/v1/embeddings"
    control.faults({"kind": "status", "status": status, "headers": {"location": elsewhere}})
    error = refusal(url)
    assert type(error) is Halt
    assert f"redirects to another address ({status})" in str(error)
    assert "OPENAI_BASE_URL" in str(error)
    assert control.counts()["inputs"] == 0


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"kind": "bomb"}, "sent a compressed answer"),
        ({"kind": "bomb", "size": 10}, "sent a compressed answer"),
        ({"kind": "huge"}, "sent an answer of more than"),
        ({"kind": "deep"}, "is not what it should be"),
        ({"kind": "html"}, "a web page answers in place of"),
        ({"kind": "status", "status": 500, "body": "[" * 100_000}, "in trouble (500)"),
        ({"kind": "status", "status": 200, "body": "[" * 100_000}, "is not what it should be"),
    ],
)
def test_answer_without_measure_is_a_bad_answer(
    url: str, control: ApiControl, fault: dict[str, Any], words: str
) -> None:
    control.faults(fault)
    error = refusal(url)
    assert type(error) is TransientError
    assert words in str(error)
    assert error.failed_as, "one of the texts may be why"
    assert all(vector is not None for vector in embed(url).vectors)


@pytest.mark.parametrize(
    "told",
    ["1" + "0" * 17, "1" + "0" * 400, "-5", "1e300", "1e999", "NaN", "-Infinity", '"7"', "null",
     "[[]]", "true"],
)  # fmt: skip
def test_no_count_of_tokens_makes_a_bill(url: str, control: ApiControl, told: str) -> None:
    control.faults({"kind": "usage", "body": told})
    got = embed(url)
    assert all(vector is not None for vector in got.vectors)
    # Special tokens of each text included.
    assert 0 <= got.tokens <= sum(map(len, TEXTS)) + 2 * len(TEXTS) * 2


@pytest.mark.parametrize(
    ("body", "kind", "way"),
    [
        ({"error": {"message": "Provider returned error", "code": 400}}, InputRefused, "400"),
        ({"error": {"message": "QQQ", "code": 429}}, RateLimited, ""),
        ({"error": {"message": "QQQ", "code": 401}}, Halt, ""),
        ({"error": {"message": "QQQ", "code": "403"}}, Halt, "403"),
        ({"error": {"message": "QQQ", "code": 502}}, TransientError, "502"),
        ({"error": {"message": "QQQ"}}, TransientError, "200"),
        ({"error": "QQQ"}, TransientError, "200"),
        ({"error": {"message": "QQQ", "type": "invalid_request_error"}}, InputRefused, "400"),
        ({"error": "No models loaded. Please load a model"}, Halt, "200"),
        ({"object": "error", "message": "Invalid model: QQQ", "code": "error"}, Halt, "200"),
        ({"error": {"message": "QQQ", "code": 400}, "data": []}, InputRefused, "400"),
    ],
)
def test_error_that_is_answered_with_200_is_what_it_says(
    url: str, control: ApiControl, body: Any, kind: type[EnrichError], way: str
) -> None:
    control.faults({"kind": "status", "status": 200, "body": body})
    error = refusal(url)
    assert type(error) is kind
    assert error.failed_as == way


@pytest.mark.parametrize(
    ("provider", "status", "body", "meaning"),
    SEEN,
    ids=[f"{provider}-{status}-{n}" for n, (provider, status, _, _) in enumerate(SEEN)],
)
def test_what_providers_answer_is_told_with_what_to_do(
    url: str, control: ApiControl, provider: str, status: int, body: Any, meaning: Meaning
) -> None:
    control.faults({"kind": "status", "status": status, "body": body})
    error = refusal(url)
    kind, words = SENTENCES[meaning]
    assert isinstance(error, kind)
    assert words in str(error)
    # Neither a pause nor a refused key is a text's fault; everything else has to be shown.
    certain = status in (401, 402, 429) or isinstance(error, RateLimited)
    assert bool(error.failed_as) is not certain


SENTENCES: dict[Meaning, tuple[type[EnrichError], str]] = {
    Meaning.KEY: (Halt, "check OPENAI_API_KEY"),
    Meaning.GATEWAY_KEY: (Halt, "refused the gateway's own key"),
    Meaning.QUOTA: (Halt, "the quota is exhausted"),
    Meaning.MODEL: (Halt, "check EMBEDDING_MODEL"),
    Meaning.PATH: (Halt, "check OPENAI_BASE_URL"),
    Meaning.VERSION: (Halt, "api-version"),
    Meaning.FORBIDDEN: (Halt, "check what OPENAI_API_KEY may do"),
    Meaning.PROXY: (Halt, "the proxy before the embeddings API"),
    Meaning.PROXY_LOGIN: (Halt, "asks for a login"),
    Meaning.BLOCKED: (Halt, "a firewall before the embeddings API"),
    Meaning.LOADING: (TransientError, "still loading its model"),
    Meaning.BUSY: (RateLimited, "asks for a pause"),
    Meaning.TOO_LONG: (RequestTooLarge, "too large"),
    Meaning.TOO_MANY: (InputRefused, "refused a request of 2 texts"),
    Meaning.TEXT: (InputRefused, "refused a request of 2 texts"),
    Meaning.TROUBLE: (TransientError, ""),
    Meaning.OTHER: (Halt, "check OPENAI_BASE_URL"),
}


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


class Raw:
    """A server on loopback that answers each request with bytes, one by one."""

    def __init__(
        self, parts: Iterable[bytes], between: float = 0.0, end: bytes = b'"input"'
    ) -> None:
        """Args: end: what a request has at its end."""
        self.asked = b""
        self._end = end
        self._parts = parts
        self._between = between
        self._done = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Raw:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        # Wakes it, if nobody has asked.
        with suppress(OSError), socket.create_connection(self._listener.getsockname(), 1):
            pass
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        line, _ = self._listener.accept()
        with line, suppress(OSError):
            while self._end not in self.asked and (more := line.recv(65_536)):
                self.asked += more
            for part in self._parts:
                if self._done.is_set():
                    return
                line.sendall(part)
                self._done.wait(self._between)


@pytest.mark.parametrize("before", [b"", HEAD + b"content-length: 100000\r\n\r\n"])
def test_a_drip_of_bytes_does_not_outlast_the_time_out(before: bytes) -> None:
    """Each of them comes in time; the answer, in its head or body, never does."""
    drip = chain([before or HEAD + b"x: "], repeat(b"y"))
    with Raw(drip, between=0.02) as server:
        error = refusal(server.url, openai_timeout_seconds=0.3)
    assert isinstance(error, ServerUnavailable)
    assert "did not answer in time" in str(error)


def test_a_connection_that_is_cut_may_be_a_texts_fault_and_one_that_never_was_not() -> None:
    with Raw([HEAD + b"content-length: 100\r\n\r\n{"]) as server:
        error = refusal(server.url)
        assert isinstance(error, ServerUnavailable)
        assert error.failed_as == "cut"
    assert refusal(server.url).failed_as == "", "nobody is there any more"


@pytest.mark.parametrize(
    ("address", "asked", "key"),
    [
        ("/openai/deployments/mine?api-version=2024-10-21",
         b"POST /openai/deployments/mine/embeddings?api-version=2024-10-21 ", b"api-key: sk-test"),
        ("/openai?api-version=2024-10-21",
         b"POST /openai/deployments/text-embedding-3-large/embeddings?api-version=2024-10-21 ",
         b"api-key: sk-test"),
        ("?api-version=2024-10-21",
         b"POST /openai/deployments/text-embedding-3-large/embeddings?api-version=2024-10-21 ",
         b"api-key: sk-test"),
        ("/openai/deployments/mine/embeddings?api-version=1&x=2",
         b"POST /openai/deployments/mine/embeddings?", b"api-key: sk-test"),
        ("/v1?team=logs", b"POST /v1/embeddings?team=logs ", b"authorization: Bearer sk-test"),
        ("/v1/embeddings", b"POST /v1/embeddings ", b"authorization: Bearer sk-test"),
        ("/v1/", b"POST /v1/embeddings ", b"authorization: Bearer sk-test"),
    ],
)  # fmt: skip
def test_address_with_parameters_is_asked_as_it_says(
    address: str, asked: bytes, key: bytes
) -> None:
    body = answer(*(row(n, [1.0] * 16) for n in range(len(TEXTS))))
    head = HEAD + b"connection: close\r\ncontent-length: " + str(len(body)).encode() + b"\r\n\r\n"
    with Raw([head, body]) as server:
        wanted = settings_for("", openai_base_url=server.url + address)
        with closing(OpenAIEmbedder(wanted)) as embedder:
            assert all(vector is not None for vector in embedder.embed(TEXTS).vectors)
    assert server.asked.startswith(asked)
    assert key.lower() in server.asked.lower()
    assert b"accept-encoding: identity" in server.asked.lower()
    assert server.asked.lower().count(b"sk-test") == 1

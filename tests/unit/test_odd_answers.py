"""OpenSearch, or what stands in its place, may answer anything: one sentence comes of it."""

from __future__ import annotations

import contextlib
import gzip
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enrich.cli.checks.indices import named
from enrich.errors import EnrichError, TransientError
from enrich.log_store import LogStore, NoAnswerInTime, Target, bounded_answers
from enrich.log_store.engines import needs_library
from enrich.log_store.stats import iso_time
from enrich.models import LogLocation
from enrich.settings import load_settings

INDEX = "a_2026_11"

NAMES = """
_shards total successful skipped failures index reason type hits _index _id _seq_no _source
_score _routing sort fields message ai_text_sha256 responses error aggregations pending
by_index oldest value buckets key doc_count with_vector failed timed_out indices status
level timestamp log_vector mappings settings properties dimension defaults persistent
transient nodes fs total_in_bytes available_in_bytes version number data_streams name
backing_indices blocks levels description date keyword knn_vector root_cause
"""
KEYS = st.sampled_from(NAMES.split()) | st.just(INDEX)
ANSWERS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.sampled_from(["", "x", INDEX, "red", "date", "knn_vector", "90%", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=25,
)
ASKED: dict[str, Callable[[LogStore], Any]] = {
    "backlog": lambda store: store.backlog.count(),
    "red": lambda store: store.backlog.red_indices(),
    "page": lambda store: store.finder.page([Target(INDEX, None, 10)], frozenset()),
    "reusable": lambda store: store.reusable.find({"a": {"x"}}),
    "with vectors": lambda store: store.reusable.indices_with_vectors([INDEX]),
    "names": lambda store: store.stats.names(),
    "streams": lambda store: store.stats.streams_left_out([INDEX]),
    "counts": lambda store: store.stats.counts(),
    "oldest": lambda store: store.stats.oldest_pending(),
    "others": lambda store: store.stats.of_others(None),
    "other models": lambda store: store.stats.other_models([INDEX]),
    "of our model": lambda store: store.stats.count_of_model(),
    "closed": lambda store: store.stats.closed(None),
    "failures": lambda store: store.stats.failures(None),
    "nearest": lambda store: store.stats.nearest([1.0] * 4, 3, None),
    "sample": lambda store: store.stats.sample(3),
    "enriched": lambda store: store.stats.enriched(),
    "preflight": lambda store: store.preflight.inspect([INDEX]),
    "nodes": lambda store: store.preflight.nodes(),
    "engine": lambda store: store.engines.is_native(INDEX),
    "stored": lambda store: store.stored_vectors.read([LogLocation(INDEX, "1", None)]),
    "version": lambda store: store.version(),
}


@pytest.fixture(scope="module")
def store() -> Iterator[LogStore]:
    built = LogStore(
        load_settings(openai_api_key="sk-1", embedding_dimensions=4, enrich_max_age_days=3)
    )
    yield built
    built.close()


@pytest.mark.parametrize("asked", ASKED)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(answer=ANSWERS)
def test_any_json_gives_a_value_or_a_sentence(store: LogStore, asked: str, answer: Any) -> None:
    text = json.dumps(answer)
    store.connection.request = lambda *_, **__: text  # type: ignore[method-assign]
    # Nothing but an error of ours may come.
    with contextlib.suppress(EnrichError):
        ASKED[asked](store)


def test_a_page_that_nobody_thought_of_is_its_indexs_alone(store: LogStore) -> None:
    hit = {"_id": "1", "_seq_no": 1, "_primary_term": 1, "sort": [1, 2]}
    rows = [
        {**hit, "_index": INDEX, "fields": {"message": ["x", "y"]}},
        {**hit, "_index": "shop_web_2026_11", "fields": {"message": [9, "disk full"]}},
    ]
    shards = {"total": 1, "successful": 1, "skipped": 0, "failed": 0}
    answer = {
        "responses": [
            {"took": 1, "timed_out": False, "_shards": shards, "hits": {"hits": [row]}}
            for row in rows
        ]
    }
    store.connection.request = lambda *_, **__: json.dumps(answer)  # type: ignore[method-assign]
    targets = [Target(row["_index"], None, 10) for row in rows]
    odd, sound = store.finder.page(targets, frozenset())
    assert odd.trouble == "its page has another shape (ValueError)" and not odd.hits
    assert [found.message for found in sound.hits] == ["disk full"] and not sound.trouble


# -- bounds of an answer


class Hostile(BaseHTTPRequestHandler):
    """Results each path in another way that harms who reads on."""

    protocol_version = "HTTP/1.1"
    over = threading.Event()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        if self.path == "/bomb":
            body = gzip.compress(b'{"a":"' + b"0" * 4_000_000 + b'"}')
            self.send_header("content-encoding", "gzip")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.send_header("connection", "close")
        self.end_headers()
        with contextlib.suppress(OSError):
            while not self.over.wait(0.02):
                self.wfile.write(b" " * (1 if self.path == "/drip" else 100_000))

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hostile() -> Iterator[LogStore]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    Hostile.over.clear()
    built = LogStore(
        load_settings(
            openai_api_key="sk-1",
            opensearch_host="127.0.0.1",
            opensearch_port=server.server_address[1],
            opensearch_use_ssl=False,
            opensearch_timeout_seconds=0.5,
        )
    )
    yield built
    Hostile.over.set()
    built.close()
    server.shutdown()
    server.server_close()


def test_a_compressed_answer_is_refused_unread(hostile: LogStore) -> None:
    with pytest.raises(TransientError, match="compressed answer, which was not asked for"):
        hostile.connection.request("GET", "/bomb")


def test_an_answer_has_a_most_of_bytes(hostile: LogStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_answers, "MOST_BYTES", 1024 * 1024)
    # Not a matter of time here.
    monkeypatch.setattr("time.monotonic", lambda: 0.0)
    with pytest.raises(TransientError, match="more than 1 MiB"):
        hostile.connection.request("GET", "/flood")


def test_an_answer_in_drips_ends_though_no_silence_is_long(hostile: LogStore) -> None:
    with pytest.raises(NoAnswerInTime, match="took longer than 2 s for one answer"):
        hostile.connection.request("GET", "/drip")


# -- single decisions


@pytest.mark.parametrize(
    ("value", "time"),
    [
        (1790854199901.0, "2026-10-01T11:29:59.901Z"),
        (0, "1970-01-01T00:00:00.000Z"),
        (-62135596800000, "0001-01-01T00:00:00.000Z"),
        (None, None),
        ("2026", None),
        (True, None),
        (float("inf"), None),
        (float("nan"), None),
        (10**400, None),
    ],
)
def test_the_oldest_time_is_made_of_the_number(value: Any, time: str | None) -> None:
    assert iso_time(value) == time


@pytest.mark.parametrize(
    ("vector", "native"),
    [
        ({"type": "knn_vector", "method": {"engine": "lucene"}}, False),
        ({"type": "knn_vector", "method": {"engine": "faiss"}}, True),
        ({"type": "knn_vector", "method": {"name": "hnsw"}}, True),
        ({"type": "knn_vector", "dimension": 4}, True),
        ({"type": "knn_vector", "model_id": "m"}, True),
        ({"type": "float"}, False),
        (None, False),
    ],
)
def test_every_engine_but_lucenes_needs_a_library(vector: Any, native: bool) -> None:
    answer = {INDEX: {"mappings": {"properties": {"log_vector": vector}}}}
    assert needs_library(answer) is native


def test_many_indices_of_one_fault_share_a_line() -> None:
    names = [f"p{n}_2026_11" for n in range(2713)]
    assert named(names[:5]) == names[:5]
    (line,) = named(names)
    assert line.startswith("2,713 indices (p0_2026_11, ") and line.endswith(" and 2,708 more)")

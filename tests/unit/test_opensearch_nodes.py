"""OPENSEARCH_URL's nodes over real connections: whose turn it is, which are left alone, what may be
asked twice, and what each thing in a node's place is called."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from enrich.errors import AccessRefused, Halt, ServerUnavailable, TransientError
from enrich.log_store import LogStore, NoAnswerInTime, RequestRefused, bounded_answers
from enrich.log_store import connection as connections
from enrich.log_store.connection import Connection
from enrich.log_store.nodes import OtherCluster
from enrich.log_store.refusals import NoShardAnswers
from enrich.settings import load_settings

PAGE = b"<html><title>Welcome</title></html>"


class Node:
    """Something that stands where a node should; `answer` may be set at any moment."""

    def __init__(self, uuid: str = "one", path: str = "") -> None:
        #: Requests other than the look at `/`, as "METHOD path".
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.looks = 0
        self.path = path
        #: (status, body); None: hang up without an answer; "hang": stay silent.
        self.root: Any = (
            200,
            json.dumps({"cluster_name": f"c-{uuid}", "cluster_uuid": uuid}).encode(),
        )
        self.answer: Any = (200, b"{}")
        self.over = threading.Event()
        node = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                with suppress(OSError):
                    super().handle_one_request()

            def _handle(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                node.headers.append({k.lower(): v for k, v in self.headers.items()})
                answer = node.answer
                if self.path == f"{node.path}/" and self.command == "GET":
                    node.looks += 1
                    answer = node.root
                else:
                    node.asked.append(f"{self.command} {self.path}")
                if answer == "hang":
                    node.over.wait(20)
                    answer = None
                if answer is None:
                    self.close_connection = True
                    return
                status, body = answer
                markup = body.startswith(b"<")
                self.send_response(status)
                self.send_header("content-type", "text/html" if markup else "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = _handle

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}{path}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.over.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def node() -> Iterator[Callable[..., Node]]:
    made: list[Node] = []

    def make(*arguments: Any, **options: Any) -> Node:
        made.append(Node(*arguments, **options))
        return made[-1]

    yield make
    for each in made:
        with suppress(OSError):
            each.close()


@pytest.fixture
def to(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Connection]]:
    """A connection to the nodes that are handed in, or to URLs."""
    made: list[Connection] = []
    for name in ("OPENSEARCH_HOST", "OPENSEARCH_PORT", "OPENSEARCH_USE_SSL"):
        monkeypatch.delenv(name, raising=False)

    def connect(*nodes: Node | str, **values: Any) -> Connection:
        urls = ",".join(each if isinstance(each, str) else each.url for each in nodes)
        made.append(Connection(load_settings(openai_api_key="sk-1", opensearch_url=urls, **values)))
        return made[-1]

    yield connect
    for each in made:
        each.close()


Make = Callable[..., Node]
To = Callable[..., Connection]


def closed_port(node: Make) -> str:
    gone = node()
    gone.close()
    return str(gone.url)


def test_a_path_stands_before_every_request(node: Make, to: To) -> None:
    one = node(path="/proxied/opensearch")
    connection = to(one)
    connection.request("POST", "/a_*/_search", {"size": 1}, {"ignore_unavailable": "true"})
    assert one.asked == ["POST /proxied/opensearch/a_*/_search?ignore_unavailable=true"]
    assert not one.looks, "one node alone is not looked at"
    assert connection.url == one.url


def test_nodes_take_turns_and_each_is_looked_at_once(node: Make, to: To) -> None:
    one, other = node(), node()
    connection = to(one, other)
    for _ in range(6):
        connection.request("GET", "/_x")
    assert len(one.asked) == len(other.asked) == 3
    assert (one.looks, other.looks) == (1, 1)


def test_a_dead_node_is_passed_over_and_taken_again(
    node: Make, to: To, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other, dead = node(), node(), closed_port(node)
    other.root = (503, b"<h1>no upstream</h1>")
    connection = to(dead, one, other)
    for _ in range(4):
        connection.request("GET", "/_x")
    assert len(one.asked) == 4 and other.looks == 1, "it is left alone"
    other.root = one.root
    later = time.time() + 31
    monkeypatch.setattr("time.time", lambda: later)
    for _ in range(4):
        connection.request("GET", "/_x")
    assert len(other.asked) in (1, 2), "it has its turn again after half a minute"
    one.answer = (502, PAGE)
    for _ in range(3):
        connection.request("GET", "/_x")
    looks = one.looks
    one.answer = (200, b"{}")
    monkeypatch.setattr("time.time", lambda: later + 100)
    for _ in range(3):
        connection.request("GET", "/_x")
    assert one.looks == looks + 1, "whoever was left alone is looked at again"
    states = dict(connection.nodes())
    assert states[one.url] == states[other.url] == ""
    assert f"OpenSearch at {dead} cannot be reached: check OPENSEARCH_URL" in states[dead]


def test_a_node_that_hangs_costs_a_look_and_no_request(
    node: Make, to: To, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "PROBE_SECONDS", 0.2)
    silent, one = node(), node()
    silent.root = silent.answer = "hang"
    connection = to(silent, one)
    for _ in range(4):
        connection.request("POST", "/_bulk", b"{}\n")
    assert len(one.asked) == 4 and not silent.asked
    assert (
        dict(connection.nodes())[silent.url] == f"OpenSearch at {silent.url} did not answer in time"
    )


def test_a_node_of_another_cluster_is_asked_nothing(node: Make, to: To) -> None:
    one, stranger = node(), node("two")
    connection = to(one, stranger)
    sentence = r"two clusters: http\S+ is of c-\w+ \(\w+\), http\S+ of c-\w+ \(\w+\): leave one"
    for _ in range(3):
        with pytest.raises(OtherCluster, match=sentence) as raised:
            connection.request("POST", "/_bulk", b"{}\n")
        assert isinstance(raised.value, Halt)
    assert not stranger.asked and not one.asked
    with pytest.raises(OtherCluster):
        connection.nodes()
    # It may be put right under way, as behind a name.
    stranger.root = one.root
    for _ in range(4):
        connection.request("GET", "/_x")
    assert len(one.asked) == len(stranger.asked) == 2


def test_nodes_that_do_not_tell_their_cluster_are_asked(node: Make, to: To) -> None:
    one, other, third = node(), node(), node()
    one.root = (403, b'{"error": {"type": "security_exception"}}')
    other.root = (200, b'{"cluster_uuid": "_na_"}')
    connection = to(one, other, third)
    for _ in range(6):
        connection.request("GET", "/_x")
    assert len(one.asked) == len(other.asked) == len(third.asked) == 2


BULK = ("POST", "/_bulk", b"{}\n")


@pytest.mark.parametrize(
    "request_", [BULK, ("PUT", "/a/_mapping", {}), ("POST", "/a/_refresh", None)]
)
def test_a_write_whose_answer_was_lost_is_not_sent_twice(
    node: Make, to: To, request_: tuple[Any, ...]
) -> None:
    one, other = node(), node()
    connection = to(one, other)
    one.answer = other.answer = None
    with pytest.raises(ServerUnavailable):
        connection.request(*request_)
    assert len(one.asked) + len(other.asked) == 1
    failed, sound = (one, other) if one.asked else (other, one)
    sound.answer = (200, b"{}")
    connection.request(*request_)
    connection.request(*request_)
    assert (len(failed.asked), len(sound.asked)) == (1, 2), "the node that failed is left alone"


@pytest.mark.parametrize(
    "request_", [("GET", "/_x", None), ("POST", "/a/_search", {}), ("POST", "/_mget", {})]
)
def test_a_read_goes_to_the_next_node(node: Make, to: To, request_: tuple[Any, ...]) -> None:
    one, other = node(), node()
    connection = to(one, other)
    one.answer = None
    for _ in range(3):
        assert connection.request(*request_) == "{}"
    assert len(one.asked) <= 1 and len(other.asked) == 3


def test_a_write_that_nobody_took_goes_to_the_next_node(node: Make, to: To) -> None:
    one, other = node(), node()
    connection = to(one, other)
    for _ in range(2):
        connection.request("GET", "/_x")
    one.close()
    # What was connected stays so for the handler's thread: connect anew.
    for each in connection._client.transport.seed_connections:
        each.close()
    for _ in range(3):
        assert connection.request(*BULK) == "{}"
    assert other.asked.count("POST /_bulk") == 3


def test_what_is_taken_and_not_answered_in_time_is_not_asked_elsewhere(node: Make, to: To) -> None:
    one, other = node(), node()
    connection = to(one, other, opensearch_timeout_seconds=0.3)
    one.answer = other.answer = "hang"
    with pytest.raises(NoAnswerInTime):
        connection.request("POST", "/a/_search", {})
    assert len(one.asked) + len(other.asked) == 1
    failed, sound = (one, other) if one.asked else (other, one)
    sound.answer = (200, b"{}")
    connection.request("POST", "/a/_search", {})
    connection.request("POST", "/a/_search", {})
    assert (len(failed.asked), len(sound.asked)) == (1, 2)


ALONE = b'{"error": {"type": "cluster_manager_not_discovered_exception"}, "status": 503}'
RED = b'{"error": {"type": "search_phase_execution_exception"}, "status": 503}'


@pytest.mark.parametrize("answer", [(503, ALONE), (502, PAGE), (504, b"")])
def test_a_node_without_its_cluster_is_left_alone(node: Make, to: To, answer: Any) -> None:
    one, other = node(), node()
    connection = to(one, other)
    one.answer = answer
    for _ in range(4):
        connection.request("GET", "/_x")
    assert len(one.asked) <= 1
    one.answer = other.answer = answer
    with pytest.raises(TransientError):
        connection.request(*BULK)


def test_an_index_in_trouble_is_no_nodes_fault(node: Make, to: To) -> None:
    one, other = node(), node()
    connection = to(one, other)
    one.answer = other.answer = (503, RED)
    for _ in range(4):
        with pytest.raises(NoShardAnswers):
            connection.request("POST", "/a/_search", {})
    assert len(one.asked) == len(other.asked) == 2
    one.answer = other.answer = (404, b'{"error": {"type": "index_not_found_exception"}}')
    with pytest.raises(RequestRefused, match="index_not_found"):
        connection.request("GET", "/a/_mapping")
    assert (one.looks, other.looks) == (1, 1)


def test_an_answer_without_measure_is_no_nodes_fault(
    node: Make, to: To, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = node(), node()
    connection = to(one, other)
    connection.request("GET", "/_x")
    monkeypatch.setattr(bounded_answers, "MOST_BYTES", 100)
    one.answer = other.answer = (200, b" " * 101)
    for asked in (2, 3, 4, 5):
        with pytest.raises(TransientError, match="an answer of more than"):
            connection.request("GET", "/_x")
        assert len(one.asked) + len(other.asked) == asked, "it is not asked elsewhere"
    assert len(one.asked) in (2, 3), "and both keep their turns"


def test_of_several_nodes_one_that_is_not_there_takes_no_whole_time_out(node: Make, to: To) -> None:
    one, other = node(), node()

    def timeouts(connection: Connection) -> list[Any]:
        seen: list[Any] = []
        (line, *_) = connection._client.transport.seed_connections
        urlopen = line.pool._pool.urlopen

        def spy(*arguments: Any, **options: Any) -> Any:
            seen.append(options.get("timeout"))
            return urlopen(*arguments, **options)

        line.pool._pool.urlopen = spy
        for _ in range(2):
            connection.request("GET", "/_x")
        return seen

    look, request = timeouts(to(one, other))
    assert (look.connect_timeout, look.read_timeout) == (5, 5)
    assert (request.connect_timeout, request.read_timeout) == (5, 30)
    assert timeouts(to(one)) == [None, None], "one alone is waited for as ever"


def test_without_any_node_the_setting_is_named_and_all_of_them_come_back(
    node: Make, to: To
) -> None:
    one, other = node(), node()
    roots = one.root
    one.root = other.root = None
    connection = to(one, other)
    sentence = f"{one.url}, {other.url} cannot be reached: check OPENSEARCH_URL and that it runs"
    for round in range(1, 4):
        with pytest.raises(ServerUnavailable, match=re.escape(sentence)):
            connection.request("GET", "/_x")
        # The first looks at all of them beforehand.
        assert one.looks + other.looks == 2 * (round + 1), "one look at each is enough"
    one.root = other.root = roots
    assert connection.request("GET", "/_x") == "{}"


# -- what else answers there


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((200, PAGE), "not JSON: is there a proxy before it.*check the path in OPENSEARCH_URL"),
        (
            (404, PAGE),
            r"web page came instead of its answer \(404\): check the path in OPENSEARCH_",
        ),
        ((405, PAGE), r"\(405\): check the path in OPENSEARCH_URL"),
    ],
)
def test_a_path_of_something_else_is_named(node: Make, to: To, answer: Any, words: str) -> None:
    one, other = node(), node()
    one.answer = answer
    with pytest.raises(TransientError, match=words):
        to(one).request("GET", "/_x")
    # Beside a node that is one, such a path is not asked.
    one.root = answer
    connection = to(one, other)
    for _ in range(3):
        connection.request("GET", "/_x")
    assert re.search(words, dict(connection.nodes())[one.url])


def test_a_refusal_of_opensearch_is_none_of_that(node: Make, to: To) -> None:
    one = node()
    connection = to(one)
    for body in (b'{"error": "no handler found for uri"}', b""):
        one.answer = (404, body)
        with pytest.raises(RequestRefused, match="404"):
            connection.request("GET", "/_x")


def test_a_certificate_that_a_web_server_asks_for_is_named(node: Make, to: To) -> None:
    one = node()
    one.answer = (400, b"<html><h1>400</h1>No required SSL certificate was sent</html>")
    with pytest.raises(AccessRefused, match="OPENSEARCH_CLIENT_CERT and OPENSEARCH_CLIENT_KEY"):
        to(one).request("GET", "/_x")


# -- logins


@pytest.mark.parametrize(
    ("values", "sent", "words"),
    [
        ({"opensearch_token": "t0k3n"}, {"authorization": "Bearer t0k3n"},
         r"refused the token \(401\): check OPENSEARCH_TOKEN"),
        ({"opensearch_headers": '{"X-Api-Key": "s3cret", "x-tenant": "t"}'},
         {"x-api-key": "s3cret", "x-tenant": "t"}, r"\(401\): check OPENSEARCH_HEADERS"),
        ({"opensearch_user": "me", "opensearch_headers": '{"x-tenant": "t"}'},
         {"authorization": "Basic bWU6", "x-tenant": "t"}, "check OPENSEARCH_USER and OPENS"),
    ],
)  # fmt: skip
def test_every_request_carries_its_login(
    node: Make, to: To, values: dict[str, str], sent: dict[str, str], words: str
) -> None:
    one, other = node(), node()
    connection = to(one, other, **values)
    for _ in range(2):
        connection.request("GET", "/_x")
    assert all(sent.items() <= headers.items() for headers in one.headers + other.headers)
    one.answer = other.answer = (401, b"Unauthorized")
    with pytest.raises(AccessRefused, match=words) as refused:
        connection.request("GET", "/_x")
    assert not {"t0k3n", "s3cret"} & set(str(refused.value).split())


def test_a_login_in_the_url_is_sent_and_never_shown(node: Make, to: To) -> None:
    one = node()
    connection = to(one.url.replace("://", "://me:p%40ss@"))
    connection.request("GET", "/_x")
    assert one.headers[0]["authorization"] == "Basic bWU6cEBzcw=="
    one.answer = (401, b"")
    with pytest.raises(AccessRefused, match="check OPENSEARCH_URL") as refused:
        connection.request("GET", "/_x")
    assert "p@ss" not in str(refused.value) and "p%40ss" not in str(refused.value)


def test_serverless_is_said_to_take_no_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENSEARCH_HOST", raising=False)
    store = LogStore(
        load_settings(
            openai_api_key="sk-1",
            opensearch_url="https://x.eu-west-1.aoss.amazonaws.com",
            opensearch_auth="aws",
            opensearch_aws_service="aoss",
        )
    )
    assert "no vector can be written beside a log" in store.version().objection
    store.close()

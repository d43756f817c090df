"""Redis refuses to write, or is away, while the worker's main process or a task speaks to it.

First the transport by itself, on a real Valkey, message by message; then whole workers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
import time_machine
from kombu import Connection, Consumer, Exchange, Queue
from kombu.exceptions import OperationalError

from dev.api_control import ApiControl
from dev.services import Services
from dev.tcp_proxy import TcpProxy
from enrich.ledger import Ledger
from tests.conftest import Search, wait_for
from tests.integration.test_cycle import logs
from tests.integration.test_processes import INDEX, Deployment, deployment, ledger, publish

__all__ = ["deployment", "ledger"]  # fixtures

PREFIX = "transport:"
QUEUE = Queue("work", Exchange("work", type="direct"), routing_key="work")


@pytest.fixture
def valkey(clean: Services) -> Iterator[redis.Redis]:
    """Valkey as its administrator sees it; writable again afterwards."""
    connection = redis.Redis.from_url(clean.redis.url)
    yield connection
    heal(connection)
    if keys := list(connection.scan_iter(PREFIX + "*")):
        connection.delete(*keys)
    connection.close()


def heal(valkey: redis.Redis) -> None:
    valkey.config_set("maxmemory", "0")
    valkey.execute_command("REPLICAOF", "NO", "ONE")


@pytest.fixture
def connect(clean: Services) -> Iterator[Callable[..., Connection]]:
    """Connections of the product's transport, to Valkey or to a proxy before it."""
    with ExitStack() as exits:

        def connect(port: int | None = None, **options: Any) -> Connection:
            port = port or int(clean.redis.url.rpartition(":")[2].partition("/")[0])
            connection = Connection(
                f"redis://127.0.0.1:{port}/0",
                transport="enrich.worker.transport:Transport",
                transport_options={"global_keyprefix": PREFIX, **options},
            )
            exits.callback(connection.release)
            return connection

        yield connect


def send(connection: Connection, *words: str) -> None:
    with connection.Producer() as producer:
        for word in words:
            producer.publish(word, exchange=QUEUE.exchange, routing_key="work", declare=[QUEUE])


def taking(connection: Connection) -> list[Any]:
    """Begin to take messages, one at a time; the list grows as they come."""
    taken: list[Any] = []
    consumer = Consumer(connection, [QUEUE], on_message=taken.append)
    consumer.qos(prefetch_count=1)
    consumer.consume()
    return taken


def drain(connection: Connection) -> None:
    """Let what there is to take come."""
    with suppress(TimeoutError):
        for _ in range(10):
            connection.drain_events(timeout=0.5)


def test_a_message_taken_from_a_full_redis_is_put_back(
    valkey: redis.Redis, connect: Callable[..., Connection]
) -> None:
    send(connect(), "one")
    consuming = connect()
    taken = taking(consuming)
    valkey.config_set("maxmemory", "1mb")
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        drain(consuming)
    assert not valkey.exists(PREFIX + "work")
    assert taken == []
    valkey.config_set("maxmemory", "0")

    anew = connect()
    taken = taking(anew)
    drain(anew)

    assert [message.payload for message in taken] == ["one"]


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (("CONFIG", "SET", "maxmemory", "1mb"), "maxmemory"),
        # Of a primary that is not there: it keeps its data and refuses to write.
        (("REPLICAOF", "127.0.0.1", "1"), "read only replica"),
    ],
    ids=["full", "read-only"],
)
def test_no_connection_stands_until_redis_takes_writes(
    valkey: redis.Redis, connect: Callable[..., Connection], harm: tuple[str, ...], words: str
) -> None:
    valkey.execute_command(*harm)
    with pytest.raises(OperationalError, match=f"Redis refuses to write: .*{words}"):
        connect().ensure_connection(max_retries=1, interval_start=0)
    heal(valkey)
    assert connect().ensure_connection(max_retries=1).connected


def test_what_could_not_be_acknowledged_does_not_stop_the_taking(
    clean: Services, valkey: redis.Redis, connect: Callable[..., Connection]
) -> None:
    """Celery logs an acknowledgement that did not arrive and goes on with the same connection."""
    send(connect(), "one", "two")
    with TcpProxy(int(clean.redis.url.rpartition(":")[2].partition("/")[0])) as proxy:
        consuming = connect(proxy.port, socket_timeout=0.5)
        taken = taking(consuming)
        drain(consuming)
        assert [message.payload for message in taken] == ["one"]
        proxy.set("hang")
        taken[0].ack_log_error(logging.getLogger(__name__), consuming.connection_errors)
        proxy.set("pass")

        drain(consuming)

        assert [message.payload for message in taken] == ["one", "two"]


@pytest.mark.parametrize("ahead", [-3600, 3600], ids=["behind", "ahead"])
def test_what_a_host_with_a_wrong_clock_took_comes_back_by_redis_clock(
    valkey: redis.Redis, connect: Callable[..., Connection], ahead: int
) -> None:
    send(connect(), "one")
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=ahead), tick=True):
        wrong = connect(visibility_timeout=600)
        taken = taking(wrong)
        drain(wrong)
        assert [message.payload for message in taken] == ["one"]
        ((_, noted),) = valkey.zrange(PREFIX + "unacked_index", 0, -1, withscores=True)
        restore(wrong)
    assert abs(noted - valkey.time()[0]) < 60
    assert not valkey.exists(PREFIX + "work"), "it was fetched back at once"

    valkey.zincrby(PREFIX + "unacked_index", -600, taken[0].delivery_tag)
    restore(connect(visibility_timeout=600))

    assert valkey.llen(PREFIX + "work") == 1


def test_at_no_moment_is_a_wrong_clock_noted(
    valkey: redis.Redis, connect: Callable[..., Connection]
) -> None:
    """The host could be killed at that moment."""
    send(connect(), "one")
    with valkey.monitor() as seen:
        with time_machine.travel(datetime.now(UTC) + timedelta(hours=1), tick=True):
            wrong = connect(visibility_timeout=600)
            taking(wrong)
            drain(wrong)
        valkey.echo("that is all")
        commands = []
        for command in seen.listen():
            commands.append(command["command"].split())
            if commands[-1][0] == "ECHO":
                break
    noted = [float(c[-2]) for c in commands if c[:2] == ["ZADD", PREFIX + "unacked_index"]]
    assert noted and all(abs(at - valkey.time()[0]) < 60 for at in noted)


def restore(connection: Connection) -> None:
    """Fetch back what was held for too long, as a worker does every few seconds."""
    connection.default_channel.qos.restore_visible(interval=1)


@pytest.mark.apart
def test_a_try_that_cannot_be_published_is_not_lost(
    clean: Services, deployment: Deployment, search: Search, embeddings: ApiControl,
    ledger: Ledger, valkey: redis.Redis,
) -> None:  # fmt: skip
    """The API fails while Redis refuses to write. The visibility time-out and the deadline, which
    would find the chunk too, are far away."""
    search.create(INDEX)
    search.index(INDEX, logs(20, 20))
    # The request stays open until the line is cut: it must not fail before Redis refuses.
    embeddings.faults({"kind": "hang", "seconds": 600})
    with TcpProxy(clean.embeddings.port) as api:
        worker = deployment.worker(
            OPENAI_BASE_URL=f"http://127.0.0.1:{api.port}/v1",
            ENRICH_SOFT_TIME_LIMIT_SECONDS="19",
            ENRICH_HARD_TIME_LIMIT_SECONDS="20",
            ENRICH_VISIBILITY_TIMEOUT_SECONDS="400",
            ENRICH_CHUNK_DEADLINE_SECONDS="500",
        )
        opened = ledger.runs.open("manual", 600)
        publish(deployment, "enrich.scan_page", opened.run, 1)
        wait_for(lambda: embeddings.seen["strikes_left"] == 0, worker)
        valkey.execute_command("REPLICAOF", "127.0.0.1", "1")
        api.set("cut")
        wait_for(lambda: "goes back to its queue" in worker.log.read_text(), worker)
        api.set("pass")
        valkey.execute_command("REPLICAOF", "NO", "ONE")

        wait_for(lambda: not ledger.runs.active(), worker)

    record = ledger.records.of(opened.run)
    assert (record.vectors_written, record.deferred, record.failed) == (20, 0, 0)

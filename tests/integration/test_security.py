"""Hostile messages put raw into the broker: what is not ours is dropped, and the worker goes on.

Whoever can write to Redis can put anything into the queues, in forms that no client would send. A
real worker takes them from a real Valkey; afterwards it must do its work as if nothing had been.
What leaves for the API with masking on is looked at here too, at the server that receives it.
"""

from __future__ import annotations

import gzip
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from dev.api_control import ApiControl
from dev.services import Services
from enrich.ledger import Ledger
from enrich.text.extract import fingerprint
from tests.conftest import PREFIX as PIPELINES
from tests.conftest import Pipeline, Search, wait_for
from tests.integration.test_cycle import logs
from tests.integration.test_processes import (
    INDEX,
    PREFIX,
    Deployment,
    deployment,
    ledger,
    publish,
)
from tests.messages import arguments, envelope

__all__ = ["deployment", "ledger"]  # fixtures

QUEUE = PREFIX + "broker:enrich.embed"


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.fixture
def raw(clean: Services) -> Iterator[redis.Redis]:
    connection = redis.Redis.from_url(clean.environment()["REDIS_URL"])
    yield connection
    connection.close()


HOSTILE: dict[str, Callable[[Path], bytes]] = {
    "pickle": lambda mark: envelope(
        pickle.dumps(((Bomb(mark),), {}, {})),
        content_type="application/x-python-serialize",
        **{"content-encoding": "binary"},
    ),
    "pickle said to be JSON": lambda mark: envelope(pickle.dumps(((Bomb(mark),), {}, {}))),
    "YAML": lambda mark: envelope(
        f"!!python/object/apply:os.mknod ['{mark}']".encode(), content_type="application/x-yaml"
    ),
    "an unheard-of content type": lambda mark: envelope(arguments(), content_type="text/hostile"),
    "huge": lambda mark: envelope(
        arguments({"id": "x:1:1", "references": [["i", "d" * 5_000_000, None, 1, 1]]})
    ),
    "huge and no chunk": lambda mark: envelope(arguments("x" * 5_000_000)),
    "an unknown task": lambda mark: envelope(arguments(1), task="os.system"),
    "no task": lambda mark: envelope(arguments(1), task=None),
    "no arguments": lambda mark: envelope(b"[]"),
    "arguments of another kind": lambda mark: envelope(b'{"a": 1}'),
    "broken JSON": lambda mark: envelope(b'[[{"id": '),
    "not UTF-8": lambda mark: envelope(b"\xff\xfe\x00"),
    "deeply nested": lambda mark: envelope(b"[" * 100_000 + b"]" * 100_000),
    "arguments that are none": lambda mark: envelope(b"[5, 6, 7]"),
    "a page of another kind": lambda mark: envelope(
        arguments({"run": 1}, "first"), task="enrich.scan_page"
    ),
    "no page": lambda mark: envelope(arguments(), task="enrich.scan_page"),
    "no run": lambda mark: envelope(arguments([1]), task="enrich.finish_run"),
    "a list for a task": lambda mark: envelope(arguments(), task=["enrich.scan_page"]),
    "an unknown task without a name of its own": lambda mark: envelope(
        arguments(1), task="os.system", more={"id": None}
    ),
    "time limits that are none": lambda mark: envelope(
        arguments(), more={"timelimit": [None, "x"]}
    ),
    "a time that is none": lambda mark: envelope(arguments(), more={"eta": "tomorrow"}),
    "headers of another kind": lambda mark: envelope(arguments(), headers=[1]),
    "no address": lambda mark: envelope(arguments(), properties={"delivery_tag": "x"}),
    "a tag of another kind": lambda mark: envelope(
        arguments(),
        properties={
            "delivery_tag": None,
            "delivery_info": {"exchange": "enrich", "routing_key": "enrich.embed"},
        },
    ),
    "a body in an encoding of its own": lambda mark: envelope(
        arguments(),
        properties={
            "delivery_tag": "x",
            "delivery_info": {"exchange": "enrich", "routing_key": "enrich.embed"},
            "body_encoding": "bate64",
        },
    ),
    "packed, and much more unpacked": lambda mark: envelope(
        gzip.compress(b" " * 200_000_000), more={"compression": "application/x-gzip"}
    ),
    "bytes": lambda mark: b"\x80\x04garbage",
    "cut": lambda mark: envelope(arguments())[:-9],
    "nothing": lambda mark: b"null",
    "deeply nested, from its first byte on": lambda mark: b"[" * 100_000,
}


def test_raw_hostile_message_is_dropped_and_the_worker_goes_on(
    deployment: Deployment, search: Search, ledger: Ledger, raw: redis.Redis, tmp_path: Path
) -> None:
    """One worker for all kinds, one after the other; each is counted once."""
    mark = tmp_path / "executed"
    search.create(INDEX)
    search.index(INDEX, logs(5, 5))
    worker = deployment.worker()

    for count, (kind, message) in enumerate(HOSTILE.items(), 1):
        raw.lpush(QUEUE, message(mark))
        try:
            wait_for(lambda n=count: ledger.records.totals().messages_dropped == n, worker)  # type: ignore[misc]
        except AssertionError as error:
            raise AssertionError(f"{kind}: {error}") from None

    opened = ledger.runs.open("manual", 600)
    publish(deployment, "enrich.scan_page", opened.run, 1)
    wait_for(lambda: not ledger.runs.active(), worker)
    assert ledger.records.of(opened.run).vectors_written == 5
    # Dropped for good: not handed back to be tried by the next worker.
    wait_for(lambda: not raw.hlen(PREFIX + "broker:unacked"), worker)
    assert ledger.records.totals().messages_dropped == len(HOSTILE)
    assert "Traceback" not in worker.log.read_text()
    assert not mark.exists()


def test_a_hostile_broadcast_is_dropped_and_the_worker_goes_on(
    deployment: Deployment, ledger: Ledger, raw: redis.Redis
) -> None:
    """To the channel on which workers are asked and told things."""
    worker = deployment.worker()
    channel = PREFIX + "broker:/0.celery.pidbox"
    for count, garbage in enumerate((b"[]", b"null", b'{"properties": 1}', b"[" * 100_000), 1):
        assert raw.publish(channel, garbage) == 1
        wait_for(lambda n=count: ledger.records.totals().messages_dropped == n, worker)  # type: ignore[misc]
    assert "Traceback" not in worker.log.read_text()


def test_a_worker_takes_no_orders_over_the_broker_unless_flower_gives_some(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, clean: Services
) -> None:
    def ordered(**env: str) -> list[dict[str, Any]]:
        worker = deployment.worker(**env)
        # Another's client: what it may order is the worker's to say.
        with Celery(broker=clean.environment()["REDIS_URL"]) as client:
            client.conf.broker_transport_options = {"global_keyprefix": PREFIX + "broker:"}
            replies: list[dict[str, Any]] = client.control.broadcast(
                "rate_limit", {"task_name": "enrich.scan_page", "rate_limit": "1/h"},
                reply=True, limit=1, timeout=30,
            )  # fmt: skip
            worker.stop()
        return [answer for reply in replies for answer in reply.values()]

    (refused,) = ordered()
    assert "error" in refused
    (taken,) = ordered(FLOWER_READ_ONLY="false")
    assert "ok" in taken


def test_what_is_masked_never_reaches_the_api(
    pipeline: Callable[..., Pipeline], search: Search, embeddings: ApiControl
) -> None:
    secrets = ["jane@example.com", "10.20.30.40", "4111111111111111", "010-1234-5678", "hunter2"]
    message = "refused {} from {} card {} phone {} password={}"
    search.create(INDEX)
    others = ["joe@example.com", "10.20.30.41", "5500005555555559", "010-9876-5432", "hunter3"]
    search.index(
        INDEX,
        [
            {"level": "ERROR", "message": message.format(*values)}
            for values in (secrets, others)
        ],
    )  # fmt: skip
    # The server refuses what has any of this in it.
    embeddings.faults(
        *({"kind": "poison", "match": secret, "times": 0} for secret in (*secrets, *others))
    )

    record = pipeline(enrich_mask="all").run()

    assert (record.found, record.embedded, record.duplicate, record.failed) == (2, 1, 1, 0)
    assert (record.api_inputs, record.masked) == (1, 5)
    masked = message.format(
        *(f"[masked {k}]" for k in ("email", "ip", "card", "phone", "credential"))
    )
    stored = search.sources(INDEX)
    for number, values in enumerate((secrets, others)):
        source = stored[f"{INDEX}-{number}"]
        assert source["message"] == message.format(*values)
        assert source["ai_text_sha256"] == fingerprint(masked)


def test_nothing_is_masked_unless_asked(pipeline: Callable[..., Pipeline], search: Search) -> None:
    search.create(INDEX)
    search.index(INDEX, [{"level": "ERROR", "message": "no account jane@example.com"}])
    record = pipeline().run()
    assert (record.vectors_written, record.masked) == (1, 0)
    (source,) = search.sources(INDEX).values()
    assert source["ai_text_sha256"] == fingerprint("no account jane@example.com")


def test_a_donor_that_was_masked_otherwise_gives_no_vector(
    pipeline: Callable[..., Pipeline], search: Search, embeddings: ApiControl, raw: redis.Redis
) -> None:
    """A vector of the unmasked text must not be taken for that of the masked one."""
    search.create(INDEX)
    log = {"level": "ERROR", "message": "no account jane@example.com"}
    search.index(INDEX, [dict(log, _id="first")])
    pipeline().run()
    search.index(INDEX, [dict(log, _id="second")])
    found_unmasked = pipeline()
    found_unmasked.find_unvectorized("manual")
    works_masked = pipeline(enrich_mask="all")
    # As while workers are restarted with the setting, one after the other, and the run was begun by
    # a version that does not note with which settings.
    while found_unmasked.messages:
        if found_unmasked.messages[0][0] == "embed_and_update":
            run = found_unmasked.ledger.runs.active()
            assert raw.hdel(f"{PIPELINES}run:{run}", "configuration")
            works_masked.messages.append(found_unmasked.messages.popleft())
            works_masked.deliver()
            found_unmasked.messages += works_masked.messages
            works_masked.messages.clear()
        else:
            found_unmasked.deliver()
    second = search.source(INDEX, "second")
    assert second["ai_text_sha256"] == fingerprint("no account [masked email]")
    assert second["ai_vector_source"] == "embedded"

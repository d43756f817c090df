"""The tasks carry out what was decided; the next message tells what the work has been through."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import fakeredis
import pytest
from celery.canvas import Signature

from enrich.backfill.chunk import ChunkBusy
from enrich.errors import NotHere, RateLimited, ServerUnavailable, TransientError
from enrich.ledger import Ledger
from tasks import enrichment
from tasks.retry import FIRST_BACKOFF_SECONDS, MAX_RETRIES, MAX_SNOOZES, WAIT_HEADER

CHUNK = {"id": "run:1:0", "references": [["a_b", "1", None, 5, 1]]}
AWAY = ServerUnavailable("OpenSearch is away")
#: Each task, the arguments of its first message, and the same as they are sent again.
SCANS = [("find_unvectorized", ["beat"]), ("scan_page", ["run", 2]), ("finish_run", ["run"])]


@dataclass
class Trying:
    """A backfill whose every move ends in one error; what it was told to do in the end."""

    error: Exception
    gave_up: list[str] = field(default_factory=list)
    halted: list[str] = field(default_factory=list)

    def _fail(self, *_: Any) -> str:
        raise self.error

    tick = scan = finish = embed_and_update = _fail

    def give_up(self, chunk: Any, why: str) -> str:
        self.gave_up.append(why)
        return "deferred"

    def halt(self, run: str, reason: str) -> None:
        self.halted.append(reason)


@dataclass
class Sent:
    """The messages by which tasks ask for another try."""

    signatures: list[Signature] = field(default_factory=list)

    @property
    def last(self) -> Signature:
        return self.signatures[-1]

    @property
    def wait(self) -> float:
        assert self.last.options["headers"][WAIT_HEADER] == self.last.options["countdown"]
        return float(self.last.options["countdown"])


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    sent = Sent()

    def keep(signature: Signature, **_: Any) -> Any:
        sent.signatures.append(signature)
        return signature

    monkeypatch.setattr(Signature, "apply", keep)
    return sent


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Exception], Trying]]:
    """Sets the error of every move."""
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    monkeypatch.delenv("ENRICH_OUTAGE_SECONDS", raising=False)
    ledger = Ledger(fakeredis.FakeRedis(), "enrich:")
    monkeypatch.setattr(enrichment, "build_ledger", lambda settings: ledger)
    enrichment.backfill.cache_clear()

    def set_to(error: Exception) -> Trying:
        trying = Trying(error)
        enrichment.backfill.cache_clear()
        monkeypatch.setattr(enrichment, "build_backfill", lambda *_: trying)
        return trying

    yield set_to
    enrichment.backfill.cache_clear()


Fails = Callable[[Exception], Trying]


def chunk(*arguments: Any, retries: int = 0, **named: Any) -> Any:
    return enrichment.embed_and_update.apply([CHUNK, *arguments], named, retries=retries)


def test_a_busy_chunk_is_not_dropped_for_its_pauses(fails: Fails, sent: Sent) -> None:
    fails(ChunkBusy(7))
    # Paused by the API as often as an error is tried again.
    chunk(MAX_RETRIES, retries=MAX_RETRIES)
    assert sent.last.args[1] == MAX_RETRIES + 1
    assert sent.wait == pytest.approx(7.1)


def test_waits_for_a_busy_chunk_are_no_failures_of_the_next_error(fails: Fails, sent: Sent) -> None:
    fails(ChunkBusy(7))
    chunk()
    for _ in range(MAX_RETRIES):
        chunk(*sent.last.args[1:], retries=sent.last.options["retries"], **sent.last.kwargs)
    trying = fails(AWAY)
    chunk(*sent.last.args[1:], retries=sent.last.options["retries"], waited=1e6)
    assert trying.gave_up == []
    # As after the first failure.
    assert sent.wait <= FIRST_BACKOFF_SECONDS


@pytest.mark.parametrize(
    "error", [RateLimited("pause", 12.0), ChunkBusy(12), NotHere("left to the others")], ids=repr
)
def test_a_snooze_may_come_more_often_than_an_attempt(
    fails: Fails, sent: Sent, error: Exception
) -> None:
    """Celery's own limit of a task would end it at the seventh."""
    trying = fails(error)
    chunk(MAX_SNOOZES - 1, retries=MAX_SNOOZES - 1)
    assert sent.last.args[1] == MAX_SNOOZES
    assert sent.last.kwargs == {"waited": 0.0}
    assert trying.gave_up == []


def test_a_failure_is_tried_again_and_tells_how_long_was_waited(fails: Fails, sent: Sent) -> None:
    trying = fails(AWAY)
    chunk(2, retries=9, waited=100.0)
    assert sent.last.args[1] == 2
    assert sent.last.options["retries"] == 10
    assert sent.last.kwargs == {"waited": 100.0 + sent.wait}
    assert sent.last.options["argsrepr"] == "('run:1:0',)"
    assert trying.gave_up == []
    assert chunk(2, retries=9, waited=150.0).get() == "deferred"
    assert trying.gave_up == ["OpenSearch is away"]


def test_a_message_of_an_older_version_is_understood(fails: Fails, sent: Sent) -> None:
    """It has a chunk and its pauses, and tells nothing of seconds."""
    fails(AWAY)
    chunk(3, retries=12)
    assert sent.last.args[1] == 3
    assert sent.last.kwargs["waited"] == sent.wait


def test_an_older_worker_understands_a_message(fails: Fails, sent: Sent) -> None:
    """It reads a chunk, its pauses in the second place, and passes over what it does not know."""
    fails(RateLimited("pause", 12.0))
    chunk(2, retries=3, waited=5.0)

    def older(message: Any = None, pauses: int = 0, *_: Any, **__: Any) -> tuple[Any, int]:
        return message["id"], sent.last.options["retries"] - pauses

    # One failure, as before.
    assert older(*sent.last.args, **sent.last.kwargs) == ("run:1:0", 1)


@pytest.mark.parametrize(("task", "arguments"), SCANS)
@pytest.mark.parametrize("asked", [0.5, 12.0, 60.0])
def test_a_pause_that_a_scan_meets_is_as_long_as_was_asked_for(
    fails: Fails, sent: Sent, task: str, arguments: list[Any], asked: float
) -> None:
    fails(RateLimited("pause", asked))
    getattr(enrichment, task).apply(arguments, retries=MAX_RETRIES)
    assert sent.wait == asked
    assert list(sent.last.args) == arguments
    assert sent.last.kwargs == {"snoozes": 1, "waited": 0.0}


def test_a_long_pause_that_a_page_meets_halts_the_run_at_once(fails: Fails, sent: Sent) -> None:
    trying = fails(RateLimited("pause", 3600.0))
    enrichment.scan_page.apply(["run", 2]).get()
    assert sent.signatures == []
    (reason,) = trying.halted
    assert reason.startswith("rate limited until ")


def test_a_scan_waits_as_long_for_a_server_as_a_chunk_does(fails: Fails, sent: Sent) -> None:
    trying = fails(AWAY)
    enrichment.scan_page.apply(["run", 2], {"snoozes": 1, "waited": 149.0}, retries=20)
    assert sent.last.kwargs == {"snoozes": 1, "waited": 149.0 + sent.wait}
    assert trying.halted == []
    told = enrichment.scan_page.apply(["run", 2], {"waited": 150.0}, retries=20).get()
    assert trying.halted == ["OpenSearch is away"]
    assert "OpenSearch is away" in told


@pytest.mark.parametrize("limit", [MemoryError, enrichment.SoftTimeLimitExceeded])
def test_a_limit_of_the_worker_ends_a_chunk_and_not_a_scan(
    fails: Fails, sent: Sent, limit: type[Exception]
) -> None:
    trying = fails(limit())
    chunk()
    assert trying.gave_up == [f"the worker ran into {limit.__name__}"]
    enrichment.scan_page.apply(["run", 2])
    assert trying.halted == []
    assert sent.last.kwargs["waited"] > 0


def test_what_redis_could_not_be_told_goes_back_to_the_queue(
    fails: Fails, sent: Sent, caplog: pytest.LogCaptureFixture
) -> None:
    trying = fails(RateLimited("pause", 3600.0))

    def away(run: str, reason: str) -> None:
        raise TransientError("Redis takes no writes")

    trying.halt = away  # type: ignore[method-assign]
    for task in (enrichment.embed_and_update.apply([CHUNK]), enrichment.scan_page.apply(["r", 2])):
        assert task.state == "REJECTED"
    assert caplog.text.count("goes back to its queue: Redis takes no writes") == 2

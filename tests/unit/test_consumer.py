"""The consumer's loop on a broker in memory: what is counted, what is committed, and when it waits.

The work on a batch is played, so that a test decides when it ends and how. A test waits for what it
expects and fails after a minute; none looks at a clock otherwise.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from enrich.errors import AccessRefused, Halt, IndexInTrouble, RateLimited, ServerUnavailable
from enrich.ledger import Ledger
from enrich.ledger.in_memory import in_memory_ledger
from enrich.ledger.realtime_summary import RealtimeSummary
from enrich.realtime import consumer as loop
from enrich.realtime.batch_work import End
from enrich.realtime.consumer import Consumer
from enrich.realtime.in_memory import InMemoryBroker
from enrich.realtime.messages import MessageReader, WantedLog
from enrich.settings import load_settings

A, B = ("logs", 0), ("logs", 1)
WRITTEN = End("embedded", latency=1.0)


def message(id: str, level: str = "ERROR") -> bytes:
    return json.dumps(
        {
            "log_id": id, "project_uuid": "shop", "level": level, "message": f"text of {id}",
            "timestamp": "2026-11-20T10:00:00Z",
        }
    ).encode()  # fmt: skip


class Work:
    """Plays what is done with a batch."""

    run = "realtime-1"

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        #: What becomes of a log; None while its document is not there; an error is raised.
        self.end: Callable[[str], End | Exception | None] = lambda id: WRITTEN
        self.given_up: list[str] = []
        self.looked_again = 0
        #: A batch waits for it.
        self.may_end = threading.Event()
        self.may_end.set()

    def work(
        self, logs: Sequence[WantedLog], *, tried: bool, give_up: str = ""
    ) -> list[End | None]:
        self.batches.append([one.id for one in logs])
        self.given_up.append(give_up)
        assert self.may_end.wait(60)
        ends: list[End | None] = []
        for one in logs:
            end = self.end(one.id)
            if isinstance(end, Exception):
                raise end
            ends.append(end)
        return ends

    def prepare_again(self) -> None:
        self.looked_again += 1


class Desk:
    """A consumer with what it works on."""

    def __init__(self, ledger: Ledger | None = None, **settings: Any) -> None:
        self.seconds = 1000.0
        self.settings = load_settings(
            _env_file=None, openai_api_key="k", enrichment_batch_size=2, **settings
        )
        self.ledger = ledger or in_memory_ledger()
        self.work = Work()
        self.broker = InMemoryBroker(
            lambda: {
                "assigned": self.consumer.assigned,
                "revoked": self.consumer.revoked,
                "lost": self.consumer.lost,
            }
        )
        self.consumer = self._consumer()
        self.thread: threading.Thread | None = None
        self.error: BaseException | None = None

    def _consumer(self) -> Consumer:
        reader = MessageReader(
            self.settings.log_schema,
            id_fields=self.settings.kafka_id_fields,
            project_fields=self.settings.kafka_project_fields,
        )
        return Consumer(self.settings, reader, self.work, self.ledger, clock=lambda: self.seconds)

    def begin(self) -> None:
        def run() -> None:
            try:
                self.consumer.run(self.broker)
            except BaseException as error:
                self.error = error

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def until(self, holds: Callable[[], bool], step: float = 0.05) -> None:
        """Wait for something; the consumer's clock goes on meanwhile, in such steps."""
        deadline = time.monotonic() + 60
        while not holds():
            assert self.error is None, self.error
            assert time.monotonic() < deadline
            self.seconds += step
            time.sleep(0.001)

    def end(self) -> None:
        self.consumer.stop()
        assert self.thread is not None
        self.thread.join(60)
        assert not self.thread.is_alive()

    def during_a_poll(self, what: Callable[[], None]) -> None:
        """Do something on the consumer's thread, where Kafka would."""
        done = threading.Event()

        def once() -> None:
            self.broker.at_poll = lambda: None
            what()
            done.set()

        self.broker.at_poll = once
        self.until(done.is_set)

    def committed(self, place: tuple[str, int] = A) -> int | None:
        return self.broker.partitions[place].committed

    @property
    def counts(self) -> dict[str, int]:
        return {name: n for name, n in self.summary.outcomes.items() if n}

    @property
    def summary(self) -> RealtimeSummary:
        (summary,) = self.ledger.realtime.summary()
        return summary


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_every_message_is_counted_once_and_committed(desk: Desk) -> None:
    desk.broker.produce(A, message("a"), message("i", "INFO"), b"not json", None, message("b"))
    desk.broker.produce(B, message("c"), message("d", "DEBUG"))
    desk.begin()
    desk.until(lambda: (desk.committed(A), desk.committed(B)) == (5, 2))
    desk.end()
    assert desk.counts == {"embedded": 3, "other_level": 2, "poison": 2}
    assert desk.summary.messages == 7
    assert sorted(id for batch in desk.work.batches for id in batch) == ["a", "b", "c"]
    assert desk.broker.closed


def test_a_batch_begins_when_it_is_full_or_its_first_log_has_waited() -> None:
    desk = Desk(enrichment_batch_timeout=5)
    desk.broker.produce(A, message("a"))
    desk.begin()
    desk.until(lambda: desk.broker.polls > 3)
    assert desk.work.batches == []
    desk.seconds += 5
    desk.until(lambda: desk.work.batches == [["a"]])
    began = desk.seconds
    desk.broker.produce(A, message("b"), message("c"))
    desk.until(lambda: len(desk.work.batches) == 2)
    assert desk.seconds - began < 5
    assert desk.work.batches[1] == ["b", "c"]
    desk.end()


def test_a_batch_is_gathered_across_partitions() -> None:
    desk = Desk(enrichment_batch_timeout=300)
    desk.broker.produce(A, message("a"))
    desk.broker.produce(B, message("b"))
    desk.begin()
    desk.until(lambda: desk.work.batches == [["a", "b"]], step=0)
    desk.until(lambda: (desk.committed(A), desk.committed(B)) == (1, 1))
    desk.end()


def test_messages_of_other_levels_alone_are_committed_too(desk: Desk) -> None:
    desk.broker.produce(A, *(message(f"{n}", "INFO") for n in range(1000)))
    desk.begin()
    desk.until(lambda: desk.committed() == 1000)
    desk.end()
    assert desk.counts == {"other_level": 1000}
    assert desk.work.batches == []


def test_a_log_whose_document_is_late_holds_back_its_own_partition_alone(desk: Desk) -> None:
    desk.broker.produce(A, message("a"), message("late"), message("b"), message("i", "INFO"))
    desk.broker.produce(B, message("c"), message("d"))
    there = threading.Event()
    desk.work.end = lambda id: WRITTEN if id != "late" or there.is_set() else None
    desk.begin()
    desk.until(lambda: desk.committed(B) == 2 and desk.committed(A) == 1)
    there.set()
    desk.until(lambda: desk.committed(A) == 4)
    desk.end()
    assert desk.counts == {"embedded": 5, "other_level": 1}
    # Those that were through were not worked on again.
    assert sum(batch.count("b") for batch in desk.work.batches) == 1


def test_a_log_without_a_document_is_left_to_the_backfill_after_a_while(desk: Desk) -> None:
    desk.broker.produce(A, message("none"), message("a"))
    desk.work.end = lambda id: None if id == "none" else WRITTEN
    desk.begin()
    desk.until(lambda: desk.committed() == 2)
    desk.end()
    assert desk.counts == {"embedded": 1, "left": 1}
    (why,) = desk.summary.left_reasons
    assert why.startswith("its document was not there in time")
    assert sum(batch.count("none") for batch in desk.work.batches) > 5


@pytest.mark.parametrize(
    "error",
    [
        ServerUnavailable("OpenSearch is away"),
        RateLimited("no permit", 1.0),
        Halt("the key is refused"),
    ],
)
def test_what_fails_as_a_whole_is_waited_for_while_polling_goes_on(
    desk: Desk, error: Exception
) -> None:
    desk.broker.produce(A, message("a"), message("b"))
    well = threading.Event()
    desk.work.end = lambda id: WRITTEN if well.is_set() else error
    desk.begin()
    desk.until(lambda: desk.broker.paused == {A})
    polls = desk.broker.polls
    desk.broker.produce(A, message("c"))
    desk.until(lambda: desk.broker.polls > polls + 20 and len(desk.work.batches) > 1, step=1)
    assert desk.committed() is None
    assert desk.work.looked_again >= isinstance(error, Halt)
    desk.until(
        lambda: [(one.doing, one.why) for one in desk.summary.consumers] == [("paused", str(error))]
    )
    well.set()
    desk.until(lambda: desk.committed() == 3, step=1)
    assert not desk.broker.paused
    desk.end()
    assert desk.counts == {"embedded": 3}
    assert not any(desk.work.given_up)


def test_indices_in_trouble_are_given_up_after_some_tries(desk: Desk) -> None:
    desk.broker.produce(A, message("a"), message("b"))
    desk.work.end = lambda id: IndexInTrouble("an index refuses writes for now")
    desk.begin()
    desk.until(lambda: any(desk.work.given_up), step=1)
    desk.work.end = lambda id: End("left", "an index refuses writes for now")
    desk.until(lambda: desk.committed() == 2)
    desk.end()
    assert desk.counts == {"left": 2}


def test_logs_that_cannot_even_be_left_in_order_stop_no_partition(desk: Desk) -> None:
    desk.broker.produce(A, message("a"), message("b"))
    desk.work.end = lambda id: IndexInTrouble("nothing can be read")
    desk.begin()
    desk.until(lambda: desk.committed() == 2, step=1)
    desk.end()
    assert desk.counts == {"left": 2}
    assert desk.summary.left_reasons == {"nothing can be read": 2}


def test_a_fault_of_the_program_ends_it_and_commits_nothing(desk: Desk) -> None:
    desk.broker.produce(A, message("a"), message("b"))
    desk.work.end = lambda id: KeyError("a fault")
    desk.begin()
    assert desk.thread is not None
    desk.thread.join(60)
    assert isinstance(desk.error, KeyError)
    assert desk.committed() is None
    assert desk.broker.closed


def test_one_that_kafka_refuses_is_missed_with_its_reason(desk: Desk) -> None:
    why = "Kafka at k:9093: KAFKA_SASL_USERNAME u may not read the topic: give it Read"

    def refuse() -> None:
        raise AccessRefused(why)

    desk.broker.produce(A, message("a"))
    desk.begin()
    desk.during_a_poll(lambda: desk.broker.assign(A))
    desk.until(lambda: desk.committed() == 1)
    desk.broker.at_poll = refuse
    assert desk.thread is not None
    desk.thread.join(60)
    assert isinstance(desk.error, AccessRefused)
    assert desk.broker.closed
    (consumer,) = desk.summary.consumers
    assert (consumer.doing, consumer.why, consumer.alive) == ("ended", why, False)
    assert not desk.summary.consumers_alive


# -- partitions come and go


def test_a_partition_that_is_given_up_is_finished_before(desk: Desk) -> None:
    desk.broker.produce(A, message("a"), message("b"))
    desk.broker.produce(B, message("c"), message("d"))
    desk.work.may_end.clear()
    desk.begin()
    desk.until(lambda: bool(desk.work.batches))
    threading.Timer(0.05, desk.work.may_end.set).start()
    desk.during_a_poll(lambda: desk.broker.revoke(A))
    # `InMemoryBroker.commit` refuses what was given up.
    assert desk.committed(A) == 2
    desk.until(lambda: desk.committed(B) == 2)
    desk.end()
    assert desk.counts == {"embedded": 4}


def test_what_is_not_through_in_time_is_dropped_and_done_by_the_next(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "GIVE_UP_SECONDS", 0.01)
    desk.broker.produce(A, message("a"), message("b"))
    desk.broker.produce(B, message("c"), message("d"))
    desk.work.may_end.clear()
    desk.begin()
    desk.until(lambda: bool(desk.work.batches))
    desk.during_a_poll(lambda: desk.broker.revoke(A))
    desk.work.may_end.set()
    desk.until(lambda: desk.committed(B) == 2)
    assert desk.committed(A) is None
    assert desk.counts == {"embedded": 2}
    desk.during_a_poll(lambda: desk.broker.assign(A))
    desk.until(lambda: desk.committed(A) == 2)
    desk.end()
    assert desk.counts == {"embedded": 4}


def test_a_partition_that_was_lost_is_not_committed(desk: Desk) -> None:
    desk.broker.produce(A, message("a"), message("b"))
    desk.work.may_end.clear()
    desk.begin()
    desk.until(lambda: bool(desk.work.batches))
    desk.during_a_poll(lambda: desk.broker.revoke(A, lost=True))
    desk.work.may_end.set()
    polls = desk.broker.polls
    desk.until(lambda: desk.broker.polls > polls + 20)
    assert desk.committed(A) is None
    desk.end()


def test_who_comes_after_a_crash_counts_nothing_twice() -> None:
    first = Desk()
    first.broker.takes_commits = False
    first.broker.produce(A, message("a"), message("i", "INFO"), message("b"), b"{")
    first.begin()
    first.until(lambda: bool(first.ledger.realtime.summary()) and first.summary.messages == 4)
    # It dies here: counted, and never committed.
    first.consumer.stop()
    second = Desk(first.ledger)
    second.broker.partitions = first.broker.partitions
    second.broker.produce(A, message("c"))
    second.begin()
    second.until(lambda: second.committed() == 5)
    second.end()
    assert second.counts == {"embedded": 3, "other_level": 1, "poison": 1}


def test_offsets_that_are_set_back_move_no_count(desk: Desk) -> None:
    desk.broker.produce(A, *(message(f"{n}") for n in range(10)))
    desk.begin()
    desk.until(lambda: desk.committed() == 10)
    desk.during_a_poll(lambda: desk.broker.revoke(A))
    desk.broker.partitions[A].committed = 3
    desk.during_a_poll(lambda: desk.broker.assign(A))
    desk.until(lambda: sum(map(len, desk.work.batches)) == 17)
    desk.broker.produce(A, message("new"), message("newer"))
    desk.until(lambda: desk.committed() == 12)
    desk.end()
    assert desk.counts == {"embedded": 12}


def test_a_topic_that_was_made_anew_is_counted_anew(desk: Desk) -> None:
    desk.broker.produce(A, *(message(f"{n}") for n in range(10)))
    desk.begin()
    desk.until(lambda: desk.committed() == 10)

    def make_anew() -> None:
        desk.broker.make_anew(A)
        desk.broker.produce(A, message("x"), message("y"))

    desk.during_a_poll(make_anew)
    desk.until(lambda: desk.committed() == 2)
    desk.end()
    assert desk.counts == {"embedded": 12}


def test_what_kafka_has_removed_is_told(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.broker.produce(A, *(message(f"{n}") for n in range(10)))
    desk.broker.partitions[A].committed = 2
    desk.broker.remove_before(A, 6)
    desk.begin()
    desk.until(lambda: desk.committed() == 10)
    assert "logs/0 from offset 2 to 5 are gone" in caplog.text

    def while_it_reads() -> None:
        desk.broker.produce(A, *(message(f"later {n}") for n in range(10)))
        desk.broker.remove_before(A, 16)

    desk.during_a_poll(while_it_reads)
    desk.until(lambda: desk.committed() == 20)
    assert "logs/0 from offset 10 to 15 are gone" in caplog.text
    desk.end()
    assert desk.counts == {"embedded": 8}


# -- servers and operators


def test_nothing_is_committed_that_is_not_counted(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = True
    settle = desk.ledger.realtime.settle

    def settled(*arguments: Any, **more: Any) -> Any:
        if away:
            raise ServerUnavailable("Redis cannot be reached")
        return settle(*arguments, **more)

    monkeypatch.setattr(desk.ledger.realtime, "settle", settled)
    desk.broker.produce(A, message("a"), message("b"))
    desk.begin()
    desk.until(lambda: desk.broker.paused == {A})
    assert desk.committed() is None
    away = False
    desk.until(lambda: desk.committed() == 2 and not desk.broker.paused)
    desk.end()
    assert desk.counts == {"embedded": 2}
    assert desk.work.batches == [["a", "b"]]


def test_an_operator_pauses_it(desk: Desk) -> None:
    desk.ledger.controls.pause()
    desk.broker.produce(A, message("a"), message("b"))
    desk.begin()
    desk.until(lambda: desk.broker.paused == {A})
    desk.ledger.controls.resume()
    desk.broker.produce(A, message("c"), message("d"))
    desk.until(lambda: desk.committed() == 4)
    desk.end()
    assert desk.counts == {"embedded": 4}


def test_no_more_is_read_than_may_wait(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "MESSAGES", 10)
    monkeypatch.setattr(loop, "MOST_LOGS", 20)
    monkeypatch.setattr(loop, "BATCHES_AHEAD", 2)
    desk.broker.produce(A, *(message(f"{n}") for n in range(500)))
    desk.work.may_end.clear()
    desk.begin()
    desk.until(lambda: desk.broker.paused == {A})
    polls = desk.broker.polls
    desk.until(lambda: desk.broker.polls > polls + 20)
    assert desk.broker.partitions[A].position <= 80
    desk.work.may_end.set()
    desk.until(lambda: desk.committed() == 500)
    desk.end()
    assert desk.counts == {"embedded": 500}
    assert max(map(len, desk.work.batches)) <= 20


def test_at_the_end_the_batch_at_work_is_finished_and_committed(desk: Desk) -> None:
    desk.broker.produce(A, message("a"), message("b"))
    desk.work.may_end.clear()
    desk.begin()
    desk.until(lambda: bool(desk.work.batches))
    desk.consumer.stop()
    threading.Timer(0.05, desk.work.may_end.set).start()
    desk.end()
    assert desk.committed() == 2
    assert desk.counts == {"embedded": 2}
    assert desk.summary.consumers == []


def test_a_batch_that_does_not_end_in_time_is_given_up_at_the_end(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "GRACE_SECONDS", 0.01)
    # Not waited for once more when its partitions are given up.
    monkeypatch.setattr(loop, "GIVE_UP_SECONDS", 600.0)
    desk.broker.produce(A, message("a"), message("b"))
    desk.broker.produce(B, message("i", "INFO"))
    desk.work.may_end.clear()
    desk.begin()
    desk.until(lambda: bool(desk.work.batches))
    desk.end()
    assert desk.broker.closed
    assert (desk.committed(A), desk.committed(B)) == (None, 1)
    assert desk.counts == {"other_level": 1}
    assert desk.summary.consumers == []
    desk.work.may_end.set()


def test_poison_is_told_by_its_place_and_never_by_its_text(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.broker.produce(A, b'{"level": "ERROR", "message": "secret text", "project_uuid": "p"')
    desk.broker.produce(A, *[b"\xff" * 5] * 300)
    desk.begin()
    desk.until(lambda: desk.committed() == 301)
    assert "poison at logs/0 offset 0: not_json" in caplog.text
    assert "secret" not in caplog.text
    assert caplog.text.count("poison at") < 110
    # A minute later there are lines again.
    desk.seconds += 61
    desk.broker.produce(A, b"{")
    desk.until(lambda: desk.committed() == 302)
    assert "poison at logs/0 offset 301: not_json" in caplog.text
    desk.end()
    assert desk.counts == {"poison": 302}

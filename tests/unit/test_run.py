"""A run in memory: whatever is delivered twice, late or never, and whatever fails, sums agree.

tests/integration/test_delivery.py has some of it on servers.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from enrich.enrichment.enricher import MAX_WORKERS_LOST
from enrich.errors import (
    AccessRefused,
    EnrichError,
    IndexBeingTried,
    IndexInTrouble,
    RateLimited,
    ServerUnavailable,
    TransientError,
)
from enrich.log_store.in_memory import OVERLOADED
from enrich.models import Chunk, RunRecord
from enrich.text.extract import fingerprint
from tests.deliveries import deliver_each_twice
from tests.memory_pipeline import MemoryPipeline, assert_adds_up, logs

A, B = "a_2026_11", "b_2026_11"
NO_SHRINKING = [phase for phase in Phase if phase is not Phase.shrink]


def with_logs(count: int = 30, **overrides: Any) -> MemoryPipeline:
    one = MemoryPipeline(**{"enrich_batch_size": 10, **overrides})
    one.put(A, logs(count, count))
    return one


def begin(one: MemoryPipeline) -> str:
    """Begin a run and read its first page."""
    one.publisher.find_unvectorized("beat")
    one.deliver()
    return one.ledger.runs.active()


def chunks(one: MemoryPipeline) -> list[Chunk]:
    return [
        Chunk.from_message(*arguments)
        for name, arguments in one.messages
        if name == "embed_and_update"
    ]


def finish(one: MemoryPipeline) -> RunRecord:
    """Deliver all that is sent; the record of the last run."""
    while one.messages:
        one.deliver()
    return one.ledger.records.last(1)[0]


# -- messages


def test_every_message_delivered_twice_counts_once() -> None:
    one = with_logs(enrich_max_chunks_in_flight=2)
    deliver_each_twice(one)
    record = one.run()
    assert_adds_up(record)
    assert record.found == record.vectors_written == record.api_inputs == one.vectorised() == 30
    assert one.ledger.records.totals().vectors == 30


def test_a_lost_message_is_deferred_by_its_deadline_and_counted_if_it_comes_late() -> None:
    one = with_logs()
    run = begin(one)
    lost, *_ = chunks(one)
    one.messages.popleft()
    while one.messages:
        one.deliver()
    assert one.ledger.runs.active() == run, "the run waits for its lost chunk"
    one.backfill.recover(run)
    assert one.ledger.runs.active() == run, "its deadline has not passed"

    one.later = one.settings.enrich_chunk_deadline_seconds + 1
    one.backfill.recover(run)
    finish(one)
    first = one.ledger.records.of(run)
    assert_adds_up(first)
    assert (first.vectors_written, first.deferred) == (20, 10)
    # Delivered after all, it changes no log: the next run finds them.
    assert "settled before" in one.backfill.embed_and_update(lost)
    assert one.vectorised() == 20
    assert one.run().vectors_written == 10


def test_work_that_ends_after_a_halt_corrects_the_record() -> None:
    one = with_logs()
    run = begin(one)
    chunk, *_ = chunks(one)
    one.ledger.chunks.begin(chunk.id, "another host/1", 120)
    one.backfill.halt(run, "the key is refused")
    finish(one)
    record = one.ledger.records.of(run)
    assert (record.state, record.deferred, record.found) == ("halted", 30, 30)
    outcomes = {"embedded": 10}
    assert one.ledger.chunks.settle(chunk.id, outcomes)[0] == "corrected"
    record = one.ledger.records.of(run)
    assert (record.embedded, record.deferred, record.settled) == (10, 20, 30)


def test_a_delivery_whose_worker_was_lost_is_done_by_the_next() -> None:
    one = with_logs(10)
    begin(one)
    (chunk,) = chunks(one)
    one.messages.clear()
    one.ledger.chunks.begin(chunk.id, "lost-host/1", 120)
    with pytest.raises(TransientError, match="another delivery"):
        one.backfill.embed_and_update(chunk)
    one.later = 121
    assert one.backfill.embed_and_update(chunk) == "10 found: 10 embedded, 0 failed"


def lose(one: MemoryPipeline, chunk: Chunk, times: int, alone: str = "") -> None:
    """Begin a chunk and lose the worker, so many times; the last one at a text alone."""
    for n in range(times):
        assert one.ledger.chunks.begin(chunk.id, f"lost-host/{n}", 120).verdict == "go"
        if alone:
            one.ledger.chunks.note_alone(chunk.id, f"lost-host/{n}", alone)
        one.later += 121


def test_a_text_that_takes_its_worker_down_alone_fails_and_no_other() -> None:
    one = with_logs(10)
    begin(one)
    (chunk,) = chunks(one)
    culprit = chunk.references[3]
    lose(one, chunk, 3, fingerprint(one.sources(A)[culprit.id]["message"]))
    assert one.backfill.embed_and_update(chunk) == "10 found: 9 embedded, 1 failed"
    assert one.sources(A)[culprit.id]["ai_enrichment_error"] == "worker_lost"


def test_a_chunk_that_no_worker_survives_is_deferred_unread() -> None:
    one = with_logs(10)
    begin(one)
    (chunk,) = chunks(one)
    one.messages.clear()
    lose(one, chunk, MAX_WORKERS_LOST + 1)
    assert one.backfill.embed_and_update(chunk) == "10 found: 0 failed, 10 deferred"
    assert one.embedder.requests == []
    assert_adds_up(finish(one))


def test_what_a_lost_worker_wrote_counts_when_its_chunk_is_given_up() -> None:
    one = with_logs(10)
    run = begin(one)
    (chunk,) = chunks(one)
    one.messages.clear()
    source = one.sources(A)["log3"]
    marks = {"ai_enrichment_run": run, "ai_vector_source": "embedded", "log_vector": [1.0]}
    one.store.put(A, "log3", {**source, **marks})
    assert one.backfill.give_up(chunk, "the API is away") == (
        "10 found: 1 embedded, 0 failed, 9 deferred"
    )
    assert one.ledger.records.of(run).deferral_reasons == {"the API is away": 9}


# -- pages


def test_a_page_that_is_being_read_is_not_read_twice() -> None:
    one = with_logs(enrich_max_chunks_in_flight=1)
    run = begin(one)
    assert one.ledger.pages.lease(run, 2, "another host/1", 60)
    one.messages.clear()
    assert one.backfill.scan(run, 2) == "no room for more chunks"
    one.ledger.chunks.settle(f"{run}:1:0", {"gone": 10})
    assert one.backfill.scan(run, 2) == "page 2 is being read"
    one.later = 61
    assert one.backfill.scan(run, 2).startswith("page 2: ")


def test_pages_and_chunks_of_runs_that_are_unknown_change_nothing() -> None:
    one = with_logs()
    run = begin(one)
    first, *_ = chunks(one)
    fresh = with_logs()
    assert fresh.backfill.scan(run, 1) == f"run {run} is over"
    assert "settled before" in fresh.backfill.embed_and_update(first)
    assert fresh.vectorised() == 0
    assert fresh.ledger.records.totals().runs == 0


def test_a_scan_that_stopped_is_taken_up_by_the_next_tick() -> None:
    one = with_logs(enrich_max_chunks_in_flight=1)
    run = begin(one)
    one.deliver()
    one.messages.clear()
    record = one.run("beat")
    assert record.run_id == run
    assert record.vectors_written == 30
    assert one.ledger.records.totals().ticks_skipped == 1


def test_open_chunks_stay_within_their_limit() -> None:
    one = with_logs(200, enrich_max_chunks_in_flight=4)
    most = 0

    def watch(name: str, arguments: Any) -> None:
        nonlocal most
        run = one.ledger.runs.active()
        most = max(most, one.ledger.runs.state(run).open_chunks if run else 0)

    one.before = watch
    assert one.run().vectors_written == 200
    assert most == 4


def test_a_chunk_that_waits_for_an_index_in_trouble_takes_no_slot() -> None:
    one = with_logs(40, enrich_max_chunks_in_flight=1)
    run = begin(one)
    (sick,) = chunks(one)
    one.messages.clear()
    one.embedder.trouble = lambda texts: ServerUnavailable("away")
    with pytest.raises(ServerUnavailable):
        one.backfill.embed_and_update(sick)
    assert list(one.messages) == [], "what all indices wait for holds its slot"
    one.embedder.trouble = lambda texts: None
    one.store.indices[A].answer = lambda write: OVERLOADED
    with pytest.raises(IndexInTrouble):
        one.backfill.embed_and_update(sick)
    assert list(one.messages) == [("scan_page", [run, 2])]
    one.store.indices[A].answer = lambda write: None
    one.backfill.embed_and_update(sick)
    record = finish(one)
    assert_adds_up(record)
    assert record.vectors_written == one.vectorised() == 40


def test_a_chunk_that_waits_for_the_try_of_an_index_takes_no_slot_either() -> None:
    one = with_logs(40, enrich_max_chunks_in_flight=1)
    run = begin(one)
    (waiting,) = chunks(one)
    one.messages.clear()
    one.store.indices[A].native = True
    assert one.ledger.index_states.lease(A, "another")
    with pytest.raises(IndexBeingTried):
        one.backfill.embed_and_update(waiting)
    assert list(one.messages) == [("scan_page", [run, 2])]
    one.ledger.index_states.release(A)
    one.backfill.embed_and_update(waiting)
    record = finish(one)
    assert_adds_up(record)
    assert record.vectors_written == one.vectorised() == 40


def test_paused_work_waits_and_goes_on() -> None:
    one = with_logs()
    one.ledger.controls.pause()
    one.publisher.find_unvectorized("beat")
    one.deliver()
    assert (one.lines, one.ledger.records.totals().runs) == (["skipped: paused"], 0)
    one.ledger.controls.resume()
    assert one.run("beat").vectors_written == 30


# -- limits


def test_the_cap_of_logs_a_run() -> None:
    one = with_logs(enrich_max_logs_per_run=10)
    for _ in range(3):
        record = one.run()
        assert_adds_up(record)
        assert record.found == 10
    assert one.run().found == 0
    # The third found the last ten, and nothing was left.
    assert [record.stopped_by for record in one.ledger.records.last(4)] == ["", "", "cap", "cap"]


def test_a_run_gives_way_to_the_next_tick_and_goes_on_at_once() -> None:
    one = with_logs(enrich_interval_minutes=1, enrich_max_chunks_in_flight=1)

    def slow(name: str, arguments: Any) -> None:
        one.later += 30

    one.before = slow
    one.run("beat")
    runs = one.ledger.records.last(50)
    assert len(runs) > 1
    assert {run.trigger for run in runs[:-1]} == {"continued"}
    assert all(run.found == run.settled for run in runs)
    assert sum(run.vectors_written for run in runs) == 30


def test_the_day_s_money_is_bounded_and_told() -> None:
    one = with_logs(
        enrich_max_cost_per_day=1, enrich_price_per_million_tokens=10_000,
        enrich_max_chunks_in_flight=1,
    )  # fmt: skip
    record = one.run()
    assert (record.more, record.stopped_by) == (True, "budget")
    assert 0 < record.vectors_written < 30
    assert one.run().found == 0


# -- any of it

TROUBLE = [None] * 6 + [ServerUnavailable("away"), RateLimited("slow down", 1)]


@settings(deadline=None, max_examples=25, derandomize=True, phases=NO_SHRINKING)
@given(st.data())
def test_whatever_is_delivered_in_any_order_and_fails_each_log_is_accounted_once(
    data: st.DataObject,
) -> None:
    draw = data.draw
    one = MemoryPipeline(
        enrich_batch_size=draw(st.integers(1, 6)),
        enrich_max_chunks_in_flight=draw(st.integers(1, 5)),
    )
    total = 0
    for index in (A, B, "c_2026_11")[: draw(st.integers(1, 3))]:
        count = draw(st.integers(0, 25))
        one.put(index, logs(count, draw(st.integers(1, 25))))
        total += count
        if draw(st.integers(0, 4)) == 0:
            turn = iter(draw(st.lists(st.booleans(), max_size=12)))
            one.store.indices[index].answer = lambda write, turn=turn: (
                OVERLOADED if next(turn, False) else None
            )
    troubles = iter(draw(st.lists(st.sampled_from(TROUBLE), max_size=12)))
    one.embedder.trouble = lambda texts: next(troubles, None)
    deadline = one.settings.enrich_chunk_deadline_seconds
    one.publisher.find_unvectorized("manual")
    tries: Counter[str] = Counter()
    lost = False
    for _ in range(3000):
        if not one.messages:
            run = one.ledger.runs.active()
            if not run:
                break
            # A tick recovers what was lost.
            one.later += deadline + 1
            one.backfill.recover(run)
            continue
        one.messages.rotate(-draw(st.integers(0, 2)))
        name, arguments = one.messages[0]
        match draw(st.sampled_from(["deliver"] * 8 + ["twice", "lose"])):
            case "twice":
                one.messages.append((name, arguments))
            case "lose":
                one.messages.popleft()
                lost |= name == "embed_and_update"
                continue
        try:
            one.publisher.deliver_first(one.backfill)
        except TransientError as error:
            if name == "embed_and_update":
                chunk = Chunk.from_message(*arguments)
                tries[chunk.id] += 1
                if tries[chunk.id] > 3:
                    one.backfill.give_up(chunk, str(error))
                    continue
            one.messages.append((name, arguments))
    assert not one.ledger.runs.active()
    for record in one.ledger.records.last(50):
        assert_adds_up(record)
        written = Counter(
            source.get("ai_enrichment_run")
            for index in one.store.indices
            for source in one.sources(index).values()
            if source.get("log_vector") is not None
        )
        # A retry that never comes may leave logs written that nobody has counted.
        assert written[record.run_id] >= record.vectors_written
        assert lost or written[record.run_id] == record.vectors_written
    # Whatever the first left, a quiet one does.
    one.embedder.trouble = lambda texts: None
    for index in one.store.indices.values():
        index.answer = lambda write: None
    for _ in range(3):
        one.later += 121
        record = finish_one(one)
        assert_adds_up(record)
    assert one.vectorised() == total


def finish_one(one: MemoryPipeline) -> RunRecord:
    one.publisher.find_unvectorized("manual")
    return finish(one)


@pytest.mark.parametrize("error", [AccessRefused("the key is refused (401)")])
def test_what_nobody_can_mend_halts_and_the_next_run_tries_one_text(error: EnrichError) -> None:
    one = with_logs()
    one.embedder.trouble = lambda texts: error
    record = one.run()
    assert (record.state, record.halt_reason) == ("halted", str(error))
    assert (record.found, record.deferred) == (30, 30)
    requests = len(one.embedder.requests)
    assert one.run().state == "halted"
    assert len(one.embedder.requests) == requests + 1
    one.embedder.trouble = lambda texts: None
    assert one.run().vectors_written == 30

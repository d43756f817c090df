"""The ledger: each page, chunk and run counts once, whatever is lost, doubled or comes late.

Every test runs in memory, on fakeredis and on a real server. The state machine draws deliveries in
any order, repetition and loss, with a crash possible between each two steps, and keeps books of its
own.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
import redis
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from enrich.errors import RunClosed
from enrich.ledger import Lease, Ledger, Scan
from enrich.ledger import runs as runs_room
from enrich.ledger.deployment import Configuration
from enrich.ledger.in_memory import InMemoryRedis, ledger_on
from enrich.ledger.refused import REFUSED_KEPT
from enrich.models import COUNTERS, VECTOR_OUTCOMES, Outcome, RunRecord
from tests.unit.conftest import connection_to

#: Time is the server's and cannot be moved, so limits are: none has passed, or all have.
NEVER, AT_ONCE = 3600.0, -1.0
#: Instead of the thousand that are kept otherwise.
RECORDS_KEPT = 100
EMPTY = Scan(pending=[], update_only=[], unsorted=[])
PREFIXES = (f"t{n}:" for n in itertools.count())


@pytest.fixture
def prefix() -> str:
    return next(PREFIXES)


@pytest.fixture(scope="module", params=["memory", "fakeredis", "valkey"])
def connection(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    yield from connection_to(request.param)


def ledger_of(connection: redis.Redis, prefix: str) -> Ledger:
    if isinstance(connection, InMemoryRedis):
        return ledger_on(connection, prefix)
    return Ledger(connection, prefix)


@pytest.fixture
def ledger(connection: redis.Redis, prefix: str) -> Ledger:
    return ledger_of(connection, prefix)


def opened(ledger: Ledger, trigger: str = "manual") -> str:
    answer = ledger.runs.open(trigger, 600)
    assert answer.verdict == "opened"
    return answer.run


def with_chunks(ledger: Ledger, *documents: int, done: bool = True) -> tuple[str, list[str]]:
    """A run with one page of chunks of so many documents."""
    run = opened(ledger)
    chunks = {f"{run}:1:{k}": n for k, n in enumerate(documents)}
    assert ledger.pages.register(run, 1, scan=EMPTY, scan_done=done, chunks=chunks) == "registered"
    return run, list(chunks)


# -- who else writes


def test_runs_of_another_redis_or_prefix_are_unknown(
    ledger: Ledger, connection: redis.Redis
) -> None:
    run = opened(ledger)
    elsewhere = opened(ledger_of(connection, next(PREFIXES)))
    assert ledger.runs.unknown([run, elsewhere, "", "no such run"]) == {
        elsewhere,
        "",
        "no such run",
    }
    ledger.runs.finish(run)
    assert ledger.runs.unknown([run]) == set(), "one that has ended is known all the same"
    assert ledger.runs.unknown([]) == set()
    ledger.counters.add(run, written_by_others=3)
    ledger.counters.add(run, written_by_others=2)
    assert ledger.records.of(run).written_by_others == 5


# -- open


def test_one_run_at_a_time(ledger: Ledger) -> None:
    run = opened(ledger)
    assert ledger.runs.active() == run
    for trigger in ("beat", "manual", "continued"):
        answer = ledger.runs.open(trigger, 600)
        assert (answer.verdict, answer.run) == ("active", run)
    # Only beat's ticks are ticks.
    assert ledger.records.totals().ticks_skipped == 1
    assert ledger.records.totals().runs == 1


def end(ledger: Ledger, run: str) -> None:
    ledger.pages.register(run, ledger.runs.state(run).page, scan=EMPTY, scan_done=True)
    assert ledger.runs.finish(run) == "finished"


def test_beat_begins_no_run_within_half_an_interval_of_the_last(ledger: Ledger) -> None:
    end(ledger, opened(ledger, "beat"))
    assert ledger.runs.open("beat", 600).verdict == "too_soon"
    assert ledger.records.totals().ticks_skipped == 1
    # A person and a run that goes on need not wait; nor does beat after the time.
    end(ledger, opened(ledger, "manual"))
    end(ledger, opened(ledger, "continued"))
    assert ledger.runs.open("beat", 0).verdict == "opened"


@pytest.mark.parametrize("trigger", ["beat", "manual", "continued"])
def test_nothing_begins_while_paused(ledger: Ledger, trigger: str) -> None:
    ledger.controls.pause()
    assert ledger.controls.paused()
    assert ledger.runs.open(trigger, 600).verdict == "paused"
    assert ledger.runs.active() == ""
    ledger.controls.resume()
    assert ledger.runs.open(trigger, 600).verdict == "opened"


def test_ticks_leave_their_time_whether_they_begin_a_run_or_not(ledger: Ledger) -> None:
    assert ledger.controls.last_tick() is None
    opened(ledger, "manual")
    assert ledger.controls.last_tick() is None
    assert ledger.runs.open("beat", 600).verdict == "active"
    assert ledger.controls.last_tick() is not None


def test_runs_are_numbered_and_old_records_go(
    ledger: Ledger, connection: redis.Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert runs_room.RECORDS_KEPT == 1000
    monkeypatch.setattr(runs_room, "RECORDS_KEPT", RECORDS_KEPT)
    runs = []
    for _ in range(RECORDS_KEPT + 5):
        run, _ = with_chunks(ledger, 3)
        ledger.runs.skip(run, "i", "reason")
        ledger.chunks.expire(run, AT_ONCE)
        ledger.runs.finish(run)
        runs.append(run)
    records = ledger.records.last(RECORDS_KEPT + 5)
    assert [record.run_id for record in records] == runs[: -RECORDS_KEPT - 1 : -1]
    assert [record.number for record in records[:2]] == [105, 104]
    assert ledger.records.totals().runs == 105
    with pytest.raises(RunClosed):
        ledger.records.of(runs[0])
    # Nor is the history owed any more what cannot be told.
    assert len(ledger.history.owed()) == RECORDS_KEPT
    left = {key for run in runs[:5] for key in connection.keys(f"{prefix}run:{run}*")}
    assert left == set()
    # Work for a run that is forgotten changes nothing.
    assert ledger.chunks.settle(f"{runs[0]}:1:0", {"embedded": 3})[0] == "closed"
    assert ledger.records.totals().vectors == 0


def test_what_the_history_is_owed(ledger: Ledger) -> None:
    debt = ledger.history
    run, (chunk,) = with_chunks(ledger, 3)
    ledger.chunks.begin(chunk, "host/1", NEVER)
    assert debt.owed() == [] and debt.lag().runs == 0, "one that is active is not"
    ledger.runs.halt(run, "why")
    ledger.runs.finish(run)
    read = debt.owed()
    assert [one.run for one in read] == [run] and debt.lag().runs == 1
    # Corrected while it is written: what was written is not what there is.
    ledger.chunks.settle(chunk, {"embedded": 3})
    debt.recorded(read)
    assert [one.run for one in debt.owed()] == [run]
    assert debt.owed()[0].since == read[0].since
    debt.recorded(debt.owed())
    assert debt.owed() == []
    # A correction lowers the record, and no total.
    assert ledger.records.of(run).deferred == 0
    totals = ledger.records.totals()
    assert (totals.counts["deferred"], totals.counts["embedded"]) == (3, 3)
    assert totals.ended == {"halted": 1}
    assert totals.run_durations is not None and totals.run_durations.within["+Inf"] == 1


def test_earlier_totals_are_taken_over_once(ledger: Ledger) -> None:
    run, (chunk,) = with_chunks(ledger, 2)
    ledger.chunks.settle(chunk, {"cached": 2})
    ledger.runs.finish(run)
    ledger.history.recorded(ledger.history.owed())
    assert not ledger.history.taken_over()
    for _ in range(2):
        ledger.history.take_over({"vectors": 40, "runs": 7, "chunk|60": 5, "ended|finished": 6})
    assert ledger.history.taken_over()
    totals = ledger.records.totals()
    assert (totals.vectors, totals.runs, totals.ended) == (42, 8, {"finished": 7})
    assert totals.chunk_durations is not None and totals.chunk_durations.within["60"] == 5
    assert ledger.records.of(opened(ledger)).number == 9
    # Runs of before anybody kept a history are owed.
    assert [one.run for one in ledger.history.owed()] == [run]


def test_a_move_that_redis_was_asked_twice_is_done_once(
    ledger: Ledger, connection: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client asks again where an answer was lost; the second answer must be as good."""
    once = ledger._keys.move

    def twice(name: str, *arguments: Any) -> Any:
        once(name, *arguments)
        return once(name, *arguments)

    monkeypatch.setattr(ledger._keys, "move", twice)
    run, other = ledger.runs.open("beat", 600), ledger.runs.open("beat", 600)
    assert (run.verdict, run.number, ledger.records.totals().runs) == ("opened", 1, 1)
    assert (other.verdict, other.run) == ("active", run.run)
    monkeypatch.setattr(ledger._keys, "move", once)
    chunk = f"{run.run}:1:0"
    ledger.pages.register(run.run, 1, scan=EMPTY, scan_done=True, chunks={chunk: 5})
    monkeypatch.setattr(ledger._keys, "move", twice)
    first = ledger.chunks.begin(chunk, "host/1", 60)
    assert (first.verdict, first.workers_lost) == ("go", 0)
    assert ledger.chunks.begin(chunk, "host/1", 60).verdict == "busy"
    ledger.counters.add(run.run, micro_usd=7, api_inputs=3)
    ledger.counters.add(run.run, micro_usd=7, api_inputs=3)
    record = ledger.records.of(run.run)
    assert (record.api_inputs, record.estimated_cost_usd) == (6, 14e-6)
    assert ledger.spending.today_usd() == 14e-6
    # A lease that has ended was lost, once.
    assert ledger.chunks.begin(chunk, "host/2", 0).verdict == "go"
    assert ledger.chunks.begin(chunk, "host/3", 0).workers_lost == 2


# -- register


def test_page_is_registered_once_and_in_turn(ledger: Ledger) -> None:
    run = opened(ledger)
    chunks = {f"{run}:1:0": 5}
    assert ledger.pages.register(run, 2, scan=EMPTY, scan_done=False, chunks=chunks) == "stale"
    assert ledger.pages.register(run, 1, scan=EMPTY, scan_done=False, chunks=chunks) == "registered"
    assert ledger.pages.register(run, 1, scan=EMPTY, scan_done=True, chunks=chunks) == "stale"
    record = ledger.records.of(run)
    assert (record.found, record.chunks, record.chunks_open) == (5, 1, 1)
    assert ledger.runs.state(run) == (1, 2, False, "running")
    assert ledger.pages.register(run, 2, scan=EMPTY, scan_done=True) == "registered"
    assert ledger.pages.register(run, 3, scan=EMPTY, scan_done=True, chunks=chunks) == "closed"
    assert (
        ledger.pages.register("unknown", 1, scan=EMPTY, scan_done=True, chunks=chunks) == "closed"
    )
    assert ledger.records.of(run).found == 5


def test_a_survey_is_kept_once_and_gives_way_to_pages(ledger: Ledger) -> None:
    run = ledger.runs.open("manual", 600).run
    first = Scan(pending=[("a", None)], update_only=[], unsorted=[])
    second = Scan(pending=[("b", None)], update_only=[], unsorted=[])
    assert ledger.pages.begin(run, first) == first
    assert ledger.pages.begin(run, second) == first, "another caller was before"
    ledger.pages.register(run, 1, scan=second, scan_done=False)
    assert ledger.pages.begin(run, first) == second, "a late survey takes no page back"
    ledger.runs.halt(run, "no more")
    ledger.runs.finish(run)
    ledger.pages.begin(run, first)
    assert ledger.pages.scan(run) is None


def test_scan_is_handed_to_the_next_page_as_it_was(ledger: Ledger) -> None:
    run = opened(ledger)
    assert ledger.pages.scan(run) is None
    scan = Scan(
        pending=[("a_2026_01", None), ("b_2026_01", [1767225600000, 7]), ("é", [None, 2**60])],
        update_only=["b_2026_01"],
        unsorted=[],
        nodes=3,
        left={"a_2026_01": 10, "b_2026_01": 7},
    )
    ledger.pages.register(
        run, 1, scan=scan, scan_done=False, skipped={"c": "red"}, indices=["a_2026_01"]
    )
    assert ledger.pages.scan(run) == scan
    assert ledger.runs.skipped(run) == {"c": "red"}
    assert ledger.pages.indices(run) == ["a_2026_01"]


def test_scan_of_another_version_is_read_as_far_as_it_is_known() -> None:
    scan = Scan.from_json('{"pending": [["a", null]], "update_only": [], "unsorted": [], "new": 1}')
    assert scan == Scan(pending=[("a", None)], update_only=[], unsorted=[], nodes=1)


def test_outbox_keeps_what_is_open_of_the_last_page_until_it_is_sent(ledger: Ledger) -> None:
    run = opened(ledger)
    messages = [{"id": f"{run}:1:{k}", "references": [["i", "ü", None, 1, 1]]} for k in range(2)]
    chunks = {str(message["id"]): 1 for message in messages}
    ledger.pages.register(run, 1, scan=EMPTY, scan_done=False, chunks=chunks, messages=messages)
    assert ledger.pages.outbox(run) == messages
    ledger.chunks.settle(f"{run}:1:0", {"gone": 1})
    assert ledger.pages.outbox(run) == messages[1:]
    ledger.pages.sent(run, 2)  # late, of another page: changes nothing
    assert ledger.pages.outbox(run) == messages[1:]
    ledger.pages.sent(run, 1)
    assert ledger.pages.outbox(run) == []
    ledger.pages.register(run, 2, scan=EMPTY, scan_done=True, messages=messages)
    ledger.pages.sent(run, 1)
    assert ledger.pages.outbox(run) == messages[1:]


def test_one_caller_reads_a_page(ledger: Ledger) -> None:
    run = opened(ledger)
    assert ledger.pages.owner(run, 1) == ""
    assert ledger.pages.lease(run, 1, "a/1", 60)
    assert not ledger.pages.lease(run, 1, "b/2", 60)
    assert ledger.pages.owner(run, 1) == "a/1"
    assert ledger.pages.lease(run, 2, "b/2", 60)
    ledger.pages.release(run, 1)
    assert ledger.pages.lease(run, 1, "b/2", 60)


# -- begin


def test_lease_is_for_one_delivery(ledger: Ledger) -> None:
    _, (chunk,) = with_chunks(ledger, 3)
    assert ledger.chunks.begin(chunk, "host/1", NEVER) == Lease("go", "host/1", 0)
    busy = ledger.chunks.begin(chunk, "host/2", NEVER)
    assert (busy.verdict, busy.owner) == ("busy", "host/1")
    assert 0 < busy.seconds_left <= NEVER
    # The same process, too: it may have taken the message twice.
    assert ledger.chunks.begin(chunk, "host/1", NEVER).verdict == "busy"


def test_lease_ends_with_the_hard_limit_and_counts_a_lost_worker(ledger: Ledger) -> None:
    _, (chunk,) = with_chunks(ledger, 3)
    for lost in range(4):
        assert ledger.chunks.begin(chunk, f"host/{lost}", AT_ONCE) == Lease(
            "go", f"host/{lost}", lost, tried=lost > 0
        )


def test_owner_known_to_be_dead_is_taken_over_at_once(ledger: Ledger) -> None:
    _, (chunk,) = with_chunks(ledger, 3)
    ledger.chunks.begin(chunk, "host/1", NEVER)
    assert ledger.chunks.begin(chunk, "host/3", NEVER, dead="host/2").verdict == "busy"
    assert ledger.chunks.begin(chunk, "host/2", NEVER, dead="host/1") == Lease(
        "go", "host/2", 1, tried=True
    )


def test_lease_given_back_counts_no_lost_worker(ledger: Ledger) -> None:
    _, (chunk,) = with_chunks(ledger, 3)
    for n in range(3):
        lease = ledger.chunks.begin(chunk, f"host/{n}", NEVER)
        assert (lease.workers_lost, lease.tried) == (0, n > 0)
        ledger.chunks.release(chunk, "host/of another")
        assert ledger.chunks.begin(chunk, "host/x", NEVER).verdict == "busy"
        ledger.chunks.release(chunk, f"host/{n}")


def test_lease_given_back_on_a_deferred_chunk_leaves_it_to_the_next_delivery(
    ledger: Ledger,
) -> None:
    run, (chunk,) = with_chunks(ledger, 3)
    ledger.chunks.begin(chunk, "host/1", NEVER)
    ledger.runs.halt(run, "why")
    ledger.chunks.release(chunk, "host/of another")
    assert not ledger.chunks.unaccounted(chunk, NEVER)
    ledger.chunks.release(chunk, "host/1")
    assert ledger.chunks.unaccounted(chunk, NEVER)


def test_worker_lost_to_a_shutdown_is_not_held_against_its_text(ledger: Ledger) -> None:
    _, (chunk,) = with_chunks(ledger, 3)
    ledger.chunks.begin(chunk, "web-1/7", NEVER)
    ledger.chunks.note_alone(chunk, "web-1/7", "f00d")
    ledger.controls.note_shutdown("web-1", 300)
    assert ledger.chunks.begin(chunk, "web-2/8", AT_ONCE) == Lease("go", "web-2/8", 0, tried=True)
    ledger.chunks.note_alone(chunk, "web-2/8", "beef")
    # Another host's shutdown excuses nothing.
    assert ledger.chunks.begin(chunk, "web-3/9", AT_ONCE) == Lease(
        "go", "web-3/9", 1, alone="beef", tried=True
    )


def test_text_handled_alone_is_known_after_its_worker_was_lost(ledger: Ledger) -> None:
    _, (chunk,) = with_chunks(ledger, 3)
    ledger.chunks.begin(chunk, "host/1", NEVER)
    ledger.chunks.note_alone(chunk, "host/of another", "beef")
    ledger.chunks.note_alone(chunk, "host/1", "f00d")
    assert ledger.chunks.begin(chunk, "host/2", AT_ONCE).alone == "f00d"
    ledger.chunks.release(chunk, "host/2")
    assert ledger.chunks.begin(chunk, "host/3", NEVER).alone == ""


def test_begin_is_closed_for_what_is_settled_or_unknown(ledger: Ledger) -> None:
    run, (chunk, other) = with_chunks(ledger, 3, 4)
    ledger.chunks.settle(chunk, {"cached": 3})
    assert ledger.chunks.begin(chunk, "host/1", NEVER).verdict == "closed"
    assert ledger.chunks.begin(f"{run}:1:9", "host/1", NEVER).verdict == "closed"
    assert ledger.chunks.begin("unknown:1:0", "host/1", NEVER).verdict == "closed"
    ledger.runs.halt(run, "why")
    assert ledger.chunks.begin(other, "host/1", NEVER).verdict == "closed"


# -- settle, expire, halt


def outcomes_of(ledger: Ledger, run: str) -> dict[str, int]:
    record = ledger.records.of(run)
    return {o.value: n for o in Outcome if (n := getattr(record, o.value))}


def test_chunk_is_settled_once(ledger: Ledger) -> None:
    run, (chunk, _) = with_chunks(ledger, 5, 1)
    outcomes = {"embedded": 2, "duplicate": 1, "failed": 1, "gone": 1}
    verdict, state = ledger.chunks.settle(chunk, outcomes, errors=2)
    assert (verdict, state) == ("settled", (1, 2, True, "running"))
    assert not state.over
    assert ledger.chunks.settle(chunk, outcomes, errors=2)[0] == "closed"
    record = ledger.records.of(run)
    assert outcomes_of(ledger, run) == outcomes
    assert (record.vectors_written, record.errors, record.chunks_open) == (3, 3, 1)
    assert (ledger.records.totals().vectors, ledger.records.totals().errors) == (3, 3)


@pytest.mark.parametrize("outcomes", [{}, {"embedded": 4}, {"embedded": 5, "failed": 1}])
def test_outcomes_that_do_not_add_up_are_refused(ledger: Ledger, outcomes: dict[str, int]) -> None:
    run, (chunk,) = with_chunks(ledger, 5)
    with pytest.raises(redis.ResponseError, match="registered were 5"):
        ledger.chunks.settle(chunk, outcomes)
    assert outcomes_of(ledger, run) == {}
    assert ledger.runs.state(run).open_chunks == 1
    ledger.chunks.expire(run, AT_ONCE)
    with pytest.raises(redis.ResponseError, match="registered were 5"):
        ledger.chunks.settle(chunk, outcomes)
    assert outcomes_of(ledger, run) == {"deferred": 5}


def test_chunk_past_its_deadline_is_deferred_and_corrected_when_it_ends_late(
    ledger: Ledger,
) -> None:
    run, (late, lost) = with_chunks(ledger, 5, 2)
    ledger.chunks.begin(late, "host/1", NEVER)
    assert ledger.chunks.expire(run, NEVER)[0] == 0
    expired, state = ledger.chunks.expire(run, AT_ONCE)
    assert expired == 2
    assert state.over
    assert outcomes_of(ledger, run) == {"deferred": 7}
    assert ledger.chunks.expire(run, AT_ONCE)[0] == 0
    assert ledger.chunks.begin(late, "host/2", NEVER).verdict == "closed"
    # Late even for its run.
    assert ledger.runs.finish(run) == "finished"
    assert ledger.chunks.settle(late, {"embedded": 4, "deferred": 1})[0] == "corrected"
    assert ledger.chunks.settle(late, {"embedded": 4, "deferred": 1})[0] == "closed"
    assert outcomes_of(ledger, run) == {"embedded": 4, "deferred": 3}
    record = ledger.records.of(run)
    assert record.settled == record.found == 7
    assert record.vectors_written == ledger.records.totals().vectors == 4
    assert lost


def test_waiting_chunk_does_not_expire_while_others_are_begun(
    ledger: Ledger, connection: redis.Redis
) -> None:
    run, (first, waiting) = with_chunks(ledger, 1, 1)
    registered = ledger.now()
    while ledger.now() < registered + 0.06:
        connection.ping()  # by the server's clock, which the deadline is measured with
    assert ledger.chunks.begin(first, "host/1", NEVER).verdict == "go"
    # A slow API must not turn waiting in the queue into loss.
    assert ledger.chunks.expire(run, 0.05)[0] == 0
    assert ledger.chunks.begin(waiting, "host/2", NEVER).verdict == "go"


def test_halt_defers_what_is_open_and_stops_the_scan(ledger: Ledger) -> None:
    run, (done, working, waiting) = with_chunks(ledger, 1, 2, 4, done=False)
    ledger.chunks.settle(done, {"reused": 1})
    ledger.chunks.begin(working, "host/1", NEVER)
    assert ledger.runs.halt(run, "the key was refused")
    assert not ledger.runs.halt(run, "another reason")
    assert ledger.runs.state(run) == (0, 2, True, "halted")
    assert ledger.pages.register(run, 2, scan=EMPTY, scan_done=False, chunks={"x": 1}) == "closed"
    assert ledger.chunks.settle(working, {"cached": 2})[0] == "corrected"
    assert outcomes_of(ledger, run) == {"reused": 1, "cached": 2, "deferred": 4}
    assert ledger.runs.finish(run) == "finished"
    record = ledger.records.of(run)
    assert (record.state, record.halt_reason, record.more) == (
        "halted",
        "the key was refused",
        True,
    )
    assert record.settled == record.found == 7
    assert record.stopped_by == "halt"
    assert not ledger.runs.halt(run, "too late")
    assert waiting


def test_run_ends_once_when_its_last_chunk_is_settled(ledger: Ledger) -> None:
    run, (chunk,) = with_chunks(ledger, 1, done=False)
    assert ledger.runs.finish(run) == "unfinished"
    ledger.pages.register(run, 2, scan=EMPTY, scan_done=True, more=True, stopped_by="time")
    assert ledger.runs.finish(run) == "unfinished"
    assert ledger.chunks.settle(chunk, {"gone": 1})[1].over
    assert ledger.runs.finish(run) == "finished"
    assert ledger.runs.finish(run) == "over"
    assert ledger.runs.finish("unknown") == "over"
    record = ledger.records.of(run)
    assert (record.state, record.more) == ("finished", True)
    assert record.finished_at is not None
    assert record.duration_seconds >= 0
    assert record.stopped_by == "time"
    assert ledger.runs.active() == ""


def test_run_lasts_until_its_last_chunk_is_settled_not_until_somebody_closes_it(
    ledger: Ledger,
) -> None:
    run, (first, last) = with_chunks(ledger, 1, 1)
    ledger.chunks.settle(first, {"gone": 1})
    ledger.chunks.settle(last, {"gone": 1})
    settled = ledger.now()
    while ledger.now() < settled + 0.05:
        pass
    assert ledger.runs.finish(run) == "finished"
    record = ledger.records.of(run)
    assert record.started_at is not None and record.finished_at is not None
    assert record.started_at.timestamp() <= record.finished_at.timestamp() <= settled
    assert ledger.records.totals().seconds == record.duration_seconds


def test_old_finish_does_not_end_the_next_run(ledger: Ledger) -> None:
    first, (chunk,) = with_chunks(ledger, 1)
    ledger.chunks.settle(chunk, {"gone": 1})
    ledger.runs.finish(first)
    second = opened(ledger)
    assert ledger.runs.finish(first) == "over"
    assert ledger.runs.active() == second


# -- a Redis that forgot


def test_nothing_is_counted_into_a_run_that_is_unknown(
    ledger: Ledger, connection: redis.Redis, prefix: str
) -> None:
    run, (chunk,) = with_chunks(ledger, 5)
    ledger.chunks.begin(chunk, "host/1", NEVER)
    connection.delete(*connection.keys(f"{prefix}*"))
    ledger.chunks.release(chunk, "host/1")
    ledger.chunks.note_alone(chunk, "host/1", "f00d")
    ledger.counters.add(run, retries=1, errors=3, api_requests=1)
    assert ledger.chunks.begin(chunk, "host/2", NEVER).verdict == "closed"
    assert ledger.chunks.settle(chunk, {"embedded": 5}, errors=1) == ("closed", (0, 0, False, ""))
    assert ledger.chunks.expire(run, AT_ONCE) == (0, (0, 0, False, ""))
    assert ledger.pages.register(run, 2, scan=EMPTY, scan_done=True, chunks={chunk: 5}) == "closed"
    assert not ledger.runs.halt(run, "why")
    assert ledger.runs.finish(run) == "over"
    # What tells one call from its repetition goes by itself.
    assert [key for key in connection.keys(f"{prefix}*") if connection.pttl(key) < 0] == []
    for question in (ledger.runs.state, ledger.records.of):
        with pytest.raises(RunClosed):
            question(run)


def test_run_whose_record_was_lost_gives_way(
    ledger: Ledger, connection: redis.Redis, prefix: str
) -> None:
    run = opened(ledger)
    connection.delete(f"{prefix}run:{run}")
    assert ledger.runs.finish(run) == "over"
    assert ledger.runs.active() == ""


def test_last_runs_leave_out_what_was_lost(
    ledger: Ledger, connection: redis.Redis, prefix: str
) -> None:
    kept = opened(ledger)
    end(ledger, kept)
    lost = opened(ledger)
    connection.delete(f"{prefix}run:{lost}")
    assert [record.run_id for record in ledger.records.last()] == [kept]


# -- counters, money, what is recorded


def test_counters_add_up_and_money_is_counted_by_day(ledger: Ledger) -> None:
    run = opened(ledger)
    for _ in range(3):
        ledger.counters.add(run, micro_usd=1_500_000, api_requests=1, api_inputs=100, api_tokens=7)
    ledger.counters.add(run, retries=2, rate_limited=1, errors=4)
    ledger.counters.add(run, api_requests=0)
    record = ledger.records.of(run)
    assert (record.api_requests, record.api_inputs, record.api_tokens) == (3, 300, 21)
    assert (record.retries, record.rate_limited, record.errors) == (2, 1, 4)
    assert record.estimated_cost_usd == ledger.spending.today_usd() == 4.5
    # Money is spent whether the run is known or not.
    ledger.counters.add("unknown", micro_usd=500_000, api_requests=1)
    assert ledger.spending.today_usd() == 5
    assert ledger.records.totals().errors == 4


@pytest.mark.parametrize("name", COUNTERS)
def test_each_counter_of_the_record_is_counted_read_and_added_to_its_total(
    ledger: Ledger, name: str
) -> None:
    run = opened(ledger)
    ledger.counters.add(run, **{name: 3})
    ledger.counters.add(run, **{name: 2})
    record = ledger.records.of(run)
    assert {each: getattr(record, each) for each in COUNTERS if getattr(record, each)} == {name: 5}
    totals, total = ledger.records.totals(), COUNTERS[name].total
    assert (totals.vectors, totals.errors) == (5 * (total == "vectors"), 5 * (total == "errors"))


def test_whole_numbers_of_the_record_are_counters_or_named_here() -> None:
    """A number that is added to the record is counted without a line elsewhere."""
    numbers = {
        name for name, declared in RunRecord.model_fields.items() if declared.annotation is int
    }
    assert numbers - COUNTERS.keys() == {"number", "chunks_open"}
    assert {outcome.value for outcome in Outcome} <= COUNTERS.keys()


def test_what_the_record_does_not_have_is_not_counted(ledger: Ledger) -> None:
    run = opened(ledger)
    with pytest.raises(ValueError, match="no field of RunRecord counts api_request"):
        ledger.counters.add(run, api_request=1, errors=1)
    assert ledger.records.of(run).errors == 0


def test_scan_leaves_time_before_the_next_tick_for_what_it_found(ledger: Ledger) -> None:
    assert 400 < ledger.pages.seconds_left(ledger.runs.open("manual", 600).run) <= 450
    assert ledger.pages.seconds_left("unknown") < 0


def test_refused_documents_are_recorded_until_forgotten(ledger: Ledger) -> None:
    ledger.refused.record("i_2026_01", "a/b", "mapping_refused")
    ledger.refused.record("i_2026_01", "c", "text_refused")
    refused = ledger.refused.all()
    assert refused.keys() == {("i_2026_01", "a/b"), ("i_2026_01", "c")}
    assert refused["i_2026_01", "c"]["error"] == "text_refused"
    ledger.refused.forget([])
    ledger.refused.forget([("i_2026_01", "a/b")])
    assert ledger.refused.all().keys() == {("i_2026_01", "c")}


def test_refused_documents_are_bounded(
    ledger: Ledger, connection: redis.Redis, prefix: str
) -> None:
    full = {f"i/{n}": "{}" for n in range(REFUSED_KEPT)}
    connection.hset(f"{prefix}refused", mapping=full)  # type: ignore[arg-type]
    ledger.refused.record("i", "one more", "x")
    assert connection.hlen(f"{prefix}refused") == REFUSED_KEPT


def test_keys_are_told_apart(ledger: Ledger) -> None:
    assert not ledger.api_keys.another_works("aa")
    ledger.api_keys.note("aa", 60)
    assert not ledger.api_keys.another_works("aa")
    assert ledger.api_keys.another_works("bb")


def test_endpoint_is_remembered(ledger: Ledger) -> None:
    assert ledger.endpoint.last() == {}
    ledger.endpoint.record_compared("m", 8, "u", "here")
    ledger.endpoint.record_compared("m", 8, "v", "here")
    assert ledger.endpoint.last() == {"url": "v", "model": "m", "dimensions": "8"}


def test_ledgers_with_other_prefixes_know_nothing_of_each_other(connection: redis.Redis) -> None:
    one, other = ledger_of(connection, next(PREFIXES)), ledger_of(connection, next(PREFIXES))
    run = opened(one)
    assert other.runs.active() == ""
    assert other.runs.open("beat", 600).verdict == "opened"
    with pytest.raises(RunClosed):
        other.records.of(run)


# -- a worker of another version beside this one


def test_a_survey_is_not_taken_for_a_page_by_an_older_version(
    ledger: Ledger, connection: redis.Redis, prefix: str
) -> None:
    """It would read the first page without a look at the endpoint, which its own survey has."""
    run = opened(ledger)
    key = f"{prefix}run:{run}"
    surveyed = ledger.pages.begin(run, Scan(pending=[("a", None)], update_only=[], unsorted=[]))
    assert ledger.pages.scan(run) == surveyed
    assert connection.hget(key, "scan") is None
    # The older worker's survey stands beside this one's until its page is registered.
    ledger.pages.register(run, 1, scan=EMPTY, scan_done=False)
    assert ledger.pages.scan(run) == EMPTY
    assert connection.hget(key, "scan") is not None
    assert not connection.hexists(key, "survey")


def test_what_redis_holds_stays_as_other_versions_know_it(
    ledger: Ledger, connection: redis.Redis, prefix: str
) -> None:
    run, (settled, late, busy, _) = with_chunks(ledger, 1, 1, 1, 1, done=False)
    for chunk in (settled, late, busy):
        ledger.chunks.begin(chunk, "host/1", NEVER, configuration=Configuration({"A": "b"}))
    ledger.chunks.note_alone(busy, "host/1", "f00d")
    ledger.chunks.settle(settled, {"embedded": 1})
    opened_chunk = json.loads(connection.hget(f"{prefix}run:{run}:open", busy) or "{}")
    ledger.pages.lease(run, 2, "host/1", 60)
    ledger.runs.skip(run, "i", "why")
    ledger.runs.note_comparison(run, "a sentence")
    ledger.pages.register(
        run, 2, scan=EMPTY, scan_done=False, indices=["i"], messages=[{"id": late}]
    )
    ledger.counters.add(run, micro_usd=5, paid_by={"shop": 5}, api_requests=1)
    ledger.counters.add_retry(run, "no answer")
    ledger.counters.add_rejected_message()
    ledger.runs.halt(run, "the key is refused")
    ledger.runs.open("beat", 600)
    ledger.controls.pause()
    ledger.controls.note_shutdown("host", 60)
    ledger.refused.record("i", "1", "text_refused")
    ledger.endpoint.record_compared("m", 8, "u", "here")
    ledger.endpoint.record_limits("space", {"inputs": 7})

    found = {key.decode().removeprefix(prefix) for key in connection.keys(f"{prefix}*")}
    assert {key for key in found if not key.startswith(("counted:", "spent:"))} == {
        "active_run", "endpoint", "endpoint_limits", "last_start", "last_tick", "paused", "refused",
        f"run:{run}", f"run:{run}:indices", f"run:{run}:late", f"run:{run}:outbox",
        f"run:{run}:page:2", f"run:{run}:skipped", "runs", "shutdown:host", "spaces", "totals",
    }  # fmt: skip
    assert {key.partition(":")[2][10:] for key in found if key.startswith("spent:")} == {
        "", ":projects",
    }  # fmt: skip
    assert {name.decode() for name in connection.hkeys(f"{prefix}run:{run}")} == {
        "api_requests", "chunks", "comparison", "configuration", "cost_micro_usd", "deferred",
        "deferred|the key is refused", "embedded", "errors", "found", "halt_reason", "last_begin",
        "more", "number", "page", "retried|no answer", "retries", "scan", "scan_done", "scan_until",
        "started_at", "state", "stopped_by", "trigger", "vectors_written",
    }  # fmt: skip
    assert opened_chunk.keys() == {
        "n", "losses", "by", "claimed", "registered", "suspect", "tried", "call",
    }  # fmt: skip
    assert [opened_chunk[name] for name in ("n", "losses", "by", "suspect", "tried")] == [
        1, 0, "host/1", "f00d", True,
    ]  # fmt: skip
    deferred = json.loads(connection.hget(f"{prefix}run:{run}:late", busy) or "{}")
    assert deferred == {
        "n": 1, "by": "host/1", "claimed": opened_chunk["claimed"], "why": "the key is refused",
    }  # fmt: skip
    totals = connection.hgetall(f"{prefix}totals")
    known = (b"runs", b"vectors", b"errors", b"ticks_skipped", b"messages_dropped")
    assert {name: totals.pop(name) for name in known} == {
        b"runs": b"1", b"vectors": b"1", b"errors": b"1", b"ticks_skipped": b"1",
        b"messages_dropped": b"1",
    }  # fmt: skip
    # Those that came with the history, which keeps them under these names.
    assert int(totals.pop(b"chunk|ms")) >= 0
    assert totals == {
        b"found": b"4", b"chunks": b"4", b"embedded": b"1", b"deferred": b"3", b"retries": b"1",
        b"api_requests": b"1", b"spent_micro_usd": b"5", b"chunk|1": b"1",
    }  # fmt: skip
    assert connection.hgetall(f"{prefix}spaces") == {b'["m", 8]': b'["u", "here"]'}
    assert connection.hgetall(f"{prefix}endpoint_limits") == {b"space": b'{"inputs": 7}'}
    assert connection.get(f"{prefix}run:{run}:page:2") == b"host/1"


# -- any order, repetition and loss


HOSTS = ("a", "b")
NAMES = [outcome.value for outcome in Outcome]
#: What becomes of a message; most do what they should, so that runs get somewhere.
FATES = ["arrives", "arrives", "comes again", "crashes", "is lost"]
ENDS = ["settled", "settled", "settled twice", "tried again", "worker lost"]
TROUBLES = [
    *["tick", "deadlines do not pass", "finish out of turn", "old deliveries"] * 2,
    *["deadlines pass"] * 3,
    *["shutdown", "halt", "Redis forgets"],
]


class Runs(RuleBasedStateMachine):
    """A broker that loses and doubles, workers that crash, and books kept beside the ledger's.

    Safety is checked after every step, liveness at the end: with faults over, ticks alone bring
    every run to its end.
    """

    def __init__(self, connection: redis.Redis) -> None:
        super().__init__()
        self.redis = connection
        self.prefix = next(PREFIXES)
        self.ledger = ledger_of(connection, self.prefix)
        #: What the broker holds: (task, arguments).
        self.broker: list[tuple[str, Any]] = []
        #: Chunks being worked on, with who does.
        self.at_work: list[tuple[str, str]] = []
        self.owners = itertools.count()
        self.reset_books()

    def reset_books(self) -> None:
        self.active = ""
        self.known: list[str] = []
        self.documents: dict[str, int] = {}
        #: open | late | settled, by chunk.
        self.state: dict[str, str] = {}
        self.outcomes: dict[str, Counter[str]] = {}
        self.finished: set[str] = set()
        self.halted: set[str] = set()
        self.pages: dict[str, int] = {}
        self.scanned: set[str] = set()
        self.workers_lost: Counter[str] = Counter()
        self.owner: dict[str, str] = {}
        self.shut: set[str] = set()

    # -- what the program does between the ledger's moves

    def advance(self, run: str, state: Any) -> None:
        if state.over:
            self.broker.append(("finish", run))
        elif not state.scan_done and state.known:
            self.broker.append(("scan", (run, state.page)))

    def publish_chunks(self, chunks: list[str]) -> None:
        self.broker += [("chunk", chunk) for chunk in chunks]

    def open_of(self, run: str) -> list[str]:
        return [c for c, s in self.state.items() if s == "open" and c.startswith(run + ":")]

    def defer(self, chunks: list[str]) -> None:
        for chunk in chunks:
            self.state[chunk] = "late"
            self.outcomes[chunk] = Counter(deferred=self.documents[chunk])

    # -- rules

    @initialize(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4), done=st.booleans())
    def first_page(self, sizes: list[int], done: bool) -> None:
        self.tick("beat", crash=False)
        _, (run, page) = self.broker.pop()
        self.scan(run, page, sizes, done, crash=False)

    @rule(random=st.randoms(use_true_random=True))
    def step(self, random: Random) -> None:
        # Drawn evenly, unlike Hypothesis' own choices, so that runs get somewhere.
        self.random = random
        likely = [self.message_is_delivered] * 4 * bool(self.broker)
        likely += [self.work_ends] * 3 * bool(self.at_work)
        random.choice([*likely, self.trouble if self.active else self.begin_a_run])()

    def begin_a_run(self) -> None:
        self.tick(self.random.choice(["beat", "manual", "continued"]), self.random.random() < 0.2)

    def tick(self, trigger: str, crash: bool) -> None:
        answer = self.ledger.runs.open(trigger, 0)
        assert answer.verdict == "opened"
        assert answer.run not in self.known
        self.active = answer.run
        self.known.append(answer.run)
        self.pages[answer.run] = 1
        if not crash:
            self.broker.append(("scan", (answer.run, 1)))

    def message_is_delivered(self) -> None:
        place = self.random.randrange(len(self.broker))
        fate = self.random.choice(FATES)
        task, argument = self.broker[place]
        if fate != "comes again":
            del self.broker[place]
        if fate == "is lost":
            return
        crash = fate == "crashes"
        if task == "scan":
            sizes = self.random.choices(range(1, 6), k=self.random.randrange(4))
            self.scan(*argument, sizes, self.random.random() < 0.4, crash)
        elif task == "chunk":
            self.begin(argument, self.random.choice(HOSTS), self.random.random() < 0.3, crash)
        else:
            self.finish(argument)

    def scan(self, run: str, page: int, sizes: list[int], done: bool, crash: bool) -> None:
        chunks = {f"{run}:{page}:{k}": n for k, n in enumerate(sizes)}
        messages = [{"id": chunk} for chunk in chunks]
        verdict = self.ledger.pages.register(
            run, page, scan=EMPTY, scan_done=done, chunks=chunks, messages=messages
        )
        if run not in self.known or run in self.halted or run in self.scanned:
            assert verdict == "closed"
        elif page != self.pages[run]:
            assert verdict == "stale"
            if self.pages[run] == page + 1 and not crash:
                self.publish_chunks([message["id"] for message in self.ledger.pages.outbox(run)])
        else:
            assert verdict == "registered"
            self.documents |= chunks
            self.state |= dict.fromkeys(chunks, "open")
            self.pages[run] += 1
            if done:
                self.scanned.add(run)
            if not crash:
                self.publish_chunks(list(chunks))
                self.advance(run, self.ledger.runs.state(run))

    def begin(self, chunk: str, host: str, lease_ended: bool, crash: bool) -> None:
        owner = f"{host}/{next(self.owners)}"
        lease = self.ledger.chunks.begin(chunk, owner, AT_ONCE if lease_ended else NEVER)
        run = chunk.split(":")[0]
        if self.state.get(chunk) != "open" or run in self.halted:
            assert lease.verdict == "closed"
        elif chunk in self.owner and not lease_ended:
            assert (lease.verdict, lease.owner) == ("busy", self.owner[chunk])
        else:
            if chunk in self.owner and self.owner[chunk].split("/")[0] not in self.shut:
                self.workers_lost[chunk] += 1
            assert (lease.verdict, lease.workers_lost) == ("go", self.workers_lost[chunk])
            self.owner[chunk] = owner
            if not crash:
                self.at_work.append((chunk, owner))

    def work_ends(self) -> None:
        how, crash = self.random.choice(ENDS), self.random.random() < 0.3
        place = self.random.randrange(len(self.at_work))
        chunk, owner = self.at_work[place]
        if how != "settled twice":
            del self.at_work[place]
        if how.startswith("settled"):
            self.settle(chunk, crash)
            return
        if how == "tried again":
            self.ledger.chunks.release(chunk, owner)
            if self.owner.get(chunk) == owner:
                del self.owner[chunk]
        if not crash:
            self.broker.append(("chunk", chunk))

    def settle(self, chunk: str, crash: bool) -> None:
        size = self.documents.get(chunk, 3)
        drawn = self.random.choices(NAMES, k=size)
        verdict, state = self.ledger.chunks.settle(chunk, Counter(drawn))
        expected = {"open": "settled", "late": "corrected"}.get(self.state.get(chunk, ""), "closed")
        assert verdict == expected
        if verdict != "closed":
            self.state[chunk] = "settled"
            self.outcomes[chunk] = Counter(drawn)
        if not crash and state.known:
            self.advance(chunk.split(":")[0], state)

    def trouble(self) -> None:
        kind = self.random.choice(TROUBLES)
        if kind == "tick":
            answer = self.ledger.runs.open("beat", 0)
            assert (answer.verdict, answer.run) == ("active", self.active)
        elif kind.startswith("deadline"):
            passed = kind == "deadlines pass"
            self.look_at_deadlines(passed=passed, crash=self.random.random() < 0.3)
        elif kind == "shutdown":
            host = self.random.choice(HOSTS)
            self.ledger.controls.note_shutdown(host, 300)
            self.shut.add(host)
        elif kind == "finish out of turn":
            self.finish(self.random.choice(self.known))
        elif kind == "old deliveries" and self.documents:
            chunk = self.random.choice(list(self.documents))
            self.ledger.chunks.release(chunk, "a/of another")
            if self.state[chunk] != "open":
                self.settle(chunk, crash=False)
                self.settle(chunk, crash=False)
        elif kind == "halt":
            self.halt(self.random.choice(self.known))
        elif kind == "Redis forgets" and len(self.known) > 1:
            self.redis.delete(*self.redis.keys(f"{self.prefix}*"))
            self.reset_books()

    def look_at_deadlines(self, *, passed: bool, crash: bool) -> None:
        due = self.open_of(self.active) if passed else []
        expired, state = self.ledger.chunks.expire(self.active, AT_ONCE if passed else NEVER)
        assert expired == len(due)
        self.defer(due)
        if not crash:
            self.advance(self.active, state)

    def halt(self, run: str) -> None:
        running = run not in self.halted | self.finished
        assert self.ledger.runs.halt(run, "why") is running
        if running:
            self.halted.add(run)
            self.scanned.add(run)
            self.defer(self.open_of(run))

    def finish(self, run: str) -> None:
        verdict = self.ledger.runs.finish(run)
        if run != self.active:
            assert verdict == "over"
        elif run not in self.scanned or self.open_of(run):
            assert verdict == "unfinished"
        else:
            assert verdict == "finished"
            self.finished.add(run)
            self.active = ""

    # -- safety

    @invariant()
    def books_agree(self) -> None:
        assert self.ledger.runs.active() == self.active
        vectors = 0
        for run in self.known:
            record = self.ledger.records.of(run)
            mine = [c for c in self.documents if c.startswith(run + ":")]
            sums: Counter[str] = Counter()
            for chunk in mine:
                sums.update(self.outcomes.get(chunk, {}))
            assert record.found == sum(self.documents[chunk] for chunk in mine)
            assert record.chunks == len(mine)
            assert record.chunks_open == len(self.open_of(run))
            assert {name: getattr(record, name) for name in NAMES} == {n: sums[n] for n in NAMES}
            assert record.vectors_written == sum(sums[name] for name in VECTOR_OUTCOMES)
            assert record.settled <= record.found
            if not record.chunks_open:
                assert record.settled == record.found
            assert (record.state in ("halted", "abandoned")) == (run in self.halted)
            assert (record.finished_at is not None) == (run in self.finished)
            vectors += record.vectors_written
        totals = self.ledger.records.totals()
        assert totals.runs == len(self.known)
        assert totals.vectors == vectors

    # -- liveness

    def teardown(self) -> None:
        self.broker.clear()
        self.at_work.clear()
        for _ in range(3):
            if not self.active:
                break
            self.look_at_deadlines(passed=True, crash=False)
            for task, argument in [*self.broker]:
                if task == "scan":
                    self.scan(*argument, [], True, crash=False)
            for task, argument in [*self.broker]:
                if task == "finish":
                    self.finish(argument)
        assert not self.active
        self.books_agree()
        for run in self.known:
            record = self.ledger.records.of(run)
            assert record.settled == record.found
        self.redis.delete(*self.redis.keys(f"{self.prefix}*"), "none")


@pytest.mark.long
@pytest.mark.parametrize(
    "connection",
    ["memory", pytest.param("fakeredis", marks=pytest.mark.apart), "valkey"],
    indirect=True,
    scope="module",
)
def test_books_agree_after_any_order_repetition_loss_and_crash(connection: redis.Redis) -> None:
    run_state_machine_as_test(
        lambda: Runs(connection),
        # Not shrunk: steps are seeds, which do not get simpler.
        settings=settings(
            max_examples=20 if isinstance(connection, InMemoryRedis) else 60,
            stateful_step_count=60,
            deadline=None,
            derandomize=True,
            phases=(Phase.generate,),
        ),
    )


def test_chunks_under_way_are_told_with_who_has_them_and_why_they_wait(ledger: Ledger) -> None:
    run, (first, second, third) = with_chunks(ledger, 5, 6, 7)
    assert ledger.chunks.begin(second, "host/1", NEVER).verdict == "go"
    assert ledger.chunks.settle(third, {"embedded": 7})[0] == "settled"
    at_work, waiting = ledger.chunks.under_way(run)
    assert (at_work.id, at_work.state, at_work.owner, at_work.logs) == (
        second, "leased", "host/1", 6,
    )  # fmt: skip
    assert (waiting.id, waiting.state, waiting.owner, waiting.why) == (first, "waiting", "", "")
    assert ledger.chunks.expire(run, AT_ONCE)[0] >= 1
    states = {each.id: (each.state, bool(each.why)) for each in ledger.chunks.under_way(run)}
    assert states[first] == ("deferred", True)
    assert ledger.chunks.under_way("nobody") == []

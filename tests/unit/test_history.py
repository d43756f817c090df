"""History that outlives Redis: written once, caught up when lost, read as one; in memory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from enrich.errors import AccessRefused, ServerUnavailable
from enrich.history.in_memory import InMemoryRunHistory
from enrich.history.reader import KEPT_SECONDS, History, UnknownRun
from enrich.history.recorder import Recorder
from enrich.ledger import Ledger, Scan
from enrich.ledger.in_memory import InMemoryRedis, ledger_on
from enrich.ledger.spending import today
from enrich.status.health import HISTORY_LATE_SECONDS, health_of, told
from enrich.status.history import read_history
from enrich.status.report import Status
from tests.memory_pipeline import MemoryPipeline
from tests.run_history_contract import keeps_its_promises

EMPTY = Scan(pending=[], update_only=[], unsorted=[])
AWAY = ServerUnavailable("OpenSearch at there cannot be reached")


class World:
    """A ledger, the records that outlive it, and hands on time."""

    def __init__(self) -> None:
        self.seconds = datetime(2026, 11, 29, 12, tzinfo=UTC).timestamp()
        self.redis = InMemoryRedis(lambda: self.seconds)
        self.ledger: Ledger = ledger_on(self.redis, "enrich:")
        self.store = InMemoryRunHistory()
        self.recorder = Recorder(self.ledger, self.store, days=90)
        self.history = History(self.ledger, self.store, self.clock, self.now)

    def clock(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def run(self, *, logs: int = 0, lasts: float = 1, halted: str = "") -> str:
        """One run as its workers make it, with its end; each begins a minute later."""
        self.seconds += 60
        self.recorder.take_over()
        run = self.ledger.runs.open("manual", 600).run
        chunks = {f"{run}:1:0": logs} if logs else {}
        self.ledger.pages.register(run, 1, scan=EMPTY, scan_done=True, chunks=chunks)
        for chunk in chunks:
            self.ledger.chunks.begin(chunk, "host/1", 60)
            self.seconds += lasts
            if not halted:
                self.ledger.chunks.settle(chunk, {"embedded": logs})
        self.ledger.counters.add(run, micro_usd=1000 * logs, api_inputs=logs, api_requests=1)
        if halted:
            self.ledger.runs.halt(run, halted)
        self.ledger.runs.finish(run)
        self.recorder.catch_up()
        return run


@pytest.fixture
def world() -> World:
    return World()


def numbers(world: World, **options: Any) -> list[int]:
    return [run.number for run in world.history.runs(**options).runs]


def test_each_run_is_written_once_however_it_ends(world: World) -> None:
    runs = [world.run(logs=3), world.run(halted="no key"), world.run()]
    assert list(world.store.records) == runs
    kept = world.store.records[runs[0]]
    assert kept == world.ledger.records.of(runs[0])
    assert (world.store.records[runs[1]].state, kept.state) == ("halted", "finished")
    assert world.history.lag().runs == 0
    world.recorder.catch_up()
    assert world.ledger.history.owed() == [] and len(world.store.records) == 3


def test_a_whole_run_of_the_pipeline_is_written() -> None:
    pipeline = MemoryPipeline()
    store = InMemoryRunHistory()
    pipeline.backfill._recorder = Recorder(pipeline.ledger, store, days=90)
    pipeline.fill(shop_2026_11=6)
    record = pipeline.run()
    assert store.records == {record.run_id: record} and record.vectors_written == 6
    assert store.kept_totals["vectors"] == 6


def test_no_run_fails_because_of_history_and_what_was_lost_is_caught_up(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    refused = AccessRefused("OpenSearch does not allow this to OPENSEARCH_USER (403)")
    first = world.run(logs=1)
    world.store.failure = refused
    lost = [world.run(logs=2), world.run(logs=3)]
    assert world.ledger.records.of(lost[1]).state == "finished"
    lag = world.history.lag()
    assert (lag.runs, lag.problem) == (2, str(refused))
    assert lag.seconds == pytest.approx(61, abs=1), "since the first of them ended"
    assert caplog.text.count(str(refused)) == 1, "said once, not after each run"
    # Nobody who looks misses them meanwhile.
    world.store.failure = None
    assert numbers(world) == [3, 2, 1]
    last = world.run()
    assert set(world.store.records) == {first, *lost, last}
    assert world.history.lag().runs == 0 and world.history.lag().problem == ""


def test_a_history_that_stays_behind_is_a_reason_of_the_health_with_its_cause(world: World) -> None:
    def reasons() -> list[str]:
        status = Status(interval_seconds=600, history=read_history(world.history))
        return [told(r.sentence, r.remedy) for r in health_of(status).reasons]

    world.store.failure = refused = AccessRefused("OpenSearch does not allow this (403)")
    world.run(logs=1)
    world.store.failure = None
    world.seconds += HISTORY_LATE_SECONDS
    assert reasons() == []
    world.seconds += 60
    (reason,) = reasons()
    assert reason == (
        "the record of one run has been missing in enrich-runs for 1 h 1 min: "
        f"{refused}: `python -m enrich check` says what to change"
    )
    world.recorder.catch_up()
    assert reasons() == []


def test_work_that_ends_late_corrects_the_record(world: World) -> None:
    run = world.run(logs=4, halted="cancelled")
    assert world.store.records[run].deferred == 4
    # Its worker had begun, and ends after the run.
    world.ledger.chunks.settle(f"{run}:1:0", {"embedded": 4})
    assert [owed.run for owed in world.ledger.history.owed()] == [run]
    world.run()
    assert (world.store.records[run].deferred, world.store.records[run].embedded) == (0, 4)
    # A counter is not taken back.
    assert world.ledger.records.totals().counts["deferred"] == 4


def test_a_record_that_changes_while_it_is_written_stays_owed(world: World) -> None:
    run = world.run(logs=4, halted="cancelled")
    debt = world.ledger.history
    write = world.store.write

    def write_slowly(*arguments: Any) -> None:
        write(*arguments)
        # Its worker ends while its record is on its way.
        world.ledger.chunks.settle(f"{run}:1:0", {"embedded": 4})

    world.store.write = write_slowly  # type: ignore[method-assign]
    world.redis.hset("enrich:history:owed", run, "1 1")
    world.recorder.catch_up()
    assert world.store.records[run].deferred == 4
    assert [owed.run for owed in debt.owed()] == [run]
    world.store.write = write  # type: ignore[method-assign]
    world.recorder.catch_up()
    assert world.store.records[run].embedded == 4 and debt.owed() == []


def test_flushall_loses_no_history(world: World) -> None:
    runs = [world.run(logs=n) for n in (1, 2, 3)]
    before = world.history.totals()
    world.redis.flushall()
    assert world.history.totals() == before, "before anybody has begun a run"
    assert world.history.run(runs[0]).vectors_written == 1
    assert numbers(world) == [3, 2, 1]
    newest = world.run(logs=4)
    assert numbers(world) == [4, 3, 2, 1], "numbers go on"
    after = world.history.totals()
    assert (after.vectors, after.runs) == (before.vectors + 4, 4)
    assert after.spent_usd == pytest.approx(0.010)
    assert after.run_durations is not None and after.run_durations.within["+Inf"] == 4
    # Twice is harmless; so is another emptying.
    world.redis.flushall()
    assert world.history.totals() == world.history.totals()
    world.run()
    assert world.history.totals().vectors == after.vectors
    assert world.history.run("4").run_id == newest


def test_totals_that_redis_lost_are_not_told_as_0_while_opensearch_is_away(world: World) -> None:
    world.run(logs=5)
    world.redis.flushall()
    world.store.failure = AWAY
    with pytest.raises(ServerUnavailable):
        world.history.totals()
    # A run begins all the same, and its end adds what was before once that can be read.
    world.run(logs=1)
    world.store.failure = None
    world.run(logs=1)
    assert world.history.totals().vectors == 7
    assert world.history.totals().runs == 3


def test_runs_that_redis_forgot_are_read_from_the_records(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enrich.ledger.runs.RECORDS_KEPT", 3)
    runs = [world.run(logs=n % 2) for n in range(10)]
    assert len(world.ledger.records.names()) == 3
    assert numbers(world) == list(range(10, 0, -1))
    pages, before = [], ""
    while True:
        page = world.history.runs(4, before=before)
        pages.append([run.number for run in page.runs])
        before = page.next
        if not before:
            break
    assert pages == [[10, 9, 8, 7], [6, 5, 4, 3], [2, 1]]
    assert numbers(world, busy=True) == [10, 8, 6, 4, 2], "idle runs push no other away"
    assert world.history.recorded() == 10
    # What Redis has is not asked for.
    asked = world.store.asked
    assert numbers(world, count=2) == [10, 9]
    assert world.history.run(runs[-1]).number == 10
    assert world.store.asked == asked


def test_opensearch_is_asked_once_in_ten_seconds_and_not_at_all_while_it_is_away(
    world: World,
) -> None:
    world.run()
    asked = world.store.asked
    for _ in range(50):
        numbers(world)
        world.history.sums()
    assert world.store.asked == asked + 2
    world.seconds += KEPT_SECONDS
    world.store.failure = AWAY
    for _ in range(50):
        assert world.history.sums().problem and world.history.runs().problem
    assert world.store.asked == asked + 3, "one that hangs is not waited for again and again"
    assert numbers(world) == [1]


def test_sums_of_today_this_month_and_what_was_saved(world: World) -> None:
    world.seconds = datetime(2026, 10, 31, 12, tzinfo=UTC).timestamp()
    world.run(logs=10)
    world.seconds = datetime(2026, 11, 3, 12, tzinfo=UTC).timestamp()
    world.run(logs=20)
    world.seconds = datetime(2026, 11, 29, 12, tzinfo=UTC).timestamp()
    run = world.run(logs=5)
    world.ledger.counters.add(run, cached=15)
    # Not written yet.
    world.store.failure = AWAY
    world.run(logs=1)
    world.store.failure = None
    sums = world.history.sums()
    assert (sums.month.runs, sums.month.vectors_written) == (3, 26)
    assert list(sums.days) == ["2026-11-29", "2026-11-03", "2026-10-31"]
    assert sums.days["2026-11-03"].cost_usd == pytest.approx(0.020)
    # The ledger's day is the clock's of this host.
    assert sums.month.runs_cost_usd == pytest.approx(0.026)
    assert sums.today.runs == 2
    world.seconds += 60
    world.recorder.catch_up()
    assert world.history.sums().today.runs == 2


def test_what_cache_and_reuse_saved_is_priced_by_what_was_sent(world: World) -> None:
    run = world.run(logs=10)
    world.ledger.counters.add(run, cached=15, reused=4, duplicate=1)
    (day,) = History(world.ledger, None, now=world.now).sums().days.values()
    assert day.not_sent == 20 and day.saved_usd == pytest.approx(20 * 0.001)


def test_money_of_consumers_and_the_service_is_in_the_days_cost(world: World) -> None:
    world.ledger.counters.add("api", micro_usd=7_000_000)
    world.run(logs=1)
    assert world.store.spent[today()] >= 7_000_000
    assert world.history.sums().days[today()].cost_usd >= 7


def test_old_records_are_deleted_and_totals_stay(world: World) -> None:
    old = world.run(logs=3)
    world.seconds += 91 * 86_400
    new = world.run(logs=1)
    assert set(world.store.records) == {new} and old not in world.store.records
    assert world.store.kept_totals["vectors"] == 4
    world.redis.flushall()
    assert world.history.totals().vectors == 4
    # Looked for once a day.
    world.run()
    asked = world.store.asked
    world.run()
    assert world.store.asked == asked + 1


def test_runs_of_before_there_was_a_history_are_written(world: World) -> None:
    kept = world.recorder
    world.recorder = Recorder(world.ledger, InMemoryRunHistory(), 90)
    before = [world.run(), world.run()]
    # As an older version leaves them.
    world.redis.delete("enrich:history:owed")
    world.redis.hdel("enrich:totals", "history")
    world.recorder = kept
    last = world.run()
    assert set(world.store.records) == {*before, last}
    assert world.ledger.records.totals().runs == 3


def test_without_a_history_redis_serves(world: World) -> None:
    history = History(world.ledger, None)
    runs = [world.run(logs=1), world.run()]
    assert [run.run_id for run in history.runs().runs] == runs[::-1]
    assert history.runs(1).next == runs[1]
    assert [run.run_id for run in history.runs(1, before=runs[1]).runs] == runs[:1]
    assert history.runs(1, before=runs[0]).runs == []
    assert history.totals().runs == 2 and not history.is_kept
    assert history.lag().runs == 0 and history.recorded() == 2


@pytest.mark.parametrize(
    "hostile",
    ["", "nothing", "<script>alert(1)</script>", "\x1b[31mred", "\u202eabc", "x" * 1_000_000,
     "9" * 30, "#99", "*", "a OR b", "../..", "\ud800"],
)  # fmt: skip
def test_an_unknown_run_is_one_sentence_with_the_nearest(world: World, hostile: str) -> None:
    run = world.run()
    with pytest.raises(UnknownRun) as unknown:
        world.history.run(hostile)
    sentence = str(unknown.value)
    assert run in sentence and len(sentence) < 200
    assert "\x1b" not in sentence and "\u202e" not in sentence
    with pytest.raises(UnknownRun):
        world.history.runs(before=hostile or "-")


def test_the_nearest_of_a_mistyped_id_is_named(world: World) -> None:
    runs = [world.run() for _ in range(20)]
    with pytest.raises(UnknownRun) as unknown:
        world.history.run(runs[3][:-1])
    assert unknown.value.nearest[0] == runs[3]


def test_an_empty_store_is_no_error(world: World) -> None:
    assert world.history.runs().runs == [] and world.history.totals().runs == 0
    assert world.history.sums().days == {} and world.history.recorded() == 0
    with pytest.raises(UnknownRun, match="none was recorded"):
        world.history.run("1")


def test_hostile_reasons_are_kept_short(world: World) -> None:
    run = world.run(logs=1, halted="<b>" + "\u202e" + "x" * 1_000_000)
    assert len(world.store.records[run].halt_reason) == 1000


def test_a_clock_that_is_an_hour_behind_hides_no_run(world: World) -> None:
    world.run(logs=1)
    world.redis.flushall()
    world.seconds -= 3600
    world.run(logs=1)
    assert numbers(world) == [2, 1], "the newest first, whatever its clock said"
    assert world.history.totals().vectors == 2
    assert timedelta(seconds=world.history.lag().seconds) == timedelta(0)


def test_records_in_memory_keep_the_promises_of_those_in_opensearch() -> None:
    keeps_its_promises(InMemoryRunHistory())

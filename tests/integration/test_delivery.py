"""Messages doubled, late and lost; an API in trouble; limits of a run. Sums always agree."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from dev.api_control import ApiControl
from dev.embedding_model import Model
from enrich.enrichment.enricher import MAX_WORKERS_LOST
from enrich.errors import ServerUnavailable
from enrich.ledger.pages import Pages
from enrich.models import Chunk
from enrich.text.extract import fingerprint
from tests.conftest import Pipeline, Search
from tests.deliveries import deliver_each_twice
from tests.integration.test_cycle import assert_adds_up, assert_right_vectors, logs

INDEX = "a_b_2026_11"
Build = Callable[..., Pipeline]


@pytest.fixture
def three_hundred(search: Search) -> list[str]:
    search.create(INDEX)
    return search.index(INDEX, logs(300, 300))


def chunks(one: Pipeline) -> list[Any]:
    return [message for message in one.messages if message[0] == "embed_and_update"]


# -- messages


def test_every_message_delivered_twice_counts_once(
    pipeline: Build, search: Search, embeddings: ApiControl, model: Model, three_hundred: list[str]
) -> None:
    one = pipeline()
    deliver_each_twice(one)
    one.run()

    record = one.ledger.records.last(1)[0]
    assert_adds_up(record)
    assert record.found == record.vectors_written == 300
    assert one.ledger.records.totals().vectors == 300
    assert embeddings.seen["inputs"] == 300
    assert_right_vectors(search, INDEX, model)


def test_a_lost_message_is_deferred_by_its_deadline(
    pipeline: Build, search: Search, model: Model, three_hundred: list[str]
) -> None:
    patient = pipeline()
    patient.find_unvectorized("manual")
    patient.deliver()
    lost = chunks(patient)[0]
    patient.messages.remove(lost)
    while patient.messages:
        patient.deliver()
    run = patient.ledger.runs.active()
    assert run, "the run waits for its lost chunk"
    patient.backfill.recover(run)
    assert patient.ledger.runs.active() == run, "its deadline has not passed"

    hasty = pipeline(
        enrich_soft_time_limit_seconds=0.01,
        enrich_hard_time_limit_seconds=0.02,
        enrich_visibility_timeout_seconds=0.03,
        enrich_chunk_deadline_seconds=0.04,
    )
    record = hasty.run("beat")  # a tick: mends, then is skipped or begins the next

    first = hasty.ledger.records.of(run)
    assert_adds_up(first)
    assert (first.vectors_written, first.deferred) == (200, 100)
    assert record.run_id == run
    # Delivered after all: dropped, because its run is closed; the next run finds the logs.
    late = Chunk.from_message(lost[1][0])
    assert "settled before" in hasty.backfill.embed_and_update(late)
    assert hasty.run().vectors_written == 100
    assert_right_vectors(search, INDEX, model)


def test_a_chunk_that_ends_after_its_deadline_corrects_the_record(
    pipeline: Build, search: Search, three_hundred: list[str]
) -> None:
    one = pipeline()
    halted: list[str] = []

    def cancel_under_way(name: str, arguments: Any) -> None:
        if name == "embed_and_update" and not halted:
            work = one.backfill._chunks._enricher.work

            def cancelled(*a: Any, **k: Any) -> Any:
                tally = work(*a, **k)
                halted.append(a[0].run)
                one.ledger.runs.halt(a[0].run, "cancelled", state="abandoned")
                one.backfill.finish(a[0].run)
                return tally

            one.backfill._chunks._enricher.work = cancelled  # type: ignore[method-assign]

    one.before = cancel_under_way
    one.run()

    record = one.ledger.records.of(halted[0])
    assert record.state == "abandoned"
    assert record.found == record.settled == 300
    assert (record.vectors_written, record.deferred) == (100, 200)
    written = search.count(INDEX, {"term": {"ai_enrichment_run": halted[0]}})
    assert written == record.vectors_written


def test_a_run_unknown_to_redis_is_dropped(
    pipeline: Build, search: Search, model: Model, three_hundred: list[str], redis_emptied: Any
) -> None:
    one = pipeline()
    one.find_unvectorized("beat")
    one.deliver()
    redis_emptied()
    while one.messages:
        one.deliver()
    assert one.ledger.records.totals().runs == 0
    assert search.count(INDEX, {"exists": {"field": "log_vector"}}) == 0

    record = one.run("beat")

    assert_adds_up(record)
    assert record.vectors_written == 300
    assert_right_vectors(search, INDEX, model)


def test_a_page_delivered_again_sends_what_may_never_have_been_sent(
    pipeline: Build,
    search: Search,
    model: Model,
    three_hundred: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = pipeline()
    send, sent = one.embed_and_update, []

    def lost_after_one(message: dict[str, Any]) -> None:
        if sent:
            raise ServerUnavailable("the broker is gone")
        sent.append(message)
        send(message)

    one.find_unvectorized("beat")
    with monkeypatch.context() as broken, pytest.raises(ServerUnavailable):
        broken.setattr(one, "embed_and_update", lost_after_one)
        one.deliver()
    run = one.ledger.runs.active()
    assert len(chunks(one)) == 1
    one.scan_page(run, 1)
    while one.messages:
        one.deliver()
    record = one.ledger.records.of(run)
    assert_adds_up(record)
    assert record.vectors_written == 300


def test_a_page_asked_for_again_sends_no_chunk_twice(
    pipeline: Build, search: Search, three_hundred: list[str]
) -> None:
    one = pipeline()
    one.find_unvectorized("beat")
    one.deliver()
    there = len(chunks(one))
    assert there > 1
    one.backfill.scan(one.ledger.runs.active(), 1)
    assert len(chunks(one)) == there


def test_a_page_that_is_being_read_is_not_asked_for(
    pipeline: Build, search: Search, three_hundred: list[str]
) -> None:
    one = pipeline(enrich_max_chunks_in_flight=2)
    one.find_unvectorized("beat")
    one.deliver()
    run = one.ledger.runs.active()
    page = one.ledger.runs.state(run).page
    assert one.ledger.pages.lease(run, page, "another host/1", 60)
    one.deliver()
    assert [name for name, _ in one.messages if name == "scan_page"] == []
    one.ledger.pages.release(run, page)
    one.deliver()
    assert [m for m in one.messages if m[0] == "scan_page"] == [("scan_page", [run, page])]


def test_a_page_whose_reader_was_killed_is_read_at_once(
    pipeline: Build, search: Search, three_hundred: list[str]
) -> None:
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    one = pipeline(enrich_max_chunks_in_flight=1)
    one.find_unvectorized("beat")
    one.deliver()
    run = one.ledger.runs.active()
    page = one.ledger.runs.state(run).page
    assert one.ledger.pages.lease(run, page, f"{socket.gethostname()}/{killed.pid}", 60)
    while one.messages:
        one.deliver()
    assert one.ledger.records.of(run).vectors_written == 300


def test_a_scan_that_stopped_is_restarted_by_the_next_tick(
    pipeline: Build, search: Search, model: Model, three_hundred: list[str]
) -> None:
    one = pipeline(enrich_max_chunks_in_flight=1)
    one.find_unvectorized("beat")
    one.deliver()
    one.deliver()
    one.messages = type(one.messages)(m for m in one.messages if m[0] != "scan_page")
    while one.messages:
        one.deliver()
    run = one.ledger.runs.active()
    assert run

    one.run("beat")

    assert not one.ledger.runs.active()
    assert one.ledger.records.of(run).vectors_written == 300
    assert one.ledger.records.totals().ticks_skipped == 1


def test_a_reader_whose_page_another_has_registered_publishes_nothing(
    pipeline: Build,
    search: Search,
    model: Model,
    three_hundred: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Its lease is over before it has read: another may have the same page.
    monkeypatch.setattr("enrich.backfill.run.PAGE_LEASE_SECONDS", 0.001)
    slow, quick = pipeline(), pipeline()
    read = slow.backfill._scanner._store.finder.page

    def overtaken(*arguments: Any) -> Any:
        pages = read(*arguments)
        # What the other reads is not the same, though its chunks are named alike.
        more = [{**log, "message": f"newer {n}", "_id": f"newer-{n}"} for n, log in
                enumerate(logs(50, 50))]  # fmt: skip
        search.index(INDEX, more)
        quick.backfill.scan(slow.ledger.runs.active(), 1)
        return pages

    monkeypatch.setattr(slow.backfill._scanner._store.finder, "page", overtaken)
    slow.find_unvectorized("beat")
    slow.deliver()

    assert slow.lines == ["page 1 is closed"]
    assert chunks(slow) == []
    assert len(chunks(quick)) == 4
    while quick.messages:
        quick.deliver()
    record = quick.ledger.records.last(1)[0]
    assert_adds_up(record)
    assert record.found == record.vectors_written == 350
    assert_right_vectors(search, INDEX, model)


# -- the API in trouble


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 500, "body": "<html>oops</html>", "content_type": "text/html"},
        {"kind": "status", "status": 503},
        {"kind": "reset"},
        {"kind": "too_few"},
        {"kind": "too_many"},
        {"kind": "duplicate_index"},
        {"kind": "empty_data"},
        {"kind": "cut_json"},
        {"kind": "html"},
    ],
    ids=lambda fault: str(fault.get("status", fault["kind"])),
)
def test_trouble_that_passes_never_marks_a_document(
    pipeline: Build,
    search: Search,
    embeddings: ApiControl,
    model: Model,
    three_hundred: list[str],
    fault: dict[str, Any],
) -> None:
    embeddings.faults({**fault, "times": 4})

    one = pipeline()
    record = one.run()

    assert_adds_up(record)
    assert record.failed == 0
    assert record.retries > 0
    # A node under load may also have an index left out for a run, which then finds nothing.
    while record.deferred or record.skipped_indices:
        record = one.run()
    assert_right_vectors(search, INDEX, model)


@pytest.mark.parametrize("kind", ["shuffled_index", "without_index", "without_index_0"])
def test_each_vector_is_put_to_its_text_however_its_index_is_told(
    pipeline: Build,
    search: Search,
    embeddings: ApiControl,
    model: Model,
    three_hundred: list[str],
    kind: str,
) -> None:
    embeddings.faults({"kind": kind, "times": 0})
    assert pipeline().run().vectors_written == 300
    assert_right_vectors(search, INDEX, model)


@pytest.mark.parametrize("kind", ["nan", "inf", "zeros"])
def test_a_vector_that_is_none_is_deferred_and_its_neighbours_stand(
    pipeline: Build,
    search: Search,
    embeddings: ApiControl,
    model: Model,
    three_hundred: list[str],
    kind: str,
) -> None:
    embeddings.faults({"kind": kind, "times": 1, "match": "number 17"})
    one = pipeline()
    record = one.run()
    assert_adds_up(record)
    assert record.failed == 0
    assert 0 < record.deferred < 30
    assert one.run().vectors_written == record.deferred
    assert_right_vectors(search, INDEX, model)


def test_one_poison_text_fails_alone_and_cheaply(
    pipeline: Build, search: Search, embeddings: ApiControl, three_hundred: list[str]
) -> None:
    embeddings.faults({"kind": "poison", "match": "number 217", "times": 0})
    one = pipeline()

    record = one.run()

    assert_adds_up(record)
    assert (record.failed, record.vectors_written) == (1, 299)
    # One for each chunk; beyond them 2·⌈log2 100⌉ halves, and the harmless text before the mark.
    assert embeddings.seen["requests"] <= 3 + 2 * 7 + 1
    (failed,) = (s for s in search.sources(INDEX).values() if "ai_enrichment_error" in s)
    assert failed["ai_enrichment_error"] == "text_refused"
    assert "number 217" in failed["message"]
    assert one.run().found == 0, "it is never sent again"


def test_an_endpoint_that_refuses_everything_marks_nothing(
    pipeline: Build, search: Search, embeddings: ApiControl, three_hundred: list[str]
) -> None:
    embeddings.faults({"kind": "poison", "match": "n", "times": 0})
    record = pipeline(enrich_max_chunks_in_flight=1).run()
    assert record.state == "halted"
    assert (record.failed, record.deferred) == (0, record.found)


def test_exhausted_quota_halts_and_is_not_retried(
    pipeline: Build, embeddings: ApiControl, three_hundred: list[str]
) -> None:
    embeddings.set(quota_exhausted=True)
    record = pipeline().run()
    assert record.state == "halted"
    assert "quota is exhausted" in record.halt_reason
    assert record.retries == 0
    assert embeddings.seen["requests"] == 1


# -- limits


def test_the_cap_of_logs_a_run(pipeline: Build, search: Search, three_hundred: list[str]) -> None:
    one = pipeline(enrich_max_logs_per_run=100)
    for _ in range(3):
        record = one.run()
        assert_adds_up(record)
        assert record.found == 100
    assert one.ledger.records.totals().vectors == 300
    assert one.ledger.records.last(3)[2].more
    assert one.run().found == 0


def test_the_cost_of_a_day_is_bounded(
    pipeline: Build, embeddings: ApiControl, three_hundred: list[str]
) -> None:
    one = pipeline(enrich_max_cost_per_day=0.0002, enrich_max_chunks_in_flight=1)
    record = one.run()
    assert (record.more, record.stopped_by) == (True, "budget")
    assert 0 < record.vectors_written < 300
    spent = one.ledger.spending.today_usd()
    assert spent < 0.0002 * 3
    assert one.run().found == 0, "the budget of the day is spent"
    assert embeddings.seen["inputs"] == record.api_inputs


def test_a_project_that_floods_leaves_the_others_their_part_of_the_day(
    pipeline: Build, search: Search
) -> None:
    flood, quiet = "flood_2026_11", "quiet_2026_11"
    for index, count in ((flood, 900), (quiet, 20)):
        search.create(index)
        search.index(index, logs(count, count))
    limits = {"enrich_max_cost_per_day": 0.0006, "enrich_max_chunks_in_flight": 1}
    one = pipeline(**limits)

    record = one.run()

    assert_adds_up(record)
    with_vector = {"exists": {"field": "log_vector"}}
    assert search.count(quiet, with_vector) == 20
    # Half of the day's money, and one chunk at most that was under way.
    assert 0 < search.count(flood, with_vector) < 900
    share, chunk = 0.0003, 100 * one.ledger.spending.today_usd() / record.api_inputs
    assert share <= one.ledger.spending.today_usd() <= share + 2 * chunk
    reasons = {*record.skipped_indices.values(), *record.deferral_reasons}
    assert any("project flood has used its share" in reason for reason in reasons), reasons

    # What comes later that day finds its part untouched.
    search.index(
        quiet, [{**log, "_id": f"later-{n}"} for n, log in enumerate(logs(950, 950))][920:]
    )
    later = one.run()
    assert search.count(quiet, with_vector) == 50
    assert (later.found, set(later.skipped_indices)) == (30, {flood})

    # Whoever wants no shares sets 1, and a project that is alone has no other to leave a part to.
    assert pipeline(**limits, enrich_max_project_share=1).run().vectors_written > 0


def test_a_project_that_is_alone_may_spend_the_whole_day(
    pipeline: Build, three_hundred: list[str]
) -> None:
    one = pipeline(enrich_max_cost_per_day=0.0002, enrich_max_chunks_in_flight=1)
    record = one.run()
    assert record.stopped_by == "budget"
    assert one.ledger.spending.today_usd() >= 0.0002


def test_a_budget_used_up_after_the_last_page_is_told_as_well(
    pipeline: Build, three_hundred: list[str]
) -> None:
    record = pipeline(enrich_max_cost_per_day=0.0002).run()
    assert record.deferred > 0
    assert (record.more, record.stopped_by) == (True, "budget")
    assert "midnight UTC" in record.left_because


def test_a_run_gives_way_to_the_next_tick_and_goes_on_at_once(
    pipeline: Build, search: Search, model: Model, three_hundred: list[str]
) -> None:
    one = pipeline(enrich_interval_minutes=0.0001, enrich_max_chunks_in_flight=1)
    one.run("beat")
    runs = one.ledger.records.last(50)
    assert len(runs) > 1
    assert {run.trigger for run in runs[:-1]} == {"continued"}
    assert all(run.found == run.settled for run in runs)
    assert sum(run.vectors_written for run in runs) == 300
    assert_right_vectors(search, INDEX, model)


@pytest.mark.apart
def test_open_chunks_stay_within_their_limit_and_a_small_project_is_not_starved(
    pipeline: Build, search: Search
) -> None:
    search.create("large_2026_11")
    search.index("large_2026_11", logs(3000, 3000))
    search.create("small_2026_11")
    search.index("small_2026_11", [{**log, "message": f"small {n}"} for n, log in
                                   enumerate(logs(50, 50))])  # fmt: skip
    one = pipeline(enrich_max_chunks_in_flight=4)
    most = 0
    first_chunks: list[str] = []

    def watch(name: str, arguments: Any) -> None:
        nonlocal most
        run = one.ledger.runs.active()
        most = max(most, one.ledger.runs.state(run).open_chunks if run else 0)
        if name == "embed_and_update":
            first_chunks.extend(reference[0] for reference in arguments[0]["references"])

    one.before = watch
    record = one.run()

    assert_adds_up(record)
    assert record.found == 3050
    assert most <= 4
    last_small = max(n for n, index in enumerate(first_chunks) if index == "small_2026_11")
    assert last_small < 0.05 * 3050


def test_excluded_indices_and_old_logs_are_left_alone(pipeline: Build, search: Search) -> None:
    search.create(INDEX)
    search.index(INDEX, [{"level": "ERROR", "message": "new", "timestamp": "2999-01-01T00:00:00Z"}])
    search.index(INDEX, [{**logs(1, 1)[0], "timestamp": "2001-01-01T00:00:00Z", "_id": "old"}])
    search.create("other_2026_11")
    search.index("other_2026_11", logs(2, 2))

    record = pipeline(enrich_exclude_indices="other_*", enrich_max_age_days=30).run()

    assert record.found == 1
    assert "log_vector" not in search.source(INDEX, "old")


def test_paused_work_waits_and_goes_on(
    pipeline: Build, search: Search, three_hundred: list[str]
) -> None:
    one = pipeline()
    one.ledger.controls.pause()
    one.find_unvectorized("beat")
    one.deliver()
    assert (one.lines, one.ledger.records.totals().runs) == (["skipped: paused"], 0)
    one.ledger.controls.resume()
    assert one.run("beat").vectors_written == 300


def test_other_levels_are_a_setting(pipeline: Build, search: Search) -> None:
    search.create(INDEX)
    search.index(INDEX, logs(2, 2) + logs(3, 3, level="FATAL"))
    assert pipeline(enrich_levels="FATAL,ERROR").run().vectors_written == 5


def test_scripts_forbidden_means_smaller_pages_and_the_same_vectors(
    pipeline: Build, search: Search, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    search.create(INDEX)
    search.index(INDEX, logs(120, 120))
    # The node's own refusal of a script it cannot compile stands for one that it may not run.
    monkeypatch.setattr("enrich.log_store.pages._MESSAGE_SCRIPT", "not painless")
    record = pipeline().run()
    assert_adds_up(record)
    assert record.vectors_written == 120
    assert_right_vectors(search, INDEX, model)


def lose(one: Pipeline, chunk: Chunk, times: int, alone: str = "") -> None:
    """Begin a chunk and lose the worker, so many times; the last one at a text alone."""
    for n in range(times):
        claimed = one.ledger.chunks.begin(chunk.id, f"lost-host/{n}", 0)
        assert claimed.verdict == "go"
    if alone:
        one.ledger.chunks.note_alone(chunk.id, f"lost-host/{times - 1}", alone)


def test_a_text_that_takes_its_worker_down_alone_fails_and_no_other(
    pipeline: Build, search: Search, three_hundred: list[str]
) -> None:
    one = pipeline()
    one.find_unvectorized("beat")
    one.deliver()
    chunk = Chunk.from_message(chunks(one)[0][1][0])
    culprit = search.source(INDEX, chunk.references[3].id)["message"]
    lose(one, chunk, 3, fingerprint(culprit))

    hasty = pipeline(enrich_soft_time_limit_seconds=0.0001, enrich_hard_time_limit_seconds=0.001)
    line = hasty.backfill.embed_and_update(chunk)

    assert line == "100 found: 99 embedded, 1 failed"
    failed = search.source(INDEX, chunk.references[3].id)
    assert failed["ai_enrichment_error"] == "worker_lost"


def test_a_deploy_is_not_held_against_a_chunk(
    pipeline: Build, search: Search, three_hundred: list[str]
) -> None:
    one = pipeline()
    one.find_unvectorized("beat")
    one.deliver()
    chunk = Chunk.from_message(chunks(one)[0][1][0])
    one.ledger.controls.note_shutdown("lost-host", 60)
    lose(one, chunk, 5)
    assert one.ledger.chunks.begin(chunk.id, "lost-host/9", 0).workers_lost == 0


def test_a_chunk_that_no_worker_survives_is_put_off_and_the_run_ends(
    pipeline: Build, search: Search, three_hundred: list[str], embeddings: ApiControl
) -> None:
    one = pipeline()
    one.find_unvectorized("beat")
    one.deliver()
    chunk = Chunk.from_message(chunks(one)[0][1][0])
    lose(one, chunk, MAX_WORKERS_LOST + 1)

    hasty = pipeline(enrich_soft_time_limit_seconds=0.0001, enrich_hard_time_limit_seconds=0.001)
    assert hasty.backfill.embed_and_update(chunk) == "100 found: 0 failed, 100 deferred"

    assert embeddings.seen["inputs"] == 0
    while one.messages:
        one.deliver()
    record = one.ledger.records.last(1)[0]
    assert (record.state, record.deferred, record.vectors_written) == ("finished", 100, 200)


def test_a_page_whose_registering_was_answered_twice_is_sent(
    pipeline: Build, search: Search, three_hundred: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis carried it out, its answer was lost, and the client asked again."""
    once = Pages.register

    def twice(self: Pages, *arguments: Any, **options: Any) -> str:
        once(self, *arguments, **options)
        return once(self, *arguments, **options)

    monkeypatch.setattr(Pages, "register", twice)
    record = pipeline().run()
    assert (record.state, record.vectors_written, record.deferred) == ("finished", 300, 0)


def test_a_run_whose_sum_differs_says_so(
    pipeline: Build, search: Search, three_hundred: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    one = pipeline()
    one.find_unvectorized("beat")
    one.deliver()
    run = one.ledger.runs.active()
    one.ledger.counters.add(run, found=1)
    while one.messages:
        one.deliver()
    assert "does not add up: 301 found, 300 accounted for" in caplog.text

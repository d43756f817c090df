"""A run's pages: what may be enriched, what is registered before it is sent, and when it ends.

All in memory; tests/integration has some of it on servers.
"""

from __future__ import annotations

import logging
from typing import Any

import pytest

from enrich.embedding.batching import HARMLESS_TEXT
from enrich.embedding.in_memory import vector_of
from enrich.embedding.locations import VectorLocation
from enrich.enrichment.write_trials import DEAD
from enrich.errors import Halt, InputRefused, ServerUnavailable
from enrich.ledger import IndexState, Scan
from enrich.log_store.preflight import Nodes
from enrich.log_store.version import Version
from enrich.models import LogLocation, Reference
from enrich.text.extract import fingerprint
from tests.memory_pipeline import DIMENSIONS, MemoryPipeline, assert_adds_up, logs

A, B, C = "a_2026_11", "b_2026_11", "c_2026_11"


def begun(**overrides: Any) -> tuple[MemoryPipeline, str]:
    """A pipeline with a run that has read nothing yet."""
    one = MemoryPipeline(**overrides)
    return one, one.ledger.runs.open("manual", 600).run


def read(one: MemoryPipeline, run: str, page: int = 1, slots: int = 64) -> str:
    return one.scanner.read_page(run, page, slots)


def fill(one: MemoryPipeline, **pending: int) -> None:
    """Give each index so many logs, each with a text of its own."""
    for index, count in pending.items():
        messages = [f"{index} {n}" for n in range(count)]
        some = [{**log, "message": m} for log, m in zip(logs(count, 1), messages, strict=True)]
        one.put(index, some)


def sent(one: MemoryPipeline) -> list[dict[str, Any]]:
    return [arguments[0] for name, arguments in one.messages if name == "embed_and_update"]


def indices_sent(one: MemoryPipeline) -> set[str]:
    return {reference[0] for message in sent(one) for reference in message["references"]}


@pytest.fixture(autouse=True)
def every_line_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "enrich.backfill")


def said(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    lines = [
        r
        for r in caplog.records
        if r.name in ("enrich.backfill.page", "enrich.backfill.survey") and r.levelno == level
    ]
    return [record.getMessage() for record in lines]


# -- the survey: nothing is bought for what cannot be written


def test_nothing_pending_ends_the_scan() -> None:
    one, run = begun()
    one.put(A, logs(3, 3, log_vector=[1.0]))
    assert read(one, run) == "nothing more to find"
    assert one.ledger.runs.state(run).over
    assert sent(one) == []
    assert not one.ledger.records.of(run).more


def test_indices_that_cannot_be_enriched_are_skipped_with_their_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, run = begun()
    fill(one, **{A: 3, B: 3, C: 3, "d_2026_11": 3, "e_2026_11": 3})
    one.store.indices[A].unreadable = "shard_failure"
    one.store.indices[B].unfit = "index.knn is not set"
    one.store.indices[C].not_whole = "a write would lose fields"
    one.ledger.index_states.note("d_2026_11", IndexState.DEAD)

    read(one, run)

    assert one.ledger.runs.skipped(run) == {
        A: "it cannot be searched: shard_failure",
        B: "index.knn is not set",
        C: "a write would lose fields",
        "d_2026_11": DEAD,
    }
    assert indices_sent(one) == {"e_2026_11"}
    assert one.ledger.records.of(run).found == 3
    assert sorted(said(caplog, logging.WARNING)) == [
        f"index {B} is skipped: index.knn is not set",
        f"index {C} is skipped: a write would lose fields",
        f"index d_2026_11 is skipped: {DEAD}",
    ]


def test_where_every_index_is_left_out_the_endpoint_is_not_asked() -> None:
    one, run = begun()
    fill(one, **{A: 3})
    one.store.indices[A].unfit = "index.knn is not set"
    assert read(one, run) == "nothing more to find"
    assert one.embedder.requests == []
    assert one.ledger.runs.state(run).over


@pytest.mark.parametrize("trouble", ["too old", "full disk"])
def test_what_concerns_all_indices_halts(trouble: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, run = begun()
    fill(one, **{A: 3})
    if trouble == "too old":
        monkeypatch.setattr(one.store, "version", lambda: Version("opensearch", "2.3.0"))
    else:
        one.store.seen_nodes = Nodes(data=1, blocker="a full disk")
    with pytest.raises(Halt, match=trouble):
        read(one, run)
    assert one.ledger.pages.scan(run) is None
    assert sent(one) == []


def test_the_survey_is_made_once_and_the_smallest_backlog_comes_first() -> None:
    one, run = begun(enrich_batch_size=1)
    fill(one, **{A: 9, B: 2, C: 5})
    one.store.seen_nodes = Nodes(data=3, blocker="")
    first = read(one, run, slots=1)
    scan = one.ledger.pages.scan(run)
    assert scan is not None
    assert first == "page 1: 1 logs in 1 chunks"
    assert indices_sent(one) == {B}
    assert (scan.nodes, scan.left) == (3, {A: 9, B: 1, C: 5})
    # What is pending now is the first page's doing.
    fill(one, d_2026_11=3)
    read(one, run, 2)
    assert "d_2026_11" not in indices_sent(one)


def test_a_run_begins_by_what_the_indices_are_like() -> None:
    one, run = begun(enrich_batch_size=1)
    one.put(A, logs(3, 3))
    one.put(B, logs(3, 3))
    one.store.indices[A].window = 2
    one.store.indices[A].update_only = True
    one.store.indices[B].sortable = False
    read(one, run, slots=2)
    scan = one.ledger.pages.scan(run)
    assert scan is not None
    assert (scan.windows, scan.update_only, scan.unsorted) == ({A: 2}, [A], [B])
    assert {tuple(m["update_only"]) for m in sent(one)} == {(A,)}


def test_chunks_name_only_those_of_their_indices_that_are_written_by_update() -> None:
    one, run = begun()
    one.put(A, logs(1, 1))
    one.put(B, logs(2, 2))
    one.store.seen_nodes = Nodes(data=2, blocker="")
    one.store.indices[A].update_only = True
    read(one, run)
    (message,) = sent(one)
    assert indices_sent(one) == {A, B}
    assert message["update_only"] == [A]


def test_after_a_halt_the_endpoint_is_tried_with_one_text() -> None:
    one, run = begun()
    fill(one, **{A: 3})
    one.ledger.runs.halt(run, "the key is refused")
    one.ledger.runs.finish(run)
    next_run = one.ledger.runs.open("manual", 600).run
    read(one, next_run)
    assert one.embedder.requests == [[HARMLESS_TEXT]]
    assert one.ledger.records.of(next_run).api_requests == 1


def test_an_endpoint_that_takes_not_even_a_harmless_text_halts_the_next_run_too() -> None:
    one, run = begun()
    fill(one, **{A: 3})
    one.ledger.runs.halt(run, "the key is refused")
    one.ledger.runs.finish(run)
    next_run = one.ledger.runs.open("manual", 600).run
    one.embedder.trouble = lambda texts: InputRefused("the endpoint refuses (400)")
    with pytest.raises(Halt, match="check EMBEDDING_MODEL"):
        read(one, next_run)
    assert sent(one) == []


def test_without_a_halt_before_the_endpoint_is_not_tried() -> None:
    one, run = begun()
    one.ledger.pages.register(run, 1, scan=empty_scan(), scan_done=True)
    one.ledger.runs.finish(run)
    fill(one, **{A: 3})
    read(one, one.ledger.runs.open("manual", 600).run)
    assert one.embedder.requests == []


def empty_scan() -> Scan:
    return Scan(pending=[], update_only=[], unsorted=[])


# -- limits


def test_a_first_page_is_read_whatever_the_time_and_none_after_it() -> None:
    one, _ = MemoryPipeline(enrich_batch_size=1), ""
    run = one.ledger.runs.open("manual", 0).run
    fill(one, **{A: 9})
    assert read(one, run, slots=1) == "page 1: 1 logs in 1 chunks"
    assert read(one, run, 2, slots=1) == "nothing more to find now (time)"
    record = one.ledger.records.of(run)
    assert (record.found, record.more, record.stopped_by) == (1, True, "time")
    assert one.ledger.runs.state(run).scan_done


def test_no_more_logs_are_taken_than_a_run_may() -> None:
    one, run = begun(enrich_max_logs_per_run=5, enrich_batch_size=1)
    fill(one, **{A: 9})
    assert read(one, run, slots=3).startswith("page 1: 3 logs")
    assert read(one, run, 2).startswith("page 2: 2 logs")
    assert read(one, run, 3) == "nothing more to find now (cap)"
    record = one.ledger.records.of(run)
    assert (record.found, record.more, record.stopped_by) == (5, True, "cap")


def test_one_log_more_is_taken_where_one_more_may_be() -> None:
    one, run = begun(enrich_max_logs_per_run=4, enrich_batch_size=1)
    fill(one, **{A: 9})
    read(one, run, slots=3)
    assert read(one, run, 2).startswith("page 2: 1 logs")


@pytest.mark.parametrize(
    ("left", "line"), [(0.5, "page 2: "), (0, "nothing more to find now (time)")]
)
def test_a_scan_lasts_three_quarters_of_an_interval(left: float, line: str) -> None:
    one, run = begun(enrich_batch_size=1)
    fill(one, **{A: 9})
    read(one, run, slots=1)
    one.later = one.ledger.pages.seconds_left(run) - left
    assert read(one, run, 2, slots=1).startswith(line)


def test_a_limit_that_is_reached_when_nothing_is_left_leaves_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, run = begun(enrich_max_logs_per_run=1, enrich_batch_size=1)
    fill(one, **{A: 9})
    read(one, run)
    one.ledger.runs.skip(run, A, "its mapping is full")
    assert read(one, run, 2) == "nothing more to find"
    record = one.ledger.records.of(run)
    assert (record.more, record.stopped_by) == (False, "")
    scan = one.ledger.pages.scan(run)
    assert scan is not None and scan.pending == []
    line = "Cycle #1 step 1/3: logs found without vectors: 1, 1 indices skipped"
    assert said(caplog)[-1] == line


def test_a_run_that_took_as_many_as_it_may_and_all_leaves_none() -> None:
    one, run = begun(enrich_max_logs_per_run=3)
    fill(one, **{A: 3})
    read(one, run)
    record = one.ledger.records.of(run)
    assert (record.found, record.more, record.stopped_by) == (3, False, "")
    assert one.ledger.runs.state(run).scan_done


def test_where_the_day_s_money_is_spent_nothing_is_taken() -> None:
    one, run = begun(enrich_max_cost_per_day=1)
    fill(one, **{A: 3})
    one.ledger.counters.add(run, micro_usd=1_000_000)
    assert read(one, run) == "nothing more to find now (budget)"
    record = one.ledger.records.of(run)
    assert (record.found, record.more, record.stopped_by) == (0, True, "budget")


def test_a_project_that_has_spent_its_share_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    one, run = begun(enrich_max_cost_per_day=10, enrich_max_project_share=0.5)
    fill(one, **{A: 3, B: 3})
    one.ledger.spending.saw({"a", "b"})
    one.ledger.counters.add(run, micro_usd=5_000_000, paid_by={"a": 5_000_000})
    read(one, run)
    assert indices_sent(one) == {B}
    why = one.ledger.runs.skipped(run)[A]
    assert "project a has used its share" in why
    assert said(caplog, logging.WARNING) == [f"index {A} is skipped: {why}"]


def test_a_project_that_spends_its_share_under_way_is_left_out_from_then_on() -> None:
    one, run = begun(enrich_max_cost_per_day=10, enrich_max_project_share=0.5, enrich_batch_size=1)
    fill(one, **{A: 3, B: 9})
    read(one, run, slots=1)
    assert indices_sent(one) == {A}
    one.ledger.counters.add(run, micro_usd=5_000_000, paid_by={"a": 5_000_000})
    one.messages.clear()
    read(one, run, 2)
    assert indices_sent(one) == {B}
    assert A in one.ledger.runs.skipped(run)


# -- what a page leaves out


def test_indices_skipped_since_the_survey_are_not_searched() -> None:
    one, run = begun(enrich_batch_size=1)
    fill(one, **{A: 3, B: 9})
    read(one, run, slots=1)
    one.ledger.runs.skip(run, A, "its mapping is full")
    one.messages.clear()
    read(one, run, 2)
    assert indices_sent(one) == {B}


def test_an_index_that_cannot_be_searched_is_skipped_for_the_rest_of_the_run() -> None:
    one, run = begun(enrich_batch_size=1)
    fill(one, **{A: 3, B: 9})
    read(one, run, slots=1)
    one.store.indices[A].unreadable = "shard_failure"
    read(one, run, 2, slots=1)
    assert one.ledger.runs.skipped(run) == {A: "it cannot be searched (shard_failure)"}
    one.store.indices[A].unreadable = ""
    one.messages.clear()
    read(one, run, 3)
    assert indices_sent(one) == {B}
    assert one.ledger.runs.state(run).scan_done


def test_what_is_being_tried_takes_no_turn_from_the_others() -> None:
    one, run = begun(enrich_batch_size=1)
    fill(one, **{A: 2, B: 9})
    assert one.ledger.index_states.lease(A, "another worker")
    read(one, run, slots=1)
    assert indices_sent(one) == {B}


def test_documents_that_cannot_be_marked_are_not_taken_again() -> None:
    one, run = begun()
    fill(one, **{A: 3})
    one.ledger.refused.record(A, "log1", "mapping_refused")
    read(one, run)
    (message,) = sent(one)
    assert {reference[1] for reference in message["references"]} == {"log0", "log2"}


def test_indices_in_trouble_are_read_behind_the_others_and_share_no_chunk_with_them() -> None:
    one, run = begun()
    fill(one, **{A: 2, B: 9})
    one.store.seen_nodes = Nodes(data=2, blocker="")
    one.ledger.index_states.note_trouble([A])
    read(one, run)
    assert indices_sent(one) == {B}
    scan = one.ledger.pages.scan(run)
    assert scan is not None
    assert scan.pending == [(A, None)]
    assert not one.ledger.runs.state(run).scan_done
    one.messages.clear()
    # Where all that is left is in trouble, it is read all the same.
    read(one, run, 2)
    assert indices_sent(one) == {A}
    assert one.ledger.runs.state(run).scan_done


def test_an_index_that_answers_too_late_is_in_trouble_and_then_skipped() -> None:
    one, run = begun()
    fill(one, **{A: 2, B: 9})
    one.store.seen_nodes = Nodes(data=2, blocker="")
    one.store.indices[A].slow = True
    read(one, run)
    assert one.ledger.index_states.in_trouble([A, B]) == {A}
    assert indices_sent(one) == {B}
    assert one.ledger.runs.skipped(run) == {}
    read(one, run, 2)
    assert one.ledger.runs.skipped(run) == {A: "it answers too late"}
    assert one.ledger.runs.state(run).scan_done


# -- reusable vectors


def enriched(one: MemoryPipeline, index: str, message: str, model: str = "") -> None:
    """A log that has a vector of a text already."""
    source = {
        **logs(1, 1)[0],
        "message": message,
        "log_vector": vector_of(message, DIMENSIONS).tolist(),
        "ai_embedding_model": model or one.settings.embedding_model,
        "ai_embedding_dimensions": DIMENSIONS,
        "ai_text_sha256": fingerprint(message),
    }
    one.put(index, [source], "enriched")


def test_a_chunk_names_logs_of_its_project_that_have_a_vector_of_its_texts() -> None:
    one, run = begun()
    texts = ["one", "two", "three", "four"]
    one.put("a_2026_11", [{**logs(1, 1)[0], "message": text} for text in texts])
    enriched(one, "a_2026_10", "one")
    enriched(one, "b_2026_10", "two")
    enriched(one, "a_2026_09", "three", model="another")
    read(one, run)
    (message,) = sent(one)
    assert message["donors"] == [["a_2026_10", "enriched0", None]]
    # Vectors that are there were compared first, and the run says so.
    assert "are the same" in one.ledger.records.of(run).comparison


def test_any_project_gives_where_that_is_allowed() -> None:
    one, run = begun(enrich_reuse_across_projects=True)
    one.put("a_2026_11", [{**logs(1, 1)[0], "message": "two"}])
    enriched(one, "b_2026_10", "two")
    read(one, run)
    (message,) = sent(one)
    assert message["donors"] == [["b_2026_10", "enriched0", None]]


def test_texts_that_are_known_or_none_are_not_searched_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, run = begun()
    searched: list[dict[str, set[str]]] = []
    find = one.store.reusable.find

    def donors(wanted: dict[str, set[str]]) -> dict[tuple[str, str], LogLocation]:
        searched.append(wanted)
        return find(wanted)

    monkeypatch.setattr(type(one.store.reusable), "find", lambda self, wanted: donors(wanted))
    one.cache.put({fingerprint("cached"): vector_of("cached", DIMENSIONS)})
    where = Reference(B, "1", None, 1, 1)
    place = VectorLocation.of(where, fingerprint("written"), vector_of("written", DIMENSIONS))
    one.locations.remember({fingerprint("written"): place})
    messages = ["cached", "written", "new", "  ", 7]
    one.put(A, [{**logs(1, 1)[0], "message": message} for message in messages])
    read(one, run)
    assert searched == [{"a": {fingerprint("new")}}]


# -- a survey is made once


def test_a_survey_outlives_the_page_that_fails_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    one, run = begun()
    fill(one, **{A: 3})
    finder, backlog = type(one.store.finder), type(one.store.backlog)
    surveys: list[Any] = []
    count, page = backlog.count, finder.page
    monkeypatch.setattr(backlog, "count", lambda self: surveys.append(count(self)) or surveys[-1])

    def slow(self: Any, *arguments: Any, **named: Any) -> Any:
        monkeypatch.setattr(finder, "page", page)
        raise ServerUnavailable("OpenSearch did not answer in time")

    monkeypatch.setattr(finder, "page", slow)
    with pytest.raises(ServerUnavailable):
        read(one, run)
    assert read(one, run) == "page 1: 3 logs in 1 chunks"
    assert len(surveys) == 1


# -- registered, then sent


def test_a_page_is_registered_before_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    one, run = begun(enrich_batch_size=1)
    fill(one, **{A: 3})

    def away(message: Any) -> None:
        raise ServerUnavailable("the broker is gone")

    with monkeypatch.context() as broken, pytest.raises(ServerUnavailable):
        broken.setattr(one.publisher, "embed_and_update", away)
        read(one, run)
    assert one.ledger.records.of(run).chunks_open == 3
    assert len(one.ledger.pages.outbox(run)) == 3
    # Delivered again, it is sent from there.
    one.backfill.scan(run, 1)
    assert [message["id"] for message in sent(one)] == [f"{run}:1:{k}" for k in range(3)]
    assert one.ledger.pages.outbox(run) == []


def test_messages_have_the_documents_of_the_ledger_s_chunks() -> None:
    one, run = begun(enrich_batch_size=2)
    one.put(A, logs(20, 5))
    read(one, run)
    assert [len(message["references"]) for message in sent(one)] == [8, 8, 4]
    assert one.ledger.pages.indices(run) == [A]
    record = one.ledger.records.of(run)
    assert (record.found, record.chunks, record.chunks_open) == (20, 3, 3)
    assert one.ledger.pages.outbox(run) == []


@pytest.mark.parametrize(
    ("page", "line"), [(1, "page 1 is stale"), (2, "page 2: 1 logs in 1 chunks")]
)
def test_a_page_that_another_has_registered_is_not_sent(page: int, line: str) -> None:
    one, run = begun(enrich_batch_size=1)
    fill(one, **{A: 3, B: 3})
    read(one, run, slots=1)
    one.messages.clear()
    assert read(one, run, page, slots=1) == line
    assert len(sent(one)) == page - 1


def test_a_page_whose_registration_was_answered_twice_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Redis is asked again where its first answer was lost; the outbox shows whose it is."""
    one, run = begun()
    fill(one, **{A: 3})
    register = one.ledger.pages.register

    def twice(*arguments: Any, **fields: Any) -> str:
        assert register(*arguments, **fields) == "registered"
        return register(*arguments, **fields)

    monkeypatch.setattr(one.ledger.pages, "register", twice)
    assert read(one, run) == "page 1: 3 logs in 1 chunks"
    assert len(sent(one)) == 1


def test_a_page_of_a_run_that_is_over_is_not_sent() -> None:
    one, run = begun(enrich_batch_size=1)
    fill(one, **{A: 3})
    read(one, run, slots=1)
    one.ledger.runs.halt(run, "cancelled")
    one.messages.clear()
    assert read(one, run, 2) == "page 2 is closed"
    assert sent(one) == []


def test_what_was_found_is_said_at_the_end_of_the_scan(caplog: pytest.LogCaptureFixture) -> None:
    one, run = begun(enrich_batch_size=1)
    fill(one, **{A: 3, B: 3})
    one.store.indices[A].unfit = "index.knn is not set"
    with caplog.at_level(logging.INFO, "enrich.backfill.page"):
        read(one, run, slots=1)
        assert "step 1/3" not in caplog.text
        read(one, run, 2)
    assert said(caplog) == [
        "Cycle #1 started (manual)",
        "Cycle #1 step 1/3: logs found without vectors: 3, 1 indices skipped",
    ]


def test_each_page_is_told_of_and_no_index_is_skipped(caplog: pytest.LogCaptureFixture) -> None:
    one, run = begun()
    fill(one, **{A: 3})
    read(one, run)
    assert said(caplog, logging.DEBUG) == ["page 1: 3 logs in 1 chunks"]
    assert said(caplog)[1] == "Cycle #1 step 1/3: logs found without vectors: 3"


# -- whole runs


def test_a_run_of_many_pages_enriches_every_log_once() -> None:
    one = MemoryPipeline(enrich_batch_size=7, enrich_max_chunks_in_flight=2)
    one.put(A, logs(90, 30))
    one.put(B, logs(40, 40))
    one.put(C, [{**log, "message": "  "} for log in logs(5, 5)])

    record = one.run()

    assert_adds_up(record)
    assert (record.found, record.vectors_written, record.failed) == (135, 130, 5)
    assert one.vectorised() == 130
    assert record.api_inputs == len({text for texts in one.embedder.requests for text in texts})
    assert one.run().found == 0

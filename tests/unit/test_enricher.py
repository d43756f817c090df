"""A chunk's work: each log has one outcome, and each outcome is true of the log.

All in memory; tests/integration has some of it on servers.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from enrich.embedding.in_memory import vector_of
from enrich.enrichment import enricher
from enrich.enrichment.enricher import MOST_TRIED
from enrich.enrichment.outcomes import CHANGED, IN_DOUBT, NO_VECTOR, OVERLOADED, UNREADABLE, Tally
from enrich.enrichment.write_trials import DEAD
from enrich.enrichment.writer import IndexSilent
from enrich.errors import (
    AccessRefused,
    EnrichError,
    IndexInTrouble,
    InputRefused,
    NotYet,
    ServerUnavailable,
    TransientError,
)
from enrich.ledger import IndexState, Lease, Scan
from enrich.log_store import DROPPED, MAPPING_FULL, NoAnswerInTime, Verdict, Write
from enrich.log_store.in_memory import BLOCKED, ItemAnswer
from enrich.log_store.in_memory import OVERLOADED as REJECTED
from enrich.models import METHOD, VECTOR_OUTCOMES, Chunk, LogLocation, Outcome, Reference
from enrich.ratelimit.write_throttle import WriteThrottle
from enrich.text.extract import fingerprint
from tests.memory_pipeline import DIMENSIONS, MemoryPipeline, logs

A, B = "a_2026_11", "b_2026_11"
NO_SHRINKING = [phase for phase in Phase if phase is not Phase.shrink]

GO = Lease(verdict="go", owner="host/1")


@contextmanager
def all_foreseen() -> Iterator[None]:
    """Nothing was caught that was not foreseen, whatever was made good after it."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = records.append  # type: ignore[method-assign]
    logger = logging.getLogger(enricher.__name__)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
    assert [record.getMessage() for record in records] == []


class Desk(MemoryPipeline):
    """A pipeline with one chunk that is begun."""

    def __init__(self, **overrides: Any) -> None:
        super().__init__(**overrides)
        self.run_id = self.ledger.runs.open("manual", 600).run

    def find(
        self, messages: Sequence[Any], index: str = A, name: str = "log", **fields: Any
    ) -> list[Reference]:
        """Write a log for each message; where they were found."""
        some = [{**log, "message": m} for log, m in zip(logs(len(messages), 1, **fields), messages,
                                                        strict=True)]  # fmt: skip
        if index not in self.store.indices:
            self.store.create(index)
        found = [self.store.put(index, f"{name}{n}", log) for n, log in enumerate(some)]
        self.store.documents.refresh([index])
        return found

    def chunk(self, references: Sequence[Reference], **how: Any) -> Chunk:
        """A chunk of these, known to the ledger."""
        chunk = Chunk(id=f"{self.run_id}:1:0", references=tuple(references), **how)
        scan = Scan(pending=[], update_only=[], unsorted=[])
        self.ledger.pages.register(
            self.run_id, 1, scan=scan, scan_done=True, chunks={chunk.id: len(references)}
        )
        assert self.ledger.chunks.begin(chunk.id, "host/1", 60).verdict == "go"
        return chunk

    def work(self, references: Sequence[Reference], lease: Lease = GO, **how: Any) -> Tally:
        """Work on a chunk of these; each has one outcome, and nobody stumbles."""
        with all_foreseen():
            tally = self.enricher.work(self.chunk(references, **how), lease)
        assert sum(tally.outcomes.values()) == len(references)
        assert sum(tally.reasons.values()) <= tally.outcomes["deferred"]
        return tally

    def source(self, reference: Reference) -> dict[str, Any]:
        return self.sources(reference.index)[reference.id]

    def answer(self, index: str, *answers: ItemAnswer | None) -> None:
        """What the next writes to an index are answered; None carries them out."""
        waiting = list(answers)
        self.store.indices[index].answer = lambda write: waiting.pop(0) if waiting else None

    def between_reading_and_writing(self, change: Callable[[], Any]) -> None:
        """Have somebody change the logs once, after they were read."""
        changes = [change]

        def once(write: Write) -> None:
            if changes:
                changes.pop()()

        for index in self.store.indices.values():
            index.answer = once


def enriched(desk: Desk, index: str, message: str) -> LogLocation:
    """A log that has the vector of its text already."""
    (found,) = desk.find(
        [message],
        index,
        log_vector=vector_of(message, DIMENSIONS).tolist(),
        ai_embedding_model=desk.settings.embedding_model,
        ai_embedding_dimensions=DIMENSIONS,
        ai_text_sha256=fingerprint(message),
    )
    return LogLocation(found.index, found.id, None)


def sent(desk: Desk) -> list[list[str]]:
    """The texts of each request, in no order."""
    return [sorted(texts) for texts in desk.embedder.requests]


def told(tally: Tally) -> dict[str, int]:
    """The outcomes that some logs had."""
    return {name: count for name, count in tally.outcomes.items() if count}


# -- texts and what is written


def test_logs_of_one_text_share_a_vector_and_one_request() -> None:
    desk = Desk()
    found = desk.find(["one", "two", "one", " one "])
    tally = desk.work(found)
    assert told(tally) == {"embedded": 2, "duplicate": 2}
    assert sent(desk) == [["one", "two"]]
    assert desk.vectorised() == 4
    sources = [desk.source(reference)["ai_vector_source"] for reference in found]
    assert Counter(sources) == {"embedded": 2, "duplicate": 2}


def test_what_is_written_beside_a_vector() -> None:
    desk = Desk()
    (found,) = desk.find(["one"])
    before = desk.source(found)
    desk.work([found])
    after = desk.source(found)
    assert {name: after[name] for name in before} == before
    time = after.pop("ai_enriched_at")
    assert time.endswith("Z") and len(time) == len("2026-11-20T10:00:00.000Z")
    assert {name: after[name] for name in after.keys() - before.keys()} == {
        "log_vector": vector_of("one", DIMENSIONS).tolist(),
        "ai_enrichment_status": "success",
        "ai_enrichment_method": METHOD,
        "ai_enrichment_run": desk.run_id,
        "ai_embedding_model": desk.settings.embedding_model,
        "ai_embedding_dimensions": DIMENSIONS,
        "ai_text_sha256": fingerprint("one"),
        "ai_vector_source": "embedded",
    }


@pytest.mark.parametrize(
    ("message", "code"),
    [(None, "message_missing"), (7, "message_not_text"), ("  ", "message_empty")],
)
def test_a_log_without_a_text_is_marked_and_costs_nothing(message: Any, code: str) -> None:
    desk = Desk()
    bad, good = desk.find([message, "one"])
    assert told(desk.work([bad, good])) == {"failed": 1, "embedded": 1}
    source = desk.source(bad)
    assert source["ai_enrichment_error"] == code
    assert source["ai_enrichment_status"] == "failed"
    assert source["ai_enrichment_run"] == desk.run_id
    assert source["ai_enriched_at"] and source["ai_enrichment_method"] == METHOD
    assert "log_vector" not in source and "ai_vector_source" not in source
    assert sent(desk) == [["one"]]


def test_indices_with_a_pipeline_are_written_by_update(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    found = [*desk.find(["one"]), *desk.find(["two"], B)]
    seen: dict[str, bool] = {}
    for name in (A, B):
        desk.store.indices[name].answer = lambda write, name=name: seen.update(  # type: ignore[misc]
            {name: write.by_update}
        )
    assert told(desk.work(found, update_only=(B,))) == {"embedded": 2}
    assert seen == {A: False, B: True}


def test_the_same_text_in_two_projects_is_sent_once() -> None:
    desk = Desk()
    found = [*desk.find(["one", "one"]), *desk.find(["one"], B)]
    assert told(desk.work(found)) == {"embedded": 1, "duplicate": 2}
    assert sent(desk) == [["one"]]
    assert desk.ledger.records.of(desk.run_id).api_inputs == 1


def test_what_is_paid_for_is_found_again_in_the_cache_or_where_it_was_written() -> None:
    desk = Desk()
    assert told(desk.work(desk.find(["one"]))) == {"embedded": 1}
    known = fingerprint("one")
    assert desk.cache.known([known]) == {known}
    place = desk.locations.find([known])[known]
    assert (place.index, place.id) == (A, "log0")
    assert place.vouches_for(known, vector_of("one", DIMENSIONS))

    other = Desk()
    other.cache.put({known: vector_of("one", DIMENSIONS)})
    assert told(other.work(other.find(["one", "two"]))) == {"cached": 1, "embedded": 1}
    # Only what came from the API is a place that vouches for it.
    assert other.locations.find([known, fingerprint("two")]).keys() == {fingerprint("two")}


def test_a_vector_of_the_same_project_is_taken_over() -> None:
    desk = Desk()
    place = enriched(desk, "a_2026_10", "one")
    found = desk.find(["one", "two"])
    assert told(desk.work(found, reusable=(place,))) == {"reused": 1, "embedded": 1}
    assert sent(desk) == [["two"]]
    assert desk.source(found[0])["ai_vector_source"] == "reused"


@pytest.mark.parametrize("workers_lost", [0, 2])
def test_it_is_also_taken_over_where_logs_go_alone(workers_lost: int) -> None:
    desk = Desk()
    place = enriched(desk, "a_2026_10", "one")
    found = desk.find(["one"])
    desk.store.indices[A].native = True
    lease = GO._replace(workers_lost=workers_lost)
    assert told(desk.work(found, lease, reusable=(place,))) == {"reused": 1}
    assert desk.embedder.requests == []


def test_what_is_masked_is_sent_and_compared_masked() -> None:
    desk = Desk(enrich_mask=("all",))
    found = desk.find(["mail to ann@example.org failed", "mail to bob@example.org failed"])
    assert told(desk.work(found)) == {"embedded": 1, "duplicate": 1}
    ((text,),) = desk.embedder.requests
    assert "example.org" not in text


def test_writes_of_several_batches_are_all_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    one_by_one = lambda self, writes: ([write] for write in writes)  # noqa: E731
    monkeypatch.setattr(WriteThrottle, "batches", one_by_one)
    found = desk.find(["one", "two", "three"])
    desk.answer(A, None, REJECTED)
    chunk = desk.chunk(found)
    with pytest.raises(IndexInTrouble):
        desk.enricher.work(chunk, GO)
    assert told(desk.enricher.work(chunk, GO)) == {"embedded": 2, "cached": 1}


# -- logs that are not pending any more


def test_logs_that_are_settled_already_are_not_embedded() -> None:
    desk = Desk()
    found = desk.find(["one"] * 9)
    put = desk.store.put
    base = logs(1, 1)[0]
    desk.store.delete(A, "log0")
    put(A, "log1", {**base, "log_vector": [1.0], "ai_enrichment_run": "another"})
    put(A, "log2", {**base, "ai_enrichment_status": "failed"})
    put(A, "log3", {**base, "level": "INFO"})
    put(A, "log4", {**base, "log_vector": [1.0], "ai_enrichment_run": desk.run_id,
                    "ai_vector_source": "reused"})  # fmt: skip
    put(A, "log5", {**base, "log_vector": [1.0], "ai_enrichment_run": desk.run_id,
                    "ai_vector_source": "?"})  # fmt: skip
    put(A, "log6", {**base, "log_vector": [1.0], "ai_enrichment_run": "another",
                    "ai_vector_source": "reused"})  # fmt: skip
    # Changed, and pending all the same: it is the present text that is embedded.
    put(A, "log7", {**base, "message": "changed"})
    tally = desk.work(found)
    assert told(tally) == {
        "gone": 2, "already_vectorized": 3, "failed": 1, "reused": 1, "embedded": 2,
    }  # fmt: skip
    assert desk.source(found[7])["log_vector"] == vector_of("changed", DIMENSIONS).tolist()
    assert tally.by_others == {"another": 2, desk.run_id: 1}


def test_a_log_that_is_as_it_was_found_is_pending_whatever_it_says() -> None:
    desk = Desk()
    (found,) = desk.find(["one"], level="INFO")
    assert told(desk.work([found])) == {"embedded": 1}


def test_vectors_of_runs_that_this_redis_does_not_know_are_counted() -> None:
    desk = Desk()
    found = desk.find(["one"] * 4)
    base = logs(1, 1)[0]
    for n, run in enumerate(("stranger", "stranger", desk.run_id)):
        desk.store.put(A, f"log{n}", {**base, "log_vector": [1.0], "ai_enrichment_run": run})
    assert told(desk.work(found)) == {"already_vectorized": 3, "embedded": 1}
    assert desk.ledger.records.of(desk.run_id).written_by_others == 2


def test_accounting_changes_nothing() -> None:
    desk = Desk()
    found = desk.find(["one"] * 4)
    base = logs(1, 1)[0]
    desk.store.delete(A, "log0")
    desk.store.put(A, "log1", {**base, "log_vector": [1.0], "ai_enrichment_run": desk.run_id,
                               "ai_vector_source": "cached"})  # fmt: skip
    before = desk.sources(A)
    assert told(desk.enricher.account(desk.chunk(found))) == {
        "gone": 1, "cached": 1, "deferred": 2,
    }  # fmt: skip
    assert desk.sources(A) == before
    assert sent(desk) == []


# -- indices that cannot be read or written


def test_a_shard_that_is_away_is_waited_for() -> None:
    desk = Desk()
    found = [*desk.find(["one"]), *desk.find(["two"], B)]
    desk.store.indices[B].unreadable = "no_shard_available_action_exception"
    with pytest.raises(TransientError, match="cannot be read now"):
        desk.work(found)
    # What could be written is.
    assert desk.vectorised(A) == 1


def test_a_shard_that_is_away_is_waited_for_also_beside_a_closed_index() -> None:
    desk = Desk()
    found = [*desk.find(["one"]), *desk.find(["two"], B)]
    desk.store.indices[A].unreadable = "away"
    desk.store.indices[B].closed = True
    with pytest.raises(IndexInTrouble):
        desk.work(found)


def test_a_closed_index_is_not_waited_for() -> None:
    desk = Desk()
    found = [*desk.find(["one"]), *desk.find(["two"], B)]
    desk.store.indices[B].closed = True
    tally = desk.work(found)
    assert told(tally) == {"embedded": 1, "deferred": 1}
    assert tally.reasons == {UNREADABLE: 1}


def test_whether_a_lost_delivery_wrote_to_a_closed_index_is_waited_for() -> None:
    desk = Desk()
    found = desk.find(["one"])
    desk.store.indices[A].closed = True
    with pytest.raises(TransientError, match=IN_DOUBT[:20]):
        desk.work(found, GO._replace(tried=True))


def test_an_index_that_the_run_has_skipped_is_bought_nothing() -> None:
    desk = Desk()
    found = [*desk.find(["one"]), *desk.find(["two"], B)]
    desk.ledger.runs.skip(desk.run_id, B, "its mapping is full")
    tally = desk.work(found)
    assert told(tally) == {"embedded": 1, "deferred": 1}
    assert tally.reasons == {f"{B}: its mapping is full": 1}
    assert sent(desk) == [["one"]]


def test_logs_that_would_not_be_written_back_whole_are_left_alone() -> None:
    desk = Desk()
    found = [*desk.find(["one"]), *desk.find(["two", "three"], B)]
    desk.store.indices[B].not_whole = "a write would lose fields"
    tally = desk.work(found)
    assert told(tally) == {"embedded": 1, "deferred": 2}
    assert tally.reasons == {f"{B}: a write would lose fields": 2}
    assert desk.ledger.runs.skipped(desk.run_id) == {B: "a write would lose fields"}
    assert sent(desk) == [["one"]]
    assert desk.vectorised(B) == 0


# -- texts without a vector


def test_a_text_that_the_api_refuses_is_marked_and_its_neighbours_stand() -> None:
    desk = Desk()
    desk.embedder.trouble = lambda texts: InputRefused("refused") if "bad" in texts else None
    found = desk.find(["one", "bad", "two", "bad"])
    assert told(desk.work(found)) == {"embedded": 2, "failed": 2}
    assert desk.source(found[1])["ai_enrichment_error"] == "text_refused"
    assert desk.source(found[3])["ai_enrichment_error"] == "text_refused"


def test_numbers_that_are_no_vector_defer_their_logs() -> None:
    desk = Desk()
    desk.embedder.invalid = {"odd"}
    tally = desk.work(desk.find(["one", "odd", "odd"]))
    assert told(tally) == {"embedded": 1, "deferred": 2}
    assert tally.reasons == {NO_VECTOR: 2}


def test_a_day_s_money_that_is_spent_defers_what_is_not_known() -> None:
    desk = Desk(enrich_max_cost_per_day=1)
    desk.cache.put({fingerprint("known"): vector_of("known", DIMENSIONS)})
    desk.ledger.counters.add(desk.run_id, micro_usd=1_000_000)
    tally = desk.work(desk.find(["known", "new", "new"]))
    assert told(tally) == {"cached": 1, "deferred": 2}
    assert [reason[:9] for reason in tally.reasons] == ["the day's"]
    assert desk.ledger.records.of(desk.run_id).stopped_by == "budget"
    assert sent(desk) == []


@pytest.mark.parametrize("error", [ServerUnavailable("away"), AccessRefused("key refused")])
def test_an_api_in_trouble_ends_the_delivery_and_writes_nothing(error: EnrichError) -> None:
    desk = Desk()
    desk.embedder.trouble = lambda texts: error
    found = desk.find(["one"])
    with pytest.raises(type(error)):
        desk.work(found)
    assert desk.vectorised() == 0


# -- what the answers to writes mean


def test_a_log_that_was_deleted_meanwhile_is_gone() -> None:
    desk = Desk()
    found = desk.find(["one", "two"])
    desk.between_reading_and_writing(lambda: desk.store.delete(A, "log1"))
    assert told(desk.work(found)) == {"embedded": 1, "gone": 1}


def test_logs_of_an_index_that_was_deleted_meanwhile_are_gone() -> None:
    desk = Desk()
    found = [*desk.find(["one"]), *desk.find(["two"], B)]
    desk.between_reading_and_writing(lambda: desk.store.indices.pop(B))
    assert told(desk.work(found)) == {"embedded": 1, "gone": 1}


def test_an_index_that_is_blocked_when_a_changed_log_is_written_again_is_skipped() -> None:
    desk = Desk()
    found = desk.find(["one"])
    desk.answer(A, (Verdict.CONFLICT, "version_conflict_engine_exception"), BLOCKED)
    assert told(desk.work(found)) == {"deferred": 1}
    assert A in desk.ledger.runs.skipped(desk.run_id)


def test_an_index_that_is_blocked_when_a_log_is_marked_is_skipped() -> None:
    desk = Desk()
    found = desk.find(["one"])
    desk.answer(A, (Verdict.REFUSED, "mapper_parsing_exception"), BLOCKED)
    assert told(desk.work(found)) == {"deferred": 1}
    assert A in desk.ledger.runs.skipped(desk.run_id)


def test_a_log_that_was_changed_elsewhere_is_written_at_its_new_version() -> None:
    desk = Desk()
    found = desk.find(["one", "two"])
    base = desk.source(found[1])
    desk.between_reading_and_writing(lambda: desk.store.put(A, "log1", {**base, "user": "ann"}))
    assert told(desk.work(found)) == {"embedded": 2}
    assert desk.source(found[1])["user"] == "ann"
    assert desk.vectorised() == 2


def test_a_log_that_has_another_text_meanwhile_is_left_for_the_next_run() -> None:
    desk = Desk()
    found = desk.find(["one", "two"])
    base = desk.source(found[1])
    desk.between_reading_and_writing(lambda: desk.store.put(A, "log1", {**base, "message": "x"}))
    tally = desk.work(found)
    assert told(tally) == {"embedded": 1, "deferred": 1}
    assert tally.reasons == {CHANGED: 1}
    assert "log_vector" not in desk.source(found[1])


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({"log_vector": [1.0], "ai_enrichment_run": "other"}, "already_vectorized"),
        ({"ai_enrichment_status": "failed"}, "failed"),
        ({"level": "INFO"}, "gone"),
    ],
)
def test_a_log_that_is_settled_elsewhere_meanwhile(fields: Any, outcome: str) -> None:
    desk = Desk()
    found = desk.find(["one", "two"])
    base = desk.source(found[1])
    desk.between_reading_and_writing(lambda: desk.store.put(A, "log1", {**base, **fields}))
    tally = desk.work(found)
    assert told(tally) == {"embedded": 1, outcome: 1}
    assert tally.by_others == ({"other": 1} if outcome == "already_vectorized" else {})
    assert desk.ledger.records.of(desk.run_id).written_by_others == len(tally.by_others)


def test_what_is_read_again_and_is_away_is_waited_for_also_beside_a_closed_index() -> None:
    desk = Desk()
    found = [*desk.find(["one"]), *desk.find(["two"], B)]
    for name in (A, B):
        desk.answer(name, (Verdict.CONFLICT, "version_conflict_engine_exception"))
    read = desk.store.documents.read
    times: list[int] = []

    def away(references: Sequence[Reference]) -> Any:
        times.append(len(references))
        if len(times) == 2:
            desk.store.indices[A].unreadable = "away"
            desk.store.indices[B].closed = True
        return read(references)

    object.__setattr__(desk.store.documents, "read", away)
    with pytest.raises(TransientError, match="cannot be read now"):
        desk.work(found)
    assert times == [2, 2]


def test_whether_a_lost_delivery_wrote_what_cannot_be_read_again_is_waited_for() -> None:
    desk = Desk()
    found = desk.find(["one"])
    desk.answer(A, (Verdict.CONFLICT, "version_conflict_engine_exception"))
    read = desk.store.documents.read
    times: list[int] = []

    def closed(references: Sequence[Reference]) -> Any:
        times.append(1)
        desk.store.indices[A].closed = len(times) > 1
        return read(references)

    object.__setattr__(desk.store.documents, "read", closed)
    with pytest.raises(TransientError, match=IN_DOUBT[:20]):
        desk.work(found, GO._replace(tried=True))


@pytest.mark.parametrize("closed", [True, False])
def test_a_log_that_cannot_be_read_again_is_deferred(closed: bool) -> None:
    desk = Desk()
    found = desk.find(["one", "two"])
    index = desk.store.indices[A]

    def change() -> None:
        desk.store.put(A, "log1", desk.source(found[1]))
        read = desk.store.documents.read

        def away(references: Sequence[Reference]) -> Any:
            index.closed, index.unreadable = closed, "" if closed else "away"
            return read(references)

        object.__setattr__(desk.store.documents, "read", away)

    desk.between_reading_and_writing(change)
    if not closed:
        with pytest.raises(TransientError, match="cannot be read now"):
            desk.work(found)
        return
    tally = desk.work(found)
    assert told(tally) == {"embedded": 1, "deferred": 1}
    assert tally.reasons == {UNREADABLE: 1}


def test_a_log_that_is_changed_again_and_again_is_left_for_the_next_run() -> None:
    desk = Desk()
    found = desk.find(["one", "two"])

    def change(write: Write) -> None:
        if write.document.reference.id == "log1":
            desk.store.put(A, "log1", desk.sources(A)["log1"])

    desk.store.indices[A].answer = change
    tally = desk.work(found)
    assert told(tally) == {"embedded": 1, "deferred": 1}
    assert tally.reasons == {CHANGED: 1}


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (BLOCKED, "it stopped taking writes (cluster_block_exception)"),
        ((Verdict.BLOCKED, MAPPING_FULL), "its mapping is full"),
        ((Verdict.BLOCKED, DROPPED), "its final pipeline drops logs"),
        ((Verdict.BLOCKED, "security_exception"), "OPENSEARCH_USER may not write"),
    ],
)
def test_an_index_that_takes_no_writes_is_skipped(answer: ItemAnswer, why: str) -> None:
    desk = Desk()
    found = [*desk.find(["one", "two"]), *desk.find(["three"], B)]
    desk.answer(A, answer, answer)
    tally = desk.work(found)
    assert told(tally) == {"embedded": 1, "deferred": 2}
    ((reason, count),) = tally.reasons.items()
    assert reason.startswith(f"{A}: {why}") and count == 2
    assert desk.ledger.runs.skipped(desk.run_id)[A].startswith(why)
    assert B not in desk.ledger.runs.skipped(desk.run_id)


def test_an_overloaded_server_is_asked_again_later_for_what_it_did_not_take() -> None:
    desk = Desk()
    found = desk.find(["one", "two"])
    desk.answer(A, REJECTED, None)
    chunk = desk.chunk(found)
    with pytest.raises(TransientError, match=OVERLOADED):
        desk.enricher.work(chunk, GO)
    assert desk.vectorised() == 1
    # Delivered again, it does the rest and counts both.
    assert told(desk.enricher.work(chunk, GO)) == {"embedded": 1, "cached": 1}
    assert sent(desk) == [["one", "two"]]


@pytest.mark.parametrize(
    ("kinds", "skipped"),
    [
        (["odd_exception"] * 3, True),
        (["odd_exception"] * 2 + [None], False),
        (["odd_exception", "odd_exception", "other_exception"], False),
        ([REJECTED[1]] * 3, False),
        (["circuit_breaking_exception"] * 3, False),
    ],
)
def test_an_index_that_takes_none_for_one_unknown_reason_is_left_alone(
    kinds: list[str | None], skipped: bool
) -> None:
    desk = Desk()
    found = desk.find(["one", "two", "three"])
    desk.answer(A, *[kind and (Verdict.OVERLOADED, kind) for kind in kinds])  # type: ignore[misc]
    if skipped:
        tally = desk.work(found)
        assert told(tally) == {"deferred": 3}
        assert tally.reasons == {f"{A}: it stopped taking writes (odd_exception)": 3}
        assert "odd_exception" in desk.ledger.runs.skipped(desk.run_id)[A]
    else:
        with pytest.raises(TransientError, match=OVERLOADED):
            desk.work(found)
        assert desk.ledger.runs.skipped(desk.run_id) == {}


def test_one_log_alone_says_nothing_of_its_index() -> None:
    desk = Desk()
    found = desk.find(["one"])
    desk.answer(A, (Verdict.OVERLOADED, "odd_exception"))
    with pytest.raises(TransientError, match=OVERLOADED):
        desk.work(found)
    assert desk.ledger.runs.skipped(desk.run_id) == {}


def test_a_vector_that_the_mapping_refuses_is_marked_instead() -> None:
    desk = Desk()
    found = [*desk.find(["one"]), *desk.find(["two"], B)]
    desk.store.indices[B].refused_fields = frozenset({"log_vector"})
    assert told(desk.work(found)) == {"embedded": 1, "failed": 1}
    source = desk.source(found[1])
    assert (source["ai_enrichment_error"], source["ai_enrichment_status"]) == (
        "mapping_refused", "failed",
    )  # fmt: skip
    assert source["ai_enrichment_run"] == desk.run_id
    assert source["ai_enriched_at"] and source["ai_enrichment_method"] == METHOD
    assert "ai_text_sha256" not in source and "log_vector" not in source
    assert desk.ledger.refused.all() == {}


@pytest.mark.parametrize(("message", "code"), [("two", "mapping_refused"), (7, "message_not_text")])
def test_a_mark_that_the_mapping_refuses_too_is_remembered(message: Any, code: str) -> None:
    desk = Desk()
    found = desk.find([message], B)
    desk.store.indices[B].refused_fields = frozenset({"log_vector", "ai_enrichment_status"})
    assert told(desk.work(found)) == {"failed": 1}
    refused = desk.ledger.refused.all()
    assert refused.keys() == {(B, "log0")}
    assert refused[B, "log0"]["error"] == code


def test_a_log_that_changes_while_it_is_marked_is_left_for_the_next_run() -> None:
    desk = Desk()
    (found,) = desk.find(["one"])
    desk.store.indices[A].refused_fields = frozenset({"log_vector"})

    def change(write: Write) -> None:
        if write.addition.vector is None:
            desk.store.put(A, "log0", desk.sources(A)["log0"])

    desk.store.indices[A].answer = change
    tally = desk.work([found])
    assert (told(tally), tally.reasons) == ({"deferred": 1}, {CHANGED: 1})


# -- indices that do not answer


def test_an_index_that_does_not_answer_is_in_doubt_and_then_dead() -> None:
    desk = Desk()
    found = [*desk.find(["one"]), *desk.find(["two", "three"], B)]
    desk.store.indices[B].silent = True
    chunk = desk.chunk(found)
    with pytest.raises(IndexSilent):
        desk.enricher.work(chunk, GO)
    doubted = {A: IndexState.IN_DOUBT, B: IndexState.IN_DOUBT}
    assert desk.ledger.index_states.of([A, B]) == doubted

    # Now each is given one log alone, which shows whose fault it was.
    tally = desk.enricher.work(chunk, GO)
    assert told(tally) == {"embedded": 1, "deferred": 2}
    assert tally.reasons == {DEAD: 2}
    states = desk.ledger.index_states.of([A, B])
    assert states == {A: IndexState.WORKS, B: IndexState.DEAD}
    assert desk.ledger.runs.skipped(desk.run_id) == {B: DEAD}
    assert desk.ledger.index_states.tried_now([A, B]) == set()


def test_one_log_that_is_not_answered_while_nothing_was_tried_is_only_a_doubt() -> None:
    desk = Desk()
    found = desk.find(["one"])
    desk.store.indices[A].silent = True
    with pytest.raises(IndexSilent, match="an index did not answer a write"):
        desk.work(found)
    assert desk.ledger.index_states.of([A]) == {A: IndexState.IN_DOUBT}


def test_where_the_server_does_not_answer_either_no_index_is_blamed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = Desk()
    found = desk.find(["one"])
    desk.store.indices[A].silent = True
    monkeypatch.setattr(type(desk.store.engines), "server_answers", lambda self: False)
    with pytest.raises(NoAnswerInTime):
        desk.work(found)
    assert desk.ledger.index_states.of([A]) == {A: IndexState.UNKNOWN}


def test_a_dead_index_is_bought_nothing_and_what_it_took_before_counts() -> None:
    desk = Desk()
    found = [*desk.find(["one"]), *desk.find(["two", "three"], B)]
    base = desk.source(found[1])
    marks = {"log_vector": [1.0], "ai_enrichment_run": desk.run_id, "ai_vector_source": "cached"}
    desk.store.put(B, "log0", {**base, **marks})
    desk.ledger.index_states.note(B, IndexState.DEAD)
    tally = desk.work(found)
    assert told(tally) == {"embedded": 1, "cached": 1, "deferred": 1}
    assert sent(desk) == [["one"]]
    assert desk.ledger.runs.skipped(desk.run_id) == {B: DEAD}


def test_a_dead_index_that_cannot_be_read_is_deferred() -> None:
    desk = Desk()
    found = [*desk.find(["one"]), *desk.find(["two", "three"], B)]
    desk.ledger.index_states.note(B, IndexState.DEAD)
    desk.store.indices[B].unreadable = "away"
    tally = desk.work(found, GO._replace(tried=True))
    assert told(tally) == {"embedded": 1, "deferred": 2}


def test_a_server_that_is_away_while_a_dead_index_is_read_defers_it() -> None:
    desk = Desk()
    found = desk.find(["two", "three"], B)
    desk.ledger.index_states.note(B, IndexState.DEAD)

    def away(references: Any) -> Any:
        raise ServerUnavailable("away")

    object.__setattr__(desk.store.documents, "read", away)
    tally = desk.work(found)
    assert (told(tally), tally.reasons) == ({"deferred": 2}, {DEAD: 2})


def test_an_index_of_a_native_engine_is_tried_with_one_log_first() -> None:
    desk = Desk()
    found = [*desk.find(["one", "two"]), *desk.find(["three"], B)]
    desk.store.indices[A].native = True
    tally = desk.work(found)
    assert told(tally) == {"embedded": 3}
    # What need not be tried waits for no try.
    assert sent(desk) == [["three"], ["one"], ["two"]]
    assert desk.ledger.index_states.of([A]) == {A: IndexState.WORKS}


def test_an_index_whose_refresh_kills_it_keeps_what_was_written() -> None:
    desk = Desk()
    found = desk.find(["one", "two", "three"])
    index = desk.store.indices[A]
    index.native = True

    def dies(write: Write) -> None:
        index.silent = True

    index.answer = dies
    tally = desk.work(found)
    assert told(tally) == {"embedded": 1, "deferred": 2}
    assert tally.reasons == {DEAD: 2}
    assert sent(desk) == [["one"]]
    assert desk.ledger.index_states.of([A]) == {A: IndexState.DEAD}
    assert desk.ledger.runs.skipped(desk.run_id) == {A: DEAD}


def test_an_index_that_takes_one_log_and_not_the_rest_is_dead_and_stops_nobody_else() -> None:
    desk = Desk()
    found = [*desk.find(["one"]), *desk.find(["two", "three", "four"], B)]
    index = desk.store.indices[B]
    index.native = True
    taken: list[Write] = []

    def dies_of_the_second(write: Write) -> None:
        index.silent = bool(taken)
        taken.append(write)

    index.answer = dies_of_the_second
    chunk = desk.chunk(found)
    with pytest.raises(IndexSilent):
        desk.enricher.work(chunk, GO)
    assert (desk.vectorised(A), desk.vectorised(B)) == (1, 2)
    assert desk.ledger.index_states.of([A, B]) == {A: IndexState.UNKNOWN, B: IndexState.DEAD}
    assert told(desk.enricher.work(chunk, GO)) == {"embedded": 3, "deferred": 1}


def test_an_index_works_once_a_whole_chunk_is_written() -> None:
    desk = Desk()
    found = desk.find(["one", "two"])
    index = desk.store.indices[A]
    index.native = True
    states: list[IndexState] = []
    index.answer = lambda write: states.append(desk.ledger.index_states.of([A])[A])
    assert told(desk.work(found)) == {"embedded": 2}
    assert states == [IndexState.UNKNOWN, IndexState.UNKNOWN]
    assert desk.ledger.index_states.of([A]) == {A: IndexState.WORKS}


def test_logs_that_take_no_vector_show_nothing_of_an_index() -> None:
    desk = Desk()
    found = desk.find(["  ", 7, "one", "two"])
    desk.store.indices[A].native = True
    assert told(desk.work(found)) == {"failed": 2, "embedded": 2}
    assert sent(desk) == [["one"], ["two"]]


def test_only_some_logs_are_given_one_by_one() -> None:
    desk = Desk()
    found = desk.find(["  "] * (MOST_TRIED + 1) + ["one", "two"])
    desk.store.indices[A].native = True
    assert told(desk.work(found)) == {"failed": MOST_TRIED + 1, "embedded": 2}
    # Not shown by any, the rest goes together, and the index stays unknown.
    assert sent(desk) == [["one", "two"]]
    assert desk.ledger.index_states.of([A]) == {A: IndexState.UNKNOWN}


def test_an_index_that_another_worker_tries_is_waited_for_and_the_others_are_written() -> None:
    desk = Desk()
    found = [*desk.find(["one"]), *desk.find(["two"], B)]
    desk.ledger.index_states.note(B, IndexState.IN_DOUBT)
    assert desk.ledger.index_states.lease(B, "another")
    with pytest.raises(NotYet) as waiting:
        desk.work(found)
    assert waiting.value.seconds == enricher.TRIAL_SECONDS
    assert str(waiting.value) == "another worker is trying whether an index takes writes"
    assert (desk.vectorised(A), desk.vectorised(B)) == (1, 0)
    assert desk.ledger.index_states.tried_now([B]) == {B}


# -- indices in trouble


@pytest.mark.parametrize("trouble", ["overloaded", "away"])
def test_an_index_that_refuses_for_now_or_is_away_is_noted_and_told_apart(trouble: str) -> None:
    desk = Desk()
    found = [*desk.find(["one"]), *desk.find(["two"], B)]
    if trouble == "away":
        desk.store.indices[B].unreadable = "no_shard_available_action_exception"
    else:
        desk.answer(B, REJECTED)
    with pytest.raises(IndexInTrouble):
        desk.work(found)
    assert desk.ledger.index_states.in_trouble([A, B]) == {B}


def test_a_closed_index_is_in_no_trouble_that_passes() -> None:
    desk = Desk()
    found = desk.find(["two"], B)
    desk.store.indices[B].closed = True
    desk.work(found)
    assert desk.ledger.index_states.in_trouble([B]) == set()


def written_together(desk: Desk) -> list[list[str]]:
    """The indices of each request that writes, from now on."""
    requests: list[list[str]] = []
    write = desk.store.documents.write

    def recorded(writes: Sequence[Write]) -> Any:
        requests.append(sorted({one.document.reference.index for one in writes}))
        return write(writes)

    object.__setattr__(desk.store.documents, "write", recorded)
    return requests


def test_an_index_that_the_others_wait_for_is_found_and_written_behind_them() -> None:
    desk = Desk()

    def takes_long(write: Write) -> None:
        desk.later += 3.0

    desk.find([], B)
    desk.store.indices[B].answer = takes_long
    requests = written_together(desk)
    chunk = desk.chunk([])
    for n in range(3):
        found = [*desk.find([f"one {n}"], A, f"a{n}"), *desk.find([f"two {n}"], B, f"b{n}")]
        tally = desk.enricher.work(msgspec.structs.replace(chunk, references=tuple(found)), GO)
        assert told(tally) == {"embedded": 2}
    assert requests == [[A, B], [A], [B], [A], [B]]
    assert desk.ledger.index_states.in_trouble([A, B]) == {B}


def test_indices_in_trouble_are_written_behind_the_others() -> None:
    desk = Desk()
    found = [*desk.find(["one"]), *desk.find(["two"], B), *desk.find(["three"], "c_2026_11")]
    desk.ledger.index_states.note_trouble([A])
    requests = written_together(desk)
    assert told(desk.work(found)) == {"embedded": 3}
    assert requests == [[B, "c_2026_11"], [A]]


# -- workers that were lost


def test_after_lost_workers_each_text_goes_alone_and_is_named_before() -> None:
    desk = Desk()
    found = desk.find(["one", "two", "one"])
    named: list[str] = []

    def note_alone(chunk: str, owner: str, text: str) -> None:
        assert (chunk, owner) == (f"{desk.run_id}:1:0", GO.owner)
        named.append(text)

    desk.ledger.chunks.note_alone = note_alone  # type: ignore[method-assign]
    tally = desk.work(found, GO._replace(workers_lost=2, alone=fingerprint("two")))
    assert told(tally) == {"embedded": 1, "failed": 1, "cached": 1}
    assert desk.source(found[1])["ai_enrichment_error"] == "worker_lost"
    assert sent(desk) == [["one"]]
    assert named == ["", fingerprint("one"), "", "", fingerprint("one")]


def test_before_that_they_go_together() -> None:
    desk = Desk()
    found = desk.find(["one", "two"])
    assert told(desk.work(found, GO._replace(workers_lost=1, alone=fingerprint("two")))) == {
        "embedded": 2
    }
    assert len(desk.embedder.requests) == 1


# -- errors that were not foreseen


def test_a_log_that_meets_an_unforeseen_error_is_deferred_and_its_neighbours_stand(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk()
    found = desk.find(["one", "odd", "two"])
    groups = enricher.text_groups

    def stumbling(documents: Any, *rest: Any) -> Any:
        if any(document.value("message") == "odd" for document in documents):
            raise KeyError("secret text of a log")
        return groups(documents, *rest)

    monkeypatch.setattr(enricher, "text_groups", stumbling)
    with caplog.at_level(logging.ERROR):
        tally = desk.enricher.work(desk.chunk(found), GO)
    assert told(tally) == {"embedded": 2, "deferred": 1}
    assert tally.errors == 1
    together, alone = (record.getMessage() for record in caplog.records)
    assert together == (
        f"chunk {desk.run_id}:1:0 met an error that was not foreseen (KeyError): its logs are "
        "taken one by one"
    )
    assert alone.startswith(
        f"log log1 in {A} is deferred: it meets an error that was not foreseen (KeyError at "
    )
    assert "stumbling" in alone and alone.endswith("); please report it")
    ((reason, count),) = tally.reasons.items()
    assert "KeyError" in reason and "stumbling" in reason and count == 1
    assert "log1" in caplog.text and "secret" not in caplog.text + reason
    assert desk.vectorised() == 2


def test_reusable_vectors_that_meet_one_are_paid_for_instead(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk()
    found = desk.find(["one"])

    def stumbling(donors: Any) -> Any:
        raise ValueError("odd")

    monkeypatch.setattr(desk.resolver, "reusable", stumbling)
    tally = desk.enricher._reusable(desk.chunk(found))
    assert tally == {}
    (record,) = caplog.records
    assert record.getMessage().startswith(
        f"chunk {desk.run_id}:1:0: no vector is reused, because reading them met an error that "
        "was not foreseen (ValueError at "
    )
    assert record.getMessage().endswith("); please report it")


@pytest.mark.parametrize("error", [MemoryError, OSError, KeyboardInterrupt])
def test_no_other_error_is_kept_from_ending_the_delivery(
    monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    desk = Desk()
    found = desk.find(["one"])

    def stumbling(*arguments: Any) -> Any:
        raise error

    monkeypatch.setattr(enricher, "text_groups", stumbling)
    with pytest.raises(error):
        desk.work(found)


# -- any of it

WRITES = [
    None, None, None, None, BLOCKED, REJECTED, (Verdict.REFUSED, "mapper_parsing_exception"),
    (Verdict.OVERLOADED, "odd_exception"), (Verdict.GONE, "document_missing_exception"),
    (Verdict.CONFLICT, "version_conflict_engine_exception"),
]  # fmt: skip
CHANGES = ["none"] * 5 + ["deleted", "text", "field", "vector", "ours", "failed", "level"]


@settings(deadline=None, max_examples=25, derandomize=True, phases=NO_SHRINKING)
@given(st.data())
def test_each_log_of_any_chunk_has_one_outcome_and_it_is_true(data: st.DataObject) -> None:
    draw = data.draw
    desk = Desk()
    found: list[Reference] = []
    for index in (A, B, "c_2026_11")[: draw(st.integers(1, 3))]:
        messages = draw(st.lists(st.sampled_from(["x", "y", "bad", "odd", " ", 7]), max_size=8))
        found += desk.find(messages, index)
    if not found:
        return
    desk.embedder.invalid = {"odd"}
    desk.embedder.trouble = lambda texts: InputRefused("refused") if "bad" in texts else None
    for name, index in desk.store.indices.items():
        index.closed = draw(st.integers(0, 9)) == 0
        index.native = draw(st.integers(0, 4)) == 0
        if draw(st.integers(0, 9)) == 0:
            desk.ledger.runs.skip(desk.run_id, name, "its mapping is full")
        if draw(st.integers(0, 9)) == 0:
            index.silent = True
    before = {reference: desk.source(reference) for reference in found}
    changes = {reference: draw(st.sampled_from(CHANGES)) for reference in found}
    late = draw(st.booleans())

    def change(reference: Reference) -> None:
        base = before[reference]
        index, id = reference.index, reference.id
        match changes.pop(reference, "none"):
            case "deleted":
                desk.store.delete(index, id)
            case "text":
                desk.store.put(index, id, {**base, "message": "new text"})
            case "field":
                desk.store.put(index, id, {**base, "user": "ann"})
            case "vector":
                desk.store.put(index, id, {**base, "log_vector": [1.0]})
            case "ours":
                marks = {"ai_enrichment_run": desk.run_id, "ai_vector_source": "cached"}
                desk.store.put(index, id, {**base, "log_vector": [1.0], **marks})
            case "failed":
                desk.store.put(index, id, {**base, "ai_enrichment_status": "failed"})
            case "level":
                desk.store.put(index, id, {**base, "level": "INFO"})

    if not late:
        for reference in found:
            change(reference)
    answers = iter(draw(st.lists(st.sampled_from(WRITES), max_size=30)))

    def answer(write: Write) -> ItemAnswer | None:
        reference = write.document.reference
        for one in found:
            if (one.index, one.id) == (reference.index, reference.id):
                change(one)
        return next(answers, None)

    for index in desk.store.indices.values():
        index.answer = answer
    chunk = desk.chunk(found)
    tally = None
    for _ in range(6):
        try:
            tally = desk.enricher.work(chunk, GO)
            break
        except NotYet:
            raise AssertionError("nobody else is at it") from None
        except TransientError:
            continue
    if tally is None:
        tally = desk.enricher.account(chunk)
    assert sum(tally.outcomes.values()) == len(found)
    assert tally.outcomes.keys() <= {outcome.value for outcome in Outcome}
    assert all(count >= 0 for count in tally.outcomes.values())
    verdict, standing = desk.ledger.chunks.settle(
        chunk.id, tally.outcomes, tally.errors, tally.reasons
    )
    assert (verdict, standing.open_chunks) == ("settled", 0)

    ours = Counter[str]()
    for index in desk.store.indices:
        for source in desk.sources(index).values():
            if source.get("ai_enrichment_run") != desk.run_id:
                continue
            if source.get("log_vector") not in (None, [1.0]):
                text = source["message"]
                assert source["log_vector"] == vector_of(text, DIMENSIONS).tolist()
                assert source["ai_text_sha256"] == fingerprint(text)
                assert text not in ("bad", "odd")
            if source.get("log_vector") is not None:
                ours[source["ai_vector_source"]] += 1
            else:
                assert source["ai_enrichment_status"] == "failed"
    # What the record says was written is what stands there, however often it was delivered.
    written = {o.value: tally.outcomes[o.value] for o in VECTOR_OUTCOMES if tally.outcomes[o.value]}
    closed = any(index.closed for index in desk.store.indices.values())
    if closed:
        assert sum(written.values()) <= ours.total()
    else:
        assert written == dict(ours)
    # Nothing else of a log was changed.
    for reference, source in before.items():
        now = desk.sources(reference.index).get(reference.id)
        if now is not None:
            kept = {name: value for name, value in now.items() if name in source}
            assert orjson.dumps(kept | {"message": 0, "level": 0}) == orjson.dumps(
                source | {"message": 0, "level": 0}
            )

"""A consumer's batch in memory: where documents are found, what becomes of each log, and that the
backfill and the consumer together pay once and write one right vector."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from enrich.enrichment.comparing import Comparing
from enrich.enrichment.enricher import Enricher
from enrich.enrichment.slow_indices import SlowIndices
from enrich.enrichment.write_trials import WriteTrials
from enrich.errors import Halt, IndexInTrouble, TransientError
from enrich.ledger import IndexState
from enrich.log_store.in_memory import OVERLOADED
from enrich.log_store.preflight import Nodes
from enrich.ratelimit.write_throttle import WriteThrottle
from enrich.realtime.batch_work import CHECKED_SECONDS, BatchWork, End, run_of_group
from enrich.realtime.journal import ConsumerJournal
from enrich.realtime.messages import WantedLog
from tests.memory_pipeline import NOBODY, MemoryPipeline

INDEX, OTHER = "shop_2026_11", "bank_2026_11"
TIME = 1_764_000_000.0


def source(message: Any = "out of memory", level: str = "ERROR", **more: Any) -> dict[str, Any]:
    time = datetime.fromtimestamp(TIME, UTC).isoformat()
    return {"level": level, "message": message, "timestamp": time, **more}


def log(id: str, index: str = INDEX, **more: Any) -> WantedLog:
    return WantedLog(index, id, None, TIME, orjson.dumps(source(**more)))


class Desk(MemoryPipeline):
    """The pipeline, and a consumer's work beside it."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.seconds = 0.0
        journal = ConsumerJournal(self.ledger, "group", lambda: self.seconds)
        trials = WriteTrials(self.store.engines, self.ledger.index_states, "host/2")
        enricher = Enricher(
            *(self.settings, self.store, self.resolver, self.ledger),
            *(WriteThrottle(NOBODY, "enrich:", 0), trials),
            *(SlowIndices(lambda: self.seconds), journal),
        )
        comparing = Comparing(self.settings, self.store, self.locations, self.ledger, self.resolver)
        self.consumer = BatchWork(
            *(self.settings, self.store, self.ledger, enricher, comparing),
            clock=lambda: self.seconds,
            now=lambda: TIME + 2.5,
        )

    def work(self, *logs: WantedLog, tried: bool = False, give_up: str = "") -> list[Any]:
        """Outcomes, or outcome and reason where there is one."""
        ends = self.consumer.work(logs, tried=tried, give_up=give_up)
        return [
            end if end is None else (end.outcome, end.reason) if end.reason else end.outcome
            for end in ends
        ]

    def has(self, index: str, **sources: dict[str, Any]) -> None:
        if index not in self.store.indices:
            self.store.create(index)
        for id, one in sources.items():
            self.store.put(index, id, one)

    @property
    def paid(self) -> int:
        return sum(len(texts) for texts in self.embedder.requests)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_each_log_gets_the_vector_of_its_text(desk: Desk) -> None:
    desk.has(INDEX, a=source("one"), b=source("two"), c=source("one"))
    assert desk.work(log("a"), log("b"), log("c")) == ["embedded", "embedded", "duplicate"]
    assert desk.vectorised() == 3
    stored = desk.sources(INDEX)["a"]
    assert stored["ai_enrichment_method"] == "realtime_consumer"
    assert stored["ai_enrichment_run"] == run_of_group(desk.settings.consumer_group_id)
    assert desk.paid == 2


def test_seconds_from_the_logs_time_are_told_of_those_that_were_written(desk: Desk) -> None:
    desk.has(INDEX, a=source())
    assert desk.consumer.work([log("a"), log("b")], tried=False) == [
        End("embedded", latency=2.5),
        None,
    ]


def test_what_is_not_there_yet_is_found_later(desk: Desk) -> None:
    assert desk.work(log("a")) == [None]
    desk.has(INDEX, a=source())
    desk.seconds += 1
    assert desk.work(log("a")) == ["embedded"]


def test_the_stored_text_counts_and_not_the_messages(desk: Desk) -> None:
    desk.has(INDEX, a=source("as it was stored"))
    assert desk.work(log("a", message="as it was produced")) == ["embedded"]
    assert desk.vectorised() == 1


def test_what_others_have_done_is_left_as_it_is(desk: Desk) -> None:
    desk.has(
        INDEX,
        done=source(log_vector=[1.0, 0.0, 0.0, 0.0], ai_enrichment_run="20261120-1"),
        failed=source(ai_enrichment_status="failed"),
        changed=source(level="INFO"),
    )
    before = desk.sources(INDEX)
    assert desk.work(log("done"), log("failed"), log("changed")) == [
        "already_vectorized",
        "failed",
        None,
    ]
    assert desk.sources(INDEX) == before
    assert desk.paid == 0


def test_a_batch_that_is_done_again_knows_its_own_writes(desk: Desk) -> None:
    desk.has(INDEX, a=source("one"), b=source("two"))
    assert desk.work(log("a"), log("b")) == ["embedded", "embedded"]
    before = desk.sources(INDEX)
    assert desk.work(log("a"), log("b"), tried=True) == ["embedded", "embedded"]
    assert (desk.sources(INDEX), desk.paid) == (before, 2)


def test_the_same_document_twice_in_a_batch_is_written_once(desk: Desk) -> None:
    desk.has(INDEX, a=source())
    assert desk.work(log("a"), log("a"), log("a")) == ["embedded"] * 3
    assert desk.store.indices[INDEX].logs["a"].seq_no == 1


def test_a_log_without_a_text_is_marked(desk: Desk) -> None:
    desk.has(INDEX, a=source(message=7))
    assert desk.work(log("a", message=7)) == ["failed"]
    assert desk.sources(INDEX)["a"]["ai_enrichment_error"] == "message_not_text"


def test_consumer_and_backfill_pay_once_together(desk: Desk) -> None:
    desk.fill(**{INDEX: 60})
    half = [log(f"log{n}") for n in range(30)]
    desk.before = lambda name, arguments: (
        desk.work(*half) if name == "embed_and_update" and half else None
    )
    record = desk.run()
    assert desk.vectorised() == 60
    assert (record.already_vectorized, record.written_by_others) == (30, 0)
    assert desk.paid == 3


# -- names


def test_a_log_behind_an_alias_or_a_stream_is_found_in_whichever_index_has_it() -> None:
    desk = Desk(enrich_index_pattern="*_*,shop-*")
    desk.has("shop-000001", old=source("one"))
    desk.has("shop-000002", new=source("two"))
    desk.store.aliases[INDEX] = ("shop-000002", "shop-000001")
    assert desk.work(log("old"), log("none"), log("new")) == ["embedded", None, "embedded"]
    assert desk.vectorised() == 2


def test_what_the_backfill_would_not_find_is_not_ours() -> None:
    desk = Desk(enrich_exclude_indices="bank_*")
    desk.has(OTHER, a=source())
    desk.has(".ds-shop_2026_11-000001", b=source())
    desk.store.aliases[INDEX] = (".ds-shop_2026_11-000001",)
    assert desk.work(log("a", OTHER), log("b")) == ["excluded", "excluded"]
    assert desk.paid == 0


# -- indices and servers


def test_an_unfit_index_is_left_and_bought_nothing(desk: Desk) -> None:
    desk.store.create(OTHER, unfit="index.knn is not set")
    desk.has(OTHER, a=source())
    desk.has(INDEX, a=source("one"))
    assert desk.work(log("a", OTHER), log("a")) == [
        ("left", f"{OTHER}: index.knn is not set"),
        "embedded",
    ]
    assert desk.paid == 1
    desk.store.indices[OTHER].unfit = ""
    desk.seconds += CHECKED_SECONDS
    assert desk.work(log("a", OTHER)) == ["embedded"]


def test_an_index_that_is_dead_for_all_is_left(desk: Desk) -> None:
    desk.has(INDEX, a=source())
    desk.ledger.index_states.note(INDEX, IndexState.DEAD)
    ((outcome, why),) = desk.work(log("a"))
    assert outcome == "left"
    assert "does not answer writes" in why


def test_an_index_in_trouble_is_tried_again_and_left_in_the_end(desk: Desk) -> None:
    desk.has(INDEX, a=source("one"), b=source("two"))
    refuse = {"b"}
    desk.store.indices[INDEX].answer = lambda write: (
        OVERLOADED if write.document.reference.id in refuse else None
    )
    with pytest.raises(IndexInTrouble):
        desk.work(log("a"), log("b"))
    assert desk.work(log("a"), log("b"), tried=True, give_up="overloaded") == [
        "embedded",
        ("left", "overloaded"),
    ]
    assert desk.vectorised() == 1
    # The backfill finds it.
    refuse.clear()
    desk.store.documents.refresh([INDEX])
    assert desk.run().found == 1
    assert desk.vectorised() == 2


def test_a_disk_that_is_full_halts(desk: Desk) -> None:
    desk.has(INDEX, a=source())
    desk.store.seen_nodes = Nodes(data=1, blocker="a disk is above its high watermark")
    with pytest.raises(Halt, match="high watermark"):
        desk.work(log("a"))
    desk.store.seen_nodes = Nodes(data=1, blocker="")
    desk.consumer.prepare_again()
    assert desk.work(log("a")) == ["embedded"]


def test_a_days_budget_leaves_logs_to_another_day() -> None:
    desk = Desk(enrich_max_cost_per_day=0.000001)
    desk.ledger.realtime.count("group", micro_usd=5)
    desk.has(INDEX, a=source())
    ((outcome, why),) = desk.work(log("a"))
    assert outcome == "left"
    assert "ENRICH_MAX_COST_PER_DAY" in why
    assert desk.paid == 0


def test_what_is_used_is_counted_for_the_group() -> None:
    desk = Desk(enrich_price_per_million_tokens=1_000_000)
    desk.has(INDEX, a=source("one"), b=source("two"))
    desk.work(log("a"), log("b"))
    (summary,) = desk.ledger.realtime.summary()
    assert summary.usage["api_inputs"] == 2
    assert desk.ledger.spending.today_usd() == 2


# -- mode index


@pytest.fixture
def indexing() -> Desk:
    return Desk(enrich_consumer_mode="index")


def test_a_log_is_put_in_and_given_its_vector(indexing: Desk) -> None:
    assert indexing.work(log("a"), log("b", OTHER)) == ["embedded", "duplicate"]
    assert indexing.vectorised() == 2
    kept = {name: indexing.sources(INDEX)["a"][name] for name in source()}
    assert kept == source()


def test_a_log_that_is_there_is_not_put_in_again(indexing: Desk) -> None:
    indexing.has(INDEX, a=source("as it is"))
    assert indexing.work(log("a", message="another")) == ["embedded"]
    assert indexing.sources(INDEX)["a"]["message"] == "as it is"


def test_a_log_is_put_in_though_its_vector_cannot_be_had(indexing: Desk) -> None:
    indexing.embedder.trouble = lambda texts: TransientError("the API is away")
    with pytest.raises(TransientError):
        indexing.work(log("a"))
    assert indexing.sources(INDEX)["a"]["message"] == "out of memory"
    indexing.embedder.trouble = lambda texts: None
    assert indexing.work(log("a"), tried=True) == ["embedded"]


def test_a_log_that_the_mapping_refuses_is_poison(indexing: Desk) -> None:
    indexing.store.create(INDEX, refused_fields=frozenset({"odd"}))
    assert indexing.work(log("a", odd=1), log("b")) == [("poison", "document_refused"), "embedded"]

"""Plans of a backlog in memory, held against what a run of it then does; and runs that wait for a
word. No server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from enrich.errors import Halt
from enrich.ledger.measurements import RunSpeed, Usage
from enrich.log_store.coverage import Counted, Gaps
from enrich.log_store.distinct_texts import SampledText
from enrich.planning.confirming import Confirming
from enrich.planning.parts import Parts
from enrich.planning.plan import Plan
from enrich.planning.planner import Planner
from tests.memory_pipeline import MemoryPipeline, logs

PRICE = 100.0


def pipeline(**overrides: Any) -> MemoryPipeline:
    return MemoryPipeline(enrich_price_per_million_tokens=PRICE, **overrides)


def planned(one: MemoryPipeline, **wanted: Any) -> Plan:
    return one.planner.plan(one.planner.backlog(**wanted))


def test_a_plan_says_what_a_run_then_does() -> None:
    one = pipeline()
    one.put("shop_2026_10", logs(600, 150))
    one.put("shop_2026_11", [*logs(300, 200), {"level": "ERROR", "message": " "}])
    one.put("pay_2026_11", logs(100, 10))

    first = planned(one)
    assert (first.counted.logs, first.counted.indices, first.counted.unusable) == (1001, 3, 1)
    assert (first.counted.distinct_texts, first.counted.error, first.sent.texts) == (200, 0, 200)
    assert first.saved.repeats == 800 and first.sent.basis == first.time.basis == "assumed"

    # Some of it is done: what it took is what the next plan goes by.
    record = one.run()
    assert (record.vectors_written, record.api_inputs) == (1000, 200)
    one.put("shop_2026_11", logs(1_000, 250), name="more")
    second = planned(one)
    assert second.sent.basis == "measured" and second.sent.texts_measured == 200
    # Of 250 texts, 200 are in the cache.
    assert (second.saved.cache, second.sent.texts, second.saved.reuse) == (200, 50, 0)
    record = one.run()
    assert record.api_inputs == 50
    assert second.sent.tokens == pytest.approx(record.api_tokens, rel=0.1)
    assert second.cost.usd == pytest.approx(record.estimated_cost_usd, rel=0.1)
    assert second.cost.batch_usd == pytest.approx((second.cost.usd or 0) / 2, abs=1e-6)


def test_what_logs_and_places_have_is_not_paid_again() -> None:
    one = pipeline()
    one.put("shop_2026_10", logs(100, 20))
    one.put("pay_2026_10", logs(30, 30))
    one.run()
    one.cache._vectors.clear()
    one.put("shop_2026_11", logs(100, 40))
    # Where vectors were written is known: 30 texts need not be asked for, whose-ever they are.
    made = planned(one)
    assert (made.saved.cache, made.saved.reuse, made.sent.texts) == (0, 30, 10)
    # Without that, a project has its own 20 alone.
    one.locations._new.clear()
    made = planned(one)
    assert (made.saved.reuse, made.sent.texts) == (20, 20)
    record = one.run()
    assert record.api_inputs == 20


def test_masking_saves_what_it_makes_the_same() -> None:
    one = pipeline(enrich_normalize="numbers")
    one.fill()
    one.put("shop_2026_11", logs(500, 100))
    made = planned(one)
    assert (made.counted.distinct_texts, made.saved.masking, made.sent.texts) == (1, 99, 1)
    assert planned(pipeline()).saved.masking is None
    # What it would save where it is not set.
    plain = pipeline()
    plain.put("shop_2026_11", logs(500, 100))
    saved = planned(plain).saved
    assert (saved.normalize_looked_at, saved.normalize_left) == (100, 1)


def test_only_what_is_wanted_is_planned_and_what_a_run_skips_is_named() -> None:
    one = pipeline()
    one.fill(shop_2026_10=10, shop_2026_11=20, pay_2026_11=40, red_2026_11=80)
    one.store.indices["pay_2026_11"].unfit = "index.knn is not set"
    one.store.indices["red_2026_11"].unreadable = "no_shard_available_action_exception"
    made = planned(one)
    assert made.counted.logs == 30
    assert set(made.left_out) == {"pay_2026_11", "red_2026_11"}
    made = planned(one, wanted=lambda index: index.startswith("shop_2026_11"))
    assert (made.counted.logs, made.left_out) == (20, {})
    made = planned(one, wanted=lambda index: False)
    assert (made.counted.logs, made.cost.usd, made.time.seconds, made.disk.bytes) == (0, 0, 0, 0)


class Counting:
    """Counts as OpenSearch does: about, and by some of the texts."""

    def __init__(self, distinct: int, texts: Sequence[str], gaps: Gaps) -> None:
        self.distinct_texts, self.texts, self.gaps = distinct, texts, gaps
        self.asked: list[int] = []

    def distinct(self, indices: Sequence[str]) -> Counted[int]:
        return Counted(self.distinct_texts)

    def some(self, indices: Sequence[str], parts: int, most: int) -> Counted[list[SampledText]]:
        self.asked.append(parts)
        texts = [
            SampledText(source={"message": text}, indices=("shop_2026_11",)) for text in self.texts
        ]
        return Counted(texts, self.gaps)


def test_a_large_backlog_is_counted_and_what_some_texts_show_holds_for_all() -> None:
    one = pipeline()
    one.put("shop_2026_10", logs(100, 100))
    one.run()
    one.put("shop_2026_11", logs(1_000, 500))
    texts = [log["message"] for log in logs(50, 50)] + [f"new {n:04}" for n in range(150)]
    counting = Counting(20_000, texts, Gaps(indices={"shop_2026_11": "a script fails on a log"}))
    parts = {**vars(one.planner.parts), "text_counts": counting, "exact_up_to": 500}
    large = Planner(Parts(**parts))
    made = large.plan(large.backlog())
    assert counting.asked == [10]
    assert (made.counted.method, made.counted.distinct_texts) == ("cardinality", 20_000)
    assert made.counted.unusable is None and 0 < made.counted.error < 0.01
    # A quarter of those that were seen is in the cache.
    assert (made.saved.cache, made.sent.texts, made.sent.bytes) == (5_000, 15_000, 15_000 * 8)
    assert made.left_out == {"shop_2026_11": "a script fails on a log"}


def test_what_was_measured_outlasts_idle_runs() -> None:
    measured = pipeline().ledger.measurements
    measured.add_run(1, RunSpeed(vectors=499, inputs=1, seconds=1.0))
    for number in range(2, 60):
        measured.add_run(number, RunSpeed(vectors=500 + number, inputs=number, seconds=1.0))
    kept = measured.runs()
    assert [run.inputs for run in kept] == list(range(59, 9, -1))
    for _ in range(2):
        measured.add_usage("space", Usage(requests=1, inputs=10, bytes=1_000, tokens=300))
    assert measured.usage("space") == Usage(requests=2, inputs=20, bytes=2_000, tokens=600)
    assert measured.usage("another") == Usage()


# -- a sum that has to be confirmed


def test_a_backlog_above_the_sum_is_begun_once_it_is_confirmed_and_for_that_money_alone() -> None:
    one = pipeline(enrich_confirm_above_usd=0.1)
    one.put("shop_2026_11", logs(1_000, 400))
    record = one.run("beat")
    assert (record.state, record.found, record.api_requests) == ("halted", 0, 0)
    assert "would cost about $0." in record.halt_reason
    assert "`python -m enrich confirm`" in record.halt_reason
    assert one.embedder.requests == []

    usd = planned(one).cost.usd or 0
    one.ledger.confirmed.allow(usd / 2)
    assert one.run().state == "halted"
    assert one.ledger.confirmed.left_usd() == pytest.approx(usd / 2)

    one.ledger.confirmed.allow(2 * usd)
    record = one.run()
    assert (record.state, record.vectors_written) == ("finished", 1_000)
    left = one.ledger.confirmed.left_usd()
    assert left == pytest.approx(2 * usd - record.estimated_cost_usd, abs=1e-5)

    # What is left is less than the next backlog costs.
    one.ledger.confirmed.allow(left / 100)
    one.put("shop_2026_12", logs(1_000, 800))
    assert one.run().state == "halted"


def test_below_the_sum_nobody_is_asked() -> None:
    one = pipeline(enrich_confirm_above_usd=100)
    one.put("shop_2026_11", logs(100, 40))
    record = one.run("beat")
    assert (record.state, record.vectors_written) == ("finished", 100)
    assert one.ledger.confirmed.left_usd() == 0


def test_a_run_that_was_planned_too_cheap_reads_no_further_page() -> None:
    one = pipeline(enrich_confirm_above_usd=0.3, enrich_max_chunks_in_flight=1)
    # It seems that a byte has a hundredth of its tokens.
    one.ledger.measurements.add_usage(
        one.planner.parts.space, Usage(requests=1, inputs=100, bytes=1_000_000, tokens=1_000)
    )
    one.put("shop_2026_11", logs(4_000, 4_000))
    record = one.run("beat")
    assert (record.state, record.stopped_by, record.more) == ("finished", "confirm", True)
    assert 0.3 <= record.estimated_cost_usd < 0.6
    assert "python -m enrich confirm" in record.left_because


def test_the_sum_ends_after_a_week() -> None:
    one = pipeline()
    one.ledger.confirmed.allow(5)
    one.later = 7 * 86_400 - 60
    assert one.ledger.confirmed.left_usd() == 5
    one.later += 120
    assert one.ledger.confirmed.left_usd() == 0


def test_what_takes_too_long_to_be_planned_waits_for_a_word_too() -> None:
    one = pipeline()
    one.put("shop_2026_11", logs(100, 40))
    backlog = one.planner.backlog()
    moments = iter(range(0, 1_000, 30))
    hurried = Confirming(one.planner, one.ledger, 5.0, 45.0, clock=lambda: next(moments))
    run = one.ledger.runs.open("beat", 600).run
    with pytest.raises(Halt, match="100 logs would cost cannot be counted within 45 s"):
        hurried.check(run, backlog)
    # What was confirmed bounds it then.
    one.ledger.confirmed.allow(7.0)
    hurried.check(run, backlog)
    assert one.ledger.confirmed.permitted_usd(run) == 7.0
    assert not hurried.used_up(run)
    one.ledger.counters.add(run, micro_usd=7_000_000)
    assert hurried.used_up(run)

"""The health of the system: which states get which word, which comes first, and who says it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import fakeredis
import pytest

from enrich.ledger import Ledger, Scan
from enrich.ledger.in_memory import in_memory_ledger
from enrich.models import RunRecord
from enrich.settings import load_settings
from enrich.status.health import CODES, Word, as_json, health_of, problems_of
from enrich.status.history import HistoryReport
from enrich.status.report import Backlog, IndexBacklog, Status, read_status

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
JUST_NOW = NOW - timedelta(seconds=30)
INTERVAL = 300.0


def run(number: int = 1, **fields: Any) -> RunRecord:
    ended = {"finished_at": JUST_NOW} if fields.get("state", "finished") != "running" else {}
    return RunRecord(
        **{"run_id": f"r{number}", "number": number, "state": "finished", **ended, **fields}
    )


def backlog(without: int = 0, oldest: str | None = None, **indices: int) -> Backlog:
    by_index = {name: IndexBacklog(without_vector=count) for name, count in indices.items()}
    by_index["a_2026_11"] = IndexBacklog(with_vector=5, without_vector=without)
    return Backlog(
        with_vector=5,
        without_vector=without + sum(indices.values()),
        by_index=by_index,
        oldest_without_vector=oldest,
    )


def status(**fields: Any) -> Status:
    """One in which all is well, but for what is given."""
    well: dict[str, Any] = {
        "read_at": NOW, "interval_seconds": INTERVAL, "last_tick": JUST_NOW, "workers_alive": 1,
        "workers_note_themselves": True, "last_runs": [run(vectors_written=5, found=5, embedded=5)],
        "backlog": backlog(),
    }  # fmt: skip
    return Status(**{**well, **fields})


REFUSED = "the embeddings API cannot be reached"
NO_RIGHT = "OpenSearch refuses to let enrich-runs be written"
BUDGET = "the day's ENRICH_MAX_COST_PER_DAY is used up"
ACTIVE: dict[str, Any] = {"run_id": "r2", "number": 2, "state": "running"}
LONG_AGO = "2026-11-01T00:00:00.000Z"


@pytest.mark.parametrize(
    ("fields", "word", "code", "says", "exit_status"),
    [
        ({}, "Healthy", "", "every ERROR log that can have a vector has one", 0),
        ({"backlog": backlog(3)}, "Healthy", "", "3 logs wait for the next run", 0),
        ({"backlog": Backlog(), "last_runs": []}, "Healthy", "", "no run yet", 0),
        # What could not be read
        ({"problems": ["Redis cannot be reached"]}, "Unknown", "redis_unreachable", "Redis", 3),
        (
            {"problems": ["OpenSearch cannot be reached"], "backlog": None},
            "Unknown", "opensearch_unreachable", "OpenSearch", 3,
        ),
        # The three green lamps over a dead system
        (
            {"last_runs": [run(found=301, deferred=301, deferral_reasons={REFUSED: 301})]},
            "Degraded", "deferred", f"deferred 301 of 301 logs: {REFUSED}", 3,
        ),
        ({"workers_alive": 0, "backlog": backlog(50)}, "Halted", "no_worker", "50 logs wait", 3),
        (
            {
                "last_runs": [run(skipped_indices={"x_2026_11": "no index.knn"})],
                "backlog": backlog(x_2026_11=7),
            },
            "Degraded", "skipped", "7 logs, all that wait, is skipped: x_2026_11: no index.knn", 1,
        ),
        # As at a run's end, when the backlog is not counted
        (
            {"last_runs": [run(skipped_indices={"x_2026_11": "dead"})], "backlog": None},
            "Degraded", "skipped", "one index is skipped: x_2026_11: dead", 1,
        ),
        (
            {
                "last_runs": [run(skipped_indices={"y_2026_11": "red", "x_2026_11": "dead"})],
                "backlog": None,
            },
            "Degraded", "skipped", "2 indices are skipped: one of them, x_2026_11: dead", 1,
        ),
        # Workers
        ({"workers_alive": 0}, "Healthy", "", "", 0),
        (
            {"workers_alive": 0, "active_run": RunRecord(**ACTIVE)},
            "Halted", "no_worker", "a run is active", 3,
        ),
        # Workers of an older version note nothing: not dead while something moves.
        (
            {"workers_alive": 0, "workers_note_themselves": False, "backlog": backlog(50)},
            "Healthy", "", "50 logs wait for the next run", 0,
        ),
        (
            {
                "workers_alive": 0, "workers_note_themselves": False, "quiet_seconds": 5.0,
                "active_run": RunRecord(**ACTIVE), "backlog": backlog(50),
            },
            "Working", "", "run #2", 0,
        ),
        (
            {
                "workers_alive": 0, "workers_note_themselves": False, "quiet_seconds": 500.0,
                "active_run": RunRecord(**ACTIVE), "backlog": backlog(50),
            },
            "Halted", "no_worker", "50 logs wait", 3,
        ),
        (
            {
                "workers_alive": 0, "workers_note_themselves": False, "last_tick": None,
                "last_runs": [], "backlog": backlog(50),
            },
            "Halted", "no_worker", "50 logs wait", 3,
        ),
        (
            {"disagreements": ["2 workers disagree on EMBEDDING_MODEL"]},
            "Degraded", "workers_disagree", "EMBEDDING_MODEL", 1,
        ),
        ({"neighbours": ["another prefix"]}, "Degraded", "two_deployments", "another prefix", 1),
        # Runs
        (
            {"last_runs": [run(state="halted", halt_reason="the key is refused")]},
            "Halted", "halted", "run #1 stopped: the key is refused", 3,
        ),
        ({"last_runs": [run(state="halted")]}, "Halted", "halted", "no reason was given", 3),
        ({"last_runs": [run(2), run(state="halted")]}, "Healthy", "", "", 0),
        (
            {"last_runs": [run(state="abandoned", found=9, deferred=9)]},
            "Healthy", "", "", 0,
        ),
        (
            {"last_runs": [run(found=9, failed=5, embedded=4, vectors_written=4)]},
            "Degraded", "failed", "5 of the 9 logs", 1,
        ),
        (
            {"last_runs": [run(found=9, failed=4, embedded=5, vectors_written=5)]},
            "Healthy", "", "", 0,
        ),
        (
            {"active_run": RunRecord(**ACTIVE, retries=4, retry_reasons={REFUSED: 4})},
            "Degraded", "retrying", f"(4 retries): {REFUSED}", 1,
        ),
        (
            {"active_run": RunRecord(**ACTIVE, chunks_open=3), "quiet_seconds": 500.0},
            "Degraded", "stuck", "has not moved for 8 min", 1,
        ),
        # The active run has got nowhere yet: the last one tells.
        (
            {
                "active_run": RunRecord(**ACTIVE),
                "last_runs": [
                    RunRecord(**ACTIVE), run(found=3, deferred=3, deferral_reasons={REFUSED: 3})
                ],
            },
            "Degraded", "deferred", REFUSED, 3,
        ),
        (
            {
                "active_run": RunRecord(**ACTIVE, found=9, embedded=5, vectors_written=5),
                "last_runs": [run(found=3, deferred=3, deferral_reasons={REFUSED: 3})],
            },
            "Working", "", "has done 5 of the 9 logs", 0,
        ),
        # Money and pauses
        (
            {
                "last_runs": [
                    run(found=3, deferred=3, deferral_reasons={BUDGET: 3}, more=True,
                        stopped_by="budget")
                ],
                "cost_limit_usd": 1.0, "spent_today_usd": 1.01,
            },
            "Late", "budget", "ENRICH_MAX_COST_PER_DAY", 1,
        ),
        (
            {
                "last_runs": [run(more=True, stopped_by="budget")],
                "cost_limit_usd": 1.0, "spent_today_usd": 0.0,
            },
            "Healthy", "", "", 0,
        ),
        ({"paused": True, "last_tick": None}, "Paused", "paused", "no new work", 0),
        # Ticks and freshness
        ({"last_tick": None, "backlog": backlog(3)}, "Late", "no_tick", "no tick has come yet", 1),
        ({"last_tick": None}, "Healthy", "", "", 0),
        ({"last_tick": NOW - timedelta(seconds=601)}, "Late", "late_tick", "two intervals", 1),
        ({"last_tick": NOW - timedelta(seconds=599)}, "Healthy", "", "", 0),
        (
            {
                "last_runs": [run(finished_at=NOW - timedelta(seconds=700))],
                "backlog": backlog(3, LONG_AGO),
            },
            "Late", "behind", LONG_AGO, 1,
        ),
        ({"backlog": backlog(3, LONG_AGO)}, "Healthy", "", "", 0),
        (
            {"backlog": Backlog(with_vector=9, of_other_models=4)},
            "Degraded", "other_models", "4 logs", 1,
        ),
        # Runs that nobody records: with the cause where one is known, and not before an hour and
        # two intervals.
        (
            {"history": HistoryReport(is_kept=True, owed=2, lag_seconds=7300, unwritten=NO_RIGHT)},
            "Degraded", "history_behind",
            f"2 records of runs are missing in enrich-runs, the first for 2 h 1 min: {NO_RIGHT}", 1,
        ),
        (
            {"history": HistoryReport(is_kept=True, owed=1, lag_seconds=3700)},
            "Degraded", "history_behind", "the record of one run has been missing", 1,
        ),
        (
            {"history": HistoryReport(is_kept=True, owed=1, lag_seconds=3500, unwritten=NO_RIGHT)},
            "Healthy", "", "", 0,
        ),
        (
            {
                "history": HistoryReport(is_kept=True, owed=1, lag_seconds=7300),
                "interval_seconds": 4000.0,
            },
            "Healthy", "", "", 0,
        ),
    ],
)  # fmt: skip
def test_each_state_has_its_word(
    fields: dict[str, Any], word: str, code: str, says: str, exit_status: int
) -> None:
    health = health_of(status(**fields))
    assert (health.word, health.exit_status) == (word, exit_status), health
    assert says in health.sentence
    assert health.line.startswith(f"{word}: ")
    if code:
        assert health.reasons[0].code == code and code in CODES
    assert health.well is (not health.problems)
    if word not in ("Healthy", "Working", "Unknown"):
        assert health.remedy or health.reasons[0].code in ("halted", "retrying", "two_deployments")


@pytest.mark.parametrize(
    "gaps",
    [
        {"not_counted": {"z_2026_01": "not every shard answers (red index)"}},
        {"not_counted_unnamed": "some shard does not answer"},
        {"clusters_not_counted": 1},
    ],
)
def test_what_was_counted_in_part_is_never_green_and_never_told_as_whole(
    gaps: dict[str, Any],
) -> None:
    counted = backlog(3, LONG_AGO, skip_2026_11=4).model_copy(update=gaps)
    skipping = run(
        2, state="running", found=9, embedded=2, vectors_written=2, duration_seconds=1.0,
        skipped_indices={"skip_2026_11": "it takes no writes"},
    )  # fmt: skip
    judged = status(backlog=counted, active_run=skipping, last_runs=[skipping])
    health = health_of(judged)
    assert (health.word, health.reasons[0].code) == (Word.DEGRADED, "counted_in_part")
    assert "at least 12; not counted: " in health.sentence
    assert health.exit_status == 3
    assert judged.seconds_left is None
    assert status(backlog=backlog(3), active_run=skipping).seconds_left == 1.5

    sentences = " ".join(problems_of(status(backlog=counted, last_tick=None)))
    assert "at least 7 logs wait, and no tick" in sentences
    told = as_json(judged)
    assert told["backlog"]["whole"] is False
    assert health.sentence in told["problems"][0]


def test_a_number_of_indices_that_were_counted_is_told_as_it_is() -> None:
    skipping = run(skipped_indices={"skip_2026_11": "it takes no writes"})
    counted = backlog(0, None, skip_2026_11=4)
    missing = {"not_counted": {"z_2026_01": "not every shard answers (red index)"}}
    (sentence,) = (
        reason.sentence
        for reason in health_of(
            status(backlog=counted.model_copy(update=missing), last_runs=[skipping])
        ).reasons
        if reason.code == "skipped"
    )
    assert sentence.startswith("one index with 4 logs, which wait, is skipped")
    missing = {"not_counted": {"skip_2026_11": "not every shard answers (red index)"}}
    (sentence,) = (
        reason.sentence
        for reason in health_of(
            status(backlog=counted.model_copy(update=missing), last_runs=[skipping])
        ).reasons
        if reason.code == "skipped"
    )
    assert sentence.startswith("one index with at least 4 logs, which wait, is skipped")


def test_the_worst_comes_first_and_nothing_is_left_out() -> None:
    judged = status(
        problems=["OpenSearch cannot be reached"],
        backlog=None,
        paused=True,
        last_runs=[run(state="halted", halt_reason="no quota")],
        disagreements=["two workers disagree"],
    )
    health = health_of(judged)
    words = [reason.word for reason in health.reasons]
    assert words == [Word.UNKNOWN, Word.HALTED, Word.DEGRADED, Word.PAUSED]
    assert health.exit_status == 3
    # What could not be read is named once, and a pause is nothing that is wrong.
    problems = problems_of(judged)
    assert problems[0] == "OpenSearch cannot be reached" and len(problems) == 3
    told = as_json(judged)
    assert told["problems"] == problems and told["health"]["word"] == "Unknown"
    assert Status.model_validate(told) == judged.model_copy(update={"problems": problems})


def test_others_words_stay_one_line_of_bounded_length() -> None:
    judged = status(last_runs=[run(state="halted", halt_reason="a\nb" * 10_000)])
    line = health_of(judged).line
    assert "\n" not in line and len(line) < 500


@pytest.mark.parametrize("ahead", [-3600, 0, 3600, 86_400])
def test_the_clock_of_whoever_looks_decides_nothing(ahead: int) -> None:
    """Redis has the clock of ticks and runs; this host's is off by as much."""
    seconds = [time.time() - ahead]
    ledger = in_memory_ledger(clock=lambda: seconds[0])
    settings = load_settings(_env_file=None, openai_api_key="k", enrich_interval_minutes=10)
    run = ledger.runs.open("beat", 600).run
    ledger.pages.register(run, 1, scan=Scan(pending=[], update_only=[], unsorted=[]),
                          scan_done=True, chunks={})  # fmt: skip
    assert ledger.runs.finish(run) == "finished"
    seconds[0] += 1100
    assert health_of(read_status(ledger, None, settings=settings)).word is Word.HEALTHY
    seconds[0] += 200
    health = health_of(read_status(ledger, None, settings=settings))
    assert (health.word, health.reasons[0].code) == (Word.LATE, "late_tick")
    assert "was 21 min 40 s ago" in health.sentence


# -- the reasons as the ledger counts them


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(fakeredis.FakeRedis(), "test:")


def opened(ledger: Ledger, *sizes: int) -> str:
    run = ledger.runs.open("beat", 600).run
    ledger.pages.register(
        run, 1, scan=Scan(pending=[], update_only=[], unsorted=[]), scan_done=True,
        chunks={f"{run}:1:{k}": size for k, size in enumerate(sizes)},
    )  # fmt: skip
    return run


def test_reasons_of_deferrals_count_documents_and_are_corrected(ledger: Ledger) -> None:
    run = opened(ledger, 5, 4, 3, 2)
    ledger.chunks.settle(
        f"{run}:1:0", {"embedded": 2, "deferred": 3}, 0, {"no vector": 2, "changed": 1}
    )
    assert ledger.records.of(run).deferral_reasons == {"no vector": 2, "changed": 1}
    ledger.runs.halt(run, "the key\nis refused")
    refused = "the key is refused"
    assert ledger.records.of(run).deferral_reasons[refused] == 9
    # What was under way corrects it: all is written, a part is, or nobody knows why not.
    ledger.chunks.settle(f"{run}:1:1", {"embedded": 4})
    ledger.chunks.settle(f"{run}:1:2", {"embedded": 1, "deferred": 2}, 0, {"changed": 2})
    ledger.chunks.settle(f"{run}:1:3", {"deferred": 2})
    record = ledger.records.of(run)
    assert record.deferral_reasons == {"changed": 3, "no vector": 2, refused: 2}
    assert sum(record.deferral_reasons.values()) == record.deferred


def test_a_chunk_past_its_deadline_says_so(ledger: Ledger) -> None:
    run = opened(ledger, 5)
    ledger.chunks.expire(run, -1)
    ((sentence, count),) = ledger.records.of(run).deferral_reasons.items()
    assert "ENRICH_CHUNK_DEADLINE_SECONDS" in sentence and count == 5


def test_reasons_are_bounded_in_number_and_length(ledger: Ledger) -> None:
    run = opened(ledger, 50)
    for n in range(40):
        ledger.counters.add_retry(run, f"trouble {n} " + "x" * 10_000)
    record = ledger.records.of(run)
    assert record.retries == 40 == sum(record.retry_reasons.values())
    assert record.retry_reasons["other reasons"] == 28 and len(record.retry_reasons) == 13
    assert all(len(sentence) <= 300 for sentence in record.retry_reasons)
    assert record.deferral_reasons == {}

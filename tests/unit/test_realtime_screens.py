"""What operators are told of consumers of Kafka: health, terminal, page and metrics."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import fakeredis
import pytest
from rich.console import Console

from enrich.cli import realtime_section
from enrich.ledger import Ledger
from enrich.ledger.in_memory import in_memory_ledger
from enrich.ledger.realtime import ConsumerState, Partition, PartitionState, Portion
from enrich.ledger.realtime_summary import OUTCOMES, RealtimeSummary
from enrich.status import realtime
from enrich.status.health import as_json, health_of
from enrich.status.reasons import QUIET_SECONDS
from enrich.status.report import Status, read_status
from tests.unit.test_flower_page import ESCAPED, HOSTILE, get, scrape
from tests.unit.test_health import status as well_but_for

GROUP = "ai-enrichment-consumer"


class Scene:
    """A ledger whose clock is moved by hand, and consumers that tell it of themselves."""

    def __init__(self) -> None:
        self.now = 1_800_000_100.0
        self.ledger = in_memory_ledger(clock=lambda: self.now)

    def report(
        self, *partitions: tuple[int, int | None, int | None], name: str = "host/1",
        doing: Any = "working", why: str = "", group: str = GROUP, seconds: float = 60,
    ) -> Scene:  # fmt: skip
        """Partitions as number, committed, end."""
        told = ConsumerState(
            host="host", pid=1, since=datetime.fromtimestamp(1_900_000_000, UTC),
            doing=doing, why=why,
            partitions=[
                PartitionState(topic="logs", number=n, position=c, committed=c, end=e)
                for n, c, e in partitions
            ],
        )  # fmt: skip
        self.ledger.realtime.report(group, name, told, seconds)
        return self

    def later(self, seconds: float) -> Scene:
        self.now += seconds
        return self

    @property
    def groups(self) -> list[RealtimeSummary]:
        return self.ledger.realtime.summary()

    def reasons(self, *, paused: bool = False) -> list[tuple[str, str]]:
        return [
            (reason.code, reason.sentence)
            for reason in realtime.reasons(self.groups, paused=paused)
        ]


def counted(ledger: Ledger, group: str = GROUP, why: str = "not there yet") -> None:
    """Ten messages of each outcome but twenty of other levels."""
    counts = {**dict.fromkeys(OUTCOMES, 10), "other_level": 30}
    reasons = {f"left|{why}": 10, "poison|not_json": 7, "poison|no_id": 3}
    portion = Portion(
        partition=Partition("logs", "id", 0), expected=None, upto=120,
        counts={**counts, **reasons}, latencies=[1.2] * 38 + [4.9, 5.1],
    )  # fmt: skip
    assert ledger.realtime.settle(group, [portion], batches=3)[0].counted
    ledger.realtime.count(
        group, micro_usd=12_300, api_requests=4, api_inputs=56, api_tokens=789, rate_limited=1
    )


# -- the health


def test_where_no_consumer_ever_ran_nothing_is_said() -> None:
    ledger = Ledger(fakeredis.FakeRedis(), "none:")
    status = read_status(ledger, None)
    assert status.realtime == as_json(status)["realtime"] == []
    assert not [name for name, _ in scrape(status) if name.startswith("enrich_realtime")]
    assert "Real time" not in get(status, "/enrichment").body.decode()
    assert realtime.reasons([]) == []


def test_consumers_at_work_are_healthy() -> None:
    scene = Scene().report((0, 10, 10), (1, 5, 90))
    scene.later(QUIET_SECONDS - 20).report((0, 10, 10), (1, 5, 90))
    assert scene.reasons() == []
    scene.later(QUIET_SECONDS).report((0, 10, 10), (1, 90, 95))
    assert scene.reasons() == []


def test_nobody_alive_while_messages_wait() -> None:
    scene = Scene().report((0, 10, 15), (1, 1, 2))
    scene.ledger.realtime.leave(GROUP, "host/1")
    ((code, sentence),) = scene.reasons()
    assert code == "no_consumer"
    assert f"no consumer of group {GROUP} is alive; 6 messages waited" in sentence


def test_one_that_ended_without_a_word_is_missed_and_one_that_left_is_not() -> None:
    scene = Scene().report((0, 15, 15)).later(90)
    ((code, sentence),) = scene.reasons()
    assert code == "no_consumer" and "host/1 was last heard of 1 min 30 s ago" in sentence
    scene.ledger.realtime.leave(GROUP, "host/1")
    assert scene.reasons() == []


def test_one_that_was_refused_is_missed_with_its_reason() -> None:
    why = "Kafka at k:9093: KAFKA_SASL_USERNAME u may not read the topic: give it Read"
    scene = Scene().report((0, 15, 15), doing="ended", why=why, seconds=0).later(90)
    told = f"host/1 has ended 1 min 30 s ago: {why}"
    assert scene.reasons() == [("no_consumer", f"no consumer of group {GROUP} is alive; {told}")]
    (group,) = scene.groups
    assert (
        realtime.consumer_line(group, group.consumers[0]) == f"host/1: ended 1 min 30 s ago: {why}"
    )
    assert "<td>ended</td>" in get(Status(realtime=[group]), "/enrichment").body.decode()
    # Another that was started since is enough.
    assert scene.report((0, 15, 15), name="host/2").reasons() == []


def test_a_pause_that_lasts_is_told_with_its_reason() -> None:
    why = "the embeddings API refuses the key: check OPENAI_API_KEY"
    scene = Scene()
    for _ in range(4):
        for name in ("host/1", "host/2"):
            scene.report((int(name[-1]), 1, 9), name=name, doing="paused", why=why)
        assert scene.reasons() == []
        scene.later(QUIET_SECONDS / 3)
    for name in ("host/1", "host/2"):
        scene.report((int(name[-1]), 1, 9), name=name, doing="paused", why=why)
    ((code, sentence),) = scene.reasons()
    assert code == "consumer_paused"
    assert sentence == f"2 consumers of group {GROUP} have been paused for 2 min 40 s: {why}"
    assert scene.reasons(paused=True) == [], "by an operator, on purpose"


def test_trouble_with_the_brokers_is_told_at_once() -> None:
    why = "Kafka at k:9092 cannot be reached"
    scene = Scene().report((0, 9, 9), doing="waiting", why=why)
    scene.report((1, 9, 9), name="host/2")
    told = f"1 consumer of group {GROUP} is in trouble: {why}"
    assert scene.reasons() == [("consumer_in_trouble", told)]


def test_one_that_lives_and_does_nothing_is_told() -> None:
    scene = Scene()
    for _ in range(4):
        scene.report((0, 10, 10), (1, 5, 90), (2, 7, 8), doing="working").later(41)
    scene.report((0, 10, 10), (1, 5, 90), (2, 7, 8), doing="working")
    ((code, sentence),) = scene.reasons()
    assert code == "consumer_stuck"
    assert "have not moved for 2 min 44 s in logs/1 and 1 more, with 86 messages left" in sentence


def test_a_new_consumer_is_given_time_and_a_marker_is_no_message() -> None:
    scene = Scene().report((0, 5, 90)).later(1000)
    scene.report((0, 5, 90), name="host/2")
    assert scene.reasons() == []
    for _ in range(4):
        scene.later(50).report((0, 5, 6), name="host/2", doing="waiting")
    assert scene.reasons() == []
    for _ in range(4):
        scene.later(50).report((0, 5, 7), name="host/2", doing="waiting")
    assert [code for code, _ in scene.reasons()] == ["consumer_stuck"]


def leave(ledger: Ledger, left: int, embedded: int = 0) -> None:
    portion = Portion(
        partition=Partition("logs", "left", 0), expected=None, upto=left + embedded,
        counts={"left": left, "embedded": embedded, "left|no index.knn": left},
    )  # fmt: skip
    assert ledger.realtime.settle(GROUP, [portion])[0].counted


@pytest.mark.parametrize(
    ("left", "embedded", "is_told"), [(10, 0, False), (30, 30, False), (31, 30, True)]
)
def test_consumers_that_leave_most_logs_are_told(left: int, embedded: int, is_told: bool) -> None:
    scene = Scene()
    leave(scene.ledger, left, embedded)
    assert [code for code, _ in scene.reasons()] == ["consumer_leaves"] * is_told
    if is_told:
        assert scene.reasons()[0][1].endswith("and gave 30 a vector: no index.knn")
    scene.later(3600)
    assert scene.reasons() == [], "that was long ago"


@pytest.mark.parametrize(
    ("prepare", "code"),
    [
        (lambda scene: scene.report((0, 1, 9)).later(61), "no_consumer"),
        (
            lambda scene: [
                scene.report((0, 1, 9), doing="paused", why="halted").later(50) for _ in range(4)
            ],
            "consumer_paused",
        ),
        (
            lambda scene: scene.report((0, 9, 9), why="Kafka cannot be reached"),
            "consumer_in_trouble",
        ),
        (
            lambda scene: [scene.report((0, 1, 9)).later(50) for _ in range(4)],
            "consumer_stuck",
        ),
        (lambda scene: leave(scene.ledger, 31), "consumer_leaves"),
    ],
    ids=[
        "no_consumer",
        "consumer_paused",
        "consumer_in_trouble",
        "consumer_stuck",
        "consumer_leaves",
    ],
)
def test_the_health_tells_of_consumers_with_a_remedy(prepare: Any, code: str) -> None:
    scene = Scene()
    prepare(scene)
    health = health_of(well_but_for(realtime=scene.groups))
    assert (health.word, health.exit_status) == ("Degraded", 1)
    assert health.reasons[0].code == code and health.remedy
    samples = scrape(Status(realtime=scene.groups))
    assert samples["enrich_health", code] == 1
    assert samples["enrich_health", "no_worker"] == 0


# -- the terminal


def shown(group: RealtimeSummary, width: int = 80) -> str:
    out = StringIO()
    console = Console(
        file=out, width=width, force_terminal=True, no_color=True, markup=False, highlight=False
    )
    realtime_section.show(console, group)
    return out.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_status_fits_the_screen_and_cuts_no_number(width: int) -> None:
    scene = Scene()
    counted(scene.ledger)
    for n in range(30):
        partitions = [(n, 1_234_567, 2_345_678 + n)]
        scene.report(*partitions, name=f"consumer-{n}.internal.example.com/{n}")
    (group,) = scene.groups
    text = shown(group, width).replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert max(map(len, text.splitlines())) <= width
    assert "logs/29" in text and "1,111,140" in text and "18 more partitions" in text
    assert "all 30" in text and f"{group.lag:,}" in text and "22 more consumers" in text


def test_status_tells_counts_latency_and_reasons() -> None:
    scene = Scene()
    counted(scene.ledger)
    scene.report((0, 120, 125), (1, None, None))
    scene.report(name="host/2", doing="paused", why="the quota is used up")
    scene.later(30)
    (group,) = scene.groups
    text = " ".join(shown(group, 200).split())
    for told in (
        "2 consumers alive; lag 5 messages; last batch 30 s ago",
        "from log to vector: p50 1.3 s, p99 5.3 s in the last",
        "120 messages in 3 batches since", "10 embedded, 10 duplicate, 10 cached, 10 reused",
        "10 left to the backfill", "30 of other levels",
        "4 API requests with 56 texts, $0.0123; slowed down 1 time by rate limits",
        "left to the backfill, 10 logs: not there yet", "poison: 7 not_json, 3 no_id",
        "host/1: working for 30 s; 2 partitions",
        "! host/2: paused for 30 s: the quota is used up; 0 partitions",
    ):  # fmt: skip
        assert told in text, told
    assert "since the beginning" not in text, "the last minutes are all that there is"
    scene.later(7200)
    (group,) = scene.groups
    text = " ".join(shown(group, 200).split())
    assert "! 0 consumers alive" in text and "`python -m enrich consume`" in text
    assert "p99 5.3 s since the beginning" in text and "in the last" not in text


# -- the page


def test_page_shows_a_section_for_each_group() -> None:
    scene = Scene()
    counted(scene.ledger, why=HOSTILE)
    for n in range(60):
        scene.report((n, 7, 1000 + n), name=f"host/{n}")
    counted(scene.ledger, group=HOSTILE)
    page = get(Status(realtime=scene.groups), "/enrichment").body.decode()
    for told in (
        "Real time", GROUP, "Consumers alive", "1,052", "not_json", "Of other levels",
        "Left to the backfill", "and 10 more with less left", 'id="enrich-realtime-1"',
    ):  # fmt: skip
        assert told in page, told
    assert "<script>alert" not in page
    assert page.count(ESCAPED) == 2 + page.count("no consumer of group &lt;script")


def test_json_holds_the_groups_and_reads_as_what_it_was() -> None:
    scene = Scene().report((0, 1, 9))
    counted(scene.ledger)
    status = well_but_for(realtime=scene.groups)
    told = as_json(status)
    assert Status.model_validate(told) == status
    (group,) = told["realtime"]
    assert (group["vectors"], group["lag"], group["consumers_alive"]) == (40, 8, 1)
    assert sum(group["outcomes"].values()) == group["messages"] == 120


# -- metrics


def test_metrics_of_consumers() -> None:
    scene = Scene()
    counted(scene.ledger)
    scene.report((0, 100, 125), (1, None, None), (2, 5, 5), name="host/1")
    scene.report((3, 4, 6), name="host/2", doing="paused", why="x")
    scene.later(50)
    samples = scrape(Status(realtime=scene.groups))
    last = scene.groups[0].last_batch_at
    assert last is not None
    expected = {
        **{
            ("enrich_realtime_messages_total", f"{GROUP},{name}"): 30
            if name == "other_level"
            else 10
            for name in OUTCOMES
        },
        ("enrich_realtime_poison_total", f"not_json,{GROUP}"): 7,
        ("enrich_realtime_batches_total", GROUP): 3,
        ("enrich_realtime_usage_total", f"api_tokens,{GROUP}"): 789,
        ("enrich_realtime_cost_usd_total", GROUP): 0.0123,
        ("enrich_realtime_log_to_vector_seconds_bucket", f"{GROUP},1"): 0,
        ("enrich_realtime_log_to_vector_seconds_bucket", f"{GROUP},1.5"): 38,
        ("enrich_realtime_log_to_vector_seconds_bucket", f"{GROUP},5"): 39,
        ("enrich_realtime_log_to_vector_seconds_bucket", f"{GROUP},+Inf"): 40,
        ("enrich_realtime_log_to_vector_seconds_count", GROUP): 40,
        ("enrich_realtime_consumers", f"working,{GROUP}"): 1,
        ("enrich_realtime_consumers", f"paused,{GROUP}"): 1,
        ("enrich_realtime_consumers", f"waiting,{GROUP}"): 0,
        ("enrich_realtime_last_batch_timestamp_seconds", GROUP): last.timestamp(),
        ("enrich_realtime_lag_messages", f"{GROUP},0,logs"): 25,
        ("enrich_realtime_lag_messages", f"{GROUP},3,logs"): 2,
        ("enrich_realtime_standing_seconds", f"{GROUP},0,logs"): 50,
        ("enrich_realtime_standing_seconds", f"{GROUP},2,logs"): 0,
        ("enrich_realtime_standing_seconds", f"{GROUP},3,logs"): 0,
    }
    assert {key: samples.get(key) for key in expected} == expected
    assert ("enrich_realtime_lag_messages", f"{GROUP},1,logs") not in samples, "it is not known"


def test_a_group_that_has_counted_no_latency_has_an_empty_histogram() -> None:
    scene = Scene().report((0, 1, 1))
    samples = scrape(Status(realtime=scene.groups))
    assert samples["enrich_realtime_log_to_vector_seconds_count", GROUP] == 0
    assert scene.groups[0].read_at - scene.groups[0].consumers[0].seen_at == timedelta(0)

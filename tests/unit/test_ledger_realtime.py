"""What consumers count: each message once, whatever is delivered again, comes late or is lost.

Every test runs in memory, on fakeredis and on a real server, as in test_ledger.py. The property
draws consumers that read a partition's messages in any order of rebalances, crash between work,
settling and commit, settle late, and lose Redis; and holds the ledger against the messages.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from random import Random
from typing import Any, cast

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.ledger import Ledger, latency
from enrich.ledger.in_memory import InMemoryRedis, in_memory_ledger, ledger_on
from enrich.ledger.realtime import (
    ConsumerState,
    Partition,
    PartitionState,
    Portion,
    Settled,
)
from enrich.ledger.realtime_summary import OUTCOMES, WINDOW_MINUTES, RealtimeSummary
from tests.unit.conftest import connection_to

GROUP = "a:group with/signs"
FIRST = Partition("logs", "id1", 0)
STARTED = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
PREFIXES = (f"r{n}:" for n in itertools.count())


@pytest.fixture
def prefix() -> str:
    return next(PREFIXES)


@pytest.fixture(scope="module", params=["memory", "fakeredis", "valkey"])
def connection(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    yield from connection_to(request.param)


@pytest.fixture
def ledger(connection: redis.Redis, prefix: str) -> Ledger:
    if isinstance(connection, InMemoryRedis):
        return ledger_on(connection, prefix)
    return Ledger(connection, prefix)


def portion(
    expected: int | None, upto: int, partition: Partition = FIRST, **counts: int
) -> Portion:
    return Portion(partition=partition, expected=expected, upto=upto, counts=counts)


def only(ledger: Ledger) -> RealtimeSummary:
    (summary,) = ledger.realtime.summary()
    return summary


# -- positions


def test_a_portion_counts_once_and_who_comes_late_learns_where_it_stands(ledger: Ledger) -> None:
    assert ledger.realtime.summary() == []
    assert ledger.realtime.counted(GROUP, [FIRST]) == [None]
    first = portion(None, 10, embedded=2, other_level=8)
    assert ledger.realtime.settle(GROUP, [first], batches=1) == [Settled(True, 10)]
    assert ledger.realtime.settle(GROUP, [first], batches=1) == [Settled(False, 10)]
    late = portion(5, 12, left=7)
    assert ledger.realtime.settle(GROUP, [late]) == [Settled(False, 10)]
    assert ledger.realtime.settle(GROUP, [portion(10, 12, left=2)]) == [Settled(True, 12)]
    assert ledger.realtime.counted(GROUP, [FIRST]) == [12]
    summary = only(ledger)
    assert (summary.messages, summary.batches, summary.vectors) == (12, 2, 2)
    assert {n: c for n, c in summary.outcomes.items() if c} == {
        "embedded": 2, "other_level": 8, "left": 2,
    }  # fmt: skip
    assert summary.last_batch_at is not None and summary.since is not None


def test_partitions_stand_each_for_itself(ledger: Ledger) -> None:
    others = [
        Partition("logs", "id1", 1),
        Partition("logs", "made anew", 0),
        Partition("logs.2", "id1", 0),
        Partition("logs", "", 0),
    ]
    assert ledger.realtime.settle(GROUP, [portion(None, 7, failed=7)]) == [Settled(True, 7)]
    answers = ledger.realtime.settle(
        GROUP,
        [
            portion(None, 3, others[0], failed=3),
            portion(None, 9, failed=2),
            portion(4, 9, others[1], failed=2),
        ],
    )
    assert answers == [Settled(True, 3), Settled(False, 7), Settled(False, None)]
    assert ledger.realtime.counted(GROUP, [FIRST, *others]) == [7, 3, None, None, None]
    assert ledger.realtime.counted("another", [FIRST]) == [None]
    assert ledger.realtime.counted(GROUP, []) == []
    assert ledger.realtime.settle(GROUP, []) == []
    assert only(ledger).messages == 10


def test_offsets_keep_all_their_digits(ledger: Ledger) -> None:
    far = 2**62 + 1
    assert ledger.realtime.settle(GROUP, [portion(None, far, poison=1)]) == [Settled(True, far)]
    assert ledger.realtime.counted(GROUP, [FIRST]) == [far]
    again = portion(far - 1, far + 5, poison=6)
    assert ledger.realtime.settle(GROUP, [again]) == [Settled(False, far)]
    then = portion(far, far + 5, poison=5)
    assert ledger.realtime.settle(GROUP, [then]) == [Settled(True, far + 5)]


def test_what_redis_was_asked_twice_counts_once_and_is_answered_alike(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = ledger._keys.move

    def twice(name: str, *arguments: Any) -> Any:
        once(name, *arguments)
        return once(name, *arguments)

    monkeypatch.setattr(ledger._keys, "move", twice)
    told = [portion(None, 3, cached=3), portion(None, 4, reused=4)]
    answers = ledger.realtime.settle(GROUP, told, batches=1)
    assert answers == [Settled(True, 3), Settled(False, 3)]
    ledger.realtime.count(GROUP, micro_usd=7, paid_by={"shop": 7}, api_inputs=3)
    summary = only(ledger)
    assert (summary.messages, summary.batches) == (3, 1)
    assert (summary.usage["api_inputs"], summary.estimated_cost_usd) == (3, 7e-6)
    assert ledger.spending.today_by_project(5) == {"shop": 7e-6}


def test_a_position_outlasts_what_kafka_keeps_but_not_everything(
    ledger: Ledger, connection: redis.Redis, prefix: str
) -> None:
    ledger.realtime.settle(GROUP, [portion(None, 3, cached=3)])
    (key,) = connection.keys(f"{prefix}realtime:position:*")
    days = connection.pttl(key) / 86_400_000
    assert 89 < days <= 90
    for kept in connection.keys(f"{prefix}*"):
        name = kept.decode()
        bounded = ":realtime:totals:" in f":{name}" or name.endswith(":groups")
        assert connection.pttl(kept) > 0 or bounded, name


# -- counts


@pytest.mark.parametrize(
    "wrong",
    [
        portion(None, 3, embeded=3),
        portion(None, 3, deferred=3),
        portion(None, 3, messages=3),
        portion(None, 3, embedded=-1),
        portion(3, 3, embedded=1),
        portion(5, 4, embedded=1),
        portion(None, 3, **{"embedded|why": 1}),
        portion(None, 3, left=1, **{"left|late": 2}),
    ],
    ids=str,
)
def test_counts_that_cannot_be_are_refused_and_change_nothing(
    ledger: Ledger, wrong: Portion
) -> None:
    with pytest.raises(ValueError, match=r"counted|reasons|lies between"):
        ledger.realtime.settle(GROUP, [portion(None, 9, failed=1), wrong])
    assert ledger.realtime.counted(GROUP, [FIRST]) == [None]


def test_messages_that_hold_nothing_for_us_move_the_position_alone(ledger: Ledger) -> None:
    """Markers of transactions have offsets, and are no messages."""
    assert ledger.realtime.settle(GROUP, [portion(None, 4)]) == [Settled(True, 4)]
    assert only(ledger).messages == 0


def test_reasons_are_told_with_their_numbers_and_are_bounded(ledger: Ledger) -> None:
    position = None
    for n in range(40):
        counts = {"left": 2, f"left|not there  yet\n{n}": 2, "poison": 1, f"poison|code{n}": 1}
        ledger.realtime.settle(GROUP, [portion(position, 3 * n + 3, **counts)])
        position = 3 * n + 3
    ledger.realtime.settle(GROUP, [portion(position, 199, left=9, **{"left|" + "x" * 999: 9})])
    summary = only(ledger)
    assert summary.left_reasons == {
        "other reasons": 65, **{f"not there yet {n}": 2 for n in range(12)},
    }  # fmt: skip
    assert sum(summary.left_reasons.values()) == summary.outcomes["left"] == 89
    assert len(summary.poison_codes) == 31
    assert sum(summary.poison_codes.values()) == summary.outcomes["poison"] == 40


def test_use_of_the_api_is_counted_by_group_and_money_by_day(ledger: Ledger) -> None:
    ledger.realtime.count(GROUP, micro_usd=5, paid_by={"a": 3, "b": 2}, api_requests=1)
    ledger.realtime.count(GROUP, rate_limited=2, errors=0)
    ledger.realtime.count("another", micro_usd=1, api_tokens=9)
    with pytest.raises(ValueError, match="do not count embedded"):
        ledger.realtime.count(GROUP, embedded=1)
    mine, other = ledger.realtime.summary()
    assert {n: c for n, c in mine.usage.items() if c} == {"api_requests": 1, "rate_limited": 2}
    assert (mine.group, other.group, other.usage["api_tokens"]) == (GROUP, "another", 9)
    assert ledger.spending.today_usd() == 6e-6
    assert ledger.spending.today_by_project(5) == {"a": 3e-6, "b": 2e-6}


def test_groups_that_were_seen_long_ago_make_room(
    ledger: Ledger, connection: redis.Redis, prefix: str
) -> None:
    for n in range(60):
        ledger.realtime.count(f"group{n}", errors=1)
    assert len(ledger.realtime.summary()) == 50
    assert len(connection.keys(f"{prefix}realtime:totals:*")) == 50


# -- latency


def test_latencies_are_read_from_buckets_of_all_time_and_of_the_last_minutes() -> None:
    now = [1_800_000_100.0]
    ledger = in_memory_ledger(clock=lambda: now[0])
    slow = Portion(
        partition=FIRST, expected=None, upto=2, counts={"embedded": 2}, latencies=[50.0, -3.0]
    )
    ledger.realtime.settle(GROUP, [slow])
    assert only(ledger).recent_latency.logs == 2
    now[0] += 60 * WINDOW_MINUTES * 2
    quick = Portion(
        partition=FIRST, expected=2, upto=102, counts={"cached": 100}, latencies=[4.2] * 100
    )
    ledger.realtime.settle(GROUP, [quick])
    ledger.realtime.settle(GROUP, [quick])
    summary = only(ledger)
    assert (summary.latency.logs, summary.latency.seconds) == (102, 470.0)
    assert summary.latency.within["0.1"] == 1
    assert summary.latency.within["4.5"] == 101
    assert summary.latency.within["60"] == 102
    assert summary.recent_latency.logs == summary.recent_messages == 100
    assert summary.recent_vectors == 100
    assert summary.recent_latency.p50 == 4.25
    assert summary.recent_latency.p99 == pytest.approx(4.495)
    assert 0 < summary.recent_seconds <= 120 * WINDOW_MINUTES


@given(st.lists(st.floats(0, 3600), min_size=1), st.floats(0.01, 1))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(seconds: list[float], share: float) -> None:
    counted = latency.buckets(seconds)
    counts = [counted[name] for name in (*(f"{bound:g}" for bound in latency.BOUNDS), "inf")]
    read = latency.quantile(counts, share)
    rank = max(1, -int(-share * len(seconds) // 1))
    true = sorted(seconds)[rank - 1]
    assert read is not None
    upper = next(bound for bound in latency.BOUNDS if bound >= true)
    lower = max((bound for bound in latency.BOUNDS if bound < true), default=0.0)
    assert lower - 0.001 <= read <= upper + 0.001


def test_without_logs_there_is_no_quantile_and_beyond_an_hour_only_that_is_known() -> None:
    assert latency.latency({}, 0).p99 is None
    told = latency.latency(latency.buckets([9e9]), 0)
    assert (told.logs, told.p50, told.within["3600"]) == (1, 3600.0, 0)


# -- consumers


def state(
    *partitions: tuple[int, int, int], doing: Any = "working", why: str = ""
) -> ConsumerState:
    """Of partitions as number, committed, end."""
    return ConsumerState(
        host="host1", pid=7, since=STARTED, doing=doing, why=why,
        partitions=[
            PartitionState(topic="logs", number=n, position=c, committed=c, end=e)
            for n, c, e in partitions
        ],
    )  # fmt: skip


def test_consumers_tell_what_they_do_and_how_far_they_are(ledger: Ledger) -> None:
    ledger.realtime.report(GROUP, "host1/7", state((0, 10, 15), (1, 3, 3)), 60)
    paused = state((2, 0, 2), doing="paused", why="the  API is\nhalted")
    ledger.realtime.report(GROUP, "host2/8", paused, 60)
    summary = only(ledger)
    assert (summary.consumers_alive, summary.lag) == (2, 7)
    first, second = summary.consumers
    assert (first.name, first.host, first.pid, first.since) == ("host1/7", "host1", 7, STARTED)
    assert (second.doing, second.why) == ("paused", "the API is halted")
    assert [(p.topic, p.number, p.committed, p.end, p.lag) for p in summary.partitions] == [
        ("logs", 0, 10, 15, 5), ("logs", 1, 3, 3, 0), ("logs", 2, 0, 2, 2),
    ]  # fmt: skip
    ledger.realtime.leave(GROUP, "host2/8")
    summary = only(ledger)
    assert [consumer.name for consumer in summary.consumers] == ["host1/7"]
    assert (summary.lag, len(summary.partitions)) == (5, 3), "what nobody holds is remembered"
    ledger.realtime.leave(GROUP, "host1/7")
    assert (only(ledger).consumers_alive, only(ledger).lag) == (0, 7)


def test_a_partition_that_is_not_known_yet_has_no_lag(ledger: Ledger) -> None:
    unknown = PartitionState(topic="logs", number=0)
    told = ConsumerState(host="h", pid=1, since=STARTED, doing="waiting", partitions=[unknown])
    ledger.realtime.report(GROUP, "h/1", told, 60)
    assert only(ledger).lag is None


@pytest.fixture
def timed() -> tuple[Ledger, list[float]]:
    now = [1_800_000_000.0]
    return in_memory_ledger(clock=lambda: now[0]), now


def test_silence_is_death_and_is_remembered_for_a_while(timed: tuple[Ledger, list[float]]) -> None:
    ledger, now = timed
    ledger.realtime.report(GROUP, "host1/7", state((0, 10, 15)), 60)
    now[0] += 61
    summary = only(ledger)
    assert (summary.consumers_alive, len(summary.consumers), summary.lag) == (0, 1, 5)
    now[0] += 900
    ledger.realtime.report(GROUP, "host2/8", state(), 60)
    assert [consumer.name for consumer in only(ledger).consumers] == ["host2/8"]
    now[0] += 8 * 86_400
    ledger.realtime.report(GROUP, "host2/8", state(), 60)
    assert only(ledger).partitions == []


def test_it_is_told_since_when_a_consumer_does_what_it_does_and_a_partition_stands(
    timed: tuple[Ledger, list[float]],
) -> None:
    ledger, now = timed

    def after(seconds: float, *told: Any, **how: Any) -> tuple[float, float]:
        now[0] += seconds
        ledger.realtime.report(GROUP, "host1/7", state(*told, **how), 60)
        summary = only(ledger)
        doing, moved = summary.consumers[0].doing_since, summary.partitions[0].moved_at
        return now[0] - doing.timestamp(), now[0] - moved.timestamp()

    assert after(0, (0, 10, 15)) == (0, 0)
    assert after(20, (0, 10, 25)) == (20, 20)
    assert after(20, (0, 12, 25)) == (40, 0)
    assert after(20, (0, 12, 25)) == (60, 20)
    # Paused, or nothing left: nothing has to move, however long that lasts.
    assert after(20, (0, 12, 25), doing="paused", why="a") == (0, 0)
    assert after(20, (0, 12, 25), doing="paused", why="b") == (20, 0)
    assert after(20, (0, 25, 25)) == (0, 0)
    assert after(20, (0, 25, 25)) == (20, 0)
    assert after(20, (0, 25, 26)) == (40, 20)
    # One that came back from the dead did nothing meanwhile.
    assert after(99, (0, 25, 26))[0] == 0
    # A new owner is given time.
    ledger.realtime.report(GROUP, "host2/8", state((0, 25, 26)), 60)
    assert only(ledger).partitions[0].moved_at.timestamp() == now[0]


def test_a_partition_moves_with_its_offset_or_its_consumer(ledger: Ledger) -> None:
    """As the test before it, by the server's own clock."""

    def moved(committed: int, name: str = "h/1", end: int = 9, doing: Any = "working") -> datetime:
        began = ledger.now()
        while ledger.now() < began + 0.002:
            pass
        ledger.realtime.report(GROUP, name, state((0, committed, end), doing=doing), 60)
        return only(ledger).partitions[0].moved_at

    first = moved(3)
    assert moved(3) == first
    second = moved(4)
    assert second > first and moved(4) == second
    third = moved(4, name="h/2")
    assert third > second and moved(4, name="h/2") == third
    fourth = moved(4, name="h/2", doing="paused")
    assert fourth > third
    assert moved(4, name="h/2", end=4) > fourth


# -- whatever happens

NAMES = [name for name in OUTCOMES if name != "left"]


class Topic:
    """A partition that consumers read, and what became of each of its messages in truth."""

    def __init__(self, ledger: Ledger, random: Random, partition: Partition) -> None:
        self.ledger, self.random, self.partition = ledger, random, partition
        self.outcome = [random.choice(NAMES) for _ in range(random.randrange(1, 60))]
        self.committed = 0
        #: From where on messages were counted since Redis was last lost.
        self.counted: set[int] = set()

    def settled(self, first: int, upto: int, expected: int | None) -> None:
        """As the consumer does it: what lies beyond the position that is found is counted."""
        for _ in range(4):
            first = max(first, expected or 0)
            if first >= upto:
                return
            counts = Counter(self.outcome[first:upto])
            told = Portion(partition=self.partition, expected=expected, upto=upto, counts=counts)
            (answer,) = self.ledger.realtime.settle(GROUP, [told])
            if answer.counted:
                self.counted.update(range(first, upto))
                return
            expected = answer.position
        raise AssertionError("it was never counted")


class Reader:
    """A consumer with one partition: what it knew when it was given it, and what it has read."""

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        (self.expected,) = topic.ledger.realtime.counted(GROUP, [topic.partition])
        self.next = topic.committed

    def batch(self) -> tuple[int, int]:
        first = self.next
        most = len(self.topic.outcome)
        self.next = min(most, first + self.topic.random.randrange(1, 12))
        return first, self.next


def test_messages_are_counted_once_whatever_is_delivered_again_or_lost(
    ledger: Ledger, connection: redis.Redis
) -> None:
    for seed in range(3):
        connection.flushall()
        anything_happens(ledger, connection, Random(seed))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.randoms(use_true_random=False))
def test_no_order_of_deliveries_crashes_and_losses_counts_a_message_twice(random: Random) -> None:
    memory = InMemoryRedis()
    anything_happens(ledger_on(memory, "h:"), cast(redis.Redis, memory), random)


def anything_happens(ledger: Ledger, connection: redis.Redis, random: Random) -> None:
    topics = [Topic(ledger, random, Partition("logs", "id", n)) for n in range(2)]
    readers = [Reader(random.choice(topics)) for _ in range(3)]
    late: list[tuple[Topic, int, int, int | None]] = []
    lost = False
    for _ in range(60):
        what = random.choice(("batch",) * 6 + ("rebalance", "crash", "zombie", "reset", "lost"))
        place = random.randrange(len(readers))
        reader = readers[place]
        topic = reader.topic
        if what == "batch":
            first, upto = reader.batch()
            topic.settled(first, upto, reader.expected)
            reader.expected = max(upto, reader.expected or 0)
            if random.random() < 0.7:
                topic.committed = upto
        elif what == "rebalance":
            readers[place] = Reader(random.choice(topics))
        elif what == "crash":
            # After its work, and before it settles: somebody reads the same again.
            reader.batch()
            readers[place] = Reader(topic)
        elif what == "zombie":
            first, upto = reader.batch()
            late.append((topic, first, upto, reader.expected))
            readers[place] = Reader(topic)
        elif what == "reset":
            topic.committed = random.randrange(topic.committed + 1)
        elif what == "lost" and random.random() < 0.2:
            lost = True
            connection.flushall()
            for each in topics:
                each.counted.clear()
        if late and random.random() < 0.3:
            which, first, upto, expected = late.pop(random.randrange(len(late)))
            which.settled(first, upto, expected)
        check(ledger, topics)
    for which, first, upto, expected in late:
        which.settled(first, upto, expected)
    check(ledger, topics)
    if not lost:
        for each in topics:
            (position,) = ledger.realtime.counted(GROUP, [each.partition])
            assert each.counted == set(range(position or 0)), "each message before the position"


def check(ledger: Ledger, topics: list[Topic]) -> None:
    """The ledger's counts are those of the messages it counted, each once."""
    true: Counter[str] = Counter()
    for topic in topics:
        true.update(topic.outcome[offset] for offset in topic.counted)
    found = ledger.realtime.summary()
    summary = found[0] if found else None
    counted = summary.outcomes if summary else dict.fromkeys(OUTCOMES, 0)
    assert counted == {name: true[name] for name in OUTCOMES}
    assert (summary.messages if summary else 0) == sum(counted.values())

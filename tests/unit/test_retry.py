"""The retry policy: one decision for each error, bounded backoff with jitter, pauses as asked."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.backfill.chunk import ChunkBusy
from enrich.embedding.client import MAX_RETRY_AFTER_SECONDS
from enrich.errors import (
    DEFAULT_PAUSE_SECONDS,
    AccessRefused,
    Halt,
    NoPermit,
    NotHere,
    NotYet,
    RateLimited,
    ServerUnavailable,
    SettingsError,
    TransientError,
)
from enrich.settings import Settings
from tasks.retry import (
    HAND_ON_SECONDS,
    MAX_BACKOFF_SECONDS,
    MAX_PAUSE_SECONDS,
    MAX_RETRIES,
    MAX_SNOOZES,
    MAX_SNOOZES_FOR_PERMITS,
    WAIT_HEADER,
    Decision,
    Drop,
    GiveUp,
    HaltRun,
    Retry,
    Snooze,
    Tries,
    WorkerLimit,
    after,
    backoff,
    decide,
    due,
    too_long,
)
from tests.conftest import ROOT

OUTAGE = 150.0
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


# -- the decision


NONE = Tries()


def decided(error: Exception, tries: Tries, chance: float = 0.5) -> Decision:
    return decide(error, tries, outage_seconds=OUTAGE, chance=chance, now=NOW)


AWAY = ServerUnavailable("OpenSearch is away")
BUSY = "another delivery of this chunk is at work"
SLEPT = Tries(snoozes=MAX_SNOOZES)
USED_UP = Tries(attempts=MAX_RETRIES, waited=OUTAGE)
UNFORESEEN = "an error that was not foreseen (KeyError): look at this version's known errors, and "

#: Error, what the message has been through, and what becomes of it.
TABLE: list[tuple[Exception, Tries, Decision]] = [
    # A failure is tried again, until both tries and time are used up.
    (AWAY, NONE, Retry(1.05)),
    (AWAY, Tries(attempts=3), Retry(8.05)),
    (AWAY, Tries(attempts=MAX_RETRIES, waited=OUTAGE - 0.1), Retry(30.05)),
    (AWAY, Tries(attempts=MAX_RETRIES - 1, waited=OUTAGE), Retry(30.05)),
    (AWAY, USED_UP, GiveUp("OpenSearch is away")),
    (TransientError("the API is in trouble (500)"), USED_UP, GiveUp("the API is in trouble (500)")),
    # However often it was snoozed, and however long.
    (AWAY, Tries(snoozes=MAX_SNOOZES), Retry(1.05)),
    # A busy chunk is looked at when the other's lease is over; that is no attempt.
    (ChunkBusy(7), NONE, Snooze(7.1)),
    (ChunkBusy(7), USED_UP, Snooze(7.1)),
    (ChunkBusy(7), Tries(snoozes=MAX_SNOOZES - 1), Snooze(7.1)),
    (ChunkBusy(119), NONE, Snooze(MAX_BACKOFF_SECONDS)),
    (ChunkBusy(7), SLEPT, Drop(BUSY)),
    # As is an index that another worker tries first.
    (NotYet("an index is tried", 5), USED_UP, Snooze(5.1)),
    (NotYet("an index is tried", 5), SLEPT, GiveUp("an index is tried")),
    # The others' work is handed on.
    (NotHere("left to the others"), USED_UP, Snooze(HAND_ON_SECONDS)),
    (NotHere("left to the others"), SLEPT, Drop("left to the others")),
    # A pause is the provider's, whatever was tried before.
    (RateLimited("pause", 12.0), NONE, Snooze(12.0)),
    (RateLimited("pause", 12.0), USED_UP, Snooze(12.0)),
    (RateLimited("pause", 0.0), NONE, Snooze(0.0)),
    (RateLimited("pause"), NONE, Snooze(DEFAULT_PAUSE_SECONDS)),
    (RateLimited("pause", 12.0), SLEPT, GiveUp("pause")),
    # Live logs may take all permits for hours: the run neither halts nor gives logs up meanwhile.
    (NoPermit("none left", 12.0), SLEPT, Snooze(12.0)),
    (NoPermit("none left", 12.0), Tries(snoozes=MAX_SNOOZES_FOR_PERMITS), GiveUp("none left")),
    (RateLimited("pause", 61.0), SLEPT, HaltRun("rate limited until 2026-11-01 12:01:01 UTC")),
    # What a worker can not hold or finish, it could not the next time.
    (WorkerLimit("it ran into MemoryError"), NONE, GiveUp("it ran into MemoryError")),
    # Nothing of the run can go on.
    (Halt("add credit"), NONE, HaltRun("add credit")),
    (AccessRefused("check the password"), NONE, HaltRun("check the password")),
    (SettingsError("REDIS_URL is wrong"), NONE, HaltRun("REDIS_URL is wrong")),
    (KeyError("a log's own text"), NONE, GiveUp(UNFORESEEN + "report it")),
]  # fmt: skip


@pytest.mark.parametrize(("error", "tries", "decision"), TABLE, ids=lambda each: repr(each)[:70])
def test_what_becomes_of_work_that_failed(
    error: Exception, tries: Tries, decision: Decision
) -> None:
    assert decided(error, tries) == decision


@pytest.mark.parametrize(
    ("said", "tries"),
    [
        ((0, 0, 0.0), Tries()),
        ((9, 4, 33.5), Tries(attempts=5, snoozes=4, waited=33.5)),
        # Of an older version: nothing of seconds.
        ((6, 6, None), Tries(snoozes=6)),
        ((3, 1, 0), Tries(attempts=2, snoozes=1)),
        ((1, 0, 0.5), Tries(attempts=1, waited=0.5)),
        # Of anybody.
        ((2, 5, 0.0), Tries(attempts=2)),
        ((2, -1, -1.0), Tries(attempts=2)),
        ((-1, "1", "1"), Tries()),
        ((None, None, float("nan")), Tries()),
        ((2, True, float("inf")), Tries(attempts=2)),
        ((10**9, [], {}), Tries(attempts=10**9)),
    ],
)
def test_what_a_message_says_of_its_tries_may_be_anything(
    said: tuple[Any, Any, Any], tries: Tries
) -> None:
    assert Tries.of(*said) == tries
    assert isinstance(decided(AWAY, tries), Retry)


def outage(seconds: float, chances: random.Random) -> tuple[str, float]:
    """A chunk that meets an outage of so many seconds from its beginning on, each of its requests
    being refused at once; how it ends, and after how many seconds."""
    tries, time = Tries(), 0.0
    while time < seconds:
        decision = decided(AWAY, tries, chances.random())
        if isinstance(decision, GiveUp):
            return "deferred", time
        assert isinstance(decision, Retry)
        time += decision.seconds
        tries = Tries(attempts=tries.attempts + 1, waited=tries.waited + decision.seconds)
    return "done", time


def test_an_outage_of_two_minutes_defers_nothing_whatever_the_jitter() -> None:
    # The shortest wait each time as well, which only many tries bring to an end.
    for chances in (*map(random.Random, range(2_000)), Always(0.0), Always(0.999)):
        assert outage(120.0, chances)[0] == "done"


def test_an_outage_for_ever_ends_each_chunk_in_bounded_time_with_its_reason() -> None:
    for chances in (*map(random.Random, range(2_000)), Always(0.0), Always(0.999)):
        end, seconds = outage(1e9, chances)
        assert end == "deferred"
        assert OUTAGE <= seconds < OUTAGE + MAX_BACKOFF_SECONDS


class Always(random.Random):
    """Chance that is none."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self._value = value

    def random(self) -> float:
        return self._value


def test_the_default_waits_out_what_is_promised() -> None:
    assert Settings.model_fields["enrich_outage_seconds"].default == OUTAGE


def test_the_policy_knows_no_celery() -> None:
    program = "import sys; import tasks.retry; sys.exit('celery' in sys.modules)"
    environment = {"PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", program], env=environment).returncode == 0


# -- its numbers

CHANCES = st.floats(0, 1, exclude_max=True)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.integers(0, 10**9), CHANCES)
def test_backoff_is_never_zero_and_at_most_a_minute(retries: int, chance: float) -> None:
    assert 0 < backoff(retries, chance) <= MAX_BACKOFF_SECONDS <= 60


def test_backoff_grows_and_is_spread() -> None:
    by = random.Random(3)
    spread = [
        [backoff(retries, by.random()) for _ in range(400)] for retries in range(MAX_RETRIES + 1)
    ]
    most = [max(row) for row in spread]
    # Full jitter: each try may come nearly at once, and the latest is about twice as late.
    assert all(min(row) < 0.2 * max(row) for row in spread)
    assert all(1.5 < b / a < 2.5 for a, b in pairwise(most[:5]))
    assert len({round(seconds, 6) for seconds in spread[3]}) > 300


def test_tries_outlast_a_minute_of_trouble() -> None:
    by = random.Random(3)
    means = [sum(backoff(n, by.random()) for _ in range(2000)) / 2000 for n in range(MAX_RETRIES)]
    assert 45 < sum(means) < 150


def test_no_wait_reaches_the_visibility_timeout() -> None:
    # A countdown beyond it would make the broker deliver the task a second time.
    visibility = Settings.model_fields["enrich_visibility_timeout_seconds"].default
    assert max(MAX_BACKOFF_SECONDS, MAX_PAUSE_SECONDS) < visibility


@pytest.mark.parametrize(
    ("asked", "pause"), [(0.0, 0.0), (0.5, 0.5), (60.0, 60.0), (3600.0, 3600.0)]
)
def test_pause_is_the_providers(asked: float, pause: float) -> None:
    assert RateLimited("pause", asked).pause == pause


def test_pause_without_a_word_is_bounded() -> None:
    assert 0 < RateLimited("pause").pause <= MAX_PAUSE_SECONDS


@pytest.mark.parametrize("pause", [0.0, 0.001, 59.9, 60.0])
def test_short_pause_is_waited_for(pause: float) -> None:
    assert too_long(pause, NOW) == ""


@pytest.mark.parametrize("pause", [60.001, 61.0, 3600.0, 86_400.0, MAX_RETRY_AFTER_SECONDS])
def test_long_pause_halts_with_its_end(pause: float) -> None:
    reason = too_long(pause, NOW)
    assert re.fullmatch(r"rate limited until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", reason)
    until = datetime.strptime(reason, "rate limited until %Y-%m-%d %H:%M:%S UTC")
    assert abs((until.replace(tzinfo=UTC) - NOW).total_seconds() - pause) <= 1


HOURS = st.timedeltas(timedelta(hours=-5), timedelta(hours=5))


@pytest.mark.parametrize("ahead", [-3600, 0, 3600])
@pytest.mark.parametrize("wait", [0.0, 0.5, 20.0, MAX_BACKOFF_SECONDS])
def test_a_retry_waits_as_long_as_it_was_told_whatever_its_senders_clock_says(
    wait: float, ahead: int
) -> None:
    options = after(wait)
    assert options["countdown"] == wait
    told = NOW + timedelta(seconds=ahead + wait)
    assert due(told, options["headers"][WAIT_HEADER], NOW) == NOW + timedelta(seconds=wait)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(HOURS, st.none() | st.floats() | st.integers() | st.text() | st.lists(st.integers()))
def test_no_message_waits_longer_than_a_retry_does(told: timedelta, wait: Any) -> None:
    waits = (due(NOW + told, wait, NOW) - NOW).total_seconds()
    assert waits <= MAX_BACKOFF_SECONDS
    assert waits == pytest.approx(told.total_seconds()) or waits >= 0

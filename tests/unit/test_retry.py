"""The retry policy: bounded backoff with jitter, pauses as the provider asks, and when to halt."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.backfill import MAX_PAUSE_SECONDS
from enrich.embedder import MAX_RETRY_AFTER_SECONDS
from enrich.errors import RateLimited
from enrich.settings import Settings
from tasks.retry import (
    MAX_BACKOFF_SECONDS,
    MAX_RETRIES,
    WAIT_HEADER,
    after,
    backoff,
    due,
    pause_of,
    too_long,
)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.integers(0, 1000))
def test_backoff_is_never_zero_and_at_most_a_minute(retries: int) -> None:
    assert 0 < backoff(retries) <= MAX_BACKOFF_SECONDS <= 60


def test_backoff_grows_and_is_spread() -> None:
    spread = [[backoff(retries) for _ in range(400)] for retries in range(MAX_RETRIES + 1)]
    most = [max(row) for row in spread]
    # Full jitter: each try may come nearly at once, and the latest is about twice as late.
    assert all(min(row) < 0.2 * max(row) for row in spread)
    assert all(1.5 < b / a < 2.5 for a, b in pairwise(most[:5]))
    assert len({round(seconds, 6) for seconds in spread[3]}) > 300


def test_tries_outlast_a_minute_of_trouble() -> None:
    means = [sum(backoff(n) for _ in range(2000)) / 2000 for n in range(MAX_RETRIES)]
    assert 45 < sum(means) < 150


def test_no_wait_reaches_the_visibility_timeout() -> None:
    # A countdown beyond it would make the broker deliver the task a second time.
    visibility = Settings.model_fields["enrich_visibility_timeout_seconds"].default
    assert max(MAX_BACKOFF_SECONDS, MAX_PAUSE_SECONDS) < visibility


@pytest.mark.parametrize(
    ("asked", "pause"), [(0.0, 0.0), (0.5, 0.5), (60.0, 60.0), (3600.0, 3600.0)]
)
def test_pause_is_the_providers(asked: float, pause: float) -> None:
    assert pause_of(RateLimited("pause", asked)) == pause


def test_pause_without_a_word_is_bounded() -> None:
    assert 0 < pause_of(RateLimited("pause")) <= MAX_PAUSE_SECONDS


@pytest.mark.parametrize("pause", [0.0, 0.001, 59.9, 60.0])
def test_short_pause_is_waited_for(pause: float) -> None:
    assert too_long(pause) == ""


@pytest.mark.parametrize("pause", [60.001, 61.0, 3600.0, 86_400.0, MAX_RETRY_AFTER_SECONDS])
def test_long_pause_halts_with_its_end(pause: float) -> None:
    reason = too_long(pause)
    assert re.fullmatch(r"rate limited until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", reason)


NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
HOURS = st.timedeltas(timedelta(hours=-5), timedelta(hours=5))


@pytest.mark.parametrize("ahead", [-3600, 0, 3600])
def test_a_retry_waits_as_long_as_it_was_told_whatever_its_senders_clock_says(ahead: int) -> None:
    options = after(20.0)
    assert options["countdown"] == 20
    told = NOW + timedelta(seconds=ahead + 20)
    assert due(told, options["headers"][WAIT_HEADER], NOW) == NOW + timedelta(seconds=20)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(HOURS, st.none() | st.floats() | st.integers() | st.text() | st.lists(st.integers()))
def test_no_message_waits_longer_than_a_retry_does(told: timedelta, wait: Any) -> None:
    waits = (due(NOW + told, wait, NOW) - NOW).total_seconds()
    assert waits <= MAX_BACKOFF_SECONDS
    assert waits == pytest.approx(told.total_seconds()) or waits >= 0

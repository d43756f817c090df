"""What one run saw of a text that failed by itself is kept for the next, in Redis as in memory."""

from __future__ import annotations

from collections.abc import Callable

import fakeredis
import pytest

from enrich.embedding.lone_failures import LoneFailures, OwnLoneFailures, can_pass
from enrich.errors import (
    EnrichError,
    Halt,
    InputRefused,
    RequestTooLarge,
    ServerUnavailable,
    TransientError,
)
from enrich.ledger import Ledger
from enrich.ledger.lone_failures import KEPT_SECONDS
from enrich.models import LoneFailure

CUT = LoneFailure("run-1", "cut")


def kept() -> LoneFailures:
    return Ledger(fakeredis.FakeRedis(), "enrich:").lone_failures("space")


@pytest.mark.parametrize("build", [OwnLoneFailures, kept])
def test_what_was_seen_is_kept_until_the_text_goes_through(
    build: Callable[[], LoneFailures],
) -> None:
    failures = build()
    assert failures.read("a") is None
    failures.note("a", LoneFailure("run-0", "500"))
    failures.note("a", CUT)
    failures.note("b", CUT)
    assert (failures.read("a"), failures.read("b")) == (CUT, CUT)
    failures.forget(["a", "never seen"])
    failures.forget([])
    assert (failures.read("a"), failures.read("b")) == (None, CUT)


def test_it_is_shared_by_all_workers_of_one_endpoint_and_model() -> None:
    connection = fakeredis.FakeRedis()
    Ledger(connection, "enrich:").lone_failures("space").note("a", CUT)
    assert Ledger(connection, "enrich:").lone_failures("space").read("a") == CUT
    assert Ledger(connection, "enrich:").lone_failures("other space").read("a") is None
    assert Ledger(connection, "other:").lone_failures("space").read("a") is None


def test_it_ends_after_some_days() -> None:
    connection = fakeredis.FakeRedis()
    Ledger(connection, "enrich:").lone_failures("space").note("a", CUT)
    (key,) = connection.keys()
    assert 0 < connection.ttl(key) <= KEPT_SECONDS <= 14 * 24 * 3600


@pytest.mark.parametrize(
    ("kind", "way", "passes"),
    [
        (TransientError, "500", True),
        (TransientError, "501", True),
        (TransientError, "503", True),
        (TransientError, "524", True),
        (TransientError, "408", True),
        (TransientError, "200", True),
        (TransientError, "answer", True),
        (ServerUnavailable, "cut", True),
        (ServerUnavailable, "time-out", True),
        (Halt, "500", True),
        # What is said of the input, and of the request, whatever the status.
        (RequestTooLarge, "500", False),
        (InputRefused, "200", False),
        (InputRefused, "400", False),
        (Halt, "403", False),
        (TransientError, "424", False),
    ],
)
def test_which_ways_of_failing_can_pass(kind: type[EnrichError], way: str, passes: bool) -> None:
    error = kind("a sentence")
    error.failed_as = way
    assert can_pass(error) is passes

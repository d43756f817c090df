"""Errors: all of them cross processes whole, and their text is one sentence."""

from __future__ import annotations

import copy
import pickle

import pytest

from enrich import errors
from enrich.api.last_hours import NoLogs
from enrich.api.outage import StillAway
from enrich.backfill import chunk as backfill
from enrich.enrichment import writer
from enrich.flower import orders
from enrich.history.reader import UnknownRun
from enrich.log_store import project_logs
from enrich.log_store.distinct_texts import ScriptsRefused
from enrich.log_store.nodes import OtherCluster
from enrich.log_store.refusals import (
    NoAnswerInTime,
    NoShardAnswers,
    RequestRefused,
    RightMissing,
    TooDeep,
)
from enrich.reindexing.plan import Refused
from enrich.worker import remote as workers

SAMPLES: list[errors.EnrichError] = [
    errors.EnrichError("a sentence"),
    errors.SettingsError("REDIS_URL: must be a URL"),
    errors.TransientError("a sentence"),
    errors.ServerUnavailable("a sentence"),
    errors.IndexInTrouble("a sentence"),
    errors.NotYet("a sentence", 5.0),
    errors.IndexBeingTried("a sentence", 5.0),
    errors.RateLimited("asks for a pause"),
    errors.RateLimited("asks for a pause", 12.5),
    errors.RateLimited("asks for a pause", 0.0),
    errors.NoPermit("a sentence", 3.0),
    errors.Halt("a sentence"),
    errors.AccessRefused("a sentence"),
    errors.RunClosed("a sentence"),
    errors.NotHere("a sentence"),
    errors.InputRefused("a sentence"),
    errors.RequestTooLarge("a sentence"),
    errors.TextUnusable("message_empty"),
    RequestRefused("refused (404, index_not_found_exception)", "index_not_found_exception", 404),
    TooDeep("a sentence"),
    NoShardAnswers("a sentence"),
    NoAnswerInTime("a sentence"),
    OtherCluster("a sentence"),
    Refused("a sentence"),
    writer.IndexSilent("a sentence"),
    RightMissing("not allowed"),
    RightMissing("not allowed", ("indices:data/write/index",)),
    backfill.ChunkBusy(7.5),
    workers.NoWorker("a sentence"),
    project_logs.ProjectRefused("a sentence"),
    project_logs.ProjectUnknown("a sentence"),
    project_logs.AnswerInPart("a sentence"),
    ScriptsRefused("a sentence"),
    NoLogs("a sentence"),
    StillAway("a sentence", 4.5),
    UnknownRun("a sentence", ("a-run",)),
    orders.Refused("a sentence"),
]


def all_errors() -> set[type]:
    found: set[type] = set()
    waiting: list[type] = [errors.EnrichError]
    while waiting:
        kind = waiting.pop()
        found.add(kind)
        waiting += [sub for sub in kind.__subclasses__() if sub.__module__.startswith("enrich")]
    return found


def test_every_error_has_a_sample() -> None:
    assert {type(sample) for sample in SAMPLES} == all_errors()


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_error_survives_pickling_with_its_attributes(error: errors.EnrichError) -> None:
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is type(error)
        assert str(other) == str(error) != ""
        assert vars(other) == vars(error)
        assert other.args == error.args


@pytest.mark.parametrize(
    ("kind", "parent"),
    [
        # Whoever retries transient trouble must retry these, and whoever halts must halt on those.
        (errors.ServerUnavailable, errors.TransientError),
        (errors.RateLimited, errors.TransientError),
        (backfill.ChunkBusy, errors.TransientError),
        (errors.AccessRefused, errors.Halt),
        (errors.RequestTooLarge, errors.InputRefused),
    ],
)
def test_kinds_are_told_apart_by_who_mends_them(kind: type, parent: type) -> None:
    assert issubclass(kind, parent)


def test_nothing_is_both_transient_and_halting() -> None:
    owners = (errors.TransientError, errors.Halt, errors.InputRefused, errors.SettingsError)
    for kind in all_errors():
        assert sum(issubclass(kind, owner) for owner in owners) <= 1

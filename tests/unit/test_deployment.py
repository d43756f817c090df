"""What workers, beat and deployments note of themselves, and who of them is the odd one.

Every test runs on fakeredis and on a real server.
"""

from __future__ import annotations

import itertools
import tomllib
from pathlib import Path

import pytest
import redis
from prometheus_client import CollectorRegistry

import enrich
from enrich.errors import ServerUnavailable
from enrich.ledger import Ledger
from enrich.ledger import deployment as module
from enrich.ledger.deployment import (
    DEPLOYMENTS_KEY,
    NEVER,
    Configuration,
    WorkerNote,
    disagreements,
    oddness,
    overlap,
)
from enrich.redis_client import connect
from enrich.settings import Settings
from enrich.status.metrics import EnrichCollector
from enrich.status.reader import Reading
from enrich.status.report import read_status

PREFIXES = (f"d{n}:" for n in itertools.count())
A = Configuration({"EMBEDDING_MODEL": "a", "ENRICH_MASK": ""})
B = Configuration({"EMBEDDING_MODEL": "b", "ENRICH_MASK": ""})


@pytest.fixture
def ledger(connection: redis.Redis) -> Ledger:
    connection.delete(DEPLOYMENTS_KEY)
    return Ledger(connection, next(PREFIXES))


def note(token: str, configuration: Configuration = A, refuses: str = "") -> WorkerNote:
    return WorkerNote(
        token=token, name=f"{token}@host", host="host", pid=7, processes=4,
        queues=("enrich.scan", "enrich.embed"), version="1", configuration=configuration,
        refuses=refuses, since=NEVER, seen=NEVER, seconds_ago=0,
    )  # fmt: skip


def test_workers_are_seen_as_they_noted_themselves(ledger: Ledger) -> None:
    assert ledger.deployment.workers() == []
    ledger.deployment.note_worker(note("x", refuses="because"))
    (seen,) = ledger.deployment.workers()
    assert (seen.name, seen.processes, seen.pid, seen.refuses) == ("x@host", 4, 7, "because")
    assert seen.queues == ("enrich.scan", "enrich.embed") and seen.configuration == A
    assert seen.alive and NEVER < seen.since <= seen.seen
    ledger.deployment.forget_worker("x")
    assert ledger.deployment.workers() == []


def test_the_longest_lived_worker_has_the_deployments_configuration(ledger: Ledger) -> None:
    deployment = ledger.deployment
    assert deployment.note_worker(note("z", A)).token == "z"
    # Not the name, nor who spoke last: who was there first.
    assert deployment.note_worker(note("b", B)).token == "z"
    assert deployment.note_worker(note("a", B)).token == "z"
    assert deployment.odd(A) == ""
    assert deployment.odd(B).startswith("EMBEDDING_MODEL is b here and a at z@host")
    # A rolling restart: the old one goes, and the next in age decides.
    deployment.forget_worker("z")
    assert deployment.odd(B) == ""
    assert "at b@host" in deployment.odd(A)


def test_a_worker_that_fell_silent_decides_no_more(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = ledger.deployment
    deployment.note_worker(note("old", A))
    monkeypatch.setattr(module, "ALIVE_SECONDS", -1.0)
    assert deployment.odd(B) == ""
    assert not deployment.workers()[0].alive
    assert not deployment.served(A)
    monkeypatch.setattr(module, "KEPT_SECONDS", -1.0)
    assert deployment.workers() == []


def test_who_serves_a_configuration(ledger: Ledger) -> None:
    deployment = ledger.deployment
    deployment.note_worker(note("a", A))
    deployment.note_worker(note("b", B, refuses="odd"))
    assert deployment.served(A)
    assert not deployment.served(B), "it takes no work"


def test_metrics_tell_workers_that_are_lost_from_those_that_took_leave(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scraped() -> list[int]:
        registry = CollectorRegistry()
        status = read_status(ledger, None)
        registry.register(EnrichCollector(lambda: Reading(status, True, False)))
        found = [
            registry.get_sample_value("enrich_workers", {"state": state})
            for state in ("alive", "refusing", "lost")
        ]
        return [-1 if value is None else int(value) for value in found]

    assert scraped() == [-1, -1, -1], "not 0: workers of an older version note nothing"
    for token in ("a", "b", "c"):
        ledger.deployment.note_worker(note(token))
    ledger.deployment.note_worker(note("d", B, refuses="odd"))
    assert scraped() == [3, 1, 0]
    ledger.deployment.forget_worker("c")
    monkeypatch.setattr(module, "ALIVE_SECONDS", -1.0)
    assert scraped() == [0, 0, 3]


def test_what_only_one_version_knows_tells_nobody_apart(ledger: Ledger) -> None:
    newer = Configuration({**A.values, "ENRICH_SCHEMA": "x"})
    assert oddness(newer, note("x", A)) == oddness(A, note("x", newer)) == ""
    other = Configuration({**newer.values, "ENRICH_MASK": "ip"})
    assert other.differing(A) == ["ENRICH_MASK"]


def test_unreadable_notes_harm_nobody(ledger: Ledger, connection: redis.Redis) -> None:
    deployment = ledger.deployment
    prefix = ledger._keys.prefix
    connection.hset(prefix + "workers", "x", b"\xff garbage")
    connection.hset(prefix + "workers", "y", b"1 9999999999999999 {}")
    connection.hset(prefix + "beats", "x", b"[]")
    connection.hset(DEPLOYMENTS_KEY, b"\xff", b"{")
    assert deployment.workers() == [] and deployment.beats() == []
    assert deployment.neighbours("u", ["*"]) == []
    assert deployment.note_worker(note("a")).configuration == A
    assert [seen.token for seen in deployment.workers()] == ["a"]


def test_disagreements_name_who_has_what(ledger: Ledger) -> None:
    for token, configuration in (("a", A), ("b", B), ("c", A)):
        ledger.deployment.note_worker(note(token, configuration))
    assert disagreements(ledger.deployment.workers()) == [
        "3 workers disagree on EMBEDDING_MODEL: a@host has a, b@host has b, c@host has a"
    ]
    ledger.deployment.forget_worker("b")
    assert disagreements(ledger.deployment.workers()) == []


def test_the_configuration_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    settings = Settings(openai_api_key="sk-qqq", redis_url="redis://:qqq@h/0", _env_file=None)  # type: ignore[arg-type, call-arg]
    told = Configuration.of(settings)
    assert set(told.values) == set(module.TOLD_APART)
    assert "qqq" not in told.to_json()
    assert Configuration.from_json(told.to_json()) == told
    assert Configuration.from_json("[").differing(told) == []


def test_beat_is_late_when_it_is_not_back_in_time(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ledger.deployment.beats() == []
    ledger.deployment.note_beat("x", "host", 7, within=300)
    (beat,) = ledger.deployment.beats()
    assert (beat.host, beat.pid, beat.within, beat.late) == ("host", 7, 300, False)
    monkeypatch.setattr(module, "ALIVE_SECONDS", -301.0)
    assert ledger.deployment.beats()[0].late
    ledger.deployment.forget_beat("x")
    assert ledger.deployment.beats() == []


def test_other_prefixes_on_the_same_indices_are_seen(connection: redis.Redis) -> None:
    connection.delete(DEPLOYMENTS_KEY)
    mine, other = (Ledger(connection, next(PREFIXES)) for _ in range(2))
    mine.deployment.note_deployment("https://search:9200", ["*_*", "-.*"])
    assert mine.deployment.neighbours("https://search:9200", ["*_*", "-.*"]) == []
    (seen,) = other.deployment.neighbours("https://search:9200", ["shop_*"])
    assert f"ENRICH_REDIS_PREFIX={mine._keys.prefix} enriches the same OpenSearch" in seen.sentence
    assert other.deployment.neighbours("https://elsewhere:9200", ["shop_*"]) == []


@pytest.mark.parametrize(
    ("mine", "theirs", "meet"),
    [
        ("*_*,-.*", "*_*,-.*", True),
        ("shop_*", "bank_*", False),
        ("shop_*", "*_2026_11", True),
        ("shop_*", "shop_a_2026_11", True),
        ("*_10", "*_11", False),
        ("*_*,-shop_*", "shop_*", False),
        ("bank_a", "shop_a", False),
        ("*", "a", True),
    ],
)
def test_patterns_that_may_meet(mine: str, theirs: str, meet: bool) -> None:
    one, other = mine.split(","), theirs.split(",")
    assert overlap(one, other) is overlap(other, one) is meet


def test_a_redis_that_is_away_is_a_named_error() -> None:
    nobody = Ledger(connect("redis://127.0.0.1:1/0"), "p:")
    for ask in (
        lambda: nobody.deployment.note_worker(note("a")),
        nobody.deployment.workers,
        nobody.deployment.beats,
        lambda: nobody.deployment.note_beat("x", "host", 7, 300),
        lambda: nobody.deployment.note_deployment("u", ["*"]),
        lambda: nobody.deployment.forget_worker("a"),
    ):
        with pytest.raises(ServerUnavailable, match="Redis cannot be reached"):
            ask()


def test_the_version_is_the_projects() -> None:
    pyproject = Path(enrich.__file__).parents[1] / "pyproject.toml"
    told = tomllib.loads(pyproject.read_text())
    assert told["project"]["dynamic"] == ["version"]
    assert pyproject.parent / told["tool"]["hatch"]["version"]["path"] == Path(enrich.__file__)

"""Who is at work for a deployment, by what each notes in Redis, and whether all agree.

A deployment is what shares ENRICH_REDIS_PREFIX. Its workers must have one model, one width, one
endpoint, one mask and one way of sending texts: the configuration of the worker that has lived
longest is the deployment's, and a later one that differs takes no work. A worker of an older
version notes nothing; it is neither counted nor told apart.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

import msgspec
import redis

from enrich.redis_client import translated
from enrich.settings import Settings, without_exclusions

#: How often a worker notes that it lives.
BEAT_SECONDS = 15.0
#: A note speaks for its worker for so long: the longest task of a worker without child processes
#: fits, as it notes nothing meanwhile.
ALIVE_SECONDS = 100.0
#: A worker that died without a word is remembered for so long.
KEPT_SECONDS = 900.0

#: Settings in which all workers of a deployment must agree. A later version may add to them: two
#: configurations are held against each other only in what both of them name.
TOLD_APART = (
    "EMBEDDING_MODEL",
    "EMBEDDING_DIMENSIONS",
    "OPENAI_BASE_URL",
    "ENRICH_MASK",
    "ENRICH_DOCUMENT_PREFIX",
    "OPENAI_EXTRA_BODY",
    "ENRICH_DOCUMENT_EXTRA_BODY",
    # What decides which text a log has.
    "ENRICH_SCHEMA",
    "ENRICH_TEXT_FIELDS",
    "ENRICH_NORMALIZE",
)

#: Where a time is not known yet.
NEVER = datetime.fromtimestamp(0, UTC)

#: Of all deployments on one Redis, whatever their prefix, so without one. It begins as the
#: default prefix does, so that the ACL of docs/security.md covers it.
DEPLOYMENTS_KEY = "enrich:deployments"


@dataclass(frozen=True)
class Configuration:
    """What tells workers apart: settings by their names, as they are shown; no secret."""

    values: Mapping[str, str]

    @classmethod
    def of(cls, settings: Settings) -> Configuration:
        shown = settings.redacted()
        return cls({name: shown[name] for name in TOLD_APART})

    def to_json(self) -> str:
        return json.dumps(dict(self.values), sort_keys=True)

    @classmethod
    def from_json(cls, stored: str) -> Configuration:
        """What cannot be read names nothing, so that it differs from nothing."""
        try:
            values = msgspec.json.decode(stored, type=dict[str, str])
        except msgspec.DecodeError:
            values = {}
        return cls(values)

    def differing(self, other: Configuration) -> list[str]:
        """Names of settings that both have, with different values."""
        return [
            name
            for name, value in self.values.items()
            if name in other.values and other.values[name] != value
        ]


class _Worker(msgspec.Struct, kw_only=True):
    """A worker's note as it is stored; fields that a later version adds are ignored."""

    name: str
    host: str
    pid: int
    processes: int
    queues: list[str]
    version: str
    configuration: dict[str, str]
    refuses: str = ""


@dataclass(frozen=True, kw_only=True)
class WorkerNote:
    """What a worker noted of itself at its last heartbeat."""

    #: Of the process; node names may be shared by accident.
    token: str
    #: Its node name, such as `celery@host`.
    name: str
    host: str
    pid: int
    processes: int
    #: Those that it consumes now.
    queues: tuple[str, ...]
    version: str
    configuration: Configuration
    #: Why it takes no work, in a sentence; "" where it does.
    refuses: str
    #: First and last sign of life, by Redis TIME.
    since: datetime
    seen: datetime
    seconds_ago: float

    @property
    def alive(self) -> bool:
        return self.seconds_ago <= ALIVE_SECONDS


@dataclass(frozen=True, kw_only=True)
class BeatNote:
    """What beat noted at its last heartbeat."""

    token: str
    host: str
    pid: int
    #: When it last sent a tick or woke, by Redis TIME.
    seen: datetime
    seconds_ago: float
    #: Within how many seconds it meant to be back.
    within: float

    @property
    def late(self) -> bool:
        return self.seconds_ago > self.within + ALIVE_SECONDS


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """Another deployment on this Redis that enriches the same OpenSearch."""

    prefix: str
    patterns: tuple[str, ...]
    seconds_ago: float

    @property
    def sentence(self) -> str:
        return (
            f"the deployment with ENRICH_REDIS_PREFIX={self.prefix} enriches the same OpenSearch "
            f"({','.join(self.patterns)}): each would pay for every text; leave one of them, or "
            "give each its own ENRICH_INDEX_PATTERN"
        )


class Deployment:
    """Reads and writes the notes. Everything raises EnrichError as the ledger does."""

    def __init__(self, connection: redis.Redis, prefix: str, move: Callable[..., Any]) -> None:
        """Args: move: runs a script of the ledger by its name."""
        self._redis = connection
        self._prefix = prefix
        self._move = move

    # -- workers

    def note_worker(self, note: WorkerNote) -> WorkerNote:
        """Note that a worker lives; the note of the living one that has been there longest, which
        may be its own. Times of the argument are not looked at."""
        stored = _Worker(
            name=note.name,
            host=note.host,
            pid=note.pid,
            processes=note.processes,
            queues=list(note.queues),
            version=note.version,
            configuration=dict(note.configuration.values),
            refuses=note.refuses,
        )
        token, first, now = self._move(
            "note_worker", note.token, msgspec.json.encode(stored),
            int(ALIVE_SECONDS * 1e6), int(KEPT_SECONDS * 1000),
        )  # fmt: skip
        return _worker(token, first, int(now)) or note

    def forget_worker(self, token: str) -> None:
        """A worker has ended as it should."""
        with translated():
            self._redis.hdel(self._prefix + "workers", token)

    def workers(self) -> list[WorkerNote]:
        """All that noted themselves lately, the longest-lived first; see `WorkerNote.alive`."""
        rows, now = self._rows("workers")
        notes = [_worker(token, stored, now) for token, stored in rows]
        kept = [note for note in notes if note and note.seconds_ago <= KEPT_SECONDS]
        return sorted(kept, key=lambda note: (note.since, note.token))

    def noted(self) -> bool:
        """Whether any worker of this deployment has noted itself lately, living or not: one of an
        older version notes nothing."""
        with translated():
            return bool(
                self._redis.exists(self._prefix + "workers")
                or self._redis.hexists(DEPLOYMENTS_KEY, self._prefix)
            )

    def odd(self, configuration: Configuration) -> str:
        """Why a process with this configuration must leave all work to others; "" if not."""
        for note in self.workers():
            if note.alive:
                return oddness(configuration, note)
        return ""

    def served(self, configuration: Configuration) -> bool:
        """Whether a living worker with this configuration takes work."""
        return any(
            note.alive and not note.refuses and not note.configuration.differing(configuration)
            for note in self.workers()
        )

    # -- beat

    def note_beat(self, token: str, host: str, pid: int, within: float) -> None:
        """Note that beat lives and means to be back within so many seconds."""
        with translated():
            seconds, micros = self._redis.time()
            note = {"host": host, "pid": pid, "within": within, "seen": seconds + micros / 1e6}
            pipe = self._redis.pipeline(transaction=False)
            pipe.hset(self._prefix + "beats", token, json.dumps(note))
            pipe.expire(self._prefix + "beats", int(KEPT_SECONDS + 2 * within))
            pipe.execute()

    def forget_beat(self, token: str) -> None:
        """Beat has ended as it should."""
        with translated():
            self._redis.hdel(self._prefix + "beats", token)

    def beats(self) -> list[BeatNote]:
        """All that noted themselves lately, the last seen first; see `BeatNote.late`."""
        rows, now = self._rows("beats")
        notes = []
        for token, stored in rows:
            try:
                note = msgspec.json.decode(stored, type=_Beat)
                seen = datetime.fromtimestamp(note.seen, UTC)
            except (ValueError, OverflowError, OSError):
                continue
            ago = max(0.0, now / 1e6 - note.seen)
            if ago <= KEPT_SECONDS + 2 * note.within:
                notes.append(
                    BeatNote(token=token, host=note.host, pid=note.pid, seen=seen,
                             seconds_ago=ago, within=note.within)
                )  # fmt: skip
        return sorted(notes, key=lambda note: note.seconds_ago)

    # -- other deployments

    def note_deployment(self, place: str, patterns: Sequence[str]) -> None:
        """Note for other prefixes which OpenSearch and which indices this one enriches.

        Args:
            place: tells one OpenSearch from another, see `place_of`.
        """
        with translated():
            seconds, _ = self._redis.time()
            note = {"place": place, "patterns": list(patterns), "seen": seconds}
            pipe = self._redis.pipeline(transaction=False)
            pipe.hset(DEPLOYMENTS_KEY, self._prefix, json.dumps(note))
            pipe.expire(DEPLOYMENTS_KEY, int(2 * KEPT_SECONDS))
            pipe.execute()

    def neighbours(self, place: str, patterns: Sequence[str]) -> list[Neighbour]:
        """Other prefixes of this Redis whose workers enrich some of the same indices now."""
        rows, now = self._rows("", DEPLOYMENTS_KEY)
        found = []
        for prefix, stored in rows:
            try:
                note = msgspec.json.decode(stored, type=_Place)
            except msgspec.DecodeError:
                continue
            ago = max(0.0, now / 1e6 - note.seen)
            same = prefix != self._prefix and note.place == place and ago <= KEPT_SECONDS
            if same and overlap(patterns, note.patterns):
                found.append(
                    Neighbour(prefix=prefix, patterns=tuple(note.patterns), seconds_ago=ago)
                )
        return sorted(found, key=lambda neighbour: neighbour.prefix)

    def _rows(self, name: str, key: str = "") -> tuple[list[tuple[str, bytes]], int]:
        """The fields of a hash, and Redis TIME in microseconds."""
        with translated():
            pipe = self._redis.pipeline(transaction=False)
            pipe.hgetall(key or self._prefix + name)
            pipe.time()
            raw, (seconds, micros) = pipe.execute()
        rows = [(field.decode(errors="replace"), stored) for field, stored in raw.items()]
        return sorted(rows), seconds * 1_000_000 + micros


class _Beat(msgspec.Struct):
    host: str
    pid: int
    within: float
    seen: float


class _Place(msgspec.Struct):
    place: str
    patterns: list[str]
    seen: float


def oddness(mine: Configuration, first: WorkerNote) -> str:
    """Why a process must leave the work to the worker that was there first; "" if both agree."""
    names = mine.differing(first.configuration)
    if not names:
        return ""
    here = ", ".join(f"{name} is {_shown(mine, name)} here" for name in names)
    there = ", ".join(_shown(first.configuration, name) for name in names)
    return (
        f"{here} and {there} at {first.name}, which was there first: give all workers of one "
        "ENRICH_REDIS_PREFIX the same settings; to change them, stop the old workers"
    )


def disagreements(workers: Sequence[WorkerNote]) -> list[str]:
    """A sentence for each setting in which living workers differ, naming who has what."""
    alive = [note for note in workers if note.alive]
    told = []
    for name in TOLD_APART:
        having = [note for note in alive if name in note.configuration.values]
        if len({note.configuration.values[name] for note in having}) > 1:
            who = ", ".join(
                f"{note.name} has {_shown(note.configuration, name)}" for note in having
            )
            told.append(f"{len(having)} workers disagree on {name}: {who}")
    return told


def place_of(settings: Settings, host: str) -> str:
    """Tells one OpenSearch from another; one on loopback is its host's own."""
    url = settings.opensearch_address
    local = any(name in url for name in ("localhost", "127.0.0.1", "[::1]"))
    return f"{url} of {host}" if local else url


def overlap(mine: Sequence[str], theirs: Sequence[str]) -> bool:
    """Whether two index expressions may name the same index: as far as their patterns' beginnings
    and ends tell, and what one takes in is not what the other leaves out."""
    left_out = [pattern[1:] for pattern in (*mine, *theirs) if pattern.startswith("-")]
    return any(
        _may_meet(one, other)
        for one in without_exclusions(mine)
        for other in without_exclusions(theirs)
        if not any(fnmatchcase(one, out) or fnmatchcase(other, out) for out in left_out)
    )


def _may_meet(one: str, other: str) -> bool:
    heads = one.partition("*")[0], other.partition("*")[0]
    tails = one.rpartition("*")[2], other.rpartition("*")[2]
    if "*" not in one or "*" not in other:
        return fnmatchcase(one, other) or fnmatchcase(other, one)
    return (heads[0].startswith(heads[1]) or heads[1].startswith(heads[0])) and (
        tails[0].endswith(tails[1]) or tails[1].endswith(tails[0])
    )


def _shown(configuration: Configuration, name: str) -> str:
    return configuration.values[name] or "(nothing)"


def _worker(token: bytes | str, stored: bytes, now: int) -> WorkerNote | None:
    """A stored note, or None if it cannot be read."""
    try:
        since, seen, raw = stored.split(b" ", 2)
        note = msgspec.json.decode(raw, type=_Worker)
        last = int(seen)
        times = [datetime.fromtimestamp(int(time) / 1e6, UTC) for time in (since, seen)]
    except (ValueError, OverflowError, OSError, msgspec.DecodeError):
        return None
    return WorkerNote(
        token=token.decode(errors="replace") if isinstance(token, bytes) else token,
        name=note.name,
        host=note.host,
        pid=note.pid,
        processes=note.processes,
        queues=tuple(note.queues),
        version=note.version,
        configuration=Configuration(note.configuration),
        refuses=note.refuses,
        since=times[0],
        seen=times[1],
        seconds_ago=max(0, now - last) / 1e6,
    )

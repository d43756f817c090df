"""A chunk's life: leased to one delivery at a time, settled once, or deferred past its deadline."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

from enrich.ledger.answers import ChunkState, Lease, RunState
from enrich.ledger.counters import as_reason
from enrich.ledger.deployment import Configuration
from enrich.ledger.keyspace import Keyspace, run_of, text
from enrich.redis_client import translated

#: Why a chunk is deferred that nobody finished.
PAST_DEADLINE = (
    "no worker finished it within ENRICH_CHUNK_DEADLINE_SECONDS: are workers lost, or the servers "
    "too slow?"
)

#: Longer than a chunk is tried again; nobody has to forget those that are settled.
ASIDE_SECONDS = 3600


class Chunks:
    """Leases and outcomes. An owner is "host/pid"; times are seconds."""

    def __init__(self, keys: Keyspace) -> None:
        self._keys = keys

    def begin(
        self,
        chunk: str,
        owner: str,
        hard_limit: float,
        dead: str = "",
        configuration: Configuration | None = None,
    ) -> Lease:
        """Lease a chunk to the delivery of `owner`.

        Args:
            hard_limit: after so long a lease has ended: its worker was lost.
            dead: an owner known to be dead, whose lease may be taken over at once.
            configuration: the owner's, where it would write vectors: `other` is the verdict if it
                is not the run's.
        """
        verdict, whose, value, alone, tried = self._keys.move(
            "begin", run_of(chunk), chunk, owner, hard_limit * 1000, dead, uuid.uuid4().hex,
            configuration.to_json() if configuration else "",
        )  # fmt: skip
        return Lease(
            verdict=text(verdict),  # type: ignore[arg-type]
            owner=text(whose),
            workers_lost=int(value) if text(verdict) == "go" else 0,
            seconds_left=int(value) / 1000 if text(verdict) == "busy" else 0.0,
            alone=text(alone),
            tried=bool(tried),
        )

    def release(self, chunk: str, owner: str) -> None:
        """Give the lease back, for a retry."""
        self._keys.move("note", run_of(chunk), chunk, owner, "released", "")

    def set_aside(self, chunk: str) -> None:
        """Note that an open chunk waits for an index in trouble."""
        key = self._keys.run_key(run_of(chunk), "aside")
        with translated():
            pipe = self._keys.redis.pipeline(transaction=True)
            pipe.sadd(key, chunk)
            pipe.expire(key, ASIDE_SECONDS)
            pipe.execute()

    def aside(self, run: str) -> int:
        """How many open chunks wait for an index in trouble."""
        with translated():
            chunks = sorted(map(text, self._keys.redis.smembers(self._keys.run_key(run, "aside"))))
            if not chunks:
                return 0
            return sum(
                entry is not None
                for entry in self._keys.redis.hmget(self._keys.run_key(run, "open"), chunks)
            )

    def note_alone(self, chunk: str, owner: str, fingerprint: str) -> None:
        """Name the text that is handled alone from now on, so that it is known which one took the
        worker down; "" where none is."""
        self._keys.move("note", run_of(chunk), chunk, owner, "suspect", fingerprint)

    def settle(
        self,
        chunk: str,
        outcomes: Mapping[str, int],
        errors: int = 0,
        reasons: Mapping[str, int] | None = None,
    ) -> tuple[Literal["settled", "corrected", "closed"], RunState]:
        """Close a chunk. The outcomes must sum to its documents; `reasons` say in sentences why how
        many of them were deferred."""
        told: Counter[str] = Counter()
        for sentence, documents in (reasons or {}).items():
            told[as_reason(sentence)] += documents
        answer = self._keys.move(
            "settle", run_of(chunk), chunk, json.dumps(outcomes), errors, json.dumps(told)
        )
        return text(answer[0]), _run_state(answer[1:])  # type: ignore[return-value]

    def expire(self, run: str, deadline: float) -> tuple[int, RunState]:
        """Defer chunks past their deadline; how many, and the state of the run."""
        answer = self._keys.move("expire", run, deadline * 1000, PAST_DEADLINE)
        return int(answer[0]), _run_state(answer[1:])

    def unaccounted(self, chunk: str, hard_limit: float) -> bool:
        """Whether a chunk was closed as deferred and none of its owners can correct that now."""
        with translated():
            raw = self._keys.redis.hget(self._keys.run_key(run_of(chunk), "late"), chunk)
        if raw is None:
            return False
        entry = json.loads(raw)
        return not entry["by"] or entry["claimed"] / 1000 + hard_limit <= self._keys.now()

    def under_way(self, run: str) -> list[ChunkState]:
        """The chunks of a run that are not settled: open ones, and those that were deferred while
        their owner may still be at work. Those at work first, the longest first."""
        key = self._keys.run_key
        with translated():
            pipe = self._keys.redis.pipeline(transaction=True)
            pipe.hgetall(key(run, "open"))
            pipe.hgetall(key(run, "late"))
            pipe.time()
            opened, late, (seconds, micros) = pipe.execute()
        now = seconds + micros / 1e6
        found = [_chunk_state(text(id), raw, now, late=False) for id, raw in opened.items()]
        found += [_chunk_state(text(id), raw, now, late=True) for id, raw in late.items()]
        return sorted(found, key=lambda c: (c.state != "leased", -c.seconds, c.id))

    def leased_elsewhere(self, configuration: Configuration, hard_limit: float) -> bool:
        """Whether a delivery of a run with another configuration may still be at work."""
        key = self._keys.run_key
        with translated():
            runs = [text(run) for run in self._keys.redis.lrange(self._keys.key("runs"), 0, -1)]
            pipe = self._keys.redis.pipeline(transaction=False)
            for run in runs:
                pipe.hget(key(run), "configuration")
                pipe.hvals(key(run, "open"))
                pipe.hvals(key(run, "late"))
            rows = pipe.execute()
        since = (self._keys.now() - hard_limit) * 1000
        for configured, *chunks in zip(rows[::3], rows[1::3], rows[2::3], strict=True):
            if configured and not configuration.differing(
                Configuration.from_json(text(configured))
            ):
                continue
            for raw in (*chunks[0], *chunks[1]):
                entry = json.loads(raw)
                if entry["by"] and entry["claimed"] > since:
                    return True
        return False


def _chunk_state(id: str, raw: bytes, now: float, *, late: bool) -> ChunkState:
    entry = json.loads(raw)
    leased = bool(entry["by"])
    since = float(entry["claimed"] if leased else entry.get("registered", 0)) / 1000
    return ChunkState(
        id=id,
        logs=int(entry["n"]),
        state="deferred" if late else "leased" if leased else "waiting",
        owner=str(entry["by"]),
        seconds=max(0.0, now - since) if since else 0.0,
        workers_lost=int(entry.get("losses", 0)),
        why=str(entry.get("why", "")),
    )


def _run_state(row: list[Any]) -> RunState:
    return RunState(int(row[0]), int(row[1]), int(row[2]) == 1, text(row[3]))

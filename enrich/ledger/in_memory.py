"""The ledger without Redis, for tests and for trying things without servers.

`InMemoryRedis` keeps values under keys as Redis does, as far as the ledger asks for it, and
`InMemoryKeyspace` makes the moves of the Lua scripts in Python. The parts of the ledger are the
same. Whatever a script does is done here in the same order: whoever changes one changes both, and
tests/unit/test_ledger.py and test_ledger_realtime.py
hold them to the same rules. For one thread; time is handed in.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, cast

import redis

from enrich.ledger import Ledger
from enrich.ledger.durations import CHUNK_BOUNDS, RUN_BOUNDS, bucket_of
from enrich.ledger.in_memory_realtime import RealtimeMoves
from enrich.ledger.keyspace import Keyspace
from enrich.models import VECTOR_OUTCOMES, total_of


def in_memory_ledger(prefix: str = "enrich:", clock: Callable[[], float] = time.time) -> Ledger:
    """A ledger that knows nothing of any other."""
    return ledger_on(InMemoryRedis(clock), prefix)


def ledger_on(memory: InMemoryRedis, prefix: str) -> Ledger:
    """A ledger that shares its memory with others."""
    return Ledger(cast(redis.Redis, memory), prefix, InMemoryKeyspace(memory, prefix))


class InMemoryRedis:
    """The commands of `redis.Redis` that the ledger uses; answers are bytes, as there."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Args: clock: seconds."""
        self.clock = clock
        self._values: dict[str, Any] = {}
        self._ends: dict[str, float] = {}

    def close(self) -> None:
        """There is nothing to be closed."""

    def ping(self) -> bool:
        return True

    def pipeline(self, transaction: bool = True) -> _Pipeline:
        return _Pipeline(self)

    def time(self) -> tuple[int, int]:
        micros = round(self.clock() * 1e6)
        return micros // 1_000_000, micros % 1_000_000

    def get(self, key: str) -> bytes | None:
        return cast(bytes | None, self._at(key, None))

    def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        return [self.get(key) for key in keys]

    def set(
        self, key: str, value: Any, nx: bool = False, ex: float | None = None, px: float = 0
    ) -> bool:
        if nx and self.exists(key):
            return False
        self._values[key] = _bytes(value)
        self._ends.pop(key, None)
        if ex or px:
            self._ends[key] = self.clock() + (ex or px / 1000)
        return True

    def incrby(self, key: str, amount: int) -> int:
        value = int(self.get(key) or 0) + int(amount)
        self._values[key] = _bytes(value)
        return value

    def exists(self, key: str) -> int:
        return int(self._at(key, None) is not None)

    def expire(self, key: str, seconds: float) -> None:
        if self.exists(key):
            self._ends[key] = self.clock() + seconds

    def pttl(self, key: str | bytes) -> int:
        ends = self._ends.get(_text(key))
        return -1 if ends is None else round((ends - self.clock()) * 1000)

    def delete(self, *keys: str | bytes) -> int:
        gone = [self._values.pop(_text(key), None) is not None for key in keys]
        for key in keys:
            self._ends.pop(_text(key), None)
        return sum(gone)

    def flushall(self) -> None:
        self.delete(*list(self._values))

    def scan_iter(self, match: str, count: int = 0) -> Iterator[bytes]:
        return iter(self.keys(match))

    def keys(self, match: str) -> list[bytes]:
        return [
            key.encode()
            for key in list(self._values)
            if fnmatchcase(key, match) and self.exists(key)
        ]

    def hset(
        self,
        key: str,
        name: Any = None,
        value: Any = None,
        mapping: Mapping[Any, Any] | None = None,
    ) -> None:
        added = dict(mapping or {}) | ({} if name is None else {name: value})
        self._make(key, {}).update({_bytes(n): _bytes(v) for n, v in added.items()})

    def hsetnx(self, key: str, name: str, value: Any) -> None:
        self._make(key, {}).setdefault(_bytes(name), _bytes(value))

    def hincrby(self, key: str, name: str, amount: int = 1) -> int:
        value = int(self.hget(key, name) or 0) + int(amount)
        self.hset(key, name, value)
        return value

    def hget(self, key: str, name: Any) -> bytes | None:
        return cast(bytes | None, self._at(key, {}).get(_bytes(name)))

    def hmget(self, key: str, *names: Any) -> list[bytes | None]:
        asked = names[0] if names and isinstance(names[0], list) else names
        return [self.hget(key, name) for name in asked]

    def hgetall(self, key: str) -> dict[bytes, bytes]:
        return dict(self._at(key, {}))

    def hkeys(self, key: str) -> list[bytes]:
        return list(self._at(key, {}))

    def hvals(self, key: str) -> list[bytes]:
        return list(self._at(key, {}).values())

    def hlen(self, key: str) -> int:
        return len(self._at(key, {}))

    def hexists(self, key: str, name: str) -> bool:
        return _bytes(name) in self._at(key, {})

    def hdel(self, key: str, *names: Any) -> None:
        kept = self._at(key, {})
        for name in names:
            kept.pop(_bytes(name), None)
        if not kept:
            self.delete(key)

    def lpush(self, key: str, value: str) -> None:
        self._make(key, []).insert(0, _bytes(value))

    def rpop(self, key: str) -> bytes:
        return cast(bytes, self._make(key, []).pop())

    def lrange(self, key: str, first: int, last: int) -> list[bytes]:
        return list(self._at(key, []))[first : None if last == -1 else last + 1]

    def llen(self, key: str) -> int:
        return len(self._at(key, []))

    def sadd(self, key: str, value: str) -> None:
        self._make(key, set()).add(_bytes(value))

    def smembers(self, key: str) -> list[bytes]:
        return list(self._at(key, ()))

    def zadd(self, key: str, mapping: Mapping[str, float]) -> None:
        self._make(key, {}).update(mapping)

    def zrange(self, key: str, first: int, last: int) -> list[bytes]:
        scores = self._at(key, {})
        ordered = sorted(scores, key=lambda name: (scores[name], name))
        stop = len(ordered) + last + 1 if last < 0 else last + 1
        return [_bytes(name) for name in ordered[first : max(0, stop)]]

    def zrem(self, key: str, name: str) -> None:
        self._make(key, {}).pop(name, None)

    def zcard(self, key: str) -> int:
        return len(self._at(key, {}))

    def zremrangebyscore(self, key: str, least: Any, most: float) -> None:
        scores = self._make(key, {})
        for name in [name for name, score in scores.items() if score <= most]:
            del scores[name]

    def zremrangebyrank(self, key: str, first: int, last: int) -> None:
        scores = self._make(key, {})
        for name in sorted(scores, key=lambda name: (scores[name], name))[: last + 1 or None]:
            del scores[name]

    def _at(self, key: str, default: Any) -> Any:
        if self._ends.get(key, self.clock() + 1) <= self.clock():
            self.delete(key)
        return self._values.get(key, default)

    def _make(self, key: str, empty: Any) -> Any:
        self._at(key, None)
        return self._values.setdefault(key, empty)


class _Pipeline:
    """Carries each command out at once; `execute` gives the answers."""

    def __init__(self, memory: InMemoryRedis) -> None:
        self._memory = memory
        self._answers: list[Any] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        def command(*arguments: Any, **options: Any) -> None:
            self._answers.append(getattr(self._memory, name)(*arguments, **options))

        return command

    def execute(self) -> list[Any]:
        answers, self._answers = self._answers, []
        return answers


class InMemoryKeyspace(RealtimeMoves, Keyspace):
    """The moves in Python; arguments and answers are those of the scripts."""

    def __init__(self, memory: InMemoryRedis, prefix: str) -> None:
        self.redis = cast(redis.Redis, memory)
        self.prefix = prefix
        self._memory = memory

    def move(self, name: str, *arguments: Any) -> Any:
        return getattr(self, f"_{name}")(*arguments)

    # -- a run

    def _open(self, trigger: str, run: str, half: float, scan: float, kept: int) -> list[Any]:
        memory, now = self._memory, self._now()
        active = _text(memory.get(self.key("active_run")) or b"")
        if active == run:
            return ["opened", run, _number(memory.hget(self.run_key(run), "number"))]
        refusal = ""
        if active:
            refusal = "active"
        elif memory.exists(self.key("paused")):
            refusal = "paused"
        elif trigger == "beat" and now - _number(memory.get(self.key("last_start"))) < half:
            refusal = "too_soon"
        if trigger == "beat":
            memory.set(self.key("last_tick"), now)
        if refusal:
            if trigger == "beat":
                memory.hincrby(self.key("totals"), "ticks_skipped")
            return [refusal, active, 0]
        number = memory.hincrby(self.key("totals"), "runs")
        memory.set(self.key("active_run"), run)
        memory.set(self.key("last_start"), now)
        fields = {
            "number": number, "trigger": trigger, "state": "running", "started_at": now,
            "scan_until": now + round(scan), "page": 1, "scan_done": 0, "found": 0,
        }  # fmt: skip
        memory.hset(self.run_key(run), mapping=fields)
        memory.lpush(self.key("runs"), run)
        while len(memory.lrange(self.key("runs"), 0, -1)) > kept:
            old = _text(memory.rpop(self.key("runs")))
            memory.delete(*(self.run_key(old, part) for part in ("", "late", "skipped")))
            memory.hdel(self.key("history:owed"), old)
        return ["opened", run, number]

    def _halt(self, run: str, state: str, reason: str, as_reason: str) -> int:
        if self._field(run, "state") != "running":
            return 0
        for chunk, entry in self._entries(run, "open").items():
            self._defer(run, chunk, entry, as_reason)
        fields = {"state": state, "halt_reason": reason, "scan_done": 1, "more": 1}
        self._memory.hset(self.run_key(run), mapping={**fields, "stopped_by": "halt"})
        if state == "halted":
            self._add(run, "errors", 1)
        return 1

    def _finish(self, run: str) -> str:
        memory, key = self._memory, self.run_key(run)
        if _text(memory.get(self.key("active_run")) or b"") != run:
            return "over"
        state = self._field(run, "state")
        done = self._field(run, "scan_done") == "1" and not memory.hlen(self.run_key(run, "open"))
        if state and not done:
            return "unfinished"
        memory.delete(self.key("active_run"))
        if not state:
            return "over"
        ended = _number(memory.hget(key, "settled_at")) or self._now()
        state = "finished" if state == "running" else state
        memory.hset(key, mapping={"finished_at": ended, "state": state})
        memory.hdel(key, "scan", "survey")
        memory.delete(self.run_key(run, "outbox"), self.run_key(run, "indices"))
        lasted = ended - _number(memory.hget(key, "started_at"))
        memory.hincrby(self.key("totals"), "milliseconds", lasted)
        memory.hincrby(self.key("totals"), f"ended|{state}")
        self._took("run", RUN_BOUNDS, lasted)
        self._owe(run)
        return "finished"

    # -- its pages

    def _register(
        self, run: str, page: int, chunks: str, scan: str, scan_done: int, messages: bytes,
        skipped: str, more: int, stopped_by: str, indices: str,
    ) -> str:  # fmt: skip
        memory, key = self._memory, self.run_key(run)
        if self._field(run, "state") != "running" or self._field(run, "scan_done") == "1":
            return "closed"
        if _number(memory.hget(key, "page")) != page:
            return "stale"
        documents: dict[str, int] = json.loads(chunks)
        for chunk, n in documents.items():
            entry = {"n": n, "losses": 0, "by": "", "claimed": 0, "suspect": ""}
            self._keep(run, "open", chunk, {**entry, "registered": self._now()})
        self._add(run, "found", sum(documents.values()))
        self._add(run, "chunks", len(documents))
        memory.hset(key, mapping={"page": page + 1, "scan": scan, "scan_done": scan_done})
        memory.hdel(key, "survey")
        if more:
            memory.hset(key, mapping={"more": 1, "stopped_by": stopped_by})
        if left_out := json.loads(skipped):
            memory.hset(self.run_key(run, "skipped"), mapping=left_out)
        for index in json.loads(indices):
            memory.sadd(self.run_key(run, "indices"), index)
        memory.set(self.run_key(run, "outbox"), messages)
        return "registered"

    def _sent(self, run: str, page: int) -> None:
        if _number(self._memory.hget(self.run_key(run), "page")) == page + 1:
            self._memory.delete(self.run_key(run, "outbox"))

    # -- its chunks

    def _begin(
        self, run: str, chunk: str, owner: str, limit: float, dead: str, call: str, mine: str
    ) -> list[Any]:
        entry = self._entries(run, "open").get(chunk)
        if entry is None or self._field(run, "state") != "running":
            return ["closed", "", 0, "", 0]
        if mine:
            self._memory.hsetnx(self.run_key(run), "configuration", mine)
            wanted, own = json.loads(self._field(run, "configuration")), json.loads(mine)
            if any(own.get(name) not in (None, value) for name, value in wanted.items()):
                return ["other", "", 0, "", 0]
        tried, now = int(entry.get("tried", False)), self._now()
        if entry["by"]:
            if entry.get("call") == call:
                return ["go", owner, entry["losses"], entry["suspect"], tried]
            left = entry["claimed"] + limit - now
            if left > 0 and entry["by"] != dead:
                return ["busy", entry["by"], int(left), "", tried]
            host = entry["by"].rpartition("/")[0]
            if self._memory.exists(self.key(f"shutdown:{host}")):
                entry["suspect"] = ""
            else:
                entry["losses"] += 1
        entry |= {"by": owner, "claimed": now, "tried": True, "call": call}
        self._keep(run, "open", chunk, entry)
        self._memory.hset(self.run_key(run), "last_begin", now)
        return ["go", owner, entry["losses"], entry["suspect"], tried]

    def _note(self, run: str, chunk: str, owner: str, what: str, value: str) -> int:
        released = what == "released"
        for part in ("open", "late") if released else ("open",):
            entry = self._entries(run, part).get(chunk)
            if entry is None:
                continue
            if entry["by"] != owner:
                return 0
            given_back = {"by": "", "claimed": 0, "suspect": "", "registered": self._now()}
            self._keep(run, part, chunk, entry | (given_back if released else {"suspect": value}))
            return 1
        return 0

    def _settle(self, run: str, chunk: str, told: str, errors: int, reasons: str) -> list[Any]:
        outcomes: dict[str, int] = json.loads(told)
        entry = self._entries(run, "open").get(chunk)
        late = entry is None
        if late:
            entry = self._entries(run, "late").get(chunk)
        if entry is None:
            return ["closed", *self._state(run)]
        if sum(outcomes.values()) != entry["n"]:
            sums = f"sum to {sum(outcomes.values())}, registered were {entry['n']}"
            raise redis.ResponseError(f"outcomes of {chunk} {sums}")
        why = entry.get("why", "")
        self._memory.hdel(self.run_key(run, "late" if late else "open"), chunk)
        if late:
            self._add(run, "deferred", -entry["n"])
            self._because(run, "deferred", why, -entry["n"])
        for name, n in outcomes.items():
            if n > 0:
                self._add(run, name, n)
        vectors = sum(outcomes.get(outcome.value, 0) for outcome in VECTOR_OUTCOMES)
        explained: dict[str, int] = json.loads(reasons)
        for sentence, n in explained.items():
            self._because(run, "deferred", sentence, n)
        unexplained = outcomes.get("deferred", 0) - sum(explained.values())
        if unexplained > 0:
            self._because(run, "deferred", why, unexplained)
        self._add(run, "vectors_written", vectors)
        self._add(run, "errors", errors + outcomes.get("failed", 0))
        if not late and entry["claimed"]:
            self._took("chunk", CHUNK_BOUNDS, self._now() - entry["claimed"])
        if late and _text(self._memory.get(self.key("active_run")) or b"") != run:
            self._owe(run)
        state = self._state(run)
        if not late and state[0] == 0 and state[2] == 1:
            self._memory.hset(self.run_key(run), "settled_at", self._now())
        return ["corrected" if late else "settled", *state]

    def _expire(self, run: str, deadline: float, why: str) -> list[Any]:
        last_begin = _number(self._memory.hget(self.run_key(run), "last_begin"))
        expired = 0
        for chunk, entry in self._entries(run, "open").items():
            since = entry["claimed"] if entry["by"] else max(entry["registered"], last_begin)
            if self._now() - since > deadline:
                self._defer(run, chunk, entry, why)
                expired += 1
        if expired:
            self._add(run, "errors", expired)
        return [expired, *self._state(run)]

    # -- counts

    def _count(self, run: str, day: str, micro_usd: int, call: str, *pairs: Any) -> int:
        memory = self._memory
        if not memory.set(self.key(f"counted:{call}"), 1, nx=True, px=120_000):
            return 0
        amounts = self._pay(day, micro_usd, pairs)
        if not memory.exists(self.run_key(run)):
            return 0
        if micro_usd > 0:
            memory.hincrby(self.run_key(run), "cost_micro_usd", micro_usd)
            if memory.exists(self.key("confirmed")):
                memory.incrby(self.key("confirmed"), -micro_usd)
        for name, amount in amounts:
            kind, bar, sentence = name.partition("|")
            if bar:
                self._because(run, kind, sentence, amount)
            else:
                self._add(run, name, amount)
        return 1

    def _note_worker(self, token: str, note: str, speaks: float, kept: float) -> list[Any]:
        """Times are microseconds, `kept` is milliseconds."""
        workers, now = self.key("workers"), round(self._memory.clock() * 1e6)
        known = {
            _text(name): (int(since), int(seen), stored)
            for name, value in self._memory.hgetall(workers).items()
            for since, seen, stored in (_text(value).split(" ", 2),)
        }
        since, seen, _ = known.get(token, (now, now, ""))
        known[token] = (now if now - seen > speaks else since), now, note
        self._memory.delete(workers)
        for name, (since, seen, stored) in known.items():
            if now - seen <= 1000 * kept:
                self._memory.hset(workers, name, f"{since} {seen} {stored}")
        self._memory.expire(workers, kept / 1000)
        living = {name: each for name, each in known.items() if now - each[1] <= speaks}
        first = min(living, key=lambda name: (living[name][0], name))
        return [first, " ".join(map(str, living[first])), str(now)]

    # -- what the moves share

    def _now(self) -> int:
        """In milliseconds."""
        return int(self._memory.clock() * 1000)

    def _field(self, run: str, name: str) -> str:
        return _text(self._memory.hget(self.run_key(run), name) or b"")

    def _entries(self, run: str, part: str) -> dict[str, dict[str, Any]]:
        kept = self._memory.hgetall(self.run_key(run, part))
        return {_text(chunk): json.loads(entry) for chunk, entry in kept.items()}

    def _keep(self, run: str, part: str, chunk: str, entry: Mapping[str, Any]) -> None:
        self._memory.hset(self.run_key(run, part), chunk, json.dumps(entry))

    def _state(self, run: str) -> list[Any]:
        page, done = (
            _number(self._memory.hget(self.run_key(run), n)) for n in ("page", "scan_done")
        )
        return [self._memory.hlen(self.run_key(run, "open")), page, done, self._field(run, "state")]

    def _because(self, run: str, kind: str, sentence: str, n: int) -> None:
        self._count_reason(self.run_key(run), kind, sentence, n)

    def _defer(self, run: str, chunk: str, entry: Mapping[str, Any], why: str) -> None:
        self._memory.hdel(self.run_key(run, "open"), chunk)
        late = {name: entry[name] for name in ("n", "by", "claimed")}
        self._keep(run, "late", chunk, {**late, "why": why})
        self._add(run, "deferred", entry["n"])
        self._because(run, "deferred", why, entry["n"])

    def _add(self, run: str, counter: str, n: int) -> None:
        self._memory.hincrby(self.run_key(run), counter, n)
        if n > 0:
            self._memory.hincrby(self.key("totals"), total_of(counter), n)

    def _took(self, name: str, bounds: Sequence[int], milliseconds: int) -> None:
        totals = self.key("totals")
        self._memory.hincrby(totals, f"{name}|{bucket_of(milliseconds, bounds)}")
        self._memory.hincrby(totals, f"{name}|ms", max(0, milliseconds))

    # -- what is owed to the history

    def _owe(self, run: str) -> None:
        owed = self.key("history:owed")
        since, _, times = _text(self._memory.hget(owed, run) or b"").partition(" ")
        self._memory.hset(owed, run, f"{int(since or self._now())} {int(times or 0) + 1}")

    def _recorded(self, *pairs: str) -> int:
        owed = self.key("history:owed")
        for run, noted in zip(pairs[::2], pairs[1::2], strict=True):
            if _text(self._memory.hget(owed, run) or b"") == noted:
                self._memory.hdel(owed, run)
        return 1

    def _take_over(self, *pairs: Any) -> int:
        totals = self.key("totals")
        if self._memory.hexists(totals, "history"):
            return 0
        self._memory.hset(totals, "history", 1)
        for name, n in zip(pairs[::2], pairs[1::2], strict=True):
            self._memory.hincrby(totals, name, n)
        for run in map(_text, self._memory.lrange(self.key("runs"), 0, -1)):
            if self._field(run, "finished_at"):
                self._owe(run)
        return 1


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _number(value: bytes | None) -> int:
    return int(value or 0)

"""The moves of consumers in Python, for the ledger without Redis; see in_memory.py."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from enrich.ledger.keyspace import text

if TYPE_CHECKING:
    from enrich.ledger.in_memory import InMemoryRedis

#: Groups that are kept, and sentences of a kind that are counted by themselves.
MOST_GROUPS, MOST_REASONS = 50, 12


class RealtimeMoves:
    """Arguments and answers are those of the scripts."""

    _memory: InMemoryRedis

    if TYPE_CHECKING:

        def key(self, name: str) -> str: ...

    def _settle_messages(
        self, group: str, call: str, told: str, batches: int, kept: int, minutes: int
    ) -> list[str]:
        memory = self._memory
        counted = self.key(f"counted:{call}")
        if (before := memory.get(counted)) is not None:
            return list(json.loads(before))
        self._saw_group(group)
        totals, now = self._part("totals", group), self._milliseconds()
        window = self._part(f"window:{now // (60_000 * minutes)}", group)
        answers = []
        for portion in json.loads(told):
            position = self.key(f"realtime:position:{portion['partition']}")
            found = text(memory.get(position) or b"")
            if found != portion["expected"]:
                answers.append(found)
                continue
            memory.set(position, portion["upto"], px=kept)
            for name, n in portion["counts"].items():
                memory.hincrby(totals, name, n)
                memory.hincrby(window, name, n)
            for kind, why, n, most in portion["because"]:
                self._count_reason(totals, kind, why, n, most)
            answers.append("counted")
        memory.expire(window, 180 * minutes)
        memory.hsetnx(totals, "since", now)
        if batches:
            memory.hincrby(totals, "batches", batches)
            memory.hset(totals, "last_batch_at", now)
        memory.set(counted, json.dumps(answers), px=120_000)
        return answers

    def _count_messages(self, group: str, day: str, micro_usd: int, call: str, *pairs: Any) -> int:
        memory = self._memory
        if not memory.set(self.key(f"counted:{call}"), 1, nx=True, px=120_000):
            return 0
        self._saw_group(group)
        for name, amount in self._pay(day, micro_usd, pairs):
            memory.hincrby(self._part("totals", group), name, amount)
        if micro_usd > 0:
            memory.hincrby(self._part("totals", group), "cost_micro_usd", micro_usd)
        return 1

    def _note_consumer(
        self, group: str, consumer: str, note: str, doing: str, speaks: int, kept: int,
        told: str, partitions_kept: int,
    ) -> int:  # fmt: skip
        memory, now = self._memory, self._milliseconds()
        self._saw_group(group)
        consumers, partitions = self._part("consumers", group), self._part("partitions", group)
        doing_since = now
        for name, value in memory.hgetall(consumers).items():
            _, ends, since, what, _ = text(value).split(" ", 4)
            if text(name) == consumer and what == doing and int(ends) > now:
                doing_since = int(since)
            if int(ends) + kept < now:
                memory.hdel(consumers, name)
        memory.hset(consumers, consumer, f"{now} {now + speaks} {doing_since} {doing} {note}")
        memory.expire(consumers, (speaks + kept) / 1000)
        for one in json.loads(told):
            stored = text(memory.hget(partitions, one["name"]) or b"")
            _, moved, committed, before = stored.split(" ", 3) if stored else ("", "", "", "{}")
            moves = committed != one["committed"] or json.loads(before).get("consumer") != consumer
            if one["done"] or doing == "paused" or moves:
                moved = str(now)
            told_of = f"{now} {moved} {one['committed']} {one['note']}"
            memory.hset(partitions, one["name"], told_of)
        for name, value in memory.hgetall(partitions).items():
            if int(text(value).split(" ", 1)[0]) + partitions_kept < now:
                memory.hdel(partitions, name)
        memory.expire(partitions, partitions_kept / 1000)
        return 1

    # -- what the moves share

    def _pay(self, day: str, micro_usd: int, pairs: tuple[Any, ...]) -> list[tuple[str, int]]:
        memory, spent = self._memory, self.key(f"spent:{day}")
        if micro_usd > 0:
            memory.incrby(spent, micro_usd)
            memory.expire(spent, 172_800)
            memory.hincrby(self.key("totals"), "spent_micro_usd", micro_usd)
        others = []
        for name, amount in zip(pairs[::2], pairs[1::2], strict=True):
            if name.startswith("paid|"):
                memory.hincrby(f"{spent}:projects", name.removeprefix("paid|"), amount)
                memory.expire(f"{spent}:projects", 172_800)
            else:
                others.append((name, amount))
        return others

    def _count_reason(
        self, key: str, kind: str, sentence: str, n: int, most: int = MOST_REASONS
    ) -> None:
        if not sentence or not n:
            return
        name = f"{kind}|{sentence}"
        if not self._memory.hexists(key, name):
            known = [each for each in self._memory.hkeys(key) if text(each).startswith(f"{kind}|")]
            if len(known) >= most:
                name = f"{kind}|other reasons"
        if self._memory.hincrby(key, name, n) <= 0:
            self._memory.hdel(key, name)

    def _saw_group(self, group: str) -> None:
        groups = self.key("realtime:groups")
        self._memory.zadd(groups, {group: self._milliseconds()})
        for old in map(text, self._memory.zrange(groups, 0, -MOST_GROUPS - 1)):
            self._memory.zrem(groups, old)
            parts = ("totals", "consumers", "partitions")
            self._memory.delete(*(self._part(part, old) for part in parts))

    def _part(self, part: str, group: str) -> str:
        return self.key(f"realtime:{part}:{group}")

    def _milliseconds(self) -> int:
        return int(self._memory.clock() * 1000)

"""The ledger's keys in Redis, and the Lua scripts that change several of them in one atomic move.

Every part of the ledger works with one of these. A key's name and what it holds are shared with
workers of other versions: they stay, or are migrated.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import redis

from enrich.ledger.durations import CHUNK_BOUNDS, RUN_BOUNDS
from enrich.models import COUNTERS, VECTOR_OUTCOMES, total_of
from enrich.redis_client import translated

_MOVES = (
    "open", "register", "sent", "begin", "note", "settle", "count", "expire", "halt", "finish",
    "note_worker", "settle_messages", "count_messages", "note_consumer", "recorded", "take_over",
)  # fmt: skip


class Keyspace:
    """All keys with one prefix, on one Redis."""

    def __init__(self, connection: redis.Redis, prefix: str) -> None:
        """Args: prefix: ENRICH_REDIS_PREFIX."""
        self.redis = connection
        self.prefix = prefix
        room = files(__package__)
        common = _counters_in_lua() + room.joinpath("_common.lua").read_text()
        self._scripts = {
            name: connection.register_script(common + room.joinpath(f"{name}.lua").read_text())
            for name in _MOVES
        }

    def move(self, name: str, *arguments: Any) -> Any:
        """Run the script of this name, whole or not at all; its answer as Redis gives it.

        Raises:
            EnrichError: Redis does not answer, or refuses.
        """
        with translated():
            return self._scripts[name](keys=[self.prefix], args=list(arguments))

    def amend(self, run: str, part: str, fields: Mapping[Any, str | int]) -> None:
        """Set fields of a run, unless it is forgotten: its keys would then stay for ever."""
        with translated():
            if self.redis.exists(self.run_key(run)):
                self.redis.hset(self.run_key(run, part), mapping=fields)

    def key(self, name: str) -> str:
        return self.prefix + name

    def run_key(self, run: str, part: str = "") -> str:
        """The key of a run's fields, or of a part of it, such as `open` (its open chunks)."""
        return self.key(f"run:{run}" + (f":{part}" if part else ""))

    def now(self) -> float:
        """Redis TIME, in seconds."""
        with translated():
            seconds, micros = self.redis.time()
        return float(seconds + micros / 1e6)


def _counters_in_lua() -> str:
    """What the scripts know of counters: into which total one goes, which outcomes are vectors, and
    the upper bounds of buckets, in seconds."""
    totals = ", ".join(f"{name} = '{total_of(name)}'" for name in COUNTERS)
    vectors = ", ".join(f"{outcome.value} = true" for outcome in VECTOR_OUTCOMES)
    runs, chunks = (", ".join(map(str, bounds)) for bounds in (RUN_BOUNDS, CHUNK_BOUNDS))
    return (
        f"local TOTAL_OF = {{{totals}}}\nlocal IS_VECTOR = {{{vectors}}}\n"
        f"local RUN_BOUNDS = {{{runs}}}\nlocal CHUNK_BOUNDS = {{{chunks}}}\n"
    )


def text(value: Any) -> str:
    """What Redis answered, as text."""
    return value.decode() if isinstance(value, bytes) else str(value)


def run_of(chunk: str) -> str:
    """The run of a chunk's id, `{run}:{page}:{k}`."""
    return chunk.split(":", 1)[0]

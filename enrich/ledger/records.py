"""What runs have counted, read: the record of each, and the totals since Redis was first used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from enrich.errors import RunClosed
from enrich.ledger.counters import DEFERRED, RETRIED
from enrich.ledger.durations import CHUNK_BOUNDS, RUN_BOUNDS, durations
from enrich.ledger.keyspace import Keyspace, text
from enrich.models import COUNTERS, RunRecord, Totals, total_of
from enrich.redis_client import translated

#: Before a state, in the totals: runs that ended so.
ENDED = "ended|"


class Records:
    """Reads the counts of runs that Redis still knows."""

    def __init__(self, keys: Keyspace) -> None:
        self._keys = keys

    def of(self, run: str) -> RunRecord:
        """Raises RunClosed for a run that this Redis does not know."""
        found = self.of_all([run])
        if not found:
            raise RunClosed(f"run {run} is unknown to Redis")
        return found[0]

    def of_all(self, runs: Sequence[str]) -> list[RunRecord]:
        """The records of runs, in their order; those whose record was lost are left out."""
        if not runs:
            return []
        key = self._keys.run_key
        with translated():
            pipe = self._keys.redis.pipeline(transaction=True)
            for run in runs:
                pipe.hgetall(key(run))
                pipe.hlen(key(run, "open"))
                pipe.hgetall(key(run, "skipped"))
            pipe.time()
            *rows, (seconds, micros) = pipe.execute()
        now = seconds + micros / 1e6
        return [
            _record(run, raw, open_chunks, skipped, now)
            for run, raw, open_chunks, skipped in zip(
                runs, rows[::3], rows[1::3], rows[2::3], strict=True
            )
            # One of which only a late counter is left would be no run.
            if raw and b"started_at" in raw
        ]

    def last(self, count: int = 10) -> list[RunRecord]:
        """Newest first; a run whose record was lost is left out."""
        return self.of_all(self.names()[:count])

    def names(self) -> list[str]:
        """The ids of all runs that this Redis knows, the newest first."""
        with translated():
            return [text(r) for r in self._keys.redis.lrange(self._keys.key("runs"), 0, -1)]

    def quiet_seconds(self, run: str) -> float:
        """For how long the run has begun no chunk, by Redis TIME; 0 if it is not known."""
        with translated():
            fields = self._keys.redis.hmget(self._keys.run_key(run), "last_begin", "started_at")
        known = [float(field) / 1000 for field in fields if field]
        return max(0.0, self._keys.now() - max(known)) if known else 0.0

    def totals(self) -> Totals:
        """All runs together, those whose records are gone too."""
        with translated():
            raw = self._keys.redis.hgetall(self._keys.key("totals"))
        return totals_of({text(name): int(value) for name, value in raw.items()}, self.under_way())

    def under_way(self) -> float:
        """Seconds for which the active run has been active; 0 without one."""
        with translated():
            active = text(self._keys.redis.get(self._keys.key("active_run")) or b"")
        # Vectors count as they are written, so that the time of the run that writes them must too.
        if active:
            with suppress(RunClosed):
                return self.of(active).duration_seconds
        return 0.0


def totals_of(counted: Mapping[str, int], under_way: float = 0.0) -> Totals:
    """Totals from the fields of Redis.

    Args:
        under_way: seconds for which a run has been active.
    """
    named = {
        each: counted[each]
        for each in ("runs", "ticks_skipped", "vectors", "errors", "messages_dropped")
        if each in counted
    }
    return Totals(
        **named,
        seconds=counted.get("milliseconds", 0) / 1000 + under_way,
        counts={name: counted.get(total_of(name), 0) for name in COUNTERS},
        ended={
            name.removeprefix(ENDED): count
            for name, count in sorted(counted.items())
            if name.startswith(ENDED)
        },
        spent_usd=counted.get("spent_micro_usd", 0) / 1e6,
        run_durations=durations(counted, "run", RUN_BOUNDS),
        chunk_durations=durations(counted, "chunk", CHUNK_BOUNDS),
    )


def _record(
    run: str,
    raw: Mapping[Any, Any],
    open_chunks: int,
    skipped: Mapping[Any, Any],
    now: float,
) -> RunRecord:
    stored = {text(name): text(value) for name, value in raw.items()}
    started = float(stored["started_at"]) / 1000
    ended = float(stored.get("finished_at", 0)) / 1000 or now
    counters = {name: int(stored[name]) for name in COUNTERS if name in stored}
    return RunRecord(
        run_id=run,
        number=int(stored.get("number", 0)),
        trigger=stored["trigger"],
        state=stored["state"],
        more=stored.get("more") == "1",
        stopped_by=stored.get("stopped_by", ""),
        started_at=datetime.fromtimestamp(started, UTC),
        finished_at=(datetime.fromtimestamp(ended, UTC) if "finished_at" in stored else None),
        duration_seconds=round(max(0.0, ended - started), 3),
        estimated_cost_usd=int(stored.get("cost_micro_usd", 0)) / 1e6,
        chunks_open=open_chunks,
        skipped_indices={text(index): text(reason) for index, reason in skipped.items()},
        halt_reason=stored.get("halt_reason", ""),
        deferral_reasons=_reasons(stored, DEFERRED),
        retry_reasons=_reasons(stored, RETRIED),
        comparison=stored.get("comparison", ""),
        **counters,
    )


def _reasons(fields: Mapping[str, str], kind: str) -> dict[str, int]:
    """The counted sentences of a kind, the most frequent first."""
    found = {
        name.removeprefix(kind): int(count)
        for name, count in fields.items()
        if name.startswith(kind)
    }
    return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))

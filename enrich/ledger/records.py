"""What runs have counted, read: the record of each, and the totals since Redis was first used."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from datetime import UTC, datetime

from enrich.errors import RunClosed
from enrich.ledger.counters import DEFERRED, RETRIED
from enrich.ledger.keyspace import Keyspace, text
from enrich.models import COUNTERS, RunRecord, Totals
from enrich.redis_client import translated


class Records:
    """Reads the counts of runs that Redis still knows."""

    def __init__(self, keys: Keyspace) -> None:
        self._keys = keys

    def of(self, run: str) -> RunRecord:
        """Raises RunClosed for a run that this Redis does not know."""
        key = self._keys.run_key
        with translated():
            pipe = self._keys.redis.pipeline(transaction=True)
            pipe.hgetall(key(run))
            pipe.hlen(key(run, "open"))
            pipe.hgetall(key(run, "skipped"))
            pipe.time()
            raw, open_chunks, skipped, (seconds, micros) = pipe.execute()
        if not raw:
            raise RunClosed(f"run {run} is unknown to Redis")
        stored = {text(name): text(value) for name, value in raw.items()}
        started = float(stored["started_at"]) / 1000
        ended = float(stored.get("finished_at", 0)) / 1000 or seconds + micros / 1e6
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

    def last(self, count: int = 10) -> list[RunRecord]:
        """Newest first; a run whose record was lost is left out."""
        with translated():
            runs = self._keys.redis.lrange(self._keys.key("runs"), 0, count - 1)
        records = []
        for run in runs:
            with suppress(RunClosed):
                records.append(self.of(text(run)))
        return records

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
            active = text(self._keys.redis.get(self._keys.key("active_run")) or b"")
        stored = {text(name): int(value) for name, value in raw.items()}
        # Vectors count as they are written, so that the time of the run that writes them must too.
        under_way = 0.0
        if active:
            with suppress(RunClosed):
                under_way = self.of(active).duration_seconds
        counted = {each.name: stored[each.name] for each in fields(Totals) if each.name in stored}
        return Totals(seconds=stored.get("milliseconds", 0) / 1000 + under_way, **counted)


def _reasons(fields: Mapping[str, str], kind: str) -> dict[str, int]:
    """The counted sentences of a kind, the most frequent first."""
    found = {
        name.removeprefix(kind): int(count)
        for name, count in fields.items()
        if name.startswith(kind)
    }
    return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))

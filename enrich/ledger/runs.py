"""A run's life: opened, configured, halted or finished, each once, however often it is asked."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Literal

from enrich.errors import RunClosed
from enrich.ledger.answers import Opened, RunState
from enrich.ledger.counters import as_reason
from enrich.ledger.deployment import Configuration
from enrich.ledger.keyspace import Keyspace, text
from enrich.redis_client import translated

#: Records kept; older runs remain in the totals, and in the history where there is one.
RECORDS_KEPT = 1000


class Runs:
    """Begins and ends runs, and knows which one is active."""

    def __init__(self, keys: Keyspace) -> None:
        self._keys = keys

    def open(self, trigger: str, interval: float) -> Opened:
        """Begin a run, unless one is active, work is paused, or beat asks too soon.

        Args:
            interval: seconds. Three quarters of it bound how long the run scans: what it has found
                has the rest to be written in, so that the next run, which sees what came meanwhile,
                is not late. Half of it bounds how soon beat may begin.
        """
        run = uuid.uuid4().hex[:12]
        verdict, active, number = self._keys.move(
            "open", trigger, run, interval * 500, interval * 750, RECORDS_KEPT
        )
        return Opened(text(verdict), text(active), int(number))  # type: ignore[arg-type]

    def active(self) -> str:
        """The id of the active run; "" if there is none."""
        with translated():
            return text(self._keys.redis.get(self._keys.key("active_run")) or b"")

    def state(self, run: str) -> RunState:
        """Raises RunClosed for a run that this Redis does not know."""
        key = self._keys.run_key
        with translated():
            pipe = self._keys.redis.pipeline(transaction=True)
            pipe.hlen(key(run, "open"))
            pipe.hmget(key(run), "page", "scan_done", "state")
            open_chunks, (page, done, state) = pipe.execute()
        if state is None:
            raise RunClosed(f"run {run} is unknown to Redis")
        return RunState(open_chunks, int(page or 0), text(done) == "1", text(state))

    def unknown(self, runs: Iterable[str]) -> set[str]:
        """Those of the runs that this Redis does not know."""
        names = sorted(set(runs))
        if not names:
            return set()
        with translated():
            pipe = self._keys.redis.pipeline(transaction=False)
            for run in names:
                pipe.exists(self._keys.run_key(run))
            return {run for run, known in zip(names, pipe.execute(), strict=True) if not known}

    def configure(self, run: str, configuration: Configuration) -> Configuration:
        """The run's configuration, which is that of whoever is first to name its own."""
        key = self._keys.run_key(run)
        with translated():
            pipe = self._keys.redis.pipeline(transaction=True)
            pipe.exists(key)
            pipe.hget(key, "configuration")
            known, configured = pipe.execute()
            if configured is None and known:
                pipe.hsetnx(key, "configuration", configuration.to_json())
                pipe.hget(key, "configuration")
                configured = pipe.execute()[1]
        return Configuration.from_json(text(configured)) if configured else configuration

    def configured(self, run: str) -> Configuration:
        """As `configure`, without naming one; one that names nothing while nobody has."""
        with translated():
            raw = self._keys.redis.hget(self._keys.run_key(run), "configuration")
        return Configuration.from_json(text(raw or b"{}"))

    def skip(self, run: str, index: str, reason: str) -> None:
        """Leave an index out of the rest of this run."""
        self._keys.amend(run, "skipped", {index: reason})

    def skipped(self, run: str) -> dict[str, str]:
        """The indices that are left out of this run, each with the reason."""
        with translated():
            raw = self._keys.redis.hgetall(self._keys.run_key(run, "skipped"))
        return {text(index): text(reason) for index, reason in raw.items()}

    def out_of_budget(self, run: str) -> None:
        """Record that the run leaves logs because the day's budget is used up."""
        self._keys.amend(run, "", {"more": 1, "stopped_by": "budget"})

    def note_comparison(self, run: str, sentence: str) -> None:
        """What a run says of the comparison with which it begins; the last sentence is kept."""
        self._keys.amend(run, "", {"comparison": sentence})

    def halt(self, run: str, reason: str, state: str = "halted") -> bool:
        """Stop the fan-out and defer open chunks; False if the run was not running."""
        return bool(self._keys.move("halt", run, state, reason, as_reason(reason)))

    def finish(self, run: str) -> Literal["finished", "unfinished", "over"]:
        """Close a run that is through: `finished` for one caller, `over` for every later one."""
        return text(self._keys.move("finish", run))  # type: ignore[return-value]

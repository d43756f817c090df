"""The ledger: state and counters of runs in Redis, changed by a few atomic moves in Lua.

The ledger decides what counts once: each page is registered once, each chunk settled once, each
run finished once, however often a message is delivered. It knows nothing of OpenSearch or of
texts. Losing it costs history and the bookkeeping of one run, never a log.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any, Literal

import orjson
import redis

from enrich.errors import RunClosed
from enrich.ledger.answers import Claim, Opened, Scan, Standing
from enrich.ledger.api_keys import WorkingKeys
from enrich.ledger.deployment import Configuration, Deployment
from enrich.ledger.index_states import IndexState, IndexStates
from enrich.ledger.lone_failures import KeptLoneFailures
from enrich.ledger.spending import Spending, today
from enrich.models import Outcome, RunRecord, Totals
from enrich.redis_client import translated

__all__ = ["Claim", "IndexState", "IndexStates", "Ledger", "Opened", "Scan", "Standing"]

#: Records kept; older runs remain in the totals.
RECORDS_KEPT = 100

#: Unmarkable documents kept in mind; beyond, they are found again by the next run.
REFUSED_KEPT = 10_000

#: Characters of a counted reason, and where the counts stand in a run's hash.
REASON_LENGTH = 300
DEFERRED, RETRIED = "deferred|", "retried|"

#: Before a project, in the moves: what it pays.
PAID = "paid|"

#: Why a chunk is deferred that nobody finished.
PAST_DEADLINE = (
    "no worker finished it within ENRICH_CHUNK_DEADLINE_SECONDS: are workers lost, or the servers "
    "too slow?"
)

#: What an endpoint was found to take is looked for anew after an hour.
LIMITS_KEPT_SECONDS = 3600

_MOVES = (
    "open", "register", "sent", "begin", "note", "settle", "count", "expire", "halt", "finish",
    "note_worker",
)  # fmt: skip


class Ledger:
    """The moves. Times are seconds at this interface."""

    def __init__(self, connection: redis.Redis, prefix: str) -> None:
        self._redis = connection
        self._prefix = prefix
        #: Which indices take writes.
        self.index_states = IndexStates(connection, prefix)
        self.spending = Spending(connection, prefix)
        self.api_keys = WorkingKeys(connection, prefix)
        room = files(__package__)
        common = room.joinpath("_common.lua").read_text()
        self._scripts = {
            name: connection.register_script(common + room.joinpath(f"{name}.lua").read_text())
            for name in _MOVES
        }
        #: Who is at work, by what each notes of itself.
        self.deployment = Deployment(connection, prefix, self._move)

    def lone_failures(self, space: str) -> KeptLoneFailures:
        """What is kept of texts that failed by themselves, of one vector space."""
        return KeptLoneFailures(self._redis, self._prefix, space)

    def close(self) -> None:
        self._redis.close()

    def _move(self, name: str, *arguments: Any) -> Any:
        with translated():
            return self._scripts[name](keys=[self._prefix], args=list(arguments))

    def _key(self, name: str) -> str:
        return self._prefix + name

    # -- a run's life

    def open(self, trigger: str, interval: float) -> Opened:
        """Begin a run. Three quarters of `interval` bound how long it scans: what it has found has
        the rest to be written in, so that the next run, which sees what came meanwhile, is not
        late. Half of it bounds how soon beat may begin."""
        run = uuid.uuid4().hex[:12]
        verdict, active, number = self._move(
            "open", trigger, run, interval * 500, interval * 750, RECORDS_KEPT
        )
        return Opened(_text(verdict), _text(active), int(number))  # type: ignore[arg-type]

    def register(
        self,
        run: str,
        page: int,
        *,
        scan: Scan,
        scan_done: bool,
        chunks: Mapping[str, int] | None = None,
        messages: Sequence[Mapping[str, Any]] = (),
        indices: Sequence[str] = (),
        skipped: Mapping[str, str] | None = None,
        more: bool = False,
        stopped_by: str = "",
    ) -> Literal["registered", "stale", "closed"]:
        answer = self._move(
            "register",
            run,
            page,
            json.dumps(chunks or {}),
            scan.to_json(),
            int(scan_done),
            orjson.dumps(messages),
            json.dumps(skipped or {}),
            int(more),
            stopped_by,
            json.dumps(indices),
        )
        return _text(answer)  # type: ignore[return-value]

    def sent(self, run: str, page: int) -> None:
        """The page's messages are all with the broker: its outbox is emptied."""
        self._move("sent", run, page)

    def begin(
        self,
        chunk: str,
        claimant: str,
        hard_limit: float,
        dead: str = "",
        configuration: Configuration | None = None,
    ) -> Claim:
        """Claim a chunk for the delivery `claimant` ("host/pid"); `dead` may be taken over.

        Args:
            configuration: the claimant's, where it would write vectors: `other` is the verdict if
                it is not the run's.
        """
        verdict, holder, value, suspect, tried = self._move(
            "begin", _run_of(chunk), chunk, claimant, hard_limit * 1000, dead, uuid.uuid4().hex,
            configuration.to_json() if configuration else "",
        )  # fmt: skip
        return Claim(
            _text(verdict),  # type: ignore[arg-type]
            _text(holder),
            int(value),
            _text(suspect),
            bool(tried),
        )

    def configure(self, run: str, configuration: Configuration) -> Configuration:
        """The run's configuration, which is that of whoever is first to name its own."""
        with translated():
            pipe = self._redis.pipeline(transaction=True)
            pipe.exists(self._run_key(run))
            pipe.hget(self._run_key(run), "configuration")
            known, configured = pipe.execute()
            if configured is None and known:
                pipe.hsetnx(self._run_key(run), "configuration", configuration.to_json())
                pipe.hget(self._run_key(run), "configuration")
                configured = pipe.execute()[1]
        return Configuration.from_json(_text(configured)) if configured else configuration

    def configured(self, run: str) -> Configuration:
        """As `configure`, without naming one; one that names nothing while nobody has."""
        with translated():
            raw = self._redis.hget(self._run_key(run), "configuration")
        return Configuration.from_json(_text(raw or b"{}"))

    def unaccounted(self, chunk: str, hard_limit: float) -> bool:
        """Whether a chunk was closed as deferred and nobody who held it can correct that now."""
        with translated():
            raw = self._redis.hget(self._run_key(_run_of(chunk), "late"), chunk)
        if raw is None:
            return False
        entry = json.loads(raw)
        return not entry["by"] or entry["claimed"] / 1000 + hard_limit <= self.now()

    def release(self, chunk: str, claimant: str) -> None:
        """Give the claim back, for a retry."""
        self._move("note", _run_of(chunk), chunk, claimant, "released", "")

    def suspect(self, chunk: str, claimant: str, fingerprint: str) -> None:
        """Name the text that is handled alone from now on."""
        self._move("note", _run_of(chunk), chunk, claimant, "suspect", fingerprint)

    def settle(
        self,
        chunk: str,
        outcomes: Mapping[str, int],
        errors: int = 0,
        reasons: Mapping[str, int] | None = None,
    ) -> tuple[Literal["settled", "corrected", "closed"], Standing]:
        """Close a chunk. The outcomes must sum to its documents; `reasons` say in sentences why how
        many of them were deferred."""
        told: Counter[str] = Counter()
        for sentence, documents in (reasons or {}).items():
            told[as_reason(sentence)] += documents
        answer = self._move(
            "settle", _run_of(chunk), chunk, json.dumps(outcomes), errors, json.dumps(told)
        )
        return _text(answer[0]), _standing(answer[1:])  # type: ignore[return-value]

    def count(
        self,
        run: str,
        *,
        micro_usd: int = 0,
        paid_by: Mapping[str, int] | None = None,
        **amounts: int,
    ) -> None:
        """Add to a run's counters (api_requests, api_inputs, api_tokens, retries, …).

        Args:
            micro_usd: money, in millionths of a dollar.
            paid_by: of which each project pays.
        """
        pairs = [part for pair in amounts.items() if pair[1] for part in pair]
        for project, part in (paid_by or {}).items():
            pairs += [f"{PAID}{project}", part]
        self._move("count", run, today(), micro_usd, uuid.uuid4().hex, *pairs)

    def count_retry(self, run: str, why: str) -> None:
        """Count that work of a run is tried again, and why."""
        amounts: dict[str, Any] = {"retries": 1, f"{RETRIED}{as_reason(why)}": 1}
        self.count(run, **amounts)

    def expire(self, run: str, deadline: float) -> tuple[int, Standing]:
        """Defer chunks past their deadline; how many, and where the run stands."""
        answer = self._move("expire", run, deadline * 1000, PAST_DEADLINE)
        return int(answer[0]), _standing(answer[1:])

    def halt(self, run: str, reason: str, state: str = "halted") -> bool:
        """Stop the fan-out and defer open chunks; False if the run was not running."""
        return bool(self._move("halt", run, state, reason, as_reason(reason)))

    def finish(self, run: str) -> Literal["finished", "unfinished", "over"]:
        return _text(self._move("finish", run))  # type: ignore[return-value]

    # -- reading

    def standing(self, run: str) -> Standing:
        """Raises RunClosed for a run that this Redis does not know."""
        with translated():
            pipe = self._redis.pipeline(transaction=True)
            pipe.hlen(self._run_key(run, "open"))
            pipe.hmget(self._run_key(run), "page", "scan_done", "state")
            open_chunks, (page, done, state) = pipe.execute()
        if state is None:
            raise RunClosed(f"run {run} is unknown to Redis")
        return Standing(open_chunks, int(page or 0), _text(done) == "1", _text(state))

    def scan(self, run: str) -> Scan | None:
        """How far the run has searched; None before its first page."""
        with translated():
            stored = self._redis.hget(self._run_key(run), "scan")
        return Scan.from_json(stored) if stored else None

    def claim_page(self, run: str, page: int, claimant: str, seconds: float) -> bool:
        """Whether `claimant` ("host/pid") shall read this page; several are told to, one does."""
        with translated():
            key = self._run_key(run, f"page:{page}")
            return bool(self._redis.set(key, claimant, nx=True, px=int(seconds * 1000)))

    def page_holder(self, run: str, page: int) -> str:
        """Who has claimed this page; "" if nobody has."""
        with translated():
            return _text(self._redis.get(self._run_key(run, f"page:{page}")) or b"")

    def release_page(self, run: str, page: int) -> None:
        with translated():
            self._redis.delete(self._run_key(run, f"page:{page}"))

    def skip(self, run: str, index: str, reason: str) -> None:
        """Leave an index out of the rest of this run."""
        self._amend(run, "skipped", {index: reason})

    def skipped(self, run: str) -> dict[str, str]:
        with translated():
            raw = self._redis.hgetall(self._run_key(run, "skipped"))
        return {_text(k): _text(v) for k, v in raw.items()}

    def indices(self, run: str) -> list[str]:
        """Indices of which the run has taken documents."""
        with translated():
            return sorted(map(_text, self._redis.smembers(self._run_key(run, "indices"))))

    def out_of_budget(self, run: str) -> None:
        """Note that the run leaves logs because the day's budget is used up."""
        self._amend(run, "", {"more": 1, "stopped_by": "budget"})

    def scan_seconds_left(self, run: str) -> float:
        """Of the time that `open` gave the scan, by Redis TIME; ≤ 0 ends it."""
        with translated():
            until = self._redis.hget(self._run_key(run), "scan_until")
        return float(until or 0) / 1000 - self.now()

    def strangers(self, runs: Iterable[str]) -> set[str]:
        """Those of the runs that this Redis does not know."""
        names = sorted(set(runs))
        if not names:
            return set()
        with translated():
            pipe = self._redis.pipeline(transaction=False)
            for run in names:
                pipe.exists(self._run_key(run))
            return {run for run, known in zip(names, pipe.execute(), strict=True) if not known}

    def outbox(self, run: str) -> list[dict[str, Any]]:
        """The messages of the page registered last while some may never have been sent, without
        those whose chunk is closed."""
        with translated():
            raw = self._redis.get(self._run_key(run, "outbox"))
            still_open = set(map(_text, self._redis.hkeys(self._run_key(run, "open"))))
        return [m for m in json.loads(raw or "[]") if m["id"] in still_open]

    def active_run(self) -> str:
        with translated():
            return _text(self._redis.get(self._key("active_run")) or b"")

    def record(self, run: str) -> RunRecord:
        """Raises RunClosed for a run that this Redis does not know."""
        with translated():
            pipe = self._redis.pipeline(transaction=True)
            pipe.hgetall(self._run_key(run))
            pipe.hlen(self._run_key(run, "open"))
            pipe.hgetall(self._run_key(run, "skipped"))
            pipe.time()
            raw, open_chunks, skipped, (seconds, micros) = pipe.execute()
        if not raw:
            raise RunClosed(f"run {run} is unknown to Redis")
        fields = {_text(k): _text(v) for k, v in raw.items()}
        started = float(fields["started_at"]) / 1000
        ended = float(fields.get("finished_at", 0)) / 1000 or seconds + micros / 1e6
        counters = {
            name: int(fields[name])
            for name in (
                *(outcome.value for outcome in Outcome),
                "number", "found", "vectors_written", "api_requests", "api_inputs", "api_tokens",
                "masked", "written_by_others", "retries", "rate_limited", "errors", "chunks",
            )
            if name in fields
        }  # fmt: skip
        return RunRecord(
            run_id=run,
            trigger=fields["trigger"],
            state=fields["state"],
            more=fields.get("more") == "1",
            stopped_by=fields.get("stopped_by", ""),
            started_at=datetime.fromtimestamp(started, UTC),
            finished_at=(datetime.fromtimestamp(ended, UTC) if "finished_at" in fields else None),
            duration_seconds=round(max(0.0, ended - started), 3),
            estimated_cost_usd=int(fields.get("cost_micro_usd", 0)) / 1e6,
            chunks_open=open_chunks,
            skipped_indices={_text(k): _text(v) for k, v in skipped.items()},
            halt_reason=fields.get("halt_reason", ""),
            deferral_reasons=_reasons(fields, DEFERRED),
            retry_reasons=_reasons(fields, RETRIED),
            comparison=fields.get("comparison", ""),
            **counters,
        )

    def last_runs(self, count: int = 10) -> list[RunRecord]:
        """Newest first; a run whose record was lost is left out."""
        with translated():
            runs = self._redis.lrange(self._key("runs"), 0, count - 1)
        records = []
        for run in runs:
            with suppress(RunClosed):
                records.append(self.record(_text(run)))
        return records

    def quiet_seconds(self, run: str) -> float:
        """For how long the run has begun no chunk, by Redis TIME; 0 if it is not known."""
        with translated():
            fields = self._redis.hmget(self._run_key(run), "last_begin", "started_at")
        known = [float(field) / 1000 for field in fields if field]
        return max(0.0, self.now() - max(known)) if known else 0.0

    def totals(self) -> Totals:
        with translated():
            raw = self._redis.hgetall(self._key("totals"))
        stored = {_text(k): int(v) for k, v in raw.items()}
        # Vectors count as they are written, so that the time of the run that writes them must too.
        under_way = 0.0
        if active := self.active_run():
            with suppress(RunClosed):
                under_way = self.record(active).duration_seconds
        return Totals(
            runs=stored.get("runs", 0),
            ticks_skipped=stored.get("ticks_skipped", 0),
            vectors=stored.get("vectors", 0),
            errors=stored.get("errors", 0),
            messages_dropped=stored.get("messages_dropped", 0),
            seconds=stored.get("milliseconds", 0) / 1000 + under_way,
        )

    def spent_today_usd(self) -> float:
        """Since midnight UTC, all runs."""
        return self.spending.today_usd()

    def count_dropped(self) -> None:
        """Count a message of the broker that was none of ours. It belongs to no run."""
        with translated():
            self._redis.hincrby(self._key("totals"), "messages_dropped", 1)

    # -- what operators and hosts leave behind

    def pause(self) -> None:
        with translated():
            self._redis.set(self._key("paused"), 1)

    def resume(self) -> None:
        with translated():
            self._redis.delete(self._key("paused"))

    def paused(self) -> bool:
        with translated():
            return bool(self._redis.exists(self._key("paused")))

    def note_shutdown(self, host: str, seconds: float) -> None:
        """This host's workers are being stopped: chunks that it loses are no chunk's fault."""
        with translated():
            self._redis.set(self._key(f"shutdown:{host}"), 1, ex=max(1, int(seconds)))

    def last_tick(self) -> datetime | None:
        """When beat's last tick was handled, whether it began a run or not."""
        with translated():
            raw = self._redis.get(self._key("last_tick"))
        return datetime.fromtimestamp(int(raw) / 1000, UTC) if raw else None

    def endpoint(self) -> dict[str, str]:
        """The embeddings endpoint of the last run, to notice a change."""
        with translated():
            raw = self._redis.hgetall(self._key("endpoint"))
        return {_text(k): _text(v) for k, v in raw.items()}

    def remember_endpoint(self, **fields: str) -> None:
        with translated():
            self._redis.hset(self._key("endpoint"), mapping=fields)  # type: ignore[arg-type]

    def endpoint_limits(self) -> dict[str, dict[str, int]]:
        """What endpoints were found to take, by vector space; {} an hour after the last finding."""
        with translated():
            raw = self._redis.hgetall(self._key("endpoint_limits"))
        return {_text(space): json.loads(found) for space, found in raw.items()}

    def remember_endpoint_limits(self, space: str, found: Mapping[str, int]) -> None:
        """Keep what an endpoint was found to take: names and numbers."""
        with translated():
            pipe = self._redis.pipeline(transaction=True)
            pipe.hset(self._key("endpoint_limits"), space, json.dumps(dict(found)))
            pipe.expire(self._key("endpoint_limits"), LIMITS_KEPT_SECONDS)
            pipe.execute()

    # -- vector spaces

    def compared_endpoint(self, model: str, dimensions: int) -> tuple[str, str] | None:
        """URL and place of the logs for which the vectors of this model were compared last, or
        None."""
        with translated():
            raw = self._redis.hget(self._key("spaces"), json.dumps([model, dimensions]))
        if raw is None:
            return None
        url, where = json.loads(raw)
        return str(url), str(where)

    def remember_compared(self, model: str, dimensions: int, url: str, where: str) -> None:
        """The endpoint's vectors of this model may stand beside those that logs have."""
        with translated():
            pipe = self._redis.pipeline(transaction=True)
            pipe.hset(
                self._key("spaces"), json.dumps([model, dimensions]), json.dumps([url, where])
            )
            last: dict[Any, Any] = {"url": url, "model": model, "dimensions": dimensions}
            pipe.hset(self._key("endpoint"), mapping=last)
            pipe.execute()

    def note_comparison(self, run: str, sentence: str) -> None:
        """What a run says of the comparison with which it begins; the last sentence is kept."""
        self._amend(run, "", {"comparison": sentence})

    def work_of_others(self, configuration: Configuration, hard_limit: float) -> bool:
        """Whether a delivery of a run with another configuration may still be at work."""
        with translated():
            runs = [_text(run) for run in self._redis.lrange(self._key("runs"), 0, -1)]
            pipe = self._redis.pipeline(transaction=False)
            for run in runs:
                pipe.hget(self._run_key(run), "configuration")
                pipe.hvals(self._run_key(run, "open"))
                pipe.hvals(self._run_key(run, "late"))
            rows = pipe.execute()
        since = (self.now() - hard_limit) * 1000
        for configured, *chunks in zip(rows[::3], rows[1::3], rows[2::3], strict=True):
            if configured and not configuration.differing(
                Configuration.from_json(_text(configured))
            ):
                continue
            for raw in (*chunks[0], *chunks[1]):
                entry = json.loads(raw)
                if entry["by"] and entry["claimed"] > since:
                    return True
        return False

    # -- documents whose mark cannot be written

    def remember_refused(self, index: str, id: str, code: str) -> None:
        """Keep in mind a document that fails and cannot be marked, so that it is not retaken."""
        value = json.dumps(
            {"error": code, "since": datetime.now(UTC).isoformat(timespec="seconds")}
        )
        with translated():
            if self._redis.hlen(self._key("refused")) < REFUSED_KEPT:
                self._redis.hset(self._key("refused"), f"{index}/{id}", value)

    def refused(self) -> dict[tuple[str, str], dict[str, str]]:
        """(index, _id) → error and since."""
        with translated():
            raw = self._redis.hgetall(self._key("refused"))
        return {
            (index, id): json.loads(value)
            for key, value in raw.items()
            for index, _, id in (_text(key).partition("/"),)
        }

    def forget_refused(self, documents: Sequence[tuple[str, str]]) -> None:
        if documents:
            with translated():
                self._redis.hdel(self._key("refused"), *(f"{i}/{d}" for i, d in documents))

    def now(self) -> float:
        """Redis TIME, in seconds."""
        with translated():
            seconds, micros = self._redis.time()
        return float(seconds + micros / 1e6)

    def _amend(self, run: str, part: str, fields: Mapping[Any, str | int]) -> None:
        """Set fields of a run, unless it is forgotten: its keys would then stay for ever."""
        with translated():
            if self._redis.exists(self._run_key(run)):
                self._redis.hset(self._run_key(run, part), mapping=fields)

    def _run_key(self, run: str, part: str = "") -> str:
        return self._key(f"run:{run}" + (f":{part}" if part else ""))


def _standing(row: list[Any]) -> Standing:
    return Standing(int(row[0]), int(row[1]), int(row[2]) == 1, _text(row[3]))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def as_reason(sentence: str) -> str:
    """A sentence as it is counted: one line, of bounded length."""
    line = " ".join(str(sentence).split())
    return line if len(line) <= REASON_LENGTH else line[: REASON_LENGTH - 1] + "…"


def _reasons(fields: Mapping[str, str], kind: str) -> dict[str, int]:
    """The counted sentences of a kind, the most frequent first."""
    found = {
        name.removeprefix(kind): int(count)
        for name, count in fields.items()
        if name.startswith(kind)
    }
    return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))


def _run_of(chunk: str) -> str:
    return chunk.split(":", 1)[0]

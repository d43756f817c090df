"""A run's pages: one caller reads each, it is registered once, its messages wait until sent."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import orjson

from enrich.ledger.answers import Scan
from enrich.ledger.keyspace import Keyspace, text
from enrich.redis_client import translated


class Pages:
    """How far a run has searched, and what its last page has found."""

    def __init__(self, keys: Keyspace) -> None:
        self._keys = keys

    def scan(self, run: str) -> Scan | None:
        """How far the run has searched; None before its survey."""
        with translated():
            scan, survey = self._keys.redis.hmget(self._keys.run_key(run), "scan", "survey")
        stored = scan or survey
        return Scan.from_json(stored) if stored else None

    def begin(self, run: str, surveyed: Scan) -> Scan:
        """Keep what the survey of a run found, so that it is not made anew should the first page
        fail; what another caller kept before stays, and is the answer.

        A field of its own: a worker of an older version that read the first page would take a scan
        for one whose endpoint was looked at."""
        key = self._keys.run_key(run)
        with translated():
            if self._keys.redis.hget(key, "state") == b"running":
                self._keys.redis.hsetnx(key, "survey", surveyed.to_json())
        return self.scan(run) or surveyed

    def seconds_left(self, run: str) -> float:
        """Of the time that `Runs.open` gave the scan, by Redis TIME; ≤ 0 ends it."""
        with translated():
            until = self._keys.redis.hget(self._keys.run_key(run), "scan_until")
        return float(until or 0) / 1000 - self._keys.now()

    def lease(self, run: str, page: int, owner: str, seconds: float) -> bool:
        """Whether `owner` ("host/pid") shall read this page; several are told to, one does."""
        with translated():
            key = self._keys.run_key(run, f"page:{page}")
            return bool(self._keys.redis.set(key, owner, nx=True, px=int(seconds * 1000)))

    def owner(self, run: str, page: int) -> str:
        """Who has the lease of this page; "" if nobody has."""
        with translated():
            return text(self._keys.redis.get(self._keys.run_key(run, f"page:{page}")) or b"")

    def release(self, run: str, page: int) -> None:
        """Give the lease of this page back."""
        with translated():
            self._keys.redis.delete(self._keys.run_key(run, f"page:{page}"))

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
        """Take a page into its run, if it is the run's next one.

        Args:
            scan: what the next page begins with; `scan_done`: there is none.
            chunks: id → number of documents.
            messages: the chunks as they are published; the outbox keeps them.
            indices: of which the page has documents.
            skipped: indices that the rest of the run leaves out → why.
            more: logs are left for the next run, because of `stopped_by`.
        """
        answer = self._keys.move(
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
        return text(answer)  # type: ignore[return-value]

    def outbox(self, run: str) -> list[dict[str, Any]]:
        """The messages of the page registered last while some may never have been sent, without
        those whose chunk is closed."""
        with translated():
            raw = self._keys.redis.get(self._keys.run_key(run, "outbox"))
            still_open = set(map(text, self._keys.redis.hkeys(self._keys.run_key(run, "open"))))
        return [m for m in json.loads(raw or "[]") if m["id"] in still_open]

    def sent(self, run: str, page: int) -> None:
        """The page's messages are all with the broker: its outbox is emptied."""
        self._keys.move("sent", run, page)

    def indices(self, run: str) -> list[str]:
        """Indices of which the run's pages have taken documents."""
        with translated():
            return sorted(map(text, self._keys.redis.smembers(self._keys.run_key(run, "indices"))))

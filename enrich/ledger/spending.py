"""The day's money: what was spent since midnight UTC, in all and by project.

Where a day has a limit, no project may use more than its share of it once there are several: who
makes one project log errors without end must not take today's vectors from all others.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

import redis

from enrich.redis_client import translated

#: A project counts as one of several for so long after it last had logs without a vector.
SEEN_SECONDS = 7 * 24 * 3600

#: Projects that are remembered; the names come from whoever makes indices.
MOST_SEEN = 10_000


def today() -> str:
    """The day that money is counted for."""
    return f"{datetime.now(UTC):%Y-%m-%d}"


class Spending:
    """What was spent today. Money is added by the ledger's `count`."""

    def __init__(self, connection: redis.Redis, prefix: str) -> None:
        self._redis = connection
        self._prefix = prefix

    def today_usd(self) -> float:
        """All runs and projects together."""
        with translated():
            return int(self._redis.get(f"{self._prefix}spent:{today()}") or 0) / 1e6

    def today_usd_of(self, payer: str) -> float:
        """One project, or the holder of a key."""
        with translated():
            spent = self._redis.hget(f"{self._prefix}spent:{today()}:projects", payer)
        return int(spent or 0) / 1e6

    def today_by_project(self, most: int) -> dict[str, float]:
        """USD of the projects that spent most, the greatest first."""
        with translated():
            spent = self._redis.hgetall(f"{self._prefix}spent:{today()}:projects")
        named = {_name(project): int(micro) for project, micro in spent.items()}
        greatest = sorted(named.items(), key=lambda one: (-one[1], one[0]))[:most]
        return {name: micro / 1e6 for name, micro in greatest if micro}

    def saw(self, projects: Collection[str]) -> None:
        """Remember projects that have logs without a vector."""
        if not projects:
            return
        with translated():
            now = float(self._redis.time()[0])
            moves = self._redis.pipeline()
            moves.zadd(self._seen, dict.fromkeys(projects, now))
            moves.zremrangebyscore(self._seen, "-inf", now - SEEN_SECONDS)
            moves.zremrangebyrank(self._seen, 0, -MOST_SEEN - 1)
            moves.expire(self._seen, SEEN_SECONDS)
            moves.execute()

    def over_share(self, projects: Collection[str], most_usd: float) -> set[str]:
        """Those of the projects that have spent `most_usd` or more today; none if there is only one
        project."""
        asked = sorted(projects)
        if not asked:
            return set()
        with translated():
            moves = self._redis.pipeline(transaction=False)
            moves.zcard(self._seen)
            moves.hmget(f"{self._prefix}spent:{today()}:projects", asked)
            several, spent = moves.execute()
        if several < 2:
            return set()
        paid = zip(asked, spent, strict=True)
        return {project for project, micro in paid if int(micro or 0) >= most_usd * 1e6}

    @property
    def _seen(self) -> str:
        return f"{self._prefix}projects"


def _name(project: bytes | str) -> str:
    return project if isinstance(project, str) else project.decode(errors="replace")

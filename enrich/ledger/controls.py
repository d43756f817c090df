"""What operators, hosts and beat leave behind: a pause, a shutdown, the time of the last tick."""

from __future__ import annotations

from datetime import UTC, datetime

from enrich.ledger.keyspace import Keyspace, text
from enrich.redis_client import translated


class Controls:
    """Small marks that belong to no run."""

    def __init__(self, keys: Keyspace) -> None:
        self._keys = keys

    def pause(self) -> None:
        """Begin no run, and read no page, until `resume`."""
        with translated():
            self._keys.redis.set(self._keys.key("paused"), 1)

    def resume(self) -> None:
        with translated():
            self._keys.redis.delete(self._keys.key("paused"))

    def paused(self) -> bool:
        with translated():
            return bool(self._keys.redis.exists(self._keys.key("paused")))

    def note_shutdown(self, host: str, seconds: float) -> None:
        """This host's workers are being stopped: a worker that it loses counts against no chunk."""
        with translated():
            self._keys.redis.set(self._keys.key(f"shutdown:{host}"), 1, ex=max(1, int(seconds)))

    def last_tick(self) -> datetime | None:
        """When beat's last tick was handled, whether it began a run or not."""
        with translated():
            raw = self._keys.redis.get(self._keys.key("last_tick"))
        return datetime.fromtimestamp(int(text(raw)) / 1000, UTC) if raw else None

"""How many messages wait in the broker, which is on the ledger's Redis."""

from __future__ import annotations

from enrich.ledger.keyspace import Keyspace
from enrich.redis_client import translated

#: As celeryconfig.py names them; the first is emptied first.
QUEUES = ("enrich.scan", "enrich.embed")


class Queues:
    """Looks at the queues; takes nothing out."""

    def __init__(self, keys: Keyspace) -> None:
        self._keys = keys

    def lengths(self) -> dict[str, int]:
        """Messages that no worker has taken yet, by queue."""
        with translated():
            pipe = self._keys.redis.pipeline(transaction=False)
            for name in QUEUES:
                pipe.llen(self._keys.key(f"broker:{name}"))
            return dict(zip(QUEUES, map(int, pipe.execute()), strict=True))

"""The ledger: state and counters of runs in Redis, changed by a few atomic moves in Lua.

The ledger decides what counts once: each page is registered once, each chunk settled once, each
run finished once, each message of Kafka counted once, however often a message is delivered. It
knows nothing of OpenSearch or of texts. Losing it costs the bookkeeping of one run, never a log;
what the history (`enrich/history/`) has written outlives it.

`Ledger` is what is handed around; each of its parts has a file of its own.
"""

from __future__ import annotations

import redis

from enrich.ledger.answers import Lease, Opened, RunState, Scan
from enrich.ledger.api_keys import WorkingKeys
from enrich.ledger.chunks import Chunks
from enrich.ledger.confirmed import Confirmed
from enrich.ledger.controls import Controls
from enrich.ledger.counters import Counters
from enrich.ledger.deployment import Deployment
from enrich.ledger.endpoint import Endpoint
from enrich.ledger.history import HistoryDebt
from enrich.ledger.index_states import IndexState, IndexStates
from enrich.ledger.keyspace import Keyspace
from enrich.ledger.lone_failures import KeptLoneFailures
from enrich.ledger.measurements import Measurements
from enrich.ledger.pages import Pages
from enrich.ledger.queues import Queues
from enrich.ledger.realtime import Realtime
from enrich.ledger.records import Records
from enrich.ledger.refused import RefusedDocuments
from enrich.ledger.runs import Runs
from enrich.ledger.spending import Spending

__all__ = [
    "IndexState", "IndexStates", "Lease", "Ledger", "Opened", "RunState", "Scan",
]  # fmt: skip


class Ledger:
    """One deployment's ledger. Its parts raise EnrichError where Redis does not answer."""

    def __init__(self, connection: redis.Redis, prefix: str, keys: Keyspace | None = None) -> None:
        """
        Args:
            prefix: ENRICH_REDIS_PREFIX.
            keys: makes the moves; by default the Lua scripts do.
        """
        keys = keys or Keyspace(connection, prefix)
        self._keys = keys
        #: A run and the work in it.
        self.runs = Runs(keys)
        self.pages = Pages(keys)
        self.chunks = Chunks(keys)
        #: What is counted, and how it is read.
        self.counters = Counters(keys)
        self.records = Records(keys)
        self.spending = Spending(connection, prefix)
        #: What is to be written where it outlives this Redis.
        self.history = HistoryDebt(keys)
        #: What the consumers of Kafka count and do.
        self.realtime = Realtime(keys)
        #: Messages that wait for workers.
        self.queues = Queues(keys)
        #: What outlasts runs.
        self.controls = Controls(keys)
        self.confirmed = Confirmed(keys)
        self.measurements = Measurements(keys)
        self.deployment = Deployment(connection, prefix, keys.move)
        self.endpoint = Endpoint(keys)
        self.api_keys = WorkingKeys(connection, prefix)
        self.index_states = IndexStates(connection, prefix)
        self.refused = RefusedDocuments(keys)

    def lone_failures(self, space: str) -> KeptLoneFailures:
        """What is recorded of texts that failed by themselves, of one vector space."""
        return KeptLoneFailures(self._keys.redis, self._keys.prefix, space)

    def now(self) -> float:
        """Redis TIME, in seconds: the clock of everything in the ledger."""
        return self._keys.now()

    def close(self) -> None:
        self._keys.redis.close()

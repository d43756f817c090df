"""A real consumer that dies at one exact moment, or whose host's clock is wrong.

    python -m tests.chaos.stumbling_consumer

is `python -m enrich consume` with the product's own methods wrapped from outside. CHAOS_MOMENT,
CHAOS_FLAG and CHAOS_CLOCK are those of stumbling.py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import time_machine

from enrich.cli import app
from enrich.ledger.realtime import Realtime
from enrich.log_store.arrivals import Arrivals
from enrich.log_store.documents import Documents
from enrich.realtime.batch_work import BatchWork
from enrich.realtime.broker import Broker
from enrich.realtime.consumer import Consumer
from tests.chaos.stumbling import (
    CACHED,
    REQUESTED,
    WRITTEN,
    Moment,
    Place,
    Strike,
    after,
    before,
    between_bodies,
    death,
)

READ = Place(Broker, "consume", "self most seconds")
FOUND = Place(Documents, "read", "self references")
CREATED = Place(Arrivals, "create", "self arrivals")
INDEX_MADE = Place(Arrivals, "make_index", "self name")
WORKED = Place(BatchWork, "work", "self logs tried give_up")
SETTLED = Place(Realtime, "settle", "self group portions batches")
COMMITTED = Place(Broker, "commit", "self offsets")
ASSIGNED = Place(Consumer, "assigned", "self partitions")
REVOKED = Place(Consumer, "revoked", "self places")


def after_messages(strike: Strike) -> None:
    """After messages were read, before anything is done with them."""

    def around(method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        answer = method(*arguments, **named)
        if len(answer) > 0:
            with strike():
                pass
        return answer

    READ.wrap(around)


def settling(strike: Strike, *, done: bool) -> None:
    """Before or after the counts of logs, and not only of other levels, go to the ledger."""

    def around(
        method: Callable[..., Any], ledger: Realtime, group: str, portions: Any, **named: Any
    ) -> Any:
        logs = any(portion.counts.keys() - {"other_level", "poison"} for portion in portions)
        if logs and not done:
            with strike():
                pass
        answer = method(ledger, group, portions, **named)
        if logs and done:
            with strike():
                pass
        return answer

    SETTLED.wrap(around)


#: Each dies when it comes, the first time.
MOMENTS: dict[str, Moment] = {
    "assigned": partial(after, ASSIGNED),
    "read": after_messages,
    "index-made": partial(after, INDEX_MADE),
    "created": partial(after, CREATED),
    "found": partial(after, FOUND),
    "to-be-asked": partial(before, REQUESTED),
    "answered": partial(after, REQUESTED),
    "cached": partial(after, CACHED),
    "half-written": between_bodies,
    "written": partial(after, WRITTEN),
    "worked": partial(after, WORKED),
    "to-be-settled": partial(settling, done=False),
    "settled": partial(settling, done=True),
    "committed": partial(after, COMMITTED),
    "revoked": partial(before, REVOKED),
    "given-up": partial(after, REVOKED),
}


if __name__ == "__main__":
    if moment := os.environ.get("CHAOS_MOMENT"):
        MOMENTS[moment](death)
    if ahead := float(os.environ.get("CHAOS_CLOCK", 0)):
        # All of Python's clocks but the monotonic one, which no host's clock moves.
        time_machine.travel(datetime.now(UTC) + timedelta(seconds=ahead), tick=True).start()
    sys.argv = ["enrich", "consume"]
    app(prog_name="enrich")

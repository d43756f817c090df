"""A message that is not ours is said in one line, counted beside the totals, and gone."""

from __future__ import annotations

import logging

from enrich.errors import EnrichError
from enrich.settings import load_settings
from enrich.wiring import quick_ledger

log = logging.getLogger(__name__)

#: The worker's main process waits meanwhile.
TIMEOUT_SECONDS = 2.0


def drop(why: str) -> str:
    """Say and count it; the line that Flower shows for a task. `why` quotes nothing of it."""
    log.error("a message was dropped: %s", why)
    # A connection of this call's own: a kept one would be inherited by the pool's forks.
    ledger = quick_ledger(load_settings(), TIMEOUT_SECONDS)
    try:
        ledger.counters.add_rejected_message()
    except EnrichError as error:
        log.warning("a dropped message was not counted: %s", error)
    finally:
        ledger.close()
    return f"dropped: {why}"

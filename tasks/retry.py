"""Who is tried again, when, and how often: the retry policy as data and a few pure functions."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

from enrich.backfill import MAX_PAUSE_SECONDS
from enrich.errors import RateLimited

#: Tries after the first; with backoff up to a minute that is about two minutes of trouble.
MAX_RETRIES = 6

#: Waits for a turn within the rate budget, which are no failures; bounded all the same.
MAX_PAUSES = 60

#: Before work that this worker must not do is looked at again; it stops consuming meanwhile.
HAND_ON_SECONDS = 5.0

FIRST_BACKOFF_SECONDS = 2.0
MAX_BACKOFF_SECONDS = 60.0


def backoff(retries: int) -> float:
    """Seconds before the next try: exponential, full jitter, at most a minute.

    Full jitter as in "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015): many workers
    that failed together do not come back together.
    """
    most = min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0**retries)
    return random.uniform(0.1, most)


#: Header of a message that waits: how long, in seconds. Celery's own says until when, by the clock
#: of the host that sent it.
WAIT_HEADER = "wait"


def after(seconds: float) -> dict[str, Any]:
    """Options of a retry that is to wait."""
    return {"countdown": seconds, "headers": {WAIT_HEADER: seconds}}


def due(told: datetime, wait: Any, now: datetime) -> datetime:
    """When a message that came just now is due.

    Hosts whose clocks disagree would hold each other's retries for as long as they differ: what
    counts is the wait that was asked for, from now on. Never longer than any retry of ours waits.

    Args:
        told: when it is due by the clock of its sender.
        wait: its WAIT_HEADER, which may be anything.
    """
    if isinstance(wait, int | float) and 0 <= wait <= MAX_BACKOFF_SECONDS:
        return now + timedelta(seconds=wait)
    return min(told, now + timedelta(seconds=MAX_BACKOFF_SECONDS))


def pause_of(error: RateLimited) -> float:
    """Seconds that the provider's pause asks for."""
    return error.retry_after if error.retry_after is not None else MAX_BACKOFF_SECONDS / 4


def too_long(pause: float) -> str:
    """Why a pause ends the run, or "" if it can be waited for."""
    if pause <= MAX_PAUSE_SECONDS:
        return ""
    until = datetime.now(UTC) + timedelta(seconds=pause)
    return f"rate limited until {until:%Y-%m-%d %H:%M:%S} UTC"

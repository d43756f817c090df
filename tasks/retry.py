"""What becomes of work that failed: one decision, made of plain values by pure functions.

Knows no Celery and no server. A failure is an attempt; a wait for a turn is a snooze and no
attempt, as in River's `JobSnooze`: a pause that the provider asked for, a chunk that another
delivery has, work that other workers have to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from enrich.backfill.chunk import ChunkBusy
from enrich.errors import EnrichError, NoPermit, NotHere, NotYet, RateLimited, TransientError
from enrich.worker.last_resort import reason_of

#: Attempts after the first, at least; with backoff up to a minute they take a minute on average.
MAX_RETRIES = 6

#: Waits for a turn, which are no failures, but have a bound too.
MAX_SNOOZES = 60

#: Waits for a permit: live logs, which go first, may need all of the quota for hours.
MAX_SNOOZES_FOR_PERMITS = 600

#: Before work that this worker must not do is looked at again; it stops consuming meanwhile.
HAND_ON_SECONDS = 5.0

#: Longest pause that open work waits for; asked for a longer one, the run halts.
MAX_PAUSE_SECONDS = 60.0

FIRST_BACKOFF_SECONDS = 2.0
MAX_BACKOFF_SECONDS = 60.0

#: From this attempt on the backoff no longer grows.
_LAST_GROWTH = 10


class WorkerLimit(EnrichError):
    """A task ran into a limit of its worker, of time or of memory. It would again."""


@dataclass(frozen=True, kw_only=True)
class Tries:
    """What a message has been through so far."""

    #: Failures.
    attempts: int = 0
    #: Waits that were no failure.
    snoozes: int = 0
    #: Seconds that were waited after failures, without those of snoozes.
    waited: float = 0.0

    @classmethod
    def of(cls, retries: Any, snoozes: Any, waited: Any) -> Tries:
        """Of what a message says, which may be anything.

        A message of an older version counts some of its snoozes as attempts, and has not waited.

        Args:
            retries: how often it was published again, for whatever reason.
        """
        total = retries if type(retries) is int and retries > 0 else 0
        slept = snoozes if type(snoozes) is int and 0 < snoozes <= total else 0
        known = isinstance(waited, int | float) and 0 <= waited < float("inf")
        return cls(attempts=total - slept, snoozes=slept, waited=float(waited) if known else 0.0)


# -- the decisions


@dataclass(frozen=True)
class Retry:
    """Do it again after so many seconds: it failed."""

    seconds: float


@dataclass(frozen=True)
class Snooze:
    """Do it again after so many seconds: its turn has not come."""

    seconds: float


@dataclass(frozen=True)
class GiveUp:
    """This work is not tried again; what is left of it is deferred, for this reason."""

    reason: str


@dataclass(frozen=True)
class HaltRun:
    """Nothing of the run can go on, for this reason."""

    reason: str


@dataclass(frozen=True)
class Drop:
    """Forget this message: somebody else does its work, or the next tick finds it."""

    reason: str


Decision = Retry | Snooze | GiveUp | HaltRun | Drop


def decide(
    error: Exception, tries: Tries, *, outage_seconds: float, chance: float, now: datetime
) -> Decision:
    """What becomes of work that failed.

    Args:
        outage_seconds: a server that is away for so long is waited for.
        chance: 0 to 1, by which the waits of many workers are spread.
    """
    match error:
        case NotYet():
            # Should the other delivery be lost, this one goes on when its lease has ended.
            seconds = min(error.seconds + 0.1, MAX_BACKOFF_SECONDS)
            elsewhere = isinstance(error, ChunkBusy)
            return _snoozed(tries, seconds, (Drop if elsewhere else GiveUp)(str(error)))
        case NotHere():
            # Dropped, a chunk stays open until its deadline; a page is sent again by a tick.
            return _snoozed(tries, HAND_ON_SECONDS, Drop(str(error)))
        case RateLimited():
            if reason := too_long(error.pause, now):
                return HaltRun(reason)
            most = MAX_SNOOZES_FOR_PERMITS if isinstance(error, NoPermit) else MAX_SNOOZES
            return _snoozed(tries, error.pause, GiveUp(str(error)), most)
        case TransientError():
            # Full jitter may let several tries follow each other at once, so that their number
            # alone would bound no time from below.
            if tries.attempts >= MAX_RETRIES and tries.waited >= outage_seconds:
                return GiveUp(str(error))
            return Retry(backoff(tries.attempts, chance))
        case WorkerLimit():
            return GiveUp(str(error))
        case EnrichError():
            return HaltRun(reason_of(error))
        case _:
            # This work's alone: whose logs brought it about must not stop others'.
            return GiveUp(reason_of(error))


def _snoozed(
    tries: Tries, seconds: float, in_the_end: Decision, most: int = MAX_SNOOZES
) -> Decision:
    return Snooze(seconds) if tries.snoozes < most else in_the_end


def backoff(attempts: int, chance: float) -> float:
    """Seconds before the next try: exponential, full jitter, at most a minute.

    Full jitter as in "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015): many workers
    that failed together do not come back together.
    """
    most = min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(attempts, _LAST_GROWTH))
    return 0.1 + (most - 0.1) * chance


#: Header of a message that waits: how long, in seconds. Celery's own says until when, by the clock
#: of the host that sent it.
WAIT_HEADER = "wait"


def after(seconds: float) -> dict[str, Any]:
    """Options of a retry that is to wait."""
    return {"countdown": seconds, "headers": {WAIT_HEADER: seconds}}


def due(told: datetime, wait: Any, now: datetime) -> datetime:
    """When a message that came just now is due.

    Hosts whose clocks disagree would hold each other's retries for as long as they differ: what
    counts is the wait that was asked for, from now on. Never longer than our longest retry.

    Args:
        told: when it is due by the clock of its sender.
        wait: its WAIT_HEADER, which may be anything.
    """
    if isinstance(wait, int | float) and 0 <= wait <= MAX_BACKOFF_SECONDS:
        return now + timedelta(seconds=wait)
    return min(told, now + timedelta(seconds=MAX_BACKOFF_SECONDS))


def too_long(pause: float, now: datetime) -> str:
    """Why a pause ends the run, or "" if it can be waited for.

    Args:
        pause: seconds.
        now: in UTC.
    """
    if pause <= MAX_PAUSE_SECONDS:
        return ""
    until = now + timedelta(seconds=pause)
    return f"rate limited until {until:%Y-%m-%d %H:%M:%S} UTC"

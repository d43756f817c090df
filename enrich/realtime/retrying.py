"""When a batch that failed is tried again, and when its logs are left. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from enrich.errors import Halt, IndexInTrouble, NotYet, RateLimited, TransientError
from enrich.log_store import RequestRefused

#: How often a batch is tried whose indices are in trouble, before its logs are left: others of the
#: partition shall not wait for them.
TRIES = 5

#: Seconds between two tries: the first pause, and the longest.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0


@dataclass(frozen=True, slots=True)
class Again:
    """What to do with a batch."""

    seconds: float
    #: Whether what has no vector by then is left to the backfill.
    give_up: bool = False
    #: Whether what was found of servers and indices has to be found anew.
    look_again: bool = False


def again(error: BaseException, tries: int) -> Again | None:
    """What is done after an error; None for one that was not foreseen.

    Args:
        tries: how often the batch has been tried, with this time.
    """
    seconds = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(tries - 1, 10))
    if isinstance(error, RateLimited):
        return Again(min(max(error.pause, 0.1), LONGEST_PAUSE))
    if isinstance(error, NotYet):
        return Again(min(error.seconds, LONGEST_PAUSE))
    if isinstance(error, IndexInTrouble | RequestRefused):
        return Again(seconds, give_up=tries >= TRIES)
    if isinstance(error, Halt):
        return Again(LONGEST_PAUSE, look_again=True)
    if isinstance(error, TransientError):
        return Again(seconds)
    return None

"""Beat's schedule: in memory, and by a clock that nobody sets.

Celery's own keeps a file, which it unpickles at the next start from a folder that others may write
to, and measures intervals by the host's clock: set back by an hour, it would not tick for an hour.
Nothing is lost without the file. A beat that starts ticks at once, and the ledger ends a tick that
comes too soon after the last run began.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from celery.beat import Scheduler, SchedulingError

log = logging.getLogger(__name__)

#: Seconds until an entry that could not be sent is sent again.
RETRY_SECONDS = 5.0


class SteadyScheduler(Scheduler):  # type: ignore[misc]
    """Sends each entry at once, and then at its interval. Named by `beat_scheduler`.

    Entries are plain intervals: `schedule` of celeryconfig.py in seconds.
    """

    def __init__(
        self, *args: Any, clock: Callable[[], float] = time.monotonic, **kwargs: Any
    ) -> None:
        self._clock = clock
        #: When each entry is due, by `clock`.
        self._due: dict[str, float] = {}
        #: Called whenever beat wakes, with the seconds until it wakes again.
        self.note: Callable[[float], object] = lambda within: None
        super().__init__(*args, **kwargs)

    def tick(self, *_: Any, **__: Any) -> float:
        """Send what is due; the seconds until something is."""
        now = self._clock()
        for name, entry in list(self.schedule.items()):
            if self._due.setdefault(name, now) <= now:
                self._send(name, entry)
        waits = [due - self._clock() for due in self._due.values()]
        wait = max(0.0, min([float(self.max_interval), *waits]))
        self.note(wait)
        return wait

    def _send(self, name: str, entry: Any) -> None:
        log.info("sending due task %s", name)
        try:
            # The connection waits for a Redis that is away, and tries again by itself.
            self.apply_async(self.reserve(entry), producer=self.producer, advance=False)
        except SchedulingError as error:
            log.error("%s; it is sent again in %d seconds", error, RETRY_SECONDS)
            self._due[name] = self._clock() + RETRY_SECONDS
        else:
            self._due[name] = self._clock() + entry.schedule.seconds

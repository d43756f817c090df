"""A delivery as the worker's main process handles it: how long it waits, and what a child without
memory means for it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from celery.worker.request import Request
from celery.worker.state import task_ready

from tasks.retry import WAIT_HEADER, due

log = logging.getLogger(__name__)


class OwnRequest(Request):
    """Waits by this host's clock, and ends alone."""

    _eta: datetime | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self._eta is not None:
            wait = self._request_dict.get(WAIT_HEADER)
            self._eta = due(self._eta, wait, datetime.now(UTC))

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> None:
        failure = exc_info.exception
        if not isinstance(getattr(failure, "exc", failure), MemoryError):
            super().on_failure(exc_info, *args, **kwargs)
            return
        # Celery would raise it here, which ends the whole worker (its issue 10462).
        log.error(
            "%s ran out of memory; what it was to do is found again by the next tick", self.name
        )
        task_ready(self)
        self.acknowledge()

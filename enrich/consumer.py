"""Celery's consumer, which looks at a message before it handles it, and drops what is not ours.

Celery unpacks bodies and headers in the worker's main process and catches only its own errors
there: others would end the worker, or leave the message to come back for ever.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celery.exceptions import InvalidTaskError
from celery.worker.consumer import Consumer
from kombu.exceptions import ContentDisallowed, DecodeError

from enrich.dropping import drop
from enrich.envelope import UNREADABLE, check_task, why_unreadable

log = logging.getLogger(__name__)


class CheckedConsumer(Consumer):  # type: ignore[misc]
    """Named by `worker_consumer` in celeryconfig.py."""

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        handle = super().create_task_handler(*args, **kwargs)

        def checked(message: Any) -> None:
            try:
                check_task(message.headers, message.payload, self.strategies)
                handle(message)
            except (*UNREADABLE, AttributeError, ContentDisallowed, DecodeError) as error:
                self._drop(message, error)

        return checked

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        self._drop(message, exc)

    def on_invalid_task(self, body: Any, message: Any, exc: InvalidTaskError) -> None:
        self._drop(message, exc)

    def _drop(self, message: Any, error: Exception) -> None:
        if not message.acknowledged:
            message.reject_log_error(log, self.connection_errors)
        drop(why_unreadable(error))

"""Celery's consumer, which looks at a message before it handles it, and drops what is not ours.

Celery unpacks bodies and headers in the worker's main process and catches only its own errors
there: others would end the worker, or leave the message to come back for ever. It connects again
whatever Redis answered: where that is a right which is missing, the worker says so and ends.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celery.exceptions import InvalidTaskError, WorkerShutdown
from celery.worker.consumer import Consumer
from kombu.exceptions import ContentDisallowed, DecodeError

from enrich.errors import Halt
from enrich.redis_client import refused
from enrich.worker.envelope import UNREADABLE, check_task, why_unreadable
from enrich.worker.reject import drop

#: Of a worker that a server refuses, as of a command.
EXIT_STATUS = 3

log = logging.getLogger(__name__)


class CheckedConsumer(Consumer):  # type: ignore[misc]
    """Named by `worker_consumer` in celeryconfig.py."""

    def start(self) -> None:
        try:
            super().start()
        except Halt as error:
            self._end(error)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        named = refused(exc)
        if isinstance(named, Halt):
            self._end(named)
        super().on_connection_error_after_connected(exc)

    def _end(self, error: Halt) -> None:
        log.critical("the worker ends: %s", error)
        raise WorkerShutdown(EXIT_STATUS)

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

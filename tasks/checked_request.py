"""A delivery, checked before any task of ours runs.

One whose body is no task's is refused by itself, instead of ending the whole worker: Celery
unpacks the body here and catches only its own errors. One that is to wait does so by this host's
clock.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from celery.exceptions import InvalidTaskError
from celery.worker.request import Request

from tasks.retry import WAIT_HEADER, due


class CheckedRequest(Request):
    """Says what it cannot read in the one way that the consumer logs and drops."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().__init__(*args, **kwargs)
            if self._eta is not None:
                wait = self._request_dict.get(WAIT_HEADER)
                self._eta = due(self._eta, wait, datetime.now(UTC))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise InvalidTaskError(f"not a task's message ({type(error).__name__})") from None

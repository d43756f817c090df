"""A delivery whose body is no task's is refused by itself, instead of ending the whole worker.

Celery unpacks the body before any task of ours runs and catches only its own errors there.
"""

from __future__ import annotations

from typing import Any

from celery.exceptions import InvalidTaskError

from tasks.own_request import OwnRequest


class CheckedRequest(OwnRequest):
    """Says what it cannot read in the one way that the consumer logs and drops."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().__init__(*args, **kwargs)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise InvalidTaskError(f"not a task's message ({type(error).__name__})") from None

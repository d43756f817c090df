"""What every line of the log says of the work at hand: which run, and which chunk of it.

Bound once where a move begins; whatever is logged below, in any room, carries it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_RUN: ContextVar[str] = ContextVar("run", default="-")
_CHUNK: ContextVar[str] = ContextVar("chunk", default="-")


@contextmanager
def bound(run: str, chunk: str = "") -> Iterator[None]:
    """Lines logged within are of this run, and of this chunk of it."""
    run_before, chunk_before = _RUN.set(run or "-"), _CHUNK.set(chunk or "-")
    try:
        yield
    finally:
        _RUN.reset(run_before)
        _CHUNK.reset(chunk_before)


class ContextFields(logging.Filter):
    """Gives every record its `run` and `chunk`, "-" where there is none."""

    def filter(self, record: logging.LogRecord) -> bool:
        for name, bound_to in (("run", _RUN), ("chunk", _CHUNK)):
            if not hasattr(record, name):
                setattr(record, name, bound_to.get())
        return True

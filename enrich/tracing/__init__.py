"""Spans of what is done, for whoever traces; nothing is recorded, and nothing costs, until
`record_with`.

A trace is a run, and its id follows from the run's, so that no message has to carry it. What is not
part of a run is not recorded.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Protocol

#: Never text of a log, a query, a key or a vector.
Attribute = str | int | float


class Recorder(Protocol):
    """Where spans go."""

    def part_of(
        self, run: str, name: str, attributes: dict[str, Attribute]
    ) -> AbstractContextManager[object]: ...

    def span(
        self, name: str, attributes: dict[str, Attribute]
    ) -> AbstractContextManager[object]: ...

    def ended(
        self,
        run: str,
        began: datetime,
        ended: datetime,
        attributes: dict[str, Attribute],
        *,
        well: bool,
    ) -> None: ...

    def close(self) -> None:
        """Send what was not sent yet."""
        ...


_recorder: Recorder | None = None


def record_with(recorder: Recorder | None) -> None:
    """From now on, in this process; None: no more."""
    global _recorder
    _recorder = recorder


def part_of(run: str, name: str, **attributes: Attribute) -> AbstractContextManager[object]:
    """Something that is done for a run; "" for none."""
    if _recorder is None or not run:
        return nullcontext()
    return _recorder.part_of(run, name, {"enrich.run": run, **attributes})


def span(name: str, **attributes: Attribute) -> AbstractContextManager[object]:
    """A server's call within."""
    if _recorder is None:
        return nullcontext()
    return _recorder.span(name, attributes)


def ended(
    run: str, began: datetime | None, ended: datetime | None, *, well: bool, **attributes: Attribute
) -> None:
    """A run, once it is over: the span that all of its parts are in."""
    if _recorder is not None and began is not None and ended is not None:
        _recorder.ended(run, began, ended, {"enrich.run": run, **attributes}, well=well)


def close() -> None:
    """Before the process ends."""
    if _recorder is not None:
        _recorder.close()
        record_with(None)

"""One log of a file, as far as it was read."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(slots=True)
class Entry:
    """One log of a file, as far as it was read."""

    lines: list[str]
    level: str | None = None
    timestamp: datetime | None = None
    service_name: str | None = None
    logger: str | None = None
    size: int = 0
    extra: dict[str, Any] = field(default_factory=dict)
    #: Begun by a time or a level: whatever has none of its own goes on with this log.
    headed: bool = False
    #: What stood before the text: a trace whose lines all carry it is one log.
    prefix: str = ""
    #: The text with its indentation, where nothing but a time stood before it.
    raw: str = ""
    #: Its time had a line of its own, hence the text says the level, if any does.
    apart: bool = False
    from_json: bool = False
    #: Begun by a report of failure, such as "panic:", without a time or a level.
    alarm: bool = False

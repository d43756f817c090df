"""How far something is that lasts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What is done, and how many logs of how many."""

    what: str
    done: int
    total: int

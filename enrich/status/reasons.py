"""What is so of the system, in a word and a sentence: what the health is made of."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel

#: What is at work and has not moved for so long stands still.
QUIET_SECONDS = 120.0

#: Characters of another's words within a sentence.
MAX_QUOTED = 300

CHECK = "`python -m enrich check` says what to change"


class Word(StrEnum):
    """From worst to best."""

    UNKNOWN = "Unknown"
    HALTED = "Halted"
    DEGRADED = "Degraded"
    PAUSED = "Paused"
    LATE = "Late"
    WORKING = "Working"
    HEALTHY = "Healthy"


class Reason(BaseModel):
    """One thing that is so."""

    code: str
    word: Word
    sentence: str
    #: The command that helps, or the setting to change; "" where nothing has to be done.
    remedy: str = ""
    #: What `status` ends with for this.
    exit_status: int = 0


def told(sentence: str, remedy: str) -> str:
    return f"{sentence}: {remedy}" if remedy else sentence


def quoted(words: str) -> str:
    """Others' words within a sentence: one line of bounded length."""
    line = " ".join(words.split())
    return line if len(line) <= MAX_QUOTED else line[: MAX_QUOTED - 1] + "…"

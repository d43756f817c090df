"""What a chat model makes of a sample: words, and estimates of its own beside the statistical ones.

It is told what the sample says, of which no number comes from a count, and no log. Whatever it
answers, the statistical estimates stay as they are; without an opinion its place says why.
Pure; `chat_model` asks one over HTTP.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from enrich.analysis.sampling import Estimate, Estimates

#: Characters of its words.
MOST_WORDS = 2000
#: More logs than any cluster has: beyond is nonsense.
MOST_LOGS = 10**15

TASK = (
    "You are told what a simple random sample of a project's logs says of all of them: estimates "
    "with 95 % intervals. Say in two to four sentences of plain English how far they can be relied "
    "on and why, and give your own estimates of the numbers of logs. Use the numbers that you are "
    "told and no others. Answer with one JSON object of these fields: reasoning (text), "
    "estimated_total_logs, estimated_error_count, estimated_warn_count, estimated_info_count "
    "(whole numbers)."
)


class Status(StrEnum):
    """What came of asking."""

    ANSWERED = "answered"
    NOT_SET = "not_set"
    LATE = "late"
    REFUSED = "refused"
    UNUSABLE = "unusable"
    FAILED = "failed"


@dataclass(frozen=True)
class NoOpinion:
    """Why there is none, in a sentence that quotes nobody."""

    status: Status
    note: str


class Opinion(BaseModel):
    """Words and estimates of a chat model."""

    model_config = ConfigDict(strict=True, frozen=True)

    reasoning: str = Field(min_length=1)
    estimated_total_logs: int = Field(ge=0, le=MOST_LOGS)
    estimated_error_count: int = Field(ge=0, le=MOST_LOGS)
    estimated_warn_count: int = Field(ge=0, le=MOST_LOGS)
    estimated_info_count: int = Field(ge=0, le=MOST_LOGS)

    @property
    def error_rate(self) -> float:
        """In %."""
        total = self.estimated_total_logs
        return 100 * self.estimated_error_count / total if total else 0.0


class Commentator(Protocol):
    """Whoever has opinions on samples."""

    @property
    def model(self) -> str:
        """Its name; "" where there is none."""
        ...

    def opinion(self, estimates: Estimates) -> Opinion | NoOpinion: ...
    def close(self) -> None: ...


class Nobody:
    """In place of a chat model, where CHAT_MODEL is not set."""

    model = ""

    def opinion(self, estimates: Estimates) -> NoOpinion:
        return NoOpinion(Status.NOT_SET, "No chat model is set (CHAT_MODEL).")

    def close(self) -> None:
        pass


NOBODY = Nobody()

#: Of no logs nobody is asked.
NO_LOGS = NoOpinion(Status.NOT_SET, "There are no logs.")

#: The form of an answer, as structured output has it. Bounds are looked at when it is read: not
#: every endpoint takes them.
ANSWER_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        name: {"type": "string" if name == "reasoning" else "integer"}
        for name in Opinion.model_fields
    },
    "required": list(Opinion.model_fields),
    "additionalProperties": False,
}


def told_of(estimates: Estimates) -> str:
    """What the model is sent of a sample: its estimates alone, as JSON."""
    return json.dumps(
        {
            "logs_read": estimates.read,
            "every_log_was_read": estimates.census,
            "total_logs": _told(estimates.total),
            "error_logs": _told(estimates.error),
            "warn_logs": _told(estimates.warn),
            "info_logs": _told(estimates.info),
            "error_rate_percent": _told(estimates.error_rate),
        }
    )


def _told(estimate: Estimate) -> dict[str, Any]:
    return {
        "estimate": round(estimate.value, 2),
        "low": round(estimate.low, 2),
        "high": round(estimate.high, 2),
        "kind": estimate.kind.value,
    }


def read_opinion(text: str, estimates: Estimates) -> Opinion | NoOpinion:
    """An answer's opinion, or what is wrong with it."""
    try:
        found = Opinion.model_validate(_object_in(text))
    except (ValidationError, ValueError, RecursionError):
        return _unusable("is not of the form that was asked for")
    # Lines and words alone: a terminal obeys what else there may be.
    words = "".join(one for one in found.reasoning if one.isprintable() or one == "\n").strip()
    if not words:
        return _unusable("is not of the form that was asked for")
    levels = (found.estimated_error_count, found.estimated_warn_count, found.estimated_info_count)
    if max(levels) > found.estimated_total_logs:
        return _unusable("has more logs of one level than of all")
    if found.estimated_total_logs < estimates.read:
        return _unusable("has fewer logs than were read")
    return found.model_copy(update={"reasoning": words[:MOST_WORDS]})


def _object_in(text: str) -> Any:
    """The JSON object of an answer, also between other words, as models put it that know no
    structured output. Raises ValueError, RecursionError."""
    with suppress(ValueError):
        return json.loads(text)
    return json.loads(text[text.find("{") : text.rfind("}") + 1])


def _unusable(why: str) -> NoOpinion:
    return NoOpinion(Status.UNUSABLE, f"The chat model's answer {why}.")

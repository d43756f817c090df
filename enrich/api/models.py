"""What the routes of /api/v1 take and give."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

#: Logs of one batch.
MOST_LOGS = 1000


class TextIn(BaseModel):
    """One text."""

    text: str = Field(min_length=1, pattern=r"\S", examples=["connection refused by the database"])


class EmbeddingOut(BaseModel):
    """Its vector."""

    embedding: list[float]
    dimension: int = Field(examples=[1536])


class LogIn(BaseModel):
    """One log of a batch."""

    log_id: str = Field(max_length=512, examples=["5d2c7b1e"])
    message: str = Field(examples=["connection refused by the database"])
    trace_id: str | None = Field(None, max_length=512)


class BatchIn(BaseModel):
    """Logs that want a vector each."""

    logs: Annotated[list[LogIn], Field(min_length=1, max_length=MOST_LOGS)]


class Reason(BaseModel):
    """Why a log has no vector."""

    code: str = Field(examples=["message_empty"])
    message: str


class BatchItem(BaseModel):
    """What came of one log: a vector, or a reason."""

    log_id: str
    embedding: list[float] | None = None
    error: Reason | None = None


class BatchOut(BaseModel):
    """In the order of the logs."""

    embeddings: list[BatchItem]
    #: Of those with a vector.
    count: int
    model: str


class HitOut(BaseModel):
    """A text that was found, and where the nearest log with it is."""

    #: Cosine, −1 to 1.
    cosine: float
    index: str
    id: str
    #: Logs that have the text, and the indices of some.
    logs: int
    indices: list[str]
    message: str | None = None
    service_name: str | None = None
    timestamp: str | None = None


class SearchOut(BaseModel):
    """The nearest first."""

    hits: list[HitOut]
    #: What the search left out, in sentences.
    left_out: list[str] = []


class GroupOut(BaseModel):
    """Logs that say the same, in the same words or nearly so."""

    logs: int
    #: Different texts among them.
    texts: int
    #: ISO 8601, in UTC.
    first_seen: str | None = None
    last_seen: str | None = None
    #: One of the logs with the text that most of them have.
    index: str
    id: str
    indices: list[str]
    message: str | None = None
    service_name: str | None = None


class GroupsOut(BaseModel):
    """The largest first."""

    groups: list[GroupOut]
    #: Logs of groups that were found and are not among these.
    logs_of_other_groups: int
    #: Logs of texts that are too rare to have been looked at.
    logs_of_rarer_texts: int
    #: What the search left out, in sentences.
    left_out: list[str] = []


class ReadyOut(BaseModel):
    """Whether each server that is needed answers: "ok", or why not."""

    ready: bool
    servers: dict[str, str]

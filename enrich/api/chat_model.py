"""The connection to the chat model: what a sample says out, an opinion in, or why there is none.

Nothing depends on it, so that it raises nothing of what may happen at the other end. No part of an
answer but the checked opinion leaves this module.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import openai

from enrich.analysis.sampling import Estimates
from enrich.api.opinions import (
    ANSWER_SCHEMA,
    TASK,
    NoOpinion,
    Opinion,
    Status,
    read_opinion,
    told_of,
)
from enrich.embedding.transport import IDENTITY, AnswerRefused, BoundedClient

log = logging.getLogger(__name__)

#: Of one answer; an opinion has a few hundred.
MOST_BYTES = 256 * 1024

#: For so long it is not asked again once it was late or out of reach: each caller would wait.
PAUSE_SECONDS = 30.0

_FORM = {
    "type": "json_schema",
    "json_schema": {"name": "opinion", "strict": True, "schema": ANSWER_SCHEMA},
}


@dataclass(frozen=True, kw_only=True)
class ChatAddress:
    """Where and as whom a chat model is asked."""

    model: str
    #: `/chat/completions` is put behind it.
    base_url: str
    key: str = field(repr=False)
    query: Mapping[str, str] = field(default_factory=dict)
    #: May have secrets.
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: Whether the key is sent as `Authorization: Bearer`.
    bearer: bool = True
    #: See `BoundedClient`.
    proxy: str = field(default="", repr=False)


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Answer(msgspec.Struct):
    choices: list[_Choice] = []


class ChatModel:
    """A model that is asked over OpenAI's protocol; may be used by several threads."""

    def __init__(
        self, address: ChatAddress, *, seconds: float, pause_seconds: float = PAUSE_SECONDS
    ) -> None:
        """
        Args:
            seconds: for the whole answer.

        Raises:
            SettingsError: what is said of proxies and authorities is wrong.
        """
        self.model = address.model
        self._seconds = seconds
        self._pause_seconds = pause_seconds
        self._paused_until = 0.0
        self._bearer = address.bearer
        self._structured = True
        self._client = openai.OpenAI(
            base_url=address.base_url,
            api_key=address.key,
            max_retries=0,
            timeout=seconds,
            default_query=dict(address.query) or None,
            default_headers={**address.headers, **IDENTITY},
            http_client=BoundedClient(seconds=seconds, most_bytes=MOST_BYTES, proxy=address.proxy),
        )

    def close(self) -> None:
        self._client.close()

    def opinion(self, estimates: Estimates) -> Opinion | NoOpinion:
        if time.monotonic() < self._paused_until:
            return NoOpinion(
                Status.LATE,
                "The chat model did not answer lately, and is not asked again before "
                f"{self._pause_seconds:g} s are over.",
            )
        found = self._asked(estimates)
        if isinstance(found, NoOpinion):
            log.warning("chat model %s: %s", self.model, found.note)
        return found

    def _asked(self, estimates: Estimates) -> Opinion | NoOpinion:
        try:
            body = self._ask(told_of(estimates))
        except openai.APITimeoutError:
            self._pause()
            return NoOpinion(
                Status.LATE, f"The chat model did not answer within {self._seconds:g} s."
            )
        except openai.APIStatusError as error:
            return NoOpinion(Status.FAILED, f"The chat model's API answered {error.status_code}.")
        except (openai.APIConnectionError, AnswerRefused):
            self._pause()
            return NoOpinion(Status.FAILED, "The chat model's API gave no whole answer.")
        except openai.OpenAIError as error:
            return NoOpinion(
                Status.FAILED, f"Asking the chat model failed ({type(error).__name__})."
            )
        return _read(body, estimates)

    def _ask(self, told: str) -> bytes:
        """The body of the answer. Raises openai.OpenAIError, AnswerRefused."""
        if not self._structured:
            return self._sent(told, {})
        try:
            return self._sent(told, {"response_format": _FORM})
        except (openai.BadRequestError, openai.UnprocessableEntityError):
            # Many servers know no structured output, and models then follow the task's words.
            body = self._sent(told, {})
            self._structured = False
            return body

    def _sent(self, told: str, options: dict[str, Any]) -> bytes:
        if not self._bearer:
            options = {**options, "extra_headers": {"Authorization": openai.omit}}
        answer = self._client.chat.completions.with_raw_response.create(
            model=self.model,
            messages=[{"role": "system", "content": TASK}, {"role": "user", "content": told}],
            **options,
        )
        return answer.http_response.content

    def _pause(self) -> None:
        self._paused_until = time.monotonic() + self._pause_seconds


def _read(body: bytes, estimates: Estimates) -> Opinion | NoOpinion:
    try:
        choices = msgspec.json.decode(body, type=_Answer).choices
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return NoOpinion(Status.UNUSABLE, "The chat model's API did not answer as it should.")
    message = choices[0].message if choices else _Message()
    if message.refusal or (choices and choices[0].finish_reason == "content_filter"):
        return NoOpinion(Status.REFUSED, "The chat model refuses to answer.")
    return read_opinion(message.content or "", estimates)

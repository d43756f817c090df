"""OpenAI's embeddings protocol from the service's side: a request read and checked, an answer made.

What is refused, and in which words, is as the real service does it. Nothing here keeps any state.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import orjson

from dev.embedding_model import DEFAULT_DIMENSIONS, NATIVE_DIMENSIONS, Model, Reading, Vectors

#: The real service's limits on one request.
MAX_INPUTS = 2048
MAX_TOKENS_PER_INPUT = 8192
MAX_TOKENS_PER_REQUEST = 300_000


#: What a service makes of a request for base64: most serve it, some answer with lists of numbers
#: all the same, some refuse it, and some answer with no vectors.
Base64Support = Literal["served", "ignored", "refused", "unanswered"]


class Refusal(Exception):
    """A request the service does not serve, as the error body that says so."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A valid request."""

    model: str
    texts: list[str]
    readings: list[Reading]
    dimensions: int
    base64: bool

    @property
    def token_count(self) -> int:
        return sum(reading.tokens for reading in self.readings)


def read_request(
    body: bytes,
    model: Model,
    *,
    dimensions_ignored: bool = False,
    only_dimensions: int | None = None,
    base64_support: Base64Support = "served",
) -> Ask:
    """Parse and check a request as the real service does.

    Args:
        dimensions_ignored: answer with the model's native length whatever was asked for.
        only_dimensions: the length of a model that has no other, and refuses to be asked for one.
        base64_support: what becomes of a request for it.

    Raises:
        Refusal: with the error body that the real service answers.
    """
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, "We could not parse the JSON body of your request.") from error
    if not isinstance(fields, dict):
        raise Refusal(400, "The body of the request must be a JSON object.")

    name = fields.get("model")
    if not isinstance(name, str) or not name:
        raise Refusal(400, "you must provide a model parameter", param="model")
    check_model(name)

    texts = _check_input(fields.get("input"))
    if only_dimensions:
        if fields.get("dimensions") is not None:
            raise Refusal(400, f"{name} has one size: its dimensions cannot be chosen.")
        dimensions = only_dimensions
    elif dimensions_ignored:
        dimensions = NATIVE_DIMENSIONS[name]
    else:
        dimensions = _check_dimensions(name, fields.get("dimensions"))
    encoding = fields.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise Refusal(
            400,
            "Invalid value for 'encoding_format': expected 'float' or 'base64'.",
            param="encoding_format",
            code="invalid_value",
        )
    if encoding == "base64" and base64_support == "refused":
        raise Refusal(400, "base64 encoding is not supported.")

    readings = model.read(texts)
    longest = max(reading.tokens for reading in readings)
    if longest > MAX_TOKENS_PER_INPUT:
        raise Refusal(
            400,
            f"This model's maximum context length is {MAX_TOKENS_PER_INPUT} tokens, however "
            f"you requested {longest} tokens ({longest} in your prompt; 0 for the "
            "completion). Please reduce your prompt; or completion length.",
        )
    ask = Ask(
        model=name,
        texts=texts,
        readings=readings,
        dimensions=dimensions,
        base64=encoding == "base64" and base64_support != "ignored",
    )
    if ask.token_count > MAX_TOKENS_PER_REQUEST:
        raise Refusal(
            400,
            f"Requested {ask.token_count} tokens, max {MAX_TOKENS_PER_REQUEST} tokens per request",
            kind="max_tokens_per_request",
            code="max_tokens_per_request",
        )
    return ask


def check_model(name: str) -> None:
    """Raises Refusal (404) for a model that is not served."""
    if name not in NATIVE_DIMENSIONS:
        raise Refusal(
            404,
            f"The model `{name}` does not exist or you do not have access to it.",
            code="model_not_found",
        )


def _check_input(given: object) -> list[str]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts:
        raise Refusal(
            400, "'$.input' is invalid: expected a text or a list of texts.", param="input"
        )
    if len(texts) > MAX_INPUTS:
        raise Refusal(
            400,
            f"Invalid 'input': array too long. Expected an array with maximum length "
            f"{MAX_INPUTS}, but got an array with length {len(texts)} instead.",
            param="input",
            code="array_above_max_length",
        )
    for text in texts:
        if not isinstance(text, str):
            raise Refusal(
                400, "'$.input' is invalid: token arrays are not served here.", param="input"
            )
        if not text:
            raise Refusal(400, "'$.input' is invalid: input cannot be empty.", param="input")
    return texts


def _check_dimensions(model: str, dimensions: object) -> int:
    native = NATIVE_DIMENSIONS[model]
    if dimensions is None:
        return DEFAULT_DIMENSIONS
    if isinstance(dimensions, bool) or not isinstance(dimensions, int) or dimensions < 1:
        raise Refusal(
            400,
            "Invalid value for 'dimensions': expected an integer of at least 1.",
            param="dimensions",
            code="invalid_value",
        )
    if model == "text-embedding-ada-002":
        raise Refusal(400, "This model does not support specifying dimensions.")
    if dimensions > native:
        raise Refusal(
            400,
            f"Invalid value for 'dimensions' = {dimensions}. Must be less than or equal to "
            f"{native}.",
            param="dimensions",
            code="invalid_value",
        )
    return dimensions


def render(ask: Ask, rows: Sequence[tuple[int | None, Vectors]]) -> bytes:
    """The body of an answer: each row a vector under the `index` that it shall be named with, if
    with any."""
    if ask.base64:
        # The protocol's byte order, whatever this machine's is.
        encoded: list[Any] = [
            base64.b64encode(row.astype("<f4").tobytes()).decode() for _, row in rows
        ]
    else:
        encoded = [row for _, row in rows]
    answer = {
        "object": "list",
        "data": [
            {
                "object": "embedding",
                **({} if index is None else {"index": index}),
                "embedding": vector,
            }
            for (index, _), vector in zip(rows, encoded, strict=True)
        ],
        "model": ask.model,
        "usage": {"prompt_tokens": ask.token_count, "total_tokens": ask.token_count},
    }
    if not ask.base64 and not all(np.isfinite(row).all() for _, row in rows):
        # JSON has no such numbers; services that leak them write them as Python does.
        return json.dumps(answer, default=lambda row: row.tolist()).encode()
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)

"""OpenAI's own form of a request for embeddings and of its answer. Pure.

What is refused, and in which words and shapes, is as its service does it, so that a client that
knows OpenAI's errors knows ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import numpy as np
import orjson
from pybase64 import b64encode

from enrich.api.refusals import Refusal
from enrich.vectors import Vector

#: OpenAI's limit on one request.
MOST_INPUTS = 2048

#: Models whose vectors may be cut to fewer dimensions, by the beginning of their names.
_CAN_BE_CUT = "text-embedding-3-"


Encoding = Literal["float", "base64"]

_ENCODINGS: dict[Any, Encoding] = {None: "float", "float": "float", "base64": "base64"}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request that can be served."""

    texts: list[str]
    dimensions: int
    encoding: Encoding


class _Body(msgspec.Struct):
    input: Any = None
    model: Any = None
    dimensions: Any = None
    encoding_format: Any = None
    user: Any = None


@dataclass(frozen=True, kw_only=True)
class Form:
    """Reads and writes for one model."""

    model: str
    #: Of the vectors that are kept.
    dimensions: int
    _decoder: msgspec.json.Decoder[_Body] = field(
        default_factory=lambda: msgspec.json.Decoder(_Body), repr=False
    )

    def read(self, body: bytes) -> Asked:
        """Raises Refusal: it cannot be served; the texts stand in no message."""
        try:
            given = self._decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Refusal(400, "We could not parse the JSON body of your request.") from None
        if not isinstance(given.model, str) or not given.model:
            raise Refusal(400, "you must provide a model parameter", param="model")
        if given.model != self.model:
            raise Refusal(
                404,
                f"The model does not exist here: this service has {self.model}.",
                param="model",
                code="model_not_found",
            )
        if not isinstance(given.user, str | None):
            raise Refusal(400, "'user' must be a string.", param="user")
        encoding = _ENCODINGS.get(_hashable(given.encoding_format))
        if encoding is None:
            raise Refusal(
                400,
                "Invalid value for 'encoding_format': expected 'float' or 'base64'.",
                param="encoding_format",
                code="invalid_value",
            )
        return Asked(
            texts=_texts(given.input),
            dimensions=self._dimensions(given.dimensions),
            encoding=encoding,
        )

    def _dimensions(self, given: Any) -> int:
        if given is None:
            return self.dimensions
        if isinstance(given, bool) or not isinstance(given, int) or given < 1:
            raise Refusal(400, "'dimensions' must be a positive integer.", param="dimensions")
        if given > self.dimensions:
            raise Refusal(
                400,
                f"This service has vectors of {self.dimensions} dimensions: ask for as many or "
                "fewer.",
                param="dimensions",
            )
        if given < self.dimensions and not self.model.startswith(_CAN_BE_CUT):
            raise Refusal(
                400,
                f"{self.model} has one size here, {self.dimensions}: its vectors cannot be cut.",
                param="dimensions",
            )
        return given

    def answer(self, asked: Asked, vectors: Sequence[Vector], tokens: int) -> bytes:
        """The answer's body.

        Args:
            vectors: in the order of the texts.
            tokens: what was paid for; what was known costs none.
        """
        cut = [shortened(vector, asked.dimensions) for vector in vectors]
        data = [
            {"object": "embedding", "index": index, "embedding": _written(vector, asked.encoding)}
            for index, vector in enumerate(cut)
        ]
        return orjson.dumps(
            {
                "object": "list",
                "data": data,
                "model": self.model,
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            },
            option=orjson.OPT_SERIALIZE_NUMPY,
        )

    def models(self) -> dict[str, Any]:
        """The answer to `GET /v1/models`."""
        one = {"id": self.model, "object": "model", "created": 0, "owned_by": "enrich"}
        return {"object": "list", "data": [one]}


def _written(vector: Vector, encoding: Encoding) -> Any:
    if encoding == "float":
        return vector
    # Put in as it is: its letters need no escapes, and to look at them takes longer than to write
    # them.
    return orjson.Fragment(b'"%b"' % b64encode(vector.data))


def _hashable(value: Any) -> Any:
    return value if isinstance(value, str | None) else ""


def _texts(given: Any) -> list[str]:
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, list) or not given:
        raise Refusal(400, "'input' must be a string or a list of strings.", param="input")
    if len(given) > MOST_INPUTS:
        raise Refusal(
            400, f"'input' has more than {MOST_INPUTS} items: send them in parts.", param="input"
        )
    if all(isinstance(one, int | list) for one in given):
        raise Refusal(
            400,
            "'input' is a list of tokens: this service knows vectors by their texts, send these.",
            param="input",
        )
    if not all(isinstance(one, str) for one in given):
        raise Refusal(400, "'input' must be a string or a list of strings.", param="input")
    if not all(given):
        raise Refusal(400, "'input' cannot be an empty string.", param="input")
    return given


def shortened(vector: Vector, dimensions: int) -> Vector:
    """The first of a vector's numbers, as a unit vector again; all of them as they are."""
    if len(vector) == dimensions:
        return vector
    first = vector[:dimensions].astype(np.float64)
    length = float(np.linalg.norm(first))
    return (first / length if length else first).astype("<f4")

"""The line to the embeddings API: texts in, verified vectors out, its refusals in our words.

The only importer of openai. Works with any endpoint that speaks OpenAI's protocol. Answers are
decoded here, not by the client's models, because a hundred vectors are a hundred and fifty
thousand numbers; and nothing of an answer is trusted before it was checked. The texts of its
errors may quote the input, so only status and code ever leave this module.
"""

from __future__ import annotations

import binascii
import logging
import math
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

import msgspec
import numpy as np
import openai
from pybase64 import b64decode

from enrich.errors import (
    EnrichError,
    Halt,
    InputRefused,
    RateLimited,
    RequestTooLarge,
    ServerUnavailable,
    TransientError,
    cause_of,
)
from enrich.settings import Settings
from enrich.vectors import BYTES, Vector, is_usable

log = logging.getLogger(__name__)

#: A month: no quota is longer, and dates beyond would not fit into Redis or a calendar.
MAX_RETRY_AFTER_SECONDS = 31 * 86_400.0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the provider allows, as its `x-ratelimit-*` headers say; None where they do not."""

    requests: int | None = None
    tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """The answer to one request."""

    #: One for each text, in order; None where the API sent numbers that are no vector.
    vectors: list[Vector | None]
    #: As billed; 0 where the endpoint does not tell.
    tokens: int
    limits: Limits = field(default_factory=Limits)
    #: How many were sent to get it.
    requests: int = 1


class Embedder(Protocol):
    """Gives texts their vectors, in one request."""

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Raises Halt, RateLimited, InputRefused (RequestTooLarge) or TransientError."""
        ...

    def close(self) -> None: ...


#: Options of a request that not every endpoint knows: what goes out in place of each where it is
#: refused, and the words by which a refusal is perhaps about it.
_INSTEAD = {"dimensions": openai.omit, "encoding_format": "float"}
_WORDS = {"dimensions": ("dimension",), "encoding_format": ("base64", "encoding_format")}


class _OptionRefused(Exception):
    """Perhaps for no text, but for an option of the request. Never leaves here."""

    def __init__(self, option: str) -> None:
        super().__init__(option)
        self.option = option


class _Row(msgspec.Struct):
    embedding: str | list[float | None]
    #: Some endpoints leave out a 0, others every one.
    index: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    total_tokens: int | None = None


class _Answer(msgspec.Struct):
    data: list[_Row] | None = None
    usage: _Usage | None = None


class OpenAIEmbedder:
    """An endpoint that speaks OpenAI's protocol."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.openai_base_url
        self._model = settings.embedding_model
        self._dimensions = settings.embedding_dimensions
        #: Many models have one size, and their servers refuse to be asked for it; some gateways
        #: know no base64, and refuse it or answer nothing.
        self._options: dict[str, Any] = {
            "dimensions": self._dimensions,
            "encoding_format": "base64",
        }
        self._client = openai.OpenAI(
            api_key=settings.openai_api_key.get_secret_value(),
            base_url=settings.openai_base_url,
            timeout=settings.openai_timeout_seconds,
            # One owner for each failure: the task retries, not the client.
            max_retries=0,
        )

    def close(self) -> None:
        self._client.close()

    def embed(self, texts: Sequence[str]) -> Embedded:
        options = self._options
        refused: list[str] = []
        while True:
            try:
                got = self._ask(texts, options)
                break
            except _OptionRefused as error:
                refused.append(error.option)
                options = {**options, error.option: _INSTEAD[error.option]}
        if refused:
            # Whether it was that, the answer without it has shown.
            self._options = options
            told = " and ".join(refused)
            log.info("%s: %s refused, and not asked for from now on", self._model, told)
        return replace(got, requests=1 + len(refused))

    def _ask(self, texts: Sequence[str], options: dict[str, Any]) -> Embedded:
        try:
            answer = self._client.embeddings.with_raw_response.create(
                input=[],
                model=self._model,
                # Here, because the client looks at each text of `input` for types to convert.
                extra_body={"input": list(texts)},
                **options,
            )
            body, headers = answer.http_response.content, answer.headers
        except openai.APITimeoutError:
            raise ServerUnavailable(
                f"the embeddings API at {self._url} did not answer in time"
            ) from None
        except openai.APIConnectionError as error:
            if cause_of(error, ssl.SSLCertVerificationError):
                raise Halt(
                    f"the embeddings API at {self._url}: the TLS connection was refused: its "
                    "certificate is expired, not trusted or for another host name; check "
                    "OPENAI_BASE_URL, or name its authority's file in SSL_CERT_FILE"
                ) from None
            raise ServerUnavailable(
                f"the embeddings API at {self._url} cannot be reached: check OPENAI_BASE_URL"
            ) from None
        except openai.APIStatusError as error:
            if option := self._refused_option(error, options):
                raise _OptionRefused(option) from None
            raise self._translated(error, len(texts)) from None
        except openai.OpenAIError as error:
            raise TransientError(
                f"the embeddings API at {self._url} failed ({type(error).__name__})"
            ) from None
        try:
            vectors, tokens = read_answer(body, len(texts), self._dimensions)
        except TransientError:
            if options["encoding_format"] == "base64" and _is_empty(body):
                raise _OptionRefused("encoding_format") from None
            raise
        return Embedded(vectors=vectors, tokens=tokens, limits=_limits(headers))

    def _refused_option(
        self, error: openai.APIStatusError, options: Mapping[str, Any]
    ) -> str | None:
        """Perhaps: the words may also be those of a text that is quoted."""
        if error.status_code not in (400, 422, 500):
            return None
        if error.param == "dimensions" and self._model.startswith("text-embedding-3"):
            return None  # it has any size up to its own: this one is wrong
        told = f"{error.param} {error.code} {error.message}".lower()
        for option, words in _WORDS.items():
            if options[option] != _INSTEAD[option] and any(word in told for word in words):
                return option
        return None

    def _translated(self, error: openai.APIStatusError, inputs: int) -> EnrichError:
        status = error.status_code
        code = str(error.code or "")
        where = f"the embeddings API at {self._url}"
        if status == 401:
            return Halt(f"{where} refused the key (401): check OPENAI_API_KEY")
        if status == 403:
            return Halt(f"{where} forbids this (403): check what OPENAI_API_KEY may do")
        if status == 402 or code in ("insufficient_quota", "billing_hard_limit_reached"):
            return Halt(
                f"{where}: the quota is exhausted ({status}): add credit or raise its limit"
            )
        if status == 404 or code == "model_not_found" or error.param == "model":
            return Halt(
                f"{where} does not know model {self._model} ({status}): "
                "check EMBEDDING_MODEL and OPENAI_BASE_URL"
            )
        if error.param == "dimensions":
            return Halt(
                f"{where} refuses {self._dimensions} dimensions of {self._model} ({status}): "
                "check EMBEDDING_DIMENSIONS"
            )
        if status == 429:
            pause = retry_after(error.response.headers)
            return RateLimited(f"{where} asks for a pause (429)", pause)
        if status == 413 or (status == 400 and _is_about_size(error)):
            return RequestTooLarge(
                f"{where} finds a request of {inputs} texts too large ({status})"
            )
        if status in (400, 422):
            return InputRefused(f"{where} refused a request of {inputs} texts ({status})")
        if status in (408, 409) or status >= 500:
            return TransientError(f"{where} is in trouble ({status})")
        return Halt(f"{where} answered {status}: check OPENAI_BASE_URL")


def read_answer(body: bytes, count: int, dimensions: int) -> tuple[list[Vector | None], int]:
    """Decode and check an answer: vectors by input, and tokens.

    A vector counts only if its `index` is named once, all its numbers are finite and not all are
    zero; one that fails alone is None, and its neighbours stand. Without `index` it is that of the
    text in its place, as long as no other one claims to be.

    Raises:
        TransientError: cut JSON, another shape, a wrong number of vectors or none, a doubled
            `index`.
        Halt: vectors of another dimension than asked for.
    """
    answer = _decoded(body)
    rows = answer.data or []
    indices = [n if row.index is None else row.index for n, row in enumerate(rows)]
    if sorted(indices) != list(range(count)):
        raise TransientError(
            f"the embeddings API answered {len(rows)} vectors for {count} texts, or named one twice"
        )
    vectors: list[Vector | None] = [None] * count
    for index, row in zip(indices, rows, strict=True):
        vector = _numbers(row.embedding)
        if vector is not None and vector.shape != (dimensions,):
            raise Halt(
                f"the embeddings API answered vectors of {vector.size} dimensions, not "
                f"{dimensions}: set EMBEDDING_DIMENSIONS or EMBEDDING_MODEL to what it serves"
            )
        if vector is not None and is_usable(vector):
            vectors[index] = vector
    usage = answer.usage or _Usage()
    return vectors, max(0, usage.prompt_tokens or usage.total_tokens or 0)


def _decoded(body: bytes) -> _Answer:
    try:
        return msgspec.json.decode(body, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise TransientError("the embeddings API's answer is not what it should be") from None


def _is_empty(body: bytes) -> bool:
    """Whether an answer has no rows at all, and is one."""
    with suppress(TransientError):
        return not _decoded(body).data
    return False


def _numbers(embedding: str | list[float | None]) -> Vector | None:
    try:
        if isinstance(embedding, str):
            # pybase64's: the standard library's takes twenty times as long, once for each vector.
            return np.frombuffer(b64decode(embedding, validate=True), dtype=BYTES)
        with np.errstate(over="ignore"):
            return np.asarray(embedding, dtype=np.float32)
    except (binascii.Error, ValueError, TypeError):
        return None


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds that `Retry-After` asks for (a number or an HTTP date), or None.

    Never more than MAX_RETRY_AFTER_SECONDS, and None for what is neither.
    """
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / scale
        except ValueError:
            continue
        if math.isfinite(seconds):
            return min(max(0.0, seconds), MAX_RETRY_AFTER_SECONDS)
    try:
        when = parsedate_to_datetime(headers.get("retry-after", ""))
    except (ValueError, OverflowError):
        return None
    if when.tzinfo is None:  # asctime's form names no zone; HTTP dates are in GMT
        when = when.replace(tzinfo=UTC)
    seconds = (when - (now or datetime.now(UTC))).total_seconds()
    return min(max(0.0, seconds), MAX_RETRY_AFTER_SECONDS)


def _limits(headers: Mapping[str, str]) -> Limits:
    def whole(name: str) -> int | None:
        value = headers.get(f"x-ratelimit-limit-{name}", "")
        return int(value) if value.isdecimal() and len(value) < 16 else None

    return Limits(requests=whole("requests"), tokens=whole("tokens"))


def _is_about_size(error: openai.APIStatusError) -> bool:
    # Endpoints differ in code and words; the text is looked at here and never passed on.
    told = f"{error.code} {error.message}".lower()
    return "context_length" in told or ("token" in told and "max" in told)

"""The line to the embeddings API: texts in, verified vectors out, its refusals in our words.

The only importer of openai. Works with any endpoint that speaks OpenAI's protocol. Results are
decoded here, not by the client's models, because a hundred vectors are a hundred and fifty
thousand numbers; and nothing of an answer is trusted before it was checked. The texts of its
errors may quote the input, so only status and code ever leave this module.
"""

from __future__ import annotations

import binascii
import logging
import math
import re
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

import msgspec
import numpy as np
import openai
from pybase64 import b64decode

from enrich import tracing
from enrich.embedding.endpoint import NOT_SENT, Endpoint, Purpose
from enrich.embedding.refusals import (
    MOST_LOOKED_AT,
    Body,
    Meaning,
    meaning_of,
    part_that_fits,
    pause_told,
    read_body,
)
from enrich.embedding.transport import IDENTITY, AnswerRefused, BoundedClient, never_connected
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
from enrich.ratelimit.api_quota import Limits
from enrich.settings import Settings
from enrich.vectors import BYTES, Vector, is_usable

log = logging.getLogger(__name__)

#: A month: no quota is longer, and dates beyond would not fit into Redis or a calendar.
MAX_RETRY_AFTER_SECONDS = 31 * 86_400.0

#: Tokens that a model may add to a text; beyond them it has no more than the text has bytes.
SPECIAL_TOKENS = 4


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


#: A vector of so many numbers that are all bits is one by intention.
LEAST_BITS = 64
_BITS = (-1.0, 0.0, 1.0)

#: The words by which a refusal is perhaps about an option of the request.
_WORDS = {"dimensions": ("dimension",), "encoding_format": ("base64", "encoding_format")}


#: The client sends the key as OpenAI's, unless a request says that it must not.
_NO_BEARER: Mapping[str, Any] = {"Authorization": openai.omit}


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
    # Whatever an endpoint likes to count, its vectors are none the worse for it.
    prompt_tokens: Any = None
    total_tokens: Any = None


class _Answer(msgspec.Struct):
    data: list[_Row] | None = None
    usage: _Usage | None = None


class _Failed(msgspec.Struct):
    """An answer that tells of an error in place of its vectors."""

    data: Any = None
    error: Any = None
    object: Any = None


#: What decoding raises besides its own error: for nesting, numbers and bytes beyond measure.
_NOT_DECODED = (
    msgspec.DecodeError,
    UnicodeDecodeError,
    RecursionError,
    OverflowError,
    ValueError,
    MemoryError,
)

#: Where tokens are counted, perhaps with a number that JSON does not have (NaN, 1e999).
_ODD_USAGE = re.compile(rb'("(?:prompt|total)_tokens"\s*:\s*)(?!\d{1,15}\s*[,}])[-+.\w]+')


class OpenAIEmbedder:
    """An endpoint that speaks OpenAI's protocol."""

    def __init__(self, settings: Settings, purpose: Purpose = Purpose.DOCUMENT) -> None:
        """Raises SettingsError: a setting of the API or its surroundings is wrong."""
        #: As shown: without what stands behind a question mark.
        self._url = settings.openai_base_url.partition("?")[0]
        self._proxy = bool(settings.openai_proxy.get_secret_value())
        self._model = settings.embedding_model
        self._dimensions = settings.embedding_dimensions
        self._endpoint = Endpoint.of(settings, purpose)
        #: Many models have one size, and their servers refuse to be asked for it; some gateways
        #: know no base64, and refuse it or answer nothing.
        self._options = dict(self._endpoint.options)
        self._client = _client(settings, self._endpoint)

    def close(self) -> None:
        self._client.close()

    def embed(self, texts: Sequence[str]) -> Embedded:
        options = self._options
        refused: list[str] = []
        texts = self._endpoint.texts(texts)
        while True:
            try:
                with tracing.span("embeddings", inputs=len(texts), model=self._model):
                    got = self._ask(texts, options)
                break
            except _OptionRefused as error:
                refused.append(error.option)
                options = {**options, error.option: self._endpoint.instead[error.option]}
        if refused:
            # Whether it was that, the answer without it has shown.
            self._options = options
            told = " and ".join(refused)
            log.info("%s: %s refused, and not asked for from now on", self._model, told)
        # What the endpoint says is what the run is charged for: never more than there can be.
        tokens = min(got.tokens, sum(len(text.encode()) + SPECIAL_TOKENS for text in texts))
        return replace(got, tokens=tokens, requests=1 + len(refused))

    def look(self) -> None:
        """See whether the endpoint answers, which costs nothing. Any answer will do: some know no
        list of models, or keep it from this key.

        Raises:
            ServerUnavailable: no connection, or no answer in time.
            Halt: its certificate is not to be trusted.
        """
        with self._connected(), suppress(openai.APIStatusError, AnswerRefused):
            self._client.models.with_raw_response.list(extra_headers=self._without_bearer())

    def _without_bearer(self) -> Mapping[str, Any] | None:
        return _NO_BEARER if self._endpoint.without_bearer else None

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """What befalls the connection, in our words."""
        where = f"the embeddings API at {self._url}"
        try:
            yield
        except openai.APITimeoutError:
            raise _as("time-out", ServerUnavailable(f"{where} did not answer in time")) from None
        except openai.APIConnectionError as error:
            if cause_of(error, ssl.SSLCertVerificationError):
                raise Halt(
                    f"{where}: the TLS connection was refused: its "
                    "certificate is expired, not trusted or for another host name; check "
                    "OPENAI_BASE_URL, or name its authority's file in SSL_CERT_FILE"
                ) from None
            if never_connected(error):
                proxy = " and OPENAI_PROXY" if self._proxy else ""
                raise ServerUnavailable(
                    f"{where} cannot be reached: check OPENAI_BASE_URL{proxy}"
                ) from None
            raise _as("cut", ServerUnavailable(f"{where} cut the connection")) from None

    def _ask(self, texts: list[str], options: dict[str, Any]) -> Embedded:
        where = f"the embeddings API at {self._url}"
        try:
            with self._connected():
                answer = self._client.embeddings.with_raw_response.create(
                    input=[],
                    model=self._model,
                    # Here, because the client looks at each text of `input` for types to convert,
                    # and asks for base64 by itself.
                    extra_body={**self._endpoint.extra, "input": texts, **_sent(options)},
                    extra_headers=self._without_bearer(),
                )
            body, headers = answer.http_response.content, answer.headers
        except openai.APIStatusError as error:
            refusal = read_body(error.response.content)
            if option := self._refused_option(error.status_code, refusal, options):
                raise _OptionRefused(option) from None
            raise self._translated(
                error.status_code, refusal, error.response.headers, len(texts)
            ) from None
        except AnswerRefused as error:
            raise _as("unread", TransientError(f"{where} {error}")) from None
        except openai.OpenAIError as error:
            raise TransientError(f"{where} failed ({type(error).__name__})") from None
        if told := error_within(body):
            # Gateways answer 200 and say in the body what the provider behind them answered.
            raise self._translated(told.status or 200, told, headers, len(texts))
        try:
            vectors, tokens = read_answer(body, len(texts), self._dimensions)
        except TransientError as error:
            if self._may_change("encoding_format", options) and _is_empty(body):
                raise _OptionRefused("encoding_format") from None
            raise _as("answer", error) from None
        return Embedded(vectors=vectors, tokens=tokens, limits=_limits(headers))

    def _refused_option(self, status: int, refusal: Body, options: Mapping[str, Any]) -> str | None:
        """Perhaps: the words may also be those of a text that is quoted."""
        if status not in (400, 422, 500):
            return None
        if refusal.param == "dimensions" and self._model.startswith("text-embedding-3"):
            return None  # it has any size up to its own: this one is wrong
        for option, words in _WORDS.items():
            if self._may_change(option, options) and any(w in refusal.words for w in words):
                return option
        return None

    def _may_change(self, option: str, options: Mapping[str, Any]) -> bool:
        instead = self._endpoint.instead
        return option in instead and options[option] != instead[option]

    def _translated(
        self, status: int, refusal: Body, headers: Mapping[str, str], inputs: int
    ) -> EnrichError:
        meaning = meaning_of(status, refusal)
        if 300 <= status < 400:
            return Halt(
                f"the embeddings API at {self._url} redirects to another address ({status}), which "
                "is not followed, because it would get the log texts: set OPENAI_BASE_URL to the "
                "API's own address (https:// and path included)"
            )
        error = self._named(status, meaning, refusal, headers, inputs)
        certain = status in (401, 402, 429)
        return error if certain or isinstance(error, RateLimited) else _as(str(status), error)

    def _named(
        self,
        status: int,
        meaning: Meaning,
        refusal: Body,
        headers: Mapping[str, str],
        inputs: int,
    ) -> EnrichError:
        where = f"the embeddings API at {self._url}"
        if sentence := _HALTS.get(meaning):
            return Halt(sentence.format(url=self._url, status=status, served=self._endpoint.served))
        if refusal.param == "dimensions" and status < 500:
            return Halt(
                f"{where} refuses {self._dimensions} dimensions of {self._model} ({status}): "
                "check EMBEDDING_DIMENSIONS"
            )
        if status == 429:
            pause = retry_after(headers)
            if pause is None:
                pause = pause_told(refusal)
            return RateLimited(f"{where} asks for a pause (429)", pause)
        if meaning is Meaning.TOO_LONG:
            error = RequestTooLarge(
                f"{where} finds a request of {inputs} texts too large ({status})"
            )
            error.fits = part_that_fits(refusal)
            return error
        if meaning in (Meaning.TEXT, Meaning.TOO_MANY):
            return InputRefused(f"{where} refused a request of {inputs} texts ({status})")
        if meaning is Meaning.LOADING:
            return TransientError(f"{where} is still loading its model ({status})")
        if refusal.page and status >= 500:
            return TransientError(
                f"the proxy before the embeddings API at {self._url} answers in its place "
                f"({status}): it does not reach the API"
            )
        return TransientError(f"{where} is in trouble ({status})")


#: Sentences for what an operator has to fix.
_HALTS = {
    Meaning.KEY: "the embeddings API at {url} refused the key ({status}): check OPENAI_API_KEY",
    Meaning.GATEWAY_KEY: (
        "the API behind the gateway at {url} refused the gateway's own key ({status}): check the "
        "key in the gateway's configuration; OPENAI_API_KEY is right"
    ),
    Meaning.QUOTA: (
        "the embeddings API at {url}: the quota is exhausted ({status}): add credit or raise its "
        "limit"
    ),
    Meaning.MODEL: (
        "the embeddings API at {url} does not know {served} ({status}): "
        "check EMBEDDING_MODEL and OPENAI_BASE_URL"
    ),
    Meaning.PATH: (
        "a web page answers at {url}/embeddings ({status}), not an embeddings API: check "
        "OPENAI_BASE_URL, which often ends in /v1"
    ),
    Meaning.VERSION: (
        "the embeddings API at {url} refuses the api-version ({status}): check what stands behind "
        "?api-version= in OPENAI_BASE_URL"
    ),
    Meaning.FORBIDDEN: (
        "the embeddings API at {url} forbids this ({status}): check what OPENAI_API_KEY may do"
    ),
    Meaning.PROXY: (
        "the proxy before the embeddings API at {url} refuses this ({status}), not the API: check "
        "what it lets through, HTTPS_PROXY and OPENAI_BASE_URL"
    ),
    Meaning.PROXY_LOGIN: (
        "the proxy before the embeddings API at {url} asks for a login ({status}): check "
        "HTTPS_PROXY and OPENAI_BASE_URL"
    ),
    Meaning.BLOCKED: (
        "a firewall before the embeddings API at {url} blocks this ({status}): have it let the "
        "requests of this host through"
    ),
    Meaning.OTHER: "the embeddings API at {url} answered {status}: check OPENAI_BASE_URL",
}


def _client(settings: Settings, endpoint: Endpoint) -> openai.OpenAI:
    # One of numbers written out has up to 25 bytes for each, whatever dimension a model has.
    most = 2**20 + settings.enrich_batch_size * 32 * max(settings.embedding_dimensions, 4096)
    return openai.OpenAI(
        base_url=endpoint.base_url,
        api_key=endpoint.key,
        timeout=settings.openai_timeout_seconds,
        # One owner for each failure: the task retries, not the client.
        max_retries=0,
        default_query=dict(endpoint.address.query) or None,
        default_headers={**endpoint.all_headers, **IDENTITY},
        http_client=BoundedClient(
            seconds=settings.openai_timeout_seconds,
            most_bytes=most,
            proxy=settings.openai_proxy.get_secret_value(),
        ),
    )


def _sent(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as the client takes them: one that it is not to send has to say so."""
    return {name: openai.omit if v is NOT_SENT else v for name, v in options.items()}


def _as(way: str, error: EnrichError) -> EnrichError:
    """The error, as one that a text of the request may be the reason for."""
    error.failed_as = way
    return error


def read_answer(body: bytes, count: int, dimensions: int) -> tuple[list[Vector | None], int]:
    """Decode and check an answer: vectors by input, and tokens.

    A vector counts only if its `index` is named once, all its numbers are finite and not all are
    zero; one that fails alone is None, and its neighbours stand. Without `index` it is that of the
    text in its place, as long as no other one claims to be.

    Raises:
        TransientError: cut JSON, another shape, a wrong number of vectors or none, a doubled
            `index`.
        Halt: vectors of another dimension than asked for, or of bits.
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
        if vector is not None and _is_of_bits(vector):
            raise Halt(
                "the embeddings API answered binary vectors, which have lost most of what they "
                "say: set ENRICH_ENCODING_FORMAT=float, or take output_dtype and the like out of "
                "the extra body"
            )
        if vector is not None and is_usable(vector):
            vectors[index] = vector
    usage = answer.usage or _Usage()
    return vectors, _whole(usage.prompt_tokens) or _whole(usage.total_tokens)


def _is_of_bits(vector: Vector) -> bool:
    """Whether it has nothing but 1, and 0 or -1: Bedrock's Titan through LiteLLM answers so to
    base64. Nothing is said of short ones, and of zeros alone."""
    # The first number tells nearly always; the rest costs half as much as decoding the vector.
    if vector.size < LEAST_BITS or float(vector[0]) not in _BITS:
        return False
    return bool(np.isin(vector, _BITS).all() and vector.any())


def _whole(number: Any) -> int:
    """A count of tokens; 0 for whatever is none."""
    if isinstance(number, bool) or not isinstance(number, int | float):
        return 0
    return int(number) if 0 < number < math.inf else 0


def _decoded(body: bytes) -> _Answer:
    with suppress(*_NOT_DECODED):
        return msgspec.json.decode(body, type=_Answer)
    with suppress(*_NOT_DECODED):
        return msgspec.json.decode(_ODD_USAGE.sub(rb"\1null", body), type=_Answer)
    if read_body(body[:100]).page:
        raise TransientError(
            "a web page answers in place of the embeddings API, as of a proxy or a sign-in: check "
            "OPENAI_BASE_URL and HTTPS_PROXY"
        )
    raise TransientError("the embeddings API's answer is not what it should be")


def error_within(body: bytes) -> Body | None:
    """What an answer with status 200 says of an error, or None for one with vectors."""
    if body.lstrip()[:1] == b"<":
        page = read_body(body)
        return page if meaning_of(200, page) is Meaning.BLOCKED else None
    if b'"error"' not in body[:MOST_LOOKED_AT]:
        return None
    try:
        answer = msgspec.json.decode(body, type=_Failed)
    except _NOT_DECODED:
        return None
    if answer.data or not (answer.error or answer.object == "error"):
        return None
    return read_body(body)


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

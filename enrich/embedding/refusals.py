"""What a refusal of an embeddings API means: a table of the words that providers use.

A status alone says too little: LiteLLM answers a wrong key with 400, Gemini too, llama.cpp a long
text with 500, and a firewall any status it likes. The first row whose status and words fit decides;
where none fits, the status does. Nothing of a body leaves this module, since it may quote a log.
For the same reason words alone condemn nobody: whoever asks tries a harmless text before a halt.
docs/endpoints.md shows the table to operators; tests/unit/refusal_bodies.py has the bodies.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgspec

#: Bytes of a body that are looked at.
MOST_LOOKED_AT = 64_000

#: Nested so deep, nothing of it is an error body.
MOST_DEEP = 6


class Meaning(Enum):
    """Who can fix it, and how."""

    KEY = "key"
    GATEWAY_KEY = "gateway's key"
    QUOTA = "quota"
    MODEL = "model"
    PATH = "path"
    VERSION = "version"
    FORBIDDEN = "forbidden"
    PROXY = "proxy"
    PROXY_LOGIN = "proxy login"
    BLOCKED = "blocked"
    LOADING = "loading"
    BUSY = "busy"
    TOO_LONG = "too long"
    TOO_MANY = "too many"
    TEXT = "text"
    TROUBLE = "trouble"
    OTHER = "other"


@dataclass(frozen=True, kw_only=True)
class Known:
    """One row: a body with all of these words, in lower case, answered with one of these statuses.

    `providers` names those that were seen to answer so.
    """

    providers: str
    meaning: Meaning
    words: tuple[str, ...]
    #: Empty: any.
    statuses: frozenset[int] = frozenset()


def _row(providers: str, meaning: Meaning, *words: str, at: tuple[int, ...] = ()) -> Known:
    return Known(providers=providers, meaning=meaning, words=words, statuses=frozenset(at))


_M = Meaning

#: In order; the first that fits holds.
TABLE: tuple[Known, ...] = (
    # -- a pause that is called a quota: Gemini says both in one sentence, and when to come back.
    _row("Gemini", _M.BUSY, "resource_exhausted", "retrydelay"),
    # -- quota, credit, budget
    _row("OpenAI, Azure", _M.QUOTA, "insufficient_quota"),
    _row("OpenAI", _M.QUOTA, "billing_hard_limit_reached"),
    _row("OpenAI, LiteLLM before it", _M.QUOTA, "exceeded your current quota"),
    _row("OpenAI", _M.QUOTA, "account is not active, please check your billing"),
    _row("LiteLLM", _M.QUOTA, "budget_exceeded"),
    _row("LiteLLM", _M.QUOTA, "budget has been exceeded"),
    _row("LiteLLM", _M.QUOTA, "exceededbudget"),
    _row("OpenRouter", _M.QUOTA, "insufficient credits"),
    _row("OpenRouter", _M.QUOTA, "key limit exceeded"),
    _row("DeepInfra, SiliconFlow, Jina", _M.QUOTA, "insufficient balance"),
    _row("Jina", _M.QUOTA, "insufficient_balance"),
    _row("Jina", _M.QUOTA, "balance not enough"),
    _row("Gemini", _M.QUOTA, "billing_disabled"),
    _row("Gemini", _M.QUOTA, "billing to be enabled"),
    _row("Voyage", _M.QUOTA, "payment method", at=(402, 403)),
    # -- key; a gateway's own first, which says that it is not ours
    _row("LiteLLM", _M.GATEWAY_KEY, "litellm.authenticationerror"),
    _row("OpenAI, OpenRouter", _M.KEY, "invalid_api_key"),
    _row("OpenAI", _M.KEY, "incorrect api key"),
    _row("Gemini", _M.KEY, "api_key_invalid"),
    _row("Gemini", _M.KEY, "api key not valid"),
    _row("Gemini", _M.KEY, "api key expired"),
    _row("Gemini", _M.KEY, "api key not found"),
    _row("Gemini", _M.KEY, "multiple authentication credentials received"),
    _row("Gemini", _M.KEY, "missing or invalid authorization header"),
    _row("LiteLLM", _M.KEY, "no connected db"),
    _row("LiteLLM", _M.KEY, "invalid proxy server token"),
    _row("LiteLLM", _M.KEY, "token_not_found_in_db"),
    _row("LiteLLM", _M.KEY, "expired key"),
    _row("LiteLLM", _M.KEY, "authentication error,"),
    _row("LiteLLM", _M.KEY, "llm virtual key expected"),
    _row("Voyage", _M.KEY, "api key is invalid"),
    _row("Jina, llama.cpp", _M.KEY, "invalid api key"),
    _row("Cohere", _M.KEY, "invalid api token"),
    _row("Cohere", _M.KEY, "no api key supplied"),
    _row("Azure", _M.KEY, "invalid subscription key"),
    _row("OpenRouter", _M.KEY, "no auth credentials"),
    _row("OpenRouter", _M.KEY, "no cookie auth credentials"),
    # -- rights
    _row("OpenAI", _M.FORBIDDEN, "unsupported_country_region_territory"),
    _row("OpenAI", _M.FORBIDDEN, "missing scopes"),
    _row("OpenAI", _M.FORBIDDEN, "insufficient permissions"),
    _row("Gemini", _M.FORBIDDEN, "permission_denied"),
    # -- model and path
    _row("OpenAI, LM Studio", _M.MODEL, "model_not_found"),
    _row("OpenAI", _M.MODEL, "you must provide a model parameter"),
    _row("Azure", _M.MODEL, "deploymentnotfound"),
    _row("Azure", _M.MODEL, "operationnotsupported"),
    _row("Azure", _M.MODEL, "operation does not work with the specified model"),
    _row("Azure", _M.VERSION, "api version not supported"),
    _row("Azure", _M.VERSION, "missing required query parameter: api-version"),
    _row("Mistral", _M.MODEL, "invalid model:"),
    _row("Mistral", _M.MODEL, "invalid_model"),
    _row("Voyage", _M.MODEL, "is not supported. supported models are"),
    _row("Jina", _M.MODEL, "model", "is not supported", at=(400, 422)),
    _row("OpenRouter", _M.MODEL, "is not a valid model id"),
    _row("OpenRouter", _M.MODEL, "no endpoints found for"),
    _row("Ollama", _M.MODEL, "try pulling it first"),
    _row("Ollama", _M.MODEL, "does not support embeddings"),
    _row("vLLM", _M.MODEL, "the model", "does not exist"),
    _row("vLLM", _M.MODEL, "does not support embeddings api"),
    _row("llama.cpp", _M.MODEL, "does not support embeddings"),
    _row("llama.cpp", _M.MODEL, "start it with `--embedding"),
    _row("llama.cpp", _M.MODEL, "pooling type 'none' is not oai compatible"),
    _row("LM Studio", _M.MODEL, "no models loaded"),
    _row("LM Studio", _M.MODEL, "model is not embedding"),
    _row("LM Studio", _M.MODEL, "unexpected endpoint or method"),
    _row("LiteLLM", _M.MODEL, "invalid model name passed in"),
    _row("LiteLLM", _M.MODEL, "no healthy deployments"),
    _row("LiteLLM", _M.MODEL, "key_model_access_denied"),
    _row("LiteLLM", _M.MODEL, "not allowed to access model"),
    _row("Cohere", _M.MODEL, "model", "not found, make sure the correct model id"),
    _row("Gemini", _M.MODEL, "is not found for api version"),
    # -- starting, busy
    _row("llama.cpp", _M.LOADING, "loading model", at=(503,)),
    _row("TEI", _M.BUSY, "model is overloaded", at=(429,)),
    # -- too many inputs
    _row("OpenAI", _M.TOO_MANY, "array_above_max_length"),
    _row("OpenAI", _M.TOO_MANY, "array too long"),
    _row("Azure, Mistral", _M.TOO_MANY, "too many inputs"),
    _row("Mistral", _M.TOO_MANY, "split into more batches"),
    _row("TEI", _M.TOO_MANY, "maximum allowed batch size"),
    _row("Cohere", _M.TOO_MANY, "total number of texts must be at most"),
    _row("Cohere", _M.TOO_MANY, "number of texts", "at most"),
    _row("Voyage", _M.TOO_MANY, "batch size limit"),
    _row("Voyage", _M.TOO_MANY, "max batch size"),
    _row("Jina", _M.TOO_MANY, "can contain at most", "items"),
    _row("Gemini", _M.TOO_MANY, "at most 100 requests can be in one batch"),
    _row("DashScope", _M.TOO_MANY, "batch size is invalid"),
    # -- too long
    _row("OpenAI", _M.TOO_LONG, "context_length_exceeded"),
    _row("OpenAI, Azure, vLLM", _M.TOO_LONG, "maximum context length"),
    _row("OpenAI", _M.TOO_LONG, "max_tokens_per_request"),
    _row("Mistral", _M.TOO_LONG, "too many tokens"),
    _row("Mistral", _M.TOO_LONG, "tokens, exceeding max"),
    _row("Gemini", _M.TOO_LONG, "input token count", "exceeds"),
    _row("Gemini", _M.TOO_LONG, "request payload size exceeds"),
    _row("Voyage", _M.TOO_LONG, "max allowed tokens per submitted batch"),
    _row("Jina", _M.TOO_LONG, "exceeds maximum length"),
    _row("Jina", _M.TOO_LONG, "exceeds the maximum"),
    _row("TEI", _M.TOO_LONG, "must have less than", "tokens"),
    _row("TEI", _M.TOO_LONG, "length limit exceeded"),
    _row("Ollama", _M.TOO_LONG, "exceeds the context length"),
    _row("Ollama", _M.TOO_LONG, "exceeds maximum context length"),
    _row("Ollama", _M.TOO_LONG, "exceeded context length"),
    _row("llama.cpp", _M.TOO_LONG, "too large to process"),
    _row("llama.cpp", _M.TOO_LONG, "exceed_context_size"),
    _row("llama.cpp", _M.TOO_LONG, "exceeds the available context size"),
    _row("llama.cpp", _M.TOO_LONG, "larger than the max context size"),
    _row("llama.cpp in Python", _M.TOO_LONG, "exceed context window"),
    _row("LiteLLM", _M.TOO_LONG, "contextwindowexceeded"),
    _row("Cohere, Bedrock", _M.TOO_LONG, "too many input tokens"),
    _row("Bedrock", _M.TOO_LONG, "expected maxlength"),
    _row("many", _M.TOO_LONG, "max", "token", at=(400, 413, 422, 500)),
    # -- a firewall
    _row("Cloudflare", _M.BLOCKED, "you have been blocked"),
    _row("Cloudflare", _M.BLOCKED, "attention required!"),
    _row("AWS WAF, CloudFront", _M.BLOCKED, "request blocked"),
    _row("AWS WAF", _M.BLOCKED, "request could not be satisfied", at=(403,)),
    _row("F5", _M.BLOCKED, "the requested url was rejected"),
    _row("Imperva", _M.BLOCKED, "incapsula incident"),
    _row("Akamai", _M.BLOCKED, "you don't have permission to access", "reference #"),
    _row("ModSecurity", _M.BLOCKED, "mod_security"),
    _row("Azure", _M.BLOCKED, "blocked by our content filters"),
    # -- content
    _row("Azure, OpenAI", _M.TEXT, "content_filter"),
    _row("Azure, OpenAI", _M.TEXT, "responsibleaipolicyviolation"),
)

#: What the `type` of an error body stands for.
_BY_KIND = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "rate_limit_error": 429,
    "api_error": 500,
    "server_error": 500,
}

#: What a status says where no row fits; 200 is that of an answer that tells of an error.
_BY_STATUS = {
    200: Meaning.TROUBLE,
    400: Meaning.TEXT,
    401: Meaning.KEY,
    402: Meaning.QUOTA,
    403: Meaning.FORBIDDEN,
    404: Meaning.MODEL,
    407: Meaning.PROXY_LOGIN,
    408: Meaning.TROUBLE,
    409: Meaning.TROUBLE,
    413: Meaning.TOO_LONG,
    422: Meaning.TEXT,
    424: Meaning.TROUBLE,
    425: Meaning.TROUBLE,
    429: Meaning.BUSY,
    451: Meaning.BLOCKED,
    498: Meaning.TEXT,
    499: Meaning.TROUBLE,
}

#: Rows of these may be looked for whatever the status; those of a request's size or text, and those
#: that only time cures, never explain a wrong key.
_NOT_OF_401 = frozenset({Meaning.TOO_LONG, Meaning.TOO_MANY, Meaning.TEXT, Meaning.BUSY})


@dataclass(frozen=True, kw_only=True)
class Body:
    """The parts of an error body that may be looked at; none may be shown."""

    #: All its words, in lower case.
    words: str
    #: A web page: some proxy answered, not the API.
    page: bool = False
    param: str = ""
    #: The status that the body names by itself, as a number or by its kind of error, or 0.
    status: int = 0


def read_body(content: bytes) -> Body:
    """What an error body says, whatever it consists of."""
    content = content[:MOST_LOOKED_AT]
    text = content.decode("utf-8", "replace")
    page = text.lstrip("\ufeff \r\n\t").startswith("<")
    parts = {} if page else _parts(content)
    return Body(
        words=text.lower(),
        page=page,
        param=str(parts.get("param") or ""),
        status=_status(parts),
    )


def _status(parts: Mapping[str, Any]) -> int:
    code = str(parts.get("code") or "")
    if re.fullmatch("[45][0-9][0-9]", code):
        return int(code)
    return _BY_KIND.get(str(parts.get("type") or ""), 0)


def _parts(content: bytes) -> Mapping[str, Any]:
    """The object that names the error: `error` of the body, or the body."""
    try:
        body = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return {}
    for found in _objects(body):
        return found
    return {}


def _objects(body: Any, deep: int = 0) -> Iterator[dict[str, Any]]:
    if deep > MOST_DEEP:
        return
    if isinstance(body, list):
        # Gemini puts it into a list of one.
        for each in body[:1]:
            yield from _objects(each, deep + 1)
    elif isinstance(body, dict):
        inner = body.get("error")
        if isinstance(inner, dict):
            yield from _objects(inner, deep + 1)
        else:
            yield body


def meaning_of(status: int, body: Body) -> Meaning:
    """What a refusal with this status and body means."""
    for known in TABLE:
        if known.statuses and status not in known.statuses:
            continue
        if status == 401 and known.meaning in _NOT_OF_401:
            continue
        if all(word in body.words for word in known.words):
            return known.meaning
    if body.param == "model":
        return Meaning.MODEL
    if body.page and status in (401, 403, 407):
        return Meaning.PROXY_LOGIN if status in (401, 407) else Meaning.PROXY
    if body.page and status == 404:
        return Meaning.PATH
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return Meaning.TROUBLE if status >= 500 else Meaning.OTHER


#: How much there is of something, and how much may be: the words of those who tell it.
_TOLD = (
    r"maximum context length is (?P<most>\d+) tokens.{0,40}?requested (?P<given>\d+)",
    r"input \((?P<given>\d+) tokens\) is too large to process.{0,80}?batch size: (?P<most>\d+)",
    r"\((?P<given>\d+) tokens\) exceeds the available context size \((?P<most>\d+) tokens",
    r"must have less than (?P<most>\d+) tokens. given: (?P<given>\d+)",
    r"requested tokens \((?P<given>\d+)\) exceed context window of (?P<most>\d+)",
    r"has (?P<given>\d+) tokens, exceeding max (?P<most>\d+)",
    r"token count \((?P<given>\d+)\) exceeds the maximum number of tokens allowed \((?P<most>\d+)",
    r"input token count is (?P<given>\d+) but .{0,40}?up to (?P<most>\d+)",
)


def pause_told(body: Body) -> float | None:
    """Seconds after which Gemini's refusal asks to come back; it has no header for them."""
    found = re.search(r'retrydelay\\?":\s*\\?"(\d{1,7}(?:\.\d{1,9})?)s', body.words)
    return float(found[1]) if found else None


def part_that_fits(body: Body) -> float | None:
    """Which part of a text that is too long fits (0 to 1), where the refusal tells both numbers."""
    for told in _TOLD:
        if found := re.search(told, body.words):
            most, given = (int(found[name][:12]) for name in ("most", "given"))
            if 0 < most < given:
                return most / given
    return None

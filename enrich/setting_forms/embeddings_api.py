"""Forms of the settings of the embeddings API: its address, JSON objects, headers, prefixes.

Pure. A ValueError is one sentence that goes behind the name of a setting; it quotes no value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit, urlunsplit

#: Azure's hosts: the resource's own, and those of multi-service and Foundry resources; in the
#: clouds of governments and of China with another ending.
_AZURE_HOST = re.compile(
    r"\.(openai|cognitiveservices|services\.ai)\.azure\.(com|us|cn)\Z", re.IGNORECASE
)

#: Paths of operations that are not embeddings, as they are copied from a portal.
_OTHER_OPERATION = re.compile(r"/(chat/completions|completions|responses|messages|rerank)\Z")

#: Providers' own interfaces, by host and path, and the address that speaks OpenAI's protocol.
_OWN_INTERFACES = (
    (r"(^|\.)cohere\.(ai|com)/v[12](/embed)?\Z", "https://api.cohere.ai/compatibility/v1"),
    (
        r"generativelanguage\.googleapis\.com(/v1(beta)?(/models.*)?)?\Z",
        "https://generativelanguage.googleapis.com/v1beta/openai",
    ),
    (r"(^|\.)bedrock(-runtime)?\..*amazonaws\.com", "that of a LiteLLM proxy before Bedrock"),
    (r"/api/embed\Z", "http://HOST:11434/v1, where this is Ollama"),
)

#: Fields of a request that settings of their own decide.
_DECIDED_ELSEWHERE = {
    "input": "the texts are put in by enrich",
    "model": "set EMBEDDING_MODEL",
    "dimensions": "set EMBEDDING_DIMENSIONS, and ENRICH_SEND_DIMENSIONS",
    "encoding_format": "set ENRICH_ENCODING_FORMAT",
}

#: Headers that belong to the connection, or without which an answer could not be read.
_OWN_HEADERS = frozenset(
    {
        *("accept-encoding", "connection", "content-encoding", "content-length", "content-type"),
        *("host", "te", "transfer-encoding", "upgrade"),
    }
)

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")

#: In the name of a string in a body, a sign that it is a secret.
_SECRET_NAMES = ("key", "token", "secret", "passw", "auth", "credential")

#: Characters of a JSON object, and of a prefix; they stand in each request, or before each text.
MOST_JSON = 10_000
MOST_PREFIX = 1000


@dataclass(frozen=True, kw_only=True)
class Address:
    """What OPENAI_BASE_URL says: where requests go, and in which of the forms that there are."""

    #: Without the `/embeddings` at its end.
    base: str
    #: Goes along with each request.
    query: Mapping[str, str] = field(default_factory=dict)
    #: The key goes out in the header `api-key`.
    azure: bool = False
    #: That stands in the path.
    deployment: str = ""
    #: The path wants the model as its deployment.
    deployment_is_model: bool = False

    @classmethod
    def of(cls, url: str) -> Address:
        """Raises ValueError: the URL is another operation's, or lacks a part."""
        parts = urlsplit(url)
        host, path = parts.hostname or "", parts.path.rstrip("/")
        query = dict(parse_qsl(parts.query))
        if re.search(r"[<>{}]|%7B|%3C", parts.path, re.IGNORECASE):
            raise ValueError("has a placeholder in its path: put the real name in its place")
        if _OTHER_OPERATION.search(path):
            raise ValueError("is the address of another operation: take that of embeddings")
        for own, instead in _OWN_INTERFACES:
            if re.search(own, host + path):
                raise ValueError(
                    f"is an interface of the provider's own, which does not speak OpenAI's "
                    f"protocol: set it to {instead}"
                )
        path = path.removesuffix("/embeddings")
        found = re.search(r"/deployments(?:/([^/]*))?(?=/|\Z)", path)
        version = query.get("api-version", "")
        azure = bool(version or _AZURE_HOST.search(host))
        if found and azure and not found[1]:
            raise ValueError(
                "names no deployment: its path must be /openai/deployments/NAME/embeddings, as "
                "the portal shows it at the deployment"
            )
        if found and azure and not version:
            raise ValueError(
                "names a deployment and no api-version: paste the portal's whole address, which "
                "ends in ?api-version=2024-10-21 or the like"
            )
        # Of the older interface, which has the deployment in its path; `/openai/v1` and Foundry's
        # `/models` take it from the body.
        older = bool(version) and not path.endswith(("/v1", "/models"))
        if azure and path in ("", "/openai"):
            # The resource's address alone.
            path = "/openai" if version else "/openai/v1"
        return cls(
            base=urlunsplit((parts.scheme, parts.netloc, path, "", "")),
            query=query,
            azure=azure,
            deployment=unquote(found[1]) if found and azure else "",
            deployment_is_model=older and not found,
        )

    def of_model(self, model: str) -> str:
        """The address that `/embeddings` is put behind."""
        if self.deployment_is_model:
            return f"{self.base}/deployments/{quote(model, safe='')}"
        return self.base

    def of_other_model(self, model: str) -> str:
        """The address for a model of another kind behind the same endpoint, where
        `/chat/completions` is put behind it: a deployment in the path gives way to that model's."""
        if self.deployment:
            return re.sub(r"(?<=/deployments/)[^/]+", quote(model, safe=""), self.base)
        return self.of_model(model)

    def told(self, model: str) -> str:
        """Which form it is, in words."""
        if not self.azure:
            return "OpenAI's form"
        version = self.query.get("api-version", "")
        known = f", api-version {version}" if version else ""
        if self.deployment:
            return f"Azure OpenAI, deployment {self.deployment}{known}"
        return f"Azure OpenAI, deployment {model} (EMBEDDING_MODEL){known or ', v1'}"


def body_object(text: str) -> str:
    """A JSON object that goes into requests, in its one canonical form; "" for none.

    Raises ValueError.
    """
    fields = _json_object(text)
    for name, instead in _DECIDED_ELSEWHERE.items():
        if name in fields:
            raise ValueError(f"must not have {name}: {instead}")
    if any(_is_secret(name, value) for name, value in _strings(fields)):
        # It is shown on screens, and told to other workers.
        raise ValueError(
            "must not carry a key or token, as it is shown: use OPENAI_API_KEY or "
            "OPENAI_EXTRA_HEADERS"
        )
    return json.dumps(fields, sort_keys=True, ensure_ascii=False) if fields else ""


def headers_object(text: str) -> dict[str, str]:
    """Headers, from a JSON object of their names and values. Raises ValueError."""
    headers = _json_object(text)
    for name, value in headers.items():
        if not isinstance(value, str):
            raise ValueError('must be a JSON object of names and texts, {"X-Team": "logs"}')
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError("has a name that no header can have")
        if not (value.isascii() and value.isprintable()):
            raise ValueError("has a header with a line break or a letter beyond ASCII: take it out")
        if name.lower() in _OWN_HEADERS:
            raise ValueError(f"must not have {name.lower()}: enrich sets that itself")
    if len({name.lower() for name in headers}) < len(headers):
        raise ValueError("has a header twice")
    return headers


def shown_headers(headers: Mapping[str, str]) -> str:
    """Headers, fit for a screen: names, and no value."""
    return json.dumps(dict.fromkeys(headers, "***")) if headers else ""


def prefix(text: str) -> str:
    """What is put before each text, without the quotes around it; `\\n` is a line break.

    Quotes keep a blank at its end. Shells, systemd and .env take them away; Docker does not.

    Raises ValueError.
    """
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1]
    text = text.replace("\\n", "\n")
    if len(text) > MOST_PREFIX:
        raise ValueError(f"must have at most {MOST_PREFIX:,} characters")
    if not text.replace("\n", "").isprintable():
        raise ValueError(r"must be printable characters; \n is a line break")
    return text


def _json_object(text: str) -> dict[str, Any]:
    if not text.strip():
        return {}
    if len(text) > MOST_JSON:
        raise ValueError(f"must have at most {MOST_JSON:,} characters")
    try:
        value = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise ValueError('is no JSON: it must be an object, {"name": "value"}') from None
    if not isinstance(value, dict):
        raise ValueError('is no JSON object: it must be {"name": "value"}')
    return value


def _no_number(name: str) -> None:
    raise ValueError(name)


def _strings(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Each string of a value, and the name of the field that it stands in."""
    if isinstance(value, dict):
        for inner, each in value.items():
            yield from _strings(each, inner)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each, name)
    elif isinstance(value, str):
        yield name, value


def _is_secret(name: str, value: str) -> bool:
    return bool(value) and any(word in name.lower() for word in _SECRET_NAMES)

"""How an endpoint wants to be asked: address, headers, options, and what goes with each text.

A value from the settings, for documents or for queries: models that are trained for search want
the two told apart, by a prefix before the text or by a field of the request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from enrich.setting_forms.embeddings_api import Address, headers_object
from enrich.settings import Settings

#: An option of a request that is not sent at all.
NOT_SENT = None


class Purpose(StrEnum):
    """What texts are embedded for."""

    #: To be found.
    DOCUMENT = "document"
    #: To find documents.
    QUERY = "query"


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """How requests of one purpose look."""

    address: Address
    model: str
    #: Before each text.
    prefix: str = ""
    #: Fields of each request besides.
    extra: Mapping[str, Any] = field(default_factory=dict)
    #: Besides those of the client; may have secrets.
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    key: str = field(default="", repr=False)
    #: What is asked for first, by option; NOT_SENT leaves it out.
    options: Mapping[str, Any] = field(default_factory=dict)
    #: What is asked for where an option is refused; one that is missing is not taken back.
    instead: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings, purpose: Purpose = Purpose.DOCUMENT) -> Self:
        document = purpose is Purpose.DOCUMENT
        bodies = (
            settings.openai_extra_body,
            settings.enrich_document_extra_body if document else settings.enrich_query_extra_body,
        )
        extra: dict[str, Any] = {}
        for body in bodies:
            extra |= json.loads(body or "{}")
        dimensions, encoding = settings.enrich_send_dimensions, settings.enrich_encoding_format
        options = {
            "dimensions": NOT_SENT if dimensions == "false" else settings.embedding_dimensions,
            "encoding_format": {"auto": "base64", "none": NOT_SENT}.get(encoding, encoding),
        }
        instead: dict[str, Any] = {}
        if dimensions == "auto":
            instead["dimensions"] = NOT_SENT
        if encoding == "auto":
            instead["encoding_format"] = "float"
        return cls(
            address=Address.of(settings.openai_base_url),
            model=settings.embedding_model,
            prefix=settings.enrich_document_prefix if document else settings.enrich_query_prefix,
            extra=extra,
            headers=headers_object(settings.openai_extra_headers.get_secret_value()),
            key=settings.openai_api_key.get_secret_value(),
            options=options,
            instead=instead,
        )

    @property
    def base_url(self) -> str:
        return self.address.of_model(self.model)

    @property
    def served(self) -> str:
        """What the endpoint has to know, in words."""
        name = self.address.deployment
        return f"deployment {name}" if name else f"model {self.model}"

    @property
    def without_bearer(self) -> bool:
        """Whether the key is not sent as OpenAI's is, in `Authorization: Bearer`."""
        return self.address.azure and "authorization" not in self._named

    @property
    def all_headers(self) -> dict[str, str]:
        """Those that are set here; with the key, where that has a header of its own."""
        own = self.without_bearer and "api-key" not in self._named
        return {**({"api-key": self.key} if own else {}), **self.headers}

    @property
    def _named(self) -> set[str]:
        return {name.lower() for name in self.headers}

    @property
    def credentials(self) -> str:
        """All that may be the key: to tell one from another, never to be shown."""
        return "\n".join((self.key, *(f"{n}: {v}" for n, v in sorted(self.headers.items()))))

    @property
    def form(self) -> str:
        """What is done to texts besides sending them: it changes their vectors. "" for nothing."""
        if not (self.prefix or self.extra):
            return ""
        return json.dumps([self.prefix, self.extra], sort_keys=True, ensure_ascii=False)

    def texts(self, texts: Sequence[str]) -> list[str]:
        """As they are sent."""
        return [self.prefix + text for text in texts] if self.prefix else list(texts)

    def told(self) -> str:
        """Where requests go and how, for operators; no secret."""
        return f"requests go to {self.base_url}/embeddings: {self.address.told(self.model)}"

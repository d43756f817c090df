"""The settings of the chat model that says what it makes of a sample: none of them is needed.

A part of `enrich.settings.Settings`, which alone reads the environment.
"""

from __future__ import annotations

import re
from typing import Self

from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator

from enrich.setting_forms import embeddings_api
from enrich.setting_forms.url_parts import http_url

_OPERATION = re.compile(r"/chat/completions/?(?=\?|\Z)")


class ChatSettings(BaseModel):
    """Field names are the environment variables in lower case."""

    #: Empty: none is asked.
    chat_model: str = Field("", max_length=200)
    #: Empty: OPENAI_BASE_URL, with OPENAI_API_KEY and OPENAI_EXTRA_HEADERS.
    chat_base_url: str = ""
    chat_api_key: SecretStr = SecretStr("")
    #: For the whole answer.
    chat_timeout_seconds: float = Field(10, gt=0, le=60)

    @field_validator("chat_model")
    @classmethod
    def _printable(cls, value: str) -> str:
        name = value.strip()
        if not name.isprintable():
            raise ValueError("must be printable characters")
        return name

    @field_validator("chat_base_url")
    @classmethod
    def _chat_url(cls, value: str) -> str:
        url = _OPERATION.sub("", value.strip())
        if not url:
            return ""
        found = http_url(url, "CHAT_API_KEY")
        embeddings_api.Address.of(url)
        return found

    @field_validator("chat_api_key")
    @classmethod
    def _fit_for_a_header(cls, value: SecretStr) -> SecretStr:
        key = value.get_secret_value().strip()
        if not (key.isascii() and (not key or key.isprintable())):
            raise ValueError("must consist of printable ASCII characters")
        return SecretStr(key)

    @model_validator(mode="after")
    def _no_key_of_another_address(self) -> Self:
        if self.chat_base_url and not self.chat_api_key.get_secret_value():
            raise ValueError(
                "CHAT_BASE_URL needs CHAT_API_KEY, since OPENAI_API_KEY is not sent to another "
                "address: set it, to any word where none is asked for"
            )
        return self

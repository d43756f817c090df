"""The one reader of the environment: every setting, its default, its bounds and its meaning.

Settings come from environment variables or a `.env` file in the working directory. Everything else
receives values from here and never looks at the environment, so that a test can build any
combination and an operator finds every knob in one place.
"""

from __future__ import annotations

import codecs
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self
from zoneinfo import ZoneInfo

from dotenv.parser import parse_stream
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from enrich.errors import SettingsError
from enrich.models import project_of
from enrich.schema import AUTO, PRESETS, Schema, schema_of
from enrich.schema.levels import check_levels
from enrich.setting_forms import embeddings_api, opensearch_url
from enrich.setting_forms.chat import ChatSettings
from enrich.setting_forms.kafka import CommaSeparated, KafkaSettings
from enrich.setting_forms.opensearch_url import Node, Nodes, read_nodes
from enrich.setting_forms.redis_url import read_redis_url
from enrich.setting_forms.redis_url import without_password as without_password
from enrich.setting_forms.url_parts import http_url, url_parts
from enrich.text import normalizing
from enrich.text.extract import LEAST_CUT_BYTES, MAX_TEXT_BYTES
from enrich.text.masking import expanded
from enrich.text.rewriting import Rewrite, rewriting

#: Beyond these, no provider of embeddings accepts a request (OpenAI's published limits).
MAX_INPUTS_PER_REQUEST = 2048

#: UTF-8 bytes in one request. OpenAI refuses 300,000 tokens; log text has 2 bytes a token at the
#: least (Korean, hexadecimal), so that this holds; a request that does not is cut when refused.
MAX_REQUEST_BYTES = 600_000

#: USD per one million tokens, by model, as OpenAI publishes them; ENRICH_PRICE_PER_MILLION_TOKENS
#: overrides it for other models and other contracts.
PRICE_PER_MILLION_TOKENS = {
    "text-embedding-3-large": 0.13,
    "text-embedding-3-small": 0.02,
    "text-embedding-ada-002": 0.10,
}

#: Where records of runs are kept. The default pattern does not match it.
RUNS_INDEX = "enrich-runs"

#: On one host, more would rather need more memory than do more.
MOST_DEFAULT_PROCESSES = 32

#: A name as mappings have them: no wildcard, and no empty part between its dots.
_FIELD_NAME = re.compile(r"[^\s.*,<>]+(\.[^\s.*,<>]+)*")


class Settings(KafkaSettings, ChatSettings, BaseSettings):
    """All settings, validated. Field names are the environment variables in lower case."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        extra="ignore",
        frozen=True,
        env_ignore_empty=True,
        allow_inf_nan=False,
    )

    # -- embeddings API
    openai_api_key: SecretStr
    openai_base_url: str = "https://api.openai.com/v1"
    openai_timeout_seconds: float = Field(30.0, gt=0)
    embedding_model: str = "text-embedding-3-large"
    embedding_dimensions: int = Field(1536, ge=2, le=16_000)
    #: A proxy's URL; "" is what the environment says, "none" is no proxy whatever it says.
    openai_proxy: SecretStr = SecretStr("")
    #: JSON objects: headers by name, and fields of the body.
    openai_extra_headers: SecretStr = SecretStr("")
    openai_extra_body: str = ""
    #: Of logs and of words that are searched: put before each text, and into the body.
    enrich_document_prefix: str = ""
    enrich_query_prefix: str = ""
    enrich_document_extra_body: str = ""
    enrich_query_extra_body: str = ""
    #: Options of a request that some endpoints refuse; "auto" leaves them out once refused.
    enrich_send_dimensions: Literal["auto", "true", "false"] = "auto"
    enrich_encoding_format: Literal["auto", "base64", "float", "none"] = "auto"
    #: What a request may have; 0: as much as the endpoint was found to take.
    enrich_max_request_inputs: int = Field(0, ge=0, le=MAX_INPUTS_PER_REQUEST)
    enrich_max_request_bytes: int = Field(0, ge=0, le=MAX_REQUEST_BYTES)

    # -- OpenSearch: its nodes (opensearch_url), or one by host, port and use_ssl
    opensearch_url: SecretStr = SecretStr("")
    opensearch_host: str = "localhost"
    opensearch_port: int = Field(9200, ge=1, le=65_535)
    opensearch_user: str = ""
    opensearch_password: SecretStr = SecretStr("")
    opensearch_token: SecretStr = SecretStr("")
    #: JSON, name to value.
    opensearch_headers: SecretStr = SecretStr("")
    opensearch_auth: Literal["basic", "aws"] = "basic"
    opensearch_aws_service: Literal["es", "aoss"] = "es"
    aws_region: str = ""
    opensearch_use_ssl: bool = True
    opensearch_verify_certs: bool = True
    opensearch_ca_certs: str = ""
    opensearch_client_cert: str = ""
    opensearch_client_key: str = ""
    opensearch_timeout_seconds: float = Field(30.0, gt=0)

    # -- Redis: broker, ledger, API quota (redis_url); vectors (cache_url)
    redis_url: SecretStr = SecretStr("redis://localhost:6379/0")
    cache_url: SecretStr = SecretStr("")
    enrich_redis_prefix: str = Field("enrich:", min_length=1)

    # -- what is found
    enrich_index_pattern: CommaSeparated = ("*_*", "-.*")
    enrich_exclude_indices: CommaSeparated = ()
    enrich_levels: CommaSeparated = ("ERROR",)
    enrich_max_age_days: float = Field(0, ge=0)

    # -- where logs have what: a preset, and fields that stand in place of the preset's
    enrich_schema: str = "loglens"
    enrich_level_field: str = ""
    enrich_text_fields: CommaSeparated = ()
    enrich_timestamp_field: str = ""
    enrich_service_field: str = ""
    enrich_trace_field: str = ""

    # -- what may leave: kinds of enrich/text/masking.py that are masked in the text, or "all"
    enrich_mask: CommaSeparated = ()

    # -- what texts may differ in and still share a vector: kinds of enrich/text/normalizing.py
    enrich_normalize: CommaSeparated = ()

    #: Bytes of a text that the model is sent; 0: as many as it was found to take.
    enrich_max_text_bytes: int = Field(0, ge=0, le=MAX_TEXT_BYTES)

    # -- how much, how often
    enrich_interval_minutes: float = Field(10, gt=0)
    enrich_batch_size: int = Field(256, ge=1, le=MAX_INPUTS_PER_REQUEST)
    enrich_max_logs_per_run: int = Field(0, ge=0)
    enrich_max_cost_per_day: float = Field(0, ge=0)
    enrich_max_project_share: float = Field(0.5, gt=0, le=1)
    #: USD; a backlog that costs more waits for `confirm`; 0: none waits.
    enrich_confirm_above_usd: float = Field(0, ge=0)
    #: Enough for the largest worker that there is by default, see `too_few_chunks_for`.
    enrich_max_chunks_in_flight: int = Field(2 * MOST_DEFAULT_PROCESSES, ge=1)
    enrich_price_per_million_tokens: float | None = Field(None, ge=0)
    enrich_requests_per_minute: int = Field(0, ge=0)
    enrich_tokens_per_minute: int = Field(0, ge=0)
    #: Documents a second, all workers together; 0: as fast as OpenSearch takes them.
    enrich_write_pace: int = Field(0, ge=0)

    # -- cache and reuse
    enrich_cache_max_entries: int = Field(30_000, ge=0)
    enrich_cache_ttl_seconds: int = Field(3600, ge=1)
    enrich_reuse_across_projects: bool = False

    # -- history: records of runs in the index enrich-runs, and for how many days they are kept
    enrich_history: bool = True
    enrich_history_days: int = Field(90, ge=1, le=3650)

    # -- times; each must be shorter than the next, see `_times_in_order`
    enrich_soft_time_limit_seconds: float = Field(90, gt=0)
    enrich_hard_time_limit_seconds: float = Field(120, gt=0)
    enrich_visibility_timeout_seconds: float = Field(300, gt=0)
    enrich_chunk_deadline_seconds: float = Field(420, gt=0)
    #: How long a server that is away is waited for, before work is deferred; not in the order.
    enrich_outage_seconds: float = Field(150, ge=0, le=3600)

    # -- the HTTP service
    enrich_api_address: str = "127.0.0.1"
    enrich_api_port: int = Field(8000, ge=1, le=65_535)
    #: Who may ask, see enrich/api/keys.py; empty: everybody, and on loopback alone.
    enrich_api_keys_file: str = ""
    #: For so many milliseconds texts of several callers are gathered before they are asked for.
    enrich_coalesce_ms: float = Field(10, ge=0, le=1000)
    #: In which hours are counted. Not looked for before that is done: no worker needs it.
    enrich_time_zone: str = "Asia/Seoul"

    # -- logs
    #: "none" for no file.
    enrich_log_file: str = "periodic_enrichment.log"
    enrich_log_format: Literal["plain", "json"] = "plain"

    #: Where an OTLP receiver takes traces; empty: none are made.
    enrich_traces_url: str = ""

    #: What a probe looks at, see enrich/worker/alive_file.py; empty: no file.
    enrich_alive_file: str = ""

    @model_validator(mode="before")
    @classmethod
    def _of_utf8(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        read = {n: of_utf8(v) if isinstance(v, str) else v for n, v in values.items()}
        for name, value in read.items():
            if isinstance(value, str) and re.search("[\ud800-\udfff]", value):
                raise ValueError(f"{name.upper()} is not UTF-8, and not of the locale's encoding")
        return read

    @field_validator(
        "enrich_index_pattern",
        "enrich_exclude_indices",
        "enrich_levels",
        "enrich_text_fields",
        "enrich_mask",
        "enrich_normalize",
        mode="before",
    )
    @classmethod
    def _split_commas(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("enrich_index_pattern", "enrich_levels")
    @classmethod
    def _not_empty(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("must name at least one")
        return value

    @field_validator("enrich_levels")
    @classmethod
    def _readable_levels(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        check_levels(value)
        return value

    @field_validator("enrich_schema")
    @classmethod
    def _known_schema(cls, value: str) -> str:
        name = value.strip().lower()
        if name not in (*PRESETS, AUTO):
            raise ValueError(f"must be one of {', '.join(sorted((*PRESETS, AUTO)))}")
        return name

    @field_validator(
        "enrich_level_field",
        "enrich_text_fields",
        "enrich_timestamp_field",
        "enrich_service_field",
        "enrich_trace_field",
    )
    @classmethod
    def _names_of_fields(cls, value: Any) -> Any:
        for name in (value,) if isinstance(value, str) else value:
            if name and not _FIELD_NAME.fullmatch(name):
                raise ValueError(
                    "must be the whole name of a field, such as log.level, without wildcards"
                )
        return value

    @field_validator("enrich_time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        name = value.strip()
        try:
            ZoneInfo(name)
        except (ValueError, LookupError, OSError):
            raise ValueError("must be the name of a time zone, such as Asia/Seoul or UTC") from None
        return name

    @field_validator("enrich_mask")
    @classmethod
    def _known_kinds(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return expanded(value)

    @field_validator("enrich_normalize")
    @classmethod
    def _known_parts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return normalizing.expanded(value)

    @field_validator("openai_api_key")
    @classmethod
    def _key_not_blank(cls, value: SecretStr) -> SecretStr:
        key = value.get_secret_value().strip()
        if not key:
            raise ValueError("must not be empty")
        if not (key.isascii() and key.isprintable()):
            # It travels in an HTTP header; anything else would look like a server out of reach.
            raise ValueError("must consist of printable ASCII characters")
        return SecretStr(key)

    @field_validator("enrich_max_text_bytes")
    @classmethod
    def _something_is_left(cls, value: int) -> int:
        if 0 < value < LEAST_CUT_BYTES:
            raise ValueError(f"must be 0, or {LEAST_CUT_BYTES} to {MAX_TEXT_BYTES}")
        return value

    @field_validator("enrich_traces_url")
    @classmethod
    def _collector(cls, value: str) -> str:
        return http_url(value, "OTEL_EXPORTER_OTLP_HEADERS") if value else ""

    @field_validator("openai_base_url")
    @classmethod
    def _http_url(cls, value: str) -> str:
        found = http_url(value, "OPENAI_API_KEY")
        embeddings_api.Address.of(value)
        return found

    @field_validator("openai_proxy")
    @classmethod
    def _proxy_url(cls, value: SecretStr) -> SecretStr:
        url = value.get_secret_value().strip()
        parts = url_parts(url)
        if url in ("", "none"):
            return SecretStr(url)
        if parts is None or parts.scheme not in ("http", "https", "socks5", "socks5h"):
            raise ValueError(
                "must be the URL of a proxy, http://host:port or socks5://host:port, or none; "
                "special characters in its password have to be percent-encoded"
            )
        return SecretStr(url)

    @field_validator("openai_extra_headers", "opensearch_headers")
    @classmethod
    def _headers(cls, value: SecretStr) -> SecretStr:
        embeddings_api.headers_object(value.get_secret_value())
        return value

    @field_validator("openai_extra_body", "enrich_document_extra_body", "enrich_query_extra_body")
    @classmethod
    def _body(cls, value: str) -> str:
        return embeddings_api.body_object(value)

    @field_validator("enrich_document_prefix", "enrich_query_prefix")
    @classmethod
    def _prefix(cls, value: str) -> str:
        return embeddings_api.prefix(value)

    @field_validator("enrich_send_dimensions", "enrich_encoding_format", mode="before")
    @classmethod
    def _any_case(cls, value: Any) -> Any:
        return str(value).strip().lower()

    @field_validator("redis_url", "cache_url")
    @classmethod
    def _redis_scheme(cls, value: SecretStr) -> SecretStr:
        url = value.get_secret_value()
        if url:
            read_redis_url(url)
        return value

    @field_validator("opensearch_host")
    @classmethod
    def _host_alone(cls, value: str) -> str:
        host = value.strip()
        # No value is quoted: what stands before @ is a password.
        if "@" in host:
            raise ValueError(
                "must not carry a user name or password: use OPENSEARCH_USER and "
                "OPENSEARCH_PASSWORD"
            )
        if "," in host or ";" in host:
            raise ValueError(
                "must be one host: several nodes are OPENSEARCH_URL, separated by commas"
            )
        if "://" in host:
            raise ValueError(
                "must be a host name alone: http:// or https:// is OPENSEARCH_USE_SSL, and the "
                "port is OPENSEARCH_PORT; a whole address is OPENSEARCH_URL"
            )
        if "/" in host or "?" in host or "#" in host:
            raise ValueError("must be a host name alone: OpenSearch under a path is OPENSEARCH_URL")
        if host.count(":") == 1:
            raise ValueError("must be a host name alone: the port is OPENSEARCH_PORT")
        if not host or not host.isprintable() or any(map(str.isspace, host)):
            raise ValueError("must be a host name")
        return host

    @field_validator("opensearch_user")
    @classmethod
    def _user_alone(cls, value: str) -> str:
        if ":" in value:
            raise ValueError("must not have a colon: the password is OPENSEARCH_PASSWORD")
        return value

    @field_validator("opensearch_url")
    @classmethod
    def _nodes(cls, value: SecretStr) -> SecretStr:
        if url := value.get_secret_value().strip():
            read_nodes(url)
        return SecretStr(url)

    @field_validator("opensearch_token")
    @classmethod
    def _one_word(cls, value: SecretStr) -> SecretStr:
        token = value.get_secret_value().strip()
        if not re.fullmatch(r"[!-~]*", token):
            raise ValueError("must consist of printable ASCII characters, without spaces")
        return SecretStr(token)

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        if not self._in_url:
            return self
        nodes, given = self._in_url.nodes, self.model_fields_set
        for name, of_nodes in (
            ("opensearch_host", {node.bare_host for node in nodes}),
            ("opensearch_port", {node.port for node in nodes}),
            ("opensearch_use_ssl", {node.secured for node in nodes}),
        ):
            if name in given and of_nodes != {getattr(self, name)}:
                raise ValueError(
                    f"OPENSEARCH_URL and {name.upper()} name different addresses: keep one of them"
                )
        return self

    @model_validator(mode="after")
    def _one_login(self) -> Self:
        if self._in_url and self._in_url.user:
            if self.opensearch_user not in ("", self._in_url.user):
                raise ValueError("OPENSEARCH_URL and OPENSEARCH_USER name two users: keep one")
            password = self.opensearch_password.get_secret_value()
            if self._in_url.password and password not in ("", self._in_url.password):
                raise ValueError(
                    "OPENSEARCH_URL and OPENSEARCH_PASSWORD have two passwords: keep one"
                )
        ways = {
            "OPENSEARCH_USER" if self.opensearch_user else "the user of OPENSEARCH_URL": bool(
                self.opensearch_login[0]
            ),
            "OPENSEARCH_TOKEN": bool(self.opensearch_token.get_secret_value()),
            "authorization in OPENSEARCH_HEADERS": "authorization" in self.opensearch_header_fields,
            "OPENSEARCH_AUTH=aws": self.opensearch_auth == "aws",
        }
        if len(used := [way for way, is_used in ways.items() if is_used]) > 1:
            raise ValueError(f"{' and '.join(used)}: OpenSearch takes one login, keep one of them")
        if self.opensearch_client_key and not self.opensearch_client_cert:
            raise ValueError("OPENSEARCH_CLIENT_KEY needs OPENSEARCH_CLIENT_CERT")
        if self.opensearch_client_cert and not self.opensearch_nodes[0].secured:
            raise ValueError("OPENSEARCH_CLIENT_CERT needs https: http is not encrypted")
        return self

    @model_validator(mode="after")
    def _times_in_order(self) -> Self:
        names = ("soft_time_limit", "hard_time_limit", "visibility_timeout", "chunk_deadline")
        fields = [f"enrich_{name}_seconds" for name in names]
        for shorter, longer in pairwise(fields):
            if getattr(self, shorter) >= getattr(self, longer):
                raise ValueError(f"{shorter.upper()} must be shorter than {longer.upper()}")
        return self

    @model_validator(mode="after")
    def _cost_can_be_counted(self) -> Self:
        if self.enrich_max_cost_per_day and not self.price_per_million_tokens:
            raise ValueError(
                "ENRICH_MAX_COST_PER_DAY needs ENRICH_PRICE_PER_MILLION_TOKENS, because the price "
                "of EMBEDDING_MODEL is not known"
            )
        if self.enrich_confirm_above_usd and not self.price_per_million_tokens:
            raise ValueError(
                "ENRICH_CONFIRM_ABOVE_USD needs ENRICH_PRICE_PER_MILLION_TOKENS, because the price "
                "of EMBEDDING_MODEL is not known"
            )
        return self

    @property
    def _in_url(self) -> Nodes | None:
        url = self.opensearch_url.get_secret_value()
        return read_nodes(url) if url else None

    @property
    def opensearch_nodes(self) -> tuple[Node, ...]:
        """Where OpenSearch is asked; one at least, all encrypted or none."""
        if self._in_url:
            return self._in_url.nodes
        return (Node(self.opensearch_use_ssl, self.opensearch_host, self.opensearch_port),)

    @property
    def opensearch_address(self) -> str:
        """The URLs of the nodes, whatever order they were named in, without a login."""
        return ", ".join(sorted(map(str, self.opensearch_nodes)))

    @property
    def opensearch_login(self) -> tuple[str, str]:
        """User and password, wherever they stand; an empty user for none."""
        user, password = self.opensearch_user, self.opensearch_password.get_secret_value()
        if self._in_url:
            user, password = user or self._in_url.user, password or self._in_url.password
        return user, password

    @property
    def opensearch_header_fields(self) -> dict[str, str]:
        """What every request to OpenSearch carries besides; names in lower case."""
        fields = embeddings_api.headers_object(self.opensearch_headers.get_secret_value())
        return {name.lower(): value for name, value in fields.items()}

    @property
    def vector_cache_url(self) -> str:
        return self.cache_url.get_secret_value() or self.redis_url.get_secret_value()

    @property
    def interval_seconds(self) -> float:
        return self.enrich_interval_minutes * 60

    @property
    def index_expression(self) -> str:
        """The target of every search, in OpenSearch's syntax: patterns, then exclusions."""
        excluded = [f"-{name}" for name in self.enrich_exclude_indices]
        if any(fnmatchcase(RUNS_INDEX, p) for p in without_exclusions(self.enrich_index_pattern)):
            # It is ours, and has no logs.
            excluded.append(f"-{RUNS_INDEX}")
        return ",".join((*self.enrich_index_pattern, *excluded))

    @property
    def log_schema(self) -> Schema:
        """Where logs have their level, text, time, service and trace."""
        return schema_of(
            self.enrich_schema,
            self.enrich_levels,
            level_field=self.enrich_level_field,
            text_fields=self.enrich_text_fields,
            timestamp_field=self.enrich_timestamp_field,
            service_field=self.enrich_service_field,
            trace_field=self.enrich_trace_field,
        )

    @property
    def price_per_million_tokens(self) -> float:
        """USD; 0 for a model without a known price, which `check` says."""
        if self.enrich_price_per_million_tokens is not None:
            return self.enrich_price_per_million_tokens
        return PRICE_PER_MILLION_TOKENS.get(self.embedding_model, 0.0)

    @property
    def time_zone(self) -> ZoneInfo:
        """Raises SettingsError: this system knows no time zones."""
        try:
            return ZoneInfo(self.enrich_time_zone)
        except (LookupError, OSError):
            raise SettingsError(
                f"ENRICH_TIME_ZONE: this system has no {self.enrich_time_zone}: install its "
                "package of time zones, or pip install tzdata"
            ) from None

    def too_few_chunks_for(self, processes: int) -> str:
        """Why some of so many worker processes would wait and what to set; "" if none would.

        The next page is read when half of the chunks are done. With as many chunks as processes a
        worker had 0.76 of its speed, with twice as many all of it (docs/performance.md).
        """
        most, enough = self.enrich_max_chunks_in_flight, 2 * processes
        if most >= enough:
            return ""
        return (
            f"{processes} processes with ENRICH_MAX_CHUNKS_IN_FLIGHT={most}: some will wait for "
            f"chunks while the API answers the others; set it to {enough}, twice the processes of "
            "all hosts, or more"
        )

    def reuse_scope(self, index: str) -> str:
        """Within which stored vectors are reused: the index's project, or "" for all projects."""
        return "" if self.enrich_reuse_across_projects else project_of(index)

    def redacted(self) -> dict[str, str]:
        """Every setting under its variable's name, fit for a log: secrets as `***`."""
        shown: dict[str, str] = {}
        for name, value in self:
            if isinstance(value, SecretStr):
                text = _SHOWN.get(name, _hidden)(value.get_secret_value())
            elif isinstance(value, tuple):
                text = ",".join(value)
            else:
                text = "" if value is None else str(value)
            shown[name.upper()] = text
        return shown


def _hidden(secret: str) -> str:
    return "***" if secret else ""


def _shown_headers(secret: str) -> str:
    return embeddings_api.shown_headers(embeddings_api.headers_object(secret))


#: Secrets of which a part may be shown.
_SHOWN: Mapping[str, Callable[[str], str]] = {
    "redis_url": without_password,
    "cache_url": without_password,
    "openai_proxy": without_password,
    "openai_extra_headers": _shown_headers,
    "opensearch_url": opensearch_url.shown,
    "opensearch_headers": _shown_headers,
}


#: Whose names must be ours; what others read under them.
_OURS = ("ENRICH_", "ENRICHMENT_", "OPENSEARCH_", "OPENAI_", "EMBEDDING_")
#: Others have many names of this kind; only those that are nearly ours are told.
_SHARED = ("KAFKA_", "CONSUMER_", "CHAT_")
_OTHERS = re.compile(
    # The images of OpenSearch and its Dashboards, and its own scripts.
    r"OPENSEARCH_(INITIAL_ADMIN_PASSWORD|JAVA_OPTS|JAVA_HOME|HOME|PATH_CONF|TMPDIR|HOSTS)"
    # The client of the embeddings API.
    r"|OPENAI_(ORG_ID|ORGANIZATION|PROJECT_ID|ADMIN_KEY|WEBHOOK_SECRET|LOG|API_TYPE|API_VERSION)"
    # What Kubernetes and links of containers add for each service.
    r"|\w+_(SERVICE_HOST|SERVICE_PORT|SERVICE_PORT_\w+|PORT_\d+_(TCP|UDP)(_\w+)?|ENV_\w+)"
)


def of_utf8(text: str) -> str:
    """A text of the command line or the environment, read as UTF-8 where that is what it is.

    Python reads both in the encoding of the locale, and what is none of it as half surrogate pairs:
    in a locale without UTF-8 every name beyond ASCII would be another one, or none.
    """
    try:
        return os.fsencode(text).decode()
    except UnicodeError:
        return text


def authorities() -> tuple[str, str]:
    """Where the environment says that certificates of authorities are: a file and a folder.

    OpenSSL, and so each of our clients, reads these two by itself.
    """
    return os.environ.get("SSL_CERT_FILE", ""), os.environ.get("SSL_CERT_DIR", "")


def unknown_names(environment: Mapping[str, str] = os.environ) -> list[str]:
    """A sentence for each variable that looks like a setting and is none, with the nearest one."""
    return [_unknown(name) for name in sorted(environment) if _is_unknown(name)]


def _is_unknown(name: str) -> bool:
    name = name.upper()
    if name.lower() in Settings.model_fields:
        return False
    if name.startswith(_SHARED):
        return bool(_nearest(name, 0.85))
    return name.startswith(_OURS) and not _OTHERS.fullmatch(name)


def _unknown(name: str) -> str:
    near = _nearest(name, 0.7)
    hint = f"did you mean {near}?" if near else ".env.example has all there are"
    return f"{name} is no setting: {hint}"


def _nearest(name: str, cutoff: float) -> str:
    """The setting whose name is most like it; "" if none is."""
    known = [field.upper() for field in Settings.model_fields]
    return "".join(get_close_matches(name.upper(), known, n=1, cutoff=cutoff))


def _env_file() -> dict[str, str | None]:
    """The names of `.env`. Raises SettingsError: it is not UTF-8, or a line cannot be read."""
    try:
        raw = Path(".env").read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except IsADirectoryError:
        # As an empty one: a container makes a folder of a file to mount that is not there.
        return {}
    except OSError as error:
        raise SettingsError(f".env cannot be read ({error.strerror})") from None
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in raw:
        raise SettingsError(".env line 1 is UTF-16, or not text: save the file as UTF-8")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SettingsError(f".env line {line} is not UTF-8: save the file as UTF-8") from None
    names: dict[str, str | None] = {}
    for binding in parse_stream(StringIO(text)):
        if binding.error:
            raise SettingsError(
                f".env line {binding.original.line} cannot be read: it must be NAME=value"
            )
        if binding.key is not None:
            names[binding.key] = binding.value
    return names


def load_settings(**overrides: Any) -> Settings:
    """Read the environment and `.env`.

    Raises:
        SettingsError: a variable is missing or wrong; the message names each of them, and no value.
    """
    in_file = _env_file()
    wrong = [f"{sentence} (in .env)" for sentence in unknown_names(dict.fromkeys(in_file, ""))]
    if wrong:
        raise SettingsError("; ".join(wrong))
    try:
        return Settings(**overrides)
    except ValidationError as error:
        # `from None`: pydantic's own text quotes the rejected input, which may be a secret.
        raise SettingsError("; ".join(_sentence(detail) for detail in error.errors())) from None


def _sentence(detail: Any) -> str:
    variable = str(detail["loc"][0]).upper() if detail["loc"] else ""
    if detail["type"] == "missing":
        return f"{variable} is not set: set it in the environment or in .env"
    reason = detail["msg"].removeprefix("Value error, ")
    return f"{variable}: {reason}" if variable else reason


def rewrite_of(settings: Settings) -> Rewrite | None:
    """What the settings do to a text; None where it stays as it is."""
    return rewriting(settings.enrich_mask, settings.enrich_normalize)


def is_open_to_others(path: str) -> bool:
    """Whether any user of the host may read a file."""
    try:
        return os.name == "posix" and bool(os.stat(path).st_mode & stat.S_IROTH)
    except OSError:
        return False


def without_exclusions(patterns: Iterable[str]) -> list[str]:
    """Those of index patterns that take indices in."""
    return [pattern for pattern in patterns if not pattern.startswith("-")]

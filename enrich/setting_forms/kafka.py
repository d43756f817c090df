"""The settings of the consumer: brokers, topics, group, batches, and how the connection is secured.

A part of `enrich.settings.Settings`, which alone reads the environment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

CommaSeparated = Annotated[tuple[str, ...], NoDecode]

#: Kafka's own limit of a topic's name.
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")

#: What a broker's address may be: a name, an address, or an IPv6 address in brackets; and a port.
_BROKER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")

#: Options of the client that decide what is lost and what is counted, or have a setting.
_DECIDED_ELSEWHERE = {
    "bootstrap.servers": "KAFKA_BOOTSTRAP_SERVERS",
    "group.id": "CONSUMER_GROUP_ID",
    "group.protocol": "KAFKA_GROUP_PROTOCOL",
    "auto.offset.reset": "KAFKA_AUTO_OFFSET_RESET",
    "security.protocol": "KAFKA_SECURITY_PROTOCOL",
    "sasl.mechanism": "KAFKA_SASL_MECHANISM",
    "sasl.mechanisms": "KAFKA_SASL_MECHANISM",
    "sasl.username": "KAFKA_SASL_USERNAME",
    "sasl.password": "KAFKA_SASL_PASSWORD",
    "enable.auto.commit": "",
    "enable.auto.offset.store": "",
    "isolation.level": "",
}

SASL_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")


class KafkaSettings(BaseModel):
    """Field names are the environment variables in lower case."""

    kafka_bootstrap_servers: str = ""
    kafka_topic: CommaSeparated = ("application-logs",)
    consumer_group_id: str = Field("ai-enrichment-consumer", min_length=1, max_length=249)
    kafka_group_protocol: Literal["classic", "consumer"] = "classic"
    #: Where a group begins that has no offset, or whose offset is gone.
    kafka_auto_offset_reset: Literal["earliest", "latest"] = "earliest"
    #: ERROR logs that begin a batch, and seconds that the first of them waits at most.
    enrichment_batch_size: int = Field(50, ge=1, le=1000)
    enrichment_batch_timeout: float = Field(5, gt=0, le=300)
    #: "attach": a shipper indexes logs, and the vector is added; "index": the consumer does both.
    enrich_consumer_mode: Literal["attach", "index"] = "attach"
    #: Seconds that a log's document is waited for before it is left to the backfill.
    enrich_document_wait_seconds: float = Field(10, ge=0, le=600)
    #: Keys of a message that name its document and its project; the first that it has counts.
    kafka_id_fields: CommaSeparated = ("document_id", "_id", "log_id")
    kafka_project_fields: CommaSeparated = ("safe_project_uuid", "project_uuid")

    # -- how the connection is secured
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_ssl_ca_location: str = ""
    kafka_ssl_certificate_location: str = ""
    kafka_ssl_key_location: str = ""
    kafka_ssl_key_password: SecretStr = SecretStr("")
    kafka_sasl_mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = ""
    kafka_sasl_username: str = ""
    kafka_sasl_password: SecretStr = SecretStr("")
    kafka_oauth_token_url: str = ""
    kafka_oauth_client_id: str = ""
    kafka_oauth_client_secret: SecretStr = SecretStr("")
    kafka_oauth_scope: str = ""
    #: A JSON object: further options of librdkafka, by their names there.
    kafka_extra_config: SecretStr = SecretStr("")

    @field_validator("kafka_topic", "kafka_id_fields", "kafka_project_fields", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("kafka_topic", "kafka_id_fields", "kafka_project_fields")
    @classmethod
    def _name_one(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("must name at least one")
        return value

    @field_validator("kafka_topic")
    @classmethod
    def _topics(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not _TOPIC.fullmatch(name) or name in (".", ".."):
                raise ValueError(
                    "must be names of topics, separated by commas: letters, digits, '.', '_', '-'"
                )
        return tuple(dict.fromkeys(value))

    @field_validator("kafka_bootstrap_servers")
    @classmethod
    def _brokers(cls, value: str) -> str:
        brokers = [part.strip() for part in value.split(",") if part.strip()]
        for broker in brokers:
            match = _BROKER.fullmatch(broker)
            if match is None or not 0 < int(match[2]) < 65_536:
                raise ValueError("must be host:port, several separated by commas, without a scheme")
        return ",".join(brokers)

    @field_validator("kafka_security_protocol", "kafka_sasl_mechanism", mode="before")
    @classmethod
    def _in_capitals(cls, value: Any) -> Any:
        return str(value).strip().upper()

    @field_validator("kafka_group_protocol", "kafka_auto_offset_reset", "enrich_consumer_mode",
                     mode="before")  # fmt: skip
    @classmethod
    def _in_small_letters(cls, value: Any) -> Any:
        return str(value).strip().lower()

    @field_validator("kafka_extra_config")
    @classmethod
    def _options(cls, value: SecretStr) -> SecretStr:
        options_object(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _secured_as_a_whole(self) -> Self:
        sasl = self.kafka_security_protocol.startswith("SASL_")
        secret = self.kafka_sasl_password.get_secret_value()
        if sasl and not self.kafka_sasl_mechanism:
            raise ValueError(
                f"KAFKA_SECURITY_PROTOCOL={self.kafka_security_protocol} needs "
                f"KAFKA_SASL_MECHANISM: one of {', '.join(SASL_MECHANISMS)}"
            )
        for name in ("mechanism", "username", "password"):
            if not sasl and _text(getattr(self, f"kafka_sasl_{name}")):
                raise ValueError(
                    f"KAFKA_SASL_{name.upper()} needs KAFKA_SECURITY_PROTOCOL=SASL_SSL, or "
                    "SASL_PLAINTEXT where the password may travel in clear"
                )
        by_password = sasl and self.kafka_sasl_mechanism != "OAUTHBEARER"
        if by_password and not (self.kafka_sasl_username and secret):
            raise ValueError(
                f"KAFKA_SASL_MECHANISM={self.kafka_sasl_mechanism} needs KAFKA_SASL_USERNAME and "
                "KAFKA_SASL_PASSWORD"
            )
        for name in ("token_url", "client_id", "client_secret"):
            oauth = self.kafka_sasl_mechanism == "OAUTHBEARER"
            if oauth and not _text(getattr(self, f"kafka_oauth_{name}")):
                raise ValueError(
                    f"KAFKA_SASL_MECHANISM=OAUTHBEARER needs KAFKA_OAUTH_{name.upper()}"
                )
        if self.kafka_ssl_key_location and not self.kafka_ssl_certificate_location:
            raise ValueError("KAFKA_SSL_KEY_LOCATION needs KAFKA_SSL_CERTIFICATE_LOCATION")
        for name in ("ca", "certificate"):
            encrypted = self.kafka_security_protocol.endswith("SSL")
            if not encrypted and getattr(self, f"kafka_ssl_{name}_location"):
                raise ValueError(
                    f"KAFKA_SSL_{name.upper()}_LOCATION needs KAFKA_SECURITY_PROTOCOL=SSL or "
                    "SASL_SSL"
                )
        return self

    @property
    def kafka_options(self) -> Mapping[str, Any]:
        """Further options of librdkafka."""
        return options_object(self.kafka_extra_config.get_secret_value())


def options_object(text: str) -> dict[str, Any]:
    """KAFKA_EXTRA_CONFIG as a mapping. Raises ValueError: it is none, or names what is decided."""
    if not text.strip():
        return {}
    try:
        options = json.loads(text)
    except ValueError:
        options = None
    if not isinstance(options, dict):
        raise ValueError('must be a JSON object, such as {"fetch.max.bytes": 1048576}')
    for name, value in options.items():
        if name in _DECIDED_ELSEWHERE:
            setting = _DECIDED_ELSEWHERE[name]
            raise ValueError(
                f"must not have {name}: " + (f"set {setting}" if setting else "enrich decides it")
            )
        if not isinstance(value, str | int | float | bool):
            raise ValueError("must have only texts, numbers, true and false as values")
    return options


def _text(value: str | SecretStr) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value

"""What Kafka's client says of its connection, in our words: who has to change what, and whether the
consumer ends or waits.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError

from enrich.errors import AccessRefused, EnrichError, Halt, ServerUnavailable, SettingsError
from enrich.realtime.broker import Broker, named
from enrich.settings import Settings, load_settings

SECURED = {
    "kafka_bootstrap_servers": "127.0.0.1:1",
    "kafka_security_protocol": "SASL_SSL",
    "kafka_sasl_mechanism": "PLAIN",
    "kafka_sasl_username": "enrich",
    "kafka_sasl_password": "pw-secret",
}


def settings(**more: Any) -> Settings:
    return load_settings(_env_file=None, openai_api_key="k", **{**SECURED, **more})


@pytest.mark.parametrize(
    ("code", "text", "kind", "words"),
    [
        # As librdkafka 2.16 says it of a broker 4.4.
        (
            KafkaError._AUTHENTICATION,
            "sasl_ssl://h:1/bootstrap: SASL authentication error: Authentication failed: Invalid "
            "username or password (after 311ms in state AUTH_REQ)",
            AccessRefused,
            "refused the login",
        ),
        (
            KafkaError._AUTHENTICATION,
            "Failed to acquire SASL OAUTHBEARER token: HTTP 401",
            ServerUnavailable,
            "KAFKA_OAUTH_TOKEN_URL",
        ),
        (
            KafkaError._TRANSPORT,
            "ssl://h:1/bootstrap: Receive failed: error:0A00045C:SSL routines::tlsv13 alert "
            "certificate required: SSL alert number 116 (after 3ms in state APIVERSION_QUERY)",
            AccessRefused,
            "KAFKA_SSL_CERTIFICATE_LOCATION",
        ),
        (
            KafkaError._SSL,
            "ssl://h:1/bootstrap: SSL handshake failed: certificate verify failed",
            AccessRefused,
            "KAFKA_SSL_CA_LOCATION",
        ),
        (
            KafkaError._TRANSPORT,
            "ssl://h:1/bootstrap: SSL handshake failed: Disconnected: SSL connection closed by "
            "peer: connecting to a PLAINTEXT broker listener?",
            ServerUnavailable,
            "KAFKA_SECURITY_PROTOCOL",
        ),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, "", AccessRefused, "CONSUMER_GROUP_ID"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "", AccessRefused, "KAFKA_SASL_USERNAME enrich"),
        (KafkaError.UNSUPPORTED_VERSION, "", Halt, "KAFKA_GROUP_PROTOCOL"),
    ],
)
def test_an_error_names_what_to_change(
    code: int, text: str, kind: type[EnrichError], words: str
) -> None:
    told = named(settings(), KafkaError(code, text) if text else KafkaError(code))
    assert type(told) is kind
    assert words in str(told)
    assert "\n" not in str(told) and "pw-secret" not in str(told)


def test_trouble_is_told_once_and_by_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    broker = Broker(settings(), group=None)  # type: ignore[arg-type]
    refused = KafkaError(KafkaError._TRANSPORT, "Connect failed: Connection refused")
    down = KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down")
    no_token = KafkaError(KafkaError._AUTHENTICATION, "Failed to acquire SASL OAUTHBEARER token: x")
    with caplog.at_level(logging.WARNING, "enrich.realtime.broker"):
        # At the start the command's last sentence says it.
        broker._note_trouble(refused)
        assert caplog.messages == []
        broker.trouble = ""
        broker._joined = True
        for error in (no_token, down, no_token, down):
            broker._note_trouble(error)
    assert len(caplog.messages) == 1 and "KAFKA_OAUTH_TOKEN_URL" in caplog.messages[0]
    assert "KAFKA_OAUTH_TOKEN_URL" in broker.trouble


def test_without_a_broker_nothing_is_committed_and_nobody_waits_for_it() -> None:
    """Neither is it an error: the consumer goes on, or ends, as soon as it is told to."""
    # So long the client itself waits for a coordinator: nobody has told yet that none is there.
    quick = {"session.timeout.ms": 200, "heartbeat.interval.ms": 50}
    options = {"kafka_security_protocol": "PLAINTEXT", "kafka_extra_config": json.dumps(quick)}
    plain = {name: "" for name in SECURED if "_sasl_" in name}
    broker = Broker(settings(**plain, **options), group=None)  # type: ignore[arg-type]
    assert broker.commit({("logs", 0): 5}) is False
    broker._note_trouble(KafkaError(KafkaError._TRANSPORT, "Connect failed: Connection refused"))
    broker._client = None  # Is not even asked.
    assert broker.commit({("logs", 0): 5}) is False
    assert "cannot be reached" in broker.trouble


def test_a_file_that_is_no_certificate_names_its_setting(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    for name in ("ca", "certificate"):
        setting = f"kafka_ssl_{name}_location"
        with pytest.raises(SettingsError, match=f"^{setting.upper()}: the file is not there"):
            Broker(settings(**{setting: str(empty)}), group=None)  # type: ignore[arg-type]

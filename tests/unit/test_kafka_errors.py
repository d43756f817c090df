"""What Kafka's client says of its connection, in our words: who has to change what, and whether the
consumer ends or waits.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from dev.kafka_security import write_certificates
from enrich.errors import AccessRefused, EnrichError, Halt, ServerUnavailable, SettingsError
from enrich.realtime.broker import Broker, named
from enrich.realtime.inspection import Inspection
from enrich.realtime.settling import Place
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


def test_a_process_that_stood_still_says_so_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    broker = Broker(settings(), group=None)  # type: ignore[arg-type]
    broker.note(KafkaError(KafkaError._MAX_POLL_EXCEEDED))
    (told,) = caplog.messages
    assert told.startswith("this process stood still for more than 300 s")
    assert broker.trouble == ""


def test_a_topic_that_is_not_there_is_trouble_until_it_comes(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    there: dict[str, Any] = {}
    found = SimpleNamespace(topics=there)
    broker = Broker(settings(kafka_topic="a,b"), group=None)  # type: ignore[arg-type]
    monkeypatch.setattr(broker, "_admin", SimpleNamespace(list_topics=lambda *_, **__: found))
    there["a"] = SimpleNamespace(error=None)
    assert broker.look() == ["b"]
    for _ in range(2):
        # The client says it once more; the start has named it.
        broker.note(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
        broker.try_again()
        assert broker.trouble == "Kafka at 127.0.0.1:1 has no topic b"
    assert caplog.messages == []
    there["b"] = SimpleNamespace(error=None)
    broker.try_again()
    assert broker.trouble == ""
    # Deleted while the consumer runs.
    del there["a"]
    for _ in range(2):
        broker.note(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
    assert broker.trouble == "Kafka at 127.0.0.1:1 has no topic a"
    assert caplog.messages == [f"{broker.trouble}; waiting for it"]


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


class RebalancesAtItsClose:
    """librdkafka 2.16 in a close that meets a change of the group."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.asked = 0

    def committed(self, *_: Any, **__: Any) -> list[Any]:
        self.asked += 1
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    def commit(self, **_: Any) -> None:
        raise KafkaException(KafkaError(KafkaError._DESTROY))

    def close(self) -> None:
        self._broker._on_assign(self, [TopicPartition("logs", 1)])
        self._broker._on_revoke(self, [TopicPartition("logs", 0)])


class CommitsWhatIsRevoked:
    """A group, as the consumer is one."""

    def __init__(self) -> None:
        self.broker: Broker
        self.told: list[object] = []

    def assigned(self, partitions: object) -> None:
        self.told.append(partitions)

    def revoked(self, places: Collection[Place]) -> None:
        self.told.append(self.broker.commit(dict.fromkeys(places, 5)))


def test_a_change_of_the_group_does_not_hold_up_a_consumer_that_leaves() -> None:
    """Nothing is asked that has no answer any more, and what cannot be committed is done again by
    whoever has the partition next: neither is an error."""
    group = CommitsWhatIsRevoked()
    group.broker = Broker(settings(), group)  # type: ignore[arg-type]
    client = group.broker._client = RebalancesAtItsClose(group.broker)
    group.broker.close()
    assert client.asked == 0
    assert group.told == [False]


CONSUMER_AND_CHECK = pytest.mark.parametrize(
    "client", [lambda chosen: Broker(chosen, group=None), Inspection], ids=["consumer", "check"]
)


@CONSUMER_AND_CHECK
def test_a_file_that_is_no_certificate_names_its_setting(client: Any, tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    for name in ("ca", "certificate"):
        setting = f"kafka_ssl_{name}_location"
        with pytest.raises(SettingsError, match=f"^{setting.upper()}: the file is not there"):
            client(settings(**{setting: str(empty)}))


@CONSUMER_AND_CHECK
def test_a_key_that_cannot_be_used_names_its_setting(client: Any, tmp_path: Path) -> None:
    mine, other = (write_certificates(tmp_path / name, "enrich") for name in ("mine", "other"))
    key = load_pem_private_key(mine.client_key.read_bytes(), None)
    locked = tmp_path / "locked.key"
    form = Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"right-one")
    locked.write_bytes(key.private_bytes(*form))
    certificate = {"kafka_ssl_certificate_location": str(mine.client)}
    with_key = {**certificate, "kafka_ssl_key_location": str(locked)}
    client(settings(**with_key, kafka_ssl_key_password="right-one"))
    for password in ("wrong-one", ""):
        with pytest.raises(SettingsError, match="or KAFKA_SSL_KEY_PASSWORD is") as refused:
            client(settings(**with_key, kafka_ssl_key_password=password))
        assert str(refused.value).startswith("KAFKA_SSL_KEY_LOCATION: ")
        assert "wrong-one" not in str(refused.value)
    with pytest.raises(SettingsError, match="not the key of KAFKA_SSL_CERT"):
        client(settings(**certificate, kafka_ssl_key_location=str(other.client_key)))


@CONSUMER_AND_CHECK
def test_an_option_that_the_client_refuses_is_one_sentence(client: Any) -> None:
    for options in ({"nope": 1}, {"session.timeout.ms": 99_999_999}):
        with pytest.raises(SettingsError) as refused:
            client(settings(kafka_extra_config=json.dumps(options)))
        told = str(refused.value)
        assert told.startswith("the client of Kafka refuses its options: ")
        assert next(iter(options)) in told and "KafkaError" not in told and "\n" not in told

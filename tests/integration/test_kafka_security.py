"""The consumer and a Kafka with TLS, logins and rights: each way in, and each way to be refused.

One broker for all: a listener that asks for a client's certificate, one that asks for a login by
PLAIN, SCRAM or OAUTHBEARER, and rights for one user alone. What goes in runs as `python -m enrich
consume`; most refusals are asked of the client of the same settings in this process.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from dev.kafka_security import Certificates, security_settings, write_certificates
from dev.service import Service
from dev.services import Services, free_ports
from enrich.errors import AccessRefused, EnrichError, ServerUnavailable, SettingsError
from enrich.realtime.broker import Broker
from enrich.settings import Settings
from tests.conftest import ROOT, Search, wait_for
from tests.topics import TIMEOUT, Topics

#: Its broker, a JVM more, takes its time.
pytestmark = pytest.mark.apart

USER, STRANGER = "enrich", "stranger"
INDEX = "shop_2026_11"

Environment = dict[str, str]


class Guarded:
    """The broker, and the settings of each way to it."""

    def __init__(self, stack: Services, certificates: Certificates, tls: int, login: int) -> None:
        self.topics = Topics(stack.kafka.url)
        self.certificates = certificates
        self.tls, self.login = f"127.0.0.1:{tls}", f"127.0.0.1:{login}"
        self.password = PASSWORD
        self.oauth_secret = secrets.token_hex(12)
        self.tokens = ThreadingHTTPServer(("127.0.0.1", 0), self._token_endpoint())
        threading.Thread(target=self.tokens.serve_forever, daemon=True).start()
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            wanted = UserScramCredentialUpsertion(
                USER, ScramCredentialInfo(mechanism, 4096), self.password.encode()
            )
            self.topics.admin.alter_user_scram_credentials([wanted])[USER].result(TIMEOUT)
        self._give_rights()

    def _give_rights(self) -> None:
        """By the words of docs/realtime.md: Read and Describe on the topic, Read on the group."""
        bindings = []
        for kind, name, operations in (
            (ResourceType.TOPIC, "logs-", (AclOperation.READ, AclOperation.DESCRIBE)),
            (ResourceType.GROUP, "our-", (AclOperation.READ,)),
        ):
            for user in (USER, f"CN={USER}"):
                bindings += [
                    AclBinding(
                        kind, name, ResourcePatternType.PREFIXED, f"User:{user}", "*", operation,
                        AclPermissionType.ALLOW,
                    )
                    for operation in operations
                ]  # fmt: skip
        for answer in self.topics.admin.create_acls(bindings).values():
            answer.result(TIMEOUT)

    def _token_endpoint(self) -> type[BaseHTTPRequestHandler]:
        """Gives who knows the secret a token for the user, without a signature."""
        right = "Basic " + base64.b64encode(f"{USER}:{self.oauth_secret}".encode()).decode()

        def part(claims: dict[str, Any]) -> str:
            return base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")

        class Endpoint(BaseHTTPRequestHandler):
            def log_message(self, *arguments: Any) -> None: ...

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                known = self.headers.get("authorization") == right
                now = int(time.time())
                claims = part({"sub": USER, "iat": now, "exp": now + 600})
                token = f"{part({'alg': 'none'})}.{claims}."
                answer = (
                    {"access_token": token, "token_type": "Bearer", "expires_in": 600}
                    if known
                    else {"error": "invalid_client"}
                )
                self.send_response(200 if known else 401)
                self.send_header("content-type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

        return Endpoint

    def certificate(self) -> Environment:
        """By a client's certificate alone."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.tls,
            "KAFKA_SECURITY_PROTOCOL": "SSL",
            "KAFKA_SSL_CA_LOCATION": str(self.certificates.authority),
            "KAFKA_SSL_CERTIFICATE_LOCATION": str(self.certificates.client),
            "KAFKA_SSL_KEY_LOCATION": str(self.certificates.client_key),
        }

    def by_password(self, mechanism: str, user: str = USER, **other: str) -> Environment:
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.login,
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SSL_CA_LOCATION": str(self.certificates.authority),
            "KAFKA_SASL_MECHANISM": mechanism,
            "KAFKA_SASL_USERNAME": user,
            "KAFKA_SASL_PASSWORD": self.password,
            **other,
        }

    def by_token(self, **other: str) -> Environment:
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.login,
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SSL_CA_LOCATION": str(self.certificates.authority),
            "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
            "KAFKA_OAUTH_TOKEN_URL": f"http://127.0.0.1:{self.tokens.server_port}/token",
            "KAFKA_OAUTH_CLIENT_ID": USER,
            "KAFKA_OAUTH_CLIENT_SECRET": self.oauth_secret,
            **other,
        }


PASSWORD = secrets.token_hex(12)


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    folder = ROOT / ".dev" / f"tests-kafka-guarded-{os.getpid()}"
    certificates = write_certificates(folder / "tls", USER)
    tls, login = free_ports(2)
    stack = Services(
        folder,
        opensearch=False,
        redis=False,
        embeddings=False,
        kafka=True,
        kafka_settings=security_settings(
            certificates,
            tls_port=tls,
            login_port=login,
            passwords={USER: PASSWORD, STRANGER: PASSWORD},
        ),
    )
    stack.start()
    try:
        made = Guarded(stack, certificates, tls, login)
        yield made
        made.tokens.shutdown()
        made.tokens.server_close()
    finally:
        stack.stop()
        shutil.rmtree(folder, ignore_errors=True)


def start(stack: Services, name: str, environment: Environment) -> Service:
    return stack.spawn(
        name,
        [sys.executable, "-m", "enrich", "consume"],
        env={"PYTHONPATH": str(ROOT), "ENRICHMENT_BATCH_TIMEOUT": "0.2", **environment},
    )


def test_each_way_in_gives_a_log_its_vector(
    guarded: Guarded, clean: Services, search: Search, tmp_path: Path
) -> None:
    ways = {
        "certificate": guarded.certificate(),
        "password": guarded.by_password("SCRAM-SHA-512", KAFKA_GROUP_PROTOCOL="consumer"),
        "token": guarded.by_token(),
    }
    search.create(INDEX)
    consumers = {}
    for name, environment in ways.items():
        topic = guarded.topics.create()
        log = {
            "log_id": name,
            "project_uuid": "shop",
            "level": "ERROR",
            "timestamp": "2026-11-20T10:00:00Z",
            "message": f"the login by {name} took too long",
        }
        guarded.topics.produce(topic, [log])
        environment |= {
            "KAFKA_TOPIC": topic,
            "CONSUMER_GROUP_ID": f"our-{name}",
            "ENRICH_CONSUMER_MODE": "index",
            "ENRICH_LOG_FILE": str(tmp_path / f"{name}.log"),
        }
        consumers[name] = start(clean, f"consume-{name}", environment)
    for name, consumer in consumers.items():
        wait_for(lambda id=name: "log_vector" in search.sources(INDEX).get(id, {}), consumer)
        arguments = Path(f"/proc/{consumer.pid}/cmdline").read_text()
        topic, group = ways[name]["KAFKA_TOPIC"], ways[name]["CONSUMER_GROUP_ID"]
        wait_for(lambda g=group, t=topic: guarded.topics.committed(g, t) == {0: 1}, consumer)
        consumer.stop()
        assert consumer.returncode == 0, consumer.log.read_text()
        told = arguments + consumer.log.read_text() + (tmp_path / f"{name}.log").read_text()
        assert "ERROR" not in told
        for secret in (guarded.password, guarded.oauth_secret, "Bearer", "took too long"):
            assert secret not in told, name


@pytest.fixture
def look(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch, settings: Callable[..., Settings]
) -> Callable[[Environment], list[str]]:
    """What a consumer of these settings does before it joins its group."""

    def call(environment: Environment) -> list[str]:
        with monkeypatch.context() as changed:
            for name, value in environment.items():
                changed.setenv(name, value)
            return Broker(settings(), group=None).look()  # type: ignore[arg-type]

    return call


def test_what_is_refused_is_told_by_one_sentence(
    guarded: Guarded,
    look: Callable[[Environment], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Where nothing is refused, a server that is away is waited for.
    monkeypatch.setattr("enrich.realtime.broker.TIMEOUT_SECONDS", 1.0)
    topic = guarded.topics.create()
    plain, mine = guarded.by_password("PLAIN"), guarded.certificate()
    without = {name: value for name, value in mine.items() if "CERTIFICATE" not in name}
    del without["KAFKA_SSL_KEY_LOCATION"]
    other = write_certificates(tmp_path / "others", USER)
    empty = tmp_path / "empty.pem"
    empty.touch()
    cases: list[tuple[Environment, type[EnrichError], str]] = [
        ({**plain, "KAFKA_SASL_PASSWORD": "wrong-one"}, AccessRefused, "refused the login"),
        (
            guarded.by_password("SCRAM-SHA-512", KAFKA_SASL_PASSWORD="wrong-one"),
            AccessRefused,
            "refused the login",
        ),
        (guarded.by_password("PLAIN", STRANGER), AccessRefused, f"{STRANGER} may not read"),
        ({**plain, "KAFKA_TOPIC": "others"}, AccessRefused, f"{USER} may not read the topic"),
        (without, AccessRefused, "KAFKA_SSL_CERTIFICATE_LOCATION"),
        (
            guarded.by_token(KAFKA_OAUTH_CLIENT_SECRET="wrong-one"),
            ServerUnavailable,
            "no token for Kafka is had at KAFKA_OAUTH_TOKEN_URL",
        ),
        ({**mine, "KAFKA_BOOTSTRAP_SERVERS": guarded.login}, ServerUnavailable, "PROTOCOL"),
        (
            {**mine, "KAFKA_SSL_CA_LOCATION": str(other.authority)},
            AccessRefused,
            "the TLS connection was refused; check KAFKA_SSL_CA_LOCATION",
        ),
        (
            {
                **mine,
                "KAFKA_SSL_CERTIFICATE_LOCATION": str(other.client),
                "KAFKA_SSL_KEY_LOCATION": str(other.client_key),
            },
            AccessRefused,
            "KAFKA_SSL_CERTIFICATE_LOCATION",
        ),
        (
            {**plain, "KAFKA_SSL_CA_LOCATION": str(tmp_path / "none.pem")},
            SettingsError,
            "KAFKA_SSL_CA_LOCATION: the file is not there",
        ),
        (
            {**mine, "KAFKA_SSL_KEY_LOCATION": str(empty)},
            SettingsError,
            "KAFKA_SSL_KEY_LOCATION: the file",
        ),
    ]
    for environment, kind, words in cases:
        with pytest.raises(kind) as refused:
            look({"KAFKA_TOPIC": topic, **environment})
        sentence = str(refused.value)
        assert words in sentence
        assert "\n" not in sentence and "wrong-one" not in sentence
        assert guarded.password not in sentence


def test_a_topic_that_is_not_there_is_waited_for(
    guarded: Guarded, look: Callable[[Environment], list[str]]
) -> None:
    there = guarded.topics.create()
    environment = guarded.by_password("SCRAM-SHA-256", KAFKA_TOPIC=f"{there},logs-later")
    assert look(environment) == ["logs-later"]
    assert look(guarded.by_password("PLAIN", KAFKA_TOPIC="logs-later")) == ["logs-later"]


def test_a_start_that_is_impossible_ends_with_a_status_and_no_secret(
    guarded: Guarded, clean: Services, tmp_path: Path
) -> None:
    topic = guarded.topics.create()
    (nobody,) = free_ports(1)
    plain = guarded.by_password("PLAIN", KAFKA_TOPIC=topic)
    cases: dict[str, tuple[Environment, int, str]] = {
        "wrong-password": (
            {**plain, "KAFKA_SASL_PASSWORD": f"not-{guarded.password}"},
            3,
            "refused the login: check KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME and",
        ),
        "group": (
            {**plain, "CONSUMER_GROUP_ID": "theirs"},
            3,
            f"KAFKA_SASL_USERNAME {USER} may not use the group CONSUMER_GROUP_ID",
        ),
        "down": (
            {**plain, "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{nobody}"},
            3,
            f"Kafka at 127.0.0.1:{nobody} cannot be reached",
        ),
    }
    started = {
        name: start(
            clean, f"refused-{name}", {**env, "ENRICH_LOG_FILE": str(tmp_path / f"{name}.log")}
        )
        for name, (env, _, _) in cases.items()
    }
    for name, (_, status, words) in cases.items():
        process = started[name]
        wait_for(lambda p=process: not p.running)
        told = process.log.read_text()
        assert process.returncode == status, told
        assert told.count(words) == 1, told
        assert "Traceback" not in told
        logged = (tmp_path / f"{name}.log").read_text()
        assert words in logged
        told += logged
        assert guarded.password not in told, name


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (ResourceType.TOPIC, "may not read the topic"),
        (ResourceType.GROUP, "may not use the group"),
    ],
    ids=["topic", "group"],
)
def test_a_right_that_is_taken_away_under_way_costs_no_message(
    guarded: Guarded,
    clean: Services,
    search: Search,
    tmp_path: Path,
    enrich: Callable[..., subprocess.CompletedProcess[str]],
    kind: ResourceType,
    words: str,
) -> None:
    topic, group = guarded.topics.create(), f"our-{uuid.uuid4().hex[:8]}"
    name = topic if kind == ResourceType.TOPIC else group
    denied = AclBinding(
        kind, name, ResourcePatternType.LITERAL, f"User:{USER}", "*",
        AclOperation.READ, AclPermissionType.DENY,
    )  # fmt: skip
    log = {
        "project_uuid": "shop",
        "level": "ERROR",
        "timestamp": "2026-11-20T10:00:00Z",
        "message": "the till is closed",
    }
    environment = guarded.by_password(
        "PLAIN", KAFKA_TOPIC=topic, CONSUMER_GROUP_ID=group, ENRICH_CONSUMER_MODE="index"
    )
    environment["ENRICH_LOG_FILE"] = str(tmp_path / "consume.log")

    def health() -> dict[str, Any]:
        return dict(json.loads(enrich("status", "--json", **environment).stdout)["health"])

    search.create(INDEX)
    consumer = start(clean, f"consume-{kind.name}", environment)
    guarded.topics.produce(topic, [{**log, "log_id": "before"}])
    wait_for(lambda: guarded.topics.committed(group, topic) == {0: 1}, consumer)
    for answer in guarded.topics.admin.create_acls([denied]).values():
        answer.result(TIMEOUT)
    guarded.topics.produce(topic, [{**log, "log_id": "after"}])
    wait_for(lambda: not consumer.running)
    assert consumer.returncode == 3, consumer.log.read_text()
    sentence = f"KAFKA_SASL_USERNAME {USER} {words}"
    assert sentence in consumer.log.read_text().splitlines()[-1]
    assert consumer.log.read_text().count(sentence) == 1
    assert sentence in Path(environment["ENRICH_LOG_FILE"]).read_text()
    told = health()
    assert told["word"] == "Degraded"
    assert [one["code"] for one in told["reasons"]] == ["no_consumer"]
    assert sentence in told["reasons"][0]["sentence"]

    # As Kafka's operator mends it, and the consumer's starts another.
    for answer in guarded.topics.admin.delete_acls([as_filter(denied)]).values():
        answer.result(TIMEOUT)
    environment["ENRICH_LOG_FILE"] = str(tmp_path / "again.log")
    consumer = start(clean, f"consume-{kind.name}-again", environment)
    wait_for(lambda: guarded.topics.committed(group, topic) == {0: 2}, consumer)
    assert {id for id, log in search.sources(INDEX).items() if "log_vector" in log} == {
        "before",
        "after",
    }
    wait_for(lambda: health()["word"] == "Healthy", consumer)
    consumer.stop()


def as_filter(binding: AclBinding) -> AclBindingFilter:
    return AclBindingFilter(
        binding.restype, binding.name, binding.resource_pattern_type, binding.principal,
        binding.host, binding.operation, binding.permission_type,
    )  # fmt: skip

"""What a Kafka with TLS, logins and rights needs: certificates, listeners, users.

Beside the plain listener, whose clients may do everything, the broker gets one that asks for a
client's certificate (`tls`), and one that asks for a login over TLS (`login`). Who comes by these
two has no right until it is given one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dev.certificates import write_authority, write_signed

#: Mechanisms of the login's listener.
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")

_PACKAGE = "org.apache.kafka.common.security"


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """Files in PEM."""

    #: The authority that signed the other two.
    authority: Path
    #: The broker's certificate with its key, in one file.
    broker: Path
    #: A client's certificate, and its key.
    client: Path
    client_key: Path


def write_certificates(folder: Path, client: str) -> Certificates:
    """Make an authority, the broker's certificate and that of a client of this name."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Certificates(
        authority=folder / "authority.pem",
        broker=folder / "broker.pem",
        client=folder / "client.pem",
        client_key=folder / "client.key",
    )
    authority = write_authority(made.authority)
    certificate, key = folder / "node.pem", folder / "node.key"
    write_signed(authority, certificate, key, hosts=["localhost"], addresses=["127.0.0.1"])
    made.broker.touch(mode=0o600)
    made.broker.write_bytes(key.read_bytes() + certificate.read_bytes())
    write_signed(authority, made.client, made.client_key, hosts=[client])
    return made


def security_settings(
    certificates: Certificates, *, tls_port: int, login_port: int, passwords: dict[str, str]
) -> dict[str, str]:
    """The broker's settings; `listeners` are those beside the plain one.

    Args:
        passwords: user → password, for PLAIN; users of SCRAM are made by a client.
    """
    login = "listener.name.login"
    users = " ".join(f'user_{name}="{password}"' for name, password in passwords.items())
    return {
        "listeners": f"TLS://127.0.0.1:{tls_port},LOGIN://127.0.0.1:{login_port}",
        "listener.security.protocol.map": (
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,TLS:SSL,LOGIN:SASL_SSL"
        ),
        "inter.broker.listener.name": "PLAINTEXT",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(certificates.broker),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(certificates.authority),
        "listener.name.tls.ssl.client.auth": "required",
        f"{login}.sasl.enabled.mechanisms": ",".join(MECHANISMS),
        f"{login}.plain.sasl.jaas.config": f"{_PACKAGE}.plain.PlainLoginModule required {users};",
        **{
            f"{login}.{mechanism.lower()}.sasl.jaas.config": (
                f"{_PACKAGE}.scram.ScramLoginModule required;"
            )
            for mechanism in MECHANISMS
            if mechanism.startswith("SCRAM")
        },
        # Kafka's own validator for tokens without a signature: `sub` is the user.
        f"{login}.oauthbearer.sasl.jaas.config": (
            f"{_PACKAGE}.oauthbearer.OAuthBearerLoginModule required;"
        ),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        # Of the plain listener.
        "super.users": "User:ANONYMOUS",
    }

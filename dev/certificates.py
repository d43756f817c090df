"""Makes TLS certificates at the moment they are needed, so that no key lies in the repository."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_START = datetime(2020, 1, 1, tzinfo=UTC)
#: Further away than any test; before 2050, where dates change their form in a certificate.
FUTURE = datetime(2049, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Authority:
    """A certificate that signs others, with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def write_authority(path: Path, name: str = "authority") -> Authority:
    """Make an authority and write its certificate, without the key, to `path`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _named(name)
    certificate = (
        _builder(subject, subject, key, FUTURE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(_pem(certificate))
    return Authority(certificate=certificate, key=key)


def write_signed(
    authority: Authority,
    certificate: Path,
    key: Path,
    *,
    hosts: Sequence[str] = (),
    addresses: Sequence[str] = (),
    identifiers: Sequence[str] = (),
    expires: datetime = FUTURE,
) -> None:
    """Write a certificate that `authority` signs, and its key (PKCS8, readable by us alone).

    Args:
        hosts, addresses: the names under which a client may reach it.
        identifiers: object identifiers among its names, such as "1.2.3.4.5.5".
    """
    private = ec.generate_private_key(ec.SECP256R1())
    names: list[x509.GeneralName] = [x509.DNSName(host) for host in hosts]
    names += [x509.IPAddress(ip_address(address)) for address in addresses]
    names += [x509.RegisteredID(x509.ObjectIdentifier(each)) for each in identifiers]
    subject = _named((*hosts, *addresses)[0])
    signed = (
        _builder(subject, authority.certificate.subject, private, expires)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    certificate.write_bytes(_pem(signed))
    key.touch(mode=0o600)
    key.write_bytes(_key_pem(private))


def write_self_signed(folder: Path, name: str, *, expires: datetime = FUTURE) -> Path:
    """Write a certificate for the host `name` that is its own authority, and its key, into one PEM
    file; its path."""
    private = ec.generate_private_key(ec.SECP256R1())
    subject = _named(name)
    certificate = (
        _builder(subject, subject, private, expires)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(private, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    path.touch(mode=0o600)
    path.write_bytes(_pem(certificate) + _key_pem(private))
    return path


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, expires: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_START)
        .not_valid_after(expires)
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )

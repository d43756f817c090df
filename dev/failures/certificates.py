"""Makes the TLS certificates that the TLS failures need, at the moment they are needed.

A certificate is a few dozen bytes of DER around a P-256 signature, so it is written out here:
that spares a dependency and keeps private keys out of the repository. The key is a fixed small
number; it protects nothing and never leaves loopback.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from pathlib import Path

# P-256, from SEC 2 (https://www.secg.org/sec2-v2.pdf), section 2.4.2.
_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
_KEY = 0x5EED

_ECDSA_WITH_SHA256 = "06082a8648ce3d040302"
_EC_PUBLIC_KEY_P256 = "301306072a8648ce3d020106082a8648ce3d030107"
_COMMON_NAME = "0603550403"
_SUBJECT_ALT_NAME = "0603551d11"
_BASIC_CONSTRAINTS_CA = "300f0603551d130101ff040530030101ff"


def write_certificate(folder: Path, name: str, *, expires: datetime) -> Path:
    """Write a self-signed certificate for the host `name`, and its key, into one PEM file."""
    start = datetime(2020, 1, 1, tzinfo=UTC)
    public = _point(_multiply(_KEY, _G))
    issuer = _der(0x30, _der(0x31, _der(0x30, bytes.fromhex(_COMMON_NAME), _der(0x0C, name))))
    names = _der(0x04, _der(0x30, _der(0x82, name)))
    alternative = _der(0x30, bytes.fromhex(_SUBJECT_ALT_NAME), names)
    body = _der(
        0x30,
        _der(0xA0, _der(0x02, b"\x02")),
        _der(0x02, b"\x01"),
        _der(0x30, bytes.fromhex(_ECDSA_WITH_SHA256)),
        issuer,
        _der(0x30, _time(start), _time(expires)),
        issuer,
        _der(0x30, bytes.fromhex(_EC_PUBLIC_KEY_P256), _der(0x03, b"\x00" + public)),
        _der(0xA3, _der(0x30, bytes.fromhex(_BASIC_CONSTRAINTS_CA), alternative)),
    )
    certificate = _der(
        0x30,
        body,
        _der(0x30, bytes.fromhex(_ECDSA_WITH_SHA256)),
        _der(0x03, b"\x00" + _sign(body)),
    )
    key = _der(
        0x30,
        _der(0x02, b"\x01"),
        _der(0x04, _KEY.to_bytes(32, "big")),
        _der(0xA0, bytes.fromhex("06082a8648ce3d030107")),
        _der(0xA1, _der(0x03, b"\x00" + public)),
    )
    path = folder / f"{name}.pem"
    path.write_text(_pem("CERTIFICATE", certificate) + _pem("EC PRIVATE KEY", key))
    return path


def _der(tag: int, *parts: bytes | str) -> bytes:
    content = b"".join(part.encode() if isinstance(part, str) else part for part in parts)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    width = (size.bit_length() + 7) // 8
    return bytes((tag, 0x80 | width)) + size.to_bytes(width, "big") + content


def _integer(value: int) -> bytes:
    # One bit more than the value needs: DER integers are signed.
    return _der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _time(moment: datetime) -> bytes:
    return _der(0x17, moment.strftime("%y%m%d%H%M%SZ"))


def _pem(label: str, der: bytes) -> str:
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN {label}-----\n{text}-----END {label}-----\n"


def _sign(body: bytes) -> bytes:
    digest = int.from_bytes(hashlib.sha256(body).digest(), "big")
    nonce = digest % _N or 1
    r = _multiply(nonce, _G)[0] % _N
    s = pow(nonce, -1, _N) * (digest + r * _KEY) % _N
    return _der(0x30, _integer(r), _integer(s))


def _point(point: tuple[int, int]) -> bytes:
    return b"\x04" + point[0].to_bytes(32, "big") + point[1].to_bytes(32, "big")


def _multiply(times: int, point: tuple[int, int]) -> tuple[int, int]:
    result: tuple[int, int] | None = None
    while times:
        if times & 1:
            result = point if result is None else _add(result, point)
        point = _add(point, point)
        times >>= 1
    assert result is not None, "the factor is never zero"
    return result


def _add(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    if a == b:
        slope = 3 * (a[0] * a[0] - 1) * pow(2 * a[1], -1, _P)
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, _P)
    x = (slope * slope - a[0] - b[0]) % _P
    return x, (slope * (a[0] - x) - a[1]) % _P

"""A URL taken apart in such a way that no part of a password is mistaken for something to show."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qsl, urlsplit, urlunsplit


def url_parts(url: str) -> SplitResult | None:
    """The parts of a URL that names a host, or None; what the parser says may quote a password."""
    try:
        parts = urlsplit(url)
        whole = parts.hostname and (parts.port is None or parts.port)
    except ValueError:
        return None
    # A password with "/", "?" or "#" would end the host early, and show.
    stray = "@" in parts.path + parts.query + parts.fragment
    return parts if whole and not stray else None


#: In the name of a parameter of a URL, a sign that its value is a secret.
SECRET_WORDS = ("key", "token", "sig", "secret", "passw", "code", "auth")


def http_url(url: str, instead: str) -> str:
    """A URL that is shown on screens and in logs, without a slash at its end.

    Args:
        instead: the setting that secrets belong into.

    Raises ValueError: it is none, or carries a secret.
    """
    parts = url_parts(url)
    if parts is None or parts.scheme not in ("http", "https"):
        raise ValueError("must be a URL that starts with http:// or https://")
    if parts.username or parts.password:
        raise ValueError(f"must not carry a user name or password; use {instead}")
    for name, _ in parse_qsl(parts.query, keep_blank_values=True):
        if any(word in name.lower() for word in SECRET_WORDS):
            raise ValueError(f"must not carry {name}= with a key; use {instead}")
    if parts.fragment:
        raise ValueError("must not have a part behind #")
    return url.rstrip("/")


def url_without_password(url: str) -> str:
    """The URL with its passwords, if any, replaced by `***`."""
    parts = urlsplit(url)
    parts = parts._replace(query=without_passwords(parts.query))
    if parts.password is not None:
        host = parts.netloc.rpartition("@")[2]
        parts = parts._replace(netloc=f"{parts.username or ''}:***@{host}")
    return urlunsplit(parts)


def without_passwords(query: str) -> str:
    # `password`, `sentinel_password`, and `ssl_password` of a private key.
    return re.sub(r"(password)=[^&]*", r"\1=***", query)

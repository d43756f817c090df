"""A URL taken apart in such a way that no part of a password is mistaken for something to show."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit, urlunsplit


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

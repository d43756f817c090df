"""A URL taken apart in such a way that no part of a password is mistaken for something to show."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit


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

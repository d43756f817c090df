"""OPENSEARCH_URL: one node or several, each with its path, and the login that the URL may carry.

No message quotes a value: what stands before an `@` is a password.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from enrich.setting_forms.url_parts import url_parts, url_without_password

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Node:
    """Where one node, or a proxy before some, is asked.

    Attributes:
        path: what stands before every path of OpenSearch, such as `/opensearch`; "" for none.
    """

    secured: bool
    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        return f"{'https' if self.secured else 'http'}://{self.host}:{self.port}{self.path}"

    @property
    def bare_host(self) -> str:
        """The host as a client takes it: an IPv6 address without brackets."""
        return self.host.strip("[]")


@dataclass(frozen=True)
class Nodes:
    """What OPENSEARCH_URL says."""

    nodes: tuple[Node, ...]
    user: str = ""
    password: str = ""


def read_nodes(value: str) -> Nodes:
    """The nodes of OPENSEARCH_URL, separated by commas.

    Raises:
        ValueError: a sentence to be put behind the setting's name; it quotes nothing.
    """
    nodes: list[Node] = []
    logins: set[tuple[str, str]] = set()
    for url in filter(None, (part.strip() for part in value.split(","))):
        node, login = _read(url)
        if node not in nodes:
            nodes.append(node)
        if login:
            logins.add(login)
    if not nodes:
        raise ValueError("must be a URL that starts with http:// or https://")
    if len({node.secured for node in nodes}) > 1:
        raise ValueError("must not mix http:// and https://: the login would go unencrypted too")
    if len(logins) > 1:
        raise ValueError("must not carry two logins: all nodes of a cluster know the same")
    user, password = next(iter(logins), ("", ""))
    return Nodes(tuple(nodes), user, password)


def _read(url: str) -> tuple[Node, tuple[str, str] | None]:
    # The parser would drop some of them.
    parts = url_parts(url) if url.isprintable() else None
    if parts is None or parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError(
            "must be a URL that starts with http:// or https://, or several separated by commas; "
            "special characters in a password have to be percent-encoded"
        )
    if parts.query or parts.fragment:
        raise ValueError("must end with its path: no ? and no #")
    # Percent-encoded, it may hold anything that a path of OpenSearch may.
    if not re.fullmatch(r"[A-Za-z0-9._~%/:@!$&'()*+;=-]*", parts.path) or ".." in parts.path:
        raise ValueError("has a path with characters that have to be percent-encoded, or with ..")
    if not re.fullmatch(r"[A-Za-z0-9._:%-]+", parts.hostname):
        raise ValueError("must have a host name of letters, digits, dots and hyphens")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    path = re.sub("/+", "/", parts.path).strip("/")
    node = Node(
        secured=parts.scheme == "https",
        host=host,
        port=parts.port or _PORTS[parts.scheme],
        path=f"/{path}" if path else "",
    )
    return node, _login(parts.username, parts.password)


def _login(user: str | None, password: str | None) -> tuple[str, str] | None:
    if not user and not password:
        return None
    if not user:
        raise ValueError("must have a user before its password")
    if ":" in unquote(user):
        raise ValueError("must not have a colon in its user")
    return unquote(user), unquote(password or "")


def shown(value: str) -> str:
    """OPENSEARCH_URL, fit for a log: a password as `***`."""
    return re.sub(r"[^,\s][^,]*", lambda url: url_without_password(url[0]), value)

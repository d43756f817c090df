"""What OpenSearch, or what stands before it, refuses: its errors in this project's words.

Error texts of OpenSearch quote document values, so only their type and status leave this module.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from enrich.errors import (
    AccessRefused,
    EnrichError,
    ServerUnavailable,
    TransientError,
)


class RequestRefused(EnrichError):
    """OpenSearch answered 4xx to a request that is not about access.

    Attributes:
        error_type: its `error.type`, such as `index_not_found_exception`.
        status: the HTTP status.
    """

    def __init__(self, message: str, error_type: str, status: int) -> None:
        super().__init__(message, error_type, status)
        self.error_type = error_type
        self.status = status

    def __str__(self) -> str:
        return str(self.args[0])


class TooDeep(TransientError):
    """An answer cannot be read, because a document in it is nested too deep."""


class NoShardAnswers(TransientError):
    """No shard of what was searched has a copy that answers."""


class NoAnswerInTime(ServerUnavailable):
    """A request was taken and not answered within OPENSEARCH_TIMEOUT_SECONDS."""


class RightMissing(AccessRefused):
    """OpenSearch knows OPENSEARCH_USER and does not allow what was asked (403).

    Attributes:
        rights: those that are missing, such as `indices:data/write/index`, as far as it says so.
    """

    def __init__(self, message: str, rights: tuple[str, ...] = ()) -> None:
        super().__init__(message, rights)
        self.rights = rights

    def __str__(self) -> str:
        return str(self.args[0])


def error_type(info: Any) -> str:
    """The `type` of the innermost telling error of an answer, "" if it has none."""
    if not isinstance(info, dict):
        return ""
    error = info.get("error", info)
    if not isinstance(error, dict):
        return ""
    roots = error.get("root_cause") or []
    first = roots[0].get("type") if roots and isinstance(roots[0], dict) else None
    return str(first or error.get("type") or "")


def rights_in(info: Any) -> tuple[str, ...]:
    """The missing rights that an error of the security plugin names; its reason also quotes the
    user, which is why nothing else of it is handed on."""
    named = _NO_PERMISSIONS.match(_reason(info))
    return tuple(dict.fromkeys(_RIGHT.findall(named[1]))) if named else ()


#: "no permissions for [indices:data/write/bulk[s], indices:data/write/index] and User [name=…".
_NO_PERMISSIONS = re.compile(r"no permissions for \[(.*?)\] and User ")
_RIGHT = re.compile(r"(?:cluster|indices):[a-z_]+/[a-z_/]+(?:\[[a-z_/]+\])?\*?")


def role_advice(rights: Sequence[str]) -> str:
    """Which role brings missing rights."""
    templates = any("template" in right for right in rights)
    name = "opensearch-role-template" if templates else "opensearch-role"
    return f"give OPENSEARCH_USER the role in deploy/{name}.json"


#: What a 401 is about, and the settings to look at.
PASSWORD = ("user or password", "OPENSEARCH_USER and OPENSEARCH_PASSWORD")
#: Statuses that proxies and web servers give to a path that they do not know or a request that they
#: do not like. 413 is one of them too, and about the size of a body.
_OF_OTHERS = range(400, 500)
_ABOUT_MORE = (401, 403, 408, 413, 429)


def translated(
    status: int, info: Any, url: str, *, text: str = "", login: tuple[str, str] = PASSWORD
) -> EnrichError:
    """What an answer other than 2xx means.

    Args:
        info: the answer, where it is JSON; else None.
        text: the answer, where it is not.
        login: what the login is, and which settings it is in.
    """
    kind = error_type(info)
    if status == 401:
        return AccessRefused(f"OpenSearch at {url} refused the {login[0]} (401): check {login[1]}")
    if status == 403 and not kind:
        return RightMissing(
            f"OpenSearch at {url} does not allow this to OPENSEARCH_USER (403), and it is not its "
            "security plugin that says so: check what stands before it, such as a proxy"
        )
    if status == 403 and kind != "cluster_block_exception":
        rights = rights_in(info)
        missing = f": {', '.join(rights)}" if rights else ""
        return RightMissing(
            f"OpenSearch at {url} does not allow this to OPENSEARCH_USER (403, {kind}{missing}): "
            f"{role_advice(rights)}",
            rights,
        )
    if status == 500 and kind == "security_exception":
        # A write that the security plugin takes from nobody of whom it hides a part.
        return RequestRefused(f"OpenSearch refused a request ({status}, {kind})", kind, status)
    if status == 503 and kind == "search_phase_execution_exception":
        return NoShardAnswers(f"OpenSearch is overloaded or in trouble ({status}, {kind})")
    if status == 429 or status >= 500:
        return TransientError(f"OpenSearch is overloaded or in trouble ({status}, {kind})")
    if status == 400 and _WITHOUT_CERTIFICATE.search(text):
        return AccessRefused(f"OpenSearch at {url} {CLIENT_CERTIFICATE}")
    if status in _OF_OTHERS and status not in _ABOUT_MORE and _MARKUP.match(text):
        return TransientError(
            f"OpenSearch at {url}: a web page came instead of its answer ({status}): check the "
            "path in OPENSEARCH_URL, and what stands before it"
        )
    return RequestRefused(f"OpenSearch refused a request ({status}, {kind})", kind, status)


CLIENT_CERTIFICATE = (
    "asks for a client certificate, or does not take this one: check OPENSEARCH_CLIENT_CERT and "
    "OPENSEARCH_CLIENT_KEY"
)
#: As nginx says it.
_WITHOUT_CERTIFICATE = re.compile(r"No required SSL certificate|SSL certificate error", re.I)
_MARKUP = re.compile(r"\s*<")

#: What a node says that has lost its cluster.
_ALONE = frozenset(
    {
        *("cluster_manager_not_discovered_exception", "master_not_discovered_exception"),
        *("cluster_block_exception", "node_closed_exception"),
    }
)


def is_the_nodes_own(status: int, info: Any) -> bool:
    """Whether another node may answer what this one, or the proxy before it, did not."""
    if status not in (502, 503, 504):
        return False
    return not isinstance(info, dict) or error_type(info) in _ALONE


def _reason(info: Any) -> str:
    error = info.get("error", info) if isinstance(info, dict) else None
    return str(error.get("reason", "")) if isinstance(error, dict) else ""

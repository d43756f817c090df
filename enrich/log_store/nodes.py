"""Which of several nodes are asked: those that answer, all of one cluster.

A node is looked at before it is asked for the first time, and after it was left alone: within a few
seconds it has to say who it is. So a node that hangs costs these seconds and no request, and a
node of another cluster, which would take writes meant for this one, is never asked anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from enrich.errors import Halt

#: How long a node may take to connect, and to say who it is.
PROBE_SECONDS = 5.0


class OtherCluster(Halt):
    """The nodes that are asked are of more than one cluster."""


@dataclass(frozen=True)
class Identity:
    """What a node says of its cluster; empty where that cannot be seen."""

    name: str = ""
    uuid: str = ""

    def __str__(self) -> str:
        return f"{self.name[:60]} ({self.uuid[:30]})"


def identity_of(body: str) -> Identity | None:
    """Read from the answer to `GET /`; None for what is no JSON object."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(answer, dict):
        return None
    uuid = str(answer.get("cluster_uuid", ""))
    # "_na_": it has not joined its cluster yet.
    return Identity(str(answer.get("cluster_name", "")), "" if uuid == "_na_" else uuid)


class Asked(Protocol):
    """One node."""

    @property
    def url(self) -> str: ...


N = TypeVar("N", bound=Asked)


class Admission(Generic[N]):
    """Which nodes have said who they are, and what the first of them said."""

    def __init__(self, probe: Callable[[N], Identity]) -> None:
        self._probe = probe
        self._admitted: set[N] = set()
        #: Of another cluster when they were looked at last: looked at again before anything else,
        #: so that not every second request goes through.
        self.strangers: set[N] = set()
        self._first: tuple[str, Identity] | None = None

    def require(self, node: N) -> None:
        """
        Raises:
            OtherCluster: it is of another cluster than the first.
            Whatever the probe does: it is not to be asked.
        """
        if node in self._admitted:
            return
        identity = self._probe(node)
        if identity.uuid:
            first, its = self._first or (node.url, identity)
            if its.uuid != identity.uuid:
                self.strangers.add(node)
                raise OtherCluster(
                    f"OPENSEARCH_URL names nodes of two clusters: {first} is of {its}, {node.url} "
                    f"of {identity}: leave one of them out; if a cluster was made anew, restart "
                    "the workers"
                )
            self._first = (first, its)
        self.strangers.discard(node)
        self._admitted.add(node)

    def forget(self, node: N) -> None:
        """Look at it again before it is asked."""
        self._admitted.discard(node)
        self.strangers.discard(node)

"""Which OpenSearch answers, and whether it is one that vectors can be written into."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import msgspec

from enrich.log_store.connection import Connection
from enrich.log_store.refusals import RequestRefused, RightMissing

#: Before, k-NN's Lucene engine takes vectors of 1,024 dimensions at most.
#: https://github.com/opensearch-project/k-NN/pull/1346
MINIMUM = (2, 12)

#: The oldest and the newest that the tests run on.
TESTED = ((2, 19), (3, 5))


#: https://docs.aws.amazon.com/opensearch-service/latest/developerguide/serverless-overview.html
SERVERLESS = "opensearch-serverless"


@dataclass(frozen=True)
class Version:
    """What a server says of itself at `/`.

    Attributes:
        distribution: "opensearch"; "elasticsearch" where it says nothing else; SERVERLESS where the
            address or the settings say so.
        number: such as "3.5.0"; "" where it cannot be seen.
    """

    distribution: str
    number: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.number or 'of a version that cannot be seen'}"

    @property
    def objection(self) -> str:
        """Why nothing can be written there, or ""."""
        if self.distribution == SERVERLESS:
            return (
                "OpenSearch Serverless takes no document by its id in collections that search by "
                "vectors, so no vector can be written beside a log: use a domain of Amazon "
                "OpenSearch Service (OPENSEARCH_AWS_SERVICE=es); see docs/connections.md"
            )
        if not self.number:
            return ""
        if self.distribution != "opensearch":
            return (
                f"{self} answers, which is not OpenSearch and knows no knn_vector: set "
                f"OPENSEARCH_HOST to an OpenSearch {_dotted(MINIMUM)} or newer with the k-NN plugin"
            )
        if self._parts < MINIMUM:
            return (
                f"{self} is too old, its k-NN takes 1,024 dimensions at most: upgrade it to "
                f"{_dotted(MINIMUM)} or newer (tested: {_dotted(TESTED[0])} to "
                f"{_dotted(TESTED[1])})"
            )
        return ""

    @property
    def untested(self) -> bool:
        """Whether it is older than what the tests run on, though nothing is known against it."""
        return bool(self.number) and not self.objection and self._parts < TESTED[0]

    @property
    def _parts(self) -> tuple[int, ...]:
        found = re.match(r"(\d{1,9})\.(\d{1,9})", self.number)
        # A number of another form is newer than anything known here.
        return tuple(map(int, found.groups())) if found else (2**31,)


class _Root(msgspec.Struct):
    version: dict[str, Any] = {}
    tagline: str = ""


def read_version(connection: Connection) -> Version:
    """Ask the server.

    Raises:
        ServerUnavailable, TransientError, AccessRefused (the login, not a right), Halt
    """
    try:
        root = connection.ask(_Root, "GET", "/")
    except (RequestRefused, RightMissing):
        # Some services answer nothing there, and some roles may not ask.
        return Version("opensearch", "")
    number = str(root.version.get("number", ""))
    distribution = str(root.version.get("distribution", ""))
    if not distribution and "OpenSearch" in root.tagline:
        # compatibility.override_main_response_version: it says 7.10.2 for the sake of old clients.
        return Version("opensearch", "")
    return Version(distribution or "elasticsearch", number)


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))

"""The indices of ENRICH_INDEX_PATTERN as one target; one that may not be read is left out.

OpenSearch refuses a request to a thousand indices when a single one of them is blocked for reading.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from enrich.errors import TransientError
from enrich.log_store.connection import LENIENT, Connection, ndjson
from enrich.log_store.coverage import CLOSED, NO_SHARD, Counted, Gaps, gaps_of
from enrich.log_store.paths import holds, in_path
from enrich.log_store.queries import NO_PIPELINE, MsearchAnswer, SearchAnswer, Searched
from enrich.log_store.refusals import NoShardAnswers, RequestRefused, RightMissing

T = TypeVar("T")
S = TypeVar("S", bound=Searched)

#: Names no index, where an empty expression would name all of them.
_NONE = "*,-*"

#: What a search finds in no index.
_NOTHING = {"_shards": {}, "hits": {"total": {"value": 0}, "hits": []}}

#: OpenSearch's number for the block of a closed index, which no pattern finds anyway.
_CLOSED = "4"


class Scope:
    """Requests to all indices at once."""

    def __init__(self, connection: Connection, expression: str) -> None:
        self._connection = connection
        self._all = expression
        #: Indices that the last request left out, and why.
        self.left_out: dict[str, str] = {}

    @property
    def expression(self) -> str:
        """The target in OpenSearch's syntax, without what was left out."""
        return _without(self._all, self.left_out)

    def ask(
        self,
        type_: type[T],
        method: str,
        operation: str,
        body: Any = None,
        params: Mapping[str, Any] | None = None,
        *,
        index: str | None = None,
    ) -> T:
        """As `Connection.ask`, for an operation such as `_search` on all indices, or on `index`."""
        target = index or self._all

        def ask() -> T:
            path = f"/{in_path(_without(target, self.left_out))}/{operation}"
            return self._connection.ask(type_, method, path, body, {**LENIENT, **(params or {})})

        if operation == "_search":
            body = {**body, **NO_PIPELINE}
        self.left_out = {}
        try:
            return ask()
        except RequestRefused as error:
            if error.error_type != "cluster_block_exception":
                raise
            self.left_out = {
                name: f"it cannot be searched: {why}" for name, why in self._unreadable().items()
            }
            if not self.left_out:
                raise
        return ask()

    def search(
        self,
        type_: type[S],
        body: Mapping[str, Any],
        params: Mapping[str, Any] | None = None,
        *,
        index: str | None = None,
    ) -> Counted[S]:
        """The answer to a search in all indices, or in those that `index` names, and what it left
        out."""
        try:
            answer = self.ask(type_, "POST", "_search", dict(body), params, index=index)
        except NoShardAnswers:
            absent = self.absent(index)
            if absent.whole:
                raise
            return Counted(msgspec.convert(_NOTHING, type_), absent)
        return Counted(answer, self.gaps(answer, index=index) | self._kept_out(index))

    def searches(self, rows: list[Any]) -> list[SearchAnswer]:
        """The answers to searches, each a row that says where and one that says what."""
        answers = self._connection.ask(MsearchAnswer, "POST", "/_msearch", ndjson(rows)).responses
        if 2 * len(answers) != len(rows):
            raise TransientError("OpenSearch answered another number of searches")
        return answers

    def gaps(self, answer: Searched, *, index: str | None = None) -> Gaps:
        """What an answer left out of what was asked."""
        return gaps_of(answer, lambda: self._red_as_seen(index))

    def absent(self, index: str | None = None) -> Gaps:
        """What no search of all indices, or of those that `index` names, can see now."""
        red = dict.fromkeys(self._red_as_seen(index), NO_SHARD)
        return Gaps(indices=red) | self._kept_out(index)

    def closed(self, expression: str) -> list[str]:
        """Closed indices that an expression takes in."""
        answer = self._connection.ask(
            dict[str, Any],
            "GET",
            f"/_cluster/state/metadata/{in_path(expression)}",
            params={
                **LENIENT,
                "expand_wildcards": "open,closed",
                "filter_path": "metadata.indices.*.state",
            },
        )
        states = answer.get("metadata", {}).get("indices", {})
        return sorted(name for name, each in states.items() if each["state"] == "close")

    def _red_as_seen(self, index: str | None) -> list[str]:
        try:
            return self.red_indices(index)
        except (RightMissing, RequestRefused):
            # An answer in part still says so; only the index has no name.
            return []

    def _kept_out(self, index: str | None) -> Gaps:
        """What the last request was kept from: indices that are blocked for reading, and closed
        ones that were asked for by name. A closed index that a wildcard would take in is left out
        on purpose."""
        target = index or self._all
        kept_out = {n: why for n, why in self.left_out.items() if takes_in(target, n)}
        by_name = [part for part in target.split(",") if part and not set(part) & set("*-:")]
        if by_name:
            # Without the right to see it, such an index is one that is not there.
            with suppress(RightMissing, RequestRefused):
                kept_out |= dict.fromkeys(self.closed(",".join(by_name)), CLOSED)
        return Gaps(indices=kept_out)

    def red_indices(self, index: str | None = None) -> list[str]:
        """Our indices, or those that `index` names, of which some shard has no copy that
        answers."""
        target = _without(index or self._all, self.left_out)
        try:
            answer = self._health(target)
        except RequestRefused as error:
            if error.status != 408:
                raise
            # A name that is not there: its health would be waited for.
            there = self._connection.ask(
                dict[str, Any], "GET", f"/{in_path(target)}/_alias", params=LENIENT
            )
            answer = self._health(",".join(there)) if there else {}
        return sorted(n for n, i in answer.get("indices", {}).items() if i["status"] == "red")

    def _health(self, target: str) -> dict[str, Any]:
        return self._connection.ask(
            dict[str, Any],
            "GET",
            f"/_cluster/health/{in_path(target)}",
            params={"level": "indices", "timeout": "0s", **LENIENT},
        )

    def _unreadable(self) -> dict[str, str]:
        """Open indices that take no reads, and how OpenSearch says it."""
        answer = self._connection.ask(dict[str, Any], "GET", "/_cluster/state/blocks")
        return {
            index: block["description"]
            for index, blocks in answer["blocks"].get("indices", {}).items()
            for number, block in blocks.items()
            if number != _CLOSED and "read" in block["levels"]
        }


def _without(expression: str, names: Collection[str]) -> str:
    """An expression that takes all of it in but the names. An exclusion holds for what a wildcard
    before it took in; what is named in full has to go."""
    parts = [part for part in expression.split(",") if part not in names]
    if not any("*" in part for part in parts):
        return ",".join(parts) or _NONE
    return ",".join((*parts, *(f"-{name}" for name in names)))


def finds(expression: str, name: str, index: str) -> bool:
    """Whether a search of an expression finds what is in an index, by the index's own name or by
    that of an alias or a data stream before it."""
    if takes_in(expression, index):
        return True
    left_out = [part[1:] for part in expression.split(",") if part.startswith("-")]
    return takes_in(expression, name) and not any(holds(part, index) for part in left_out)


def takes_in(expression: str, name: str) -> bool:
    """Whether an expression takes an index in; the last part that says anything holds."""
    taken = False
    for part in expression.split(","):
        if part.startswith("-") and holds(part[1:], name):
            taken = False
        elif holds(part, name):
            taken = True
    return taken

"""Looks at an index before anything is changed: what is to be done, or why nothing can be done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from enrich.log_store.connection import Connection
from enrich.log_store.odd_answers import translates_odd_answers
from enrich.log_store.paths import in_path
from enrich.log_store.scope import takes_in
from enrich.reindexing.indices import Indices
from enrich.reindexing.plan import (
    Refused,
    Source,
    copy_name,
    drops_vectors,
    is_fit,
    name_refusal,
    refusal,
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be done about one index."""

    source: Source
    target: str
    remove_old: bool
    #: The note in the copy's mapping; None where there is no copy yet.
    note: dict[str, Any] | None
    #: Bytes and logs of the index, as far as they may be seen.
    size: int
    logs: int
    #: Nothing is left to be done, and why.
    nothing: str = ""

    @property
    def is_swapped(self) -> bool:
        """Whether the copy has the index's name already, and is only to be shown."""
        return self.source.name == self.target


@translates_odd_answers
class Survey:
    """Looks at indices; changes nothing."""

    def __init__(self, connection: Connection, expression: str, dimensions: int) -> None:
        self._connection = connection
        self._indices = Indices(connection)
        self._expression = expression
        self._dimensions = dimensions

    def plan(self, index: str, target: str = "", *, remove_old: bool = False) -> Plan:
        """Look at an index; changes nothing.

        Raises Refused: why it cannot be replaced.
        """
        described = self._indices.resolved(index)
        target = target or copy_name(index)
        if described is None:
            return self._of_alias(index, remove_old=remove_old)
        if stream := described.get("data_stream"):
            raise Refused(
                f"{index} stands behind the data stream {stream}, whose indices OpenSearch lets "
                "nobody replace: add index.knn and log_vector to the stream's template "
                f"(`python -m enrich template --data-streams`), then POST /{stream}/_rollover: "
                "its next index takes vectors"
            )
        if "closed" in described.get("attributes", []):
            raise Refused(f"{index} is closed: open it first (POST /{index}/_open)")
        source = self._indices.source(index)
        note = self._indices.note(target)
        if note is not None and (note.get("of"), note.get("uuid")) != (index, source.uuid):
            raise Refused(
                f"{target} is there and is not the copy of {index}: delete it, or name the copy "
                "otherwise by --to"
            )
        size, logs = self._indices.extent(index)
        plan = Plan(
            source=source,
            target=target,
            remove_old=remove_old,
            note=note,
            size=size,
            logs=logs,
        )
        if note is None and is_fit(source, self._dimensions):
            return replace(plan, nothing=f"{index} takes vectors as it is: nothing to do")
        if note is not None and note.get("step") == "done" and not remove_old:
            return replace(
                plan,
                nothing=f"{target} stands in the place of {index} already, which is kept and "
                "hidden: --remove-old deletes it and gives its name to the copy",
            )
        if note is not None and note.get("step") == "done" and not source.takes_no_writes:
            raise Refused(
                f"{index} takes writes again since it was replaced, so that it may have logs which "
                f"{target} does not have: look at them, and delete it by hand"
            )
        if why := name_refusal(index, target) or refusal(source, self._dimensions):
            raise Refused(f"{index} is not copied: {why}")
        names = [target, *source.aliases, *([index] if remove_old else [])]
        if (note or {}).get("step", "copying") == "copying" and not any(
            takes_in(self._expression, name) for name in names
        ):
            raise Refused(
                f"the logs would be lost to enrich: ENRICH_INDEX_PATTERN ({self._expression}) "
                f"does not find {target}; add it there, or name the copy otherwise by --to"
            )
        if note is None and (why := self._indices.disk_refusal(source, size)):
            raise Refused(f"{index} is not copied: {why}")
        return plan

    def told(self, plan: Plan) -> Iterator[str]:
        """What would be done, a sentence for each step that is left."""
        source, target = plan.source, plan.target
        if plan.is_swapped:
            yield f"show {target}, which has the place of its index already"
            return
        step = (plan.note or {}).get("step", "")
        if plan.note is None:
            yield (
                f"create {target} with the settings and the mapping of {source.name}, index.knn "
                "and log_vector; hidden until it is whole"
            )
        else:
            yield f"go on with {target}, which was begun before"
        if step != "done":
            yield f"copy {plan.logs:,} logs ({plan.size / 2**20:,.0f} MB), then what arrived since"
            if drops_vectors(source, self._dimensions):
                yield "leave the vectors of before behind: they are of another length or type"
            yield (f"compare them, then block writes to {source.name} for what changed meanwhile")
        if source.aliases:
            yield f"move the aliases {', '.join(source.aliases)} to {target}"
        if plan.remove_old:
            yield f"delete {source.name} and make its name an alias of {target}, at once"
        else:
            yield f"keep {source.name}, hidden and blocked for writes, until --remove-old"

    def _of_alias(self, alias: str, *, remove_old: bool) -> Plan:
        behind = self._connection.ask(dict[str, Any], "GET", f"/_alias/{in_path(alias)}")
        for name in behind:
            note = self._indices.note(name) or {}
            if note.get("of") == alias:
                source = self._indices.source(name)
                plan = Plan(
                    source=source, target=name, remove_old=remove_old, note=note, size=0, logs=0
                )
                if note.get("step") != "done":
                    return plan
                return replace(plan, nothing=f"{alias} is an alias of its copy {name}: it was done")
        raise Refused(
            f"{alias} is an alias: give the index behind it ({', '.join(sorted(behind))})"
        )

"""Replaces an index by a copy, step by step; each step is found again after a cut.

What was done is told by the cluster: by the note in the copy's mapping, by OpenSearch's own tasks,
and by what there is. Logs that arrive meanwhile are copied by further passes, and compared before
writes are blocked; only for what changed since then, which is little, the old index takes no
writes. A block from the beginning would refuse logs for hours, and many shippers drop what is
refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from enrich.errors import EnrichError
from enrich.log_store.connection import Connection
from enrich.log_store.mapping import FIELD_TYPES
from enrich.log_store.odd_answers import translates_odd_answers
from enrich.log_store.paths import in_path
from enrich.log_store.refusals import RequestRefused
from enrich.reindexing.comparison import Comparison
from enrich.reindexing.copying import Copying
from enrich.reindexing.indices import Indices, Note
from enrich.reindexing.plan import (
    Refused,
    body,
    drops_vectors,
    first_settings,
    last_settings,
    swap,
)
from enrich.reindexing.progress import Progress
from enrich.reindexing.survey import Plan, Survey

#: So few new logs may be copied while the index takes no writes.
FEW = 10_000

#: Passes while the index takes writes; whoever writes faster than is copied is blocked after them.
MOST_PASSES = 6


@translates_odd_answers
class Reindex:
    """Looks at indices and replaces them."""

    def __init__(
        self,
        connection: Connection,
        *,
        expression: str,
        dimensions: int,
        say: Callable[[str, str], None],
        show: Callable[[Progress], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """
        Args:
            expression: ENRICH_INDEX_PATTERN, as a search takes it.
            dimensions: of vectors.
            say: told a mark ("ok", "warn") and a sentence after each step.
            show: told again and again how far it is.
        """
        self._connection = connection
        self._survey = Survey(connection, expression, dimensions)
        self._dimensions = dimensions
        self._say = say
        self._show = show
        self._sleep = sleep

    def plan(self, index: str, target: str = "", *, remove_old: bool = False) -> Plan:
        """As `Survey.plan`."""
        return self._survey.plan(index, target, remove_old=remove_old)

    def told(self, plan: Plan) -> Iterator[str]:
        """As `Survey.told`."""
        return self._survey.told(plan)

    def run(self, plan: Plan) -> None:
        """Do what is left.

        Raises:
            Refused: it cannot go on; what to do is said, and the old index is as it was.
        """
        _Replacement(
            self._connection,
            plan,
            self._dimensions,
            say=self._say,
            show=self._show,
            sleep=self._sleep,
        ).run()


class _Replacement:
    """The steps that are left of one plan."""

    def __init__(
        self,
        connection: Connection,
        plan: Plan,
        dimensions: int,
        *,
        say: Callable[[str, str], None],
        show: Callable[[Progress], None],
        sleep: Callable[[float], None],
    ) -> None:
        self._connection = connection
        self._indices = Indices(connection)
        self._plan = plan
        self._source = plan.source
        self._target = plan.target
        self._dimensions = dimensions
        self._say = say
        self._show = show
        self._note = Note(
            connection=connection,
            target=plan.target,
            beside=plan.source.mapping.get("_meta", {}),
            values=dict(plan.note or {}),
        )
        drops = drops_vectors(plan.source, dimensions)
        without = ("log_vector", *FIELD_TYPES) if drops else ()
        self._copying = Copying(
            connection, plan.source, self._note, without=without, show=show, sleep=sleep
        )
        self._comparison = Comparison(connection, plan.source.shards, without)

    def run(self) -> None:
        if self._plan.is_swapped:
            self._show_copy()
            self._say("ok", f"{self._target} is shown, and stands in its place")
            return
        if self._plan.note is None:
            self._create()
        if self._note.get("step") == "compared" and not self._source.takes_no_writes:
            # Somebody took the block away, and logs may have arrived since.
            path = f"/{in_path(self._target)}/_settings"
            self._connection.request("PUT", path, first_settings(self._source))
            self._note.write(step="copying")
        if self._note.get("step") == "copying":
            if self._source.takes_no_writes:
                self._copying.last_pass()
            else:
                self._copy_and_block()
            self._compare()
        self._put_in_place()

    def _create(self) -> None:
        self._note.values = {
            "of": self._source.name,
            "uuid": self._source.uuid,
            "step": "copying",
        }
        made = body(self._source, self._dimensions, self._note.values)
        path = f"/{in_path(self._target)}"
        try:
            try:
                # Else k-NN writes each source anew, where 1e400 becomes "Infinity".
                exact = {**made["settings"], "index.knn.derived_source.enabled": False}
                self._connection.request("PUT", path, {**made, "settings": exact})
            except RequestRefused:
                # OpenSearch 2 does not know it, and leaves sources as they are.
                self._connection.request("PUT", path, made)
        except RequestRefused as error:
            raise Refused(
                f"OpenSearch did not create {self._target} ({error.error_type}): a template for "
                "data streams may hold for its name, a setting be of another version, or the limit "
                "of shards be reached; nothing was changed"
            ) from None
        self._say("ok", f"{self._target} was created, hidden until it is whole")

    def _copy_and_block(self) -> None:
        index, shards = self._source.name, self._source.shards
        began = self._indices.marks(index, shards)
        self._catch_up()
        self._compare_ahead()
        self._catch_up()
        shut_out = not self._plan.remove_old and not self._source.writable
        if shut_out and self._indices.marks(index, shards) != began:
            raise Refused(
                f"logs still arrive in {index} under its own name, which would be refused "
                "after the swap: run it again with --remove-old, so that the name becomes an "
                f"alias of {self._target}, or stop what writes there; what was copied is kept, "
                f"and {index} is as it was"
            )
        # First the note: a block that nobody remembers would never be taken away.
        self._note.write(blocked=datetime.now(UTC).isoformat(timespec="seconds"))
        self._connection.request("PUT", f"/{in_path(index)}/_block/write")
        self._say("warn", f"{index} takes no writes until the swap: the last logs are copied")
        self._copying.last_pass()

    def _catch_up(self) -> None:
        """Copy until so few logs are new that they may be copied while none is taken."""
        for _ in range(MOST_PASSES):
            copied = self._copying.one_pass()
            now = self._indices.marks(self._source.name, self._source.shards)
            if sum(max(0, b - a) for a, b in zip(copied, now, strict=True)) <= FEW:
                return

    def _compare_ahead(self) -> None:
        """Compare what is copied while logs still arrive, so that little is left for the block."""
        index, target = self._source.name, self._target
        before = self._note.get("compared", {})
        compared = {
            "old": self._note.get("marks"),
            "new": before.get("new") or self._indices.marks(target, self._source.shards),
        }
        if not self._comparison.hold(
            index,
            target,
            above=before.get("old", ()),
            up_to=compared["old"],
            seen=self._shown(f"comparing {index}"),
        ):
            raise self._differing("other contents")
        self._note.write(compared=compared)

    def _compare(self) -> None:
        """Compare what was not compared before the block, and the number of all logs."""
        index, target = self._source.name, self._target
        old, new = (self._indices.count(name) for name in (index, target))
        if self._plan.logs and "nested" not in str(self._source.mapping):
            _, there = self._indices.extent(index)
            if there > old:
                self._unblock()
                raise Refused(
                    f"OPENSEARCH_USER sees {old:,} of {there:,} logs of {index}, and would copy no "
                    "more: give it a role without dls, fls and masked_fields; nothing was "
                    f"swapped; delete {target}, then run it again"
                )
        before = self._note.get("compared", {})
        if self._indices.was_deleted_from(target):
            # By somebody else: what was found there may be gone.
            before = {}
        what = self._shown("comparing the last logs" if before else f"comparing {index}")
        same = (
            old == new
            and self._comparison.hold(index, target, above=before.get("old", ()), seen=what)
            # Besides, whatever changed in the copy; of the same number, all are the same.
            and (not before or self._comparison.hold(target, index, above=before["new"]))
        )
        if not same:
            self._unblock()
            raise self._differing(f"{old:,} and {new:,}" if old != new else "other contents")
        self._say("ok", f"{old:,} logs compared: ids, routing and contents agree")
        self._note.write(step="compared")

    def _differing(self, how: str) -> Refused:
        index, target = self._source.name, self._target
        return Refused(
            f"{index} and {target} do not hold the same logs ({how}), perhaps because some were "
            f"deleted meanwhile: nothing was swapped; delete {target}, run it again"
        )

    def _shown(self, what: str) -> Callable[[int], None]:
        total = self._plan.logs
        return lambda logs: self._show(Progress(what=what, done=logs, total=total))

    def _unblock(self) -> None:
        # Only what was blocked here, by this process or by one that was cut off.
        if self._note.get("blocked"):
            path = f"/{in_path(self._source.name)}/_settings"
            self._connection.request("PUT", path, {"index.blocks.write": None})
            self._note.write(blocked="")

    def _put_in_place(self) -> None:
        source, target = self._source, self._target
        done = self._note.get("step") == "done"
        if not done:
            settings = {**last_settings(source), "index.hidden": True}
            self._connection.request("PUT", f"/{in_path(target)}/_settings", settings)
        # First the old one is hidden, last the copy is shown: no search by a pattern sees both.
        if not self._plan.remove_old:
            self._hide(source.name, True)
        if actions := swap(source, target, remove_old=self._plan.remove_old):
            try:
                self._connection.request("POST", "/_aliases", {"actions": actions})
            except EnrichError:
                if not self._plan.remove_old:
                    self._hide(source.name, None)
                raise
        self._show_copy()
        moved = f"; the aliases {', '.join(source.aliases)} are its own" if source.aliases else ""
        self._say("ok", f"{target} stands in the place of {source.name}{moved}")
        if self._plan.remove_old:
            self._say("ok", f"{source.name} was deleted, and its name is an alias of {target}")
        else:
            self._say(
                "warn",
                f"{source.name} is kept: hidden from patterns and blocked for writes; --remove-old "
                "deletes it and gives its name to the copy",
            )

    def _show_copy(self) -> None:
        self._hide(self._target, None)
        self._note.write(step="done")

    def _hide(self, index: str, hidden: bool | None) -> None:
        path = f"/{in_path(index)}/_settings"
        self._connection.request("PUT", path, {"index.hidden": hidden})

"""Replaces an index by a copy, step by step; each step is found again after a cut.

What was done is told by the cluster: by the note in the copy's mapping, by OpenSearch's own tasks,
and by what there is. Logs that arrive meanwhile are copied by further passes over what is new (a
pass writes under the versions of the old index, so that it may be repeated); only for the last
pass, which is short, and for the comparison the old index takes no writes. A block from the
beginning would refuse logs for hours, and many shippers drop what is refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from enrich.errors import TransientError
from enrich.log_store.cluster import disks_of, high_watermark, settings_of
from enrich.log_store.connection import Connection
from enrich.log_store.mapping import FIELD_TYPES
from enrich.log_store.odd_answers import translates_odd_answers
from enrich.log_store.paths import in_path
from enrich.log_store.preflight import above_watermark
from enrich.log_store.refusals import RequestRefused, RightMissing
from enrich.log_store.scope import takes_in
from enrich.reindexing.digest import digest_of
from enrich.reindexing.plan import (
    NOTE,
    Refused,
    Source,
    body,
    copy_name,
    drops_vectors,
    is_fit,
    last_settings,
    name_refusal,
    refusal,
    swap,
)
from enrich.settings import Settings

#: So few new logs may be copied while the index takes no writes.
FEW = 10_000

#: Passes while the index takes writes; whoever writes faster than is copied is blocked after them.
MOST_PASSES = 6

POLL_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far something is that lasts."""

    what: str
    done: int
    total: int


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


@translates_odd_answers
class Reindex:
    """Looks at indices and replaces them."""

    def __init__(
        self,
        connection: Connection,
        settings: Settings,
        *,
        say: Callable[[str, str], None],
        show: Callable[[Progress], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """
        Args:
            say: told a mark ("ok", "warn") and a sentence after each step.
            show: told again and again how far it is.
        """
        self._connection = connection
        self._expression = settings.index_expression
        self._dimensions = settings.embedding_dimensions
        self._say = say
        self._show = show
        self._sleep = sleep

    # -- before

    def plan(self, index: str, target: str = "", *, remove_old: bool = False) -> Plan:
        """Look at an index; changes nothing.

        Raises Refused: why it cannot be replaced.
        """
        described = self._resolved(index)
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
        source = self._source(index)
        note = self._note(target)
        if note is not None and (note.get("of"), note.get("uuid")) != (index, source.uuid):
            raise Refused(
                f"{target} is there and is not the copy of {index}: delete it, or name the copy "
                "otherwise by --to"
            )
        size, logs = self._extent(index)
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
        if why := name_refusal(index, target) or refusal(source, self._dimensions):
            raise Refused(f"{index} is not copied: {why}")
        names = [target, *source.aliases, *([index] if remove_old else [])]
        if not any(takes_in(self._expression, name) for name in names):
            raise Refused(
                f"the logs would be lost to enrich: ENRICH_INDEX_PATTERN ({self._expression}) "
                f"does not find {target}; add it there, or name the copy otherwise by --to"
            )
        if note is None and (why := self._disk(plan)):
            raise Refused(f"{index} is not copied: {why}")
        return plan

    def told(self, plan: Plan) -> Iterator[str]:
        """What would be done, a sentence for each step that is left."""
        source, target = plan.source, plan.target
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
            yield f"block writes to {source.name} for the last pass, then compare all logs"
        if source.aliases:
            yield f"move the aliases {', '.join(source.aliases)} to {target}"
        if plan.remove_old:
            yield f"delete {source.name} and make its name an alias of {target}, at once"
        else:
            yield f"keep {source.name}, hidden and blocked for writes, until --remove-old"

    # -- the steps

    def run(self, plan: Plan) -> None:
        """Do what is left.

        Raises:
            Refused: it cannot go on; what to do is said, and the old index is as it was.
        """
        note = plan.note
        if note is None:
            note = {"of": plan.source.name, "uuid": plan.source.uuid, "step": "copying"}
            self._create(plan, note)
        if note["step"] == "copying":
            self._copy(plan, note)
            self._compare(plan, note)
        self._put_in_place(plan, note)

    def _create(self, plan: Plan, note: dict[str, Any]) -> None:
        made = body(plan.source, self._dimensions, note)
        path = f"/{in_path(plan.target)}"
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
                f"OpenSearch did not create {plan.target} ({error.error_type}): a template for "
                "data streams may hold for its name, a setting be of another version, or the limit "
                "of shards be reached; nothing was changed"
            ) from None
        self._say("ok", f"{plan.target} was created, hidden until it is whole")

    def _copy(self, plan: Plan, note: dict[str, Any]) -> None:
        index = plan.source.name
        blocked = bool(note.get("blocked")) or plan.source.takes_no_writes
        began = self._marks(plan.source)
        passes = 0
        while True:
            marks = self._one_pass(plan, note)
            passes += 1
            if blocked:
                return
            now = self._marks(plan.source)
            arrived = sum(max(0, b - a) for a, b in zip(marks, now, strict=True))
            if arrived > FEW and passes < MOST_PASSES:
                continue
            if now != began and not plan.remove_old and not plan.source.writable:
                raise Refused(
                    f"logs still arrive in {index} under its own name, which would be refused "
                    "after the swap: run it again with --remove-old, so that the name becomes an "
                    f"alias of {plan.target}, or stop what writes there; what was copied is kept, "
                    f"and {index} is as it was"
                )
            # First the note: a block that nobody remembers would never be taken away.
            self._write(plan, note, blocked=True)
            self._connection.request("PUT", f"/{in_path(index)}/_block/write")
            self._say("warn", f"{index} takes no writes until the swap: the last logs are copied")
            blocked = True

    def _one_pass(self, plan: Plan, note: dict[str, Any]) -> list[int]:
        """Copy what is new since the last whole pass; the marks at its beginning."""
        if not note.get("task"):
            # Started and not written down: somebody was cut off in between.
            task = self._running_task(plan)
            if task:
                self._write(plan, note, task=task, task_marks=note.get("marks", []))
        if not note.get("task"):
            marks = self._marks(plan.source)
            self._write(plan, note, task=self._start(plan, note), task_marks=marks)
        if not self._wait_for(plan, str(note["task"])):
            # Its node is gone, and what it had copied is written under the same versions again.
            self._write(plan, note, task="", task_marks=[])
            return self._one_pass(plan, note)
        marks = list(note["task_marks"]) or [-1] * plan.source.shards
        self._write(plan, note, task="", task_marks=[], marks=marks)
        return marks

    def _start(self, plan: Plan, note: Mapping[str, Any]) -> str:
        source: dict[str, Any] = {"index": plan.source.name, "size": 500}
        if marks := note.get("marks"):
            # Of each shard's own numbers the least: some logs are read once more.
            source["query"] = {"range": {"_seq_no": {"gt": min(marks)}}}
        if drops_vectors(plan.source, self._dimensions):
            source["_source"] = {"excludes": list(_own_fields())}
        answer = self._connection.ask(
            dict[str, Any],
            "POST",
            "/_reindex",
            {
                "conflicts": "proceed",
                "source": source,
                "dest": {"index": plan.target, "version_type": "external"},
            },
            {"wait_for_completion": "false", "slices": "auto", "requests_per_second": "-1"},
        )
        return str(answer["task"])

    def _running_task(self, plan: Plan) -> str:
        answer = self._connection.ask(
            dict[str, Any],
            "GET",
            "/_tasks",
            params={"actions": "*reindex", "detailed": "true"},
        )
        for node in answer.get("nodes", {}).values():
            for name, task in node.get("tasks", {}).items():
                if f"to [{plan.target}]" in str(task.get("description", "")) and not task.get(
                    "parent_task_id"
                ):
                    return str(name)
        return ""

    def _wait_for(self, plan: Plan, task: str) -> bool:
        """Wait until a task has ended; False where nobody knows it any more."""
        while True:
            try:
                answer = self._connection.ask(dict[str, Any], "GET", f"/_tasks/{in_path(task)}")
            except RequestRefused as error:
                if error.status == 404:
                    return False
                raise
            status = answer.get("task", {}).get("status", {})
            done = sum(int(status.get(n, 0)) for n in ("created", "updated", "version_conflicts"))
            total = int(status.get("total", 0))
            self._show(Progress(what=f"copying to {plan.target}", done=done, total=total))
            if answer.get("completed"):
                break
            self._sleep(POLL_SECONDS)
        if error_ := answer.get("error"):
            raise TransientError(
                f"OpenSearch gave up copying to {plan.target} ({error_.get('type', 'unknown')}): "
                "run it again, it goes on"
            )
        response = answer.get("response", {})
        failures = response.get("failures", [])
        if failures or response.get("timed_out") or response.get("canceled"):
            kinds = sorted({str(each.get("cause", {}).get("type", "?")) for each in failures})
            raise Refused(
                f"{len(failures):,} logs were not taken by {plan.target} ({', '.join(kinds)}): "
                f"{plan.source.name} is as it was, but for a block on writes if that was told"
            )
        return True

    def _compare(self, plan: Plan, note: dict[str, Any]) -> None:
        source, target = plan.source, plan.target
        without = _own_fields() if drops_vectors(source, self._dimensions) else ()
        found = []
        for index in (source.name, target):
            self._connection.request("POST", f"/{in_path(index)}/_refresh")

            def seen(logs: int, index: str = index) -> None:
                self._show(Progress(what=f"comparing {index}", done=logs, total=plan.logs))

            found.append(
                digest_of(self._connection, index, source.shards, without=without, seen=seen)
            )
        old, new = found
        if plan.logs and "nested" not in str(source.mapping):
            _, there = self._extent(source.name)
            if there > old.logs:
                self._unblock(plan, note)
                raise Refused(
                    f"OPENSEARCH_USER sees {old.logs:,} of {there:,} logs of {source.name}, and "
                    "would copy no more: give it a role without dls, fls and masked_fields; "
                    f"nothing was swapped; delete {target}, then run it again"
                )
        if old != new:
            self._unblock(plan, note)
            counts = f"{old.logs:,} and {new.logs:,}" if old.logs != new.logs else "other contents"
            raise Refused(
                f"{source.name} and {target} do not hold the same logs ({counts}), perhaps because "
                f"some were deleted meanwhile: nothing was swapped; delete {target}, run it again"
            )
        self._say(
            "ok",
            f"{old.logs:,} logs compared: ids, routing and contents agree "
            f"(checksum {old.checksum:032x})",
        )
        self._write(plan, note, step="compared")

    def _unblock(self, plan: Plan, note: dict[str, Any]) -> None:
        if note.get("blocked") and not plan.source.takes_no_writes:
            path = f"/{in_path(plan.source.name)}/_settings"
            self._connection.request("PUT", path, {"index.blocks.write": None})
            self._write(plan, note, blocked=False)

    def _put_in_place(self, plan: Plan, note: dict[str, Any]) -> None:
        source, target = plan.source, plan.target
        path = f"/{in_path(target)}/_settings"
        if note["step"] != "done":
            self._connection.request("PUT", path, last_settings(source))
        if actions := swap(source, target, remove_old=plan.remove_old):
            self._connection.request("POST", "/_aliases", {"actions": actions})
        if not plan.remove_old:
            path = f"/{in_path(source.name)}/_settings"
            self._connection.request("PUT", path, {"index.hidden": True})
        self._write(plan, note, step="done")
        moved = f"; the aliases {', '.join(source.aliases)} are its own" if source.aliases else ""
        self._say("ok", f"{target} stands in the place of {source.name}{moved}")
        if plan.remove_old:
            self._say("ok", f"{source.name} was deleted, and its name is an alias of {target}")
        else:
            self._say(
                "warn",
                f"{source.name} is kept: hidden from patterns and blocked for writes; --remove-old "
                "deletes it and gives its name to the copy",
            )

    # -- what the cluster says

    def _resolved(self, index: str) -> dict[str, Any] | None:
        """What a name is; None for an alias. Raises Refused where there is no such thing."""
        try:
            answer = self._connection.ask(
                dict[str, list[dict[str, Any]]],
                "GET",
                f"/_resolve/index/{in_path(index)}",
                params={"expand_wildcards": "all"},
            )
        except RequestRefused as error:
            if error.status != 404:
                raise
            answer = {}
        for stream in answer.get("data_streams", []):
            if stream["name"] == index:
                return {"data_stream": index}
        if any(alias["name"] == index for alias in answer.get("aliases", [])):
            return None
        for each in answer.get("indices", []):
            if each["name"] == index:
                return each
        raise Refused(f"no index is called {index}")

    def _of_alias(self, alias: str, *, remove_old: bool) -> Plan:
        behind = self._connection.ask(dict[str, Any], "GET", f"/_alias/{in_path(alias)}")
        for name in behind:
            note = self._note(name) or {}
            if note.get("of") == alias:
                source = self._source(name)
                plan = Plan(
                    source=source, target=name, remove_old=remove_old, note=note, size=0, logs=0
                )
                return replace(plan, nothing=f"{alias} is an alias of its copy {name}: it was done")
        raise Refused(
            f"{alias} is an alias: give the index behind it ({', '.join(sorted(behind))})"
        )

    def _source(self, index: str) -> Source:
        path = in_path(index)
        ask = self._connection.ask
        try:
            settings = ask(
                dict[str, Any], "GET", f"/{path}/_settings", params={"flat_settings": "true"}
            )[index]["settings"]
            mapping = ask(dict[str, Any], "GET", f"/{path}/_mapping")[index]["mappings"]
            aliases = ask(dict[str, Any], "GET", f"/{path}/_alias")[index]["aliases"]
        except RequestRefused as error:
            if error.error_type != "cluster_block_exception":
                raise
            raise Refused(
                f"{index} is not copied: index.blocks.metadata or a block on reads is set: remove "
                "that first"
            ) from None
        writable = []
        for alias, how in aliases.items():
            shared = ask(dict[str, Any], "GET", f"/_alias/{in_path(alias)}")
            if how.get("is_write_index") or (
                len(shared) == 1 and how.get("is_write_index") is not False
            ):
                writable.append(alias)
        return Source(
            name=index, settings=settings, mapping=mapping, aliases=aliases, writable=writable
        )

    def _note(self, target: str) -> dict[str, Any] | None:
        """The note in a copy's mapping; {} for an index that is no copy; None where none is."""
        try:
            answer = self._connection.ask(dict[str, Any], "GET", f"/{in_path(target)}/_mapping")
        except RequestRefused as error:
            if error.status == 404:
                return None
            raise
        for index in answer.values():
            meta: dict[str, Any] = index.get("mappings", {}).get("_meta", {})
            return dict(meta.get(NOTE, {}))
        return None

    def _write(self, plan: Plan, note: dict[str, Any], **changes: Any) -> None:
        """Write down how far it is."""
        note |= changes
        meta = {**plan.source.mapping.get("_meta", {}), NOTE: note}
        self._connection.request("PUT", f"/{in_path(plan.target)}/_mapping", {"_meta": meta})

    def _marks(self, source: Source) -> list[int]:
        """The highest sequence number of each shard that a search sees now; -1 for none."""
        path = in_path(source.name)
        self._connection.request("POST", f"/{path}/_refresh")
        marks = []
        for shard in range(source.shards):
            answer = self._connection.ask(
                dict[str, Any],
                "POST",
                f"/{path}/_search",
                {"size": 0, "aggs": {"last": {"max": {"field": "_seq_no"}}}},
                {"preference": f"_shards:{shard}"},
            )
            last = answer["aggregations"]["last"]["value"]
            marks.append(-1 if last is None else int(last))
        return marks

    def _extent(self, index: str) -> tuple[int, int]:
        """Bytes and logs without replicas; 0 where they may not be seen."""
        try:
            answer = self._connection.ask(
                dict[str, Any], "GET", f"/{in_path(index)}/_stats/store,docs"
            )
        except RightMissing:
            return 0, 0
        primaries = answer["_all"]["primaries"]
        return int(primaries["store"]["size_in_bytes"]), int(primaries["docs"]["count"])

    def _disk(self, plan: Plan) -> str:
        with suppress(RightMissing):
            mark = high_watermark(settings_of(self._connection))
            copies = 1 + int(plan.source.settings.get("index.number_of_replicas", 0))
            return disk_refusal(disks_of(self._connection), mark, plan.size, copies)
        return ""


def disk_refusal(disks: Sequence[tuple[int, int]], mark: str, size: int, copies: int) -> str:
    """Why the disks have no room for an index, or "". Pure.

    Args:
        disks: of each data node, all and available bytes.
        mark: the high watermark.
        size: of the index, in bytes, without replicas.
    """
    copies = min(copies, max(1, len(disks)))
    fit = [disk for disk in disks if not above_watermark(mark, disk[0], max(0, disk[1] - size))]
    if len(fit) >= copies:
        return ""
    return (
        f"a copy takes about {size * copies / 2**20:,.0f} MB, and would put the disks above their "
        f"high watermark ({mark}): free or add disk"
    )


def _own_fields() -> tuple[str, ...]:
    return ("log_vector", *FIELD_TYPES)

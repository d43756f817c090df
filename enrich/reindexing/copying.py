"""Copies an index in passes by OpenSearch's own tasks, each over what is new since the last.

A pass writes under the versions of the old index, so that it may be repeated. How far it is stands
in the note.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from enrich.errors import TransientError
from enrich.log_store.connection import Connection
from enrich.log_store.paths import in_path
from enrich.log_store.refusals import RequestRefused
from enrich.reindexing.indices import Indices, Note
from enrich.reindexing.plan import Refused, Source
from enrich.reindexing.progress import Progress

POLL_SECONDS = 0.5


class Copying:
    """Copies one index."""

    def __init__(
        self,
        connection: Connection,
        source: Source,
        note: Note,
        *,
        without: Sequence[str],
        show: Callable[[Progress], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """
        Args:
            without: fields that are left behind.
        """
        self._connection = connection
        self._indices = Indices(connection)
        self._source = source
        self._target = note.target
        self._note = note
        self._without = without
        self._show = show
        self._sleep = sleep

    def last_pass(self) -> None:
        """Copy what is left of an index that takes no writes any more."""
        if self._note.get("task") or self._running_task():
            # It may have begun before the last write.
            self.one_pass()
        self.one_pass()

    def one_pass(self) -> list[int]:
        """Copy what is new since the last whole pass.

        Returns: of each shard the highest sequence number that is surely copied.

        Raises:
            Refused: logs that the copy does not take.
            TransientError: OpenSearch gave up.
        """
        if not self._note.get("task"):
            # Started and not written down: somebody was cut off in between.
            task = self._running_task()
            if task:
                self._note.write(task=task, task_marks=self._note.get("marks", []))
        if not self._note.get("task"):
            marks = self._indices.marks(self._source.name, self._source.shards)
            self._note.write(task=self._start(), task_marks=marks)
        if not self._wait_for(str(self._note.get("task"))):
            # Its node is gone, and what it had copied is written under the same versions again.
            self._note.write(task="", task_marks=[])
            return self.one_pass()
        marks = list(self._note.get("task_marks")) or [-1] * self._source.shards
        self._note.write(task="", task_marks=[], marks=marks)
        return marks

    def _start(self) -> str:
        source: dict[str, Any] = {"index": self._source.name, "size": 500}
        if marks := self._note.get("marks"):
            # Of each shard's own numbers the least: some logs are read once more.
            source["query"] = {"range": {"_seq_no": {"gt": min(marks)}}}
        if self._without:
            source["_source"] = {"excludes": list(self._without)}
        answer = self._connection.ask(
            dict[str, Any],
            "POST",
            "/_reindex",
            {
                "conflicts": "proceed",
                "source": source,
                "dest": {"index": self._target, "version_type": "external"},
            },
            {"wait_for_completion": "false", "slices": "auto", "requests_per_second": "-1"},
        )
        return str(answer["task"])

    def _running_task(self) -> str:
        answer = self._connection.ask(
            dict[str, Any],
            "GET",
            "/_tasks",
            params={"actions": "*reindex", "detailed": "true"},
        )
        for node in answer.get("nodes", {}).values():
            for name, task in node.get("tasks", {}).items():
                if f"to [{self._target}]" in str(task.get("description", "")) and not task.get(
                    "parent_task_id"
                ):
                    return str(name)
        return ""

    def _wait_for(self, task: str) -> bool:
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
            self._show(Progress(what=f"copying to {self._target}", done=done, total=total))
            if answer.get("completed"):
                break
            self._sleep(POLL_SECONDS)
        if error_ := answer.get("error"):
            # Else the next one would wait for this task again.
            self._note.write(task="", task_marks=[])
            raise TransientError(
                f"OpenSearch gave up copying to {self._target} ({error_.get('type', 'unknown')}): "
                "run it again, it goes on"
            )
        response = answer.get("response", {})
        failures = response.get("failures", [])
        if failures or response.get("timed_out") or response.get("canceled"):
            self._note.write(task="", task_marks=[])
            kinds = sorted({str(each.get("cause", {}).get("type", "?")) for each in failures})
            raise Refused(
                f"{len(failures):,} logs were not taken by {self._target} ({', '.join(kinds)}): "
                f"{self._source.name} is as it was, but for a block on writes if that was told"
            )
        return True

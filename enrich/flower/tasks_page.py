"""How Flower's own page of tasks words ours: `chunk 3 of page 1, run #12, 256 logs`.

Flower hands each task that it shows to a function of its configuration (`format_task`). The message
itself names a chunk by its id alone; the number of its run and how many logs it has come from what
the page /enrichment has read last.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from enrich.status.overview import Overview

#: `('0a1b2c3d4e5f:1:0',)` and `('0a1b2c3d4e5f', 1)`, as events tell of arguments.
_CHUNK = re.compile(r"\('(?P<run>[0-9a-z-]{1,64}):(?P<page>\d{1,9}):(?P<place>\d{1,9})',?.*\)")
_PAGE = re.compile(r"\('(?P<run>[0-9a-z-]{1,64})', (?P<page>\d{1,9})\)")
_RUN = re.compile(r"\('(?P<run>[0-9a-z-]{1,64})',\)")
_TICK = re.compile(r"\('(?P<trigger>[a-z]{1,20})',\)")
#: A result is one human line, told as Python writes it.
_LINE = re.compile(r"(['\"])(?P<line>.*)\1", re.DOTALL)


def task_words(known: Callable[[], Overview | None]) -> Callable[[Any], Any]:
    """A function for Flower's `format_task`. Args: known: what was read last, without a wait."""

    def format_task(task: Any) -> Any:
        overview = known()
        if task.args:
            task.args = _arguments(str(task.name), str(task.args), overview)
        if task.result and (line := _LINE.fullmatch(str(task.result))):
            task.result = line["line"]
        return task

    return format_task


def _arguments(name: str, args: str, overview: Overview | None) -> str:
    if name == "enrich.embed_and_update" and (found := _CHUNK.fullmatch(args)):
        logs = _logs(f"{found['run']}:{found['page']}:{found['place']}", overview)
        return (
            f"chunk {int(found['place']) + 1} of page {found['page']}, "
            f"{_run(found['run'], overview)}{logs}"
        )
    if name == "enrich.scan_page" and (found := _PAGE.fullmatch(args)):
        return f"page {found['page']} of {_run(found['run'], overview)}"
    if name == "enrich.finish_run" and (found := _RUN.fullmatch(args)):
        return f"the end of {_run(found['run'], overview)}"
    if name == "enrich.find_unvectorized" and (found := _TICK.fullmatch(args)):
        return f"a tick by {found['trigger']}"
    return args


def _run(id: str, overview: Overview | None) -> str:
    if overview is not None:
        for run in (*overview.status.last_runs, *overview.runs):
            if run.run_id == id:
                return f"run #{run.number}"
    return f"run {id}"


def _logs(chunk: str, overview: Overview | None) -> str:
    for each in overview.chunks if overview is not None else ():
        if each.id == chunk:
            return f", {each.logs:,} logs"
    return ""

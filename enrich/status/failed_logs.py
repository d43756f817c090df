"""Logs that are marked failed: which and why, and putting them back in line.

A mark lives on the document; where it could not be written, the ledger records the document.
Both are one list here, for the command line and for Flower's page.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from enrich.ledger import Ledger
from enrich.log_store import LogStore
from enrich.log_store.coverage import Counted
from enrich.models import LogLocation

#: What one search can give.
MAX_LISTED = 10_000

#: Marks taken off in one round.
ROUND = 1000

#: With the fields of the text in place of `{}`.
_CODES = {
    "message_missing": "there is no {} field",
    "message_not_text": "{} is not a string",
    "message_empty": "{} is empty or blank",
    "text_refused": "the embeddings API refuses this text",
    "text_too_large": "the embeddings API finds this text too large",
}


@dataclass(frozen=True)
class PutBack:
    """What `put_back` did."""

    logs: int
    #: Indices of which some marks could not be taken off.
    stuck: list[str]


def code_told(code: str, fields: str) -> str:
    """A code in words; "" for one of others. `fields`: where the text is looked for."""
    return _CODES.get(code, "").format(fields)


def failed_logs(
    store: LogStore, ledger: Ledger, index: str | None
) -> Counted[list[dict[str, Any]]]:
    """Newest first, MAX_LISTED at most."""
    marked = store.stats.failures(index, MAX_LISTED)
    rows = [*marked.value, *_refused_of(ledger, index)]
    return Counted(sorted(rows, key=lambda row: str(row["since"]), reverse=True), marked.gaps)


def put_back(store: LogStore, ledger: Ledger, index: str | None) -> PutBack:
    """Take the marks off, so that the next run finds the documents again. Raises EnrichError."""
    forgotten = _refused_of(ledger, index)
    ledger.refused.forget([(row["index"], row["id"]) for row in forgotten])
    changed, stuck = _unmark(store, index)
    return PutBack(changed + len(forgotten), sorted(stuck))


def matches(name: str, expression: str | None) -> bool:
    """Whether an index is one of those that an `--index` names."""
    parts: Iterable[str] = (expression or "*").split(",")
    return any(fnmatchcase(name, part.strip()) for part in parts)


def _unmark(store: LogStore, index: str | None) -> tuple[int, set[str]]:
    """Take off marks, index by index, so that one which takes no writes does not stop the rest."""
    changed = 0
    done: set[str] = set()
    stuck: set[str] = set()
    while True:
        names = {row["index"] for row in store.stats.failures(index, MAX_LISTED).value} - done
        if not names:
            return changed, stuck
        for name in names:
            done.add(name)
            while rows := store.stats.failures(name, ROUND).value:
                taken_off = store.documents.unmark(
                    [LogLocation(row["index"], row["id"], row["routing"]) for row in rows]
                )
                changed += taken_off
                if taken_off < len(rows):
                    stuck.add(name)
                if not taken_off:
                    break


def _refused_of(ledger: Ledger, index: str | None) -> list[dict[str, Any]]:
    return [
        {"index": name, "id": id, "routing": None, **told, "run": ""}
        for (name, id), told in ledger.refused.all().items()
        if matches(name, index)
    ]

"""Copies that a `reindex` began and has not brought to their end, perhaps because it was killed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from enrich.log_store.connection import Connection
from enrich.log_store.odd_answers import translates_odd_answers
from enrich.log_store.paths import in_path
from enrich.log_store.refusals import RequestRefused
from enrich.reindexing.plan import NOTE, copy_name


@translates_odd_answers
class LeftBehind:
    """Finds them by the notes in their mappings."""

    def __init__(self, connection: Connection, expression: str) -> None:
        """
        Args:
            expression: of indices, as a search takes it.
        """
        self._connection = connection
        self._expression = expression

    def sentences(self) -> list[str]:
        """What is unfinished, and how it goes on."""
        return list(self._sentences())

    def _sentences(self) -> Iterator[str]:
        found = self._connection.ask(
            dict[str, Any],
            "GET",
            f"/{in_path(self._expression)}/_mapping",
            params={
                "expand_wildcards": "open,hidden",
                "ignore_unavailable": "true",
                "filter_path": f"*.mappings._meta.{NOTE}",
            },
        )
        for target, index in sorted(found.items()):
            note = index["mappings"]["_meta"][NOTE]
            if note["step"] == "done":
                continue
            old = note["of"]
            command = f"`python -m enrich reindex --index {old}"
            command += "`" if target == copy_name(old) else f" --to {target}`"
            if self._is_blocked(old) and note.get("blocked"):
                yield (
                    f"{old} takes no writes since {note['blocked']}, because a reindex to {target} "
                    f"has not ended: if none is at work any more, {command} goes on"
                )
            else:
                yield (
                    f"{target} is a hidden copy of {old} that is not in its place yet: if no "
                    f"reindex is at work any more, {command} goes on"
                )

    def _is_blocked(self, index: str) -> bool:
        path = f"/{in_path(index)}/_settings/index.blocks.write"
        try:
            answer = self._connection.ask(
                dict[str, Any], "GET", path, params={"flat_settings": "true"}
            )
        except RequestRefused as error:
            if error.status != 404:
                raise
            # The copy has its name already.
            return False
        return any(
            str(each["settings"].get("index.blocks.write")) == "true" for each in answer.values()
        )

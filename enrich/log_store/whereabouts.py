"""Where a log is that was not found by a search: which indices a name stands for, and which has it.

A search sees a document only after a refresh, a look at its address sees it at once. An alias or a
data stream has no addresses of its own, so that the indices behind it are looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from enrich.log_store.connection import Connection
from enrich.log_store.documents import Documents
from enrich.log_store.paths import in_path
from enrich.log_store.refusals import RequestRefused
from enrich.models import LogLocation

#: Of the indices behind one name, so many of the newest are looked at.
MOST_BEHIND = 20


class Whereabouts:
    """Looks at names and addresses."""

    def __init__(self, connection: Connection, documents: Documents) -> None:
        self._connection = connection
        self._documents = documents

    def behind(self, name: str) -> tuple[str, ...]:
        """The indices that a name stands for, the newest first: itself, or those behind an alias or
        a data stream; none if it is not there."""
        params = {
            "ignore_unavailable": "true",
            "allow_no_indices": "true",
            "flat_settings": "true",
        }
        path = f"/{in_path(name)}/_settings/index.creation_date"
        try:
            found = self._connection.ask(dict[str, dict[str, Any]], "GET", path, params=params)
        except RequestRefused as error:
            if error.status == 404:
                return ()
            raise
        created = {
            index: int(of_index.get("settings", {}).get("index.creation_date", 0))
            for index, of_index in found.items()
        }
        newest = sorted(created, key=lambda index: (-created[index], index))
        return tuple(newest[:MOST_BEHIND])

    def holding(
        self, logs: Sequence[tuple[Sequence[str], str, str | None]]
    ) -> list[LogLocation | None]:
        """For each log, given as the indices that may have it, its id and its routing: where it is,
        in the first of them that has it."""
        places = [
            LogLocation(index, id_, routing) for indices, id_, routing in logs for index in indices
        ]
        there = dict(zip(places, self._documents.present(places), strict=True))
        return [
            next(
                (place for index in indices if there[place := LogLocation(index, id_, routing)]),
                None,
            )
            for indices, id_, routing in logs
        ]

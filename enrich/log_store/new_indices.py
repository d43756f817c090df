"""What the next index of each series will have, asked of OpenSearch before it is there.

Today's indices may be right while the template that made them is gone. For each series of names
(months, days, rollovers, data streams) the next name is made up, and OpenSearch says what it would
give to it. Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from enrich.log_store.connection import Connection
from enrich.log_store.mapping import wrong_field
from enrich.log_store.odd_answers import translates_odd_answers
from enrich.log_store.paths import in_path
from enrich.log_store.series import series_of
from enrich.log_store.templates import OtherTemplate, Templates
from enrich.models import stream_of

#: Names that are asked for one by one; those to which the same templates apply share a question.
MOST_ASKED = 100


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What some indices to come will have."""

    #: Their names, of which the first was asked for; of a data stream, the stream's.
    names: Sequence[str]
    #: The template that holds for them; "" where none does.
    template: str
    #: Why no vector could be written, or "".
    fault: str
    #: Whether `log_vector` is mapped from the start; else the first run adds it.
    has_vector: bool


@translates_odd_answers
class NewIndices:
    """Asks what indices to come will have."""

    def __init__(self, connection: Connection, templates: Templates, dimensions: int) -> None:
        self._connection = connection
        self._templates = templates
        self._dimensions = dimensions

    def look(self, indices: Iterable[str]) -> list[Outlook]:
        """What comes after these indices.

        Raises RightMissing where templates may not be seen, or asked for.
        """
        names = next_names(indices)
        if not names:
            return []
        there = self._templates.others()
        alike: dict[tuple[str, ...], list[str]] = {}
        for name in names:
            holding = tuple(each.name for each in there if each.takes(name))
            alike.setdefault(holding, []).append(name)
        return [self._outlook(each, there) for each in list(alike.values())[:MOST_ASKED]]

    def _outlook(self, names: Sequence[str], there: Sequence[OtherTemplate]) -> Outlook:
        name = names[0]
        holding = [each for each in there if each.takes(name)]
        composable = [each for each in holding if not each.is_older]
        if composable:
            first = max(composable, key=lambda each: each.priority)
            answer = self._connection.ask(
                dict[str, Any],
                "POST",
                # For a stream that is there OpenSearch simulates no index.
                f"/_index_template/_simulate/{in_path(first.name)}"
                if first.is_stream
                else f"/_index_template/_simulate_index/{in_path(name)}",
            )
            given = answer.get("template", {})
            settings, mapping, template = (
                given.get("settings", {}), given.get("mappings", {}), first.name
            )  # fmt: skip
        else:
            # Those of the older kind are merged, the highest order last.
            settings, mapping, template = {}, {"properties": {}}, ""
            for each in sorted(holding, key=lambda each: each.priority):
                body = each.body or {}
                settings |= body.get("settings", {})
                mapping["properties"] |= body.get("mappings", {}).get("properties", {})
                template = each.name
        properties = mapping.get("properties", {})
        return Outlook(
            names=names,
            template=template,
            fault=_fault(settings, properties, self._dimensions),
            has_vector="log_vector" in properties,
        )


def next_names(indices: Iterable[str]) -> list[str]:
    """The next index of each series, in order; of a data stream, its name. Pure."""
    newest: dict[str, str] = {}
    streams = set()
    for index in indices:
        if (stream := stream_of(index)) != index:
            streams.add(stream)
        elif (series := series_of(index)) is not None:
            # Longer numbers are later ones: logs-999999, logs-1000000.
            known = newest.get(series.pattern, "")
            newest[series.pattern] = max(known, series.next, key=lambda name: (len(name), name))
    return sorted({*newest.values(), *streams})


def _fault(settings: Mapping[str, Any], properties: dict[str, Any], dimensions: int) -> str:
    if str(_flat(settings).get("index.knn", "false")).lower() != "true":
        return "index.knn is not set"
    return wrong_field(properties, dimensions)


def _flat(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Settings by their whole names, however they were written."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{before}{name}.")
        else:
            whole = before + name
            flat[whole if whole.startswith("index.") else f"index.{whole}"] = value
    return flat

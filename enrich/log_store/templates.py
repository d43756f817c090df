"""The index templates for new indices and data streams, and whether others stand in their way.

OpenSearch applies one template to a new index, that of the highest priority, and merges none; where
it applies one of these, those of the older kind (`/_template`) are not heard at all. Templates know
no exclusions: what begins with a dot is left out by patterns that name the first character.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from enrich.log_store.connection import Connection
from enrich.log_store.mapping import index_mapping
from enrich.log_store.odd_answers import translates_odd_answers
from enrich.log_store.paths import common_name, holds
from enrich.log_store.series import series_of
from enrich.models import stream_of
from enrich.schema import LOGLENS, Schema
from enrich.settings import without_exclusions

#: With what a name may begin, besides letters of other alphabets and rare signs.
_INITIALS = string.ascii_lowercase + string.digits

#: Of indices behind data streams.
_BEHIND = ".ds-"

#: Low, so that a template made later for some of these indices takes precedence.
PRIORITY = 1

#: Above ours for plain indices: the names of streams are among those.
STREAM_PRIORITY = 2


@dataclass(frozen=True, kw_only=True)
class OtherTemplate:
    """A template that is there."""

    name: str
    patterns: Sequence[str]
    priority: int
    #: Whether it is of the older kind, which has no priority and is not heard beside a new one.
    is_older: bool = False
    #: Whether what it holds for is a data stream.
    is_stream: bool = False
    #: What it says: settings and mappings.
    body: Mapping[str, Any] | None = None

    def takes(self, index: str) -> bool:
        return any(holds(pattern, index) for pattern in self.patterns)


@translates_odd_answers
class Templates:
    """Looks at templates and puts ours."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def others(self, *own: str) -> list[OtherTemplate]:
        """All templates that are there, without those of the names in `own`.

        Raises RightMissing where they may not be seen.
        """
        flat = {"flat_settings": "true"}
        composable = self._connection.ask(dict[str, Any], "GET", "/_index_template", params=flat)
        older = self._connection.ask(dict[str, Any], "GET", "/_template", params=flat)
        found = [
            OtherTemplate(
                name=each["name"],
                patterns=each["index_template"]["index_patterns"],
                priority=int(each["index_template"].get("priority") or 0),
                is_stream="data_stream" in each["index_template"],
                body=each["index_template"].get("template", {}),
            )
            for each in composable["index_templates"]
        ]
        found += [
            OtherTemplate(
                name=name,
                patterns=each["index_patterns"],
                priority=int(each.get("order") or 0),
                is_older=True,
                body=each,
            )
            for name, each in older.items()
        ]
        kept = (each for each in found if each.is_older or each.name not in own)
        return sorted(kept, key=lambda each: each.name)

    def put(self, name: str, template: dict[str, Any]) -> None:
        """Create the template of this name, or put it in the place of the one that is there."""
        self._connection.request("PUT", f"/_index_template/{name}", template)


def index_template(
    dimensions: int, patterns: Sequence[str], schema: Schema = LOGLENS, indices: Iterable[str] = ()
) -> dict[str, Any]:
    """An index template that gives new indices a right `log_vector`.

    Args:
        patterns: as in ENRICH_INDEX_PATTERN.
        indices: that a run finds now. Those that no pattern names, because an alias of them is
            named, are covered with the others of their series.
    """
    return {
        "index_patterns": _plain_patterns(patterns, sorted(indices)),
        "priority": PRIORITY,
        "template": _content(dimensions, schema),
    }


def stream_template(
    dimensions: int, patterns: Sequence[str], schema: Schema = LOGLENS
) -> dict[str, Any] | None:
    """The same for the data streams whose indices some pattern names (`.ds-shop_*`); None where
    none does."""
    streams = stream_patterns(patterns)
    if not streams:
        return None
    time = schema.first.timestamp_field
    return {
        "index_patterns": streams,
        # A stream takes no log without this field.
        "data_stream": {} if time == "@timestamp" else {"timestamp_field": {"name": time}},
        "priority": STREAM_PRIORITY,
        "template": _content(dimensions, schema),
    }


def stream_patterns(patterns: Sequence[str]) -> list[str]:
    """Names of data streams of which the indices behind are taken in. Pure."""
    found: list[str] = []
    for pattern in without_exclusions(patterns):
        if not pattern.startswith(_BEHIND):
            continue
        stream = stream_of(pattern).removeprefix(_BEHIND)
        if stream.endswith("-*"):
            # `.ds-shop-*` takes in `.ds-shop-000001`, and `.ds-shop-eu-000001` too.
            found.append(stream.removesuffix("-*"))
        found.append(stream)
    return list(dict.fromkeys(name for name in found if name.strip("*")))


def _plain_patterns(patterns: Sequence[str], indices: Sequence[str]) -> list[str]:
    plain = [name for name in indices if not name.startswith(".")]
    streams = {stream_of(name) for name in indices} - {*indices}
    initials = dict.fromkeys(_INITIALS + "".join(name[0] for name in plain))
    found: dict[str, None] = {}
    for pattern in without_exclusions(patterns):
        if pattern.startswith("*"):
            rest = pattern.lstrip("*")
            if rest and rest[0] not in "._-+":
                found[rest] = None
            found |= dict.fromkeys(f"{initial}*{rest}" for initial in initials)
        elif not pattern.startswith(".") and pattern not in streams:
            found[pattern] = None
    for name in plain:
        if any(holds(pattern, name) for pattern in found):
            continue
        series = series_of(name)
        found[series.pattern if series else name] = None
    return list(found)


def _content(dimensions: int, schema: Schema) -> dict[str, Any]:
    return {
        "settings": {"index.knn": True},
        "mappings": {"properties": {**_fields_of(schema), **index_mapping(dimensions)}},
    }


def objection(
    template: Mapping[str, Any], others: Iterable[OtherTemplate], indices: Iterable[str]
) -> str:
    """Why a template of ours cannot be put, or "". Pure.

    Args:
        others: as `Templates.others` gives them.
        indices: that a run finds now; of data streams the streams' names.
    """
    known = sorted(indices)
    for other, name, is_there in _shared(template, others, known):
        if other.priority > template["priority"] and not other.is_older:
            continue
        if other.priority == template["priority"] and not other.is_older:
            return (
                f"nothing was changed: the template {other.name} has the same priority "
                f"({other.priority}) and holds for names such as {name}, which OpenSearch does not "
                "take: raise its priority"
            )
        if is_there:
            return (
                f"nothing was changed: the template {other.name} holds for indices such as {name}, "
                "and OpenSearch applies only one to each: add to it what "
                "`python -m enrich template` prints"
            )
        if other.is_stream and "data_stream" not in template:
            return (
                f"nothing was changed: the template {other.name} makes data streams of names such "
                f"as {name}, and ours would go before it: raise its priority above "
                f"{template['priority']}"
            )
    return ""


def taken_over(template: Mapping[str, Any], others: Iterable[OtherTemplate]) -> Iterator[str]:
    """Which templates are not heard any more for some names that are not there yet. Pure."""
    for other, name, _ in _shared(template, others, []):
        if other.is_older or other.priority < template["priority"]:
            yield (
                f"it goes before the template {other.name} for new indices such as {name}: raise "
                "the priority of that one if it shall hold for them"
                + (", in the form of /_index_template" if other.is_older else "")
            )


def left_out(patterns: Sequence[str], template: Mapping[str, Any] | None) -> Iterator[str]:
    """New indices that ENRICH_INDEX_PATTERN would find and the templates do not hold for, and what
    they hold for besides. Pure."""
    wide = [pattern for pattern in without_exclusions(patterns) if pattern.startswith("*")]
    if wide:
        yield (
            f"new indices of {', '.join(wide)} stay out whose names begin with a dot, and those "
            "that begin with another character than a to z, 0 to 9 or that of an index that is "
            "there: put the template again when the first one is there"
        )
    excluded = [pattern for pattern in patterns if pattern.startswith("-")]
    if also := [pattern[1:] for pattern in excluded if not pattern.startswith("-.")]:
        yield (
            f"templates know no exclusions: new indices that match {', '.join(also)} get the "
            "fields too"
        )
    if template is not None:
        yield (
            "new names that match "
            f"{', '.join(template['index_patterns'])} become data streams: OpenSearch makes no "
            "plain index of such a name, so that plain indices of these names stay out"
        )


def _shared(
    template: Mapping[str, Any], others: Iterable[OtherTemplate], indices: Sequence[str]
) -> Iterator[tuple[OtherTemplate, str, bool]]:
    """Others that hold for names that ours holds for: a name, and whether it is there."""
    ours = template["index_patterns"]
    covered = [name for name in indices if any(holds(pattern, name) for pattern in ours)]
    for other in others:
        there = next((name for name in covered if other.takes(name)), None)
        if there is not None:
            yield other, there, True
            continue
        made_up = (common_name(one, theirs) for theirs in other.patterns for one in ours)
        name = next((each for each in made_up if each is not None), None)
        if name is not None:
            yield other, name, False


def _fields_of(schema: Schema) -> dict[str, Any]:
    """How the fields of a shape are mapped. Where there are several shapes, one index has only one
    of them, and OpenSearch maps what it meets."""
    if len(schema.shapes) > 1:
        return {}
    shape = schema.first
    number = {shape.number_field: {"type": "long"}} if shape.number_field else {}
    log_id = {"log_id": {"type": "keyword"}} if shape.plain_text else {}
    return {
        shape.level_field: {"type": "keyword"},
        **number,
        **{name: {"type": "text"} for name in shape.text_fields},
        shape.timestamp_field: {"type": "date"},
        **{name: {"type": "keyword"} for name in (*shape.service_fields, *shape.trace_fields)},
        **log_id,
    }

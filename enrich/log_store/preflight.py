"""Whether an index can take vectors, found out before a token is spent. Nothing is changed here.

Only indices with a backlog are looked at. What cannot be enriched is named with its reason and
what would change it; nothing here is guessed from an index's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from enrich.errors import AccessRefused
from enrich.log_store.cluster import (
    disks_of,
    heeds_watermarks,
    high_watermark,
    settings_of,
)
from enrich.log_store.connection import Connection
from enrich.log_store.mapping import limit_reached, missing_mapping, number, wrong_field
from enrich.log_store.odd_answers import translates_odd_answers
from enrich.log_store.paths import holds, in_path, parts
from enrich.log_store.refusals import RequestRefused, RightMissing
from enrich.models import stream_of
from enrich.schema import Schema
from enrich.settings import Settings, without_exclusions

APPEND_ONLY = "index.append_only.enabled is set: its logs can be added and never changed"

#: Hits that an index gives at once unless it is set to give fewer.
_WINDOW = 10_000


@dataclass(frozen=True, kw_only=True)
class Readiness:
    """What the preflight found."""

    #: Indices that cannot be enriched, and why.
    skipped: dict[str, str]
    #: Indices whose documents are written by `update`, because `index` would run a pipeline.
    update_only: list[str]
    #: Indices whose mapping lacks fields of ours, and which.
    lacking: dict[str, list[str]]
    #: Indices that map no field of the text which could hold one.
    textless: frozenset[str] = frozenset()
    #: Indices that give fewer hits at once than others (index.max_result_window), and how many.
    windows: dict[str, int] = field(default_factory=dict)

    def completed(self, failed: Mapping[str, str]) -> Readiness:
        """The same once the fields are put, except for indices that did not take them."""
        return replace(self, skipped={**self.skipped, **failed}, lacking={})


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """OpenSearch's data nodes, as far as OPENSEARCH_USER may see them."""

    #: How many there are; 1 where that cannot be seen.
    data: int
    #: Why no vector should be written anywhere: a disk above its high watermark; or "".
    blocker: str


@translates_odd_answers
class Preflight:
    """Looks at mappings, settings and disks."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._connection = connection
        self._dimensions = settings.embedding_dimensions
        self._patterns = without_exclusions(settings.enrich_index_pattern)
        self._schema = settings.log_schema

    def inspect(self, indices: Sequence[str]) -> Readiness:
        """Look at indices."""
        skipped: dict[str, str] = {}
        update_only: list[str] = []
        lacking: dict[str, list[str]] = {}
        textless: set[str] = set()
        windows: dict[str, int] = {}
        for names in parts([name for name in indices if not self._named(name)]):
            skipped |= self._filtered(names)
        for names in parts([name for name in indices if name not in skipped]):
            for name, (mapping, settings) in self._described(names, skipped).items():
                reason = blocker(mapping, settings, self._dimensions)
                reason = reason or nested_level(mapping, self._schema)
                if reason := reason or text_aliases(mapping, self._schema):
                    skipped[name] = reason
                    continue
                if missing := missing_mapping(mapping, self._dimensions):
                    lacking[name] = sorted(missing)
                if settings.get("index.final_pipeline", "_none") != "_none":
                    update_only.append(name)
                if not any(_may_hold_text(mapping, n) for n in self._schema.text_fields):
                    textless.add(name)
                if (window := number(settings, "index.max_result_window", _WINDOW)) < _WINDOW:
                    windows[name] = window
        return Readiness(
            skipped=skipped,
            update_only=sorted(update_only),
            lacking=lacking,
            textless=frozenset(textless),
            windows=windows,
        )

    def _named(self, index: str) -> bool:
        """Whether a pattern names the index itself, or the data stream before it."""
        names = (index, stream_of(index))
        return any(holds(pattern, name) for pattern in self._patterns for name in names)

    def _filtered(self, names: list[str]) -> dict[str, str]:
        """Those of the indices that are found through an alias with a filter: a log is read and
        written by its index' own name, where no filter holds."""
        try:
            answer = self._connection.ask(
                dict[str, dict[str, dict[str, Any]]],
                "GET",
                f"/{in_path(*names)}/_alias",
                params={"ignore_unavailable": "true"},
            )
        except AccessRefused:
            return dict.fromkeys(
                names,
                "it is found through an alias, and whether that has a filter cannot be seen: give "
                "OPENSEARCH_USER the right indices:admin/aliases/get, or name the index itself in "
                "ENRICH_INDEX_PATTERN",
            )
        skipped = {}
        for name, described in answer.items():
            filters = {
                alias: "filter" in how
                for alias, how in described.get("aliases", {}).items()
                if any(holds(pattern, alias) for pattern in self._patterns)
            }
            if filters and all(filters.values()):
                skipped[name] = (
                    f"it is found through {min(filters)}, an alias with a filter, which would not "
                    "hold for what is read and written: name the index itself in "
                    "ENRICH_INDEX_PATTERN"
                )
        return skipped

    def _described(
        self, names: list[str], skipped: dict[str, str]
    ) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
        """Mapping and settings by index; those that may not be seen go to `skipped`."""
        path = in_path(*names)
        lenient = {"ignore_unavailable": "true"}
        try:
            mappings = self._connection.ask(
                dict[str, Any], "GET", f"/{path}/_mapping", params=lenient
            )
            settings = self._connection.ask(
                dict[str, Any],
                "GET",
                f"/{path}/_settings",
                params={"flat_settings": "true", **lenient},
            )
        except RequestRefused as error:
            # One that is blocked is enough for all to be refused.
            if error.error_type != "cluster_block_exception":
                raise
            if len(names) == 1:
                skipped[names[0]] = "index.blocks.metadata is set: its mapping cannot be seen"
                return {}
            middle = len(names) // 2
            return {
                **self._described(names[:middle], skipped),
                **self._described(names[middle:], skipped),
            }
        return {
            name: (mappings[name]["mappings"], settings[name]["settings"])
            for name in names
            if name in mappings and name in settings
        }

    def nodes(self) -> Nodes:
        """Count the data nodes and look at their disks, as far as that may be seen."""
        try:
            return self.seen_nodes()
        except RightMissing:
            # Without the right to look, OpenSearch's own block is met item by item instead.
            return Nodes(data=1, blocker="")

    def seen_nodes(self) -> Nodes:
        """As `nodes`. Raises RightMissing where they may not be seen."""
        settings = settings_of(self._connection)
        disks = disks_of(self._connection)
        watermark = high_watermark(settings)
        full = any(above_watermark(watermark, total, available) for total, available in disks)
        heeded = heeds_watermarks(settings)
        blocker = (
            f"a disk of OpenSearch is above its high watermark ({watermark}): "
            "vectors would push it into flood stage; free or add disk"
        )
        return Nodes(data=max(1, len(disks)), blocker=blocker if full and heeded else "")


def blocker(mapping: dict[str, Any], settings: dict[str, Any], dimensions: int) -> str:
    """Why an index cannot take vectors without harm, or "". Pure."""
    source = mapping.get("_source", {})
    if str(source.get("enabled", True)).lower() == "false":
        return "its mapping has _source disabled: a document could not be written back whole"
    if source.get("excludes") or source.get("includes"):
        return (
            "its mapping leaves fields out of _source: writing a document back would lose them; "
            "reindex without _source excludes/includes"
        )
    if _is_true(settings, "index.derived_source.enabled"):
        return "index.derived_source.enabled is set: log_vector cannot be added to such an index"
    if _is_true(settings, "index.append_only.enabled"):
        return APPEND_ONLY
    if number(settings, "index.max_script_fields", 32) < 1:
        return "index.max_script_fields is 0, and finding its logs takes 1: raise it"
    for block in ("read_only", "read_only_allow_delete", "write"):
        if _is_true(settings, f"index.blocks.{block}"):
            return f"index.blocks.{block} is set: it takes no writes until that is removed"
    if settings.get("index.store.type") == "remote_snapshot":
        return "it is a searchable snapshot, which takes no writes: restore it as an index"
    if not _is_true(settings, "index.knn"):
        return (
            "index.knn is not set, and cannot be on an open index: create its next month from "
            "`python -m enrich template --apply`, or make it anew by `python -m enrich reindex`"
        )
    return wrong_field(mapping.get("properties", {}), dimensions) or limit_reached(
        mapping, settings, dimensions
    )


def text_aliases(mapping: dict[str, Any], schema: Schema) -> str:
    """Why no log of an index can have a text, where all of its fields are aliases; or "". Pure."""
    if schema.is_plain:
        return ""
    mapped = {name: mapped_as(mapping, name) for name in schema.text_fields}
    there = {name: how for name, how in mapped.items() if how is not None}
    aliases = {n: str(how.get("path", "")) for n, how in there.items() if how["type"] == "alias"}
    if not aliases or len(aliases) < len(there):
        return ""
    name, path = next(iter(aliases.items()))
    return (
        f"{name} is an alias of {path} there, and texts are read from the stored logs, which do "
        f"not have it: set ENRICH_TEXT_FIELDS={path}"
    )


def nested_level(mapping: dict[str, Any], schema: Schema) -> str:
    """Why no log of an index is found, where each level that it maps is inside a nested object; or
    "". Pure. OpenSearch keeps such objects as documents of their own, into which no plain query
    looks."""
    there = [name for name in schema.level_fields if mapped_as(mapping, name) is not None]
    nested = {name: path for name in there if (path := _nested_above(mapping, name))}
    if not nested or len(nested) < len(there):
        return ""
    name, path = next(iter(nested.items()))
    return (
        f"{name} is inside {path}, which is mapped as nested, so that no search for a level finds "
        f"it: map {path} as object, or give it include_in_root, and make the index anew"
    )


def _nested_above(mapping: dict[str, Any], name: str) -> str:
    """The nested object that a field is hidden in, or ""."""
    known = mapping.get("properties", {})
    parts = name.split(".")
    for n, part in enumerate(parts[:-1], start=1):
        how = known.get(part, {})
        if how.get("type") == "nested" and not _is_true(how, "include_in_root"):
            return ".".join(parts[:n])
        known = how.get("properties", {})
    return ""


def mapped_as(mapping: dict[str, Any], name: str) -> dict[str, Any] | None:
    """How a field is mapped: with a `type`, also where that is what a mapping leaves unsaid; as
    flat_object where it is a part of one; None where it is not mapped. Pure."""
    known = mapping.get("properties", {})
    how: dict[str, Any] | None = None
    for part in name.split("."):
        if how is not None and how.get("type") == "flat_object":
            return {"type": "flat_object"}
        how = known.get(part)
        if how is None:
            return None
        known = how.get("properties", {})
    return None if how is None else {"type": "object", **how}


def _may_hold_text(mapping: dict[str, Any], name: str) -> bool:
    """Whether a field is mapped as something that can be a text in the source."""
    how = mapped_as(mapping, name)
    if how is None or "properties" in how:
        return False
    # A part of a flat_object may be anything, the whole of one is an object.
    whole = mapping.get("properties", {}).get(name) is not None
    return how["type"] not in ("object", "nested") and not (how["type"] == "flat_object" and whole)


def _is_true(settings: dict[str, Any], name: str) -> bool:
    return str(settings.get(name, "false")).lower() == "true"


_UNITS = {"b": 1, "kb": 2**10, "mb": 2**20, "gb": 2**30, "tb": 2**40, "pb": 2**50}


def above_watermark(watermark: str, total: int, available: int) -> bool:
    """Whether a disk is past a watermark: "90%" or "0.9" of use, or bytes that must stay free."""
    mark = watermark.strip().lower()
    if mark.endswith("%") or mark.replace(".", "", 1).isdigit():
        share = float(mark.rstrip("%")) / (100 if mark.endswith("%") else 1)
        return total > 0 and (total - available) / total >= share
    for unit in sorted(_UNITS, key=len, reverse=True):
        if mark.endswith(unit):
            return available <= float(mark[: -len(unit)]) * _UNITS[unit]
    return False

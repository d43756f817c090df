"""What the copy of an index will be: its name, settings and mapping, and what forbids it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from enrich.errors import EnrichError
from enrich.log_store.mapping import FIELD_TYPES, index_mapping, limit_reached, wrong_field
from enrich.log_store.preflight import blocker
from enrich.models import COPY_MARK, project_of

#: Where the copy's mapping says what it is the copy of, and how far it is.
NOTE = "enrich_reindex"

#: Settings that OpenSearch gives by itself, or that say where an index came from.
_GIVEN = (
    "index.uuid", "index.creation_date", "index.version.", "index.provided_name", "index.resize.",
    "index.shrink.", "index.routing.allocation.initial_recovery.", "index.history.",
    "index.verified_before_close", "index.remote_store.", "index.blocks.", "index.hidden",
    "index.knn", "index.replication.",
)  # fmt: skip

#: Settings under which no vector could be added.
_IN_THE_WAY = ("index.append_only.enabled", "index.derived_source.enabled")

#: Settings that wait until all is copied: what they do would be done twice, or for nothing.
_LATER = {
    "index.number_of_replicas": "0",
    "index.refresh_interval": "-1",
    "index.default_pipeline": "_none",
    "index.final_pipeline": "_none",
    "index.search.default_pipeline": "_none",
    "index.auto_expand_replicas": "false",
}


class Refused(EnrichError):
    """An index cannot be replaced; nothing was changed unless the sentence says so."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """An index as it is."""

    name: str
    settings: Mapping[str, str]
    mapping: Mapping[str, Any]
    #: Its aliases, with filter, routing and the like.
    aliases: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    #: Those of its aliases that logs can be written by.
    writable: Sequence[str] = ()

    @property
    def uuid(self) -> str:
        return str(self.settings.get("index.uuid", ""))

    @property
    def shards(self) -> int:
        return int(self.settings.get("index.number_of_shards", 1))

    @property
    def takes_no_writes(self) -> bool:
        return _is_true(self.settings, "index.blocks.write")


def copy_name(index: str) -> str:
    """The name of an index's copy: of the same project, and one that a rollover can count on."""
    numbered = re.fullmatch(r"(.+)(-\d{6,})", index)
    if numbered:
        return f"{numbered[1]}{COPY_MARK}{numbered[2]}"
    return index + COPY_MARK


def refusal(source: Source, dimensions: int) -> str:
    """Why an index is not copied, or "". It is open, and stands behind no data stream."""
    for block in ("read_only", "read_only_allow_delete", "read", "metadata"):
        if _is_true(source.settings, f"index.blocks.{block}"):
            return f"index.blocks.{block} is set: remove that first"
    if source.settings.get("index.store.type") == "remote_snapshot":
        return "it is a searchable snapshot: restore it as an index first"
    made = body(source, dimensions, {})
    settings = {name: str(value).lower() for name, value in made["settings"].items()}
    if why := limit_reached(dict(source.mapping), settings, dimensions):
        return why
    if why := blocker(made["mappings"], settings, dimensions):
        return f"its copy would take no vectors either: {why}"
    return ""


def is_fit(source: Source, dimensions: int) -> bool:
    """Whether an index takes vectors as it is."""
    return not blocker(dict(source.mapping), dict(source.settings), dimensions)


def name_refusal(source: str, target: str) -> str:
    """Why a copy may not have a name, or ""."""
    if target == source:
        return "the copy needs another name"
    if project_of(target) != project_of(source):
        return (
            f"{target} would belong to another project ({project_of(target)}, not "
            f"{project_of(source)}): leave out --to, or keep the month at its end"
        )
    return ""


def drops_vectors(source: Source, dimensions: int) -> bool:
    """Whether what earlier runs wrote is left behind, because the copy maps it otherwise."""
    properties = source.mapping.get("properties", {})
    vector = properties.get("log_vector", {})
    same_length = vector.get("type") == "knn_vector" and vector.get("dimension") == dimensions
    return bool(wrong_field(properties, dimensions)) or (
        "log_vector" in properties and not same_length
    )


def body(source: Source, dimensions: int, note: Mapping[str, Any]) -> dict[str, Any]:
    """What the copy is created with."""
    kept = {
        name: value
        for name, value in source.settings.items()
        if not name.startswith(_GIVEN) and name not in _IN_THE_WAY
    }
    mapping = dict(source.mapping)
    properties = {
        name: how
        for name, how in mapping.get("properties", {}).items()
        if name != "log_vector" and not (name in FIELD_TYPES and drops_vectors(source, dimensions))
    }
    wanted = {n: how for n, how in index_mapping(dimensions).items() if n not in properties}
    mapping["properties"] = {**properties, **wanted}
    mapping["_meta"] = {**mapping.get("_meta", {}), **({NOTE: dict(note)} if note else {})}
    return {
        # Hidden: whoever searches by a pattern would see each log twice.
        "settings": {**kept, **first_settings(source), "index.knn": True, "index.hidden": True},
        "mappings": mapping,
    }


def first_settings(source: Source) -> dict[str, Any]:
    """What is set on the copy until all is in it."""
    return {n: value for n, value in _LATER.items() if n in source.settings or value == "0"}


def last_settings(source: Source) -> dict[str, Any]:
    """What is set on the copy once all is in it."""
    return {
        **{name: source.settings.get(name) for name in _LATER},
        "index.hidden": None,
    }


def swap(source: Source, target: str, *, remove_old: bool) -> list[dict[str, Any]]:
    """The actions that put the copy in the index's place, all at once."""
    actions: list[dict[str, Any]] = []
    for alias, how in source.aliases.items():
        if not remove_old:
            actions.append({"remove": {"index": source.name, "alias": alias}})
        actions.append({"add": {**how, "index": target, "alias": alias}})
    if remove_old:
        actions.append({"remove_index": {"index": source.name}})
        actions.append({"add": {"index": target, "alias": source.name, "is_write_index": True}})
    return actions


def _is_true(settings: Mapping[str, Any], name: str) -> bool:
    return str(settings.get(name, "false")).lower() == "true"

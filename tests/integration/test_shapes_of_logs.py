"""Logs of other shapes on a real OpenSearch: found, counted, and given the vector of their text.

One index for each way in which the fields of a shape are mapped, and one run over all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dev.embedding_model import Model
from enrich.log_store import index_template
from enrich.schema import LOGLENS
from enrich.text.extract import fingerprint
from tests.conftest import DIMENSIONS, Pipeline, Search
from tests.unit.test_schema import LOGS, dotted

Build = Callable[..., Pipeline]

#: How a level and a text may be mapped. A mapping of `None` leaves the field to OpenSearch.
KINDS: dict[str, tuple[dict[str, Any] | None, dict[str, Any] | None]] = {
    "keyword": ({"type": "keyword"}, {"type": "keyword"}),
    "text": ({"type": "text"}, {"type": "text"}),
    "match_only_text": ({"type": "match_only_text"}, {"type": "match_only_text"}),
    "wildcard": ({"type": "wildcard"}, {"type": "wildcard"}),
    "dynamic": (None, None),
    "not_indexed": ({"type": "keyword"}, {"type": "keyword", "index": False, "doc_values": False}),
    "flat_object": ({"type": "flat_object"}, {"type": "text"}),
    "alias": ({"type": "alias", "path": "stored_level"}, {"type": "text"}),
    "derived": (
        {"type": "keyword", "script": {"source": "emit(doc['stored_level'].value)"}},
        {"type": "text"},
    ),
}

TEXT = "no stock for this cart"


def create(search: Search, index: str, name: str, kind: str, fields: tuple[str, str]) -> None:
    """An index of a shape, whose level and text are mapped as the kind says."""
    level_field, text_field = fields
    level, text = KINDS[kind]
    template = index_template(DIMENSIONS, [index])["template"]
    known = template["mappings"]["properties"].items()
    properties = {n: m for n, m in known if n.startswith("ai_") or n == "log_vector"}
    mappings: dict[str, Any] = {"properties": properties}
    if kind == "flat_object":
        properties[level_field.partition(".")[0]] = level
    elif kind == "derived":
        mappings["derived"] = {level_field: level}
    elif level is not None:
        properties[level_field] = level
    if kind in ("alias", "derived"):
        properties["stored_level"] = {"type": "keyword"}
    if text is not None:
        properties[text_field] = text
    properties["@timestamp"] = {"type": "date"}
    search.create(index, settings=template["settings"], mappings=mappings)


def logs_of(name: str, kind: str, level_field: str) -> list[dict[str, Any]]:
    """Three that are wanted, in two texts and two forms, and one that is not."""
    found = []
    for n, (level, text) in enumerate(
        [("error", TEXT), ("Error", TEXT), ("ERROR", f"{TEXT}: {kind}"), ("info", "all is well")]
    ):
        flat = dotted(LOGS[name])
        for field in [f for f in flat if f.endswith(("umber", "imestamp", "time"))]:
            del flat[field]
        flat[next(f for f in ("log", "body", "message") if f in flat)] = text
        flat["@timestamp"] = f"2026-11-28T10:00:0{n}Z"
        flat.pop(level_field)
        field = "stored_level" if kind in ("alias", "derived") else level_field
        found.append(
            {**flat, field: level}
            if n % 2 and kind != "flat_object"
            else {**nested(flat), **nested({field: level})}
        )
    return found


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """The same document with objects in place of the dots."""
    document: dict[str, Any] = {}
    for name, value in flat.items():
        *above, last = name.split(".")
        inside = document
        for part in above:
            inside = inside.setdefault(part, {})
        inside[last] = value
    return document


@pytest.mark.parametrize("name", [n for n in LOGS if n != LOGLENS.first.name])
def test_each_shape_is_found_however_it_is_mapped(
    pipeline: Build, search: Search, model: Model, name: str
) -> None:
    built = pipeline(enrich_schema=name)
    shape = built.settings.log_schema.first
    fields = shape.level_field, shape.text_fields[0]
    kinds = [
        kind
        for kind in KINDS
        # A flat_object has its parts below it, and a derived field no dot in its name.
        if {"flat_object": "." in fields[0], "derived": "." not in fields[0]}.get(kind, True)
    ]
    for kind in kinds:
        index = f"{kind}_2026_11"
        create(search, index, name, kind, fields)
        search.index(index, logs_of(name, kind, fields[0]))
    counts = built.store.backlog.count().counts
    assert counts == {f"{kind}_2026_11": 3 for kind in kinds}
    record = built.run()
    assert (record.found, record.failed, record.deferred) == (3 * len(kinds), 0, 0)
    # One for the text that all have, one for each kind's own.
    assert record.embedded == len(kinds) + 1 - record.cached - record.reused
    for kind in kinds:
        sources = search.sources(f"{kind}_2026_11")
        texts = [TEXT, TEXT, f"{TEXT}: {kind}"]
        for n, text in enumerate(texts):
            source = sources[f"{kind}_2026_11-{n}"]
            assert source["ai_text_sha256"] == fingerprint(text)
            (right,) = model.embed([text])
            assert np.allclose(source["log_vector"], right, atol=1e-6)
        assert "log_vector" not in sources[f"{kind}_2026_11-3"]
    # Nothing is left, and what is told of it agrees.
    assert built.store.backlog.count().counts == {}
    counted = built.store.stats.counts()
    assert {sum(c.values()) for c in counted.by_index.values()} == {3}
    (first, *_) = built.store.stats.nearest(model.embed([TEXT])[0].tolist(), 3, None).value
    assert first["cosine"] == pytest.approx(1, abs=1e-3)
    assert (first["message"], first["service_name"], first["trace_id"]) == (TEXT, "cart", "t1")

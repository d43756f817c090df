"""What the copy of an index will be, and what forbids it."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from enrich.cli.reindex import progress_lines
from enrich.log_store.mapping import index_mapping
from enrich.log_store.preflight import blocker
from enrich.models import project_of
from enrich.reindexing.indices import disk_refusal
from enrich.reindexing.plan import (
    NOTE,
    Source,
    body,
    copy_name,
    drops_vectors,
    is_fit,
    last_settings,
    name_refusal,
    refusal,
    swap,
)
from enrich.reindexing.progress import Progress


def source(mapping: dict[str, Any] | None = None, **settings: str) -> Source:
    given = {
        "index.uuid": "u",
        "index.creation_date": "1",
        "index.version.created": "136",
        "index.provided_name": "shop_2026_11",
        "index.number_of_shards": "3",
    }
    named = {f"index.{name.replace('__', '.')}": value for name, value in settings.items()}
    return Source(
        name="shop_2026_11",
        settings=given | named,
        mapping=mapping or {"properties": {"level": {"type": "keyword"}}},
    )


@pytest.mark.parametrize(
    ("index", "copy"),
    [
        ("shop_2026_11", "shop_2026_11-enrich-knn"),
        ("app-2026.11.28", "app-2026.11.28-enrich-knn"),
        ("logs-000001", "logs-enrich-knn-000001"),
        ("shop_logs", "shop_logs-enrich-knn"),
    ],
)
def test_a_copy_is_of_the_same_project(index: str, copy: str) -> None:
    assert copy_name(index) == copy
    assert project_of(copy) == project_of(index)
    assert name_refusal(index, copy) == ""


@pytest.mark.parametrize("target", ["shop_2026_11", "other_2026_11", "shop_knn_2026_11"])
def test_names_that_a_copy_may_not_have(target: str) -> None:
    assert name_refusal("shop_2026_11", target)


def test_the_copy_has_what_the_index_has_and_what_a_vector_needs() -> None:
    old = source(
        {"dynamic": "strict", "_meta": {"a": 1}, "properties": {"level": {"type": "keyword"}}},
        number_of_replicas="2",
        refresh_interval="30s",
        default_pipeline="mine",
        analysis__analyzer__x__type="standard",
        blocks__write="true",
        resize__source__name="x",
        append_only__enabled="true",
    )
    made = body(old, 4, {"of": old.name})
    assert made["settings"] == {
        "index.number_of_shards": "3",
        "index.number_of_replicas": "0",
        "index.refresh_interval": "-1",
        "index.default_pipeline": "_none",
        "index.analysis.analyzer.x.type": "standard",
        "index.knn": True,
        "index.hidden": True,
    }
    assert made["mappings"]["dynamic"] == "strict"
    assert made["mappings"]["_meta"] == {"a": 1, NOTE: {"of": old.name}}
    flat = {name: str(value).lower() for name, value in made["settings"].items()}
    assert blocker(made["mappings"], flat, 4) == ""
    assert last_settings(old) == {
        "index.number_of_replicas": "2",
        "index.refresh_interval": "30s",
        "index.default_pipeline": "mine",
        "index.final_pipeline": None,
        "index.search.default_pipeline": None,
        "index.auto_expand_replicas": None,
        "index.hidden": None,
    }


@pytest.mark.parametrize(
    ("vector", "dropped"),
    [
        (None, False),
        ({"type": "knn_vector", "dimension": 4}, False),
        ({"type": "knn_vector", "dimension": 8}, True),
        ({"type": "float"}, True),
    ],
)
def test_vectors_that_fit_come_along(vector: dict[str, Any] | None, dropped: bool) -> None:
    old = source({"properties": {"log_vector": vector}} if vector else None)
    assert drops_vectors(old, 4) is dropped
    mapped = body(old, 4, {})["mappings"]["properties"]["log_vector"]
    assert (mapped["dimension"], mapped["method"]["engine"]) == (4, "lucene")


def test_fields_of_ours_are_mapped_as_before_or_anew() -> None:
    """As before where a vector fits there, anew where one is mapped otherwise; others stay."""
    own = {"type": "keyword", "doc_values": False}
    other = {"type": "keyword", "ignore_above": 9}
    fit = source({"properties": {"ai_text_sha256": own, "x": other}})
    assert body(fit, 4, {})["mappings"]["properties"].items() >= {
        "ai_text_sha256": own, "x": other,
    }.items()  # fmt: skip
    narrow = source(
        {"properties": {"ai_text_sha256": own, "x": other, "log_vector": {"type": "x"}}}
    )
    made = body(narrow, 4, {})["mappings"]["properties"]
    assert made["ai_text_sha256"] == index_mapping(4)["ai_text_sha256"] != own
    assert made["x"] == other and made["log_vector"]["type"] == "knn_vector"


def test_an_index_says_what_it_is() -> None:
    assert (source().uuid, source().shards, source().takes_no_writes) == ("u", 3, False)
    assert source(blocks__write="true").takes_no_writes
    assert not is_fit(source(), 4)
    assert is_fit(source(knn="true"), 4)
    assert not is_fit(source({"properties": {"log_vector": {"type": "float"}}}, knn="true"), 4)


@pytest.mark.parametrize(
    ("old", "words"),
    [
        (source(), ""),
        (source(blocks__write="true"), ""),
        (source(append_only__enabled="true"), ""),
        (source(blocks__read_only="true"), "index.blocks.read_only is set"),
        (source(blocks__read_only_allow_delete="true"), "remove that first"),
        (source(store__type="remote_snapshot"), "searchable snapshot"),
        (source({"_source": {"enabled": False}}), "_source disabled"),
        (source(mapping__total_fields__limit="3"), "index.mapping.total_fields.limit"),
    ],
)
def test_indices_that_are_not_copied(old: Source, words: str) -> None:
    why = refusal(old, 4)
    assert (words in why) if words else why == ""


def test_aliases_move_in_one_request() -> None:
    old = Source(
        name="a_b", settings={}, mapping={}, aliases={"all": {"filter": {"match_all": {}}}, "w": {}}
    )
    kept = swap(old, "new", remove_old=False)
    assert {"remove": {"index": "a_b", "alias": "all"}} in kept
    assert {"add": {"index": "new", "alias": "all", "filter": {"match_all": {}}}} in kept
    assert not any("remove_index" in action for action in kept)
    gone = swap(old, "new", remove_old=True)
    assert {"remove_index": {"index": "a_b"}} in gone
    assert {"add": {"index": "new", "alias": "a_b", "is_write_index": True}} in gone


@pytest.mark.parametrize(
    ("disks", "size", "copies", "fits"),
    [
        ([(1000, 500)], 300, 1, True),
        ([(1000, 500)], 450, 1, False),
        ([(1000, 500), (1000, 110)], 300, 1, True),
        ([(1000, 500), (1000, 110)], 300, 2, False),
        # A replica that no node can hold takes no room.
        ([(1000, 500)], 300, 2, True),
    ],
)
def test_room_on_disks(disks: list[tuple[int, int]], size: int, copies: int, fits: bool) -> None:
    assert (disk_refusal(disks, "90%", size, copies) == "") is fits


def test_a_line_with_the_rate_after_two_seconds_and_then_every_five() -> None:
    now = 0.0
    console = Console(record=True, width=200, file=None, quiet=False)
    with console.capture() as captured:
        show = progress_lines(console, lambda: now)
        for second in range(10):
            now = float(second)
            show(Progress(what="copying", done=second * 100, total=2000))
    lines = captured.get().split("\n")[:-1]
    assert len(lines) == 2
    assert "copying: 200 of 2,000 logs, 100/s, 18 s left" in lines[0]
    assert "700 of 2,000" in lines[1]

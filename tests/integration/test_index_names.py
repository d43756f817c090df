"""Names of indices that do not go into a request's path as they are: long, many, odd ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from dev.embedding_model import Model
from tests.conftest import Pipeline, Search
from tests.integration.test_cycle import assert_adds_up, assert_right_vectors, logs

Build = Callable[..., Pipeline]

#: OpenSearch takes 4,096 bytes of a path, and a letter beyond ASCII takes six.
LONG = [f"service-{n:02}-{'of-the-far-away-department-' * 6}_2026_11" for n in range(24)]
CYRILLIC = [f"журнал-оплаты-{n:02}-{'отдел-' * 10}_2026_11" for n in range(8)]


def test_long_names_and_letters_of_any_alphabet_are_enriched(
    pipeline: Build, search: Search, model: Model
) -> None:
    for name in (*LONG, *CYRILLIC):
        # Without the fields, so that each mapping has to be completed.
        search.create(
            name,
            settings={"index.knn": True},
            mappings={"properties": {"level": {"type": "keyword"}}},
        )
        search.index(name, logs(1, 1))
    one = pipeline()
    record = one.run()
    assert_adds_up(record)
    assert record.skipped_indices == {}
    assert record.vectors_written == 32
    for name in (*LONG, *CYRILLIC):
        assert_right_vectors(search, name, model)
    (text,) = one.store.stats.nearest(
        list(map(float, model.embed(["disk is full"])[0])), 40, None
    ).value
    assert set(text["indices"]) == {*LONG, *CYRILLIC}
    assert text["logs"] == 32


def test_a_percent_sign_does_not_make_it_another_index(
    pipeline: Build, search: Search, model: Model
) -> None:
    """Of `a%62_x` in a path OpenSearch would make `ab_x`, and tell that one's mapping."""
    odd, in_path, other = "a%62_2026_11", "a%2562_2026_11", "ab_2026_11"
    bare = {"properties": {"level": {"type": "keyword"}, "message": {"type": "text"}}}
    search.create(in_path, settings={"index.knn": True}, mappings=bare)
    try:
        search.create(other, mappings=bare)
        search.index(odd, logs(2, 1))
        before = search("GET", f"/{other}/_mapping")
        record = pipeline().run()
        assert_adds_up(record)
        assert (record.vectors_written, record.skipped_indices) == (2, {})
        assert assert_right_vectors(search, in_path, model) == 2
        mapped = search("GET", f"/{in_path}/_mapping")[odd]["mappings"]["properties"]
        assert mapped["log_vector"]["type"] == "knn_vector", "completed before it was written to"
        assert search("GET", f"/{other}/_mapping") == before
    finally:
        search("DELETE", f"/{in_path}")


def test_more_blocked_indices_than_a_request_can_leave_out_are_named_in_one_sentence(
    pipeline: Build, search: Search, model: Model
) -> None:
    for name in LONG:
        search.create(name)
        search("PUT", f"/{name}/_settings", {"index.blocks.read": True})
    search.create("a_b_2026_11")
    search.index("a_b_2026_11", logs(2, 1))
    try:
        record = pipeline().run()
        assert record.state == "halted"
        assert "use wildcards in ENRICH_INDEX_PATTERN and ENRICH_EXCLUDE_INDICES" in (
            record.halt_reason
        )
        record = pipeline(enrich_exclude_indices=("service-*",)).run()
        assert (record.state, record.vectors_written) == ("finished", 2)
    finally:
        for name in LONG:
            search("PUT", f"/{name}/_settings", {"index.blocks.read": None})
    assert_right_vectors(search, "a_b_2026_11", model)


# -- names to come


@pytest.mark.apart
def test_new_indices_of_any_series_are_given_what_they_need(search: Search, enrich: Any) -> None:
    """A rollover, days, an alias and a data stream, as the patterns find them."""
    search.create("shop_logs-000001", settings={"index.knn": True})
    search("PUT", "/shop_logs-000001/_alias/shop_write", {})
    search.create("shop_app-2026.11.28", settings={"index.knn": True})
    search.create("plain-000001", aliases={"current": {}}, settings={"index.knn": True})
    own = {"ENRICH_INDEX_PATTERN": "*_*,-.*,current,.ds-pay_*", "ENRICH_SCHEMA": "ecs"}
    checked = enrich("check", **own).stdout
    for name in ("plain-000002", "shop_app-2026.11.29", "shop_logs-000002"):
        assert re.search(rf"! next: .*{name}.* stays out, since index.knn is not set", checked)
    told = enrich("template", "--apply", **own)
    assert told.returncode == 0, told.stderr
    assert "stays out" not in told.stdout and "stay out whose names begin with a dot" in told.stdout
    assert "✓ next: plain-000002, shop_app-2026.11.29, shop_logs-000002 will have" in told.stdout
    search("PUT", "/_data_stream/pay_core")
    search("POST", "/shop_write/_rollover")
    search("PUT", "/shop_app-2026.11.29")
    search("PUT", "/plain-000002")
    search("PUT", "/.hidden_1")
    try:
        made = search("GET", "/*/_settings?expand_wildcards=all&flat_settings=true")
        knn = {name for name, of in made.items() if of["settings"].get("index.knn") == "true"}
        assert {"shop_logs-000002", "shop_app-2026.11.29", "plain-000002"} <= knn
        assert ".ds-pay_core-000001" in knn and ".hidden_1" not in knn
        assert "next: pay_core will have index.knn, and log_vector" in enrich("check", **own).stdout
        # A template of more weight, which has not what is needed.
        search("PUT", "/_index_template/theirs", {"index_patterns": ["shop_*"], "priority": 50})
        checked = enrich("check", **own).stdout
        assert re.search(r"! next: shop_app-2026.11.30.*the template theirs holds for", checked)
        told = enrich("template", "--apply", **own)
        assert told.returncode == 0
        assert "shop_logs-000003 stays out, since index.knn is not set: the template theirs" in (
            told.stdout
        )
    finally:
        search("DELETE", "/_data_stream/pay_core")
        search("DELETE", "/.hidden_1")


def test_names_that_are_streams_already_are_not_taken_from_them(
    search: Search, enrich: Any
) -> None:
    search("PUT", "/_index_template/theirs", {"index_patterns": ["acme_*"], "data_stream": {}})
    refused = enrich("template", "--apply")
    assert refused.returncode == 3
    assert "the template theirs makes data streams of names such as acme_" in refused.stderr
    assert search("GET", "/_index_template/enrich-logs", ok=False).get("status") == 404

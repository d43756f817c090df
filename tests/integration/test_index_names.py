"""Names of indices that do not go into a request's path as they are: long, many, odd ones."""

from __future__ import annotations

from collections.abc import Callable

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

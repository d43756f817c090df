"""Pages: whose turn it is, which logs travel together, and that nothing is read in vain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from enrich.backfill import schedule
from enrich.log_store import Finder, IndexPage, Target, index_template
from enrich.log_store.preflight import Nodes, Preflight
from enrich.wiring import build_store
from tests.conftest import DIMENSIONS, Pipeline, Search
from tests.integration.test_cycle import assert_adds_up, logs

Build = Callable[..., Pipeline]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many logs each round of searches brought, rounds being of forty logs at most."""
    monkeypatch.setattr(schedule, "ROUND_DOCUMENTS", 40)
    rounds: list[int] = []
    page = Finder.page

    def counted(
        self: Finder, targets: Sequence[Target], unsorted: frozenset[str]
    ) -> list[IndexPage]:
        pages = page(self, targets, unsorted)
        rounds.append(sum(len(one.hits) for one in pages))
        return pages

    monkeypatch.setattr(Finder, "page", counted)
    return rounds


def fill(search: Search, **owed: int) -> None:
    """Give each index so many logs of three texts."""
    for name, count in owed.items():
        search.create(name)
        search.index(name, logs(count, 3))


def indices_of_chunks(one: Pipeline) -> list[tuple[str, ...]]:
    """Which indices the logs of each chunk are in, as chunks are delivered."""
    seen: list[tuple[str, ...]] = []

    def watch(name: str, arguments: Any) -> None:
        if name == "embed_and_update":
            seen.append(tuple(sorted({reference[0] for reference in arguments[0]["references"]})))

    one.before = watch
    return seen


@pytest.mark.parametrize(("nodes", "abreast"), [(1, 1), (2, 2)])
def test_indices_keep_their_turn_for_some_pages_as_many_at_once_as_there_are_nodes(
    pipeline: Build,
    search: Search,
    monkeypatch: pytest.MonkeyPatch,
    nodes: int,
    abreast: int,
) -> None:
    names = [f"{project}_2026_11" for project in "abcd"]
    fill(search, **dict.fromkeys(names, 200))
    monkeypatch.setattr(Preflight, "nodes", lambda self: Nodes(data=nodes, blocker=""))
    one = pipeline(enrich_batch_size=5, enrich_max_chunks_in_flight=1)
    pages = indices_of_chunks(one)

    record = one.run()

    assert_adds_up(record)
    assert record.vectors_written == 800
    turns = [tuple(names[start : start + abreast]) for start in range(0, 4, abreast)]
    assert pages[:15] == [turn for turn in (turns * 5)[:5] for _ in range(3)]


def test_an_index_that_another_turn_brings_to_its_end_is_not_left_for_later(
    pipeline: Build, search: Search
) -> None:
    fill(search, a_2026_11=70, b_2026_11=200)
    one = pipeline(enrich_batch_size=5, enrich_max_chunks_in_flight=1)
    pages = indices_of_chunks(one)

    record = one.run()

    assert_adds_up(record)
    assert record.vectors_written == 270
    # Twenty logs a page; what the small one leaves of its last page goes to the other.
    assert pages[:4] == [("a_2026_11",)] * 3 + [("a_2026_11", "b_2026_11")]
    assert set(pages[4:]) == {("b_2026_11",)}


def test_more_logs_than_were_counted_are_found_and_go_behind_the_others(
    pipeline: Build, search: Search
) -> None:
    fill(search, a_2026_11=40, b_2026_11=100)
    one = pipeline(enrich_batch_size=5, enrich_max_chunks_in_flight=1)
    pages = indices_of_chunks(one)
    watch = one.before

    def arrive(name: str, arguments: Any) -> None:
        watch(name, arguments)
        if len(pages) == 1 and name == "embed_and_update":
            late = {"timestamp": "2001-01-01T00:00:00Z"}
            older = [{**log, **late, "_id": f"late{n}"} for n, log in enumerate(logs(50, 3))]
            search.index("a_2026_11", older)

    one.before = arrive
    record = one.run()

    assert_adds_up(record)
    assert record.vectors_written == 190
    assert pages[3:6] == [("b_2026_11",)] * 3


def test_small_indices_fill_a_page_together(pipeline: Build, search: Search) -> None:
    fill(search, **{f"p{n}_2026_11": 30 for n in range(12)})
    one = pipeline(enrich_batch_size=50, enrich_max_chunks_in_flight=1)

    record = one.run()

    assert_adds_up(record)
    assert record.vectors_written == 360
    # Three of up to 200 logs; an index at a time, it would be twelve more.
    assert record.chunks <= 4


def test_logs_of_several_rounds_travel_together(
    pipeline: Build, search: Search, read: list[int]
) -> None:
    search.create("a_2026_11")
    search.index("a_2026_11", logs(400, 60))

    record = pipeline().run()

    assert_adds_up(record)
    assert record.vectors_written == 400
    # Small ones first, so that workers begin at once; then three rounds a page.
    assert read == [10, 20, 40, *[40] * 8, 10]
    assert record.chunks == 6


def test_no_more_rounds_are_read_than_find_room(
    pipeline: Build, search: Search, read: list[int]
) -> None:
    search.create("a_2026_11")
    search.index("a_2026_11", logs(400, 400))

    # Eighty texts: a third round might not fit.
    record = pipeline(enrich_batch_size=20, enrich_max_chunks_in_flight=4).run()

    assert_adds_up(record)
    assert record.vectors_written == sum(read) == 400


def test_further_rounds_stay_with_the_indices_of_the_first(
    pipeline: Build, search: Search, read: list[int]
) -> None:
    fill(search, a_2026_11=80, b_2026_11=100, c_2026_11=200)
    one = pipeline()
    pages = indices_of_chunks(one)

    record = one.run()

    assert_adds_up(record)
    assert record.vectors_written == 380
    assert pages[:5] == [
        *[("a_2026_11",)] * 3,
        ("a_2026_11", "b_2026_11"),
        ("c_2026_11",),
    ]


def test_logs_of_one_time_on_several_shards_are_all_found_in_one_run(
    pipeline: Build, search: Search, read: list[int]
) -> None:
    name = "shop_web_2026_11"
    template = index_template(DIMENSIONS, [name])["template"]
    search("PUT", f"/{name}", {**template, "settings": {"index.knn": True, "number_of_shards": 3}})
    at_once = [{**log, "timestamp": "2026-11-20T10:00:00Z"} for log in logs(200, 3)]
    search.index(name, at_once)

    record = pipeline(enrich_batch_size=10, enrich_max_chunks_in_flight=1).run()

    assert (record.found, record.vectors_written) == (200, 200)
    assert len(read) > 4


def test_a_log_without_a_time_in_a_segment_of_newer_ones_is_found_behind_all_others(
    settings: Any, search: Search
) -> None:
    name = "shop_web_2026_11"
    search.create(name)
    every = [{**log, "timestamp": f"2026-11-20T10:{n:02}:00Z"} for n, log in enumerate(logs(60, 3))]
    timeless = {key: value for key, value in every[0].items() if key != "timestamp"}
    # A refresh between them: segments of their own.
    search.index(name, [*every[30:], timeless])
    search.index(name, [{**log, "_id": f"older-{n}"} for n, log in enumerate(every[:30])])
    finder = build_store(settings()).finder

    (first,) = finder.page([Target(name, None, 60)], frozenset())
    (rest,) = finder.page([Target(name, first.cursors[-1], 60)], frozenset())

    assert [hit.reference.id for hit in rest.hits] == [f"{name}-30"]

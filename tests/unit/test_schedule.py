"""Whose turn it is: every log is found once, and none waits longer than the turns before its own.

All in memory; tests/integration/test_paging.py has some of it on OpenSearch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from enrich.backfill import schedule
from enrich.backfill.schedule import Page, Pager, has_text
from enrich.errors import ServerUnavailable
from enrich.ledger import Scan
from enrich.log_store import IndexPage, Target
from enrich.log_store.in_memory import InMemoryLogStore
from enrich.log_store.preflight import Nodes
from enrich.settings import load_settings, rewrite_of
from tests.memory_pipeline import MemoryPipeline, assert_adds_up, logs


def settings_with(**values: Any) -> Any:
    return load_settings(_env_file=None, openai_api_key="k", **values)


@pytest.fixture
def rounds_of_forty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "ROUND_DOCUMENTS", 40)


class Desk:
    """A store and a pager that reads it page by page, without a ledger."""

    def __init__(self, **values: Any) -> None:
        self.settings = settings_with(**values)
        self.store = InMemoryLogStore(self.settings)
        #: Targets and number of hits of each round.
        self.rounds: list[tuple[list[Target], int]] = []
        self.pager = Pager(
            self,
            texts_a_chunk=self.settings.enrich_batch_size,
            rewrite=rewrite_of(self.settings),
        )
        self.slots, self.most = 100, float("inf")
        self.late: set[str] = set()
        self.refused: set[tuple[str, str]] = set()
        self.scan = Scan(pending=[], update_only=[], unsorted=[])

    def page(self, targets: Sequence[Target], unsorted: frozenset[str]) -> list[IndexPage]:
        """As the finder's; recorded."""
        pages = self.store.finder.page(targets, unsorted)
        self.rounds.append((list(targets), sum(len(one.hits) for one in pages)))
        return pages

    def fill(self, **pending: int) -> None:
        for index, count in pending.items():
            self.put(index, logs(count, 3))

    def put(self, index: str, some: Sequence[Any], name: str = "log", **how: Any) -> None:
        if index not in self.store.indices:
            self.store.create(index, **how)
        for n, source in enumerate(some):
            self.store.put(index, f"{name}{n}", source)
        self.store.documents.refresh([index])

    def survey(self, nodes: int = 1) -> None:
        """Begin a scan, as a run does."""
        backlog = self.store.backlog.count()
        indices = sorted(backlog.counts, key=lambda index: (backlog.counts[index], index))
        ready = self.store.preflight.inspect(indices)
        self.scan = Scan(
            pending=[(index, None) for index in indices],
            update_only=ready.update_only,
            unsorted=sorted(backlog.unsorted),
            nodes=nodes,
            left=dict(backlog.counts),
            windows=ready.windows,
        )

    def read(self, number: int) -> Page:
        page = self.pager.read(
            self.scan,
            number,
            slots=self.slots,
            most=self.most,
            refused=self.refused,
            late=self.late,
        )
        # As the ledger keeps it.
        self.scan = Scan.from_json(page.scan.to_json())
        return page

    def all(self) -> list[Page]:
        """All pages to the end."""
        pages: list[Page] = []
        while self.scan.pending:
            pages.append(self.read(len(pages) + 1))
            assert len(pages) < 1000
        return pages


def indices_of(page: Page) -> tuple[str, ...]:
    return tuple(sorted({found.reference.index for found in page.found}))


def places(pages: Sequence[Page]) -> Counter[tuple[str, str]]:
    """How often each log was found."""
    return Counter(
        (found.reference.index, found.reference.id) for page in pages for found in page.found
    )


# -- turns


@pytest.mark.parametrize(("nodes", "abreast"), [(1, 1), (2, 2)])
def test_indices_keep_their_turn_for_some_pages_as_many_at_once_as_there_are_nodes(
    nodes: int, abreast: int
) -> None:
    names = [f"{project}_2026_11" for project in "abcd"]
    desk = Desk(enrich_batch_size=5)
    desk.slots = 1
    desk.fill(**dict.fromkeys(names, 200))
    desk.survey(nodes)

    pages = desk.all()

    assert sum(places(pages).values()) == 800
    turns = [tuple(names[start : start + abreast]) for start in range(0, 4, abreast)]
    expected = [turn for turn in (turns * 5)[:5] for _ in range(3)]
    assert [indices_of(page) for page in pages[:15]] == expected


def test_more_indices_than_let_each_have_its_turn_soon_are_searched_abreast() -> None:
    # A turn is near when a twelfth of all indices share it.
    desk = Desk(enrich_batch_size=50)
    desk.slots = 3
    desk.fill(**{f"p{n:02}_2026_11": 400 for n in range(36)})
    desk.survey()
    desk.read(1)
    assert len(desk.rounds[0][0]) == 3
    assert [target.size for target in desk.rounds[0][0]] == [167, 167, 166]


def test_no_more_than_fifty_indices_share_a_round() -> None:
    desk = Desk()
    desk.fill(**{f"p{n:03}_2026_11": 2 for n in range(70)})
    desk.survey(nodes=60)
    desk.read(4)
    assert [len(targets) for targets, _ in desk.rounds] == [50]
    assert len(desk.scan.pending) == 20


def test_an_index_that_another_turn_brings_to_its_end_is_not_left_for_later() -> None:
    desk = Desk(enrich_batch_size=5)
    desk.slots = 1
    desk.fill(a_2026_11=70, b_2026_11=200)
    desk.survey()

    pages = [indices_of(page) for page in desk.all()]

    # Twenty logs a page; what the small one leaves of its last page goes to the other.
    assert pages[:4] == [("a_2026_11",)] * 3 + [("a_2026_11", "b_2026_11")]
    assert set(pages[4:]) == {("b_2026_11",)}


def test_more_logs_than_were_counted_are_found_and_go_behind_the_others() -> None:
    desk = Desk(enrich_batch_size=5)
    desk.slots = 1
    desk.fill(a_2026_11=40, b_2026_11=100)
    desk.survey()
    pages = [desk.read(1)]
    desk.put("a_2026_11", logs(50, 3, timestamp="2001-01-01T00:00:00Z"), "late")
    while desk.scan.pending:
        pages.append(desk.read(len(pages) + 1))

    assert sum(places(pages).values()) == 190
    assert [indices_of(page) for page in pages[3:6]] == [("b_2026_11",)] * 3


def test_small_indices_fill_a_page_together() -> None:
    desk = Desk(enrich_batch_size=50)
    desk.slots = 1
    desk.fill(**{f"p{n:02}_2026_11": 30 for n in range(12)})
    desk.survey()
    # Of up to 200 logs; an index at a time, it would be twelve pages.
    assert len(desk.all()) <= 4


# -- rounds


@pytest.mark.usefixtures("rounds_of_forty")
def test_logs_of_several_rounds_travel_together() -> None:
    desk = Desk(enrich_batch_size=100)
    desk.put("a_2026_11", logs(400, 60))
    desk.survey()

    pages = desk.all()

    assert sum(places(pages).values()) == 400
    # Small ones first, so that workers begin at once; then three rounds a page.
    assert [hits for _, hits in desk.rounds] == [10, 20, 40, *[40] * 8, 10]
    assert [len(page.chunks) for page in pages] == [1] * 6
    # One more than is left shows that none is, so that nothing is searched in vain.
    assert desk.rounds[-1][0][0].size == 11


@pytest.mark.usefixtures("rounds_of_forty")
def test_no_more_rounds_are_read_than_find_room() -> None:
    desk = Desk(enrich_batch_size=20)
    desk.slots = 4
    desk.put("a_2026_11", logs(400, 400))
    desk.survey()
    # Eighty texts: a third round might not fit.
    assert sum(places(desk.all()).values()) == sum(hits for _, hits in desk.rounds) == 400


@pytest.mark.usefixtures("rounds_of_forty")
def test_further_rounds_stay_with_the_indices_of_the_first() -> None:
    desk = Desk(enrich_batch_size=100)
    desk.fill(a_2026_11=80, b_2026_11=100, c_2026_11=200)
    desk.survey()
    assert [indices_of(page) for page in desk.all()][:5] == [
        *[("a_2026_11",)] * 3,
        ("a_2026_11", "b_2026_11"),
        ("c_2026_11",),
    ]


# -- bounds


def test_a_page_has_no_more_chunks_than_there_is_room_for() -> None:
    desk = Desk(enrich_batch_size=3)
    desk.slots = 2
    desk.put("a_2026_11", logs(50, 50))
    desk.survey()
    pages = desk.all()
    assert {len(page.chunks) for page in pages} <= {1, 2}
    assert set(places(pages).values()) == {1}
    assert len(places(pages)) == 50


def test_a_page_has_no_more_logs_than_it_may() -> None:
    desk = Desk()
    desk.fill(a_2026_11=50)
    desk.survey()
    desk.most = 7
    assert len(desk.read(1).found) == 7
    desk.most = 100
    assert len(desk.read(2).found) == 43
    assert desk.scan.pending == []


def test_an_index_gives_no_more_hits_at_once_than_its_window() -> None:
    desk = Desk()
    desk.put("a_2026_11", logs(25, 3), window=10)
    desk.survey()
    pages = desk.all()
    assert set(places(pages).values()) == {1}
    assert sum(places(pages).values()) == 25
    assert max(target.size for targets, _ in desk.rounds for target in targets) == 10


# -- what is passed over


def test_documents_that_cannot_be_marked_are_passed_over() -> None:
    desk = Desk()
    desk.fill(a_2026_11=5)
    desk.survey()
    desk.refused = {("a_2026_11", "log0"), ("a_2026_11", "log4"), ("b_2026_11", "log1")}
    pages = desk.all()
    assert set(places(pages)) == {("a_2026_11", f"log{n}") for n in (1, 2, 3)}


def test_pages_of_nothing_but_such_documents_come_to_an_end() -> None:
    desk = Desk()
    desk.fill(a_2026_11=30)
    desk.survey()
    desk.most = 4
    desk.refused = {("a_2026_11", f"log{n}") for n in range(30)}
    assert places(desk.all()) == Counter()


def test_an_index_that_cannot_be_searched_is_named_and_left_out() -> None:
    desk = Desk()
    desk.fill(a_2026_11=3, b_2026_11=3)
    desk.survey(nodes=2)
    desk.store.indices["a_2026_11"].unreadable = "shard_failure"
    page = desk.read(4)
    assert page.troubled == {"a_2026_11": "it cannot be searched (shard_failure)"}
    assert indices_of(page) == ("b_2026_11",)
    assert desk.scan.pending == []


def test_an_index_that_answers_too_late_stays_pending_and_is_given_up_the_second_time() -> None:
    desk = Desk()
    desk.fill(a_2026_11=3, b_2026_11=3)
    desk.survey(nodes=2)
    desk.store.indices["a_2026_11"].slow = True
    page = desk.read(4)
    assert (page.late, page.troubled) == ({"a_2026_11"}, {})
    assert indices_of(page) == ("b_2026_11",)
    assert desk.scan.pending == [("a_2026_11", None)]
    desk.late = {"a_2026_11"}
    page = desk.read(5)
    assert (page.late, page.troubled) == (set(), {"a_2026_11": "it answers too late"})
    assert desk.scan.pending == []


def test_an_index_that_was_deleted_is_over_and_no_trouble() -> None:
    desk = Desk()
    desk.fill(a_2026_11=3)
    desk.survey()
    del desk.store.indices["a_2026_11"]
    page = desk.read(1)
    assert (page.found, page.troubled, page.scan.pending) == ([], {}, [])


def test_a_server_that_is_away_leaves_the_scan_where_it_was() -> None:
    desk = Desk()
    desk.fill(a_2026_11=3)
    desk.survey()
    before = desk.scan

    def away(targets: Any, unsorted: Any) -> Any:
        raise ServerUnavailable("away")

    desk.page = away  # type: ignore[method-assign]
    with pytest.raises(ServerUnavailable):
        desk.read(1)
    assert desk.scan == before


# -- texts


def test_a_log_without_text_shares_it_with_no_other() -> None:
    desk = Desk()
    desk.put("a_2026_11", [{**log, "message": 7} for log in logs(3, 3)])
    desk.put("b_2026_11", [{**log, "message": "  "} for log in logs(2, 2)])
    desk.survey(nodes=2)
    found = desk.read(4).found
    assert len({one.fingerprint for one in found}) == len(found) == 5
    assert not any(map(has_text, found))


def test_texts_that_are_masked_alike_travel_together() -> None:
    one, other = (
        {**log, "message": f"mail to {name}@example.org failed"}
        for log, name in zip(logs(2, 2), ("ann", "bob"), strict=True)
    )
    for mask, texts in (((), 2), (("all",), 1)):
        desk = Desk(enrich_mask=mask)
        desk.put("a_2026_11", [one, other])
        desk.survey()
        found = desk.read(1).found
        assert len({each.fingerprint for each in found}) == texts
        assert all(map(has_text, found))


# -- any of it


#: Smaller worlds say no more, and are looked for for minutes.
NO_SHRINKING = [phase for phase in Phase if phase is not Phase.shrink]


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, Any]:
    index = st.fixed_dictionaries(
        {
            "pending": st.integers(0, 60),
            "texts": st.integers(1, 60),
            "done": st.integers(0, 8),
            "times": st.integers(1, 60),
            "window": st.sampled_from([3, 10, 10_000]),
            "sortable": st.booleans(),
        }
    )
    return {
        "indices": draw(st.lists(index, min_size=1, max_size=9)),
        "nodes": draw(st.integers(1, 4)),
        "batch": draw(st.integers(1, 20)),
        "refused": draw(st.sets(st.tuples(st.integers(0, 8), st.integers(0, 59)), max_size=5)),
        "rooms": draw(st.lists(st.integers(1, 6), min_size=1, max_size=6)),
        "most": draw(st.lists(st.sampled_from([1, 5, 40, 10**9]), min_size=1, max_size=3)),
        "arrivals": draw(st.lists(st.integers(0, 8), max_size=6)),
        "enriched": draw(st.booleans()),
    }


@settings(deadline=None, max_examples=25, derandomize=True, phases=NO_SHRINKING)
@given(worlds())
def test_every_log_is_found_once_and_no_index_waits_for_more_than_the_turns_before_its_own(
    world: dict[str, Any],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule, "ROUND_DOCUMENTS", 16)
        desk = Desk(enrich_batch_size=world["batch"])
        wanted: set[tuple[str, str]] = set()
        for n, how in enumerate(world["indices"]):
            name = f"p{n}_2026_11"
            desk.refused |= {(name, f"log{k}") for i, k in world["refused"] if i == n}
            some = logs(how["pending"], how["texts"])
            times = how["times"]
            some = [{**log, "timestamp": logs(times, 1)[k % times]["timestamp"]}
                    for k, log in enumerate(some)]  # fmt: skip
            desk.put(name, some, window=how["window"], sortable=how["sortable"])
            desk.put(name, logs(how["done"], 3, log_vector=[1.0]), "done")
            wanted |= {(name, f"log{k}") for k in range(len(some))}
        wanted -= desk.refused
        desk.survey(world["nodes"])
        pages: list[Page] = []
        #: Logs that others were given since each index was last served, and how many waited then.
        waited: Counter[str] = Counter()
        others = dict.fromkeys((index for index, _ in desk.scan.pending), len(desk.scan.pending))
        while desk.scan.pending:
            number = len(pages) + 1
            assert number < 3000
            desk.slots = world["rooms"][number % len(world["rooms"])]
            desk.most = world["most"][number % len(world["most"])]
            waiting = [index for index, _ in desk.scan.pending]
            page = desk.read(number)
            pages.append(page)
            assert len(page.chunks) <= desk.slots
            assert len(page.found) <= desk.most
            for chunk in page.chunks:
                assert len({found.fingerprint for found in chunk}) <= world["batch"]
            assert not places([page]).keys() & desk.refused
            # A turn takes as many logs as three rounds, and what its last page brings beyond.
            for index in indices_of(page):
                waited[index], others[index] = 0, len(waiting)
            for index in set(waiting).difference(indices_of(page)):
                waited[index] += len(page.found)
                assert waited[index] <= others[index] * 2 * 3 * 16
            if world["enriched"]:
                for found in page.found:
                    reference = found.reference
                    source = desk.store.indices[reference.index].logs[reference.id].source
                    desk.store.put(reference.index, reference.id, {**source, "log_vector": [1.0]})
            for n in world["arrivals"]:
                # Newer than all that are there: the next run's.
                if number <= 3 and f"p{n}_2026_11" in desk.store.indices:
                    new = {**logs(1, 1)[0], "timestamp": "2030-01-01T00:00:00Z"}
                    desk.put(f"p{n}_2026_11", [new], f"new{number}-")
            desk.store.documents.refresh(list(desk.store.indices))
        found = places(pages)
        assert max(found.values(), default=1) == 1
        assert wanted <= found.keys()


# -- a whole run


def test_a_run_reads_its_pages_to_the_end() -> None:
    one = MemoryPipeline(enrich_batch_size=5, enrich_max_chunks_in_flight=1)
    one.store.seen_nodes = Nodes(data=2, blocker="")
    one.fill(a_2026_11=70, b_2026_11=33, c_2026_11=5)

    record = one.run()

    assert_adds_up(record)
    assert record.vectors_written == one.vectorised() == 108
    assert record.api_inputs == 3

"""What a search left out: told from its answer, named, and said in one form."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from enrich.errors import TransientError
from enrich.log_store import LogStore
from enrich.log_store.connection import Connection, decode
from enrich.log_store.coverage import CLOSED, NO_SHARD, WHOLE, Gaps, gaps_of
from enrich.log_store.queries import HitsAnswer, Searched
from enrich.log_store.refusals import NoShardAnswers, RightMissing
from enrich.log_store.scope import _without, takes_in
from enrich.log_store.stats import Stats
from enrich.settings import load_settings

ALL = {"total": 2, "successful": 2, "skipped": 1, "failed": 0}
FAILED = {
    "total": 2,
    "successful": 1,
    "failed": 1,
    "failures": [{"index": "a_2026_01", "reason": {"type": "circuit_breaking_exception"}}],
}
SILENT = {"total": 2, "successful": 1, "failed": 0}
BREAKER = "it cannot be searched (circuit_breaking_exception)"


def body(shards: dict[str, Any], **more: Any) -> str:

    hits = {"total": {"value": 3}, "hits": []}
    return json.dumps({"_shards": shards, "hits": hits, "aggregations": {}, **more})


@pytest.mark.parametrize(
    ("answer", "red", "gaps", "sentence"),
    [
        (body(ALL), [], WHOLE, ""),
        # Nobody asks who is red where no shard is missing.
        (body(ALL), ["z_2026_01"], WHOLE, ""),
        (
            body(FAILED), [], Gaps(indices={"a_2026_01": BREAKER}),
            f"not counted: index a_2026_01 ({BREAKER})",
        ),
        (
            body(SILENT), ["r_2026_01"], Gaps(indices={"r_2026_01": NO_SHARD}),
            f"not counted: index r_2026_01 ({NO_SHARD})",
        ),
        (
            body(SILENT), [], Gaps(unnamed="some shard does not answer"),
            "not counted: a part that OpenSearch does not name (some shard does not answer)",
        ),
        (
            body(ALL, timed_out=True), [], Gaps(unnamed="the search ran out of time"),
            "not counted: a part that OpenSearch does not name (the search ran out of time)",
        ),
        (
            body(FAILED, timed_out=True), [],
            Gaps(indices={"a_2026_01": BREAKER}, unnamed="the search ran out of time"),
            f"not counted: index a_2026_01 ({BREAKER}), a part that OpenSearch does not name "
            "(the search ran out of time)",
        ),
        (
            body(ALL, _clusters={"total": 3, "successful": 1, "skipped": 2}), [],
            Gaps(clusters=2), "not counted: 2 of the remote clusters (no answer)",
        ),
    ],
)  # fmt: skip
def test_what_an_answer_left_out(answer: str, red: list[str], gaps: Gaps, sentence: str) -> None:
    told = gaps_of(decode(answer, Searched), lambda: red)
    assert told == gaps
    assert told.sentence() == sentence
    assert told.whole is (gaps is WHOLE)
    assert told.at_least("3 logs") == ("3 logs" if gaps is WHOLE else "at least 3 logs")


def test_many_indices_are_counted_and_few_are_named() -> None:
    gaps = Gaps(indices={f"i{n}_2026_01": NO_SHARD for n in range(1203)})
    assert gaps.sentence("searched").startswith("not searched: index i0_2026_01 (")
    assert gaps.sentence().endswith(", 1,200 more")
    assert gaps.within(["i5_2026_01", "else"]).indices == {"i5_2026_01": NO_SHARD}


def test_gaps_of_two_searches_are_one() -> None:
    one = Gaps(indices={"a": "x"}, clusters=1)
    other = Gaps(indices={"b": "y"}, unnamed="u")
    assert one | other == Gaps(indices={"a": "x", "b": "y"}, unnamed="u", clusters=1)
    assert WHOLE | one == one


@pytest.mark.parametrize(
    ("expression", "names", "left"),
    [
        ("*_*,-.*", [], "*_*,-.*"),
        ("*_*,-.*", ["a_1"], "*_*,-.*,-a_1"),
        ("a_1,b_*", ["a_1"], "b_*,-a_1"),
        # An exclusion after nothing but names would be a name itself.
        ("a_1,b_1", ["a_1"], "b_1"),
        ("a_1", ["a_1"], "*,-*"),
    ],
)
def test_what_is_left_out_of_an_expression(expression: str, names: list[str], left: str) -> None:
    assert _without(expression, names) == left


@pytest.mark.parametrize(
    ("expression", "taken"),
    [("*_*,-.*", True), ("a_1", True), ("a_*,-a_1", False), ("b_*", False), ("-a_1,a_*", True)],
)
def test_whether_an_expression_takes_an_index_in(expression: str, *, taken: bool) -> None:
    assert takes_in(expression, "a_1") is taken


# -- each number of Stats


class Node:
    """Answers for OpenSearch: every search with the same shards."""

    def __init__(self) -> None:
        self.shards: dict[str, Any] = SILENT
        self.red = ["r_2026_01"]
        self.states = {"c_2026_01": "close"}
        self.may_see = True
        self.nothing_answers = False

    def request(self, method: str, path: str, sent: Any = None, params: Any = None) -> str:

        if path.startswith("/_cluster/health"):
            if not self.may_see:
                raise RightMissing("no", ("cluster:monitor/health",))
            return json.dumps({"indices": {name: {"status": "red"} for name in self.red}})
        if path.startswith("/_cluster/state"):
            indices = {name: {"state": state} for name, state in self.states.items()}
            return json.dumps({"metadata": {"indices": indices}})
        if path.endswith("/_field_caps"):
            caps = {"knn_vector": {"type": "knn_vector"}}
            return json.dumps({"indices": ["a_2026_01"], "fields": {"log_vector": caps}})
        if self.nothing_answers:
            raise NoShardAnswers("OpenSearch is overloaded or in trouble (503)")
        return body(self.shards)


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    made = Node()
    monkeypatch.setattr(
        Connection, "request", lambda self, *args, **named: made.request(*args, **named)
    )
    return made


@pytest.fixture
def stats(node: Node) -> Iterator[Stats]:
    store = LogStore(load_settings(_env_file=None, openai_api_key="k", embedding_dimensions=4))
    yield store.stats
    store.close()


NUMBERS: dict[str, Callable[[Stats], Any]] = {
    "counts": lambda stats: stats.counts(),
    "oldest": lambda stats: stats.oldest_pending(),
    "failures": lambda stats: stats.failures(None),
    "of others": lambda stats: stats.of_others(None),
    "other models": lambda stats: stats.other_models(["a_2026_01", "r_2026_01"]),
    "of our model": lambda stats: stats.count_of_model(),
    "nearest": lambda stats: stats.nearest([1.0] * 4, 3, None),
}


@pytest.mark.parametrize("number", NUMBERS.values(), ids=NUMBERS)
def test_every_number_says_what_it_leaves_out(
    node: Node, stats: Stats, number: Callable[[Stats], Any]
) -> None:
    assert number(stats).gaps.indices == {"r_2026_01": NO_SHARD}
    node.may_see = False
    assert number(stats).gaps == Gaps(unnamed="some shard does not answer")
    node.shards, node.red, node.may_see = FAILED, [], True
    assert number(stats).gaps == Gaps(indices={"a_2026_01": BREAKER})
    node.shards = ALL
    assert number(stats).gaps.whole


def test_where_no_shard_answers_the_number_is_zero_and_its_index_is_named(
    node: Node, stats: Stats
) -> None:
    node.nothing_answers = True
    counts = stats.counts()
    assert (counts.by_index, counts.gaps.indices) == ({}, {"r_2026_01": NO_SHARD})
    assert stats.failures(None).value == []
    assert stats.of_others(None).value == 0
    node.red = []
    with pytest.raises(NoShardAnswers):
        stats.counts()


def test_a_closed_index_is_missing_only_where_it_was_asked_for_by_name(
    node: Node, stats: Stats
) -> None:
    node.shards = ALL
    assert stats.failures("c_2026_01").gaps.indices == {"c_2026_01": CLOSED}
    assert stats.failures("c_*").gaps.whole


def test_an_answer_without_shards_is_no_count() -> None:

    with pytest.raises(TransientError):
        decode('{"hits": {"hits": []}}', HitsAnswer)

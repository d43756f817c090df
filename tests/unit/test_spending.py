"""The day's money: what each project pays sums up to what was spent, and shares bound each."""

from __future__ import annotations

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.embedding.budget import split
from enrich.embedding.resolver import TextRequest, payers_of
from enrich.ledger import Ledger
from enrich.ledger.confirmed import KEPT_SECONDS
from enrich.status.report import MOST_PROJECTS, read_status

PROJECTS = st.sampled_from(["pay", "shop", "결제", "a|b"])


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 10**9), st.dictionaries(PROJECTS, st.integers(1, 10**6)))
def test_parts_sum_up_to_the_whole(micro_usd: int, payers: dict[str, int]) -> None:
    parts = split(micro_usd, payers)
    assert sum(parts.values()) == (micro_usd if payers else 0)
    assert all(part >= 0 for part in parts.values())


def test_what_projects_pay_is_counted_also_for_a_run_that_is_over(
    connection: redis.Redis,
) -> None:
    ledger = Ledger(connection, "money:")
    ledger.spending.saw({"pay", "shop"})
    ledger.counters.add("gone", micro_usd=1_000_000, paid_by={"pay": 900_000, "shop": 100_000})
    ledger.counters.add("gone", micro_usd=100_000, paid_by={"pay": 100_000})
    assert ledger.spending.today_usd() == 1.1
    asked = {"pay", "shop", "new"}
    assert ledger.spending.over_share(asked, 1.0) == {"pay"}
    assert ledger.spending.over_share(asked, 1.000001) == set()
    assert ledger.spending.over_share(asked, 0.1) == {"pay", "shop"}
    assert ledger.spending.over_share((), 0.1) == set()
    assert list(ledger.spending.today_by_project(2).items()) == [("pay", 1.0), ("shop", 0.1)]


def test_who_uses_up_the_day_is_told_of_the_ten_greatest(connection: redis.Redis) -> None:
    ledger = Ledger(connection, "money:")
    assert ledger.spending.today_by_project(MOST_PROJECTS) == {}
    # Of the same amount the first by name come first.
    paid = {f"p{n:02}": 1_000_000 for n in range(30)} | {"결제": 2_000_000}
    ledger.counters.add("r", micro_usd=sum(paid.values()), paid_by=paid)
    told = read_status(ledger, None).spent_today_by_project
    assert list(told.items()) == [("결제", 2.0), *((f"p{n:02}", 1.0) for n in range(9))]


def test_runs_spend_what_was_confirmed_and_nobody_else_does(connection: redis.Redis) -> None:
    ledger = Ledger(connection, "money:")
    assert ledger.confirmed.left_usd() == 0
    run = ledger.runs.open("beat", 600).run
    ledger.counters.add(run, micro_usd=100_000)
    assert ledger.confirmed.left_usd() == 0
    ledger.confirmed.allow(2.0)
    ledger.counters.add(run, micro_usd=500_000)
    ledger.counters.add("no run", micro_usd=700_000)
    assert ledger.confirmed.left_usd() == 1.5
    assert 0 < connection.ttl("money:confirmed") <= KEPT_SECONDS
    ledger.counters.add(run, micro_usd=9_000_000)
    assert ledger.confirmed.left_usd() == 0
    assert ledger.confirmed.permitted_usd(run) is None
    ledger.confirmed.permit(run, 2.0)
    assert ledger.confirmed.permitted_usd(run) == 2.0


def wanted(digest: str, *payers: str) -> TextRequest:
    return TextRequest(fingerprint=digest, text="x", payers=frozenset(payers))


def test_a_text_is_paid_by_a_project_that_may_still_spend() -> None:
    requests = [
        wanted("a", "flood"),
        wanted("a", "quiet"),
        wanted("b", "flood", "quiet"),
        wanted("c", "zeal"),
    ]
    assert payers_of(requests, {"flood"}) == {"a": "quiet", "b": "quiet", "c": "zeal"}
    assert payers_of(requests, set()) == {"a": "flood", "b": "flood", "c": "zeal"}
    assert payers_of([wanted("a", "flood")], {"flood"}) == {}


@pytest.mark.parametrize("seen", [set(), {"pay"}])
def test_a_project_that_is_alone_has_no_share(connection: redis.Redis, seen: set[str]) -> None:
    ledger = Ledger(connection, "money:")
    ledger.spending.saw(seen)
    ledger.counters.add("r", micro_usd=5_000_000, paid_by={"pay": 5_000_000})
    assert ledger.spending.over_share({"pay"}, 1.0) == set()

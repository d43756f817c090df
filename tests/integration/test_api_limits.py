"""The embeddings API's limits, asked for as the workers do: through the real client, a real Redis
and an API that enforces its quota. Only counts are asserted."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
import redis

from dev.api_control import ApiControl
from enrich.embedding.batching import Batching, Caller
from enrich.embedding.client import OpenAIEmbedder
from enrich.embedding.in_memory import InMemoryQuota, InMemoryUsage
from enrich.errors import RateLimited
from enrich.ratelimit.gcra import MAX_WAIT_SECONDS
from enrich.settings import Settings
from enrich.wiring import build_quota
from tests.conftest import Pipeline, Search
from tests.integration.test_cycle import assert_adds_up, logs

INDEX = "a_b_2026_11"
Build = Callable[..., Pipeline]

#: Workers that ask at the same time.
WORKERS = 4


@pytest.mark.parametrize("told", [{"only_dimensions": 1536}, {"base64_support": "refused"}])
def test_an_endpoint_that_knows_less_is_served_and_its_requests_are_counted(
    pipeline: Build, search: Search, embeddings: ApiControl, told: dict[str, Any]
) -> None:
    """As servers of open models and gateways have it: one size, or no base64."""
    embeddings.set(**told)
    search.create(INDEX)
    search.index(INDEX, logs(150, 150))
    record = pipeline().run()
    assert (record.state, record.vectors_written, record.api_inputs) == ("finished", 150, 150)
    assert record.api_requests == embeddings.counts()["requests"] == 3


def ask_from_all(batching: Callable[[], Batching], requests: int, texts: int) -> int:
    """Let all workers ask until so many requests were answered; how many 429 they got."""
    left = list(range(requests))
    refused: list[int] = []
    nobody = Caller(occasion="run", meter=InMemoryUsage())

    def work() -> None:
        mine = batching()
        while left:
            nth = left.pop()
            request = {f"{nth}-{n}": f"disk {nth} of host {n} is full" for n in range(texts)}
            while True:
                try:
                    mine.embed(request, nobody, lambda _: None)
                    break
                except RateLimited:
                    refused.append(nth)

    threads = [threading.Thread(target=work) for _ in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(refused)


#: The quota, and how many requests of how many texts go beyond what it gives at once.
QUOTAS = {
    "requests": ({"requests_per_minute": 900}, 190, 1),
    "tokens": ({"tokens_per_minute": 60_000}, 130, 10),
}


@pytest.mark.parametrize(("quota", "requests", "texts"), QUOTAS.values(), ids=QUOTAS)
@pytest.mark.parametrize("told", ["set", "learned"])
def test_a_quota_that_is_enforced_is_kept(
    settings: Callable[..., Settings],
    embeddings: ApiControl,
    redis_url: str,
    quota: dict[str, int],
    requests: int,
    texts: int,
    told: str,
) -> None:
    embeddings.set(**quota, burst_seconds=7.0)
    ours = settings(**({f"enrich_{k}": v for k, v in quota.items()} if told == "set" else {}))
    connections = [redis.Redis.from_url(redis_url) for _ in range(WORKERS)]
    lines = iter(connections)

    def batching() -> Batching:
        return Batching(OpenAIEmbedder(ours), build_quota(next(lines), ours))

    ask_from_all(batching, requests, texts)

    seen = embeddings.seen
    for connection in connections:
        connection.close()
    assert seen["inputs"] == requests * texts
    assert seen["refused"].get("429", 0) < 0.01 * seen["requests"]


@pytest.mark.parametrize(("quota", "requests", "texts"), QUOTAS.values(), ids=QUOTAS)
def test_without_the_budget_the_same_quota_refuses(
    settings: Callable[..., Settings],
    embeddings: ApiControl,
    quota: dict[str, int],
    requests: int,
    texts: int,
) -> None:
    # What makes the test above one of the budget, not of a quota that nobody reaches.
    embeddings.set(**quota, burst_seconds=7.0)

    def batching() -> Batching:
        return Batching(OpenAIEmbedder(settings()), InMemoryQuota())

    assert ask_from_all(batching, requests, texts) > 0.05 * requests


def test_a_pause_asked_of_one_worker_holds_all_and_nobody_waits_long_in_its_slot(
    settings: Callable[..., Settings], embeddings: ApiControl, redis_url: str
) -> None:
    embeddings.faults({"kind": "status", "status": 429, "headers": {"retry-after": "40"}})
    lines = [redis.Redis.from_url(redis_url) for _ in range(2)]
    slept: list[float] = []
    budgets = [build_quota(line, settings(), slept.append) for line in lines]
    usage = InMemoryUsage()
    caller = Caller(occasion="run", meter=usage)
    first, other = (Batching(OpenAIEmbedder(settings()), budget) for budget in budgets)

    for batching in (first, other, first):
        with pytest.raises(RateLimited) as limited:
            batching.embed({"a": "disk is full"}, caller, lambda _: None)
        assert limited.value.retry_after is not None
        assert 30 < limited.value.retry_after <= 40
    assert embeddings.seen["requests"] == 1, "the others did not even ask"
    assert sum(slept) == 0

    for line in lines:
        line.delete("enrich:rate:pause")
    budgets[0].pause(MAX_WAIT_SECONDS - 1)
    # Its sleep moves no time here, so that the pause seems to go on and on.
    with pytest.raises(RateLimited):
        other.embed({"a": "disk is full"}, caller, lambda _: None)
    assert 0 < sum(slept) <= MAX_WAIT_SECONDS
    for line in lines:
        line.close()


@pytest.mark.parametrize("count", [1, 2, 3, 10, 64, 100, 257])
def test_one_culprit_among_n_costs_twice_the_logarithm_and_its_neighbours_nothing(
    pipeline: Build, search: Search, embeddings: ApiControl, count: int
) -> None:
    search.create(INDEX)
    search.index(INDEX, logs(count, count))
    culprit = count // 3
    embeddings.faults({"kind": "poison", "match": f"host number {culprit}", "times": 0})
    # A poison is found within a text: of the numbers that begin alike, only one shall be there.
    same = [n for n in range(count) if str(n).startswith(str(culprit)) and n != culprit]
    for n in same:
        search("DELETE", f"/{INDEX}/_doc/{INDEX}-{n}?refresh=true")
    there = count - len(same)

    record = pipeline(enrich_batch_size=max(count, 1)).run()

    assert_adds_up(record)
    assert (record.found, record.failed, record.vectors_written) == (there, 1, there - 1)
    assert record.deferred == 0, "the neighbours' vectors arrive in the same run"
    extra = record.api_requests - 1
    # Alone, a text is refused for good only once a harmless one went through after it.
    assert extra <= 2 * math.ceil(math.log2(there)) + 1
    assert embeddings.seen["inputs"] == there - 1 + 1

"""A number that was counted over some shards only says so, on every screen, and names the index."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from typer.testing import CliRunner, Result

from dev.http_proxy import Answered, Asked, Forward, HttpProxy
from dev.services import Services
from enrich.cli import app
from enrich.log_store import LogStore
from enrich.log_store.coverage import Gaps
from enrich.settings import Settings
from enrich.status.health import Word, health_of
from enrich.status.metrics import EnrichCollector
from enrich.status.reader import build_reader
from enrich.status.report import read_backlog
from tests.conftest import DIMENSIONS, Pipeline, Search
from tests.integration.test_cycle import logs
from tests.unit.test_flower_page import get

INDEX, RED, BLOCKED, CLOSED = "a_2026_11", "red_2026_01", "blocked_2026_01", "closed_2026_01"
NO_SHARD = "not every shard answers (red index)"
FOR_READING = "it cannot be searched: index read (api)"
MISSING = f"index {BLOCKED} ({FOR_READING}), index {RED} ({NO_SHARD})"

pytestmark = pytest.mark.usefixtures("search")


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def marked_failed(count: int) -> list[dict[str, Any]]:
    mark = {"ai_enrichment_status": "failed", "ai_enrichment_error": "message_empty"}
    return [{**log, "message": " ", **mark} for log in logs(count, count)]


@pytest.fixture
def in_part(clean: Services, search: Search) -> Iterator[None]:
    """An index that can be counted, and three that cannot: red, blocked for reading, closed."""
    search.create(INDEX)
    search.index(INDEX, [*logs(5, 5), *marked_failed(2)])
    nowhere = {"index.routing.allocation.require._name": "nobody"}
    search("PUT", f"/{RED}?wait_for_active_shards=0", {"settings": nowhere})
    for index in (BLOCKED, CLOSED):
        search.create(index)
        search.index(index, [*logs(3, 3), *marked_failed(1)])
    search("PUT", f"/{BLOCKED}/_settings", {"index.blocks.read": True})
    search("POST", f"/{CLOSED}/_close")
    yield
    search("PUT", f"/{BLOCKED}/_settings", {"index.blocks.read": None})


@pytest.mark.usefixtures("in_part")
def test_what_cannot_be_counted_is_named_on_every_screen(
    settings: Callable[..., Settings], search: Search
) -> None:
    settings()
    shown = call("status")
    assert shown.exit_code == 3
    sentence = f"OpenSearch counted the ERROR logs only in part: at least 7; not counted: {MISSING}"
    assert f"Degraded: {sentence}" in shown.stdout
    assert sentence in shown.stderr
    assert f"at least 7 ERROR logs; not counted: {MISSING}" in shown.stdout

    told = json.loads(call("status", "--json").stdout)
    assert told["backlog"]["whole"] is False
    assert told["backlog"]["not_counted"] == {BLOCKED: FOR_READING, RED: NO_SHARD}
    assert told["health"]["word"] not in ("Healthy", "Working")
    assert "counted_in_part" in [reason["code"] for reason in told["health"]["reasons"]]

    reader = build_reader(settings())
    reading = reader.read()
    assert reading.opensearch_up and reading.status.backlog is not None
    page = get(reading.status, "/enrichment").body.decode()
    assert f"At least 7; not counted: {MISSING}" in page
    assert "at least 5" in page and sentence in page
    registry = CollectorRegistry()
    registry.register(EnrichCollector(lambda: reading))
    metrics = generate_latest(registry).decode()
    assert "enrich_backlog_whole 0.0" in metrics
    assert f'enrich_index_not_counted{{index="{RED}"}} 1.0' in metrics
    assert 'enrich_health{reason="counted_in_part"} 1.0' in metrics
    assert "enrich_backlog_logs" not in metrics.replace("enrich_backlog_logs is left out", "")

    looked = call("check").stdout
    assert looked.count("at least 5 ERROR logs can be given a vector; at least 2 are marked") == 1
    assert f"not counted: {MISSING}" in looked
    assert f"✗ {RED}: {NO_SHARD}" in looked and f"✗ {BLOCKED}: {FOR_READING}" in looked
    assert f"closed, and left out of every number here: {CLOSED}" in looked
    assert "Not ready" in looked


@pytest.mark.usefixtures("in_part")
def test_failed_logs_are_listed_as_far_as_they_can_be_seen(
    settings: Callable[..., Settings], search: Search
) -> None:
    settings()
    listed = call("failures")
    assert (listed.exit_code, "at least 2 logs cannot be" in listed.stdout) == (3, True)
    assert f"not counted: {MISSING}" in listed.stderr
    listed = call("failures", "--json")
    assert (listed.exit_code, len(json.loads(listed.stdout))) == (3, 2)
    assert f"not counted: {MISSING}" in listed.stderr

    # What is asked for by name and cannot be looked at is not an index that is not there.
    for name, why in ((RED, NO_SHARD), (BLOCKED, FOR_READING), (CLOSED, "it is closed")):
        one = call("failures", "--index", name)
        assert (one.exit_code, one.stdout.count("is marked failed")) == (3, 1)
        assert "no log that was counted" in one.stdout
        assert f"not counted: index {name} ({why})" in one.stderr
    one = call("failures", "--index", "closed_*")
    assert (one.exit_code, one.stderr.strip()) == (
        2, f"✗ no open index matches closed_*: {CLOSED} is closed",
    )  # fmt: skip
    assert call("failures", "--index", INDEX).exit_code == 0

    again = call("retry-failed", "--yes")
    assert again.exit_code == 3
    assert "2 logs are back in line" in again.stdout
    assert f"not counted: {MISSING}" in again.stderr


@pytest.mark.usefixtures("in_part")
def test_search_says_where_it_could_not_look(
    pipeline: Callable[..., Pipeline], settings: Callable[..., Settings]
) -> None:
    record = pipeline().run()
    assert record.vectors_written == 5
    assert record.skipped_indices.keys() >= {RED, BLOCKED}
    found = call("search", "disk is full", "--json")
    assert (found.exit_code, len(json.loads(found.stdout)) > 0) == (3, True)
    assert f"not searched: {MISSING}" in found.stderr
    # What the run skipped is no reason for a green lamp.
    status = health_of(build_reader(settings()).read().status)
    assert status.word is Word.DEGRADED


ALTERED: dict[str, tuple[dict[str, Any], Gaps]] = {
    "failed": (
        {
            "_shards": {
                "total": 1, "successful": 0, "failed": 1,
                "failures": [{"index": INDEX, "reason": {"type": "circuit_breaking_exception"}}],
            }
        },
        Gaps(indices={INDEX: "it cannot be searched (circuit_breaking_exception)"}),
    ),
    "silent": (
        {"_shards": {"total": 2, "successful": 1, "failed": 0}},
        Gaps(unnamed="some shard does not answer"),
    ),
    "out of time": ({"timed_out": True}, Gaps(unnamed="the search ran out of time")),
    "a cluster away": ({"_clusters": {"total": 2, "skipped": 1}}, Gaps(clusters=1)),
}  # fmt: skip


def test_any_answer_in_part_is_told_as_such(
    clean: Services, settings: Callable[..., Settings], pipeline: Callable[..., Pipeline],
    search: Search,
) -> None:  # fmt: skip
    """Real answers, with the fields that say so altered on their way."""
    search.create(INDEX)
    search.index(INDEX, [*logs(4, 4), *marked_failed(2)])
    with HttpProxy(clean.opensearch.url) as proxy:
        store = pipeline(opensearch_port=proxy.port).store
        for change, gaps in ALTERED.values():

            def alter(asked: Asked, forward: Forward, change: dict[str, Any] = change) -> Answered:
                answered = forward(asked)
                if not asked.path.partition("?")[0].endswith("/_search"):
                    return answered
                return Answered(body=json.dumps(json.loads(answered.body) | change).encode())

            proxy.alter = alter
            backlog = read_backlog(store)
            assert backlog.gaps == gaps and not backlog.whole
            assert (backlog.without_vector, backlog.failed) == (4, 2)
            stats = store.stats
            assert stats.failures(None).gaps == gaps
            assert stats.of_others(None).gaps == gaps
            assert stats.count_of_model().gaps == gaps
            assert stats.oldest_pending().gaps == gaps


def test_a_name_that_is_not_there_is_not_waited_for(
    settings: Callable[..., Settings], search: Search
) -> None:
    search.create("shop_2026_11")
    # OpenSearch would wait for the health of such an index for half a minute.
    store = LogStore(settings(opensearch_timeout_seconds=5))
    for names in ("none_2026_11", "none_2026_11,shop_2026_11", "none_2026_11,shop_*"):
        found = store.stats.nearest([0.1] * DIMENSIONS, 3, names)
        assert (found.value, found.gaps.whole) == ([], True)
    store.close()

"""An index that is sick in a way that OpenSearch does not tell costs the others nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from enrich.ledger import IndexState
from enrich.log_store import index_template
from tests.conftest import DIMENSIONS, Pipeline, Search
from tests.integration.test_cycle import assert_adds_up, logs

SICK, INDEX, OTHER = "sick_2026_11", "a_2026_11", "z_2026_11"
Build = Callable[..., Pipeline]


def with_engine(engine: str) -> dict[str, Any]:
    body: dict[str, Any] = index_template(DIMENSIONS, [SICK])["template"]
    body["mappings"]["properties"]["log_vector"]["method"]["engine"] = engine
    return body


def test_an_index_whose_engine_cannot_run_is_set_aside_after_one_log(
    pipeline: Build, search: Search
) -> None:
    """Faiss without its native library, as on this node: the first refresh kills the shard, and
    nothing that is written to it is answered any more."""
    search.create(SICK, **with_engine("faiss"))
    for index in (INDEX, OTHER):
        search.create(index)
    search.index(INDEX, logs(150, 150))
    search.index(OTHER, logs(150, 150))
    # The witness' refresh would need the engine as soon as there is a vector.
    search.index(SICK, logs(120, 120))
    one = pipeline(opensearch_timeout_seconds=15)

    record = one.run()

    assert_adds_up(record)
    assert "does not answer writes" in record.skipped_indices[SICK]
    assert search.count(INDEX, {"exists": {"field": "log_vector"}}) == 150
    assert search.count(OTHER, {"exists": {"field": "log_vector"}}) == 150
    # One log was written before the engine was needed; no text was bought for the others.
    assert (record.vectors_written, record.deferred) == (301, 119)
    assert record.api_inputs <= 300
    assert record.retries == 0
    # What is held now was held before by no one: nothing of ours is left hanging.
    pressure = search("GET", "/_nodes/stats/indexing_pressure")["nodes"].values()
    held = [node["indexing_pressure"]["memory"]["current"]["all_in_bytes"] for node in pressure]
    assert held == [0], "no write is left hanging, which would count against those of all others"

    # The next run does not try it again so soon, and says why.
    again = one.run()
    assert_adds_up(again)
    assert (again.found, again.skipped_indices) == (0, record.skipped_indices)


def test_a_native_engine_that_runs_is_tried_once(
    pipeline: Build, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    search.create(INDEX)
    search.index(INDEX, logs(250, 250))
    one = pipeline()
    monkeypatch.setattr("enrich.log_store.engines.needs_library", lambda answer: True)

    record = one.run()

    assert_adds_up(record)
    assert record.vectors_written == 250
    assert one.ledger.index_states.of([INDEX]) == {INDEX: IndexState.WORKS}
    assert one.ledger.index_states.tried_now([INDEX]) == set()

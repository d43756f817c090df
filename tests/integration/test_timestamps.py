"""Timestamps as people map them: numbers, nanoseconds, formats of their own. Found and paged newest
first, bounded by age, and the oldest told as a time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from enrich.log_store import index_template
from enrich.log_store.pages import Target
from tests.conftest import DIMENSIONS, Pipeline, Search
from tests.integration.test_cycle import assert_adds_up

#: How `timestamp` is mapped, and how a moment is written then.
MAPPED: dict[str, tuple[dict[str, Any], Callable[[datetime], Any]]] = {
    "millis_2026_11": (
        {"type": "date", "format": "epoch_millis"}, lambda t: int(t.timestamp() * 1000),
    ),
    "seconds_2026_11": (
        {"type": "date", "format": "epoch_second"}, lambda t: int(t.timestamp()),
    ),
    "text_of_seconds_2026_11": (
        {"type": "date", "format": "epoch_second"}, lambda t: str(int(t.timestamp())),
    ),
    "nanos_2026_11": ({"type": "date_nanos"}, lambda t: f"{t:%Y-%m-%dT%H:%M:%S}.000000001Z"),
    "nano_millis_2026_11": (
        {"type": "date_nanos", "format": "epoch_millis"}, lambda t: int(t.timestamp() * 1000),
    ),
    "own_2026_11": (
        {"type": "date", "format": "yyyy/MM/dd HH:mm:ss"}, lambda t: f"{t:%Y/%m/%d %H:%M:%S}",
    ),
    "number_or_date_2026_11": ({"type": "date"}, lambda t: int(t.timestamp() * 1000)),
}  # fmt: skip


def test_every_format_of_a_timestamp_is_paged_bounded_and_told(
    pipeline: Callable[..., Pipeline], search: Search
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    ages = (5, 1, 4, 2, 3)
    for index, (mapping, written) in MAPPED.items():
        body = index_template(DIMENSIONS, [index])["template"]
        body["mappings"]["properties"]["timestamp"] = mapping
        search.create(index, **body)
        logs = [
            {
                "_id": f"{age}",
                "level": "ERROR",
                "message": f"disk is full {index} {age}",
                "timestamp": written(now - timedelta(hours=age)),
            }
            # One is too old for ENRICH_MAX_AGE_DAYS.
            for age in (*ages, 24 * 40)
        ]
        search.index(index, logs)
    one = pipeline(enrich_max_age_days=2)
    assert one.store.backlog.count().unsorted == frozenset()

    for index in MAPPED:
        found: list[str] = []
        cursor = None
        while True:
            (page,) = one.store.finder.page([Target(index, cursor, 2)], frozenset())
            assert not page.trouble
            found += [hit.reference.id for hit in page.hits]
            if page.exhausted:
                break
            cursor = page.cursors[-1]
        assert found == ["1", "2", "3", "4", "5"], index
        alone = pipeline(enrich_index_pattern=index, enrich_max_age_days=2).store.stats
        oldest = datetime.fromisoformat(str(alone.oldest_pending().value))
        assert oldest == pytest.approx(now - timedelta(hours=5), abs=timedelta(milliseconds=1))

    record = one.run()
    assert_adds_up(record)
    assert (record.vectors_written, record.deferred) == (5 * len(MAPPED), 0)
    assert one.store.stats.oldest_pending().value is None

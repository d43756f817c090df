"""Live logs of the demo: what is told of their times, and that no two rounds are the same."""

from __future__ import annotations

import itertools
from collections import deque

from dev import live_demo


def test_percentiles_are_values_that_were_seen() -> None:
    seen = deque([5.0, 1.0, 2.0, 3.0, 4.0])

    assert live_demo.percentile(seen, 50) == 3.0
    assert live_demo.percentile(seen, 99) == 5.0
    assert live_demo.percentile([], 99) == 0.0


def test_live_logs_go_on_with_new_ids() -> None:
    logs = list(itertools.islice(live_demo._endless_logs(), 1300))

    assert len({log.id for log in logs}) == 1300
    assert 0.3 < sum(log.document["level"] == "ERROR" for log in logs) / 1300 < 0.5
    assert all(log.index[-8:-3].startswith("_20") for log in logs)

"""Counters that never fall, whatever becomes of the store in which they are counted.

Prometheus takes a counter that falls for one that began again at 0, and adds all of it to the rate
once more. What is in Redis can fall: it is emptied, restored from an older copy, or comes back from
the history without what the last run had counted. Here the fall is made up for, for as long as this
process lives; after a restart of both, Prometheus sees one that begins again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from prometheus_client.metrics_core import Metric

#: Series that are remembered; names of some come from outside.
MOST_SERIES = 20_000

_Key = tuple[str, tuple[tuple[str, str], ...]]


class NeverFalling:
    """What series were last, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: Of each series what was read last, and what is added to it.
        self._last: OrderedDict[_Key, tuple[float, float]] = OrderedDict()

    def kept(self, metric: Metric) -> Metric:
        """The metric, with what it lost added again where it counts."""
        if metric.type in ("counter", "histogram"):
            with self._lock:
                metric.samples = [
                    sample._replace(
                        value=self._risen(
                            (sample.name, tuple(sorted(sample.labels.items()))), sample.value
                        )
                    )
                    for sample in metric.samples
                ]
        return metric

    def _risen(self, key: _Key, value: float) -> float:
        last, added = self._last.get(key, (value, 0.0))
        added += max(0.0, last - value)
        self._last[key] = value, added
        self._last.move_to_end(key)
        if len(self._last) > MOST_SERIES:
            self._last.popitem(last=False)
        return value + added

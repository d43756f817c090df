"""What was found and is believed for a while; of a bounded number of things."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

#: The names come from whoever produces messages.
MOST = 10_000


class Remembered(Generic[K, V]):
    """Values by key, each until its time is over; the oldest are forgotten first."""

    def __init__(self, clock: Callable[[], float], most: int = MOST) -> None:
        """Args: clock: seconds."""
        self._clock = clock
        self._most = most
        self._values: dict[K, tuple[V, float]] = {}

    def get(self, key: K) -> V | None:
        found = self._values.get(key)
        return found[0] if found is not None and self._clock() < found[1] else None

    def put(self, key: K, value: V, seconds: float) -> None:
        self._values.pop(key, None)
        self._values[key] = value, self._clock() + seconds
        if len(self._values) > self._most:
            del self._values[next(iter(self._values))]

    def forget(self, key: K) -> None:
        self._values.pop(key, None)

    def clear(self) -> None:
        self._values.clear()

"""What may happen to the messages of a pipeline, with servers or in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Delivers(Protocol):
    """`tests.conftest.Pipeline` or `tests.memory_pipeline.MemoryPipeline`."""

    messages: Any
    before: Callable[[str, Any], None]


def deliver_each_twice(one: Delivers) -> None:
    """Every message comes once more, behind all that are waiting by then."""
    doubled: set[str] = set()

    def double(name: str, arguments: Any) -> None:
        key = f"{name} {arguments if name != 'embed_and_update' else arguments[0]['id']}"
        if key not in doubled:
            doubled.add(key)
            one.messages.append((name, arguments))

    one.before = double

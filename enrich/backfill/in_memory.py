"""A publisher in memory, for tests and for trying things without a broker or workers."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from typing import Any

from enrich.backfill.run import Backfill
from enrich.models import Chunk


class InMemoryPublisher:
    """`Publisher` whose messages wait in a list, each as JSON carries it."""

    def __init__(self) -> None:
        #: Name of the task and its arguments, in the order in which they were sent.
        self.messages: deque[tuple[str, list[Any]]] = deque()

    def find_unvectorized(self, trigger: str) -> None:
        self._send("find_unvectorized", trigger)

    def scan_page(self, run: str, page: int) -> None:
        self._send("scan_page", run, page)

    def embed_and_update(self, message: dict[str, Any]) -> None:
        self._send("embed_and_update", message)

    def finish_run(self, run: str) -> None:
        self._send("finish_run", run)

    def deliver_first(self, backfill: Backfill) -> str:
        """Have the first message carried out; one line about it. Raises what the task would retry;
        the message is gone then, as one that was not acknowledged is not."""
        name, arguments = self.messages.popleft()
        if name == "embed_and_update":
            return backfill.embed_and_update(Chunk.from_message(*arguments))
        moves: dict[str, Callable[..., str]] = {
            "find_unvectorized": backfill.tick,
            "scan_page": backfill.scan,
            "finish_run": backfill.finish,
        }
        return moves[name](*arguments)

    def _send(self, name: str, *arguments: Any) -> None:
        self.messages.append((name, json.loads(json.dumps(arguments))))

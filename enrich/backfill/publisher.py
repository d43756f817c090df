"""Who sends the next moves to the workers."""

from __future__ import annotations

from typing import Any, Protocol


class Publisher(Protocol):
    """Sends one message for each move; a move may be sent twice, and is made once."""

    def find_unvectorized(self, trigger: str) -> None: ...
    def scan_page(self, run: str, page: int) -> None: ...
    def embed_and_update(self, message: dict[str, Any]) -> None: ...
    def finish_run(self, run: str) -> None: ...

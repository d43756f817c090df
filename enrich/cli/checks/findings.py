"""What `check` tells: marked lines, the worst of them, and what could not be looked at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from enrich.cli import screen
from enrich.cli.screen import plural
from enrich.log_store.refusals import RightMissing, role_advice
from enrich.worker.last_resort import reason_of


class Findings:
    """Tells line by line; remembers the worst."""

    def __init__(self, console: Console) -> None:
        self.console = console
        #: 0; 1 when something has to be changed; 3 when a server is in the way.
        self.status = 0
        self._to_change: list[str] = []
        self._warned = 0

    def ok(self, text: str) -> None:
        screen.line(self.console, "ok", text)

    def warn(self, text: str) -> None:
        self._warned += 1
        screen.line(self.console, "warn", text)

    def bad(self, text: str, status: int = 1) -> None:
        self.status = max(self.status, status)
        self._to_change.append(text)
        screen.line(self.console, "bad", text)

    @contextmanager
    def failing_here(self) -> Iterator[None]:
        """Whatever one thing meets, the others are looked at; what nobody foresaw says so."""
        try:
            yield
        except Exception as error:
            self.bad(reason_of(error), 3)

    @contextmanager
    def or_unseen(self, what: str) -> Iterator[None]:
        """Rights that a run does not need: without them a question stays open, nothing is wrong."""
        try:
            yield
        except RightMissing as error:
            lacking = f", which lack {', '.join(error.rights)}" if error.rights else ""
            self.warn(
                f"{what} cannot be seen with the rights of OPENSEARCH_USER{lacking}: "
                f"{role_advice(error.rights)}"
            )

    def conclude(self) -> None:
        """The last line: whether a run would work."""
        self.console.print()
        if self._to_change:
            count = len(self._to_change)
            what = f"{count} thing{'s' if count > 1 else ''} to change, see ✗ above"
            screen.line(self.console, "bad", f"Not ready: {what}: {self._to_change[0]}")
        else:
            warned = f"; {plural(self._warned, 'warning')}, see ! above" if self._warned else ""
            screen.line(self.console, "ok", f"Ready{warned}: a run would work")

"""Connections of callers: one that sends no whole head of a request in time is closed, and one that
takes nothing of its answer.

uvicorn waits for both for as long as they like. Connections that say nothing would then be all that
the process may open, and nobody else would get in; answers that nobody takes, some of 20 MB, would
be all of its memory.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: From the first byte of a connection, or of a request, to the end of its headers.
HEAD_SECONDS = 10.0
#: Within which some of a waiting answer has to be taken.
TAKE_SECONDS = 15.0


class PunctualProtocol(HttpToolsProtocol):
    """uvicorn's own, with these bounds."""

    _timer: asyncio.TimerHandle | None = None
    _taking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._arrived()
        self._taken()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect()

    def on_headers_complete(self) -> None:
        self._arrived()
        super().on_headers_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look_again()

    def resume_writing(self) -> None:
        self._taken()
        super().resume_writing()

    def _look_again(self) -> None:
        waiting = self.transport.get_write_buffer_size()
        self._taking = self.loop.call_later(TAKE_SECONDS, self._look, waiting)

    def _look(self, before: int) -> None:
        """Args: before: bytes that waited the last time."""
        if self.transport.get_write_buffer_size() < before:
            self._look_again()
        else:
            # Closing would wait for what is left to be taken.
            self.transport.abort()

    def _taken(self) -> None:
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None

    def _expect(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_SECONDS, self._late)

    def _arrived(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if self.cycle is not None and not self.cycle.response_complete:
            # The request before is still being answered.
            self._expect()
        else:
            self.transport.close()

"""Connections of callers: one that sends no whole head of a request in time is closed.

uvicorn waits for it for as long as it likes. Connections that say nothing would then be all that
the process may open, and nobody else would get in.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: From the first byte of a connection, or of a request, to the end of its headers.
HEAD_SECONDS = 10.0


class PunctualProtocol(HttpToolsProtocol):
    """uvicorn's own, with this bound."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._arrived()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect()

    def on_headers_complete(self) -> None:
        self._arrived()
        super().on_headers_complete()

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

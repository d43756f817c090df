"""The overview for whoever asks, at once: the last that was read, while the next is being read.

A page must not wait for OpenSearch. Whoever opens one gets what was read last, with its time, and
the page brings itself up to date a moment later. Only the first one after a start waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from enrich.status.overview import Overview

#: How long a page waits for what is being read, once there is something to show; and how long if
#: that is old, since nobody has looked for a while.
PATIENCE_SECONDS = 0.1
OLD_SECONDS, PATIENCE_WITH_OLD_SECONDS = 20.0, 2.0

#: Servers are asked on threads of their own, never on the event loop nor on those with which Flower
#: asks its workers.
THREADS = ThreadPoolExecutor(max_workers=2, thread_name_prefix="enrichment")


class Latest:
    """Used on the event loop only."""

    def __init__(self, read: Callable[[], Overview], forget: Callable[[], None]) -> None:
        """
        Args:
            read: may take seconds; runs on a thread. It keeps its answers for a while by itself.
            forget: makes the next read ask anew.
        """
        self._read = read
        self._forget = forget
        self._kept: Overview | None = None
        self._read_at = 0.0
        self._reading: asyncio.Future[Overview] | None = None

    async def get(self) -> Overview:
        """The overview, without waiting for long; it says when it was read."""
        reading = self._begin()
        if self._kept is not None:
            old = asyncio.get_running_loop().time() - self._read_at > OLD_SECONDS
            patience = PATIENCE_WITH_OLD_SECONDS if old else PATIENCE_SECONDS
            await asyncio.wait({reading}, timeout=patience)
            if not reading.done():
                return self._kept
        return await asyncio.shield(reading)

    async def fresh(self) -> Overview:
        """The overview as it is now, however long that takes: for scripts, which look once."""
        return await asyncio.shield(self._begin())

    def known(self) -> Overview | None:
        """What was read last; None before anything was."""
        return self._kept

    async def anew(self) -> Overview:
        """After something was changed: what Redis says now, however long it takes."""
        if self._reading is not None and not self._reading.done():
            await asyncio.wait({self._reading})
        await asyncio.get_running_loop().run_in_executor(THREADS, self._forget)
        return await self.fresh()

    def _begin(self) -> asyncio.Future[Overview]:
        if self._reading is None or self._reading.done():
            loop = asyncio.get_running_loop()
            self._reading = loop.run_in_executor(THREADS, self._read)
            self._reading.add_done_callback(self._keep)
        return self._reading

    def _keep(self, reading: asyncio.Future[Overview]) -> None:
        if not reading.cancelled() and reading.exception() is None:
            self._kept = reading.result()
            self._read_at = reading.get_loop().time()

"""A small TCP proxy: another way to a service on loopback, with network faults on it if wanted.

Runs in a thread of the process that uses it; the faults (cut, hang, delay, refuse) are set by
calls. It forwards bytes and knows no protocol, so that the same proxy serves Redis, OpenSearch and
the embeddings API.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from typing import Literal, Self

Mode = Literal["pass", "cut", "hang", "refuse"]


class TcpProxy:
    """Forwards `address`:`port` to a server on loopback.

    Modes: `pass` forwards; `cut` resets what is open and whatever is opened; `hang` keeps
    connections open and forwards nothing; `refuse` listens no more.
    """

    def __init__(
        self,
        target_port: int,
        *,
        delay: float = 0.0,
        address: str = "127.0.0.1",
        device: str = "",
    ) -> None:
        """
        Args:
            address: of this machine, where it listens.
            device: the only network device over which it may be reached; Linux would take an
                address of this machine from any. Takes root.
        """
        self._target = target_port
        self._address = address
        self._device = device
        #: Seconds that every piece of an answer waits.
        self.delay = delay
        self.port = 0
        self._mode: Mode = "pass"
        self._loop = asyncio.new_event_loop()
        self._open: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._listen())
        self._flowing.set()
        return self

    def __exit__(self, *raised: object) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def set(self, mode: Mode) -> None:
        """Change what happens to connections, those that are open included."""
        self._call(self._change(mode))

    def set_for(self, mode: Mode, seconds: float) -> None:
        """The same for so long; then it forwards again."""
        self.set(mode)
        time.sleep(seconds)
        self.set("pass")

    def _call(self, work: object) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()  # type: ignore[arg-type]

    async def _listen(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self._device:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._device.encode())
        listener.bind((self._address, self.port))
        self._server = await asyncio.start_server(self._accept, sock=listener)
        self.port = listener.getsockname()[1]

    async def _change(self, mode: Mode) -> None:
        before, self._mode = self._mode, mode
        if mode == "hang":
            self._flowing.clear()
        else:
            self._flowing.set()
        if mode in ("cut", "refuse"):
            self._reset()
        if mode == "refuse":
            self._server.close()
        elif before == "refuse":
            await self._listen()

    async def _close(self) -> None:
        self._flowing.set()
        self._reset()
        self._server.close()
        # What forwards sees its connection gone, and ends.
        await asyncio.sleep(0.05)

    def _reset(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode == "cut":
            writer.transport.abort()
            return
        try:
            there = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, there[1]}
        try:
            await asyncio.gather(
                self._forward(reader, there[1], 0.0), self._forward(there[0], writer, self.delay)
            )
        finally:
            for each in (writer, there[1]):
                self._open.discard(each)
                each.transport.abort()

    async def _forward(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, delay: float
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if delay:
                    await asyncio.sleep(delay)
                await self._flowing.wait()
                sink.write(data)
                await sink.drain()
            if sink.can_write_eof():
                sink.write_eof()

"""Callers of an HTTP service, as a process of its own: so many at a time, each with one connection.

`python -m benchmarks.callers URL CONNECTIONS < bodies`: every line of the input is the body of one
POST. Prints a JSON with seconds, answers by status, and the milliseconds of each: from when it was
sent, or, where requests are sent by the clock, from when it was due, so that one that had to wait
for a connection counts its wait. Sockets alone, since a client with comforts would take more of the
processor than the service.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlsplit

#: After a 429 a caller tries again so much later; 0: it does not.
RETRY_SECONDS = 0.01 if os.environ.get("CALLERS_RETRY") else 0.0

#: Requests a second of all callers; 0: each sends when it has its answer.
PER_SECOND = float(os.environ.get("CALLERS_PER_SECOND", "0"))


async def call_all(url: str, connections: int, bodies: list[bytes], key: str) -> dict[str, object]:
    """POST each body; how long it took."""
    parts = urlsplit(url)
    waiting = iter(enumerate(bodies))
    statuses: Counter[int] = Counter()
    milliseconds: list[float] = []
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.hostname}:{parts.port}\r\n"
        f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: "
    ).encode()

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> int:
        writer.write(b"%b%d\r\n\r\n%b" % (head, len(body), body))
        answer = await reader.readuntil(b"\r\n\r\n")
        lines = answer.lower().split(b"\r\n")
        length = next(int(one[15:]) for one in lines if one.startswith(b"content-length:"))
        await reader.readexactly(length)
        return int(answer[9:12])

    async def caller(waiting: Iterator[tuple[int, bytes]]) -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 24)
        for number, body in waiting:
            if PER_SECOND:
                due = began + number / PER_SECOND
                await asyncio.sleep(due - time.perf_counter())
            else:
                due = time.perf_counter()
            while (status := await once(reader, writer, body)) == 429 and RETRY_SECONDS:
                await asyncio.sleep(RETRY_SECONDS)
            milliseconds.append(1000 * (time.perf_counter() - due))
            statuses[status] += 1
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(caller(waiting) for _ in range(connections)))
    return {
        "seconds": time.perf_counter() - began,
        "statuses": statuses,
        "milliseconds": milliseconds,
    }


if __name__ == "__main__":
    url, connections = sys.argv[1], int(sys.argv[2])
    bodies = sys.stdin.buffer.read().splitlines()
    # In the environment, because anyone can read the arguments of a process.
    key = os.environ.get("CALLERS_KEY", "")
    print(json.dumps(asyncio.run(call_all(url, connections, bodies, key))))

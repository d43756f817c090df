"""Stands before OpenSearch and notes every request and how long its answer took.

For lines whose clock is not the proxy's business: it is a plain threaded server, slower than what
is behind it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from dev.http_proxy import Answered, Asked, Forward, HttpProxy


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its answer."""

    #: Seconds of the monotonic clock.
    at: float
    #: From the request's last byte to the answer's last byte.
    seconds: float
    request: str


class RecordingProxy(HttpProxy):
    """Forwards 127.0.0.1:`port` to a server while it is entered."""

    def __init__(self, target_url: str) -> None:
        super().__init__(target_url)
        self.exchanges: list[Exchange] = []
        self.alter = self._record

    def _record(self, asked: Asked, forward: Forward) -> Answered:
        at = time.monotonic()
        answered = forward(asked)
        request = f"{asked.method} {asked.path.split('?')[0]}"
        self.exchanges.append(Exchange(at, time.monotonic() - at, request))
        return answered

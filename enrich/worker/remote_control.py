"""What a worker and beat let themselves be told over the broker.

Celery's remote control has no login: whoever can write to Redis can stop workers, take their
processes away, revoke tasks, or let them write files (`objgraph`). So a worker knows only the
commands that look, and those by which workers and Flower find each other. Flower's buttons need the
rest, and FLOWER_READ_ONLY=false, which brings the buttons, brings it back.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

#: Commands that change nothing but whether events are sent.
HARMLESS = frozenset(
    {
        *("active", "active_queues", "clock", "conf", "hello", "ping", "query_task", "registered"),
        *("reserved", "revoked", "scheduled", "stats"),
        *("disable_events", "election", "enable_events", "heartbeat"),
    }
)


def restrict(commands: MutableMapping[str, Any]) -> None:
    """Forget every command that is not harmless."""
    for name in [name for name in commands if name not in HARMLESS]:
        del commands[name]

"""Who holds a lease: a process of a host, and whether it still lives."""

from __future__ import annotations

import os
import socket


def this_process() -> str:
    """As the owner of a lease: `host/pid`."""
    return f"{socket.gethostname()}/{os.getpid()}"


def is_dead(owner: str) -> bool:
    """Whether the owner of a lease was a process of this host that is no more."""
    host, _, pid = owner.rpartition("/")
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, ValueError):
        return False
    return False

"""Ends the processes of a stack whose supervisor has disappeared, even by kill -9.

The supervisor holds the only write end of this process's standard input and writes one line per
process group: `+PGID` when it starts one, `-PGID` when that one has ended. End of file means that
the supervisor is gone, whatever the cause: whatever is still registered is ended, and so is any
other process that inherited the stack's mark, such as one that made a group of its own.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable

import psutil  # type: ignore[import-untyped]

GRACE_SECONDS = 10.0

#: The environment variable whose value marks the processes of one stack.
STACK_VARIABLE = "ENRICH_DEV_STACK"


def main() -> int:
    """Read registrations until end of file, then end the groups that remain."""
    # A Ctrl-C or a closed terminal reaches the supervisor, which then ends everything in order;
    # this process must outlive it.
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    if os.getsid(0) != os.getpid():
        os.setsid()

    leaders: dict[int, float | None] = {}
    for line in sys.stdin:
        sign, group = line[0], int(line[1:])
        if sign == "+":
            leaders[group] = start_time(group)
        else:
            leaders.pop(group, None)
    end_all(lambda: _survivors(leaders, sys.argv[1]))
    return 0


def end_all(find: Callable[[], list[psutil.Process]], grace: float = GRACE_SECONDS) -> None:
    """SIGTERM to every process found, up to `grace` seconds for all together, then SIGKILL."""
    found = find()
    for process in found:
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while found and time.monotonic() < deadline:
        time.sleep(0.05)
        found = find()
    # Again and again, because a process may just be starting another one.
    while found:
        for process in found:
            _signal(process, signal.SIGKILL)
        time.sleep(0.05)
        found = find()


def _survivors(leaders: dict[int, float | None], mark: str) -> list[psutil.Process]:
    found = [process for group, begun in leaders.items() for process in group_members(group, begun)]
    known = {process.pid for process in found}
    for process in psutil.process_iter():
        if process.pid in known or process.pid == os.getpid():
            continue
        try:
            marked = process.environ().get(STACK_VARIABLE) == mark
            if marked and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue
    return found


def start_time(pid: int) -> float | None:
    """When the process began, or None if there is none; two processes with one pid differ here."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None


def group_members(group: int, begun: float | None) -> list[psutil.Process]:
    """The living processes of a group whose leader began at `begun`.

    Empty when the group's number has gone to another process meanwhile. A number is not given to
    a new process while any member of the group lives, so a group without its leader is still ours.
    """
    now = start_time(group)
    if now is not None and (begun is None or abs(now - begun) > 0.01):
        return []
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, PermissionError, psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def signal_group(group: int, number: int) -> None:
    """Send a signal to a group, if there still is one."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        # Gone already; macOS answers "not permitted" for a group of zombies.
        return


def _signal(process: psutil.Process, number: int) -> None:
    try:
        # psutil looks at the start time first, so that a reused pid is never hit.
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


if __name__ == "__main__":
    sys.exit(main())

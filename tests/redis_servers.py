"""A Redis-compatible server of a test's own, for the tests that ask for another kind than the
stack's: started, waited for, ended."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dev.redis_server import server_argv
from dev.services import free_ports
from enrich.errors import AccessRefused, ServerUnavailable
from enrich.redis_client import connect, translated

#: Polls of 0.05 s.
PATIENCE = 600


@contextmanager
def running_redis(
    folder: Path, *options: str, binary: Path | None = None, login: str = ""
) -> Iterator[int]:
    """Its port, once it answers.

    Args:
        folder: where its data and its log are.
        options: as its command line takes them.
        login: "user:password@", where one is needed for an answer.
    """
    (port,) = free_ports(1)
    argv = server_argv(port=port, folder=folder, appendonly=False, binary=binary)
    log = folder / "redis.log"
    with log.open("wb") as told:
        process = subprocess.Popen([*argv, *options], stdout=told, stderr=told)
    try:
        _until_it_answers(process, f"redis://{login}127.0.0.1:{port}/0", log)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _until_it_answers(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    for _ in range(PATIENCE):
        assert process.poll() is None, f"the server has ended: {log.read_text()}"
        try:
            with connect(url) as client, translated():
                client.ping()
            return
        except AccessRefused:
            # It answers; what it refuses is the test's.
            return
        except ServerUnavailable:
            time.sleep(0.05)
    raise AssertionError(f"the server does not answer: {log.read_text()}")

"""A whole cycle on the Redis of others: the oldest that is supported and the system's own, over TLS
and with the rights that the documentation names."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dev.redis_server import find_binary, oldest_binary
from dev.service import Service
from dev.services import Services
from enrich.settings import Settings
from tests.conftest import ROOT, Search, start_worker
from tests.integration.test_tls import FUTURE, TlsFront
from tests.redis_servers import running_redis
from tests.unit.test_redis_server import RIGHTS

pytestmark = pytest.mark.apart

INDEX = "a_b_2026_11"

BINARIES = {
    "oldest": oldest_binary,
    "system": lambda: Path(found) if (found := shutil.which("redis-server")) else None,
    "valkey": find_binary,
}


@pytest.fixture(params=[pytest.param("oldest", marks=pytest.mark.apart), "system"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """The URL, for some rights, of a server with TLS before it."""
    from dev.certificates import write_self_signed

    binary = BINARIES[request.param]() or BINARIES["valkey"]()
    certificate = write_self_signed(tmp_path, "localhost", expires=FUTURE)
    users = {"enrich": RIGHTS, "deaf": RIGHTS.replace("&enrich:broker:/0.celeryev/* ", "")}
    acl = [f"user {name} on >pw {rights}" for name, rights in users.items()]
    (tmp_path / "acl").write_text("\n".join(["user default off", *acl, ""]), encoding="utf-8")
    options = ("--aclfile", str(tmp_path / "acl"))
    with (
        running_redis(tmp_path, *options, binary=binary, login="enrich:pw@") as number,
        TlsFront(number, certificate) as front,
    ):
        yield (
            lambda user: (
                f"rediss://{user}:pw@localhost:{front.port}/0"
                f"?ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs={certificate}"
            )
        )


def test_a_whole_cycle_runs_with_the_documented_rights(
    clean: Services, search: Search, settings: Callable[..., Settings],
    address: Callable[[str], str], tmp_path: Path,
) -> None:  # fmt: skip
    search.create(INDEX)
    search.index(INDEX, [{"level": "ERROR", "message": f"failure {n}"} for n in range(30)])
    url = address("enrich")
    worker: Service = start_worker(clean, f"rights-{tmp_path.name}", REDIS_URL=url)
    try:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "REDIS_URL": url}
        run = [sys.executable, "-m", "enrich", "run", "--wait", "--json"]
        done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["vectors_written"] == 30
        check = [sys.executable, "-m", "enrich", "check"]
        done = subprocess.run(check, env=environment, capture_output=True, text=True, timeout=120)
        assert "its user has the rights that a run needs" in done.stdout
        assert "1 worker with" in done.stdout
    finally:
        worker.stop()
    told = worker.log.read_text()
    assert "NOPERM" not in told and "Traceback" not in told


def test_a_worker_without_a_channel_says_so_and_ends(
    settings: Callable[..., Settings], address: Callable[[str], str]
) -> None:
    settings()
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "enrich", "worker", "-c", "1"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "REDIS_URL": address("deaf")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 3
    assert "add &enrich:broker:/0.celeryev/* to its ACL" in done.stderr
    assert "Traceback" not in done.stderr

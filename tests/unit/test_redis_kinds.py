"""Redis behind Sentinels and as a Cluster, real servers of each: what is wrong is one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dev.services import free_ports
from enrich.cli import app
from enrich.errors import AccessRefused, Halt, ServerUnavailable
from enrich.ledger import server
from enrich.redis_client import CLUSTER, connect, translated
from enrich.settings import load_settings
from enrich.worker import start
from tests.redis_servers import running_redis
from tests.sentinels import MASTER, OF_SENTINELS, Sentinels

# They start six servers.
pytestmark = pytest.mark.long


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[Sentinels]:
    with Sentinels(tmp_path) as running:
        yield running


def test_what_is_wrong_with_sentinels_is_named(
    sentinels: Sentinels, capsys: pytest.CaptureFixture[str]
) -> None:
    def ping(url: str) -> None:
        client = connect(url, timeout=3)
        try:
            with translated():
                client.ping()
        finally:
            client.close()

    (nobody,) = free_ports(1)
    # One of three that is not there does no harm.
    ping(sentinels.url.replace("@", f"@127.0.0.1:{nobody},"))
    with pytest.raises(Halt, match=rf"knows no primary of this name: set .master_name=.*{MASTER}"):
        ping(sentinels.url.replace(f"={MASTER}", "=other"))
    with pytest.raises(AccessRefused, match=r"Sentinel asks for a login .*sentinel_password="):
        ping(sentinels.url.replace(OF_SENTINELS, "wrong"))
    with pytest.raises(AccessRefused, match="refused the password: check REDIS_URL"):
        ping(sentinels.url.replace("of%2F", "not"))
    with pytest.raises(ServerUnavailable, match="no Sentinel names a primary"):
        ping(f"sentinel://127.0.0.1:{nobody}/0")
    with pytest.raises(Halt, match=r"this is a Sentinel.*sentinel://"):
        server.look(connect(f"redis://:{OF_SENTINELS}@127.0.0.1:{sentinels.ports[0]}/0"))

    with pytest.raises(SystemExit) as ended:
        wrong = sentinels.url.replace(f"={MASTER}", "=other")
        start.end_if_impossible(load_settings(openai_api_key="k", redis_url=wrong), parts=False)
    assert ended.value.code == start.REFUSED
    assert "knows no primary of this name" in capsys.readouterr().err


def test_a_real_cluster_is_refused_by_check_and_by_a_worker(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # Only Redis is looked at here; the others are not there.
    monkeypatch.setenv("OPENSEARCH_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    # By default its nodes would talk at 10,000 above the port.
    (bus,) = free_ports(1)
    with running_redis(tmp_path, "--cluster-enabled", "yes", "--cluster-port", str(bus)) as port:
        url = f"redis://127.0.0.1:{port}/0"
        with pytest.raises(SystemExit) as ended:
            start.end_if_impossible(load_settings(redis_url=url), parts=False)
        assert ended.value.code == start.REFUSED
        assert capsys.readouterr().err == f"enrich: {CLUSTER}\n"
        monkeypatch.setenv("REDIS_URL", url)
        assert CLUSTER in CliRunner().invoke(app, ["check"], env={"COLUMNS": "400"}).output

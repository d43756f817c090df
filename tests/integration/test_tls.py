"""TLS as operators meet it: a front with a certificate made on the spot before the real servers.

The front ends TLS and forwards to the stack's OpenSearch, Valkey and embeddings server. A right
certificate passes, a wrong authority or name is refused with a sentence that says what to set.
"""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis

from dev.certificates import write_self_signed
from dev.services import Services
from dev.tcp_proxy import TcpProxy
from enrich.errors import AccessRefused, EnrichError, Halt, ServerUnavailable
from enrich.log_store import LogStore
from enrich.redis_client import connect, translated
from enrich.settings import Settings
from enrich.wiring import build_embedder, build_ledger
from tests.conftest import ROOT, Search

FUTURE = datetime(2049, 1, 1, tzinfo=UTC)
INDEX = "a_b_2026_11"


class TlsFront(TcpProxy):
    """Ends TLS with a certificate, and forwards in clear."""

    def __init__(self, target_port: int, certificate: Path) -> None:
        super().__init__(target_port)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, ssl=self._context
        )
        self.port = self._server.sockets[0].getsockname()[1]


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """For the host name `localhost`; its own authority."""
    return write_self_signed(tmp_path, "localhost", expires=FUTURE)


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """An authority that has signed nothing of ours."""
    return write_self_signed(tmp_path, "stranger", expires=FUTURE)


@pytest.fixture
def expired(tmp_path: Path) -> Path:
    folder = tmp_path / "expired"
    folder.mkdir()
    return write_self_signed(folder, "localhost", expires=datetime(2024, 3, 31, tzinfo=UTC))


def port_of(url: str) -> int:
    return int(url.rsplit(":", 1)[1].partition("/")[0])


# -- OpenSearch


@pytest.fixture
def opensearch(clean: Services, certificate: Path) -> Iterator[TlsFront]:
    with TlsFront(clean.opensearch.port, certificate) as front:
        yield front


@pytest.fixture
def ask(settings: Callable[..., Settings]) -> Callable[..., Any]:
    """Ask OpenSearch through the product, with TLS on; what of the rest is not set is default."""

    def ask(front: TlsFront, **overrides: Any) -> Any:
        values = {"opensearch_host": "localhost", "opensearch_port": front.port, **overrides}
        store = LogStore(settings(opensearch_use_ssl=True, **values))
        try:
            return store.backlog.count().counts
        finally:
            store.close()

    return ask


def test_opensearch_with_the_right_authority_passes(
    ask: Callable[..., Any], opensearch: TlsFront, certificate: Path, search: Search
) -> None:
    search.create(INDEX)
    search.index(INDEX, [{"level": "ERROR", "message": "x"}])
    assert ask(opensearch, opensearch_ca_certs=str(certificate)) == {INDEX: 1}


def test_opensearch_of_an_unknown_authority_is_refused_by_default(
    ask: Callable[..., Any], opensearch: TlsFront, stranger: Path
) -> None:
    for overrides in ({}, {"opensearch_ca_certs": str(stranger)}):
        with pytest.raises(Halt, match=r"TLS connection was refused.*OPENSEARCH_CA_CERTS"):
            ask(opensearch, **overrides)


def test_opensearch_of_another_name_is_refused(
    ask: Callable[..., Any], opensearch: TlsFront, certificate: Path
) -> None:
    with pytest.raises(Halt, match=r"TLS connection was refused.*OPENSEARCH_CA_CERTS"):
        ask(opensearch, opensearch_host="127.0.0.1", opensearch_ca_certs=str(certificate))


def test_opensearch_with_an_expired_certificate_is_refused(
    ask: Callable[..., Any], clean: Services, expired: Path
) -> None:
    with (
        TlsFront(clean.opensearch.port, expired) as front,
        pytest.raises(Halt, match="check its certificate"),
    ):
        ask(front, opensearch_ca_certs=str(expired))


def test_verification_of_opensearch_can_be_turned_off(
    ask: Callable[..., Any], opensearch: TlsFront
) -> None:
    for host in ("localhost", "127.0.0.1"):
        assert ask(opensearch, opensearch_host=host, opensearch_verify_certs=False) == {}


def test_tls_asked_of_an_opensearch_without_it_names_the_setting(
    settings: Callable[..., Settings], clean: Services
) -> None:
    store = LogStore(settings(opensearch_use_ssl=True))
    with pytest.raises(EnrichError, match="OPENSEARCH_USE_SSL"):
        store.backlog.count()
    store.close()


# -- Redis


@pytest.fixture
def valkey(clean: Services, certificate: Path) -> Iterator[TlsFront]:
    with TlsFront(port_of(clean.redis.url), certificate) as front:
        yield front


def ping(url: str) -> None:
    connection = connect(url)
    try:
        with translated():
            assert connection.ping()
    finally:
        connection.close()


def test_redis_with_the_right_authority_passes(
    valkey: TlsFront, certificate: Path, settings: Callable[..., Settings]
) -> None:
    url = f"rediss://localhost:{valkey.port}/0?ssl_ca_certs={certificate}"
    ping(url)
    ledger = build_ledger(settings(redis_url=url))
    assert ledger.runs.open("manual", 600).verdict == "opened"
    ledger.close()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_redis_of_an_unknown_authority_is_refused_by_default(valkey: TlsFront, host: str) -> None:
    with pytest.raises(Halt, match=r"Redis: the TLS connection was refused.*ssl_ca_certs"):
        ping(f"rediss://{host}:{valkey.port}/0")


def test_redis_of_another_name_is_refused(valkey: TlsFront, certificate: Path) -> None:
    with pytest.raises(Halt, match=r"Redis: the TLS connection was refused.*host name"):
        ping(f"rediss://127.0.0.1:{valkey.port}/0?ssl_ca_certs={certificate}")


def test_tls_asked_of_what_answers_without_it_names_the_setting(clean: Services) -> None:
    with pytest.raises(ServerUnavailable, match="redis:// and rediss://"):
        ping(f"rediss://127.0.0.1:{clean.opensearch.port}/0")


@pytest.mark.parametrize(
    ("host", "with_authority", "passes"),
    [
        ("localhost", True, True),
        ("localhost", False, False),
        ("127.0.0.1", True, False),
    ],
    ids=["right", "unknown authority", "other name"],
)
def test_the_broker_verifies_as_the_rest_does(
    valkey: TlsFront, certificate: Path, tmp_path: Path,
    host: str, with_authority: bool, passes: bool,
) -> None:  # fmt: skip
    """Celery's own connection, built by another library from the same REDIS_URL."""
    query = f"?ssl_ca_certs={certificate}" if with_authority else ""
    code = (
        "from enrich.worker.app import app\n"
        "with app.connection_for_write() as broker: broker.default_channel.client.ping()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={
            "PYTHONPATH": str(ROOT),
            "OPENAI_API_KEY": "sk-x",
            "ENRICH_LOG_FILE": "none",
            "REDIS_URL": f"rediss://{host}:{valkey.port}/0{query}",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode == 0) is passes, ended.stderr
    if not passes:
        assert "CERTIFICATE_VERIFY_FAILED" in ended.stderr


def test_redis_password_is_used_and_a_wrong_one_is_said(clean: Services) -> None:
    port = port_of(clean.redis.url)
    admin = redis.Redis.from_url(clean.redis.url)
    admin.execute_command("ACL", "SETUSER", "guest", "on", ">right-secret", "~*", "+@all")
    try:
        ping(f"redis://guest:right-secret@127.0.0.1:{port}/0")
        with pytest.raises(AccessRefused, match="refused the password: check REDIS_URL") as refused:
            ping(f"redis://guest:wrong-secret@127.0.0.1:{port}/0")
        assert "wrong-secret" not in str(refused.value)
    finally:
        admin.execute_command("ACL", "DELUSER", "guest")
        admin.close()


# -- the embeddings API


def test_embeddings_api_of_an_unknown_authority_gets_no_text_and_no_key(
    settings: Callable[..., Settings], clean: Services, certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    port = port_of(clean.embeddings.url)
    with TlsFront(port, certificate) as front:
        url = f"https://localhost:{front.port}/v1"
        embedder = build_embedder(settings(openai_base_url=url))
        with pytest.raises(Halt, match=r"TLS connection was refused.*certificate.*SSL_CERT_FILE"):
            embedder.embed(["x"])
        embedder.close()
        # The system's authorities, to which an operator adds a private one in this way.
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        embedder = build_embedder(settings(openai_base_url=url))
        assert embedder.embed(["x"]).vectors[0] is not None
        embedder.close()
        other = build_embedder(settings(openai_base_url=url.replace("localhost", "127.0.0.1")))
        with pytest.raises(Halt, match=r"another host name; check OPENAI_BASE_URL"):
            other.embed(["x"])
        other.close()


def test_embeddings_api_with_an_expired_certificate_is_named(
    settings: Callable[..., Settings], clean: Services, expired: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("SSL_CERT_FILE", str(expired))
    with TlsFront(port_of(clean.embeddings.url), expired) as front:
        embedder = build_embedder(settings(openai_base_url=f"https://localhost:{front.port}/v1"))
        with pytest.raises(Halt, match=r"certificate is expired.*OPENAI_BASE_URL"):
            embedder.embed(["x"])
        embedder.close()

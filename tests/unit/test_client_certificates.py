"""OPENSEARCH_CLIENT_CERT against servers that ask for one: Python's own TLS, old and new, and
nginx."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from dev.certificates import Authority, write_authority, write_signed
from dev.services import free_ports
from enrich.errors import EnrichError, Halt, ServerUnavailable, SettingsError
from enrich.log_store.connection import Connection
from enrich.settings import load_settings


class Files:
    """Certificates of a server, of a client, and of a client that nobody knows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = folder / "authority.pem"
        own = write_authority(self.authority)
        self.server, self.server_key = self._signed(own, "server")
        self.client, self.client_key = self._signed(own, "client")
        stranger = write_authority(folder / "stranger-authority.pem", "stranger")
        self.stranger, self.stranger_key = self._signed(stranger, "stranger")
        self.both = folder / "both.pem"
        self.both.write_bytes(self.client.read_bytes() + self.client_key.read_bytes())

    def _signed(self, authority: Authority, name: str) -> tuple[Path, Path]:
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        write_signed(authority, certificate, key, hosts=["localhost"], addresses=["127.0.0.1"])
        return certificate, key


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("certificates"))


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = b'{"cluster_uuid": "one"}'
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that is refused is no error here."""


@contextmanager
def python_tls(files: Files, newest: ssl.TLSVersion) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = newest
    context.load_cert_chain(files.server, files.server_key)
    context.load_verify_locations(files.authority)
    context.verify_mode = ssl.CERT_REQUIRED
    server = Quiet(("127.0.0.1", 0), Answering)
    # The handshake is the handler's, so that one client cannot hold up the others.
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield int(server.server_address[1])
    server.shutdown()
    server.server_close()


@contextmanager
def nginx(files: Files) -> Iterator[int]:
    binary = shutil.which("nginx") or "/usr/sbin/nginx"
    if not Path(binary).exists():
        pytest.skip("nginx is not installed")
    (port,) = free_ports(1)
    (files.folder / "nginx.conf").write_text(
        f"daemon off; pid {files.folder}/nginx.pid; error_log {files.folder}/nginx.log; events {{}}"
        " http { access_log off;"
        + "".join(
            f" {kind}_temp_path {files.folder}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        + f" server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {files.server};"
        f" ssl_certificate_key {files.server_key}; ssl_client_certificate {files.authority};"
        " ssl_verify_client on; default_type application/json;"
        """ location / { return 200 '{"cluster_uuid": "one"}'; } } }"""
    )
    running = subprocess.Popen(
        [binary, "-e", str(files.folder / "nginx.log"), "-c", str(files.folder / "nginx.conf")],
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            assert running.poll() is None, (files.folder / "nginx.log").read_text()
            try:
                ask(port, files, files.client, files.client_key)
                break
            except ServerUnavailable:
                time.sleep(0.05)
        yield port
    finally:
        running.terminate()
        running.wait(10)


SERVERS: dict[str, Callable[[Files], Any]] = {
    "TLS 1.3": lambda files: python_tls(files, ssl.TLSVersion.TLSv1_3),
    "TLS 1.2": lambda files: python_tls(files, ssl.TLSVersion.TLSv1_2),
    "nginx": nginx,
}


def connection_to(
    port: int, files: Files, certificate: Path | str = "", key: Path | str = "", **values: Any
) -> Connection:
    return Connection(
        load_settings(
            openai_api_key="sk-1",
            opensearch_url=f"https://localhost:{port}",
            opensearch_ca_certs=str(files.authority),
            opensearch_client_cert=str(certificate),
            opensearch_client_key=str(key),
            **values,
        )
    )


def ask(
    port: int, files: Files, certificate: Path | str = "", key: Path | str = "", **values: Any
) -> str:
    connection = connection_to(port, files, certificate, key, **values)
    try:
        return connection.request("GET", "/")
    finally:
        connection.close()


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("OPENSEARCH_HOST", "OPENSEARCH_PORT", "OPENSEARCH_USE_SSL"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("server", SERVERS)
def test_a_server_that_asks_for_a_certificate_gets_it(files: Files, server: str) -> None:
    with SERVERS[server](files) as port:
        assert "one" in ask(port, files, files.client, files.client_key)
        assert "one" in ask(port, files, files.both)
        # The client library would send none where the server's is not verified.
        assert "one" in ask(port, files, files.both, opensearch_verify_certs=False)
        for certificate, key in (("", ""), (files.stranger, files.stranger_key)):
            # A reset may come before any reason, so that it is asked more than once.
            assert any(
                "OPENSEARCH_CLIENT_CERT" in _said(port, files, certificate, key) for _ in range(20)
            )


def _said(port: int, files: Files, certificate: Path | str, key: Path | str) -> str:
    with pytest.raises((Halt, ServerUnavailable)) as raised:
        ask(port, files, certificate, key)
    return str(raised.value)


def test_files_that_cannot_be_used_are_named(files: Files, tmp_path: Path) -> None:
    notes = tmp_path / "notes.pem"
    notes.write_text("hello")
    locked = tmp_path / "locked.key"
    key = serialization.load_pem_private_key(files.client_key.read_bytes(), None)
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"qqq"),
        )
    )
    for certificate, own_key, words in (
        ("/nope.pem", "", r"OPENSEARCH_CLIENT_CERT and OPENSEARCH_CLIENT_KEY: /nope.pem cannot be"),
        (files.client, "/nope.key", "cannot be read"),
        (notes, "", "do not hold a certificate and its key in PEM form"),
        (files.client, "", "do not hold a certificate and its key"),
        (files.client, files.stranger_key, "do not hold a certificate and its key"),
        (files.client, locked, "OPENSEARCH_CLIENT_KEY: .*locked.key is encrypted"),
    ):
        with pytest.raises(SettingsError, match=words) as raised:
            ask(9, files, certificate, own_key)
        assert "qqq" not in str(raised.value) and raised.value.__cause__ is None


def test_a_renewed_certificate_is_taken_by_the_next_connection(
    files: Files, tmp_path: Path
) -> None:
    current = tmp_path / "current.pem"
    current.write_bytes(files.stranger.read_bytes() + files.stranger_key.read_bytes())
    with python_tls(files, ssl.TLSVersion.TLSv1_2) as port:
        connection = connection_to(port, files, current)
        with pytest.raises(EnrichError):
            connection.request("GET", "/")
        current.write_bytes(files.both.read_bytes())
        assert "one" in connection.request("GET", "/")
        connection.close()

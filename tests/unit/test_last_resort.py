"""No run stays `running` without a reason: parts that cannot be built, and errors not foreseen."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fakeredis
import pytest
from rich.console import Console

from enrich import wiring
from enrich.cli.check import Check
from enrich.errors import EnrichError, Halt, SettingsError
from enrich.history.in_memory import InMemoryRunHistory
from enrich.ledger import Ledger, Scan
from enrich.settings import Settings, load_settings
from enrich.wiring import build_embedder, build_store
from enrich.worker.last_resort import reason_of
from tasks import enrichment

SECRET = "customer 4711 said so"


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ledger:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    connection = fakeredis.FakeRedis()
    monkeypatch.setattr(enrichment, "build_ledger", lambda settings: Ledger(connection, "enrich:"))
    return Ledger(connection, "enrich:")


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], None]]:
    """What building the parts gives, or raises."""
    enrichment.backfill.cache_clear()

    def set_to(what: Any) -> None:
        def build(*_: Any) -> Any:
            if isinstance(what, Exception):
                raise what
            return what

        monkeypatch.setattr(enrichment, "build_backfill", build)

    yield set_to
    enrichment.backfill.cache_clear()


def with_a_chunk(ledger: Ledger) -> tuple[str, dict[str, Any]]:
    run = ledger.runs.open("beat", 600).run
    chunk = f"{run}:1:0"
    message = {"id": chunk, "references": [["a_b", "1", None, 5, 1]]}
    scan = Scan.from_json('{"pending": [], "update_only": [], "unsorted": []}')
    ledger.pages.register(run, 1, scan=scan, scan_done=False, chunks={chunk: 1})
    return run, message


#: What a stale file, a proxy that is none, a package that is missing and a fault of ours raise.
ERRORS = [
    SettingsError("SSL_CERT_FILE cannot be read"),
    Halt("the TLS connection was refused"),
    ImportError("no socksio"),
    FileNotFoundError(2, "No such file", "/nope"),
    ValueError(SECRET),
    UnicodeEncodeError("ascii", SECRET, 0, 1, "x"),
    RecursionError(SECRET),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_a_tick_whose_parts_cannot_be_built_says_why(
    ledger: Ledger, builds: Callable[[Any], None], error: Exception,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    builds(error)
    told = enrichment.find_unvectorized.apply(["beat"]).get()
    (record,) = ledger.records.last(1)
    assert record.state == "halted"
    assert record.halt_reason and record.halt_reason in told
    assert not ledger.runs.active()
    if isinstance(error, EnrichError):
        assert record.halt_reason == str(error)
    else:
        assert type(error).__name__ in record.halt_reason
    assert SECRET not in record.halt_reason + caplog.text


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("move", ["scan_page", "finish_run", "embed_and_update"])
def test_a_run_whose_worker_cannot_build_its_parts_ends(
    ledger: Ledger, builds: Callable[[Any], None], error: Exception, move: str
) -> None:
    run, message = with_a_chunk(ledger)
    builds(error)
    arguments = {"scan_page": [run, 2], "finish_run": [run], "embed_and_update": [message]}
    getattr(enrichment, move).apply(arguments[move]).get()
    record = ledger.records.of(run)
    assert (record.state, record.deferred, record.chunks_open) == ("halted", 1, 0)
    assert record.halt_reason
    assert not ledger.runs.active()


class Falling:
    """A backfill that falls over whatever it is told."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.given_up: list[str] = []

    def _fall(self, *_: Any) -> str:
        raise self._error

    tick = scan = finish = embed_and_update = _fall

    def give_up(self, chunk: Any, why: str) -> str:
        self.given_up.append(why)
        return "deferred"


def test_an_unforeseen_error_of_a_scan_halts_the_run_with_its_place(
    ledger: Ledger, builds: Callable[[Any], None], caplog: pytest.LogCaptureFixture
) -> None:
    run, _ = with_a_chunk(ledger)
    builds(Falling(KeyError(SECRET)))
    enrichment.scan_page.apply([run, 2]).get()
    reason = ledger.records.of(run).halt_reason
    assert "KeyError at tasks/enrichment.py:" in reason
    assert SECRET not in reason + caplog.text


def test_an_unforeseen_error_of_a_chunk_is_its_own(
    ledger: Ledger, builds: Callable[[Any], None], caplog: pytest.LogCaptureFixture
) -> None:
    run, message = with_a_chunk(ledger)
    falling = Falling(RecursionError(SECRET))
    builds(falling)
    with caplog.at_level(logging.ERROR):
        assert enrichment.embed_and_update.apply([message]).get() == "deferred"
    assert ledger.records.of(run).state == "running"
    assert "RecursionError" in falling.given_up[0]
    assert "RecursionError" in caplog.text
    assert SECRET not in falling.given_up[0] + caplog.text


def test_a_reason_names_no_text_of_others() -> None:
    assert SECRET not in reason_of(ValueError(SECRET))
    assert reason_of(Halt("add credit")) == "add credit"


# -- what makes the clients' building fail


@pytest.fixture
def not_a_certificate(tmp_path: Path) -> str:
    file = tmp_path / "notes.txt"
    file.write_text("hello", encoding="utf-8")
    return str(file)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SSL_CERT_FILE", "/nope.pem"),
        ("SSL_CERT_FILE", "{notes}"),
        ("SSL_CERT_FILE", "{folder}"),
        ("HTTPS_PROXY", "ftp://user:qqq@proxy:1"),
        ("HTTPS_PROXY", "http://user:qqq@proxy:port"),
        ("HTTP_PROXY", "http://[::1"),
        ("ALL_PROXY", "socks9://user:qqq@proxy"),
    ],
)
def test_what_the_environment_says_wrong_of_the_way_to_the_api_is_named(
    monkeypatch: pytest.MonkeyPatch, not_a_certificate: str, tmp_path: Path, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value.format(notes=not_a_certificate, folder=tmp_path))
    with pytest.raises(SettingsError, match=f"^{name}\\b") as refused:
        build_embedder(load_settings(openai_api_key="x"))
    assert "qqq" not in str(refused.value)


@pytest.mark.parametrize("value", ["socks5://127.0.0.1:1", "socks5h://127.0.0.1:1"])
def test_a_socks_proxy_is_taken(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("ALL_PROXY", value)
    build_embedder(load_settings(openai_api_key="x")).close()


@pytest.mark.parametrize("path", ["/nope.pem", "{notes}", "{folder}"])
def test_authorities_of_opensearch_that_cannot_be_read_are_named(
    not_a_certificate: str, tmp_path: Path, path: str
) -> None:
    path = path.format(notes=not_a_certificate, folder=tmp_path)
    settings: Settings = load_settings(openai_api_key="x", opensearch_ca_certs=path)
    with pytest.raises(SettingsError, match=r"^OPENSEARCH_CA_CERTS: "):
        build_store(settings)
    # Not looked at where nothing is encrypted.
    build_store(settings.model_copy(update={"opensearch_use_ssl": False})).close()


def test_check_looks_at_the_rest_whatever_one_thing_meets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings(
        openai_api_key="x",
        redis_url="rediss://localhost:1/0?ssl_ca_certs=/nope.pem",
        opensearch_ca_certs="/nope.pem",
        openai_base_url="http://127.0.0.1:1/v1",
    )
    told = io.StringIO()
    looked = Check(settings, Console(file=told, width=200))
    monkeypatch.setattr(looked, "_look_at_writing", lambda: [][0])
    monkeypatch.setenv("SSL_CERT_FILE", "/nope.pem")
    looked.all()
    text = told.getvalue()
    assert looked.status == 3
    for sentence in (
        "ssl_ca_certs: /nope.pem cannot be read",
        "OPENSEARCH_CA_CERTS: /nope.pem cannot be read",
        "SSL_CERT_FILE cannot be read",
        "an error that was not foreseen (IndexError",
    ):
        assert sentence in text


def test_the_run_that_it_ends_is_written_into_the_history(
    ledger: Ledger, builds: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = InMemoryRunHistory()
    store = SimpleNamespace(history=kept, close=lambda: None)
    monkeypatch.setattr(wiring, "build_store", lambda settings: store)
    monkeypatch.setenv("ENRICH_HISTORY", "on")
    builds(Halt("the TLS connection was refused"))
    enrichment.find_unvectorized("manual")
    (record,) = kept.records.values()
    assert (record.state, record.halt_reason) == ("halted", "the TLS connection was refused")

    def refuse(settings: Settings) -> Any:
        raise ValueError(SECRET)

    # Where OpenSearch is what cannot be reached, it stays owed.
    monkeypatch.setattr(wiring, "build_store", refuse)
    assert enrichment.find_unvectorized("manual").startswith("halted")
    assert len(ledger.history.owed()) == 1

"""Flower's pages in a real Chromium, in each state, with real data on real servers behind it.

Where no Chromium is, these are skipped; `apt-get install chromium` brings one.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from dev.services import free_ports
from enrich.settings import Settings
from tests.conftest import Search, wait_for
from tests.page.playing import PREFIX, AtWork, Played, playing
from tests.page.scenes import SCENES

#: A browser beside OpenSearch takes a small machine long.
pytestmark = pytest.mark.apart

browser_module = pytest.importorskip("tests.page.browser")
needs_chromium = pytest.mark.skipif(not browser_module.executable(), reason=browser_module.MISSING)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browser_module.chromium() as chromium:
        yield chromium


@pytest.fixture
def play(settings: Callable[..., Settings], search: Search) -> Any:
    """Plays a scene on the clean stack."""

    @contextmanager
    def begin(name: str, workers: Any = None, **options: Any) -> Iterator[Played]:
        of_scene = settings(enrich_redis_prefix=PREFIX)
        with playing(SCENES[name], of_scene, search, workers, **options) as played:
            yield played

    return begin


@needs_chromium
@pytest.mark.parametrize(
    # The others differ from these in words alone; `make screenshots` looks at all.
    ("name", "size", "theme"),
    [
        ("working", "desktop", "light"),
        ("degraded", "phone", "dark"),
        ("halted", "desktop", "dark"),
        ("hostile", "phone", "light"),
        ("unknown", "desktop", "light"),
        ("without_opensearch", "phone", "light"),
        ("empty", "phone", "dark"),
    ],
)
def test_each_state_is_told_and_nothing_is_wrong_with_its_pages(
    name: str, size: str, theme: str, play: Any, browser: Any
) -> None:
    with play(name) as played:
        for part, path in played.paths.items():
            if part.startswith("api"):
                continue
            with browser_module.looking(browser, played.url + path, size, theme) as seen:
                if not part:
                    assert seen.page.inner_text(".enr-word") == SCENES[name].word
                assert seen.complaints == []
                assert seen.accessibility() == []
                assert not _wider_than_its_window(seen.page)
                assert seen.page.evaluate("window.broken") is None


def _wider_than_its_window(page: Any) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth > window.innerWidth + 1"))


@needs_chromium
def test_it_is_live_and_keeps_what_the_reader_has_done(play: Any, browser: Any) -> None:
    with play("healthy") as played:
        url = played.url + "/enrichment"
        with browser_module.looking(browser, url, "desktop", "light") as seen:
            page = seen.page
            page.click("#settings summary")
            page.focus("#enr-run a")
            played.world.ledger.controls.pause()
            # What the timer would do in ten seconds, at once.
            page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
            page.wait_for_selector(".enr-word:text-is('Paused')")
            assert page.evaluate("document.getElementById('settings').open")
            assert page.evaluate("document.activeElement.closest('#enr-run') !== null")
            assert "Live" in page.inner_text("#enr-live")
            assert seen.complaints == []


@needs_chromium
def test_a_button_names_what_will_happen_and_does_it_without_javascript_too(
    play: Any, browser: Any
) -> None:
    workers = AtWork()
    with play("halted", workers) as played:
        ledger = played.world.ledger
        with browser_module.looking(
            browser, played.url + "/enrichment", "phone", "light", java_script_enabled=False
        ) as seen:
            page = seen.page
            assert page.inner_text(".enr-word") == "Halted"
            page.click("text=Run now")
            assert "100 logs without a vector wait in 1 index" in page.inner_text(".enr-confirm")
            assert not ledger.runs.active()
            page.click("button:has-text('Run now')")
            run = ledger.runs.active()
            assert run and workers.sent == [("scan_page", (run, 1))]
            assert "has begun" in page.inner_text(".enr-notice")
            page.click("text=Pause")
            page.click("button:has-text('Pause')")
            assert ledger.controls.paused()
            # Still halted, which is worse.
            assert page.inner_text(".enr-notice") == "Enrichment is paused."
            assert page.inner_text(".enr-orders").split() == ["Resume"]


NGINX = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; events {{}}
http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{port}; location /tools/flower/ {{
    proxy_pass http://{upstream}; proxy_set_header Host $http_host; }} }} }}
"""


@needs_chromium
@pytest.mark.skipif(not shutil.which("nginx"), reason="no nginx is here: apt-get install nginx")
def test_under_a_prefix_behind_nginx_every_link_leads_somewhere(
    play: Any, browser: Any, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    with play("degraded", url_prefix="tools/flower") as played:
        upstream = played.url.removeprefix("http://").split("/")[0]
        config = tmp_path / "nginx.conf"
        config.write_text(NGINX.format(folder=tmp_path, port=port, upstream=upstream))
        nginx = subprocess.Popen(["nginx", "-c", str(config), "-e", str(tmp_path / "error.log")])
        try:
            url = f"http://127.0.0.1:{port}/tools/flower/enrichment"
            wait_for(lambda: _answers(url))
            with browser_module.looking(browser, url, "desktop", "light") as seen:
                links = seen.page.eval_on_selector_all(
                    "#enrichment a[href]",
                    "all => all.map(a => new URL(a.getAttribute('href'), location).href)",
                )
                assert len(links) > 10
                for link in sorted(set(links)):
                    assert httpx2.get(link).status_code == 200, link
                seen.page.click("text=Pause")
                seen.page.click("button:has-text('Pause')")
                assert seen.page.url.startswith(url)
                assert seen.page.inner_text(".enr-notice") == "Enrichment is paused."
                assert seen.complaints == []
        finally:
            nginx.terminate()
            nginx.wait()


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url).status_code == 200
    except httpx2.TransportError:
        return False


def test_json_of_each_part_on_real_servers(play: Any) -> None:
    with play("degraded") as played:
        client = httpx2.Client(base_url=played.url, timeout=30)
        parts = client.get("/enrichment/api/").json()
        told = {name: client.get(path).json() for name, path in parts.items()}
        client.close()
    assert told["health"]["word"] == "Degraded"
    rows = {row["index"]: row for row in told["backlog"]["indices"]}
    assert rows["legacy_float_2026_11"]["coverage_percent"] == 0
    assert rows["shop_checkout_2026_11"]["coverage_percent"] == 100
    assert told["failures"] == [
        {"code": "message_empty", "logs": 12, "by_index": {"shop_mail_2026_11": 12}}
    ]
    assert {worker["name"] for worker in told["workers"]} == {"celery@worker-a", "celery@worker-b"}
    assert told["runs"]["runs"][0]["failed"] == 12 and told["money"]["month"]["runs"] > 40
    assert told["settings"]["OPENAI_API_KEY"] == "***"
    assert "sk-dev" not in json.dumps(told)

"""Chromium as the system has it, and what it has to say of a page.

Nothing is downloaded: Debian's package `chromium`, or whatever CHROMIUM names. Where there is none,
whoever wants to look is told so.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")

SIZES = {"desktop": (1280, 800), "phone": (390, 844)}
THEMES = ("light", "dark")

MISSING = "no Chromium is here: `apt-get install chromium`, or name one in CHROMIUM"


def executable() -> str:
    """Where Chromium is; "" if it is nowhere."""
    named = os.environ.get("CHROMIUM", "")
    return named or next((path for name in NAMES if (path := shutil.which(name))), "")


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable(),
            # In a container there is no other sandbox; what it looks at is ours.
            args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
        )
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Looking:
    """A tab, and what went wrong in it."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    def accessibility(self) -> list[str]:
        """What axe-core finds; of JSON nothing, since what shows it is the browser's own page."""
        if self.page.evaluate("document.contentType") != "text/html":
            return []
        found: dict[str, Any] = Axe().run(self.page).response
        return [
            f"axe: {one['id']} at {node['target']}: {node.get('failureSummary', '')}"
            for one in found["violations"]
            for node in one["nodes"]
        ]


@contextmanager
def looking(browser: Browser, url: str, size: str, theme: str, **more: Any) -> Iterator[Looking]:
    """A tab of its own at an address. Errors, on the console or uncaught, and requests to anybody
    else are complaints."""
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=theme, **more
    )
    try:
        tab = context.new_page()
        seen = Looking(tab)
        host = urlsplit(url).netloc
        tab.on(
            "console", lambda m: m.type == "error" and seen.complaints.append(f"console: {m.text}")
        )
        tab.on("pageerror", lambda error: seen.complaints.append(f"error: {error}"))
        tab.on(
            "request",
            lambda r: (
                urlsplit(r.url).netloc not in (host, "")
                and seen.complaints.append(f"asked somebody else: {r.url[:200]}")
            ),
        )
        tab.goto(url)
        yield seen
    finally:
        context.close()

"""`make screenshots`: the page in every state, as a person sees it, into .dev/screenshots.

Starts the servers of the tests, plays each scene, and takes a picture of each of its pages on a
desktop and on a phone, light and dark. What browser or axe-core complain of is printed, and the
exit status is 1 then. `ONLY="healthy,late"` plays some.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from dev.api_control import ApiControl
from dev.services import Services
from enrich.settings import load_settings
from tests.conftest import ROOT, Search, empty_stack
from tests.page.browser import MISSING, SIZES, THEMES, chromium, executable, looking
from tests.page.playing import PREFIX, playing
from tests.page.scenes import SCENES

FOLDER = ROOT / ".dev" / "screenshots"

#: What of the desktop's page the README shows: down to the chart of the last runs.
FIRST_SCREEN = {"x": 0, "y": 0, "width": SIZES["desktop"][0], "height": 948}

#: Where axe-core looks at the page too.
LOOKED_INTO = (("desktop", "light"), ("phone", "dark"))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make screenshots", description=__doc__)
    parser.add_argument("--only", default="", help="scenes, separated by commas")
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args(argv)
    if not executable():
        print(f"screenshots: {MISSING}", file=sys.stderr)
        return 2
    names = options.only.split(",") if options.only else list(SCENES)
    options.out.mkdir(parents=True, exist_ok=True)
    complaints: list[str] = []
    folder = ROOT / ".dev" / "screenshots-stack"
    auto = {"action.auto_create_index": "false"}
    with Services(folder, opensearch_settings=auto, fresh=True) as stack, chromium() as browser:
        # Away from the checkout's `.env`, which is for other servers.
        os.chdir(folder)
        os.environ |= {**stack.environment(), "ENRICH_LOG_FILE": "none"}
        search = Search(stack.opensearch.url)
        api = ApiControl(stack.embeddings.url, stack.control_key)
        for name in names:
            empty_stack(stack, search, api)
            settings = load_settings(enrich_redis_prefix=PREFIX, enrich_batch_size=100)
            with playing(SCENES[name], settings, search) as played:
                for part, path in played.paths.items():
                    for size in SIZES:
                        for theme in THEMES:
                            file = options.out / f"{name}{'-' if part else ''}{part.strip('-')}"
                            with looking(browser, played.url + path, size, theme) as seen:
                                target = f"{file}-{size}-{theme}.png"
                                seen.page.screenshot(path=target, full_page=True)
                                if (size, theme) == ("desktop", "light") and not part:
                                    target = f"{file}-first-screen.png"
                                    seen.page.screenshot(
                                        path=target, full_page=True, clip=FIRST_SCREEN
                                    )
                                found = list(seen.complaints)
                                # Colours differ by the theme, and what is beside what by the size.
                                if (size, theme) in LOOKED_INTO:
                                    found += seen.accessibility()
                                complaints += [f"{name} {part}: {one}" for one in found]
            print(f"{name}: {len(played.paths)} pages")
        search.http.close()
        api.close()
    for complaint in complaints:
        print(complaint)
    print(
        f"screenshots: {options.out}; {len(complaints)} complaints of the browser and of axe-core"
    )
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())

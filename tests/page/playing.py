"""Plays a scene: fills the servers, serves the pages, and says which there are to look at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from enrich.settings import Settings
from tests.conftest import Pipeline, Search
from tests.page.scenes import Scene, World
from tests.page.serving import served

#: Of the scenes, so that none has anything of another's.
PREFIX = "pipeline:page:"


@dataclass(frozen=True)
class Played:
    """A scene that can be looked at."""

    url: str
    world: World
    #: Paths below /enrichment, by a short name.
    paths: dict[str, str]


class AtWork:
    """Workers that take whatever is sent and do nothing."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any]] = []

    def require(self) -> None:
        """They are there."""

    def find_unvectorized(self, trigger: str) -> None:
        self.sent.append(("find_unvectorized", trigger))

    def scan_page(self, run: str, page: int) -> None:
        self.sent.append(("scan_page", (run, page)))

    def embed_and_update(self, message: dict[str, Any]) -> None:
        self.sent.append(("embed_and_update", message["id"]))

    def finish_run(self, run: str) -> None:
        self.sent.append(("finish_run", run))


@contextmanager
def playing(
    scene: Scene, settings: Settings, search: Search, workers: Any = None, **options: Any
) -> Iterator[Played]:
    """Args: settings: of the stack, which is empty. `options` are Flower's."""
    line = Pipeline(settings)
    try:
        world = World(line, search)
        scene.fill(world)
        shown = settings.model_copy(
            update={name: type(getattr(settings, name))(v) for name, v in scene.settings.items()}
        )
        with served(shown, workers or AtWork(), **{"read_only": False, **options}) as url:
            yield Played(url, world, _paths(scene, world))
    finally:
        line.close()


def _paths(scene: Scene, world: World) -> dict[str, str]:
    paths = {"": "/enrichment"}
    for more in scene.more:
        runs = [run.run_id for run in world.ledger.records.last(50) if run.found]
        path = f"run/{runs[0]}" if more == "run" else more
        name = more.replace("/", "-").partition("?")[0] + ("-2" if "?" in more else "")
        paths[name] = f"/enrichment/{path}"
    return paths

"""A short form of the chaos matrix for `make test`: a few quick rows on real processes.

The whole matrix is `make chaos`. Only rows that leave the servers themselves alone are here, since
other tests share them. Nothing is asserted about time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.embedding_model import Model
from dev.services import Services
from tests.chaos.matrix import ROWS
from tests.chaos.rows_workers import stumble
from tests.chaos.stumbling import ALL, MOMENTS
from tests.chaos.world import World


@pytest.fixture
def world(
    clean: Services, tmp_path: Path, model: Model, request: pytest.FixtureRequest
) -> Iterator[World]:
    with World(clean, tmp_path, request.param, seed=1, model=model, size=160) as world:
        try:
            yield world
        finally:
            world.end_processes()
            # What other tests do not know of, and would therefore leave.
            world.forget()


@pytest.mark.parametrize(
    "world",
    [
        "message-twice",
        pytest.param("logs-changed", marks=pytest.mark.apart),
        pytest.param("sibling-writes", marks=pytest.mark.apart),
        "api-poison",
    ],
    indirect=True,
)
def test_a_fault_breaks_no_promise(world: World) -> None:
    ROWS[world.name].harm(world)
    assert world.settle().violations == []


@pytest.mark.parametrize("world", ["every-moment"], indirect=True)
@pytest.mark.apart
def test_every_moment_of_a_kill_comes(world: World) -> None:
    # One chunk at a time, so that a page ends while the scan goes on.
    world.env["ENRICH_MAX_CHUNKS_IN_FLIGHT"] = "1"
    stumble(world, ALL)
    world.beat()
    assert world.settle().violations == []
    flag = world.folder / "stumbled"
    came = {path.suffix.removeprefix(".") for path in world.folder.glob(f"{flag.name}.*")}
    assert came == set(MOMENTS)

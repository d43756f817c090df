"""The moments of the fault matrix: that one whose place in the product moved says so at once."""

from __future__ import annotations

import pytest

from tests.chaos import matrix, stumbling, stumbling_consumer


class _Product:
    def write(self, writes: list[str]) -> None: ...


class _Heir(_Product):
    pass


def test_a_place_that_is_there_is_taken() -> None:
    stumbling.Place(_Product, "write", "self writes")


@pytest.mark.parametrize(
    ("owner", "name", "parameters"),
    [
        (_Product, "put", "self writes"),
        # Wrapped in the heir, the parent's own calls would pass it by.
        (_Heir, "write", "self writes"),
        (_Product, "write", "self documents"),
    ],
)
def test_a_place_that_moved_is_told(owner: type, name: str, parameters: str) -> None:
    with pytest.raises(stumbling.Moved, match=name):
        stumbling.Place(owner, name, parameters)


def test_every_moment_has_a_row() -> None:
    named = {name.removeprefix("killed-when-") for name in matrix.ROWS}
    assert set(stumbling.MOMENTS) <= named


def test_every_moment_of_a_consumer_has_a_row() -> None:
    assert {f"rt-killed-when-{moment}" for moment in stumbling_consumer.MOMENTS} <= set(matrix.ROWS)

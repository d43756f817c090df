"""Which index is to blame for slow bulks."""

from __future__ import annotations

from enrich.enrichment.slow_indices import SLOW_SECONDS, SlowIndices


class Bulks:
    """Bulks of one process, and a clock that only they move."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slow = SlowIndices(lambda: self.now)

    def take(self, seconds: float, *indices: str) -> set[str]:
        """A bulk that takes so long; who is blamed."""
        blamed: set[str] = set()
        with self.slow.watch(indices, blamed):
            self.now += seconds
        return blamed


def test_a_slow_bulk_blames_nobody_and_is_parted_the_next_time() -> None:
    bulks = Bulks()
    assert bulks.take(5.0, "a", "b") == set()
    assert bulks.slow.to_part(["a", "b", "c"]) == {"a", "b"}
    assert bulks.take(0.1, "a") == set()
    assert bulks.take(5.0, "b") == {"b"}
    assert bulks.slow.to_part(["a", "b"]) == set()


def test_where_all_are_slow_none_is_blamed() -> None:
    bulks = Bulks()
    bulks.take(5.0, "a", "b")
    assert bulks.take(5.0, "a") == bulks.take(6.0, "b") == set()
    assert bulks.slow.to_part(["a", "b"]) == set()


def test_an_index_is_not_held_against_its_own_quick_bulks() -> None:
    bulks = Bulks()
    bulks.take(0.1, "a")
    bulks.take(0.1, "a", "b")
    assert bulks.take(5.0, "a") == set()


def test_quick_bulks_are_never_parted() -> None:
    bulks = Bulks()
    bulks.take(0.001, "a")
    assert bulks.take(SLOW_SECONDS, "b") == bulks.take(SLOW_SECONDS, "b", "c") == set()
    assert bulks.slow.to_part(["a", "b", "c"]) == set()


def test_a_bulk_that_fails_says_nothing() -> None:
    bulks = Bulks()
    try:
        with bulks.slow.watch(["a", "b"], set()):
            bulks.now += 9.0
            raise TimeoutError
    except TimeoutError:
        pass
    assert bulks.slow.to_part(["a", "b"]) == set()

"""What the next index of a series is called."""

from __future__ import annotations

import pytest

from enrich.log_store.paths import holds
from enrich.log_store.series import series_of


@pytest.mark.parametrize(
    ("index", "pattern", "following"),
    [
        ("shop_2026_11", "shop_*", "shop_2026_12"),
        ("shop_2026_12", "shop_*", "shop_2027_01"),
        ("shop-2026.01", "shop-*", "shop-2026.02"),
        ("app-2026.11.28", "app-*", "app-2026.11.29"),
        ("app-2026.12.31", "app-*", "app-2027.01.01"),
        ("app_2024-02-28", "app_*", "app_2024-02-29"),
        ("app-20261130", "app-*", "app-20261201"),
        ("app-202612", "app-*", "app-202701"),
        ("app-2026.11.28.23", "app-*", "app-2026.11.29.00"),
        ("app-2026.11.28-13", "app-*", "app-2026.11.28-14"),
        ("app-2026", "app-*", "app-2027"),
        ("app-2026.w53", "app-*", "app-2027.w01"),
        ("app-2026-w09", "app-*", "app-2026-w10"),
        ("logs-000001", "logs-*", "logs-000002"),
        ("logs-000999", "logs-*", "logs-001000"),
        ("logs-999999", "logs-*", "logs-1000000"),
        ("logs-7", "logs-*", "logs-000008"),
        ("app-2026.11.28-000003", "app-2026.11.28-*", "app-2026.11.28-000004"),
        ("app-2026.02.31", None, None),
        ("shop_logs", None, None),
        ("한글_2026_11", "한글_*", "한글_2026_12"),
        ("2026.11.30", "20*", "2026.12.01"),
    ],
)
def test_the_next_index(index: str, pattern: str | None, following: str | None) -> None:
    series = series_of(index)
    if pattern is None:
        assert series is None
        return
    assert series is not None
    assert (series.pattern, series.next) == (pattern, following)
    assert holds(series.pattern, index) and holds(series.pattern, series.next)

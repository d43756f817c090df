"""Normalising: logs that differ only in numbers, ids, times, paths or addresses share one text."""

from __future__ import annotations

import pytest

from enrich.settings import load_settings, rewrite_of
from enrich.text.extract import text_of
from enrich.text.normalizing import KINDS, Normalizer, normalizer_of


@pytest.mark.parametrize(
    ("kind", "text", "normalised"),
    [
        ("times", "at 2026-11-28T18:20:49.123Z failed", "at <time> failed"),
        ("times", "2026-11-28 18:20:49,123 +0900 failed", "<time> failed"),
        ("times", "[28/Nov/2026:18:20:49 +0000] GET", "[<time>] GET"),
        ("times", "Nov 28 18:20:49 host", "<time> host"),
        ("times", "Sat Nov 28 18:20:49 UTC 2026 x", "<time> x"),
        ("times", "took 18:20:49", "took <time>"),
        ("times", "due 2026-11-28, ratio 3:2", "due <time>, ratio 3:2"),
        ("times", "v2026-11-28-1 stays", "v2026-11-28-1 stays"),
        ("ids", "order 6f1c2a4e-0b1d-4f7a-9c3e-1a2b3c4d5e6f lost", "order <id> lost"),
        ("ids", "trace 4bf92f3577b34da6a3ce929d0e0e4736", "trace <id>"),
        ("ids", "at 0x7ffee4b2", "at <id>"),
        ("ids", "job 01ARZ3NDEKTSV4RRFFQ69G5FAV", "job <id>"),
        ("ids", "pod cart-7d9f8b6c5d-x2x9z down", "pod cart-<id> down"),
        ("ids", "deadbeef decade 12345678", "deadbeef decade 12345678"),
        ("paths", "open /var/lib/data/7.bin: no such file", "open <path>: no such file"),
        ("paths", r"open C:\temp\a.txt failed", "open <path> failed"),
        ("paths", "and/or http://host/a/b n/a", "and/or http://host/a/b n/a"),
        ("addresses", "to 10.0.0.7:8080 refused", "to <address> refused"),
        ("addresses", "to [fe80::1]:80 refused", "to <address> refused"),
        ("addresses", "version 1.2.3.4.5, 300.1.1.1, a::b", "version 1.2.3.4.5, 300.1.1.1, a::b"),
        ("numbers", "took 1,234.5 ms, 12ms, -3e10", "took <number> ms, <number>ms, -<number>"),
        ("numbers", "http2 and log4j stay", "http2 and log4j stay"),
        ("numbers", "주문 17건 실패", "주문 <number>건 실패"),
    ],
)
def test_kind(kind: str, text: str, normalised: str) -> None:
    assert Normalizer([kind])(text) == normalised


def test_all_kinds_together_leave_one_text() -> None:
    normalise = Normalizer(["all"])
    logs = [
        f"2026-11-28T18:20:{n:02}Z order {n:08x}-0b1d-4f7a-9c3e-1a2b3c4d5e6f from 10.0.0.{n}:{n} "
        f"in /var/log/{n}/x took {n}.5 ms"
        for n in range(50)
    ]
    assert {normalise(log) for log in logs} == {
        "<time> order <id> from <address> in <path> took <number> ms"
    }
    assert normalise(normalise(logs[0])) == normalise(logs[0])


def test_secrets_are_masked_before_they_are_normalised() -> None:
    settings = load_settings(openai_api_key="k", enrich_mask="all", enrich_normalize="numbers,ids")
    text = text_of({"message": "card 4111111111111111 of 7 items"}, rewrite_of(settings))
    assert text == "card [masked card] of <number> items"


def test_nothing_is_normalised_unless_it_is_asked_for() -> None:
    assert normalizer_of(()) is None
    assert rewrite_of(load_settings(openai_api_key="k")) is None


HOSTILE = [
    "1" * 200_000, "1." * 100_000, "a1" * 100_000, "/a" * 100_000, "/" * 200_000, ":" * 200_000,
    "C:\\" + "a\\" * 100_000, "0x" * 100_000, "-" * 200_000, "1-" * 100_000, "f" * 200_000 + "g",
    "1" * 100_000 + "f" * 100_000 + "g", "12:" * 70_000, "2026-11-" * 25_000, "[::" * 70_000,
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_texts_take_no_more_steps_than_they_are_long(kind: str) -> None:
    normalise = Normalizer([kind])
    for text in HOSTILE:
        # A quadratic pattern would not come to an end in hours.
        assert len(normalise(text)) <= len("<number>") * len(text)

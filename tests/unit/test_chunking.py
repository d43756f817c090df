"""Chunking: nothing lost or doubled, limits held, the page's order kept, pages cut as prefixes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.backfill.chunking import Found, cut_chunks, fit_page
from enrich.models import MAX_CHUNK_DOCUMENTS, Reference

REPEATABLE = settings(deadline=None, max_examples=120, derandomize=True)


def found(number: int, text: str, size: int = 10) -> Found:
    reference = Reference("p_2026_01", str(number), None, number, 1)
    return Found(reference=reference, fingerprint=text, size=size)


def page_of(texts: str) -> list[Found]:
    return [found(number, text) for number, text in enumerate(texts)]


def drawn(chunks: list[list[Found]]) -> list[str]:
    return ["".join(member.fingerprint for member in chunk) for chunk in chunks]


PAGES = st.lists(st.tuples(st.sampled_from("abcdefghij"), st.integers(0, 60)), max_size=60).map(
    lambda rows: [found(n, text, size) for n, (text, size) in enumerate(rows)]
)


@pytest.mark.parametrize(
    ("texts", "page", "chunks"),
    [
        (2, "", []),
        (2, "a", ["a"]),
        (2, "abc", ["ab", "c"]),
        (2, "abab", ["aabb"]),
        (2, "acbabcc", ["aaccc", "bb"]),
        (1, "aba", ["aa", "b"]),
        # Five documents at most: a group goes on in the next chunk, which then holds its text.
        (2, "aaaaaaab", ["aaaaa", "aab"]),
        (1, "aaaaaaab", ["aaaaa", "aa", "b"]),
        (3, "aaaabbbc", ["aaaab", "bbc"]),
    ],
)
def test_page_is_cut(texts: int, page: str, chunks: list[str]) -> None:
    assert drawn(cut_chunks(page_of(page), texts=texts, documents=5)) == chunks


def test_log_larger_than_a_chunk_travels_alone() -> None:
    page = [found(0, "a", 5), found(1, "b", 500), found(2, "c", 5), found(3, "d", 5)]
    assert drawn(cut_chunks(page, texts=10, size=100)) == ["a", "b", "cd"]


@REPEATABLE
@given(PAGES, st.integers(1, 6), st.integers(1, 12), st.integers(1, 100))
def test_nothing_is_lost_or_doubled_and_limits_hold(
    page: list[Found], texts: int, documents: int, size: int
) -> None:
    chunks = cut_chunks(page, texts=texts, documents=documents, size=size)
    members = [member for chunk in chunks for member in chunk]
    assert sorted(member.reference.seq_no for member in members) == list(range(len(page)))
    for chunk in chunks:
        assert chunk
        assert len(chunk) <= documents
        assert len({member.fingerprint for member in chunk}) <= texts
        assert len(chunk) == 1 or sum(member.size for member in chunk) <= size


@REPEATABLE
@given(PAGES, st.integers(1, 6), st.integers(1, 12), st.integers(1, 100))
def test_order_of_the_page_is_kept(
    page: list[Found], texts: int, documents: int, size: int
) -> None:
    chunks = cut_chunks(page, texts=texts, documents=documents, size=size)
    members = [member for chunk in chunks for member in chunk]
    first_met = list(dict.fromkeys(member.fingerprint for member in page))
    assert list(dict.fromkeys(member.fingerprint for member in members)) == first_met
    for text in first_met:
        together = [m.reference.seq_no for m in members if m.fingerprint == text]
        assert together == sorted(together)
    # Equal texts are side by side, so that each is fetched once unless a limit parts them.
    met = [member.fingerprint for member in members]
    assert sum(a != b for a, b in pairwise(met)) == max(0, len(first_met) - 1)


@REPEATABLE
@given(PAGES, st.integers(1, 6), st.integers(1, 12))
def test_no_chunk_has_room_for_the_next_ones_first_log(
    page: list[Found], texts: int, documents: int
) -> None:
    chunks = cut_chunks(page, texts=texts, documents=documents, size=10**9)
    for chunk, following in pairwise(chunks):
        held = {member.fingerprint for member in chunk}
        would_hold = held | {following[0].fingerprint}
        assert len(chunk) == documents or len(would_hold) > texts


@REPEATABLE
@given(PAGES, st.integers(1, 8), st.integers(1, 4))
def test_page_is_cut_to_a_prefix_that_fits(page: list[Found], slots: int, texts: int) -> None:
    taken, chunks = fit_page(page, slots=slots, texts=texts)
    assert list(taken) == page[: len(taken)]
    assert len(chunks) <= slots
    assert sorted(m.reference.seq_no for c in chunks for m in c) == list(range(len(taken)))
    # A scan must get on.
    assert bool(taken) == bool(page)


def test_page_that_fits_is_taken_whole() -> None:
    page = page_of("abcabc")
    assert fit_page(page, slots=3, texts=1)[0] == page


def test_two_thousand_equal_logs_are_two_chunks() -> None:
    chunks = cut_chunks(page_of("a" * 2000), texts=100)
    assert [len(chunk) for chunk in chunks] == [MAX_CHUNK_DOCUMENTS, 2000 - MAX_CHUNK_DOCUMENTS]

"""Text: what of a log is embedded, how it is cut, and that the finder's shortening agrees."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from enrich.errors import TextUnusable
from enrich.log_store.pages import _MESSAGE_SCRIPT, SHORTENING
from enrich.text.extract import CUT_MARK, MAX_TEXT_BYTES, TAIL_BYTES, cut, fingerprint, text_of

REPEATABLE = settings(deadline=None, max_examples=120, derandomize=True)

#: Pieces that meet the edges: bytes per character, pairs in UTF-16, blanks, the cause itself.
PIECES = st.sampled_from(
    ["a", "é", "漢", "😀", " ", "\n", "\t", "\u3000", "Caused by", "Caused by: x", "at a.b.C\n"]
)

#: Messages around and far beyond the limit, made of runs of pieces.
LONG = st.lists(
    st.tuples(PIECES, st.one_of(st.integers(0, 40), st.integers(0, 9000))).map(
        lambda run: run[0] * (run[1] // len(run[0]))
    ),
    max_size=8,
).map("".join)

ANY_TEXT = st.one_of(st.text(st.characters(), max_size=400), LONG)


def text_or_code(message: Any) -> str:
    try:
        return text_of({"message": message})
    except TextUnusable as error:
        return f"unusable: {error.code}"


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ({}, "message_missing"),
        ({"message": None}, "message_missing"),
        ({"message": 5}, "message_not_text"),
        ({"message": True}, "message_not_text"),
        ({"message": ["boom"]}, "message_not_text"),
        ({"message": {"text": "boom"}}, "message_not_text"),
        ({"message": ""}, "message_empty"),
        ({"message": " \n\t\u00a0\u3000"}, "message_empty"),
        ({"message": " " * 20_000}, "message_empty"),
    ],
)
def test_log_without_text_says_why(source: dict[str, Any], code: str) -> None:
    with pytest.raises(TextUnusable) as unusable:
        text_of(source)
    assert unusable.value.code == code


def test_text_is_the_message_and_nothing_unique_to_the_log() -> None:
    log = {"message": " boom\n", "trace_id": "t-1", "timestamp": "2026-01-01", "log_id": "l-1"}
    assert text_of(log) == "boom"


@REPEATABLE
@given(st.text(st.characters(exclude_categories=())) | LONG)
@example("\ud800")
@example("\udfff" * 9000)
@example("x" * 7_999 + "\ud83d")
@example("\x00")
def test_text_is_within_the_limit_and_encodable(message: str) -> None:
    try:
        text = text_of({"message": message})
    except TextUnusable as error:
        assert error.code == "message_empty"
        assert not message.strip()
        return
    assert 0 < len(text.encode()) <= MAX_TEXT_BYTES
    assert text == text.strip() != ""
    assert len(fingerprint(text)) == 64


@REPEATABLE
@given(ANY_TEXT)
def test_cutting_what_was_cut_changes_nothing(message: str) -> None:
    once = cut(message)
    assert len(once.encode()) <= MAX_TEXT_BYTES
    assert cut(once) == once
    assert text_or_code(text_or_code(message)) == text_or_code(message)


@REPEATABLE
@given(st.text(max_size=MAX_TEXT_BYTES // 4))
def test_short_text_is_left_as_it_is(message: str) -> None:
    assert cut(message) == message


@pytest.mark.parametrize("character", ["a", "é", "漢", "😀"])
@pytest.mark.parametrize("over", [-1, 0, 1])
def test_limit_is_of_bytes_and_exact(character: str, over: int) -> None:
    width = len(character.encode())
    message = character * (MAX_TEXT_BYTES // width) + "x" * (MAX_TEXT_BYTES % width)
    message = message[:-1] if over < 0 else message + "x" * over
    assert (cut(message) == message) == (len(message.encode()) <= MAX_TEXT_BYTES)
    # Little is wasted: not more than the mark and a character at each end of the cut.
    assert len(cut(message).encode()) >= min(len(message.encode()), MAX_TEXT_BYTES) - 2 * width


@REPEATABLE
@given(
    st.integers(0, 12_000),
    st.sampled_from(["x", "é", "漢", "😀"]),
    st.sampled_from(["x", "é", "漢", "😀"]),
    st.integers(0, 30_000),
)
@example(9_500, "x", "x", 9_000)
@example(2_000, "x", "x", 9_000)
@example(3_000, "x", "x", 9_000)
def test_head_and_last_cause_survive(before: int, filler: str, behind: str, after: int) -> None:
    cause = "Caused by: java.net.ConnectException: refused by 10.0.0.7"
    head = "HTTP 500 at checkout Caused by: a first cause\n"
    message = head + filler * before + "\n" + cause + "\n" + (behind * after)
    text = text_of({"message": message})
    assert text.startswith(head.strip())
    assert cause in text
    if len(message.strip().encode()) > MAX_TEXT_BYTES:
        assert CUT_MARK in text


def test_without_a_cause_head_and_end_survive() -> None:
    message = "the head " + "m" * 20_000 + " the end"
    text = text_of({"message": message})
    assert text.startswith("the head")
    assert text.endswith(" the end")


def test_fingerprint_is_the_sha256_of_the_utf8() -> None:
    # Stored documents carry it: another way of counting would lose every donor.
    assert fingerprint("boom") == (
        "81f52337ebb4cb1669bb802c708807dde0519d15cb102a6313d26ad5cd821713"
    )
    assert fingerprint("é") != fingerprint("e\u0301")


# -- the finder's shortening, which OpenSearch does in Painless on UTF-16, told in Python


def shortened_by_opensearch(message: str) -> str:
    """What `_MESSAGE_SCRIPT` answers: indices and lengths are of UTF-16 units, as in Java."""
    head, tail = int(SHORTENING["head"]), int(SHORTENING["tail"])
    blank, white = int(SHORTENING["blank"]), str(SHORTENING["white"])
    units = Units(message)
    n = len(units)
    if n <= head + tail:
        return message
    first, last = 0, n
    while first < n and first < blank and units.part(first, first + 1) in white:
        first += 1
    while last > first and n - last < blank and units.part(last - 1, last) in white:
        last -= 1
    if last - first <= head + tail:
        return units.part(first, last)
    cause = units.last_index("Caused by")
    start = cause if cause - first > head - tail else last - tail
    stop = min(last, start + tail)
    short = units.part(first, first + head) + str(SHORTENING["gap"]) + units.part(start, stop)
    # As it arrives: halves of pairs come as escapes, which only the lenient decoder takes.
    arrived: str = json.loads(json.dumps(short))
    return arrived


class Units:
    """A string as Java holds it."""

    def __init__(self, text: str) -> None:
        self._units = text.encode("utf-16-le", "surrogatepass")

    def __len__(self) -> int:
        return len(self._units) // 2

    def part(self, start: int, stop: int) -> str:
        assert 0 <= start <= stop <= len(self), "Java would throw"
        return self._units[2 * start : 2 * stop].decode("utf-16-le", "surrogatepass")

    def last_index(self, wanted: str) -> int:
        needle = wanted.encode("utf-16-le")
        found = self._units.rfind(needle)
        while found % 2 and found > 0:
            found = self._units.rfind(needle, 0, found + len(needle) - 1)
        return found // 2 if found >= 0 else -1


@settings(deadline=None, max_examples=200, derandomize=True)
@given(LONG)
@example("x" * 20_000 + "\n")
@example("a" * 9_500 + "Caused by: q" + "z" * 9_000)
@example("a" * 8_000 + "Caused by: q" + "z" * 9_000)
@example("a" * 8_001 + "Caused by: q" + "z" * 9_000)
@example("a" * 10_595 + "Caused by: q" + "z" * 9_000)
@example("a" * 2_799 + "Caused by: q" + "z" * 19_000)
@example("\u3000" * 5_000 + "a" * 12_000 + "b" * 2_000 + " " * 5_000)
@example("x" * 10_599 + "😀" * 3_000)
@example("x" * 10_000 + "😀" * 3_000 + "z" * 1_999)
@example("x" * 12_000 + "Caused by" + "y" * 2_590 + "😀" * 100)
@example(" " * 40_000)
@example("x" + " " * 13_000)
@example("a" * 12_000 + "b" * 2_000 + " " * 6_000)
@example(" " * 150_000 + "a" * 12_000 + "b" * 2_000 + " " * 150_000)
def test_shortened_message_gives_the_text_of_the_whole(message: str) -> None:
    short = shortened_by_opensearch(message)
    assert text_or_code(short) == text_or_code(message)
    assert len(short) <= int(SHORTENING["head"]) + int(SHORTENING["tail"]) + 1


def test_shortening_strips_what_python_strips() -> None:
    assert set(str(SHORTENING["white"])) == {c for c in map(chr, range(0x110000)) if not c.strip()}
    assert SHORTENING["head"] == MAX_TEXT_BYTES + TAIL_BYTES


def test_script_uses_no_escape() -> None:
    # Painless knows none in its strings: one would keep the script from compiling, and every page
    # would silently carry whole messages.
    assert "\\" not in _MESSAGE_SCRIPT
    assert all("\n" not in literal for literal in re.findall(r"'([^']*)'", _MESSAGE_SCRIPT))

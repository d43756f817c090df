"""This program's own log: what others named forges no line, and no neighbour can stop it."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from enrich.log_context import bound
from enrich.settings import Settings
from enrich.worker.logging import configure_logging, last_words
from enrich.worker.plain_text import clean, one_line

#: What a terminal would obey, and what hides or turns the text beside it.
HOSTILE = [
    *("\x1b[31m", "\x1b[2J\x1b[H", "\x9b31m", "\x1b]0;title\x07", "\x1b]8;;http://evil\x1b\\"),
    *("\x1bPq\x1b\\", "\x1b_x\x1b\\", "\x1b]0;never ended", "\x1b", "\x07", "\x08\x08", "\x7f"),
    *("\x85", "\x00", "\u202e", "\u202a", "\u2066", "\u200e", "\u200f", "\u061c", "\u200b"),
    *("\u200d", "\u2060", "\ufeff", "\u00ad", "\u2028", "\u2029", "\U000e0041", "\ud800"),
    *("\r", "\n", "\r\n2026-11-28 ERROR forged"),
]

SURE = frozenset("\x1b\x9b\x07\x08\x7f\x85\x00\r\n\u202e\u2066\u200b\u200e\u2028\ufeff\ud800")


@pytest.fixture
def logged(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Sets up logging into a file as a worker does; the file."""
    root = logging.getLogger()
    before = root.handlers[:], root.level

    def configure(form: str = "plain") -> Path:
        file = tmp_path / "enrich.log"
        settings = Settings(openai_api_key="x", enrich_log_file=str(file), enrich_log_format=form)  # type: ignore[arg-type]
        configure_logging(settings.enrich_log_file, settings.enrich_log_format)
        return file

    yield configure
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        handler.close()
    for handler in before[0]:
        root.addHandler(handler)
    root.setLevel(before[1])


def test_what_a_command_says_at_its_end_is_in_the_file_and_not_twice_on_the_terminal(
    logged: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file = logged()
    logging.getLogger("enrich.realtime").error("before")
    last_words.error("Kafka refused the login")
    assert "Kafka refused the login" in file.read_text()
    shown = capsys.readouterr().err
    assert "before" in shown and "Kafka refused" not in shown


@pytest.mark.parametrize("form", ["plain", "json"])
def test_a_name_forges_no_line_and_commands_no_terminal(
    logged: Callable[..., Path], capsys: pytest.CaptureFixture[str], form: str
) -> None:
    file = logged(form)
    for evil in HOSTILE:
        logging.getLogger("enrich").warning(
            "index %s: %s", f"a_{evil}b", evil, extra={"run": evil, "more": {evil: [evil]}}
        )
    for text in (file.read_text(encoding="utf-8"), capsys.readouterr().err):
        lines = text.split("\n")[:-1]
        assert len(lines) == len(HOSTILE)
        assert not SURE & set("".join(lines))
        if form == "json":
            told = [json.loads(line) for line in lines]
            assert not (SURE - {"\n"}) & set("".join(map(repr, told)).replace("\\n", "\n"))
            assert not any("\x1b" in entry["message"] for entry in told)


@pytest.mark.parametrize("form", ["plain", "json"])
def test_a_traceback_forges_no_line(logged: Callable[..., Path], form: str) -> None:
    file = logged(form)
    try:
        raise ValueError("x\n2026-11-28 10:00:00,000 ERROR Main[1] enrich run=- forged\x1b[31m")
    except ValueError:
        logging.getLogger("enrich").exception("it failed")
    lines = file.read_text(encoding="utf-8").splitlines()
    assert "\x1b" not in "".join(lines)
    assert [line for line in lines if not line.startswith("    ")] == lines[:1]
    assert "forged" in "".join(lines)


def test_what_is_hidden_is_seen_and_what_is_plain_stays() -> None:
    assert clean("a\x1b]0;the rest") == "a\ufffd]0;the rest"
    assert clean("\x1b[1mbold\x1b[0m\x1b]8;;http://x\x07link\x1b]8;;\x1b\\") == "boldlink"
    plain = "결제 실패: Überweisung ✓ ™ 日本 …\n\tat x"
    assert clean(plain) == plain
    assert one_line(plain) == "결제 실패: Überweisung ✓ ™ 日本 …\\n at x"


def test_log_and_lock_are_their_owners_alone(logged: Callable[..., Path]) -> None:
    file = logged()
    old = os.umask(0)
    try:
        # As a former version left them.
        file.touch(0o666)
        (file.parent / ".__enrich.lock").touch(0o755)
        logging.getLogger("enrich").warning("a line")
    finally:
        os.umask(old)
    made = [path for path in file.parent.iterdir() if path.name != ".env"]
    assert {path.name for path in made} == {"enrich.log", ".__enrich.lock"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {0o600}
    # The lock is the one that workers wait for, and it is free between two lines.
    with open(file.parent / ".__enrich.lock", "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("form", ["plain", "json"])
def test_what_is_bound_once_stands_in_every_line_below(
    logged: Callable[..., Path], form: str
) -> None:
    file = logged(form)
    with bound("first"):
        with bound("second", "second:1:0"):
            logging.getLogger("enrich.embedding").warning("in a chunk")
        logging.getLogger("enrich.backfill").warning("in a run")
    logging.getLogger("enrich").warning("outside")
    lines = file.read_text(encoding="utf-8").splitlines()
    if form == "json":
        told = [(json.loads(line)["run"], json.loads(line)["chunk"]) for line in lines]
        assert told == [("second", "second:1:0"), ("first", "-"), ("-", "-")]
    else:
        runs = ["run=second ", "run=first ", "run=- "]
        assert all(run in line for run, line in zip(runs, lines, strict=True))

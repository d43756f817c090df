"""The demo says what a file holds before it starts anything, asks about that file, and leaves a
command line that works while it runs.
"""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from dev import demo


def test_a_file_without_an_error_is_refused_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "calm.log"
    file.write_text("2026-11-22 10:11:12 INFO fine\nhello\n")

    assert demo.main(["--logs", str(file)]) == 2

    told = capsys.readouterr()
    assert "calm.log: UTF-8, 1 logs, 0 ERROR" in told.out
    assert "has no log of level ERROR" in told.err and "Traceback" not in told.err


def test_the_question_has_the_words_of_the_files_own_error(tmp_path: Path) -> None:
    file = tmp_path / "my.log"
    file.write_text("2026-11-22 10:11:12 ERROR [pid 7:tid 3] order 4711 has no price\n\tat x\n")

    summary = demo._look_at(file)

    assert demo._question(summary) == "order has no price"


def test_the_wrapper_works_while_the_demo_runs_and_says_so_when_it_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "SETTINGS", tmp_path / "settings.env")
    monkeypatch.setattr(demo, "WRAPPER", tmp_path / "enrich")
    demo._write_wrapper({"OPENAI_API_KEY": "sk-$x 'y'"})

    assert stat.S_IMODE((tmp_path / "settings.env").stat().st_mode) == 0o600
    assert "sk-" not in (tmp_path / "enrich").read_text()
    running = subprocess.run([tmp_path / "enrich", "--help"], capture_output=True, text=True)
    assert running.returncode == 0, running.stderr

    os.unlink(tmp_path / "settings.env")
    ended = subprocess.run([tmp_path / "enrich", "--help"], capture_output=True, text=True)
    assert ended.returncode == 1 and "not running any more" in ended.stderr


def test_the_bar_tells_the_rate_of_the_last_seconds() -> None:
    pace = demo.Pace()
    told = []
    for second, done in ((0, 0), (60, 0), (61, 100), (66, 600)):
        pace.see(float(second), done)
        told.append(demo._rate(pace, 1000 - done))

    # A slow minute at the start says nothing about the end; what is left is told once it is known.
    assert told == ["", "", "100/s", "100/s, 4 s left"]


def test_what_is_deferred_is_left_and_no_progress() -> None:
    pace = demo.Pace()
    for second in range(12):
        pace.see(float(second), 10 * second)
    before = demo._rate(pace, 80)
    # A minute in which every log was put off: nothing was done, so that nothing can be promised.
    for second in range(12, 80):
        pace.see(float(second), 110)

    assert before == "10/s, 8 s left"
    assert demo._rate(pace, 80) == ""
    assert demo._rate(pace, 0) == ""

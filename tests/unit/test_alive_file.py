"""The file that probes look at: what its presence and its age say of a worker and of beat, asked by
the very commands of deploy/kubernetes."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from enrich.errors import SettingsError
from enrich.worker.alive_file import AliveFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "alive"


def test_it_is_there_while_messages_are_taken(path: Path) -> None:
    file = AliveFile(str(path))
    path.write_text("")
    os.utime(path, (0, 0))
    file.begin()
    assert not path.exists(), "what an earlier process left says nothing of this one"
    file.touch()
    assert path.exists()
    os.utime(path, (0, 0))
    file.touch()
    assert path.stat().st_mtime > 0
    file.remove()
    file.remove()
    assert not path.exists()


def test_none_is_made_unless_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = AliveFile("")
    file.begin()
    file.touch()
    file.remove()
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_ends_the_start_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^ENRICH_ALIVE_FILE: .*/no/alive cannot be written"):
        AliveFile(str(tmp_path / "no" / "alive")).begin()


def test_trouble_later_is_said_once_and_ends_nothing(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = AliveFile(str(path / "gone" / "alive"))
    with caplog.at_level(logging.WARNING):
        file.touch()
        file.touch()
    assert [r.getMessage() for r in caplog.records] == [
        "ENRICH_ALIVE_FILE was not touched: No such file or directory"
    ]


def test_the_workers_heart_beats_in_the_file_too(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.chdir(tmp_path)
    from enrich.worker import app, heartbeat

    monkeypatch.setattr(
        app, "settings", app.settings.model_copy(update={"enrich_alive_file": str(path)})
    )
    beats: list[Callable[[], None]] = []

    def call_repeatedly(seconds: float, beat: Callable[..., None], args: tuple[Any, ...]) -> None:
        beats.append(lambda: beat(*args))

    timer = SimpleNamespace(call_repeatedly=call_repeatedly, cancel=lambda entry: None)
    consumer: Any = SimpleNamespace(
        timer=timer,
        hostname="w@h",
        app=SimpleNamespace(amqp=SimpleNamespace(queues=SimpleNamespace(consume_from=("q",)))),
        controller=SimpleNamespace(concurrency=1, max_concurrency=1),
    )
    step = heartbeat.Heartbeat(consumer)
    step.start(consumer)
    # Redis is away: the file tells of the event loop, not of Redis.
    assert path.exists()
    path.unlink()
    beats[0]()
    assert path.exists()
    # The connection is lost, or the worker ends.
    step.stop(consumer)
    assert not path.exists()


# -- what a probe makes of it


def answer(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, env={"PATH": os.defpath}).returncode == 0

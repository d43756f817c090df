"""The file that probes look at: when it is there, and when it is touched. What the probes make of
it is test_kubernetes.py's."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from enrich.errors import SettingsError
from enrich.worker.alive_file import AliveFile

ROOT = Path(__file__).parents[2]


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


#: Celery's consumer as far as the heartbeat's step knows it, in a process of its own: the app reads
#: its settings when it is imported, and is every task's from then on.
HEARTBEAT = """
import sys
from pathlib import Path
from types import SimpleNamespace as Some
from enrich.worker.heartbeat import Heartbeat

path, beats = Path(sys.argv[1]), []
timer = Some(call_repeatedly=lambda _, beat, args: beats.append(lambda: beat(*args)),
             cancel=lambda entry: None)
consumer = Some(timer=timer, hostname="w@h",
                app=Some(amqp=Some(queues=Some(consume_from=("q",)))),
                controller=Some(concurrency=1, max_concurrency=1))
step = Heartbeat(consumer)
seen = [path.exists()]
step.start(consumer)
seen.append(path.exists())
path.unlink(missing_ok=True)
beats[0]()
seen.append(path.exists())
step.stop(consumer)
seen.append(path.exists())
print(seen)
"""


def test_the_workers_heart_beats_in_the_file_too(path: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HEARTBEAT, str(path)],
        cwd=tmp_path,
        # Redis is away: the file tells of the event loop, not of Redis.
        env={
            "PYTHONPATH": str(ROOT),
            "OPENAI_API_KEY": "k",
            "REDIS_URL": "redis://127.0.0.1:1/0",
            "ENRICH_ALIVE_FILE": str(path),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    # Before, started, at the next beat, and when the connection is lost or the worker ends.
    assert done.stdout.strip() == "[False, True, True, False]"

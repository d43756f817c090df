"""Beat's schedule: at once, then at its interval, by a clock that nobody sets; and no file."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from celery import Celery
from celery.beat import SchedulingError

from enrich.worker.scheduler import RETRY_SECONDS, SteadyScheduler

CHECKOUT = Path(__file__).parents[2]
INTERVAL = 600.0


class Beat(SteadyScheduler):  # type: ignore[misc]
    """A scheduler whose clock is set by hand, and which notes when it sent what."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sent: list[float] = []
        self.refuses = False
        app = Celery("x", set_as_current=False)
        app.conf.beat_schedule = {"tick": {"task": "a.tick", "schedule": INTERVAL, "args": ("x",)}}
        super().__init__(app, clock=lambda: self.now)

    producer = None

    def apply_async(self, entry: Any, producer: Any = None, advance: bool = True, **_: Any) -> None:
        if self.refuses:
            raise SchedulingError("Redis is full")
        assert (entry.task, tuple(entry.args)) == ("a.tick", ("x",))
        self.sent.append(self.now)

    def run(self, until: float) -> None:
        while self.now < until:
            wait = self.tick()
            assert 0 <= wait <= self.max_interval
            self.now = min(until, self.now + max(wait, 0.001))


def test_the_first_tick_is_sent_at_once_and_then_one_each_interval() -> None:
    beat = Beat()
    beat.run(3 * INTERVAL + 1)
    assert [round(moment) for moment in beat.sent] == [0, 600, 1200, 1800]


@pytest.mark.parametrize("jump", [timedelta(hours=-1), timedelta(hours=1), timedelta(days=-9000)])
def test_a_host_whose_clock_is_set_goes_on_at_its_interval(jump: timedelta) -> None:
    beat = Beat()
    with time_machine.travel("2026-11-28 12:00", tick=False) as host:
        beat.run(INTERVAL + 1)
        host.shift(jump)
        beat.run(3 * INTERVAL + 1)
    assert [round(moment) for moment in beat.sent] == [0, 600, 1200, 1800]


def test_a_tick_that_cannot_be_sent_is_sent_soon_and_said(caplog: pytest.LogCaptureFixture) -> None:
    beat = Beat()
    beat.refuses = True
    with caplog.at_level(logging.ERROR):
        beat.run(2 * RETRY_SECONDS + 1)
    assert [record.getMessage() for record in caplog.records] == [
        "Redis is full; it is sent again in 5 seconds"
    ] * 3
    beat.refuses = False
    beat.run(20)
    assert len(beat.sent) == 1
    assert beat.now - beat.sent[0] <= RETRY_SECONDS


def test_celery_uses_it_reads_no_file_and_writes_none(tmp_path: Path) -> None:
    # What another user of the host left where Celery's own keeps its schedule.
    mine = tmp_path / "celerybeat-schedule"
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(trap),)

    mine.write_bytes(pickle.dumps(Trap()))
    program = (
        "from enrich.worker.app import app; from celery.apps.beat import Beat\n"
        "from celery.beat import Service\n"
        "beat = Beat(app=app)\n"
        "scheduler = Service(app, scheduler_cls=beat.scheduler_cls,"
        " schedule_filename=beat.schedule).get_scheduler()\n"
        "scheduler.sync(); scheduler.close(); print(type(scheduler).__name__)"
    )
    tmp_path.chmod(0o500)
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONPATH": str(CHECKOUT), "OPENAI_API_KEY": "x", "ENRICH_LOG_FILE": "none"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
    finally:
        tmp_path.chmod(0o700)
    assert (done.stdout, done.stderr) == ("SteadyScheduler\n", "")
    assert {path.name for path in tmp_path.iterdir()} == {mine.name}

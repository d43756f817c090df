"""One process of a stack: started in a session of its own, waited for, ended with its group."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dev.reaper import group_members, signal_group, start_time

#: Seconds between SIGTERM and SIGKILL.
GRACE = 15.0


class ServiceFailed(RuntimeError):
    """A service did not start; the message says which, why, and where its log is."""


class Service:
    """One process in a session of its own, with its log; made by `Services`, not directly."""

    def __init__(
        self,
        name: str,
        *,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: Path | None,
        log: Path,
        register: Callable[[str], None],
        url: str = "",
        port: int = 0,
        ready: Callable[[Service], bool] | None = None,
        patience: float = 30.0,
    ) -> None:
        self.name = name
        self.url = url
        self.port = port
        self.log = log
        self._argv = list(argv)
        self._env = dict(env)
        self._cwd = cwd
        self._register = register
        self._ready = ready
        self._patience = patience
        self._process: subprocess.Popen[bytes] | None = None
        self._begun: float | None = None
        self._log_start = 0

    @property
    def pid(self) -> int:
        """The process, which also leads its group."""
        if self._process is None:
            raise RuntimeError(f"{self.name} has not been started")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """How the process ended, None while it lives."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start, with the same port and data as before, and wait until it answers."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start without waiting."""
        if self.running:
            return
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as output:
            try:
                self._process = subprocess.Popen(
                    self._argv,
                    env=self._env,
                    cwd=self._cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise ServiceFailed(
                    f"{self.name} could not be started: {error.strerror} ({self._argv[0]})."
                ) from error
        self._begun = start_time(self.pid)
        self._register(f"+{self.pid}")

    def wait_ready(self) -> None:
        """Wait until the service answers; ServiceFailed when it ends or stays silent."""
        deadline = time.monotonic() + self._patience
        while self._ready is not None:
            if not self.running:
                raise self.failure(f"it ended at once with exit code {self.returncode}")
            try:
                if self._ready(self):
                    return
            except (OSError, http.client.HTTPException, ValueError):
                # Not up yet, or cut off half-way through an answer while it comes up.
                pass
            if time.monotonic() > deadline:
                failed = self.failure(f"it did not answer within {self._patience:.0f} s")
                self.kill()
                raise failed
            time.sleep(0.03)

    def stop(self, grace: float = GRACE) -> None:
        """SIGTERM to the whole group, and SIGKILL to what is left after `grace` seconds."""
        self._end(signal.SIGTERM, grace)

    def kill(self) -> None:
        """SIGKILL to the whole group, as a crash would end it."""
        self._end(signal.SIGKILL, 0.0)

    def _end(self, number: signal.Signals, grace: float) -> None:
        if self._process is None:
            return
        group = self._process.pid
        if self._process.returncode is None or group_members(group, self._begun):
            signal_group(group, number)
            deadline = time.monotonic() + grace
            while time.monotonic() < deadline and (
                self._process.poll() is None or group_members(group, self._begun)
            ):
                time.sleep(0.02)
            if self._process.poll() is None or group_members(group, self._begun):
                signal_group(group, signal.SIGKILL)
        self._process.wait()
        self._register(f"-{group}")

    def collided(self) -> bool:
        """Whether it ended because its port was taken."""
        return not self.running and "address already in use" in self._output().lower()

    def failure(self, fallback: str) -> ServiceFailed:
        """The failure to raise, explained by the log where that says anything."""
        reason = last_meaningful_line(self._output()) or fallback
        return ServiceFailed(f"{self.name} did not start: {reason} (log: {self.log})")

    def _output(self) -> str:
        """What it wrote since it was last started; the end of it, if that is long."""
        with self.log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, size - 200_000))
            return log.read().decode(errors="replace")


def last_meaningful_line(output: str) -> str:
    """The line of a log which most likely says why the process ended, at most 300 characters."""
    lines = []
    for raw in output.splitlines():
        line = raw.strip()
        # Not the frames of a Java or a Python traceback, nor the marks under its code, nor what
        # Java's logging says of itself.
        frame = re.match(r"(at |\.\.\. \d+ more|File \"|Traceback |SLF4J: )", line)
        if line and not frame and not re.fullmatch(r"[\^~]+", line) and not raw.startswith("    "):
            lines.append(line)
    telling = [
        line
        for line in lines
        if re.search(r"error|exception|fatal|cannot|could not|failed|in use", line, re.IGNORECASE)
    ]
    chosen = (telling or lines or [""])[-1]
    return chosen if len(chosen) <= 300 else chosen[:299] + "…"

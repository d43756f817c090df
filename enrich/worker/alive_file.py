"""The sign of life as a file, for probes that must not start a Python each time.

`celery inspect ping` takes a second of a core. This file is looked at by `find`, in a hundredth of
that. It is there while messages are taken, and its time is set again every fifteen seconds by the
worker's event loop, by beat whenever it wakes. A worker that waits for the broker has none: it
lives, and is not ready. One whose file grows old hangs, and has to be restarted.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

from enrich.errors import SettingsError

log = logging.getLogger(__name__)


class AliveFile:
    """One program's; with an empty path nothing is done."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._silent = False

    def begin(self) -> None:
        """Remove what an earlier process left, which would be old.

        Raises SettingsError: no file can be made there.
        """
        if not self._path:
            return
        try:
            Path(self._path).touch()
            os.unlink(self._path)
        except OSError as error:
            raise SettingsError(
                f"ENRICH_ALIVE_FILE: {self._path} cannot be written ({error.strerror}): name a "
                "file in a folder that this user may write to, or none"
            ) from None

    def touch(self) -> None:
        """Say that this process lives; a disk that is full costs a line in the log, no more."""
        if not self._path:
            return
        try:
            Path(self._path).touch()
        except OSError as error:
            if not self._silent:
                log.warning("ENRICH_ALIVE_FILE was not touched: %s", error.strerror)
            self._silent = True
        else:
            self._silent = False

    def remove(self) -> None:
        """Say that no message is taken for now, or any more."""
        if self._path:
            with suppress(OSError):
                os.unlink(self._path)

"""Something that goes on beside a measurement, in a thread, and whose troubles are not lost."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self


class Background:
    """Runs `work` in a thread while it is entered; what it raised is raised again at the end."""

    def __init__(self) -> None:
        #: Set when `work` shall end.
        self.over = threading.Event()
        self._trouble: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def work(self) -> None:
        """Go on until `over` is set."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.over.set()
        self._thread.join()
        # What is on its way already is likely the cause of this trouble too.
        if self._trouble is not None and error is None:
            raise self._trouble

    def _run(self) -> None:
        try:
            self.work()
        except BaseException as error:
            self._trouble = error

"""Logging: the main events on the console, everything in a rotating file that processes share.

Every line about a run carries its id. Libraries are kept above the level at which they print the
bodies of requests: log text must not come back into a log. What stands in a line is cleaned as on
every screen, and a record is one line, so that no name of an index can forge another. The file and
its lock are their owner's alone: who can open the lock can hold it, and stop every worker.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from concurrent_log_handler import ConcurrentRotatingFileHandler
from pythonjsonlogger.json import JsonFormatter

from enrich.log_context import ContextFields
from enrich.worker.plain_text import clean, one_line

FILE_BYTES = 20 * 1024 * 1024
FILES_KEPT = 5

#: Of the log file, those that were rotated, and the lock beside them.
PRIVATE = 0o600

#: Below WARNING these print addresses of every request, below INFO its whole body. "opensearch" is
#: not among them: `log_store.connection` silences it further, which must stand.
_TALKATIVE = (
    "opensearchpy.trace",
    "openai",
    "httpx",
    "httpx2",
    "httpcore2",
    "urllib3",
)


#: Whose INFO is a main event: this program's, a worker's being ready, beat's ticks.
_MAIN = ("enrich", "tasks", "celery.apps.worker", "celery.beat")


#: For the sentence with which a command ends, which the command line says on the terminal: it goes
#: to the file alone.
last_words = logging.getLogger("enrich.last_words")


class _MainEvents(logging.Filter):
    """Lets this program's INFO pass, and others from a level on."""

    def __init__(self, others: int) -> None:
        super().__init__()
        self._others = others

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name == last_words.name:
            return False
        ours = record.name.startswith(_MAIN)
        return record.levelno >= (min(logging.INFO, self._others) if ours else self._others)


class _PlainFormatter(logging.Formatter):
    """One line for each record; the lines of a traceback are indented below it."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return one_line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:
        return _indented(super().formatStack(stack_info))


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in clean(text).splitlines()).rstrip("\n")


class _JsonFormatter(JsonFormatter):
    """One object for each record, its texts cleaned before they are escaped."""

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        cleaned = {name: _cleaned(value) for name, value in log_data.items()}
        return super().process_log_record(cleaned)


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(name): _cleaned(part) for name, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_cleaned(part) for part in value]
    return value


def configure_logging(file: str, format: str, console_level: int = logging.WARNING) -> None:
    """Set up the root logger of this process.

    Args:
        file: ENRICH_LOG_FILE.
        format: ENRICH_LOG_FORMAT.
        console_level: from which level on libraries show on the console (`--loglevel`).

    Raises:
        OSError: the log file cannot be written.
    """
    formatter: logging.Formatter
    if format == "json":
        formatter = _JsonFormatter(
            "%(asctime)s %(levelname)s %(name)s %(processName)s %(process)d %(run)s %(chunk)s "
            "%(message)s"
        )
    else:
        formatter = _PlainFormatter(
            "%(asctime)s %(levelname)s %(processName)s[%(process)d] %(name)s run=%(run)s "
            "%(message)s"
        )
    console = logging.StreamHandler(sys.stderr)
    console.addFilter(_MainEvents(console_level))
    handlers: list[logging.Handler] = [console]
    if file != "none":
        to_file = ConcurrentRotatingFileHandler(
            file,
            maxBytes=FILE_BYTES,
            backupCount=FILES_KEPT,
            encoding="utf-8",
            # What is no text was replaced by the formatter.
            unicode_error_policy="replace",
            chmod=PRIVATE,
        )
        to_file.setLevel(logging.DEBUG)
        handlers.append(to_file)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    for handler in handlers:
        handler.setFormatter(formatter)
        handler.addFilter(ContextFields())
        root.addHandler(handler)
    root.setLevel(logging.INFO)
    for name in ("enrich", "tasks"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)

"""The workers from outside: who listens, and how a message reaches them.

Loads Celery only when it is entered: a screen of the command line that sends nothing starts
without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from enrich.errors import EnrichError, ServerUnavailable
from enrich.redis_client import translated

#: Queues without whose consumer a run stands still.
QUEUES = frozenset({"enrich.scan", "enrich.embed"})

#: How long an answer of a worker is waited for; a healthy one answers within milliseconds.
TIMEOUT_SECONDS = 2.0


class NoWorker(EnrichError):
    """Nobody would take what is published."""


class Workers:
    """Publishes the moves of a run; fits `enrich.backfill.publisher.Publisher`."""

    def __init__(self) -> None:
        from enrich.worker.app import app

        self._app = app

    def require(self) -> None:
        """Raises NoWorker if some queue has no consumer; ServerUnavailable without a broker."""
        missing = self.missing_queues()
        if missing == QUEUES:
            raise NoWorker("no worker answers: start one with `celery -A enrich worker`")
        if missing:
            raise NoWorker(
                f"no worker consumes the queue {', '.join(sorted(missing))}: start one with "
                "`celery -A enrich worker`, without -Q"
            )

    def missing_queues(self) -> frozenset[str]:
        """Queues that no worker consumes."""
        # The first to answer usually consumes both; only otherwise is everybody waited for. One
        # that takes no work, as its settings are not the deployment's, answers and consumes none.
        first = self._consumed(limit=1)
        missing = QUEUES - first if first is not None else QUEUES
        if missing and first is not None:
            missing = QUEUES - (self._consumed(limit=None) or frozenset())
        return missing

    def _consumed(self, limit: int | None) -> frozenset[str] | None:
        """Queues that those consume who answer; None if nobody does."""
        with _broker():
            inspect = self._app.control.inspect(timeout=TIMEOUT_SECONDS, limit=limit)
            answers: dict[str, list[dict[str, Any]]] | None = inspect.active_queues()
        if answers is None:
            return None
        return frozenset(queue["name"] for queues in answers.values() for queue in queues or ())

    def processes(self) -> tuple[int, int]:
        """How many workers answer, and how many processes they may have together."""
        with _broker():
            inspect = self._app.control.inspect(timeout=TIMEOUT_SECONDS)
            answers: dict[str, dict[str, Any]] = inspect.stats() or {}
        return len(answers), sum(map(_most_processes, answers.values()))

    # -- moves

    def find_unvectorized(self, trigger: str) -> None:
        self._send("find_unvectorized", trigger)

    def scan_page(self, run: str, page: int) -> None:
        self._send("scan_page", run, page)

    def embed_and_update(self, message: dict[str, Any]) -> None:
        self._send("embed_and_update", message, argsrepr=f"('{message['id']}',)")

    def finish_run(self, run: str) -> None:
        self._send("finish_run", run)

    def _send(self, move: str, *arguments: Any, **options: Any) -> None:
        with _broker():
            self._app.send_task(f"enrich.{move}", arguments, **options)


def _most_processes(stats: dict[str, Any]) -> int:
    autoscaler, pool = stats.get("autoscaler") or {}, stats.get("pool") or {}
    return int(autoscaler.get("max") or pool.get("max-concurrency") or 1)


@contextmanager
def _broker() -> Iterator[None]:
    from kombu.exceptions import OperationalError

    try:
        with translated():
            yield
    except OperationalError as error:
        raise ServerUnavailable(
            f"Redis cannot be reached ({type(error).__name__}): check REDIS_URL and that it runs"
        ) from None

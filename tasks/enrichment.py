"""The four tasks. A task names the move, the backfill makes it; no task holds a decision.

Only named errors are retried. A task returns one human line, which Flower shows from the event
although results are not stored. Every retry and continuation is published with fresh options.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

from celery import Task, shared_task
from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded
from celery.signals import worker_process_init
from kombu.exceptions import OperationalError

from enrich.assembly import build_backfill, build_ledger
from enrich.backfill import Backfill, ChunkBusy
from enrich.dropping import drop
from enrich.errors import (
    EnrichError,
    Halt,
    NotHere,
    RateLimited,
    ServerUnavailable,
    SettingsError,
    TransientError,
)
from enrich.models import Chunk
from enrich.settings import load_settings
from enrich.worker.last_resort import end_before_it_begins, end_run, reason_of
from tasks.own_request import OwnRequest
from tasks.retry import (
    HAND_ON_SECONDS,
    MAX_BACKOFF_SECONDS,
    MAX_PAUSES,
    MAX_RETRIES,
    after,
    backoff,
    pause_of,
    too_long,
)

log = logging.getLogger(__name__)

#: What a scan is tried again for.
_PASSING = (TransientError, SoftTimeLimitExceeded, MemoryError)

#: By which a task tells Celery what shall become of its delivery.
_CELERYS = (Retry, Reject, Ignore)


class _CeleryPublisher:
    """Sends the next moves through the broker."""

    def find_unvectorized(self, trigger: str) -> None:
        self._send(find_unvectorized, trigger)

    def scan_page(self, run: str, page: int) -> None:
        self._send(scan_page, run, page)

    def embed_and_update(self, message: dict[str, Any]) -> None:
        self._send(embed_and_update, message, argsrepr=_shown(message["id"]))

    def finish_run(self, run: str) -> None:
        self._send(finish_run, run)

    def _send(self, task: Task, *arguments: Any, **options: Any) -> None:
        try:
            task.apply_async(arguments, **options)
        except OperationalError:
            raise ServerUnavailable(
                "the broker takes no messages: check REDIS_URL, and that Redis runs and is not full"
            ) from None


@cache
def backfill() -> Backfill:
    """This process's backfill, built at its first task, which is after the fork."""
    return build_backfill(load_settings(), _CeleryPublisher())


@worker_process_init.connect
def _forget_parent(**_: Any) -> None:
    backfill.cache_clear()


@shared_task(
    bind=True, name="enrich.find_unvectorized", max_retries=MAX_RETRIES, Request=OwnRequest
)
def find_unvectorized(self: Task, trigger: Any = "beat", *_: Any, **__: Any) -> str:
    if not isinstance(trigger, str):
        return drop("not a tick")
    try:
        return backfill().tick(trigger)
    except NotHere as error:
        return _handed_on(self, error)
    except _PASSING as error:
        return _again_or_halt(self, "", error)
    except _CELERYS:
        raise
    except Exception as error:
        return _ended(self, "", error, trigger)


@shared_task(bind=True, name="enrich.scan_page", max_retries=MAX_RETRIES, Request=OwnRequest)
def scan_page(self: Task, run: Any = None, page: Any = None, *_: Any, **__: Any) -> str:
    if not isinstance(run, str) or not isinstance(page, int):
        return drop("not a page of a run")
    try:
        return backfill().scan(run, page)
    except NotHere as error:
        return _handed_on(self, error)
    except _PASSING as error:
        return _again_or_halt(self, run, error)
    except _CELERYS:
        raise
    except Exception as error:
        return _ended(self, run, error)


@shared_task(bind=True, name="enrich.finish_run", max_retries=MAX_RETRIES, Request=OwnRequest)
def finish_run(self: Task, run: Any = None, *_: Any, **__: Any) -> str:
    if not isinstance(run, str):
        return drop("not a run")
    try:
        return backfill().finish(run)
    except _PASSING as error:
        raise _published(self, error, **after(backoff(self.request.retries))) from None
    except _CELERYS:
        raise
    except Exception as error:
        return _ended(self, run, error)


@shared_task(bind=True, name="enrich.embed_and_update", max_retries=MAX_RETRIES, Request=OwnRequest)
def embed_and_update(self: Task, message: Any = None, pauses: int = 0, *_: Any, **__: Any) -> str:
    """`pauses` are those of the retries so far that only waited for a turn."""
    try:
        chunk = Chunk.from_message(message)
    except ValueError as error:
        return drop(str(error))
    try:
        return _handled(self, chunk, pauses)
    except _PASSING as error:
        # Redis could not even be told what became of it.
        raise _given_back(str(error)) from None
    except _CELERYS:
        raise
    except Exception as error:
        return _ended(self, chunk.run, error)


def _handled(task: Task, chunk: Chunk, pauses: int) -> str:
    """Raises Celery's Retry or Reject, or what is in the way of saying how it ended."""
    try:
        return backfill().embed_and_update(chunk)
    except ChunkBusy as error:
        if task.request.retries >= MAX_RETRIES:
            return f"dropped: {error}"
        # Should the other delivery be lost, this one goes on when its claim has ended.
        seconds = min(error.seconds + 0.1, MAX_BACKOFF_SECONDS)
        raise _again(task, chunk, error, seconds, pauses) from None
    except NotHere as error:
        if pauses >= MAX_PAUSES:
            # It stays open, and is deferred when its deadline has passed.
            return f"dropped: {error}"
        raise _again(task, chunk, error, HAND_ON_SECONDS, pauses + 1) from None
    except RateLimited as error:
        pause = pause_of(error)
        if reason := too_long(pause):
            backfill().halt(chunk.run, reason)
            return backfill().give_up(chunk, reason)
        if pauses >= MAX_PAUSES:
            return backfill().give_up(chunk, str(error))
        raise _again(task, chunk, error, pause, pauses + 1) from None
    except TransientError as error:
        tries = task.request.retries - pauses
        if tries >= MAX_RETRIES:
            return backfill().give_up(chunk, str(error))
        raise _again(task, chunk, error, backoff(tries), pauses) from None
    except (SoftTimeLimitExceeded, MemoryError) as error:
        return backfill().give_up(chunk, f"the worker ran into {type(error).__name__}")
    except (*_CELERYS, EnrichError):
        raise
    except Exception as error:
        # This chunk's alone: whose logs brought it about must not stop others'.
        log.error("chunk %s: %s", chunk.id, reason_of(error), extra={"run": chunk.run})
        return backfill().give_up(chunk, reason_of(error))


def _handed_on(task: Task, error: NotHere) -> str:
    """Give a tick or a page to whichever worker is next to look; a lost one is made up for by the
    next tick."""
    if task.request.retries >= MAX_PAUSES:
        return f"dropped: {error}"
    raise _published(task, error, max_retries=None, **after(HAND_ON_SECONDS)) from None


def _again(
    task: Task, chunk: Chunk, error: TransientError, seconds: float, pauses: int
) -> Exception:
    """Publish the chunk for another try; the exception that tells Celery so."""
    return _published(
        task,
        error,
        args=(chunk.to_message(), pauses),
        max_retries=None,
        argsrepr=_shown(chunk.id),
        **after(seconds),
    )


def _published(task: Task, error: Exception, **options: Any) -> Exception:
    """Publish another try; the exception that tells Celery so.

    When the broker does not take it, this delivery goes back to its queue. Celery would drop it.
    """
    outcome: Exception
    try:
        outcome = task.retry(exc=error, throw=False, **options)
    except Reject as unpublished:
        if not isinstance(unpublished.reason, OperationalError | SoftTimeLimitExceeded):
            raise
        outcome = _given_back("the next try could not be published")
    return outcome


def _given_back(why: str) -> Reject:
    """Put this delivery back into its queue, when Redis can be written to again."""
    log.warning("a message goes back to its queue: %s", why)
    return Reject(why, requeue=True)


def _shown(chunk_id: str) -> str:
    """What Flower and the log show of a chunk: its name, not its thousand references."""
    return f"('{chunk_id}',)"


def _again_or_halt(task: Task, run: str, error: Exception) -> str:
    """Try a scan again; when that is used up, end the run with the reason where people look."""
    if task.request.retries < MAX_RETRIES:
        raise _published(task, error, **after(backoff(task.request.retries))) from None
    try:
        run = run or backfill().active_run()
        if run:
            backfill().halt(run, str(error) or f"the scan ran into {type(error).__name__}")
    except (TransientError, Halt) as second:
        log.error("the run could not be halted: %s", second)
    return f"given up: {error}"


def _ended(task: Task, run: str, error: Exception, trigger: str = "") -> str:
    """End the run for what no task can work with: parts that cannot be built, or an error that was
    not foreseen. It is not tried again: the next tick begins a run anew, and says so anew."""
    reason = reason_of(error)
    # Not its text, which may quote a log.
    log.error("%s: %s", task.name, reason, extra={"run": run or "-"})
    settings = load_settings()
    try:
        ledger = build_ledger(settings)
        try:
            if run:
                end_run(ledger, run, reason)
            else:
                end_before_it_begins(ledger, trigger, settings.interval_seconds, reason)
        finally:
            ledger.close()
    except TransientError as second:
        raise _given_back(str(second)) from None
    except (Halt, SettingsError) as second:
        log.error("the run could not be ended: %s", second)
    return f"halted: {reason}"

"""The four tasks. A task names the move, the backfill makes it; no task holds a decision.

What becomes of an error is decided in tasks/retry.py and carried out here. A task returns one human
line, which Flower shows from the event although results are not stored. Every retry and
continuation is published with fresh options.

A message tells what it has been through: Celery's `retries` counts all its tries, `snoozes` those
that only waited for a turn, `waited` the seconds between the others. A worker of an older version
reads the `snoozes` of a chunk by their place and passes on what it does not know.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

from celery import Task, exceptions, shared_task
from celery.exceptions import Reject, SoftTimeLimitExceeded
from celery.signals import worker_process_init, worker_process_shutdown
from kombu.exceptions import OperationalError

from enrich import tracing
from enrich.backfill.run import Backfill
from enrich.errors import EnrichError, Halt, ServerUnavailable, SettingsError, TransientError
from enrich.log_context import bound
from enrich.models import Chunk
from enrich.settings import load_settings
from enrich.wiring import build_backfill, build_ledger, start_tracing
from enrich.worker.last_resort import end_before_it_begins, end_run, reason_of, record_runs
from enrich.worker.reject import drop
from tasks.own_request import OwnRequest
from tasks.retry import (
    Decision,
    Drop,
    GiveUp,
    HaltRun,
    Retry,
    Snooze,
    Tries,
    WorkerLimit,
    after,
    decide,
)

log = logging.getLogger(__name__)

#: By which a worker ends a task that needs too much.
_LIMITS = (SoftTimeLimitExceeded, MemoryError)

#: By which a task tells Celery what shall become of its delivery.
_CELERYS = (exceptions.Retry, exceptions.Reject, exceptions.Ignore)


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


@cache
def _trace() -> None:
    start_tracing(load_settings())


@worker_process_init.connect
def _forget_parent(**_: Any) -> None:
    backfill.cache_clear()
    _trace.cache_clear()


@worker_process_shutdown.connect
def _send_spans(**_: Any) -> None:
    tracing.close()


@shared_task(bind=True, name="enrich.find_unvectorized", max_retries=None, Request=OwnRequest)
def find_unvectorized(
    self: Task, trigger: Any = "beat", *_: Any, snoozes: Any = 0, waited: Any = 0.0, **__: Any
) -> str:
    if not isinstance(trigger, str):
        return drop("not a tick")
    return _handled(
        _Delivery(
            task=self,
            name="tick",
            arguments=(trigger,),
            tries=Tries.of(self.request.retries, snoozes, waited),
            do=lambda: backfill().tick(trigger),
            stop=lambda decision: _ended(self, "", decision.reason, trigger),
        )
    )


@shared_task(bind=True, name="enrich.scan_page", max_retries=None, Request=OwnRequest)
def scan_page(
    self: Task,
    run: Any = None,
    page: Any = None,
    *_: Any,
    snoozes: Any = 0,
    waited: Any = 0.0,
    **__: Any,
) -> str:
    if not isinstance(run, str) or not isinstance(page, int):
        return drop("not a page of a run")

    def stop(decision: GiveUp | HaltRun) -> str:
        backfill().halt(run, decision.reason)
        return f"halted: {decision.reason}"

    return _handled(
        _Delivery(
            task=self,
            name=f"page {page}",
            arguments=(run, page),
            tries=Tries.of(self.request.retries, snoozes, waited),
            run=run,
            do=lambda: backfill().scan(run, page),
            stop=stop,
        )
    )


@shared_task(bind=True, name="enrich.finish_run", max_retries=None, Request=OwnRequest)
def finish_run(
    self: Task, run: Any = None, *_: Any, snoozes: Any = 0, waited: Any = 0.0, **__: Any
) -> str:
    if not isinstance(run, str):
        return drop("not a run")
    return _handled(
        _Delivery(
            task=self,
            name="end",
            arguments=(run,),
            tries=Tries.of(self.request.retries, snoozes, waited),
            run=run,
            do=lambda: backfill().finish(run),
            # By the ledger alone: the backfill would publish this very task once more.
            stop=lambda decision: _ended(self, run, decision.reason),
        )
    )


@shared_task(bind=True, name="enrich.embed_and_update", max_retries=None, Request=OwnRequest)
def embed_and_update(
    self: Task, message: Any = None, snoozes: Any = 0, *_: Any, waited: Any = 0.0, **__: Any
) -> str:
    try:
        chunk = Chunk.from_message(message)
    except ValueError as error:
        return drop(str(error))

    def stop(decision: GiveUp | HaltRun) -> str:
        if isinstance(decision, HaltRun):
            backfill().halt(chunk.run, decision.reason)
        return backfill().give_up(chunk, decision.reason)

    return _handled(
        _Delivery(
            task=self,
            name=f"chunk {chunk.id}",
            arguments=(chunk.to_message(),),
            shown=_shown(chunk.id),
            tries=Tries.of(self.request.retries, snoozes, waited),
            run=chunk.run,
            chunk=chunk.id,
            # Reading and writing the same logs once more would take as much.
            limit=WorkerLimit,
            do=lambda: backfill().embed_and_update(chunk),
            stop=stop,
        )
    )


@dataclass(frozen=True, kw_only=True)
class _Delivery:
    """One delivery of a message: what it asks for, and what it has been through."""

    task: Task
    #: For the log.
    name: str
    arguments: tuple[Any, ...]
    #: What Flower shows of the arguments, if not all.
    shown: str = ""
    tries: Tries
    run: str = ""
    chunk: str = ""
    #: What a limit of the worker means for it.
    limit: type[EnrichError] = TransientError
    do: Callable[[], str]
    #: Carries out that it is not tried again.
    stop: Callable[[GiveUp | HaltRun], str]

    def decide(self, error: Exception) -> Decision:
        if isinstance(error, _LIMITS):
            error = self.limit(f"the worker ran into {type(error).__name__}")
        elif not isinstance(error, EnrichError):
            # Not its text, which may quote a log.
            log.error("%s: %s", self.name, reason_of(error))
        return decide(
            error,
            self.tries,
            outage_seconds=load_settings().enrich_outage_seconds,
            chance=random.random(),
            now=datetime.now(UTC),
        )

    def again(self, tries: Tries) -> dict[str, Any]:
        """The message that asks for it again. Workers of an older version look for the `snoozes` of
        a chunk in their place."""
        if self.shown:
            place, named = (tries.snoozes,), {"waited": tries.waited}
            return {"args": (*self.arguments, *place), "kwargs": named, "argsrepr": self.shown}
        named = {"snoozes": tries.snoozes, "waited": tries.waited}
        return {"args": self.arguments, "kwargs": named}


def _handled(delivery: _Delivery) -> str:
    """Raises Celery's Retry or Reject."""
    with bound(delivery.run, delivery.chunk):
        return _done(delivery)


def _done(delivery: _Delivery) -> str:
    try:
        _trace()
        with tracing.part_of(delivery.run, delivery.name.partition(" ")[0], work=delivery.name):
            return delivery.do()
    except _CELERYS:
        raise
    except Exception as error:
        failed = error
    decision = delivery.decide(failed)
    try:
        return _carried_out(delivery, decision, failed)
    except (TransientError, *_LIMITS) as second:
        # Redis could not even be told what became of it.
        raise _given_back(str(second)) from None
    except _CELERYS:
        raise
    except Exception as second:
        reason = decision.reason if isinstance(decision, GiveUp | HaltRun) else reason_of(second)
        return _ended(delivery.task, delivery.run, reason)


def _carried_out(delivery: _Delivery, decision: Decision, error: Exception) -> str:
    tries = delivery.tries
    match decision:
        case Drop(reason):
            return f"dropped: {reason}"
        case GiveUp() | HaltRun():
            return delivery.stop(decision)
        case Retry(seconds):
            tries = replace(tries, waited=tries.waited + seconds)
        case Snooze(seconds):
            tries = replace(tries, snoozes=tries.snoozes + 1)
    raise _published(delivery.task, error, **delivery.again(tries), **after(seconds))


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


def _ended(task: Task, run: str, reason: str, trigger: str = "") -> str:
    """End the run by the ledger alone, for what no task can work with: parts that cannot be built,
    or an error that was not foreseen. It is not tried again: the next tick begins a new run, and
    says so again."""
    log.error("%s: %s", task.name, reason)
    settings = load_settings()
    try:
        ledger = build_ledger(settings)
        try:
            if run:
                end_run(ledger, run, reason)
            else:
                end_before_it_begins(ledger, trigger, settings.interval_seconds, reason)
            record_runs(settings, ledger)
        finally:
            ledger.close()
    except TransientError as second:
        raise _given_back(str(second)) from None
    except (Halt, SettingsError) as second:
        log.error("the run could not be ended: %s", second)
    return f"halted: {reason}"

"""The heartbeat that workers and beat leave in Redis, and a worker's answer to what it finds.

Noted from the main process by its event loop's own timer, so that no thread is needed and a task
that hangs does not hide that its worker lives; the file for probes (alive_file) is touched at the
same time. A Redis that is away costs half a second and a line
in the log, never the worker. A worker whose configuration is not the deployment's stops consuming
and says why; it begins by itself once the others are gone (enrich/ledger/deployment.py).
"""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from typing import TYPE_CHECKING, Any

from celery import bootsteps

from enrich import __version__
from enrich.errors import EnrichError
from enrich.worker.alive_file import AliveFile

if TYPE_CHECKING:
    from enrich.ledger import Ledger
    from enrich.settings import Settings

log = logging.getLogger(__name__)

#: For one command: the worker's main process waits for nothing else meanwhile.
TIMEOUT_SECONDS = 0.5

#: Other deployments are told of this one once in so many signs of life.
BEATS_PER_DEPLOYMENT = 20

#: Of this process; a child that is forked from it notes nothing.
TOKEN = uuid.uuid4().hex[:12]


class Heartbeat(bootsteps.StartStopStep):  # type: ignore[misc]
    """A step of Celery's consumer: starts with each connection, before the first message."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._timer: Any = None
        self._beats = 0
        #: What was consumed before this step first looked.
        self._queues: tuple[str, ...] = ()
        self._refuses = ""
        self._said_at = 0.0
        self._silent = False
        self._kept_ledger: Ledger | None = None
        # Here and not above: enrich.worker.app imports this module.
        from enrich.worker.app import settings

        self._alive_file = AliveFile(settings.enrich_alive_file)

    def start(self, consumer: Any) -> None:
        self._queues = self._queues or tuple(consumer.app.amqp.queues.consume_from)
        self._beat(consumer, at_once=True)
        from enrich.ledger.deployment import BEAT_SECONDS

        self._timer = consumer.timer.call_repeatedly(BEAT_SECONDS, self._beat, (consumer,))

    def stop(self, consumer: Any) -> None:
        if self._timer is not None:
            consumer.timer.cancel(self._timer)
            self._timer = None
        self._alive_file.remove()

    def shutdown(self, consumer: Any) -> None:
        self.stop(consumer)
        try:
            self._ledger().deployment.forget_worker(TOKEN)
        except EnrichError as error:
            log.warning("the end of this worker was not recorded: %s", error)

    def _ledger(self) -> Ledger:
        if self._kept_ledger is None:
            from enrich.wiring import quick_ledger
            from enrich.worker.app import settings

            # Kept, as it is used again and again; the client sees by itself that a child of the
            # pool has another process, and shares no connection with it.
            self._kept_ledger = quick_ledger(settings, TIMEOUT_SECONDS, second_try=True)
        return self._kept_ledger

    def _beat(self, consumer: Any, *, at_once: bool = False) -> None:
        from enrich.ledger.deployment import Configuration, oddness
        from enrich.worker.app import settings

        self._alive_file.touch()
        mine = Configuration.of(settings)
        try:
            first = self._ledger().deployment.note_worker(self._note(consumer, mine))
            if self._beats % BEATS_PER_DEPLOYMENT == 0:
                self._tell_others(settings)
        except EnrichError as error:
            if not self._silent:
                log.warning("this worker's heartbeat was not recorded: %s", error)
            self._silent = True
            return
        self._silent = False
        self._beats += 1
        self._take_or_refuse(consumer, oddness(mine, first), settings, at_once=at_once)

    def _note(self, consumer: Any, mine: Any) -> Any:
        from enrich.ledger.deployment import NEVER, WorkerNote

        controller = consumer.controller
        return WorkerNote(
            token=TOKEN,
            name=str(consumer.hostname),
            host=socket.gethostname(),
            pid=os.getpid(),
            processes=max(int(controller.concurrency), int(controller.max_concurrency or 0)),
            queues=() if self._refuses else self._queues,
            version=__version__,
            configuration=mine,
            refuses=self._refuses,
            since=NEVER,
            seen=NEVER,
            seconds_ago=0.0,
        )

    def _take_or_refuse(
        self, consumer: Any, reason: str, settings: Settings, *, at_once: bool
    ) -> None:
        change = bool(reason) != bool(self._refuses)
        self._refuses = reason
        if reason and (change or time.monotonic() - self._said_at >= settings.interval_seconds):
            self._said_at = time.monotonic()
            log.error("this worker takes no work: %s", reason)
        if not change:
            return
        if not reason:
            log.warning("this worker takes work now: no other has other settings any more")
        act = consumer.cancel_task_queue if reason else consumer.add_task_queue
        for queue in self._queues:
            if at_once:
                # No message has been asked for yet.
                act(queue)
            else:
                consumer.call_soon(act, queue)
        # So that the others, and every screen, see it before the next heartbeat.
        try:
            from enrich.ledger.deployment import Configuration

            self._ledger().deployment.note_worker(self._note(consumer, Configuration.of(settings)))
        except EnrichError as error:
            log.warning("this worker's heartbeat was not recorded: %s", error)

    def _tell_others(self, settings: Settings) -> None:
        from enrich.ledger.deployment import place_of

        deployment = self._ledger().deployment
        place, patterns = place_of(settings, socket.gethostname()), _patterns(settings)
        try:
            deployment.note_deployment(place, patterns)
            for neighbour in deployment.neighbours(place, patterns):
                log.warning("%s", neighbour.sentence)
        except EnrichError as error:
            # A user of Redis that may use its own prefix only.
            log.debug("other deployments on this Redis cannot be seen: %s", error)


def _patterns(settings: Settings) -> tuple[str, ...]:
    return tuple(settings.index_expression.split(","))


def note_beat(ledger: Ledger, within: float) -> None:
    """Note that beat lives and means to be back within so many seconds; nothing is raised."""
    try:
        ledger.deployment.note_beat(TOKEN, socket.gethostname(), os.getpid(), within)
    except EnrichError as error:
        log.warning("beat's heartbeat was not recorded: %s", error)

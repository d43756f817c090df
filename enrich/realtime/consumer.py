"""The loop of the consumer: poll, gather, hand over, settle, commit.

Polling never waits for a batch: one thread works on a batch while this one gathers the next, and
stops taking messages where too much is gathered or nothing can go on. The order is always: a log
has its outcome, the ledger counts it, its offset is committed. Whatever dies in between is done
again, and recognises what was done.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from enrich.errors import EnrichError, TransientError
from enrich.ledger import Ledger
from enrich.ledger.owners import this_process
from enrich.ledger.realtime import ConsumerState, Doing, Partition, PartitionState
from enrich.log_context import bound
from enrich.realtime.batch_work import NOT_THERE, End
from enrich.realtime.gathering import Entry, Others, Track
from enrich.realtime.messages import MessageReader, Poison, WantedLog
from enrich.realtime.retrying import FIRST_PAUSE, again
from enrich.realtime.settling import Place, Settling, commit
from enrich.settings import Settings

log = logging.getLogger(__name__)

#: Messages that are asked for at once, and seconds for which they are waited for: while nothing is
#: at work, and while something is.
MESSAGES, POLL_SECONDS, SHORT_POLL_SECONDS = 2000, 0.1, 0.01

#: What a batch may have where many logs wait: both servers do several times as much in a second
#: with requests of so many.
MOST_LOGS, MOST_BYTES = 1000, 16 * 1024 * 1024
#: Batches that are gathered while one is at work, before no more is read.
BATCHES_AHEAD = 4

#: What is read and not settled, in logs without an outcome, in their bytes, and in all; beyond, no
#: more is read.
MOST_OPEN, MOST_OPEN_BYTES, MOST_PENDING = 10_000, 80 * 1024 * 1024, 200_000

#: Between two looks for a document that is not there yet.
LOOK_SECONDS = 1.0

#: For so long a batch is waited for when one of its partitions is given up, and at the end.
GIVE_UP_SECONDS, GRACE_SECONDS = 5.0, 10.0

#: Between two commits while much is read, between two notes of what this consumer does, and for how
#: long one of these speaks for it.
COMMIT_SECONDS, REPORT_SECONDS, ALIVE_SECONDS = 0.2, 2.0, 30.0

#: Between two announcements that there may be work which goes first.
ANNOUNCE_SECONDS = 30.0

#: Lines of the log about poison in a minute.
MOST_POISON_LINES = 100


class Message(Protocol):
    """A message, or an error in its place."""

    def error(self) -> object: ...
    def topic(self) -> str: ...
    def partition(self) -> int: ...
    def offset(self) -> int: ...
    def value(self) -> bytes | None: ...
    def timestamp(self) -> tuple[int, int]: ...


class Broker(Protocol):
    """Kafka, see `enrich.realtime.broker.Broker`."""

    #: What is wrong with the connection; "" while nothing is.
    trouble: str

    def join(self) -> None: ...
    def consume(self, most: int, seconds: float) -> Sequence[Message]: ...
    def note(self, error: object) -> None: ...
    def pause(self, places: Iterable[Place]) -> None: ...
    def resume(self, places: Iterable[Place]) -> None: ...
    def commit(self, offsets: Mapping[Place, int]) -> bool: ...
    def topic_id(self, topic: str) -> str: ...
    def begin_of(self, place: Place) -> int | None: ...
    def end_of(self, place: Place) -> int | None: ...
    def try_again(self) -> None: ...
    def close(self) -> None: ...


class Work(Protocol):
    """What is done with a batch, see `enrich.realtime.batch_work.BatchWork`."""

    run: str

    def work(
        self, logs: Sequence[WantedLog], *, tried: bool, give_up: str = ""
    ) -> list[End | None]: ...
    def prepare_again(self) -> None: ...


@dataclass(eq=False)
class _Batch:
    """Logs that are worked on together, and how often that was tried."""

    entries: list[Entry]
    logs: list[WantedLog] = field(default_factory=list)
    tries: int = 0
    give_up: str = ""
    ends: list[End | None] = field(default_factory=list)
    error: BaseException | None = None


class Consumer:
    """One process of the group."""

    def __init__(
        self,
        settings: Settings,
        reader: MessageReader,
        work: Work,
        ledger: Ledger,
        announce: Callable[[], None] = lambda: None,
        alive: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            announce: lets the backfill leave room in the quota; called again and again while
                partitions are assigned.
            alive: called again and again while the loop goes on.
            clock: seconds.
        """
        self._group = settings.consumer_group_id
        self._size = settings.enrichment_batch_size
        self._timeout = settings.enrichment_batch_timeout
        self._patience = settings.enrich_document_wait_seconds
        self._max_age = settings.enrich_max_age_days * 86_400
        self._reader = reader
        self._work = work
        self._ledger = ledger
        self._settling = Settling(ledger.realtime, self._group)
        self._announce = announce
        self._alive = alive
        self._clock = clock
        self._since = datetime.now(UTC)
        self._name = this_process()
        self._tracks: dict[Place, Track] = {}
        #: Wanted logs that are read and not handed over yet, and those whose documents are waited
        #: for, with the time of the next look.
        self._gathered: list[Entry] = []
        self._bytes = 0
        self._waiting: list[tuple[float, Entry]] = []
        self._waiting_bytes = 0
        #: The batch that is worked on; the one that is tried again later, when, and why.
        self._at_work: _Batch | None = None
        self._held: _Batch | None = None
        self._held_until = 0.0
        self._held_why = ""
        #: Why nothing can be counted now; "" while it can.
        self._ledger_why = ""
        self._settle_due = self._commit_due = self._report_due = self._announce_due = 0.0
        self._stopped_by_operator = False
        #: Why nothing is read now; "" while it is.
        self._paused_why = ""
        self._paused: set[Place] = set()
        #: The last reason that was noted for others to see.
        self._reported = ""
        #: Lines about poison of this minute, and when it ends.
        self._poison_lines, self._poison_lines_until = 0, 0.0
        self._stopping = threading.Event()
        self._inbox: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[_Batch] = queue.SimpleQueue()

    def stop(self) -> None:
        """End soon: finish what is under way, or give it up. May be called by a signal."""
        self._stopping.set()

    def run(self, broker: Broker) -> None:
        """Consume until `stop`.

        Raises:
            EnrichError: Kafka refuses this consumer.
        """
        self._broker = broker
        worker = threading.Thread(target=self._serve, name="batches", daemon=True)
        worker.start()
        try:
            self._consume()
        except EnrichError as error:
            # Whatever Redis says to it: the first trouble is what is told.
            with suppress(EnrichError):
                self._note("ended", str(error), 0.0)
            raise
        finally:
            self._inbox.put(None)
        with suppress(TransientError):
            self._ledger.realtime.leave(self._group, self._name)
        log.info("consumer %s has left the group", self._name)

    def _consume(self) -> None:
        try:
            self._broker.join()
            log.info("consumer %s of group %s has begun", self._name, self._group)
            while not self._stopping.is_set():
                self._turn()
            self._collect(GRACE_SECONDS)
            # What is not through by now is given up: it is not waited for with its partitions.
            self._at_work = None
        finally:
            # Partitions are revoked by it: what is through is settled and committed on the way.
            self._broker.close()

    def _turn(self) -> None:
        self._alive()
        busy = self._at_work is not None or self._is_due()
        seconds = SHORT_POLL_SECONDS if busy else POLL_SECONDS
        self._take(self._broker.consume(MESSAGES, seconds))
        self._collect()
        self._hand_over()
        self._settle()
        self._steer()
        self._report()

    # -- messages

    def _take(self, messages: Sequence[Message]) -> None:
        # Most messages are of another level: what is done for each of them bounds the speed.
        tracks, skips = self._tracks, self._reader.skips
        for message in messages:
            if (error := message.error()) is not None:
                self._broker.note(error)
                continue
            place = message.topic(), message.partition()
            track = tracks.get(place)
            if track is None:
                # Given up meanwhile.
                continue
            offset = message.offset()
            if offset != track.next and track.next is not None:
                track = self._see_jump(place, track, track.next, offset)
            track.next = offset + 1
            if skips(message.value()):
                track.add_other_level(offset)
            else:
                self._take_one(place, track, offset, message)

    def _take_one(self, place: Place, track: Track, offset: int, message: Message) -> None:
        produced = message.timestamp()[1]
        read = self._reader.read(
            message.value(), produced_at=produced / 1000 if produced > 0 else None
        )
        if read is None:
            track.add_other_level(offset)
        elif isinstance(read, Poison):
            self._tell_poison(place, offset, read)
            track.add(Others(offset, offset, "poison", read.value))
        elif self._max_age and read.log_time < time.time() - self._max_age:
            track.add(Others(offset, offset, "excluded"))
        else:
            entry = Entry(read, offset, self._clock())
            track.add(entry)
            self._gathered.append(entry)
            self._bytes += entry.size

    def _see_jump(self, place: Place, track: Track, expected: int, offset: int) -> Track:
        """Tell why another message comes than the next; the track that it belongs to."""
        if offset < expected:
            log.warning(
                "the offsets of %s/%d begin anew: its topic was made anew or cut off", *place
            )
            track.drop()
            track = Track(Partition(place[0], self._broker.topic_id(place[0]), place[1]))
            self._tracks[place] = track
            self._forget_dropped()
            return track
        oldest = self._broker.begin_of(place)
        # Otherwise they were compacted away, or tell of transactions.
        if oldest is not None and expected < oldest <= offset:
            log.warning(
                "messages of %s/%d from offset %d to %d are gone from Kafka (retention): the "
                "backfill finds their logs", *place, expected, oldest - 1,
            )  # fmt: skip
        return track

    def _tell_poison(self, place: Place, offset: int, poison: Poison) -> None:
        now = self._clock()
        if now >= self._poison_lines_until:
            self._poison_lines, self._poison_lines_until = 0, now + 60.0
        self._poison_lines += 1
        if self._poison_lines < MOST_POISON_LINES:
            log.warning("poison at %s/%d offset %d: %s", *place, offset, poison.value)
        elif self._poison_lines == MOST_POISON_LINES:
            log.warning("more poison is counted without a line of its own for a minute")

    # -- batches

    def _is_due(self) -> bool:
        """Whether a batch could begin."""
        now = self._clock()
        if self._gathered and (
            len(self._gathered) >= self._size
            or self._bytes >= MOST_BYTES
            or now - self._gathered[0].read_at >= self._timeout
        ):
            return True
        return bool(self._waiting) and self._waiting[0][0] <= now

    def _hand_over(self) -> None:
        """Give the worker the batch that is tried again, or the next."""
        if self._at_work is not None:
            return
        batch = self._held
        if batch is not None:
            if self._clock() < self._held_until:
                return
            self._held = None
            batch.entries = [entry for entry in batch.entries if entry.is_open]
        elif self._is_due():
            batch = _Batch(self._cut())
        if batch is None or not batch.entries:
            self._held_why = ""
            return
        batch.logs = [entry.log for entry in batch.entries if entry.log is not None]
        self._at_work = batch
        self._inbox.put(batch)

    def _cut(self) -> list[Entry]:
        """The next batch: what is looked for again, and what is gathered."""
        now = self._clock()
        due = [entry for at, entry in self._waiting if at <= now][:MOST_LOGS]
        self._waiting = self._waiting[len(due) :]
        self._waiting_bytes -= sum(entry.size for entry in due)
        size, taken = 0, 0
        for entry in self._gathered[: max(0, max(self._size, MOST_LOGS) - len(due))]:
            if taken and size + entry.size > MOST_BYTES:
                break
            size += entry.size
            taken += 1
        due += self._gathered[:taken]
        self._gathered = self._gathered[taken:]
        self._bytes -= size
        return due

    def _serve(self) -> None:
        """The thread of batches."""
        with bound(self._work.run):
            while (batch := self._inbox.get()) is not None:
                try:
                    batch.ends = self._work.work(
                        batch.logs, tried=batch.tries > 0, give_up=batch.give_up
                    )
                except BaseException as error:
                    # Weighed, or raised again, by the thread that waits for the batch.
                    batch.error = error
                self._done.put(batch)

    def _collect(self, seconds: float = 0.0) -> None:
        """Take the batch that is through, waiting for it for so long."""
        if self._at_work is None:
            return
        try:
            batch = self._done.get(timeout=seconds) if seconds else self._done.get_nowait()
        except queue.Empty:
            return
        self._at_work = None
        if batch.error is not None:
            self._hold(batch, batch.error)
            return
        self._held_why = ""
        now = self._clock()
        for entry, end in zip(batch.entries, batch.ends, strict=True):
            if not entry.is_open:
                continue
            if end is not None:
                entry.end(end.outcome, end.reason, end.latency)
            elif now - entry.read_at >= self._patience:
                entry.end("left", NOT_THERE)
            else:
                self._waiting.append((now + LOOK_SECONDS, entry))
                self._waiting_bytes += entry.size

    def _hold(self, batch: _Batch, error: BaseException) -> None:
        """Try a batch again later."""
        batch.tries += 1
        decision = again(error, batch.tries)
        if decision is None:
            raise error
        if decision.look_again:
            self._work.prepare_again()
        if str(error) != self._held_why:
            log.warning("%d logs wait: %s", len(batch.entries), error)
        if batch.give_up and decision.give_up:
            # Not even what they have become can be found out.
            for entry in batch.entries:
                if entry.is_open:
                    entry.end("left", str(error))
            self._held_why = ""
            return
        batch.error, batch.give_up = None, str(error) if decision.give_up else ""
        self._held, self._held_until = batch, self._clock() + decision.seconds
        self._held_why = str(error)

    # -- outcomes become offsets

    def _settle(self) -> None:
        now = self._clock()
        if self._ledger_why:
            if now < self._settle_due:
                return
        elif now < self._settle_due and not any(
            track.has_through() and isinstance(track.pending[0], Entry)
            for track in self._tracks.values()
        ):
            # Messages of other levels are settled as a batch would be.
            return
        self._settle_due = now + self._timeout
        if self._count(self._tracks.values()) and now >= self._commit_due:
            self._commit_due = now + COMMIT_SECONDS
            commit(self._broker, self._tracks.values())

    def _count(self, tracks: Collection[Track]) -> bool:
        """Whether what is through is counted now."""
        try:
            self._settling.count(tracks)
        except TransientError as error:
            # Nothing is committed that is not counted.
            if str(error) != self._ledger_why:
                log.warning("nothing is committed: %s", error)
            self._ledger_why = str(error)
            self._settle_due = self._clock() + FIRST_PAUSE
            return False
        self._ledger_why = ""
        return True

    # -- how much is read

    def _steer(self) -> None:
        """Pause partitions while nothing can go on or too much is open; then let them go on."""
        self._paused_why = self._why_paused()
        if self._paused_why:
            if new := self._tracks.keys() - self._paused:
                self._broker.pause(new)
                self._paused |= new
        elif self._paused:
            self._broker.resume(self._paused & self._tracks.keys())
            self._paused.clear()

    def _why_paused(self) -> str:
        if self._held_why:
            # Also while the batch is tried again.
            return self._held_why
        if self._ledger_why:
            return self._ledger_why
        if self._stopped_by_operator:
            return "an operator has paused it: `python -m enrich resume` lets it go on"
        at_work = self._at_work.entries if self._at_work is not None else ()
        if len(self._gathered) + len(self._waiting) + len(at_work) >= MOST_OPEN:
            return _FULL
        if self._bytes + self._waiting_bytes >= MOST_OPEN_BYTES:
            return _FULL
        if sum(len(track.pending) for track in self._tracks.values()) >= MOST_PENDING:
            return _FULL
        # What the client has read ahead of a paused partition is read again: not for each batch.
        full = 1 if self._paused_why == _FULL else BATCHES_AHEAD
        if at_work and (
            len(self._gathered) >= full * MOST_LOGS or self._bytes >= full * MOST_BYTES
        ):
            return _FULL
        return ""

    def _report(self) -> None:
        """Note what this consumer does, and look whether it shall go on."""
        now = self._clock()
        paused = "" if self._paused_why == _FULL else self._paused_why
        if now < self._report_due and paused == self._reported:
            return
        self._report_due, self._reported = now + REPORT_SECONDS, paused
        if self._broker.trouble:
            self._broker.try_again()
        try:
            if self._tracks and now >= self._announce_due:
                self._announce()
                self._announce_due = now + ANNOUNCE_SECONDS
            self._stopped_by_operator = self._ledger.controls.paused()
            doing: Doing = "paused" if paused else "working" if self._at_work else "waiting"
            has = [self._state(place, one) for place, one in self._tracks.items()]
            self._note(doing, paused or self._broker.trouble, ALIVE_SECONDS, has)
        except TransientError as error:
            log.info("the state of this consumer is not noted: %s", error)

    def _note(
        self, doing: Doing, why: str, seconds: float, partitions: Sequence[PartitionState] = ()
    ) -> None:
        """Let others see what this consumer does. Args: seconds: that it counts as alive."""
        self._ledger.realtime.report(
            self._group,
            self._name,
            ConsumerState(
                host=socket.gethostname(),
                pid=os.getpid(),
                since=self._since,
                doing=doing,
                why=why,
                partitions=partitions,
            ),
            seconds,
        )

    def _state(self, place: Place, track: Track) -> PartitionState:
        return PartitionState(
            topic=place[0],
            number=place[1],
            position=track.next,
            committed=track.committed,
            end=self._broker.end_of(place),
        )

    # -- the group: called by `Broker.consume` and `Broker.close`

    def assigned(self, partitions: Mapping[Partition, int | None]) -> None:
        """These are this consumer's from now on, each with its committed offset, if any."""
        for partition, committed in partitions.items():
            place = partition.topic, partition.number
            self._tracks[place] = Track(
                partition, next=committed, settled=committed, committed=committed
            )
            self._paused.discard(place)
        log.info("partitions assigned: %s", _named((p.topic, p.number) for p in partitions))

    def revoked(self, places: Collection[Place]) -> None:
        """These are given up: the batch at work is finished for them, or dropped."""
        mine = [self._tracks[place] for place in places if place in self._tracks]
        ours = {id(one) for track in mine for one in track.pending}
        if self._at_work is not None and any(id(one) in ours for one in self._at_work.entries):
            self._collect(GIVE_UP_SECONDS)
        if self._count(mine):
            commit(self._broker, mine)
        log.info("partitions revoked: %s", _named(places))
        self._drop(places)

    def lost(self, places: Collection[Place]) -> None:
        """These belong to others already, who do again whatever was not committed."""
        log.warning("partitions lost: %s", _named(places))
        self._drop(places)

    def _drop(self, places: Collection[Place]) -> None:
        for place in places:
            if track := self._tracks.pop(place, None):
                track.drop()
            self._paused.discard(place)
        self._forget_dropped()

    def _forget_dropped(self) -> None:
        self._gathered = [entry for entry in self._gathered if entry.is_open]
        self._bytes = sum(entry.size for entry in self._gathered)
        self._waiting = [(due, entry) for due, entry in self._waiting if entry.is_open]
        self._waiting_bytes = sum(entry.size for _, entry in self._waiting)


_FULL = "as much is read as may wait"


def _named(places: Iterable[Place]) -> str:
    return ", ".join(f"{topic}/{number}" for topic, number in places) or "none"

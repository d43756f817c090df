"""A broker in memory, for tests and for trying things without Kafka: topics, and what one member of
a group sees of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from enrich.ledger.realtime import Partition
from enrich.realtime.consumer import Message
from enrich.realtime.settling import Place


@dataclass(frozen=True)
class MemoryMessage:
    """As a client of Kafka gives it."""

    place: Place
    at: int
    content: bytes | None
    #: Milliseconds since the epoch.
    produced: int

    def error(self) -> object:
        return None

    def topic(self) -> str:
        return self.place[0]

    def partition(self) -> int:
        return self.place[1]

    def offset(self) -> int:
        return self.at

    def value(self) -> bytes | None:
        return self.content

    def timestamp(self) -> tuple[int, int]:
        return 1, self.produced


@dataclass
class MemoryPartition:
    """A partition and what a group has committed of it."""

    topic_id: str = "1"
    messages: list[MemoryMessage] = field(default_factory=list)
    #: The oldest offset that is still there.
    begin: int = 0
    committed: int | None = None
    #: Where the member that has it reads next.
    position: int = 0


class InMemoryBroker:
    """`enrich.realtime.consumer.Broker`; whoever tests gives and takes partitions."""

    def __init__(self, group: Callable[[], Mapping[str, Callable[..., None]]]) -> None:
        """Args: group: what is called when partitions come and go, by `assigned` and `revoked`."""
        self._group = group
        self.partitions: dict[Place, MemoryPartition] = {}
        self.assigned: set[Place] = set()
        self.paused: set[Place] = set()
        self.trouble = ""
        self.polls = 0
        self.closed = False
        #: Called at each poll, before messages are given.
        self.at_poll: Callable[[], None] = lambda: None
        #: Whether a commit succeeds.
        self.takes_commits = True

    def produce(self, place: Place, *contents: bytes | None, produced: int = 0) -> None:
        partition = self.partitions.setdefault(place, MemoryPartition())
        for content in contents:
            at = partition.begin + len(partition.messages)
            partition.messages.append(MemoryMessage(place, at, content, produced))

    def make_anew(self, place: Place) -> None:
        """Delete a topic and make it again; who reads it begins at its beginning."""
        old = self.partitions[place]
        self.partitions[place] = MemoryPartition(str(int(old.topic_id) + 1))

    def remove_before(self, place: Place, offset: int) -> None:
        """Remove messages, as Kafka does when they are old; reading goes on with what is left."""
        partition = self.partitions[place]
        partition.messages = partition.messages[offset - partition.begin :]
        partition.begin = offset
        partition.position = max(partition.position, offset)

    def assign(self, *places: Place) -> None:
        for place in places:
            partition = self.partitions.setdefault(place, MemoryPartition())
            partition.position = max(partition.committed or 0, partition.begin)
        self.assigned |= set(places)
        self._group()["assigned"](
            {
                Partition(place[0], self.partitions[place].topic_id, place[1]): self.partitions[
                    place
                ].committed
                for place in places
            }
        )

    def revoke(self, *places: Place, lost: bool = False) -> None:
        if lost:
            self.assigned -= set(places)
        self._group()["lost" if lost else "revoked"](places)
        self.assigned -= set(places)
        self.paused -= set(places)

    # -- what the consumer asks for

    def join(self) -> None:
        self.assign(*self.partitions)

    def consume(self, most: int, seconds: float) -> Sequence[Message]:
        self.polls += 1
        self.at_poll()
        given: list[MemoryMessage] = []
        for place in sorted(self.assigned - self.paused):
            partition = self.partitions[place]
            some = partition.messages[partition.position - partition.begin :][: most - len(given)]
            partition.position += len(some)
            given += some
        return given

    def note(self, error: object) -> None:
        raise AssertionError(error)

    def pause(self, places: Iterable[Place]) -> None:
        self.paused |= set(places)

    def resume(self, places: Iterable[Place]) -> None:
        self.paused -= set(places)

    def commit(self, offsets: Mapping[Place, int]) -> bool:
        if not self.takes_commits:
            return False
        for place, offset in offsets.items():
            assert place in self.assigned, "a partition is committed that was given up"
            self.partitions[place].committed = offset
        return True

    def topic_id(self, topic: str) -> str:
        return next(p.topic_id for place, p in self.partitions.items() if place[0] == topic)

    def begin_of(self, place: Place) -> int | None:
        return self.partitions[place].begin

    def end_of(self, place: Place) -> int | None:
        partition = self.partitions[place]
        return partition.begin + len(partition.messages)

    def try_again(self) -> None:
        self.trouble = ""

    def close(self) -> None:
        self.revoke(*self.assigned)
        self.closed = True

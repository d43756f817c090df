"""What `check` asks of Kafka, without joining the group: brokers, topics, group, lag, rights."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from enrich.errors import AccessRefused, EnrichError, ServerUnavailable, SettingsError
from enrich.realtime.broker import (
    CLIENT_ID,
    TIMEOUT_SECONDS,
    admin_options,
    named,
    refused_options,
)
from enrich.settings import Settings

# After the broker, which says what to install where it is not there.
from confluent_kafka import (  # isort: skip
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # isort: skip
    AclOperation,
    AdminClient,
    OffsetSpec,
)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    id: str
    brokers: int


@dataclass(frozen=True, kw_only=True)
class Topic:
    """A topic that is there and that this client may see."""

    name: str
    partitions: Sequence[int]
    may_read: bool


@dataclass(frozen=True, kw_only=True)
class GroupState:
    """The consumers' group. One that never was is `dead`, without members."""

    state: str
    #: Of each member: its client id, and how many partitions it has.
    members: Sequence[tuple[str, int]]
    may_read: bool

    @property
    def strangers(self) -> list[str]:
        """Client ids of members that are not ours."""
        return sorted({name for name, _ in self.members if name != CLIENT_ID})


@dataclass(frozen=True, kw_only=True)
class Offsets:
    """Of one partition."""

    topic: str
    number: int
    #: None where the group has committed none.
    committed: int | None
    first: int
    end: int

    @property
    def lag(self) -> int:
        """Messages that are left; from the first where nothing is committed."""
        return max(0, self.end - max(self.first, self.committed or 0))

    @property
    def removed(self) -> int:
        """Messages that Kafka has removed before they were read."""
        return 0 if self.committed is None else max(0, self.first - self.committed)


@dataclass
class _Troubles:
    """What the client says on the way, which tells more than the time-out in the end."""

    seen: list[Any] = field(default_factory=list)

    def note(self, error: Any) -> None:
        self.seen.append(error)


class Inspection:
    """Asks; changes nothing."""

    def __init__(self, settings: Settings) -> None:
        """Raises SettingsError: the client does not take its options."""
        self._settings = settings
        self._troubles = _Troubles()
        try:
            self._admin = AdminClient(admin_options(settings) | {"error_cb": self._troubles.note})
        except (KafkaException, ValueError, TypeError) as error:
            raise SettingsError(refused_options(error)) from None

    def cluster(self) -> Cluster:
        """
        Raises:
            ServerUnavailable: no broker answers.
            AccessRefused: login or certificate are refused.
        """
        # In short turns: the client tries again for as long, also what is refused.
        found = self._asked(lambda: self._admin.list_topics(timeout=1.0))
        return Cluster(id=found.cluster_id or "", brokers=len(found.brokers))

    def topic(self, name: str) -> Topic | None:
        """One topic; None where there is none. Raises EnrichError, as where it may not be seen."""
        try:
            found = self._asked(
                lambda: _only(
                    self._admin.describe_topics(
                        TopicCollection([name]),
                        include_authorized_operations=True,
                        request_timeout=TIMEOUT_SECONDS,
                    )
                ),
                passing=KafkaError.UNKNOWN_TOPIC_OR_PART,
            )
        except KafkaException:
            return None
        return Topic(
            name=name,
            partitions=[one.id for one in found.partitions],
            may_read=_may_read(found.authorized_operations),
        )

    def group(self) -> GroupState:
        """Raises EnrichError, as where it may not be seen."""
        try:
            found = self._asked(
                lambda: _only(
                    self._admin.describe_consumer_groups(
                        [self._settings.consumer_group_id],
                        include_authorized_operations=True,
                        request_timeout=TIMEOUT_SECONDS,
                    )
                ),
                passing=KafkaError.GROUP_ID_NOT_FOUND,
            )
        except KafkaException:
            return GroupState(state="dead", members=[], may_read=True)
        return GroupState(
            state=found.state.name.replace("_", " ").lower(),
            members=[
                (member.client_id, len(member.assignment.topic_partitions))
                for member in found.members
            ],
            may_read=_may_read(found.authorized_operations),
        )

    def offsets(self, topics: Sequence[Topic]) -> list[Offsets]:
        """Of all partitions of the topics. Raises EnrichError."""
        places = [(topic.name, number) for topic in topics for number in topic.partitions]
        if not places:
            return []
        group = self._settings.consumer_group_id
        of_group = self._asked(
            lambda: _only(
                self._admin.list_consumer_group_offsets(
                    [ConsumerGroupTopicPartitions(group)], request_timeout=TIMEOUT_SECONDS
                )
            )
        )
        committed = {
            (one.topic, one.partition): one.offset
            for one in of_group.topic_partitions
            if one.offset >= 0
        }
        first = self._asked(lambda: self._bounds(places, OffsetSpec.earliest()))  # type: ignore[no-untyped-call]
        end = self._asked(lambda: self._bounds(places, OffsetSpec.latest()))  # type: ignore[no-untyped-call]
        return [
            Offsets(
                topic=place[0],
                number=place[1],
                committed=committed.get(place),
                first=first[place],
                end=end[place],
            )
            for place in places
        ]

    def _bounds(
        self, places: Sequence[tuple[str, int]], spec: OffsetSpec
    ) -> Mapping[tuple[str, int], int]:
        asked = {TopicPartition(*place): spec for place in places}
        answers = self._admin.list_offsets(asked, request_timeout=TIMEOUT_SECONDS)
        return {(one.topic, one.partition): got.result().offset for one, got in answers.items()}

    def _asked(self, ask: Callable[[], Any], passing: int | None = None) -> Any:
        """An answer; what passes by itself, such as a coordinator that is being chosen, is waited
        for.

        Raises:
            KafkaException: with the code `passing`, which the caller knows.
            EnrichError: any other, in our words.
        """
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            try:
                return ask()
            except KafkaException as error:
                if error.args[0].code() == passing:
                    raise
                told = self._told_by(error.args[0])
                if not isinstance(told, ServerUnavailable) or time.monotonic() >= deadline:
                    raise told from None
                time.sleep(0.2)

    def _told_by(self, error: Any) -> EnrichError:
        self._admin.poll(0)
        told = [named(self._settings, one) for one in (error, *self._troubles.seen)]
        return next((one for one in told if isinstance(one, AccessRefused)), told[0])


def _only(answers: Mapping[Any, Any]) -> Any:
    """The result of the one thing that was asked for."""
    (answer,) = answers.values()
    return answer.result()


def _may_read(operations: Sequence[AclOperation] | None) -> bool:
    """Brokers without an authorizer, or of old versions, may not say."""
    return operations is None or AclOperation.READ in operations
